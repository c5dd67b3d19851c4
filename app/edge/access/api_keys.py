"""API keys: long random words, each with a name and an allowance. What is kept of a key is its SHA-256.

A plain hash is enough, because a key that `new_key` made has 256 random bits: there is no list of likely ones to try.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from app.request import Allowance, Principal

_TEXT = re.compile(r"([A-Za-z0-9._-]{1,64}):([0-9A-Fa-f]{64})", re.ASCII)


class ApiKey(NamedTuple):
    """What is known of a key: whose it is, its SHA-256 (32 bytes), and how much its owner may have."""

    name: str
    sha256: bytes
    allowance: Allowance


def new_key() -> str:
    """Return a new key: 256 random bits, behind a prefix that scanners for leaked secrets can look for."""
    return "csk_" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return the hex SHA-256 of *key*, which is all that the service needs of it."""
    return _sha256(key).hex()


def parse(text: str, allowance: Allowance) -> ApiKey:
    """Read `NAME:SHA256`. Raises ValueError, which quotes nothing: what was given by mistake may be the key itself."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            "an API key is given as NAME:SHA256: a name of 1 to 64 letters, digits and ._- and the 64 hex digits of "
            "the key's hash, both as 'chat-sse key NAME' prints them"
        )
    return ApiKey(match[1], bytes.fromhex(match[2]), allowance)


class ApiKeys:
    """The scheme of API keys. Raises ValueError if two of *keys* have one name or one hash."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        names: set[str] = set()
        owners: dict[bytes, str] = {}
        for key in keys:
            if len(key.sha256) != hashlib.sha256().digest_size:
                raise ValueError(f"the hash of the API key {key.name!r} is not a SHA-256")
            if key.name in names:
                raise ValueError(f"two API keys are named {key.name!r}")
            if key.sha256 in owners:
                raise ValueError(f"the API keys {owners[key.sha256]!r} and {key.name!r} are the same key")
            names.add(key.name)
            owners[key.sha256] = key.name
        self._principals = [(key.sha256, Principal(f"key:{key.name}", key.allowance)) for key in keys]

    async def principal(self, token: str) -> Principal | None:
        """Return whose *token* is, or None."""
        given, found = _sha256(token), None
        for known, principal in self._principals:
            # All of them, always: neither where nor whether one was found is to be read off the time that it takes.
            if hmac.compare_digest(known, given):
                found = principal
        return found


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
