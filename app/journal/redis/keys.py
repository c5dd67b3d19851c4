"""What the keys are called. Those of one stream share a hash tag, so that on a cluster they share a slot."""

from __future__ import annotations

import hashlib

_PREFIX = b"chat-sse:"
# The entry before record 1: what a stream was created with.
HEADER = b"0-1"


def log(stream_id: str) -> bytes:
    """A Redis stream: the header, then entries of one or more records, each with its first record's number for id."""
    return b"%s{%s}:log" % (_PREFIX, stream_id.encode())


def claim(owner: str, name: str) -> bytes:
    """A string: which stream an idempotency key stands for, and the fingerprint of the body that came with it."""
    return b"%skey:%s" % (_PREFIX, _digest(owner, name))


def label(owner: str, label: str) -> bytes:
    """A string: the newest stream of an owner's with that label."""
    return b"%slabel:%s" % (_PREFIX, _digest(owner, label))


def slots(owner: str) -> bytes:
    """A sorted set: an owner's live streams by the time at which they count no longer unless renewed."""
    return b"%sslots:%s" % (_PREFIX, hashlib.sha256(owner.encode(errors="surrogatepass")).hexdigest().encode())


def lease(process: str) -> bytes:
    """A string that a process renews as long as it lives."""
    return b"%slease:%s" % (_PREFIX, process.encode())


def inbox(process: str) -> bytes:
    """A channel on which a process is told whatever concerns it."""
    return b"%sinbox:%s" % (_PREFIX, process.encode())


def _digest(owner: str, name: str) -> bytes:
    # Both are anybody's to choose: hashed, they are short and cannot be mistaken for one another.
    return hashlib.sha256(f"{len(owner)}:{owner}{name}".encode(errors="surrogatepass")).hexdigest().encode()
