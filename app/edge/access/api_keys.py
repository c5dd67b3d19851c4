"""API keys: long random words, each with a name and an allowance. The service keeps only the SHA-256 of a key.

A plain hash is enough: a key that `new_key` made has 256 random bits, so an attacker has no list of likely keys to try.
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
    """A key's *name*, its SHA-256 (32 bytes), and the *allowance* of the principal that sends it."""

    name: str
    sha256: bytes
    allowance: Allowance


def new_key() -> str:
    """Return a new key: 256 random bits after a prefix, by which scanners for leaked secrets can find it."""
    return "csk_" + secrets.token_urlsafe(32)


def digest(key: str) -> str:
    """Return the hex SHA-256 of *key*, which is all that the service keeps."""
    return _sha256(key).hex()


def parse(text: str, allowance: Allowance) -> ApiKey:
    """Parse `NAME:SHA256`. Raises ValueError, which never quotes *text*: somebody may have given the key itself."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(
            "an API key is given as NAME:SHA256: a name of 1 to 64 letters, digits and ._- and the 64 hex digits of "
            "the key's hash, both as 'chat-sse key NAME' prints them"
        )
    return ApiKey(match[1], bytes.fromhex(match[2]), allowance)


class ApiKeys:
    """Bearer tokens that are API keys. Raises ValueError if two of *keys* have the same name or the same hash."""

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
        """Return the principal of *token*, or None if it is not one of the keys."""
        given = _sha256(token)
        found = None
        for known, principal in self._principals:
            # Every key is compared every time, so that the time it takes does not tell whether or where one matched.
            if hmac.compare_digest(known, given):
                found = principal
        return found


def _sha256(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
