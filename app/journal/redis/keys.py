"""The names of the keys. The keys of one stream share a hash tag, so that they share a slot of a cluster.

Owners are accounts, and the names of claims and labels are hashes (see `Hub`): what is in a key tells nothing of them.
"""

from __future__ import annotations

_PREFIX = b"chat-sse:"


def log(stream_id: str) -> bytes:
    """A Redis stream: the header, then entries of one or more records; an entry's id is its first record's number."""
    return b"%s{%s}:log" % (_PREFIX, stream_id.encode())


def note(stream_id: str) -> bytes:
    """A string: what another process needs to go on with a live stream, and which process produces it (see `notes`)."""
    return b"%s{%s}:note" % (_PREFIX, stream_id.encode())


def claim(owner: str, name: str) -> bytes:
    """A string: the stream that an idempotency key stands for, and the fingerprint of the body that came with it."""
    return b"%skey:%s" % (_PREFIX, f"{owner}:{name}".encode())


def label(owner: str, label: str) -> bytes:
    """A string: the owner's newest stream with that label."""
    return b"%slabel:%s" % (_PREFIX, f"{owner}:{label}".encode())


def slots(account: str) -> bytes:
    """A sorted set: the account's live streams, each with the time at which it no longer counts unless renewed."""
    return b"%sslots:%s" % (_PREFIX, account.encode())


def budget(account: str) -> bytes:
    """A hash: what an account has spent of its day's budget, and what is reserved for its live streams."""
    return b"%sbudget:%s" % (_PREFIX, account.encode())


def kept(owner: str) -> bytes:
    """A sorted set: the owner's ended streams and their sizes in bytes, each with the time at which it is gone.

    `sum` in it is the sum of the sizes, below zero.
    """
    return b"%skept:%s" % (_PREFIX, owner.encode())


def holders() -> bytes:
    """A sorted set: the owners that have ended streams, by what these take in bytes."""
    return b"%sholders" % _PREFIX


def streams(owner: str) -> bytes:
    """A sorted set: the owner's newest streams by the time of their creation; those that have ended, with their end."""
    return b"%sstreams:%s" % (_PREFIX, owner.encode())


def lease(process: str) -> bytes:
    """A string that a process renews as long as it lives."""
    return b"%slease:%s" % (_PREFIX, process.encode())


def processes() -> bytes:
    """A sorted set: the processes, each with the time at which its lease lapses unless renewed."""
    return b"%sprocesses" % _PREFIX


def noted(process: str) -> bytes:
    """A set: the live streams that a process produces, and that others can adopt."""
    return b"%snoted:%s" % (_PREFIX, process.encode())


def inbox(process: str) -> bytes:
    """The channel on which the other processes send messages to one."""
    return b"%sinbox:%s" % (_PREFIX, process.encode())
