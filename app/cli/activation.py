"""A listening socket that the parent passes, as systemd does for a `.socket` unit. It outlives this process."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from app.composition.settings import SettingsError

_FIRST = 3  # the first descriptor that a parent passes


def passed_listener(first: int = _FIRST) -> socket.socket | None:
    """Take the listening socket that the parent passes, or return None if it passes none.

    This is the protocol of sd_listen_fds(3): `LISTEN_FDS` is how many sockets there are, from descriptor *first* on,
    and `LISTEN_PID` is the process that they are for. The children of this process do not see these variables. Raises
    SettingsError.
    """
    count, process = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if not count or process != str(os.getpid()):
        return None
    if count != "1":
        raise SettingsError(f"LISTEN_FDS is {count!r}, and the service takes 1 listening socket.")
    with suppress(OSError):  # the descriptor is closed, or something else than a socket
        listener = socket.socket(fileno=first)
        if _takes_connections(listener):
            listener.set_inheritable(False)
            return listener
        listener.close()
    raise SettingsError(f"LISTEN_FDS is 1, and descriptor {first} is not a listening TCP socket.")


def _takes_connections(passed: socket.socket) -> bool:
    is_tcp = passed.family in (socket.AF_INET, socket.AF_INET6)
    return is_tcp and bool(passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
