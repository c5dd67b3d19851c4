"""The bytes that wait in this process until clients read them, and who is dropped when they become too many.

An answer waits when the client's side of the connection is full, and then nothing more is written to it. So one
connection keeps little, and thousands that are not read keep a lot.
"""

from __future__ import annotations

from typing import Protocol

# The share of all bytes that the connections of one principal may keep.
_SHARE = 4


class Connection(Protocol):
    """What can be dropped."""

    def drop(self) -> None:
        """Close it at once."""


class Unread:
    """Counts the bytes that wait, of *most* in all.

    Above a principal's share, its connection that has waited longest is dropped; above *most*, one of the principal
    that keeps most. Its client can come back and resume, and no client that reads is dropped.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[
            str, dict[Connection, int]
        ] = {}  # by principal: connections in the order in which they stopped
        self._sizes: dict[str, int] = {}
        self._principals: dict[Connection, str] = {}
        self.size = 0

    def __repr__(self) -> str:
        return f"<Unread {len(self._principals)} connections, {self.size} bytes>"

    def stopped(self, connection: Connection, principal: str, size: int) -> None:
        """Note that *size* bytes wait on a connection until its client reads."""
        self.went_on(connection)
        self._waiting.setdefault(principal, {})[connection] = size
        self._principals[connection] = principal
        self._sizes[principal] = self._sizes.get(principal, 0) + size
        self.size += size
        while self._sizes.get(principal, 0) > self._most // _SHARE:
            self._drop_first(principal)
        while self.size > self._most:
            self._drop_first(max(self._sizes, key=self._sizes.__getitem__))

    def went_on(self, connection: Connection) -> None:
        """Note that the client has read, or that the connection is closed. Harmless if nothing waited."""
        principal = self._principals.pop(connection, None)
        if principal is None:
            return
        size = self._waiting[principal].pop(connection)
        self._sizes[principal] -= size
        self.size -= size
        if not self._waiting[principal]:
            del self._waiting[principal], self._sizes[principal]

    def _drop_first(self, principal: str) -> None:
        connection = next(iter(self._waiting[principal]))
        self.went_on(connection)
        connection.drop()
