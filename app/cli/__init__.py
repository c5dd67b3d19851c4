"""The command line: serve, ask, key, check, simulate."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from app import __version__
from app.cli.ask import ask
from app.cli.check import run_check
from app.cli.process import complain, flush_stderr, listen, say
from app.cli.serve import serve
from app.cli.simulate import simulate
from app.composition.settings import CLIENT_KEY, PREFIX, SettingsError, environment, load
from app.edge.access import api_keys
from app.request import UNLIMITED

__all__ = ["listen", "main"]

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
    finally:
        flush_stderr()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="chat-sse", description="Streams OpenAI chat completions to browsers and shells over Server-Sent Events."
    )
    parser.add_argument("--version", action="version", version=f"chat-sse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    serving = commands.add_parser("serve", help="run the service", description="Run the service.")
    serving.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    serving.add_argument("--port", type=int, help="port to listen on (default: 8000); 0 picks a free one")
    serving.add_argument("--workers", type=int, help="processes that share the port (default: 1)")
    # What a supervisor tells each worker: its number, and the descriptors it inherits.
    for name in ("--worker", "--control", "--listener", "--metrics-listener"):
        serving.add_argument(name, type=int, help=argparse.SUPPRESS)
    serving.set_defaults(command=serve)

    asking = commands.add_parser("ask", help="ask a running service and print the answer as it comes")
    asking.add_argument("prompt", help="the prompt; - reads it from standard input")
    asking.add_argument("--url", default=DEFAULT_URL, help=f"the service (default: {DEFAULT_URL})")
    asking.add_argument("--model", help="the model (default: the service's)")
    asking.add_argument("--chunk", help="how deltas are cut, e.g. word or time:50 (default: the service's)")
    asking.add_argument("--key", help=f"API key or JWT (default: ${CLIENT_KEY}, which no list of processes shows)")
    asking.set_defaults(command=ask)

    key = commands.add_parser("key", help="make an API key, and the line of settings that lets it in")
    key.add_argument("name", help="whose it is: a name for logs, of letters, digits, '.', '_' and '-'")
    key.set_defaults(command=_key)

    check = commands.add_parser("check", help="say whether the settings are right, and what they mean")
    check.add_argument("file", nargs="?", type=Path, help=f"TOML file (default: {PREFIX}CONFIG)")
    check.add_argument("--ask", action="store_true", help="ask each upstream for one token, too")
    check.set_defaults(command=_check)

    simulating = commands.add_parser("simulate", help="run the simulated upstream alone")
    simulating.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    simulating.add_argument("--port", type=int, default=8001, help="port to listen on (default: 8001); 0: a free one")
    simulating.set_defaults(command=simulate)
    return parser


def _key(arguments: argparse.Namespace) -> int:
    key = api_keys.new_key()
    line = f"{arguments.name}:{api_keys.digest(key)}"
    try:
        api_keys.parse(line, UNLIMITED)
    except ValueError as error:
        return complain(str(error))
    print(key)
    say(f"This is the only time it is shown. To let it in: {PREFIX}API_KEYS={line}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    return run_check(load(), environment(), arguments.file, ask=arguments.ask)
