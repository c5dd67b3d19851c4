"""Whose a stream is, and what a journal is told of its owner."""

from __future__ import annotations

import pytest

from app.errors import JournalLost, StreamError, UnknownStream
from app.hub.ownership import alias, log_of, may_use, payer
from app.journal import Bounds
from app.journal.memory import MemoryJournal, MemoryLog
from app.request import ANYONE, Allowance, Principal, StreamInfo

ANN = Principal("key:ann", Allowance(readers=9), account="a1")
OF_TICKET = Principal("ticket:s", Allowance(requests=5), "s", "a1")


@pytest.mark.parametrize(
    ("principal", "owner", "may"),
    [
        (ANN, "a1", True),
        (ANN, "key:ann", False),
        (ANN, "b2", False),
        (ANN, "", False),
        (ANN._replace(name="jwt:ann", account="b2"), "a1", False),
        (ANYONE, "", True),
        (ANYONE, ANYONE.counted_as(), False),
        (OF_TICKET, "a1", True),
        (OF_TICKET._replace(stream_id="t"), "a1", False),
    ],
)
def test_whose(principal: Principal, owner: str, may: bool) -> None:
    """A stream is of those who have its owner's account, and a ticket opens its own stream alone."""
    assert may_use(principal, "s", StreamInfo("none", owner)) is may


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("info", "principal", "error"),
    [
        (StreamInfo("none", "a1"), ANN, JournalLost),
        (StreamInfo("none", "a1"), ANYONE, UnknownStream),
        (None, ANYONE, JournalLost),  # whose it was is not known
    ],
)
async def test_a_lost_stream(info: StreamInfo | None, principal: Principal, error: type[StreamError]) -> None:
    """To other callers a stream does not exist, also one of which records are missing."""

    class Lost(MemoryJournal):
        async def open(self, stream_id: str, after: int = 0) -> MemoryLog:
            raise JournalLost(info)

    with pytest.raises(error):
        await log_of(Lost(Bounds(1 << 20, 1 << 20, 1, 60)), "s", principal)


@pytest.mark.anyio
async def test_who_pays() -> None:
    """A reader with a ticket counts as its owner's, with the limit that the owner had when it opened the stream."""
    log = await MemoryJournal(Bounds(1 << 20, 1 << 20, 1, 60)).create("s", StreamInfo("none", "a1", 3))
    assert payer(ANN, log) is ANN
    paying = payer(OF_TICKET, log)
    assert (paying.counted_as(), paying.allowance) == (ANN.counted_as(), Allowance(readers=3))


def test_aliases() -> None:
    """Each text has its own for each kind, principal and key, and it has 32 hex digits, however long the text is."""
    texts = ("k", "K", "key:k", "k" * 9999, "\ud800")
    kinds = ("key", "label")
    found = [
        alias(text, kind, who, key)
        for text in texts
        for kind in kinds
        for who in (ANN, ANN._replace(account="b2"), ANYONE)
        for key in (b"", b"one", b"two")
    ]
    assert len({*found}) == len(found)
    assert {len(each) for each in found} == {32}
    assert int("".join(found), 16)
    assert alias("k", "key", ANN, b"one") == alias("k", "key", ANN._replace(allowance=Allowance()), b"one")
    assert alias("", "label", ANN, b"one") == ""
