"""Streams that are adopted: what is noted of a stream, and how another process goes on with it."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Draining, JournalDown, ProducerLost, Truncated
from app.events import Delta, Done, Event, Failure, Start
from app.hub import Observer, Outcome, Spending
from app.journal import Orphan
from app.journal.memory import MemoryLog
from app.request import Allowance, Principal, StreamRequest
from app.upstream import Attempt
from tests.clock import LoopClock
from tests.house import House
from tests.script import Script, forever
from tests.waiting import until

pytestmark = pytest.mark.anyio

ANN = Principal("ann-by-name", Allowance(streams=1), account="account-of-ann")
ASKED = StreamRequest("m", ({"role": "user", "content": "what is secret" * 9},), chunk="none", grace=math.inf)
HELLO, YOU, STOP = Delta("Hello "), Delta("you"), Done("stop")


class Keeping(Script):
    """Its upstream keeps the answer, and names it before the first content. It gets texts of the operator's *own*."""

    note: Mapping[str, Any] = MappingProxyType({"response": "resp_1"})
    own: Sequence[str] = ()

    def secrets_at(self, upstream: str, request: StreamRequest) -> Sequence[str]:
        return [*request.secrets, *self.own]

    attempt = Attempt()
    left = False

    def leave(self) -> None:
        self.left = True

    async def begin(self, request: StreamRequest, attempts: Any, *more: Any) -> Any:
        first, batches = await super().begin(request, attempts, *more)
        attempts[-1].kept = self
        self.attempt = attempts[-1]
        return first, batches


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is noted, of all streams."""
    notes: list[str] = []

    def note(self: MemoryLog, text: str) -> bool:
        notes.append(text)
        return True

    monkeypatch.setattr(MemoryLog, "note", note)
    return notes


async def left(log: FilteringBoundLogger, notes: list[str], request: StreamRequest = ASKED) -> MemoryLog:
    """Return the log of a stream of which a process has appended a piece of text, and then it died."""
    house = House(log, source=Keeping((), (HELLO,), forever))
    stream_id = await house.hub.open(request, ANN)
    written = await house.journal.open(stream_id)
    await until(lambda: written.last == 2 and bool(notes))
    house.hub._streams[stream_id].relay.stop(Truncated())
    await house.settled()
    return written


async def orphan(house: House, log: MemoryLog, note: str, records: int = 2) -> tuple[Orphan, MemoryLog]:
    """Return a stream as the next process finds it: with the first *records* of *log*."""
    known = await house.journal.create(log.id, log.info)
    if records:
        known.append(log.records(0, records))
    return Orphan(log.id, known, known, note), known


async def read(log: MemoryLog) -> list[Event]:
    return [event async for batch in log.read() for event in batch.events]


@pytest.mark.parametrize("records", [0, 1, 2])
async def test_adopted(log: FilteringBoundLogger, logs: LogCapture, notes: list[str], records: int) -> None:
    """The next process appends what the log lacks of the answer, and counts and logs the stream as adopted."""
    first = await left(log, notes)
    logs.entries.clear()
    house = House(log, source=Keeping((), (HELLO,), (YOU,), (STOP,)))
    found, written = await orphan(house, first, notes[0], records)
    await house.hub.adopt(found)
    assert house.journal.registry._slots == {ANN.counted_as(): {first.id}}
    start, *rest, end = await read(written)
    assert isinstance(start, Start)
    assert rest == [HELLO, YOU]
    assert isinstance(end, Done)
    # The estimate is that of the whole answer, and of the prompt that this process does not know.
    assert end.usage is not None
    assert (end.usage.input_tokens, end.usage.output_tokens) == (4 + 9 * 14 // 4, 3)
    assert (end.first_token_ms is None) is (records == 2)
    await house.settled()
    assert house.source.notes == [{"upstream": "", "fallback": False, "response": "resp_1"}]
    assert house.journal.registry._slots == {}
    assert (house.meter.opened, house.meter.adopted) == (0, 1)
    [line] = [entry for entry in logs.entries if entry["event"] == "stream.finished"]
    assert (line["adopted"], line["principal"], line["deltas"]) == (True, ANN.account, 2)


@pytest.mark.parametrize(("steps", "reason"), [([(STOP,)], "producer_lost"), ([forever], "cancelled")])
async def test_an_answer_that_is_shorter_now(
    log: FilteringBoundLogger, notes: list[str], steps: list[Any], reason: str
) -> None:
    """If the upstream's answer ends before what readers have of it, the stream is lost. It can be stopped before."""
    first = await left(log, notes)
    ends = Ends()
    house = House(log, source=Keeping((), (Delta("Hel"),), *steps), observers=[ends])
    found, written = await orphan(house, first, notes[0])
    await house.hub.adopt(found)
    if reason == "cancelled":
        await until(lambda: house.hub._streams[first.id].relay.deltas == 1)
        house.hub._streams[first.id].cancel()
    assert len((await read(written))[2:]) == 1
    await house.settled()
    assert [end.reason for end in ends.told] == [reason]


class Traced(Observer):
    """Keeps what it is told of, and names a span for each stream."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def opened(self, stream_id: str, request: StreamRequest) -> str:
        self.told.append((stream_id, request.model))
        return "00-span"


async def test_an_adopted_stream_is_observed(log: FilteringBoundLogger, notes: list[str]) -> None:
    """It has a span of its own, which the upstream joins. An owner without a limit has no slot."""
    house = House(log, source=Keeping((), (HELLO,), forever))
    stream_id = await house.hub.open(ASKED)
    await until(lambda: bool(notes))
    first = await house.journal.open(stream_id)
    await house.hub.drain(0)
    observer = Traced()
    house = House(log, source=Keeping((), (STOP,)), observers=[observer])
    found, _ = await orphan(house, first, notes[0], 0)
    await house.hub.adopt(found)
    assert observer.told == [(stream_id, "m")]
    [stream] = house.hub._streams.values()
    assert stream.request.traceparent == "00-span"
    assert house.journal.registry._slots == {}
    await house.settled()


async def test_what_a_note_holds(log: FilteringBoundLogger, notes: list[str]) -> None:
    """One note is left of a stream, before its content; it holds no name, prompt or text of the operator's."""
    await left(log, notes, StreamRequest("m", ASKED.messages, secrets=("system-prompt",), grace=math.inf))
    [note] = notes
    assert len(json.loads(note)) == 8
    assert not any(text in note for text in ("secret", "system-prompt", ANN.name, "Hello"))


async def test_a_note_is_bounded(log: FilteringBoundLogger, notes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that needs a larger note than is kept has none."""
    monkeypatch.setattr(Keeping, "note", {"tools": ["x" * 100] * 200})
    house = House(log, source=Keeping((), (HELLO,), (STOP,)))
    await house.read(ASKED)
    assert notes == []


NO_NOTES = ["", "{}", "[]", "[1,2,3]", "null", "8", '["a","b","c","d","e","f","g","h"]', '[[],{},"a",1,1,1,1,"h"]']


@pytest.mark.parametrize("note", [*NO_NOTES, pytest.param("[" * 9999, id="deep")])
async def test_a_note_of_no_use(log: FilteringBoundLogger, notes: list[str], note: str) -> None:
    """A stream with a note that cannot be read, or is another version's, ends with `producer_lost`."""
    first = await left(log, notes)
    house = House(log, source=Keeping())
    found, written = await orphan(house, first, note)
    await house.hub.adopt(found)
    assert house.hub.live == 0
    assert written.records(2, 3) == [Failure.of(ProducerLost())]


async def test_the_operators_texts_have_changed(
    log: FilteringBoundLogger, notes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the upstream may quote of the operator's would not be known, so the stream ends, and pays for the answer."""
    monkeypatch.setattr(Keeping, "own", ("header", "field"))
    first = await left(log, notes, StreamRequest("m", ASKED.messages, secrets=("old",), chunk="none", grace=math.inf))
    cases = [("new", ("header", "field"), 0), ("old", ("header",), 0), ("old", ("field", "header"), 1)]
    for secret, own, live in cases:
        ends = Ends()
        monkeypatch.setattr(Keeping, "own", own)
        house = House(log, source=Keeping((), forever), observers=[ends])
        house.hub._production._secrets = {"m": (secret,)}.__getitem__
        found, written = await orphan(house, first, notes[0])
        await house.hub.adopt(found)
        if live:
            await until(lambda: bool(house.source.started))  # noqa: B023 - awaited at once
            assert not written.ended
        await house.hub.drain(0)
        assert (house.source.started, house.source.abandoned) == (live, not live)
        [end] = ends.told
        assert (end.reason, end.costs) == ("shutting_down" if live else "producer_lost", (None,))
        assert isinstance(written.records(2, 9)[-1], Failure)
        assert house.journal.registry._slots == {}


class Ends(Observer):
    """Keeps the outcomes that it is told, and the ids of streams that were left."""

    def __init__(self) -> None:
        self.told: list[Outcome] = []
        self.streams_left: list[str] = []

    def left(self, stream_id: str) -> None:
        self.streams_left.append(stream_id)

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        self.told.append(outcome)


class Failing(Spending):
    """Cannot go on with what was reserved."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def resume(self, stream_id: str, account: str, note: Mapping[str, Any]) -> None:
        raise self.error


@pytest.mark.parametrize("error", [JournalDown(), ValueError(), KeyError(), AttributeError()])
async def test_what_fails_on_the_way(log: FilteringBoundLogger, notes: list[str], error: Exception) -> None:
    """A stream that cannot be adopted after all ends, with no slot and no observer, and its upstream is told."""
    first = await left(log, notes)
    traced = Traced()
    house = House(log, source=Keeping(), spending=Failing(error), observers=[traced])
    found, written = await orphan(house, first, notes[0])
    await house.hub.adopt(found)
    assert written.records(2, 3) == [Failure.of(ProducerLost())]
    assert (house.hub.live, house.source.abandoned, traced.told) == (0, 1, [])
    assert house.journal.registry._slots == {}


async def test_a_drain_leaves(log: FilteringBoundLogger, logs: LogCapture, notes: list[str]) -> None:
    """At the end of a drain, a stream that another process can go on with has no end, and its readers are sent away."""
    ends = Ends()
    source = Keeping((), (HELLO,), forever)
    house = House(log, source=source, observers=[ends])
    stream_id = await house.hub.open(ASKED, ANN)
    written = await house.journal.open(stream_id)
    reader = await house.hub.attach(stream_id, ANN)
    async with reader:
        await until(lambda: written.last == 2)
        await house.hub.drain(0)
        assert reader.dismissed
    assert (house.hub.live, written.last, written.ended) == (0, 2, False)
    assert source.left
    assert (ends.told, ends.streams_left) == ([], [stream_id])
    assert [entry["event"] for entry in logs.entries if entry["event"].startswith("stream.")][1:] == ["stream.left"]
    assert house.journal.registry._slots == {ANN.counted_as(): {stream_id}}  # it is the next process's
    # And that one can leave it again.
    source = Keeping((), (HELLO,), forever)
    last = House(log, source=source)
    found, known = await orphan(last, written, notes[0])
    await last.hub.adopt(found)
    await until(lambda: source.attempt.kept is not None)
    await last.hub.drain(0)
    assert (last.hub.live, known.last, known.ended) == (0, 2, False)


async def test_a_reader_that_comes_while_it_is_left(log: FilteringBoundLogger, notes: list[str]) -> None:
    """While an upstream's socket closes, no reader is let in to wait for what this process will not bring."""
    closing = asyncio.Event()

    async def slow_to_close() -> None:
        try:
            await forever()
        finally:
            await closing.wait()

    source = Keeping((), (HELLO,), slow_to_close)
    house = House(log, source=source)
    stream_id = await house.hub.open(ASKED, ANN)
    written = await house.journal.open(stream_id)
    await until(lambda: written.last == 2)
    async with await house.hub.attach(stream_id, ANN):
        pass  # a client knows its id, and may come back
    early = await house.hub.attach(stream_id, ANN)
    drain = asyncio.create_task(house.hub.drain(0))
    await until(lambda: source.left)
    assert house.hub.live == 1
    with pytest.raises(Draining):
        await house.hub.attach(stream_id, ANN)
    async with early:  # it was let in just before
        assert early.dismissed
    closing.set()
    await drain
    assert house.hub.live == 0


@pytest.mark.parametrize("why", ["no note", "cancel", "unknown", "stopped", "done"])
async def test_a_drain_ends(
    log: FilteringBoundLogger, notes: list[str], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """What no other process could go on with, or no client would come back to, has an end, and so has what is over."""
    if why == "no note":
        monkeypatch.setattr(MemoryLog, "note", lambda self, text: False)
    graces = {"cancel": (0.0, 0.0), "unknown": (math.inf, 0.0)}
    grace, unknown_grace = graces.get(why, (math.inf, math.inf))
    source = Keeping((), (HELLO,), forever)
    house = House(log, source=source)
    stream_id = await house.hub.open(StreamRequest("m", (), grace=grace, unknown_grace=unknown_grace))
    written = await house.journal.open(stream_id)
    await until(lambda: written.last == 2)
    if why == "done":
        source.attempt.done = STOP
    if why == "stopped":
        house.hub._streams[stream_id].cancel()
    await house.hub.drain(0)
    end = written.records(0, written.last)[-1]
    code = end.finish_reason if isinstance(end, Done) else end.code if isinstance(end, Failure) else ""
    assert code == {"stopped": "cancelled", "done": "stop"}.get(why, "shutting_down")
    assert not source.left


@pytest.mark.parametrize("accepting", [True, False])
async def test_nobody_comes(
    log: FilteringBoundLogger, notes: list[str], loop_clock: LoopClock, accepting: bool
) -> None:
    """A stream that is adopted has as long to get its first reader as a new one, from when readers can come."""
    first = await left(log, notes, StreamRequest("m", ASKED.messages, chunk="none"))
    house = House(log, source=Keeping((), forever), first_reader=5)
    found, written = await orphan(house, first, notes[0])
    if accepting:
        house.hub.begin_accepting()
    await house.hub.adopt(found)
    if not accepting:
        await loop_clock.let_pass(60)
        house.hub.begin_accepting()
    await loop_clock.let_pass(4)
    assert not written.ended
    await loop_clock.let_pass(2)
    [end] = (await read(written))[2:]
    assert isinstance(end, Done)
    assert end.finish_reason == "cancelled"
    await house.settled()


async def test_somebody_is_there(log: FilteringBoundLogger, notes: list[str], loop_clock: LoopClock) -> None:
    """An adopted stream that another process reads waits for no reader."""
    first = await left(log, notes, StreamRequest("m", ASKED.messages, chunk="none"))
    house = House(log, source=Keeping((), forever), first_reader=5)
    found, written = await orphan(house, first, notes[0])
    await house.hub.adopt(found)
    house.hub.presence(first.id, 1)
    house.hub.begin_accepting()
    await loop_clock.let_pass(6)
    assert not written.ended
    house.hub.presence(first.id, -1)
    await house.settled()


async def test_a_key_is_kept(log: FilteringBoundLogger, notes: list[str]) -> None:
    """A key stands for an adopted stream also if that fails before any content: an answer may have been paid for."""
    first = await left(log, notes)
    house = House(log, source=Keeping(ProducerLost()))
    assert await house.journal.registry.claim("o", "n", b"f", first.id) is None
    found, written = await orphan(house, first, notes[0], 0)
    await house.hub.adopt(found)
    assert isinstance((await read(written))[-1], Failure)
    await house.settled()
    assert await house.journal.registry.keyed("o", "n") == first.id
