"""What commands have in common: sockets, descriptors, the event loop, and what they print for people."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import resource
import socket
import sys
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TextIO, TypeAlias

import uvloop

from app.composition.settings import SettingsError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""What `ArgumentParser.add_subparsers` returns, which has no public name."""


def allow_many_sockets() -> int:
    """Raise the soft limit on open files, which is often 1024, to the hard one, and return that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def say(line: str) -> None:
    """Write *line* for the person who started the process. Nothing is said if stderr is closed."""
    with suppress(OSError):
        print(line, file=sys.stderr, flush=True)


def add_command(commands: Commands, name: str, summary: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Add the command *name*. Its `--help` says the *description*, and the *epilog* as it stands, with examples."""
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def complain(message: str, status: int = 1) -> int:
    """Say what went wrong, and return the exit *status* for it."""
    print(f"chat-sse: {message}", file=sys.stderr)
    return status


def drop_stdout() -> None:
    """Drop what stdout still holds, because its reader is gone."""
    _redirect_to_nowhere(sys.stdout)


def flush_stderr() -> None:
    """Write what stderr still holds; drop it if it cannot be written.

    A log whose reader is gone is no reason to report a failure.
    """
    try:
        sys.stderr.flush()
    except OSError:
        _redirect_to_nowhere(sys.stderr)


def _redirect_to_nowhere(stream: TextIO) -> None:
    """Have Python's own flush succeed: it flushes *stream* when it ends, and exits with status 120 if that fails.

    The redirection is the one that Python's documentation gives for a broken pipe (library/signal, "Note on SIGPIPE").
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* in an event loop of its own."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def listen(host: str, port: int, reader_timeout: float = 0) -> socket.socket:
    """Return a listening socket, with `bound_readers`. Raises SettingsError if the address cannot be listened on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=4096)
    except (OSError, OverflowError) as error:
        raise SettingsError(cannot_listen(host, port, error)) from None
    bound_readers(listener, reader_timeout)
    return listener


def bound_readers(listener: socket.socket, reader_timeout: float) -> None:
    """Have the kernel drop a connection whose peer accepts no data for *reader_timeout* seconds; 0 is no limit.

    The peer does not read, or its network is gone. A timeout for each send would cost more than the send.
    """
    if reader_timeout:
        seconds = max(1, round(reader_timeout))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(reader_timeout * 1000))
        # A reader that has stopped reading holds this much of the kernel's memory, instead of up to 4 MiB.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)


def cannot_listen(host: str, port: int, error: Exception) -> str:
    """Return a sentence that says why an address cannot be listened on, and what helps."""
    advice = {
        errno.EADDRINUSE: "Another program listens there: stop it, or choose another port with --port.",
        errno.EACCES: "Ports below 1024 need a privilege: choose another port with --port.",
        errno.EADDRNOTAVAIL: "This machine has no such address: see --host.",
    }.get(getattr(error, "errno", None) or 0, "")
    return f"cannot listen on {url(host, port)}: {error}. {advice}".rstrip()


def url(host: str, port: int) -> str:
    """Return the URL of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
