"""TCP ports of this machine on which no process listens."""

from __future__ import annotations

import socket
from contextlib import ExitStack


def free_port() -> int:
    """Return a free port."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of *count* ports in a row that are free."""
    while True:
        with ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(count)]
            sockets[0].bind(("127.0.0.1", 0))
            first: int = sockets[0].getsockname()[1]
            try:
                for number, sock in enumerate(sockets[1:], 1):
                    sock.bind(("127.0.0.1", first + number))
            except (OSError, OverflowError):  # one of the others is taken, or there is none
                continue
            return first
