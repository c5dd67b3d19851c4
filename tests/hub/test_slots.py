"""The hub's places: how many streams and readers a principal may have, whose they are, and that each is given back."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.errors import (
    KeyReused,
    Overloaded,
    RateExceeded,
    StreamError,
    TooManyReaders,
    TooManyStreams,
    Truncated,
    UnknownStream,
)
from app.events import Delta, Done
from app.hub import Capacity, Hub, IdempotencyKey
from app.request import ANYONE, Allowance, Principal, StreamRequest
from tests.house import House
from tests.script import forever

pytestmark = pytest.mark.anyio

KEY = IdempotencyKey("k", b"body")
ANN = Principal("ann", Allowance(streams=2, readers=2))
BOB = Principal("bob", Allowance(streams=2, readers=2))


def asked(grace: float = math.inf) -> StreamRequest:
    return StreamRequest("m", ({"role": "user", "content": "hi"},), grace=grace)


class Places(House):
    """A hub whose streams begin with one delta, and whose places are counted."""

    def __init__(self, log: FilteringBoundLogger, *steps: Any, capacity: Capacity | None = None) -> None:
        super().__init__(log, (Delta("a"),), *steps, capacity=capacity)

    async def open(self, who: Principal = ANN, grace: float = math.inf, key: IdempotencyKey | None = None) -> str:
        return await self.hub.open(asked(grace), who, key)

    async def settled(self) -> None:
        """Wait for the producers to end, and check that nothing is counted any more, not even under a name."""
        await super().settled()
        assert (self.hub.live, self.hub.reading) == (0, 0)
        assert (self.journal.registry._slots, self.hub._readers_of) == ({}, {})

    async def full(self, who: Principal, error: type[StreamError] = TooManyStreams) -> bool:
        """Whether *who* may open no further stream. If it may, there is one more."""
        try:
            await self.open(who)
        except error:
            return True
        return False


# Live streams.


async def test_streams_of_a_principal(log: FilteringBoundLogger) -> None:
    """So many may be live at once, for each principal apart; one more is 429, until one has ended."""
    house = Places(log, forever)
    first, _ = await house.open(), await house.open()
    with pytest.raises(TooManyStreams) as refused:
        await house.open()
    assert (refused.value.status, refused.value.retry_after) == (429, 1)
    await house.open(BOB)
    await house.hub.cancel(first, ANN)
    await house.open()
    assert await house.full(ANN)
    assert house.hub.live == 3
    await house.hub.drain(0)
    await house.settled()


async def test_without_a_limit(log: FilteringBoundLogger) -> None:
    """Where nothing else is said, the process's capacity is the only bound, for all principals together."""
    house = Places(log, forever, capacity=Capacity(streams=9))
    for who in (Principal("ann"), Principal("bob"), ANYONE) * 3:
        await house.open(who)
    assert await house.full(ANN, Overloaded)
    await house.hub.drain(0)
    await house.settled()


@pytest.mark.parametrize("way", ["done", "failed", "crashed", "cancelled", "drained", "left", "stopped at once"])
async def test_a_slot_is_given_back(log: FilteringBoundLogger, way: str) -> None:
    """However a stream ends, its owner's slot is free again, and only that one."""
    go = asyncio.Event()
    ends = {"done": (Done("stop"),), "failed": Truncated(), "crashed": ZeroDivisionError()}
    house = Places(log, go.wait, ends.get(way, forever))
    ids = [await house.open(grace=0 if way == "left" else math.inf) for _ in range(2)]
    assert await house.full(ANN)
    if way == "stopped at once":
        await asyncio.gather(*(house.hub.cancel(each, ANN) for each in ids))
    for each in ids:
        async with await house.hub.attach(each, ANN) as batches:
            await anext(batches)
            if way == "cancelled":
                await house.hub.cancel(each, ANN)
    if way == "drained":
        await house.hub.drain(0)
        await house.settled()
        return
    go.set()
    await house.settled()
    go.clear()
    assert [await house.full(ANN) for _ in range(3)] == [False, False, True]
    await house.hub.drain(0)
    await house.settled()


@pytest.mark.parametrize("error", [Overloaded(), OSError("the journal's disk"), asyncio.CancelledError()])
async def test_no_slot_is_lost_to_the_journal(
    log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """A journal that takes no stream, or a client that leaves while it does, costs neither slot nor key."""
    house = Places(log, (Done("stop"),))

    async def fail(*_: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(house.journal, "create", fail)
        for _ in range(5):
            with pytest.raises(type(error)):
                await house.open(key=KEY)
    await house.settled()
    assert await house.open(key=KEY)
    await house.settled()


async def test_a_slow_journal_lets_no_more_in(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slot is taken before the journal is waited for: many requests at once get no more slots than there are."""
    house = Places(log, forever)
    create = house.journal.create

    async def slow(*arguments: Any) -> Any:
        await asyncio.sleep(0)
        return await create(*arguments)

    monkeypatch.setattr(house.journal, "create", slow)
    opened = await asyncio.gather(*(house.open() for _ in range(10)), return_exceptions=True)
    assert [type(each) for each in opened] == [str] * 2 + [TooManyStreams] * 8
    await house.hub.drain(0)
    await house.settled()


async def test_a_replay_takes_no_slot(log: FilteringBoundLogger) -> None:
    """A repeated idempotency key attaches to its stream where no other could be opened; but only for its principal."""
    house = Places(log, forever)
    first = await house.open(key=KEY)
    await house.open()
    for _ in range(3):
        assert await house.open(key=KEY) == first
    with pytest.raises(KeyReused):
        await house.open(key=IdempotencyKey("k", b"other"))
    with pytest.raises(TooManyStreams):
        await house.open(key=IdempotencyKey("new", b"body"))
    bobs = await house.open(BOB, key=IdempotencyKey("k", b"other"))
    assert bobs != first
    assert await house.open(BOB, key=IdempotencyKey("k", b"other")) == bobs
    assert house.hub.live == 3
    await house.hub.drain(0)
    await house.settled()


# Whose a stream is.

TICKET = "ticket:"
USES: dict[str, Callable[[Hub, str, Principal], Any]] = {
    "attach": lambda hub, stream_id, who: hub.attach(stream_id, who),
    "snapshot": lambda hub, stream_id, who: hub.log_of(stream_id, who),
    "cancel": lambda hub, stream_id, who: hub.cancel(stream_id, who),
}


@pytest.mark.parametrize("use", USES)
async def test_a_stream_is_its_owners(log: FilteringBoundLogger, use: str) -> None:
    """To any other caller it is as unknown as one that never was, live or ended; a ticket opens its own one alone."""
    house = Places(log, forever)
    anns, other = await house.open(), await house.open()
    # A ticket for another stream is no way in, even if it bears the owner's name.
    strangers = [BOB, ANYONE, Principal("Ann"), Principal(TICKET, stream_id=other), Principal("ann", stream_id=other)]
    for live in (2, 0):
        for stranger in strangers:
            with pytest.raises(UnknownStream) as refused:
                await USES[use](house.hub, anns, stranger)
            assert refused.value.text == UnknownStream.message
        assert house.hub.live == live
        await house.hub.drain(0)
        await house.settled()
    for owner in (ANN, ANN._replace(allowance=Allowance()), Principal(TICKET, stream_id=anns)):
        assert await USES[use](house.hub, anns, owner)


async def test_what_a_journal_is_told(log: FilteringBoundLogger) -> None:
    """No name of a principal's, and no label or key that it chose: hashes, which take the service's key to be guessed.

    What is not listed is not kept: callers without credentials have no list.
    """
    request = StreamRequest("m", (), metadata='{"chat_id":"my chat"}')
    found = []
    for key in (b"one", b"other"):
        house = House(log, forever)
        house.hub._key = key
        first, second = [
            await house.hub.open(request, who, IdempotencyKey("my key", b"body"), label="my chat")
            for who in (ANN, ANYONE)
        ]
        assert await house.hub.labelled("my chat", ANN) == first
        assert await house.hub.labelled("my chat", ANYONE) == second
        assert await house.hub.labelled("my chat", BOB) is None
        anns, anyones = [(await house.journal.open(stream_id)).info for stream_id in (first, second)]
        assert anns.metadata
        assert not anyones.metadata
        assert anyones.owner == ""
        told = [*house.journal.registry._claims, *house.journal.registry._labels]
        assert len(told) == 4
        assert "my" not in repr(told)
        assert "ann" not in repr((told, anns.owner, anns.label))
        found += told
        await house.hub.drain(0)
    assert len({*found}) == 8


async def test_a_ticket_stops_its_stream(log: FilteringBoundLogger) -> None:
    """Who has a live stream's ticket may stop it, and the owner's slot is free."""
    house = Places(log, forever)
    stream_id = await house.open()
    assert (await house.hub.cancel(stream_id, Principal(TICKET, stream_id=stream_id))).ended
    await house.settled()


async def test_a_stop_that_is_not_the_first(log: FilteringBoundLogger) -> None:
    """The first stop of a live stream is free, for its owner and with a ticket. All others are counted."""
    house = Places(log, forever)
    counted: list[str] = []

    async def stop(stream_id: str, who: Principal, name: str) -> None:
        async def count() -> None:
            counted.append(name)

        await house.hub.cancel(stream_id, who, count)

    first = await house.open()
    await asyncio.gather(*(stop(first, ANN, "at once") for _ in range(5)))
    assert counted == ["at once"] * 4
    await stop(first, ANN, "ended")
    second = await house.open()
    with pytest.raises(UnknownStream):
        await stop(second, BOB, "another's")
    with pytest.raises(UnknownStream):
        await stop("unknown", ANN, "unknown")
    assert counted[4:] == ["ended", "another's", "unknown"]
    await stop(second, Principal(TICKET, stream_id=second), "ticket")
    assert len(counted) == 7
    await house.settled()


async def test_a_stop_that_is_refused(log: FilteringBoundLogger) -> None:
    """A stop that a limit refuses tells nothing about the stream, and is forgotten."""
    house = Places(log, forever)
    stream_id = await house.open()

    async def refuse() -> None:
        raise RateExceeded

    for _ in range(2):
        with pytest.raises(RateExceeded):
            await house.hub.cancel("unknown", ANN, refuse)
    assert (await house.hub.cancel(stream_id, ANN, refuse)).ended
    assert not house.hub._stopping
    await house.settled()


# Readers.


async def test_readers_of_a_principal(log: FilteringBoundLogger) -> None:
    """So many may be attached at once, to whatever streams, for each principal apart; one more is 429."""
    house = Places(log, (Done("stop"),))
    ids = [await house.open(), await house.open()]
    async with await house.hub.attach(ids[0], ANN) as first, await house.hub.attach(ids[1], ANN):
        with pytest.raises(TooManyReaders) as refused:
            await house.hub.attach(ids[0], ANN)
        assert (refused.value.status, refused.value.retry_after) == (429, 5)
        with pytest.raises(TooManyReaders):  # a reader with a ticket counts as the owner's
            await house.hub.attach(ids[0], Principal(TICKET, stream_id=ids[0]))
        with pytest.raises(TooManyReaders):
            house.hub.admit(ANN)
        house.hub.admit(BOB)
        assert (await anext(first)).events
        assert house.hub.reading == 2
    async with await house.hub.attach(ids[0], ANN):
        pass
    await house.settled()


async def test_readers_in_all(log: FilteringBoundLogger) -> None:
    """Over the process's capacity, readers of every principal are refused with 503."""
    house = Places(log, (Done("stop"),), capacity=Capacity(readers=1))
    anns, bobs = await house.open(), await house.open(BOB)
    async with await house.hub.attach(anns, ANN):
        with pytest.raises(Overloaded):
            await house.hub.attach(bobs, BOB)
    async with await house.hub.attach(bobs, BOB):
        pass
    await house.settled()


async def test_a_place_that_is_kept(log: FilteringBoundLogger) -> None:
    """A place that is kept for a reader counts as one, until the reader enters or the place is given back."""
    house = Places(log, (Done("stop"),), capacity=Capacity(readers=2))
    stream_id = await house.open()
    places = [house.hub.reserve(ANN), house.hub.reserve(ANN)]
    with pytest.raises(Overloaded):
        house.hub.reserve(BOB)
    places.pop().close()
    with pytest.raises(Overloaded):
        async with await house.hub.attach(stream_id, ANN, place=places[0]):
            house.hub.reserve(BOB).close()  # the place is the reader's now, and counts once
            async with await house.hub.attach(stream_id, ANN):
                places[0].close()
                await house.hub.attach(stream_id, ANN)
    await house.settled()


async def test_a_principals_places_that_are_kept(log: FilteringBoundLogger) -> None:
    """A principal has no more places, kept and taken ones together, than it may have readers."""
    house = Places(log, (Done("stop"),))
    stream_id = await house.open()
    with house.hub.reserve(ANN):
        async with await house.hub.attach(stream_id, ANN):
            with pytest.raises(TooManyReaders):
                house.hub.reserve(ANN)
        with house.hub.reserve(ANN), house.hub.reserve(BOB):
            pass
    await house.settled()


@pytest.mark.parametrize("way", ["ended", "left", "failed", "cancelled", "stream cancelled", "drained"])
async def test_a_readers_place_is_given_back(log: FilteringBoundLogger, way: str) -> None:
    """However a reader goes, by itself, by an error, with its connection or with its stream, its place is free."""
    house = Places(log, (Done("stop"),) if way == "ended" else forever)
    stream_id = await house.open()
    reading = asyncio.Event()

    async def read() -> None:
        async with await house.hub.attach(stream_id, ANN) as batches:
            async for _ in batches:
                reading.set()
                if way == "left":
                    return
                if way == "failed":
                    raise ConnectionResetError

    for _ in range(5):
        reading.clear()
        reader = asyncio.create_task(read())
        async with asyncio.timeout(30):
            await reading.wait()
        if way == "cancelled":
            reader.cancel()
        elif way == "stream cancelled":
            await house.hub.cancel(stream_id, ANN)
        elif way == "drained":
            await house.hub.drain(0)
        await asyncio.wait([reader])
        assert reader.cancelled() or reader.exception() is None or way == "failed"
    await house.hub.drain(0)
    await house.settled()


async def test_a_subscription_that_is_never_read(log: FilteringBoundLogger) -> None:
    """A subscription that is not entered, because its stream has nothing left or its client is gone, is not counted."""
    house = Places(log, (Done("stop"),))
    stream_id = await house.open()
    await house.settled()
    last = (await house.hub.log_of(stream_id, ANN)).last
    for _ in range(5):
        assert (await house.hub.attach(stream_id, ANN, last)).exhausted
        with pytest.raises(UnknownStream):
            await house.hub.attach(stream_id, ANN, last + 1)
    await house.settled()
