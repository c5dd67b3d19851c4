"""What an upstream repeats in each chunk, and which of it is news."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from app.upstream.reading.values import encodable, is_empty, kept

MAX_NAMES: Final = 64
MAX_SAID: Final = 16 * 1024  # bytes; of a longer value only a digest is remembered
MAX_NAME: Final = 256  # characters
MAX_NOTED: Final = 1024
MIN_QUOTE: Final = 24  # characters
PADDING: Final = frozenset({"obfuscation"})


class Said:
    """The fields at one place of a stream's chunks, each of which is said once, and again when it changes.

    *own* are the names of the fields that have a meaning of their own, *plain* those among them whose reader looks at
    them before it asks for news. Of the others, *most* are remembered.
    """

    def __init__(self, own: Iterable[str], plain: Iterable[str] = (), most: int = MAX_NAMES) -> None:
        self._own = PADDING.union(own)
        self._names = set(PADDING).union(plain)
        self._values: dict[str, Any] = {}  # or digests, which are bytes
        self._most = most
        self._room = MAX_SAID

    def has_news(self, fields: Mapping[str, Any]) -> bool:
        """Return whether *fields* may hold more than the plain fields and what was said. Asked for most deltas."""
        if not self._names.issuperset(fields):
            return True
        for name, value in self._values.items():
            found = fields.get(name)
            if found != value and not (found is None or self._is_known(found, value)):
                return True
        return False

    def news(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of *fields* that have no meaning of their own, say something, and were not said."""
        found: dict[str, Any] = {}
        for name, value in fields.items():
            if name in self._own or len(name) > MAX_NAME:
                continue
            known = self._values.get(name)
            value = kept(value)
            if is_empty(value):
                if name not in self._values:
                    self._remember(name, value)
            elif value != known and not self._is_known(value, known) and len(found) < MAX_NAMES:
                found[encodable(name)] = value
                self._remember(name, value)
        return found

    def _remember(self, name: str, value: Any) -> None:
        if name not in self._values and len(self._values) >= self._most:
            return
        data = orjson.dumps(value)
        self._room += _room_of(self._values.get(name))
        self._values[name] = value if len(data) <= self._room else _digest(data)
        self._room -= _room_of(self._values[name])
        self._names.add(name)

    def _is_known(self, value: Any, known: Any) -> bool:
        return isinstance(known, bytes) and _digest(orjson.dumps(kept(value))) == known


def unknown(fields: Mapping[str, Any], own: frozenset[str]) -> dict[str, Any]:
    """Return those of *fields* that are not in *own* and say something."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in own and name not in PADDING and len(name) <= MAX_NAME and not is_empty(value := kept(value)):
            found[encodable(name)] = value
    return found


def _room_of(value: Any) -> int:
    return 0 if value is None or isinstance(value, bytes) else len(orjson.dumps(value))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


class Noted:
    """Objects that came once and need not come again. No more than `MAX_NOTED` are remembered."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def is_new(self, value: Any) -> bool:
        """Return whether *value*, which was `kept`, comes for the first time, and remember it."""
        digest = _digest(orjson.dumps(value))
        if digest in self._digests:
            return False
        if len(self._digests) < MAX_NOTED:
            self._digests.add(digest)
        return True


def quotes(value: Any, secrets: Iterable[str]) -> bool:
    """Return whether *value* holds one of the *secrets*: prompts and keys, which are longer than names are."""
    text = ""
    for secret in secrets:
        if len(secret) < MIN_QUOTE:
            continue
        text = text or orjson.dumps(value).decode()
        if orjson.dumps(encodable(secret)).decode()[1:-1] in text:
            return True
    return False
