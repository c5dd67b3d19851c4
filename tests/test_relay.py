"""The relay: every way a stream can end has exactly one terminal record, last, and nothing that came is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Draining, RateLimited, StreamError, Truncated, UpstreamError
from app.events import TERMINAL, Content, Delta, Done, Event, Failure, Reasoning, Start, ToolCall
from app.journal import Bounds
from app.journal.memory import MemoryJournal
from app.meter import Meter
from app.rechunk import SLICE, create
from app.rechunk._holding import LIMIT
from app.relay import Limits, Past, Relay, keep_nothing
from app.request import StreamInfo, StreamRequest
from app.upstream import Afford, Attempt, Batches
from app.usage import Usage
from tests.clock import LoopClock
from tests.script import Script, affordable, forever, unheard
from tests.waiting import counted_turns, until

pytestmark = pytest.mark.anyio

OFF = Limits(commit=60, first_token=0, idle=0, progress=0, total=0)
DONE = Done("stop", usage=Usage({"total_tokens": 3}), model="real-model")


class Run:
    """One relay over a script, and the log it wrote."""

    def __init__(
        self, log: FilteringBoundLogger, source: Script, chunk: str = "none", limits: Limits = OFF, size: int = 1 << 20
    ) -> None:
        self.source = source
        self._log, self._chunk, self._limits, self._size = log, chunk, limits, size
        self.relay: Relay
        self.task: asyncio.Task[None]
        self._journal = MemoryJournal(Bounds(size, 1 << 30, 10, 60))

    async def begin(self) -> Run:
        writer = await self._journal.create("s", StreamInfo(self._chunk))
        request = StreamRequest("m", ({"role": "user", "content": "x" * 40},), chunk=self._chunk)
        self.relay = Relay(
            self.source, request, create(self._chunk), writer, self._limits, Meter(), self._log, affordable
        )
        self.task = asyncio.create_task(self.relay.run())
        return self

    async def events(self) -> list[Event]:
        """Read the log to its end, and check the invariants that hold for every stream."""
        found: list[Event] = []
        async for batch in (await self._journal.open("s")).read():
            found += batch.events
        await asyncio.wait([self.task])
        assert self.source.closed.is_set() or not self.source.started
        assert [isinstance(event, TERMINAL) for event in found] == [False] * (len(found) - 1) + [True]
        return found

    async def seen(self, count: int) -> None:
        """Wait until the log holds *count* records."""
        left = count
        async for batch in (await self._journal.open("s")).read():
            left -= len(batch.events)
            if left <= 0:
                return


async def relayed(log: FilteringBoundLogger, *steps: Any, **options: Any) -> list[Event]:
    return await (await Run(log, Script(*steps), **options).begin()).events()


def text(events: Sequence[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


async def test_done(log: FilteringBoundLogger) -> None:
    """A stream that the upstream finishes is start, deltas, done; done carries usage, model and times."""
    events = await relayed(log, (), (Delta("a"), Delta("b")), (Delta("c"),), (DONE,))
    assert isinstance(events[0], Start)
    assert events[0].model == "m"
    assert events[1:-1] == [Delta("a"), Delta("b"), Delta("c")]
    done = events[-1]
    assert isinstance(done, Done)
    assert (done.finish_reason, done.usage, done.model) == ("stop", Usage({"total_tokens": 3}), "real-model")
    assert done.first_token_ms is not None
    assert done.duration_ms is not None
    assert 0 <= done.first_token_ms <= done.duration_ms


async def test_failure_before_content(log: FilteringBoundLogger) -> None:
    """A stream that fails before any content is one record, so that it can still be an HTTP status."""
    (event,) = await relayed(log, (), RateLimited(retry_after=7))
    assert isinstance(event, Failure)
    assert (event.code, event.status, event.retry_after) == ("upstream_rate_limited", 429, 7)


async def test_failure_after_content(log: FilteringBoundLogger) -> None:
    """What came before the failure is kept, and usage is counted here and says so."""
    events = await relayed(log, (Delta("four"),), Truncated())
    assert text(events) == "four"
    failure = events[-1]
    assert isinstance(failure, Failure)
    assert failure.code == "upstream_truncated"
    assert failure.usage == Usage({"prompt_tokens": 14, "completion_tokens": 1, "total_tokens": 15}, estimated=True)


async def test_prompt_that_was_refused_costs_nothing(log: FilteringBoundLogger) -> None:
    """An upstream that answered with an error status used no tokens."""
    (failure,) = await (await Run(log, Script(RateLimited(), status=429)).begin()).events()
    assert isinstance(failure, Failure)
    assert failure.usage is not None
    assert failure.usage.fields["total_tokens"] == 0


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}, {"prompt_tokens": 9, "completion_tokens": 1}),
        ({"prompt_tokens": 0, "completion_tokens": 5}, None),
        ({"cost": 0.1}, None),
    ],
)
async def test_usage_that_lacks_the_answer(
    log: FilteringBoundLogger, said: dict[str, Any], counted: dict[str, int] | None
) -> None:
    """If the upstream counted no token of an answer that came, the answer is counted here; what it counted stays."""
    events = await relayed(log, (Delta("a"),), (Done("stop", None, Usage(said)),))
    assert isinstance(events[-1], Done)
    usage = events[-1].usage
    assert usage is not None
    assert (usage.estimated, {**usage.fields, **(counted or said)}) == (counted is not None, usage.fields)


async def test_usage_that_came_before_a_failure_is_kept(log: FilteringBoundLogger) -> None:
    """Upstream's own running totals are used where the stream breaks off later."""

    class Telling(Script):
        async def stream(self, request: StreamRequest, attempt: Attempt) -> Any:
            async for batch in super().stream(request, attempt):
                yield batch
            attempt.usage = Usage({"total_tokens": 5})
            raise Truncated

    events = await (await Run(log, Telling((Delta("a"),))).begin()).events()
    assert isinstance(events[-1], Failure)
    assert events[-1].usage == Usage({"total_tokens": 5})


async def test_bug(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """An unexpected exception ends the stream with internal_error; its message reaches neither client nor log."""
    events = await relayed(log, (Delta("a"),), ValueError("the secret prompt"))
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "internal_error"
    assert "secret" not in str(events) + str(logs.entries)
    assert logs.entries[0]["error"] == "ValueError"


async def test_source_that_just_ends(log: FilteringBoundLogger) -> None:
    """A source that ends without a done broke its contract; the reader gets an error, not silence."""
    events = await relayed(log, (Delta("a"),))
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "internal_error"


async def test_stop_in_mid_stream(log: FilteringBoundLogger) -> None:
    """A cancelled stream ends with done, cancelled; upstream is let go; cancelling again changes nothing."""
    run = await Run(log, Script((Delta("a"),), forever)).begin()
    await run.seen(2)
    run.relay.stop(Done("cancelled"))
    run.relay.stop(Truncated())
    events = await run.events()
    assert text(events) == "a"
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "cancelled"
    assert events[-1].usage is not None
    assert events[-1].usage.estimated


async def test_stop_before_the_first_turn(log: FilteringBoundLogger) -> None:
    """A stream that is stopped before its task ever ran asks nothing of the upstream and still ends properly."""
    run = await Run(log, Script((Delta("a"),), (DONE,))).begin()
    run.relay.stop(Done("cancelled"))
    events = await run.events()
    assert run.source.started == 0
    assert [type(event) for event in events] == [Start, Done]


async def test_stop_after_the_end(log: FilteringBoundLogger) -> None:
    """Stopping a stream that has ended, while its source still lingers, changes nothing."""
    run = await Run(log, Script((Delta("a"),), (DONE,), forever)).begin()
    await run.seen(3)
    run.relay.stop(Done("cancelled"))
    run.task.cancel()
    events = await run.events()
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "stop"


async def test_loop_going_down(log: FilteringBoundLogger) -> None:
    """A cancellation from outside is not swallowed, and readers are told."""
    run = await Run(log, Script((Delta("a"),), forever)).begin()
    await run.seen(2)
    run.task.cancel()
    events = await run.events()
    assert run.task.cancelled()
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "shutting_down"


@pytest.mark.parametrize(
    ("limits", "steps", "code"),
    [
        (Limits(60, 0.02, 0, 0, 0), [(), forever], "first_token_timeout"),
        (Limits(0, 5, 0.02, 0, 0), [(Delta("a"),), forever], "idle_timeout"),
        (Limits(0, 5, 5, 0.02, 0), [(Delta("a"),), forever], "progress_timeout"),
        (Limits(0, 5, 5, 5, 0.02), [(Delta("a"),), forever], "total_timeout"),
        (Limits(0, 0, 0, 0, 0.02), [(), forever], "total_timeout"),
    ],
)
async def test_limits(log: FilteringBoundLogger, limits: Limits, steps: list[Any], code: str) -> None:
    """Each limit ends the stream with its own code, a 504."""
    events = await relayed(log, *steps, limits=limits)
    assert isinstance(events[-1], Failure)
    assert (events[-1].code, events[-1].status) == (code, 504)


async def test_heartbeats_are_life_but_not_progress(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Empty batches hold off the idle limit, never the progress limit."""
    began = loop_clock.now
    beats: list[Any] = [lambda: loop_clock.let_pass(5), ()] * 10
    events = await relayed(log, (Delta("a"),), *beats, limits=Limits(0, 0, idle=10, progress=20, total=0))
    assert loop_clock.now - began == pytest.approx(20)
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "progress_timeout"


async def test_commit_deadline(log: FilteringBoundLogger) -> None:
    """When upstream is slow, start is recorded at the commit deadline, and only once."""
    release = asyncio.Event()
    run = await Run(log, Script((), release.wait, (Delta("a"),), (DONE,)), limits=Limits(0.01, 0, 0, 0, 0)).begin()
    await run.seen(1)
    release.set()
    events = await run.events()
    assert [type(event) for event in events] == [Start, Delta, Done]


async def test_held_text_is_released_by_its_bound(log: FilteringBoundLogger) -> None:
    """Text that a cut holds back leaves when its time is up, though upstream is silent."""
    run = await Run(log, Script((Delta("a "),), (Delta("b"),), forever), chunk="word,10ms").begin()
    await run.seen(3)
    run.relay.stop(Done("cancelled"))
    assert text(await run.events()) == "a b"


async def test_the_bound_counts_from_when_the_text_came(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Text that came after what was held had left has the whole bound for itself."""
    steps: list[Any] = [(Delta("x "),), (Delta("one"),), lambda: loop_clock.let_pass(0.3), (Delta(" two"),)]
    steps += [lambda: loop_clock.let_pass(0.2), (Delta(" three"),), (DONE,)]
    events = await relayed(log, *steps, chunk="word,400ms")
    assert events[1:-1] == [Delta("x "), Delta("one "), Delta("two "), Delta("three")]


async def test_a_bound_that_is_left_from_earlier(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Text that is held after nothing was has the whole bound for itself, too."""
    steps: list[Any] = [(Delta("x\n"),), (Delta("ab"),), (Delta("c\n"),), lambda: loop_clock.let_pass(0.3)]
    steps += [(Delta("de"),), lambda: loop_clock.let_pass(0.2), (Delta("f\n"),), (DONE,)]
    events = await relayed(log, *steps, chunk="line,400ms")
    assert events[1:-1] == [Delta("x\n"), Delta("abc\n"), Delta("def\n")]


@pytest.mark.parametrize("ending", [DONE, Truncated()])
async def test_held_text_is_released_by_the_end(log: FilteringBoundLogger, ending: Any) -> None:
    """Text that a cut holds back is never lost, however the stream ends."""
    last = (ending,) if isinstance(ending, Done) else ending
    events = await relayed(log, (Delta("one "),), (Delta("unfin"),), (Delta("ished"),), last, chunk="line")
    assert text(events) == "one unfinished"


async def test_kinds_keep_their_order(log: FilteringBoundLogger) -> None:
    """Reasoning and tool calls pass between text in the order in which they came."""
    content: list[Content] = [Reasoning("hm"), Delta("a"), ToolCall(0, "id", "f", "{}"), Delta("b")]
    events = await relayed(log, content, (DONE,), chunk="word")
    assert events[1:-1] == content


async def test_answer_larger_than_its_bound(log: FilteringBoundLogger) -> None:
    """An answer that outgrows the log's bound is ended with an error, and the upstream is let go."""
    events = await relayed(log, *[(Delta("x" * 1000),)] * 50, forever, size=20_000)
    assert isinstance(events[-1], Failure)
    assert events[-1].code == "stream_too_large"
    assert len(events) < 25


async def test_a_start_that_is_refused(log: FilteringBoundLogger) -> None:
    """A stream that the journal has no room for ends at its commit deadline, and its readers wait no longer."""
    run = await Run(log, Script(forever), limits=replace(OFF, commit=0.01), size=1).begin()
    await run.relay.committed
    [failure] = await run.events()
    assert isinstance(failure, Failure)
    assert failure.code == "stream_too_large"


async def test_nothing_follows_text_that_was_refused(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Held text is not sent once the text before it was refused, also while the upstream is being closed."""
    closing, closed = asyncio.Event(), asyncio.Event()

    class ClosingSlowly(Script):
        async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
            try:
                async for batch in super().stream(request, attempt):
                    yield batch
            finally:
                closing.set()
                await closed.wait()

    source = ClosingSlowly([Delta("x ")], [Delta("a")], [Delta("y" * 900 + " z")], [DONE])
    run = await Run(log, source, chunk="word,80ms", size=800).begin()
    await closing.wait()
    await loop_clock.let_pass(1)
    closed.set()
    *found, end = await run.events()
    assert text(found) == "x "
    assert isinstance(end, Failure)
    assert end.code == "stream_too_large"


async def test_bound_reached_by_held_text(log: FilteringBoundLogger) -> None:
    """The bound holds for text that the end, or its time, releases: the stream fails rather than lose it silently."""
    for chunk, last in (("line", [(DONE,)]), ("line,10ms", [forever])):
        events = await relayed(log, (Delta("a"),), (Delta("x" * 5000),), *last, size=4000, chunk=chunk)
        assert isinstance(events[-1], Failure)
        assert events[-1].code == "stream_too_large"
        assert events[-1].usage is not None
        assert events[-1].usage.estimated is (last == [forever])  # the upstream told it, or not


async def test_the_end_cannot_fail(
    log: FilteringBoundLogger, logs: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in what the end needs still leaves a terminal record, whichever way the stream was ending."""

    def broken(*_: Any) -> Any:
        raise ValueError("the secret prompt")

    for method in ("_flush", "_usage"):
        for steps in ([(Delta("a"),), (DONE,)], [(Delta("a"),), Truncated()], [(Delta("a"),), ValueError()]):
            with monkeypatch.context() as patch:
                patch.setattr(Relay, method, broken)
                events = await relayed(log, *steps)
            assert isinstance(events[-1], Failure)
            assert events[-1].code == "internal_error"
    assert "secret" not in str(logs.entries)


@pytest.mark.parametrize("stopped", [True, False])
async def test_adopted_and_over(log: FilteringBoundLogger, stopped: bool) -> None:
    """A stream that ends before its answer is read again has its upstream told so, and pays for that answer."""
    source = Script((Delta("x"),), forever)
    journal = MemoryJournal(Bounds(1 << 20, 1 << 30, 10, 60))
    writer = await journal.create("s", StreamInfo("none"))
    writer.append([Start("m", 1), Delta("a")])
    relay = Relay(
        source.resumption({}),
        StreamRequest("m", ()),
        create("none"),
        writer,
        replace(OFF, total=100),
        Meter(),
        log,
        affordable,
        keep_nothing,
        Past(1 if stopped else 101, 2, True),
    )
    task = asyncio.create_task(relay.run())
    if stopped:
        relay.stop(Draining())
    await task
    end = (await journal.open("s")).records(0, 9)[-1]
    assert isinstance(end, Failure)
    assert end.code == ("shutting_down" if stopped else "total_timeout")
    assert (source.started, source.abandoned) == (0, 1)
    assert [attempt.costs for attempt in relay.attempts] == [(None,)]
    assert not task.cancelling()


class Tries:
    """An `Opener` of one attempt after another, whose upstreams say nothing but what the test has them say."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.changed: Callable[[], None] = unheard
        self.answer: asyncio.Future[UpstreamError] = asyncio.get_running_loop().create_future()

    async def begin(
        self, request: StreamRequest, attempts: list[Attempt], changed: Callable[[], None], afford: Afford
    ) -> Any:
        self.attempts, self.changed = attempts, changed
        self.ask()
        raise await self.answer

    async def abandon(self, request: StreamRequest, attempts: list[Attempt]) -> None:
        raise NotImplementedError

    def ask(self, last: bool = True) -> None:
        self.attempts.append(Attempt(last=last))

    def fail(self) -> None:
        self.attempts[-1].failed = True
        self.changed()

    def accept(self) -> None:
        self.attempts[-1].answered_at = asyncio.get_running_loop().time()
        self.changed()


@asynccontextmanager
async def trying(log: FilteringBoundLogger, **limits: float) -> AsyncIterator[tuple[Tries, Relay, MemoryJournal]]:
    journal = MemoryJournal(Bounds(1 << 20, 1 << 30, 10, 60))
    tries = Tries()
    writer = await journal.create("s", StreamInfo("none"))
    relay = Relay(
        tries, StreamRequest("m", ()), create("none"), writer, replace(OFF, **limits), Meter(), log, affordable
    )
    task = asyncio.create_task(relay.run())
    await until(lambda: tries.attempts)
    yield tries, relay, journal
    if not tries.answer.done():
        tries.answer.set_result(UpstreamError())
    await task


async def test_status_is_held_while_it_is_asked_again(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """After a failed attempt the commit deadline is the longer one, and a failure after that is still a status."""
    async with trying(log, commit=2, retry_hold=20) as (tries, relay, journal):
        tries.fail()
        await loop_clock.let_pass(9)
        tries.ask()
        await loop_clock.let_pass(9)
        tries.fail()
        assert not relay.committed.done()
        tries.answer.set_result(RateLimited(retry_after=1))
    (failure,) = (await journal.open("s")).records(0, 9)
    assert isinstance(failure, Failure)
    assert (failure.status, failure.retried) == (429, True)


async def test_hold_ends(log: FilteringBoundLogger) -> None:
    """The longer deadline is one, too."""
    async with trying(log, commit=0, retry_hold=0.05) as (tries, relay, journal):
        await relay.committed
    async with trying(log, commit=0.01, retry_hold=0.05) as (tries, relay, journal):
        tries.fail()
        await relay.committed
        assert isinstance((await journal.open("s")).records(0, 1)[0], Start)


async def test_answer_after_a_failure_has_the_short_deadline_anew(
    log: FilteringBoundLogger, loop_clock: LoopClock
) -> None:
    """An upstream that has answered is not held; if it fails after all, that is a failed attempt again."""
    async with trying(log, commit=2, retry_hold=20) as (tries, relay, _):
        tries.fail()
        tries.ask()
        await loop_clock.let_pass(9)
        tries.accept()
        await loop_clock.let_pass(1)
        assert not relay.committed.done()
        await loop_clock.let_pass(1)
        assert relay.committed.done()
    async with trying(log, commit=2, retry_hold=20) as (tries, relay, _):
        tries.fail()
        tries.ask()
        tries.accept()
        tries.fail()
        await loop_clock.let_pass(9)
        assert not relay.committed.done()


async def test_first_attempt_has_the_short_deadline(log: FilteringBoundLogger, loop_clock: LoopClock) -> None:
    """Without a failure nothing is held longer, and an upstream that is not the last is not named."""
    async with trying(log, commit=2, retry_hold=20) as (tries, relay, journal):
        tries.attempts[-1].last = False
        tries.accept()
        await loop_clock.let_pass(1)
        assert not relay.committed.done()
        await loop_clock.let_pass(1)
        assert relay.committed.done()
        assert not (await journal.open("s")).last


@pytest.mark.parametrize(
    ("attempts", "longer", "retried"), [(1, False, False), (2, False, True), (2, True, False), (3, False, True)]
)
async def test_what_was_asked_more_than_once(
    log: FilteringBoundLogger, attempts: int, longer: bool, retried: bool
) -> None:
    """The record says whether it was asked in vain already; a wait that is longer than ours is left to the client."""
    async with trying(log, commit=60) as (tries, relay, _):
        for _ in range(attempts - 1):
            tries.fail()
            tries.ask()
        error = RateLimited(retry_after=60)
        error.longer = longer
        tries.answer.set_result(error)
    assert isinstance(relay.ended, Failure)
    assert relay.ended.retried is retried


@pytest.mark.parametrize("limits", [Limits(60, 0, idle=0.3, progress=0, total=0), Limits(60, 0, 0, 0, total=0.3)])
async def test_a_finished_answer_is_done(log: FilteringBoundLogger, limits: Limits) -> None:
    """Once upstream gave its finish reason, running out of time while waiting for what may follow changes nothing."""

    class Finished(Script):
        async def stream(self, request: StreamRequest, attempt: Attempt) -> Any:
            yield (Delta("a"),)
            self.started += 1
            attempt.done = Done("length")
            try:
                await forever()
            finally:
                self.closed.set()

    events = await (await Run(log, Finished(), limits=limits).begin()).events()
    assert isinstance(events[-1], Done)
    assert events[-1].finish_reason == "length"


async def test_a_stop_before_the_start_has_a_record_though_nothing_fits(log: FilteringBoundLogger) -> None:
    """A stream that is stopped before its first record ends with the journal's error if its start does not fit."""
    run = await Run(log, Script(forever), size=1).begin()
    await asyncio.sleep(0)
    run.relay.stop(Done("cancelled"))
    events = await run.events()
    assert [type(event) for event in events] == [Failure]
    assert isinstance(events[0], Failure)
    assert events[0].code == "stream_too_large"


class Pausing(Script):
    """A source that sends six letters, and pauses after each for *pause* seconds."""

    def __init__(self, pause: float, loop_clock: LoopClock) -> None:
        super().__init__()
        self.pause = pause
        self.loop_clock = loop_clock

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Any:
        for text in "abcdef":
            yield (Delta(text),)
            await self.loop_clock.let_pass(self.pause)
            yield ()
        yield (DONE,)
        self.closed.set()


@pytest.mark.parametrize(("chunk", "pause", "pieces"), [("time:80", 0.08, 6), ("time:700", 0.25, 3)])
async def test_a_pause_is_no_silence(
    log: FilteringBoundLogger, loop_clock: LoopClock, chunk: str, pause: float, pieces: int
) -> None:
    """With `time` the upstream is left alone for a while; the limit on silence goes by what is read after that."""
    assert create(chunk).pause == pause
    limits = Limits(60, 0, idle=0.35, progress=0, total=0)
    events = await (await Run(log, Pausing(pause, loop_clock), chunk, limits).begin()).events()
    assert text(events) == "abcdef"
    assert len([event for event in events if isinstance(event, Delta)]) == pieces
    assert isinstance(events[-1], Done)


@pytest.mark.parametrize("chunk", ["size:1", "word", "sentence", "line", "none", "auto", "time:50", "time:500"])
async def test_a_large_event_is_taken_in_slices(log: FilteringBoundLogger, chunk: str) -> None:
    """Whatever the cut, an event of megabytes holds nothing else up, and nothing of it is lost."""
    words = "some words, and an end. \n" * 4_000
    steps: list[Any] = [[Delta("first ")], [Delta(words), Reasoning(words), ToolCall(0, "c", "f", words)]]
    turns = asyncio.create_task(counted_turns())
    found = await relayed(log, *steps, [Done("stop")], chunk=chunk, size=1 << 30)
    turns.cancel()
    assert await turns > 3 * len(words) / SLICE / 4  # as many slices as one turn has room for
    assert text(found) == "first " + words
    assert "".join(event.text for event in found if isinstance(event, Reasoning)) == words
    assert "".join(event.arguments for event in found if isinstance(event, ToolCall)) == words
    assert max(len(event.text) for event in found if isinstance(event, (Delta, Reasoning))) <= LIMIT
    done = found[-1]
    assert isinstance(done, Done)
    assert done.usage is not None
    assert done.usage.output_tokens == pytest.approx(3 * len(words) / 4, rel=0.5)


@pytest.mark.parametrize("ending", [Done("cancelled"), Draining()])
async def test_stop_within_a_large_event(log: FilteringBoundLogger, ending: Done | StreamError) -> None:
    """A stop takes effect between two slices: the text so far stays, and the terminal record comes once, last."""
    run = await Run(log, Script([Delta("a b" * (1 << 20))], [Done("stop")]), "size:1", size=1 << 30).begin()
    await run.seen(10_000)
    run.relay.stop(ending)
    *found, end = await run.events()
    assert isinstance(end, Done if isinstance(ending, Done) else Failure)
    said = text(found)
    assert 10_000 < len(said) < 3 << 20
    assert said == ("a b" * (1 << 20))[: len(said)]
    assert run.relay.output_bytes == len(said)


async def test_a_large_event_beyond_the_bound(log: FilteringBoundLogger) -> None:
    """What fits of an answer that is too large for its log is relayed, and then the stream fails."""
    *found, end = await relayed(log, [Delta("x" * (8 << 20))], [Done("stop")], chunk="size:1", size=1 << 20)
    assert isinstance(end, Failure)
    assert end.code == "stream_too_large"
    assert 100_000 < len(text(found)) < 1 << 20


async def test_held_text_is_released_within_a_large_event(log: FilteringBoundLogger) -> None:
    """The bound on holding text back is kept between slices; the order of the text stays."""
    steps = [[Delta("first ")], [Delta("held" + "x" * 20_000 + " and the rest")], [Done("stop")]]
    found = await relayed(log, *steps, chunk="word,1ms")
    assert text(found) == "first held" + "x" * 20_000 + " and the rest"
