"""Whose a stream is, and what a journal is told of its owner: hashes, because others may read what a journal keeps."""

from __future__ import annotations

from typing import NamedTuple

from app.errors import JournalLost, UnknownStream
from app.journal import Journal, Log
from app.request import Allowance, Principal, StreamInfo, keyed_hash


class IdempotencyKey(NamedTuple):
    """An idempotency key, and the fingerprint of the body that came with it."""

    name: str
    fingerprint: bytes


def may_use(principal: Principal, stream_id: str, info: StreamInfo) -> bool:
    """Whether a stream is the principal's, or the one that its ticket opens."""
    return principal.stream_id == stream_id if principal.stream_id else principal.owner == info.owner


async def is_live(journal: Journal, stream_id: str, principal: Principal) -> bool:
    """Whether a stream is live that is the principal's, or that its ticket opens. Raises JournalDown."""
    info = await journal.live(stream_id)
    return info is not None and may_use(principal, stream_id, info)


async def log_of(journal: Journal, stream_id: str, principal: Principal, after: int = 0) -> Log:
    """Return a stream's log, up to number *after* at least. Raises what `Journal.open` does.

    To other principals a stream does not exist, also one that is lost.
    """
    try:
        log = await journal.open(stream_id, after)
    except JournalLost as error:
        if error.info is not None and not may_use(principal, stream_id, error.info):
            raise UnknownStream from None
        raise
    if not may_use(principal, stream_id, log.info):
        raise UnknownStream
    return log


def payer(principal: Principal, log: Log) -> Principal:
    """Return the principal that a reader of *log* counts for: one with a ticket counts as one of the owner's."""
    if not principal.stream_id:
        return principal
    return principal._replace(allowance=Allowance(readers=log.info.readers), account=log.info.owner)


def alias(text: str, kind: str, principal: Principal, key: bytes) -> str:
    """Return what stands in the journal for a *text* of the principal's, such as an idempotency key; "" for "".

    It is another one for each *kind* of text and for each principal, and to guess the text from it takes the *key*.
    """
    return text and keyed_hash(f"{kind}:{principal.owner}:{text}", key)
