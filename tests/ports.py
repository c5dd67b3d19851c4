"""TCP ports of this machine on which no process listens."""

from __future__ import annotations

import secrets
import socket
from contextlib import ExitStack

# Below the ports that the kernel chooses itself, for connections and for servers that leave the choice to it
# (`ip_local_port_range` in https://docs.kernel.org/networking/ip-sysctl.html). A port of these that is free stays so
# until the test listens there.
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
