"""TCP ports of this machine on which no process listens."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

# Below those that the kernel gives to connections, and to who asks for any port: it gives a free one of these to nobody
# between the moment when it is chosen and the moment when it is needed. https://docs.kernel.org/networking/ip-sysctl.html
# has the range as `ip_local_port_range`.
_FIRST, _LAST = 10_000, 32_767


def free_port() -> int:
    """Return a free port."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """Return the first of *count* ports in a row that are free."""
    while True:
        # Not of `random`, which tests seed: two that run at once would choose the same ports.
        first = _FIRST + secrets.randbelow(_LAST + 2 - count - _FIRST)
        with ExitStack() as held:
            try:
                for port in range(first, first + count):
                    held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:  # one of them is taken
                continue
            return first
