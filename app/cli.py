"""The command line: serve, ask, key, check, simulate."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import uvloop

from app import __version__
from app.check import run_check
from app.edge import api_keys
from app.main import compose
from app.model import UNLIMITED
from app.server import Server
from app.settings import CLIENT_KEY, PREFIX, Settings, SettingsError, environment, load
from app.telemetry import configure
from app.upstream import simulator

DEFAULT_URL = "http://127.0.0.1:8000"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status."""
    arguments = _parser().parse_args(argv)
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except SettingsError as error:
        print(f"chat-sse: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat-sse", description="Streams OpenAI chat completions to browsers and shells over Server-Sent Events."
    )
    parser.add_argument("--version", action="version", version=f"chat-sse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    serve = commands.add_parser("serve", help="run the service", description="Run the service.")
    serve.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: 8000); 0 picks a free one")
    serve.set_defaults(command=_serve)

    ask = commands.add_parser("ask", help="ask a running service and print the answer as it comes")
    ask.add_argument("prompt", help="the prompt; - reads it from standard input")
    ask.add_argument("--url", default=DEFAULT_URL, help=f"the service (default: {DEFAULT_URL})")
    ask.add_argument("--model", help="the model (default: the service's)")
    ask.add_argument("--chunk", help="how deltas are cut, e.g. word or time:50 (default: the service's)")
    ask.add_argument("--key", help=f"API key or JWT (default: ${CLIENT_KEY}, which no list of processes shows)")
    ask.set_defaults(command=_ask)

    key = commands.add_parser("key", help="make an API key, and the line of settings that lets it in")
    key.add_argument("name", help="whose it is: a name for logs, of letters, digits, '.', '_' and '-'")
    key.set_defaults(command=_key)

    check = commands.add_parser("check", help="say whether the settings are right, and what they mean")
    check.add_argument("file", nargs="?", type=Path, help=f"TOML file (default: {PREFIX}CONFIG)")
    check.add_argument("--ask", action="store_true", help="ask each upstream for one token, too")
    check.set_defaults(command=_check)

    simulate = commands.add_parser("simulate", help="run the simulated upstream alone")
    simulate.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    simulate.add_argument("--port", type=int, default=8001, help="port to listen on (default: 8001); 0: a free one")
    simulate.set_defaults(command=_simulate)
    return parser


def _serve(arguments: argparse.Namespace) -> int:
    given = {name: value for name in ("host", "port") if (value := getattr(arguments, name)) is not None}
    _run(_serve_until_stopped(load(**given)))
    return 0


async def _serve_until_stopped(settings: Settings) -> None:
    log = configure(settings.log_level, settings.log_format)
    # Half of them for readers: the other half is upstream's.
    max_connections = min(settings.max_connections, max(16, _allow_many_sockets() // 2))
    async with compose(settings, log) as service:
        listener = listen(settings.host, settings.port, settings.reader_timeout)
        upstream = service.upstream
        if settings.simulated:
            upstream = "the built-in simulator (OPENAI_API_KEY or OPENAI_BASE_URL switches to a real one)"
        where = _url(*listener.getsockname()[:2])

        def announce() -> None:
            _announce(f"chat-sse {__version__} listens on {where}, upstream: {upstream}")
            # What was made until now stays; looking at it again and again is what makes a collection long. And a delta
            # makes a few objects that die at once, so collections need not be as frequent as the default has them.
            gc.freeze()
            gc.set_threshold(20_000, 20, 100)

        server = Server(service.app, service.hub, settings.shutdown_grace, announce, max_connections)
        await server.run_on(listener)


def _ask(arguments: argparse.Namespace) -> int:
    prompt: str = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if not prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        return _complain("the prompt is not UTF-8")
    fields = {"prompt": prompt, "model": arguments.model, "chunk": arguments.chunk}
    body = {name: value for name, value in fields.items() if value is not None}
    key: str = arguments.key or os.environ.get(CLIENT_KEY, "")
    if not key.isascii() or not key.isprintable():
        return _complain("the key is not printable ASCII")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with (
            httpx.Client(base_url=arguments.url, headers=headers, timeout=httpx.Timeout(60, read=60)) as client,
            httpx_sse.connect_sse(client, "POST", "/v1/chat", json=body) as source,
        ):
            if source.response.status_code != 200:
                return _complain(_error_of(source.response.read()))
            for event in source.iter_sse():
                match event.event, event.json():
                    case "delta", {"content": str(text)}:
                        print(text, end="", flush=True)
                    case "done", done:
                        print()
                        return 0 if done["finish_reason"] == "stop" else _complain(f"ended by {done['finish_reason']}")
                    case "error", {"error": {"message": message}}:
                        print()
                        return _complain(message)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return _complain(f"{arguments.url}: {str(error) or type(error).__name__}")
    print()
    return _complain("the answer was cut off")


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the service answered with an error"


def _complain(message: str) -> int:
    print(f"chat-sse: {message}", file=sys.stderr)
    return 1


def _key(arguments: argparse.Namespace) -> int:
    key = api_keys.new_key()
    line = f"{arguments.name}:{api_keys.digest(key)}"
    try:
        api_keys.parse(line, UNLIMITED)
    except ValueError as error:
        return _complain(str(error))
    print(key)
    _announce(f"This is the only time it is shown. To let it in: {PREFIX}API_KEYS={line}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    return run_check(load(), environment(), arguments.file, ask=arguments.ask)


def _simulate(arguments: argparse.Namespace) -> int:
    _run(_simulate_until_stopped(arguments.host, arguments.port))
    return 0


async def _simulate_until_stopped(host: str, port: int) -> None:
    _allow_many_sockets()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        serving = await simulator.serve(host, port)
    except OSError as error:
        raise SettingsError(f"cannot listen on {_url(host, port)}: {error}.") from None
    async with serving as running:
        _announce(f"chat-sse simulator listens on {running.url}")
        await stopped.wait()


def _allow_many_sockets() -> int:
    """Raise the soft limit on open files to the hard one, and return it: 1024, the usual, are soon used up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def listen(host: str, port: int, reader_timeout: float = 0) -> socket.socket:
    """Return a listening socket. Raises SettingsError if there is none to be had at that address.

    Its connections inherit that a peer which takes nothing for *reader_timeout* seconds, its window shut or its network
    gone, is given up by the kernel: a timeout per send would cost more than the send.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"cannot listen on {_url(host, port)}: {error}.") from None
    if reader_timeout:
        seconds = max(1, round(reader_timeout))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(reader_timeout * 1000))
        # What a reader that has stopped reading may pin in the kernel: else up to 4 MiB each.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
    return listener


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
