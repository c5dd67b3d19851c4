"""One reader's stream as a response, without a socket: a log on one side, and a server's side of ASGI on the other."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.context import RequestContext
from app.edge.event_stream import COMMENT, WRITE, StreamResponse, read_whole
from app.errors import Draining, Unreachable
from app.events import Batch, Delta, Done, Event, EventId, Extra, Failure, Logprobs, Media, Start, ToolCall
from app.hub import Subscription
from app.journal import Bounds
from app.journal.memory import MemoryLog
from app.meter import Meter
from app.request import StreamInfo
from app.turns import ROOM
from app.wire import Reading
from app.wire.native import EventEncoder
from app.wire.openai import ChunkEncoder
from app.wire.responses import ResponsesEncoder
from tests.clock import LoopClock
from tests.house import House
from tests.waiting import counted_turns, until
from tests.watchdog import watching

pytestmark = pytest.mark.anyio

ID = "S" * 22
START = Start("m", 7)


class Client:
    """A server's side of one answer. The client takes frames while it *keeps_up*, until it leaves.

    *frames* are what went out, *pushed* is how many of them did by `write`, and *whole* is whether the body has ended.
    *sends* is how many frames were sent, or wait to be.
    """

    def __init__(self) -> None:
        self.head: Message | None = None
        self.frames: list[bytes] = []
        self.pushed = 0
        self.sends = 0
        self.whole = False
        self._keeps_up = asyncio.Event()
        self._keeps_up.set()
        self._left = asyncio.Event()

    def status(self) -> int | None:
        """The status that was sent, or None."""
        return self.head["status"] if self.head else None

    @property
    def text(self) -> bytes:
        return b"".join(self.frames)

    def fall_behind(self) -> None:
        self._keeps_up.clear()

    def catch_up(self) -> None:
        self._keeps_up.set()

    def leave(self) -> None:
        self._left.set()
        self._keeps_up.set()  # as uvicorn does

    async def send(self, message: Message) -> None:
        assert not self.whole
        self.sends += 1
        await self._keeps_up.wait()
        if self._left.is_set():
            return
        if message["type"] == "http.response.start":
            assert self.head is None
            self.head = message
            return
        assert self.head is not None
        if message["body"]:
            self.frames.append(message["body"])
        self.whole = not message.get("more_body", False)

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    def write(self, data: bytes) -> bool:
        assert self.head is not None
        assert not self.whole
        if not self._keeps_up.is_set() or self._left.is_set():
            return False
        if data:
            self.frames.append(data)
            self.pushed += 1
        return True


class Noting(EventEncoder):
    """An encoder that notes its *batches*."""

    def __init__(self, batches: list[Batch]) -> None:
        super().__init__(Reading(ID))
        self.batches = batches

    def __call__(self, batch: Batch) -> bytes:
        self.batches.append(batch)
        return super().__call__(batch)


class Stream:
    """A stream whose log a test writes, and one reader of it."""

    def __init__(self, log: MemoryLog, subscription: Subscription, logger: FilteringBoundLogger) -> None:
        self.log = log
        self.subscription = subscription
        self.client = Client()
        self._logger = logger

    def append(self, *events: Event) -> None:
        self.log.append(events)

    def respond(
        self, *, encode: Any = None, keep_alive: float = 60, method: str = "GET", push: bool = True, **options: Any
    ) -> asyncio.Task[None]:
        """Begin to answer, by `write` as well if the server can *push*."""
        scope: Scope = {"type": "http", "method": method, "headers": []}
        RequestContext("r", "", self._logger, Meter()).put_into(scope)
        if push:
            scope["extensions"] = {WRITE: self.client.write}
        self.response = StreamResponse(self.subscription, encode or EventEncoder(Reading(ID)), keep_alive, **options)
        return asyncio.create_task(self.response(scope, self.client.receive, self.client.send))


@asynccontextmanager
async def streaming(logger: FilteringBoundLogger, *events: Event, after: int = 0) -> AsyncIterator[Stream]:
    """Give a stream that has *events* so far, and a reader after record number *after*."""
    house = House(logger)
    log = await house.journal.create(ID, StreamInfo("none"))
    if events:
        log.append(events)
    async with asyncio.timeout(30):
        yield Stream(log, await house.hub.attach(ID, after=after), logger)
    assert house.hub.reading == 0


def encoded(first: int, *events: Event) -> bytes:
    """Return the blocks of *events*, of which the first is number *first*, without `retry:`."""
    encode = EventEncoder(Reading(ID, 1))
    return encode(Batch(first, events)).removeprefix(b"retry: 1\n")


async def test_history_then_live(log: FilteringBoundLogger) -> None:
    """What is in the log is sent; what is appended then is written as it comes; the terminal record ends the body."""
    async with streaming(log, START, Delta("a")) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        assert stream.client.pushed == 0
        stream.append(Delta("b"))
        assert stream.client.frames[1:] == [encoded(3, Delta("b"))]  # at once, and no task was woken for it
        stream.append(Done("stop"))
        await answering
    assert stream.client.whole
    assert stream.client.pushed == 1
    assert stream.client.text.count(b"\nid: ") == 4
    assert stream.subscription.sent.last == 4


async def test_head(log: FilteringBoundLogger) -> None:
    """The head says what the body is, and that no cache or proxy may touch it. HEAD gets no more, and is no reader."""
    async with streaming(log, START) as stream:
        await stream.respond(method="HEAD")
    assert stream.client.head is not None
    headers = {name.decode(): value.decode() for name, value in stream.client.head["headers"]}
    assert headers == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store, no-transform",
        "x-accel-buffering": "no",
        "x-stream-id": ID,
        "content-location": f"/v1/streams/{ID}",
    }
    assert (stream.client.text, stream.client.whole, stream.subscription.sent.events) == (b"", True, ())


async def test_a_server_without_the_extension(log: FilteringBoundLogger) -> None:
    """Where the server cannot be written to at once, everything goes by `send`."""
    async with streaming(log, START) as stream:
        answering = stream.respond(push=False)
        await until(lambda: stream.client.frames)
        for text in "abc":
            stream.append(Delta(text))
            await until(lambda: stream.subscription.records_behind == 0)
        stream.append(Done("stop"))
        await answering
    assert stream.client.pushed == 0
    assert stream.client.text.endswith(encoded(2, Delta("a"), Delta("b"), Delta("c"), Done("stop")))


async def test_resume(log: FilteringBoundLogger) -> None:
    """A reader after a position gets what follows it."""
    async with streaming(log, START, Delta("a"), Done("stop"), after=2) as stream:
        await stream.respond()
    assert stream.client.text.endswith(b"\n" + encoded(3, Done("stop")))
    assert stream.client.text.startswith(b"retry: ")


@pytest.mark.parametrize("opening", [b"", b"event: cut\n\n"])
async def test_resume_at_the_end(log: FilteringBoundLogger, opening: bytes) -> None:
    """A reader that lacks nothing has its head at once: a piece of the body goes out, on which our server sends it."""
    async with streaming(log, START, Delta("a"), after=2) as stream:
        answering = stream.respond(after=EventId(ID, 2), opening=opening)
        await until(lambda: stream.client.sends == 2 + bool(opening))
        assert stream.client.text == opening
        stream.append(Done("stop"))
        await answering
    assert stream.client.text.endswith(encoded(3, Done("stop")))


async def test_the_status_is_held_back(log: FilteringBoundLogger) -> None:
    """An answer that may still fail does not begin before the first record."""
    async with streaming(log) as stream:
        answering = stream.respond(commit_after=60)
        await until(lambda: stream.log.reading)
        assert stream.client.status() is None
        stream.append(START)
        await until(lambda: stream.client.frames)
        assert stream.client.status() == 200
        stream.append(Done("stop"))
        await answering


async def test_the_commit_deadline(log: FilteringBoundLogger) -> None:
    """The status is not held back for longer than the deadline. What fails after that is an event."""
    async with streaming(log) as stream:
        answering = stream.respond(commit_after=0.01)
        await until(lambda: stream.client.head)
        assert stream.client.frames == []
        stream.append(Failure.of(Unreachable()))
        await answering
    assert stream.client.status() == 200
    assert b"event: error" in stream.client.text


@pytest.mark.parametrize("late", [False, True])
async def test_a_failure_before_the_start(log: FilteringBoundLogger, logs: LogCapture, late: bool) -> None:
    """A stream that fails before its first record has the failure's status, whether it had failed already or not."""
    failure = Failure.of(Unreachable())
    async with streaming(log, *(() if late else (failure,))) as stream:
        answering = stream.respond(commit_after=60)
        if late:
            await until(lambda: stream.log.reading)
            stream.append(failure)
        await answering
    assert stream.client.status() == 502
    assert json.loads(stream.client.text)["error"]["code"] == "upstream_unreachable"
    (detached,) = (entry for entry in logs.entries if entry["event"] == "subscriber.detached")
    assert (detached["last_record"], detached["whole"]) == (1, True)


async def test_keep_alives(log: FilteringBoundLogger) -> None:
    """A silent stream is kept alive with comments, which stop when the stream ends."""
    async with streaming(log, START) as stream:
        answering = stream.respond(keep_alive=0.01)
        await until(lambda: stream.client.frames.count(COMMENT) >= 3)
        stream.append(Done("stop"))
        await answering
    assert stream.client.text.replace(COMMENT, b"").endswith(encoded(1, START) + encoded(2, Done("stop")))


@pytest.mark.parametrize("push", [True, False])
async def test_no_keep_alives_while_busy(log: FilteringBoundLogger, loop_clock: LoopClock, push: bool) -> None:
    """A stream that sends more often than every half of *keep_alive* has no comments."""
    async with streaming(log, START) as stream:
        answering = stream.respond(keep_alive=2, push=push)
        for _ in range(20):
            await loop_clock.let_pass(0.5)
            stream.append(Delta("a"))
        assert COMMENT not in stream.client.frames
        await until(lambda: stream.subscription.records_behind == 0)
        await loop_clock.let_pass(1)
        await loop_clock.let_pass(1)
        assert COMMENT in stream.client.frames
        stream.append(Done("stop"))
        await answering


@pytest.mark.parametrize(("push", "smooth"), [(True, 0.0), (False, 0.0), (True, 0.1)])
async def test_what_is_not_sent_is_silence(
    log: FilteringBoundLogger, loop_clock: LoopClock, push: bool, smooth: float
) -> None:
    """Records for which a dialect has no word do not keep a connection alive."""

    class Mute(EventEncoder):
        def __call__(self, batch: Batch) -> bytes:
            return b""

    async with streaming(log, START) as stream:
        answering = stream.respond(keep_alive=2, encode=Mute(Reading(ID)), push=push, smooth=smooth)
        for _ in range(5):
            await loop_clock.let_pass(0.5)
            stream.append(Delta("a"))
        assert stream.client.frames == [COMMENT]
        stream.append(Done("stop"))
        while not answering.done():
            await loop_clock.let_pass(0.5)
        await answering
    assert set(stream.client.frames) == {COMMENT}


async def test_a_smooth_stream_is_kept_alive(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Where records are far apart, comments go out between two of them."""
    async with streaming(log, START) as stream:
        answering = stream.respond(keep_alive=0.4, smooth=9)
        await until(lambda: stream.client.frames)
        stream.append(*map(Delta, "abcd"))
        while stream.subscription.records_behind:
            await loop_clock.let_pass(0.1)
        for earlier, later in pairwise(stream.client.frames[1:]):  # the first delta waits for nothing
            assert COMMENT in (earlier, later)
        assert stream.client.frames.count(COMMENT) > 12
        stream.append(Done("stop"))
        await answering
    assert stream.client.text.replace(COMMENT, b"").endswith(encoded(1, START, *map(Delta, "abcd"), Done("stop")))


async def test_a_reader_leaves_nothing(log: FilteringBoundLogger) -> None:
    """What a reader had is freed as it leaves, and not by a garbage collection some time later."""
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        response = weakref.ref(stream.response)
        stream.client.leave()
        gc.disable()
        try:
            await answering
            del answering, stream.response
            await until(lambda: response() is None)
        finally:
            gc.enable()


async def test_a_refused_write(log: FilteringBoundLogger) -> None:
    """A client that falls behind holds nothing up, loses nothing, and is written to again once it has caught up."""
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        stream.client.fall_behind()
        for text in "abc":
            stream.append(Delta(text))
        await until(lambda: stream.client.sends == 3)
        assert stream.subscription.sent.last == 1
        stream.client.catch_up()
        await until(lambda: stream.subscription.records_behind == 0)
        assert stream.client.pushed == 0
        while not stream.client.pushed:
            stream.append(Delta("d"))
            await asyncio.sleep(0)
        stream.append(Done("stop"))
        await answering
    assert stream.client.text.endswith(encoded(1, *stream.log.records(0, stream.log.last)))


async def test_dismissal(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A reader that is sent away is told when to come back, and its body ends."""
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        stream.subscription.dismiss()
        await answering
    assert stream.client.whole
    assert 250 <= int(stream.client.frames[-1].removeprefix(b"retry: ")) <= 1500
    (detached,) = (entry for entry in logs.entries if entry["event"] == "subscriber.detached")
    assert (detached["last_record"], detached["whole"], detached["dismissed"]) == (1, False, True)


@pytest.mark.parametrize("push", [True, False])
async def test_dismissal_of_a_client_that_is_behind(log: FilteringBoundLogger, push: bool) -> None:
    """What was encoded for it and not written goes out before the last words, once."""
    async with streaming(log, START) as stream:
        answering = stream.respond(push=push)
        await until(lambda: stream.client.frames)
        stream.client.fall_behind()
        stream.append(Delta("a"))
        await until(lambda: stream.client.sends == 3)  # the head, the start, the delta
        stream.subscription.dismiss()
        await asyncio.sleep(0)
        stream.client.catch_up()
        await answering
    sent, _, last_words = stream.client.text.rpartition(b"retry: ")
    assert sent.endswith(encoded(1, START) + encoded(2, Delta("a")))
    assert last_words.strip().isdigit()


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("push", [True, False])
@pytest.mark.parametrize("turns", range(4))
async def test_dismissal_at_the_end(
    log: FilteringBoundLogger, logs: LogCapture, turns: int, push: bool, behind: bool
) -> None:
    """A reader that is sent away as the stream ends, or just after that, gets one end: the stream's, if it is there."""
    async with streaming(log, START, Delta("a")) as stream:
        answering = stream.respond(encode=ResponsesEncoder(Reading(ID)), push=push)
        await until(lambda: stream.client.frames)
        if behind:
            stream.client.fall_behind()
        stream.append(Done("stop"))
        for _ in range(turns):
            await asyncio.sleep(0)
        stream.subscription.dismiss()
        await asyncio.sleep(0)
        stream.client.catch_up()
        await answering
    ends = [stream.client.text.count(b"event: %s\n" % name) for name in (b"response.completed", b"error")]
    assert sum(ends) == 1
    (detached,) = (entry for entry in logs.entries if entry["event"] == "subscriber.detached")
    assert detached["whole"] == bool(ends[0])


LONG = "漢字かな" * (8 * 2**20 // 12)


async def test_a_long_answers_end(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the dialect of Responses the end has all of the text four times, and holds the loop for none of them."""
    async with streaming(log, START) as stream:
        monkeypatch.setattr(stream.log._journal, "_bounds", Bounds(1 << 30, 1 << 30, 10, 60))
        for start in range(0, len(LONG), 1 << 16):
            stream.append(Delta(LONG[start : start + (1 << 16)]))
        answering = stream.respond(encode=ResponsesEncoder(Reading(ID)))
        await until(lambda: stream.subscription.records_behind == 0)
        stream.append(Done("stop"))
        with watching():
            await answering
        assert stream.client.frames[-1].startswith(b"event: response.completed\n")
    assert stream.client.text.count(LONG.encode()) == 4
    whole = ResponsesEncoder(Reading(ID))(Batch(1, stream.log.records(0, stream.log.last)))
    assert (
        stream.client.text.partition(b"event: response.output_text.done")[2]
        == (whole.partition(b"event: response.output_text.done")[2])
    )


ESCAPES = '"\x01' * (8 * 2**20 // 2)
CALL = ToolCall(0, "c", "f", "{}")
ENDINGS = (b"output_text.done", b"content_part.done", b"output_item.done", b"completed")


@pytest.mark.parametrize("next_", [CALL, Done("stop")], ids=["a call", "the end"])
async def test_a_long_text_is_closed(
    log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch, next_: ToolCall | Done
) -> None:
    """In the dialect of Responses, what follows a long text has all of it three times, and holds the loop for none."""
    async with streaming(log, START) as stream:
        monkeypatch.setattr(stream.log._journal, "_bounds", Bounds(1 << 30, 1 << 30, 10, 60))
        for start in range(0, len(ESCAPES), 1 << 16):
            stream.append(Delta(ESCAPES[start : start + (1 << 16)]))
        answering = stream.respond(encode=ResponsesEncoder(Reading(ID)))
        await until(lambda: stream.subscription.records_behind == 0)
        begun = len(stream.client.frames)
        with watching():
            await asyncio.create_task(appended(stream, next_))
            await until(lambda: stream.subscription.records_behind == 0)
            if next_ is CALL:
                await asyncio.create_task(appended(stream, Delta("and then")))
                await until(lambda: stream.subscription.records_behind == 0)
                stream.append(Done("stop"))
            await answering
        frames = stream.client.frames[begun:]
    names = [b"event: response.%b" % name for name in ENDINGS]
    assert [frame.partition(b"\n")[0] for frame in frames if len(frame) > len(ESCAPES)] == names


async def appended(stream: Any, event: Event) -> None:
    stream.append(event)


async def test_resumed_within_a_long_answers_end(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that has the first block of a long end gets the others, one by one."""
    async with streaming(log, START) as stream:
        monkeypatch.setattr(stream.log._journal, "_bounds", Bounds(1 << 30, 1 << 30, 10, 60))
        for start in range(0, len(ESCAPES), 1 << 16):
            stream.append(Delta(ESCAPES[start : start + (1 << 16)]))
        stream.append(Done("stop"))
        stream.subscription.after = last = stream.log.last - 1
        stream.subscription.sent = Batch(last + 1, ())
        with watching():
            await stream.respond(encode=ResponsesEncoder(Reading(ID)), after=EventId(ID, last + 1, 1))
        names = [line for line in stream.client.text.split(b"\n") if line.startswith(b"event: ")]
    assert names == [b"event: response.%b" % name for name in ENDINGS[1:]]


@pytest.mark.parametrize("blocks", range(5))
async def test_dismissal_within_the_end(log: FilteringBoundLogger, blocks: int) -> None:
    """A reader that is sent away while the end's blocks go out gets one end, and no block twice."""
    async with streaming(log, START, Delta("a")) as stream:
        answering = stream.respond(encode=ResponsesEncoder(Reading(ID)), push=False)
        await until(lambda: stream.subscription.sent.last == 2)
        begun = stream.client.sends
        stream.client.fall_behind()
        stream.append(Done("stop"))
        for block in range(1, blocks + 1):
            await until(partial(lambda sends: stream.client.sends >= sends, begun + block))
            stream.client.catch_up()
            await asyncio.sleep(0)
            stream.client.fall_behind()
        stream.subscription.dismiss()
        await asyncio.sleep(0)
        stream.client.catch_up()
        await answering
    names = [line for line in stream.client.text.split(b"\n") if line.startswith(b"event: ")]
    assert len(set(names)) == len(names)
    assert names[-1] in (b"event: error", b"event: response.completed")
    assert (b"event: error" in names) + (b"event: response.completed" in names) == 1


async def test_dismissal_before_the_start(log: FilteringBoundLogger) -> None:
    """A reader whose answer has not begun gets a status: the exception is answered with 503."""
    async with streaming(log) as stream:
        answering = stream.respond(commit_after=60)
        await until(lambda: stream.log.reading)
        stream.subscription.dismiss()
        with pytest.raises(Draining):
            await answering
    assert stream.client.head is None


async def test_a_client_that_hangs_up(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A reader that is gone is sent nothing more and no longer counts; the log line says what it got."""
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        stream.client.leave()
        stream.append(Delta("a"))
        await answering
        stream.append(Done("stop"))
    assert not stream.client.whole
    (detached,) = (entry for entry in logs.entries if entry["event"] == "subscriber.detached")
    assert (detached["last_record"], detached["whole"]) == (1, False)
    assert "dismissed" not in detached


async def test_a_client_that_hangs_up_while_it_is_behind(log: FilteringBoundLogger) -> None:
    """What a server drops because the client is gone does not count as sent."""
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.client.frames)
        stream.client.fall_behind()
        stream.append(Delta("a"))
        await until(lambda: stream.client.sends == 3)
        stream.client.leave()
        await answering
    assert stream.subscription.sent.last == 1


async def test_a_client_that_hangs_up_before_the_start(log: FilteringBoundLogger) -> None:
    """Nothing is sent then, not even a status."""
    async with streaming(log) as stream:
        answering = stream.respond(commit_after=60)
        await until(lambda: stream.log.reading)
        stream.client.leave()
        await answering
    assert stream.client.head is None


@pytest.mark.parametrize("live", [False, True])
async def test_an_encoder_that_fails(log: FilteringBoundLogger, live: bool) -> None:
    """The answer fails with the encoder's error. The producer, in which a live batch is encoded, goes on."""

    class Failing(EventEncoder):
        def __call__(self, batch: Batch) -> bytes:
            if isinstance(batch.events[-1], Delta):
                raise ZeroDivisionError
            return super().__call__(batch)

    async with streaming(log, START, *(() if live else (Delta("a"),))) as stream:
        answering = stream.respond(encode=Failing(Reading(ID)))
        if live:
            await until(lambda: stream.client.frames)
            stream.append(Delta("a"))
        with pytest.raises(ZeroDivisionError):
            await answering
        stream.append(Delta("b"))
    assert not stream.client.whole


async def test_smooth(log: FilteringBoundLogger) -> None:
    """A burst is spread over more than one frame, and nothing of it is lost."""
    texts = [Delta(text) for text in "abcdefgh"]
    async with streaming(log, START) as stream:
        answering = stream.respond(smooth=0.1)
        await until(lambda: stream.client.frames)
        stream.append(*texts)
        stream.append(Done("stop"))
        await answering
    assert stream.client.text.endswith(encoded(1, START, *texts, Done("stop")))
    assert len(stream.client.frames) > 3


async def test_smooth_spreads_no_replay(log: FilteringBoundLogger) -> None:
    """What is in the log already is sent at once; what comes is spread."""
    texts = [Delta("a")] * 3000
    async with streaming(log, START, *texts) as stream:
        answering = stream.respond(smooth=60)
        await until(lambda: stream.subscription.sent.last == 3001)
        stream.append(*texts)
        await until(lambda: stream.subscription.sent.last > 3001)
        assert stream.subscription.records_behind > 2900
        stream.subscription.dismiss()
        await answering
    assert stream.client.whole


async def test_smooth_holds_nothing(log: FilteringBoundLogger) -> None:
    """What waits to be spread waits in the log: a burst that is overdue goes out in batches of the usual size."""
    async with streaming(log) as stream:
        stream.log._journal._bounds = Bounds(1 << 30, 1 << 30, 10, 60)
        answering = stream.respond(smooth=0.001)
        await until(lambda: stream.log._sinks)
        for _ in range(100):
            stream.append(*[Delta("a")] * 1000)
        stream.append(Done("stop"))
        turns = asyncio.create_task(counted_turns())
        await answering
        turns.cancel()
        assert await turns >= 100_000 / ROOM / 2
    assert stream.client.text.endswith(encoded(100_001, Done("stop")))
    assert max(map(len, stream.client.frames)) < 200_000


async def test_smooth_keeps_fields_with_their_text(log: FilteringBoundLogger) -> None:
    """Log probabilities and other fields are not parted from the text that they came with."""
    events: list[Event] = [
        event for _ in range(20) for event in (Delta("a"), Logprobs([{"token": "a"}]), Extra({"a": 1}))
    ]
    batches: list[Batch] = []
    async with streaming(log, START) as stream:
        answering = stream.respond(smooth=0.1, encode=Noting(batches))
        await until(lambda: batches)
        stream.append(*events, Done("stop"))
        await answering
    assert [event for batch in batches for event in batch.events] == [START, *events, Done("stop")]
    assert len(batches) > 3
    assert not any(isinstance(batch.events[0], (Logprobs, Extra)) for batch in batches)


async def test_smooth_is_dismissed(log: FilteringBoundLogger) -> None:
    """A reader whose records wait to be spread is sent away at once."""
    async with streaming(log, START) as stream:
        answering = stream.respond(smooth=60)
        await until(lambda: stream.client.frames)
        stream.append(*[Delta("a")] * 100)
        await until(lambda: stream.subscription.sent.last > 1)
        stream.subscription.dismiss()
        await answering
    assert stream.client.whole
    assert stream.subscription.records_behind > 0


async def test_a_whole_answer(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A client that waits for a whole answer is a reader until the end."""
    async with streaming(log, START) as stream:
        reading = asyncio.create_task(read_whole(stream.subscription, stream.client.receive))
        await until(lambda: stream.log.reading)
        stream.append(Delta("a"), Done("stop"))
        await reading
    assert stream.subscription.sent.last == 3
    (detached,) = (entry for entry in logs.entries if entry["event"] == "subscriber.detached")
    assert detached["whole"]


async def test_a_whole_answer_that_is_cut_short(log: FilteringBoundLogger) -> None:
    """If the reader is sent away, Draining is raised; if the client hangs up, ClientDisconnect."""
    async with streaming(log, START) as stream:
        reading = asyncio.create_task(read_whole(stream.subscription, stream.client.receive))
        await until(lambda: stream.log.reading)
        stream.subscription.dismiss()
        with pytest.raises(Draining):
            await reading
    async with streaming(log, START) as stream:
        reading = asyncio.create_task(read_whole(stream.subscription, stream.client.receive))
        await until(lambda: stream.log.reading)
        stream.client.leave()
        with pytest.raises(ClientDisconnect):
            await reading


@pytest.mark.parametrize("turns", range(6))
async def test_a_whole_answer_that_ends_as_its_reader_is_sent_away(log: FilteringBoundLogger, turns: int) -> None:
    """Who has all of it is not told to ask again."""
    async with streaming(log, START) as stream:
        reading = asyncio.create_task(read_whole(stream.subscription, stream.client.receive))
        await until(lambda: stream.log.reading)
        stream.append(Done("stop"))
        for _ in range(turns):
            await asyncio.sleep(0)
        stream.subscription.dismiss()
        [error] = await asyncio.gather(reading, return_exceptions=True)
        assert (error is None) == (stream.subscription.sent.last == 2)


async def test_a_large_batch_is_not_pushed(log: FilteringBoundLogger) -> None:
    """What is too much to be written within the append is read from the log, and so is what comes meanwhile."""
    large = [Delta("x" * 4096)] * 20
    async with streaming(log, START) as stream:
        answering = stream.respond()
        await until(lambda: stream.log._sinks)
        stream.append(Delta("a"))
        assert stream.client.pushed == 1
        stream.append(*large)
        stream.append(Delta("b"))
        assert stream.client.pushed == 1
        await until(lambda: stream.subscription.sent.last == 23)
        await until(lambda: stream.log._sinks)
        stream.append(Delta("c"))
        stream.append(Done("stop"))
        assert stream.client.pushed == 2
        await answering
    expected = encoded(1, START, Delta("a"), *large, Delta("b"), Delta("c"), Done("stop"))
    assert stream.client.text.endswith(expected)


async def test_many_readers_are_not_pushed_to_at_once(log: FilteringBoundLogger) -> None:
    """What is pushed within one append is bounded for all readers of a stream together."""
    house = House(log)
    kept = await house.journal.create(ID, StreamInfo("none"))
    taken: list[Batch | None] = []

    def sink() -> Callable[[Batch | None], None]:
        return lambda batch: taken.append(batch)

    for number in (1, 10, 5000):
        while len(kept._sinks) < number:
            kept.follow(sink())
        taken.clear()
        kept.append([Delta("abcd")])
        assert len(taken) == number
        assert all(taken) == (number < 5000)
        taken.clear()
        kept.append([Delta("abcd")] * 200)
        assert all(taken) == (number == 1)


async def test_a_replay_lets_others_go_on(log: FilteringBoundLogger) -> None:
    """A long log goes out in many turns of the loop, also to a client that takes everything at once."""
    records = [Delta("a")] * 100_000
    async with streaming(log) as stream:
        stream.log._journal._bounds = Bounds(1 << 30, 1 << 30, 10, 60)
        stream.append(*records, Done("stop"))
        turns = asyncio.create_task(counted_turns())
        await stream.respond()
        turns.cancel()
        assert await turns >= 100_000 / ROOM / 2
    assert stream.client.text.endswith(encoded(100_001, Done("stop")))


async def test_many_that_resume_let_others_go_on(log: FilteringBoundLogger) -> None:
    """Many that come back at once, in a dialect whose encoder has to read what they have, share the loop's turns."""
    house = House(log)
    kept = await house.journal.create(ID, StreamInfo("none"))
    kept.append([START, *[Delta("a")] * 4095, Done("stop")])
    readers = [Stream(kept, await house.hub.attach(ID, after=4096), log) for _ in range(20)]
    turns = asyncio.create_task(counted_turns())
    answering = [reader.respond(encode=ChunkEncoder(Reading(ID)), after=EventId(ID, 4096)) for reader in readers]
    await asyncio.gather(*answering)
    turns.cancel()
    assert await turns >= 20 * 4096 / ROOM / 2
    assert all(reader.client.text.count(b"data: [DONE]\n") == 1 for reader in readers)


async def test_long_records_let_others_go_on(log: FilteringBoundLogger) -> None:
    """Many readers that are to be sent a record of megabytes share the loop's turns by its size."""
    house = House(log)
    kept = await house.journal.create(ID, StreamInfo("none"))
    kept.append([START, Media("image", "image/png", f"data:image/png;base64,{'A' * 1_000_000}"), Done("stop")])
    readers = [Stream(kept, await house.hub.attach(ID), log) for _ in range(50)]
    answering = asyncio.gather(*[reader.respond() for reader in readers])
    sent = [0]  # after each turn
    while not answering.done():
        await asyncio.sleep(0)
        sent.append(sum(len(frame) > 1_000_000 for reader in readers for frame in reader.client.frames))
    assert sent[-1] == len(readers)
    assert max(after - before for before, after in pairwise(sent)) <= 2
