"""Which tool call a piece belongs to, where upstreams leave out, repeat or renumber what should tell."""

from __future__ import annotations

import re
import zlib
from collections.abc import Container

# A backslash and what it escapes, unless that comes with the next piece; and what else matters to JSON's structure.
_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))
# From how many characters on a piece is looked at as a whole: a mark in it costs 150 ns otherwise.
_LONG = 16 * 1024
# How many strings with brackets in them are told apart in such a piece.
_MOST_STRINGS = 64 * 1024


class ToolCalls:
    """The calls of one stream, numbered by us: densely, in order of appearance."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._last_at: dict[int | None, _Call] = {}  # by the upstream's index; by None, the last call of all
        self._known: dict[tuple[int | None, str], _Call] = {}  # by the upstream's index, or None, and the id
        self._sent_ids: set[str] = set()
        self._touched: set[int] = set()  # the calls that the pieces of this chunk belong to

    def begin_chunk(self) -> None:
        """Expect the pieces of another chunk."""
        self._touched.clear()

    @property
    def number(self) -> int:
        """How many calls have begun."""
        return len(self._calls)

    def has(self, id: str, name: str, arguments: str) -> bool:
        """Return whether a whole call is one of these: by its id, or, as ids may differ, by all the rest."""
        return (id != "" and (None, id) in self._known) or any(
            call.name == name and call.arguments.are(arguments) for call in self._calls
        )

    def place(self, index: int | None, id: str, name: str, arguments: str) -> tuple[int, str, str] | None:
        """Return our index for a piece, and what is news of its id and its name.

        None if the piece is a whole call that came before.
        """
        call = self._find(index, id)
        if call is not None and call.is_repeated_by(id, name, arguments):
            return None
        if call is None or self._is_another(call, index, id, name, arguments):
            call = _Call(len(self._calls), indexed=index is not None)
            self._calls.append(call)
        self._touched.add(call.index)
        self._last_at[index] = call
        self._last_at[None] = call
        new_id = ""
        if id and not call.id:
            call.id = id
            self._known[index, id] = call
            self._known[None, id] = call
            new_id = unused(id, self._sent_ids)
            self._sent_ids.add(new_id)
        call.arguments.add(arguments)
        return call.index, new_id, call.grow_name(name)

    def _find(self, index: int | None, id: str) -> _Call | None:
        """Return the call that a piece belongs to by its id and its index alone."""
        call = self._known.get((index, id)) or self._last_at.get(index)
        if call is None:
            by_id = self._known.get((None, id))
            if by_id is not None and not by_id.indexed:  # only the first piece had no index
                return by_id
        return call

    def _is_another(self, call: _Call, index: int | None, id: str, name: str, arguments: str) -> bool:
        """Return whether a piece begins another call than *call*, to which it belongs by its id and its index."""
        says_more = bool(arguments.strip())
        if id and call.id and id != call.id:
            if not name:  # row X12: each piece may have an id of its own
                return call.arguments.whole and says_more
            return name != call.name or call.arguments.whole or not call.arguments.begun  # row X2
        if not name or not call.name:
            return False
        if not call.arguments.begun:  # row X13: the name goes on, unless the calls of one chunk have no arguments
            return index is None and not id and call.index in self._touched
        if name == call.name:
            return call.arguments.whole and says_more  # rows X1, X14
        return True


def unused(id: str, used: Container[str]) -> str:
    """Return *id*, or if it is *used* already, another one that begins with it (row X14)."""
    number = 2
    unique = id
    while unique in used:
        unique = f"{id}-{number}"
        number += 1
    return unique


class _Call:
    """What is known of one call. *id* is the upstream's."""

    __slots__ = ("arguments", "id", "index", "indexed", "name")

    def __init__(self, index: int, indexed: bool) -> None:
        self.index = index
        self.indexed = indexed
        self.id = ""
        self.name = ""
        self.arguments = _Arguments()

    def grow_name(self, name: str) -> str:
        """Return what is news of *name*, which may be a piece, the whole name again, or all of it so far."""
        if not name or name == self.name:
            return ""
        news = name.removeprefix(self.name)
        self.name += news
        return news

    def is_repeated_by(self, id: str, name: str, arguments: str) -> bool:
        """Return whether a piece is this whole call again."""
        return id != "" and (id, name) == (self.id, self.name) and self.arguments.are(arguments)


class _Arguments:
    """The arguments of a call, of which no more is kept than tells whether they have *begun* and are *whole* JSON."""

    __slots__ = ("_checksum", "_depth", "_escaped", "_in_string", "_size", "begun", "whole")

    def __init__(self) -> None:
        self.begun = False
        self.whole = False
        self._depth = 0
        self._in_string = False
        self._escaped = False  # whether the last piece ended within an escape
        self._size = 0
        self._checksum = 0

    def add(self, piece: str) -> None:
        """Take the next piece."""
        if not piece:
            return
        if len(piece) < _LONG:
            self._follow(piece)
        else:
            self._follow_long(piece)
        backslashes = len(piece) - len(piece.rstrip("\\"))
        # The first one is escaped itself if the piece is nothing but backslashes and the piece before ended in one.
        self._escaped = (backslashes + (self._escaped and backslashes == len(piece))) % 2 == 1
        self.begun = self.begun or not piece.isspace()
        self._size += len(piece)
        self._checksum = _checksum(piece, self._checksum)

    def _follow(self, piece: str) -> None:
        """Note the strings and the brackets of *piece*."""
        for mark in _MARKS.findall(piece, int(self._escaped)):
            if mark[0] == "\\":
                continue
            if mark == '"':
                self._in_string = not self._in_string
            elif not self._in_string:
                self._depth += 1 if mark in "{[" else -1
                self.whole = self._depth == 0

    def _follow_long(self, piece: str) -> None:
        data = piece[int(self._escaped) :].encode(errors="surrogatepass")
        marks = data.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _NO_MARKS)
        parts = (b'"' * self._in_string + marks).replace(b'""', b"").split(b'"', 2 * _MOST_STRINGS)
        outside = b"".join(parts[::2])
        self._in_string = len(parts) % 2 == 0
        if outside:
            self._depth += outside.count(b"{") + outside.count(b"[") - outside.count(b"}") - outside.count(b"]")
            self.whole = self._depth == 0

    def are(self, text: str) -> bool:
        """Return whether they are whole, and *text*."""
        return self.whole and len(text) == self._size and _checksum(text, 0) == self._checksum


def _checksum(text: str, before: int) -> int:
    return zlib.crc32(text.encode(errors="surrogatepass"), before)
