"""Texts of megabytes: each is encoded once for all events that have it, and a piece at a time."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import orjson

from app.wire.json import dumps, one_line

LONG = 256 * 1024
"""The characters from which on a text is a long one. So many are encoded in one step, in a few milliseconds."""
# What stands for a long text until it is put in. It is random, so that no answer has it.
_MARK = secrets.token_hex(16)
_MARKED = b'"%b"' % _MARK.encode()


class LongText(str):
    """A text that `LongTexts` encodes in steps. To all others it is a text."""

    __slots__ = ()


def long(text: str) -> str:
    """Return *text*, as a LongText if it is one."""
    return LongText(text) if len(text) > LONG else text


class LongTexts:
    """Encodes objects that have long texts, some of them the same ones."""

    __slots__ = ("_encoded",)

    def __init__(self) -> None:
        self._encoded: dict[int, tuple[LongText, list[bytes]]] = {}  # by the text's identity

    def dumps(self, data: object, before: bytes = b"", after: bytes = b"") -> Iterator[bytes]:
        """Yield b"" after each step, and at last what `dumps` returns for *data*, with *before* and *after* it."""
        found: list[LongText] = []

        def marked(value: object) -> str:
            if not isinstance(value, LongText):
                raise TypeError
            found.append(value)
            return _MARK

        line = one_line(orjson.dumps(data, marked, orjson.OPT_PASSTHROUGH_SUBCLASS))
        parts = [before]
        for text, between in zip(found, line.split(_MARKED), strict=False):
            if id(text) not in self._encoded:
                pieces = []
                for start in range(0, len(text), LONG):
                    pieces.append(dumps(text[start : start + LONG])[1:-1])
                    yield b""
                self._encoded[id(text)] = text, pieces
            parts += [between, b'"', *self._encoded[id(text)][1], b'"']
        if found:
            yield b""  # to join megabytes is a step of its own
        yield b"".join([*parts, line.rpartition(_MARKED)[2], after])
