"""`chat-sse simulate`: the simulated upstream alone."""

from __future__ import annotations

import argparse
import asyncio
import signal

from app import simulator
from app.cli.process import allow_many_sockets, run, say, url
from app.composition.settings import SettingsError


def simulate(arguments: argparse.Namespace) -> int:
    """Run the command."""
    run(_until_stopped(arguments.host, arguments.port))
    return 0


async def _until_stopped(host: str, port: int) -> None:
    allow_many_sockets()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        serving = await simulator.serve(host, port)
    except OSError as error:
        raise SettingsError(f"cannot listen on {url(host, port)}: {error}.") from None
    async with serving as running:
        say(f"chat-sse simulator listens on {running.url}")
        await stopped.wait()
