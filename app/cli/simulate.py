"""`chat-sse simulate`: run the simulated upstream alone."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Mapping

from app import simulator
from app.cli.process import Commands, add_command, allow_many_sockets, cannot_listen, run_loop, say
from app.composition.settings import SettingsError
from app.simulator.models import MODELS, Model


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = add_command(
        commands,
        "simulate",
        "run the simulated upstream alone",
        "Run the simulated upstream alone. It speaks OpenAI's API: chat completions, Responses, models.",
        "example:\n  chat-sse simulate --port 8001\n  OPENAI_BASE_URL=http://127.0.0.1:8001/v1 chat-sse serve",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8001, help="port to listen on (default: 8001); 0 picks a free one")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    run_loop(simulate(arguments.host, arguments.port))
    return 0


async def simulate(host: str, port: int, models: Mapping[str, Model] = MODELS) -> None:
    """Run a simulator with *models* until the process is told to stop. Raises SettingsError."""
    allow_many_sockets()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        serving = await simulator.serve(host, port, models=models)
    except OSError as error:
        raise SettingsError(cannot_listen(host, port, error)) from None
    async with serving as running:
        say(f"chat-sse simulator listens on {running.url}")
        await stopped.wait()
