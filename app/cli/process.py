"""What the commands that serve have in common: sockets, descriptors, the loop, and the first line."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from app.composition.settings import SettingsError


def allow_many_sockets() -> int:
    """Raise the soft limit on open files to the hard one, and return it: 1024, the usual, are soon used up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def say(line: str) -> None:
    """Write *line* for the person who started the process."""
    print(line, file=sys.stderr, flush=True)


def complain(message: str) -> int:
    """Say what went wrong, and return the exit status for it."""
    print(f"chat-sse: {message}", file=sys.stderr)
    return 1


def flush_stderr() -> None:
    """Write what stderr still holds; drop it if it cannot be written.

    Python flushes stderr when it ends, and exits with status 120 if that fails. A log whose reader is gone is no reason
    to report a failure. The redirection is the one that Python's documentation gives for a broken pipe
    (library/signal, "Note on SIGPIPE").
    """
    try:
        sys.stderr.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run *main* in a loop of its own."""
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
        raise SettingsError(f"cannot listen on {url(host, port)}: {error}.") from None
    if reader_timeout:
        seconds = max(1, round(reader_timeout))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, seconds // 3))
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(reader_timeout * 1000))
        # What a reader that has stopped reading may pin in the kernel: else up to 4 MiB each.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)
    return listener


def url(host: str, port: int) -> str:
    """Return the url of what listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
