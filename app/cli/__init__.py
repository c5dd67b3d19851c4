"""The command line: serve, ask, key, check, simulate.

Each command is a module with two functions: `add_parser` says which arguments it takes, and `run` runs it and returns
the process's exit status.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from app import __version__
from app.cli import ask, check, key, serve, simulate
from app.cli.process import drop_stdout, flush_stderr
from app.composition.settings import SettingsError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit status."""
    parser = argparse.ArgumentParser(
        prog="chat-sse", description="Streams OpenAI chat completions to browsers and shells over Server-Sent Events."
    )
    parser.add_argument("-V", "--version", action="version", version=f"chat-sse {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in (serve, ask, key, check, simulate):
        command.add_parser(commands).set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        status = run(arguments)
        sys.stdout.flush()
        return status
    except SettingsError as error:
        print(f"chat-sse: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # of `| head`, say
        drop_stdout()
        return 141  # what a shell says of a process that SIGPIPE ended
    except KeyboardInterrupt:
        return 130
    finally:
        flush_stderr()
