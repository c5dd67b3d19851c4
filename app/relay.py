"""The hot path: source → rechunk → journal, for one stream.

A `Relay` runs in the stream's producer task, which owns the upstream connection. However the stream ends, by a finish
reason, an error, a limit, a stop or a bug, the relay appends exactly one terminal record, last, after all text that was
held back. Whatever the source, a timer or the journal raises becomes that record here.

Three timers belong to a stream. Nothing is armed or cancelled per delta:

- *commit* starts the stream without content, so that its readers get a 200 and keep-alives. It is moved when an attempt
  fails, and when an upstream answers after that.
- *watchdog* keeps all limits. The source yields a batch per network read, empty ones included, so the relay only notes
  two times per read. When the timer fires, it looks at them and is armed again for the next limit that can pass.
- *release* lets text go that the rechunker has held for `max_delay`. It is armed once per held piece: if a newer piece
  is held when it fires, it is armed again for that.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from app.errors import (
    Draining,
    FirstTokenTimeout,
    IdleTimeout,
    InternalError,
    ProgressTimeout,
    StreamError,
    TimedOut,
    TotalTimeout,
)
from app.events import TEXT, Annotation, Delta, Done, Event, Extra, Failure, Logprobs, Start, ToolCall
from app.journal import Writer
from app.meter import Meter
from app.rechunk import SLICE, SLICE_EVENTS, Rechunker, slices
from app.request import StreamRequest
from app.turns import ROOM, turn
from app.upstream import Afford, Attempt, Opener
from app.usage import Usage, estimate_prompt_tokens, estimate_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a stream may take, in seconds; 0 is no limit, except that with a *commit* of 0 it starts at once.

    *first_token* runs from the opening to the first content, retries included. *idle* (no byte) and *progress* (bytes,
    but no content) run only after that: a reasoning model may well be silent before it. *commit* is how long the first
    content may keep the answer's HTTP status open. Once an attempt has failed, and another is to come, that is
    *retry_hold*; an upstream that answers then has *commit* again.
    """

    commit: float = 2.0
    first_token: float = 300.0
    idle: float = 120.0
    progress: float = 300.0
    total: float = 1800.0
    retry_hold: float = 20.0


class Past(NamedTuple):
    """What an earlier process has done for a stream that this one goes on with.

    The stream was opened *seconds* ago, and has so many *records*; *answered* says that content is among them. The
    prompt was estimated at *prompt_tokens*.
    """

    seconds: float = 0.0
    records: int = 0
    answered: bool = False
    prompt_tokens: int = 0


NO_PAST = Past()

Keep = Callable[[Sequence[Attempt]], bool]
"""Is told of a stream's attempts when the last one has a note, before any of its content is appended.

Returns whether another process could go on with the stream now.
"""


def keep_nothing(attempts: Sequence[Attempt]) -> bool:
    """Keep no note."""
    return False


class Relay:
    """One stream's producer. `run` it in a task of its own; `stop` ends the stream from outside, and `leave` does not.

    *attempts* are what the upstreams said. *deltas* and *output_bytes* (UTF-8) count what the model wrote. The times
    are whole milliseconds since the stream was opened. *ended* is the terminal record, once there is one; *left* says
    that there will be none by this producer. *committed* is done when the answer's HTTP status has waited for long
    enough.
    """

    def __init__(
        self,
        opener: Opener,
        request: StreamRequest,
        rechunker: Rechunker,
        writer: Writer,
        limits: Limits,
        meter: Meter,
        log: FilteringBoundLogger,
        afford: Afford,
        keep: Keep = keep_nothing,
        past: Past = NO_PAST,
    ) -> None:
        self.attempts: list[Attempt] = []
        self.deltas = 0
        self.output_bytes = 0
        self.first_token_ms: int | None = None
        self.duration_ms = 0
        self.ended: Done | Failure | None = None
        self.left = False
        self._opener = opener
        self._request = request
        self._rechunker = rechunker
        self._writer = writer
        self._limits = limits
        self._meter = meter
        self._log = log
        self._afford = afford
        self._keep = keep
        self._past = past
        self._noted: Attempt | None = None
        self._adoptable = past is not NO_PAST  # whether there is a note with which another process could go on
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped: Done | StreamError | None = None
        self._started = past.records > 0
        self._answered = False  # whether content came
        self._refused = False  # whether the journal had no room for some text
        self.committed: asyncio.Future[None] = self._loop.create_future()
        self._begun_at = self._loop.time()
        self._opened_at = self._begun_at - past.seconds
        self._read_at = self._begun_at
        self._progress_at = self._begun_at
        self._commit: asyncio.TimerHandle | None = None
        self._deadline = 0.0  # at which it is armed
        self._watchdog: asyncio.TimerHandle | None = None
        self._release: asyncio.TimerHandle | None = None
        self._release_at = 0.0

    async def run(self) -> None:
        """Relay the whole stream, and close the upstream connection.

        Raises nothing but a cancellation that does not come from `stop`.
        """
        if self._started:
            self.committed.set_result(None)
        self._arm_commit()
        self._watch()
        self._task = asyncio.current_task()
        try:
            if self._stopped is not None:  # before the task had its first turn, or a limit had passed by then
                await self._opener.abandon(self._request, self.attempts)
            elif not self.left:
                await self._relay()
            self._end(InternalError())  # a source that ends without a Done broke its contract
        except StreamError as error:
            self._end(error)
        except asyncio.CancelledError:
            self._end(Draining())
            if self._stopped is None and not self.left:  # the loop itself is going down
                raise
        except Exception as error:  # the boundary: a bug must not leave readers without a terminal record
            self._log_crash(error)
            self._end(InternalError())
        finally:
            for timer in (self._commit, self._watchdog, self._release):
                if timer is not None:
                    timer.cancel()

    def stop(self, ending: Done | StreamError) -> None:
        """End the stream with *ending* and abort the upstream. Harmless if the stream has ended or is being stopped."""
        if self._stopped is None and self.ended is None and not self.left:
            self._stopped = ending
            if self._task is not None:
                self._task.cancel()

    def leave(self) -> bool:
        """Leave the stream as it is to another process, and return whether one can go on with it.

        The log gets no end, and the upstream, which keeps the answer, is told nothing.
        """
        attempt = self._attempt
        if self._stopped is not None or self.ended is not None or attempt.done is not None or not self._adoptable:
            return False
        if self.attempts:
            if attempt.kept is None or attempt.note is None:
                return False  # it fell back to an upstream that keeps nothing
            attempt.kept.leave()
        self.left = True
        if self._task is not None:
            self._task.cancel()
        return True

    async def _relay(self) -> None:
        """Relay batch after batch. This is the hot path: it runs once per network read."""
        writer = self._writer
        clock = self._loop.time
        take = self._take
        observe_gap = self._meter.gap.observe
        first, batches = await self._opener.begin(self._request, self.attempts, self._changed, self._afford)
        self._keep_note()
        async with aclosing(batches):
            now = clock()
            self._read_at = now
            if isinstance(first[0], Done):
                self._end(first[0])
            else:
                self._begin(now)
                if not take(first, now):
                    await self._take_slices(first)
            async for batch in batches:
                now = clock()
                self._read_at = now
                if not batch:
                    continue
                if isinstance(batch[0], Done):
                    self._end(batch[0])
                    continue  # the source may take a moment to leave its connection fit for use again
                observe_gap(now - self._progress_at)
                if not take(batch, now):
                    await self._take_slices(batch)
                elif writer.full:
                    await writer.drain()

    async def _take_slices(self, batch: Sequence[Event]) -> None:
        """Append what may leave of a large *batch* in slices, so that other streams go on meanwhile."""
        for events, more in slices(batch):
            await turn(ROOM)
            # It is not the upstream that is silent meanwhile.
            self._read_at = self._loop.time()
            self._take(events, self._read_at, sliced=True, more=more)
            if self._writer.full:
                await self._writer.drain()

    def _take(self, batch: Sequence[Event], now: float, *, sliced: bool = False, more: bool = False) -> bool:
        """Append what may leave of *batch*, which was read *now*. Do nothing, and return False, if it has to be sliced.

        *sliced*: it is a slice already. *more* is that of `Rechunker.feed`.
        """
        deltas = 0
        size = 0
        for event in batch:
            if type(event) is Delta:
                text = event.text
            elif isinstance(event, (Logprobs, Annotation, Extra)):  # they are about what the model wrote
                continue
            else:
                text = _text_of(event)
            deltas += 1
            size += len(text) if text.isascii() else len(text.encode())
        if (size > SLICE or deltas > SLICE_EVENTS) and not sliced:
            return False
        self.deltas += deltas
        self.output_bytes += size
        self._progress_at = now
        rechunker = self._rechunker
        was_held = rechunker.held
        events = rechunker.feed(batch, more=more)
        if events:
            try:
                self._writer.append(events)
            except StreamError:
                self._refused = True
                raise
        if rechunker.held and rechunker.max_delay:
            if events or not was_held:  # all that is held came with this read
                self._release_at = now + rechunker.max_delay
            if self._release is None:
                self._release = self._loop.call_at(self._release_at, self._release_held)
        return True

    def _begin(self, now: float) -> None:
        """Note the first content: from now on the answer is a stream, and other limits hold."""
        self._progress_at = now
        self._answered = True
        if not self._past.answered:
            self.first_token_ms = self._since_opening(now)
            self._meter.first_token.observe(now - self._opened_at)
        self._start()
        self._watch()

    def _changed(self) -> None:
        """Take note of what has become of the last attempt."""
        self._adoptable = self._adoptable and not self._attempt.failed
        self._keep_note()
        self._arm_commit()

    def _keep_note(self) -> None:
        """Have the note of the last attempt kept, once there is one."""
        attempt = self._attempt
        if attempt is not self._noted and attempt.note is not None:
            self._noted = attempt
            self._adoptable = self._keep(self.attempts)

    def _arm_commit(self) -> None:
        """Have the stream started at its commit deadline, as that is now."""
        if self._started or self.ended is not None:
            return
        limits = self._limits
        attempt = self._attempt
        deadline = self._opened_at + limits.commit
        if attempt.failed or len(self.attempts) > 1:
            answered = attempt.answered_at if not attempt.failed else None
            later = self._opened_at + limits.retry_hold if answered is None else answered + limits.commit
            deadline = max(deadline, later)
        if self._commit is not None:
            if deadline == self._deadline:
                return
            self._commit.cancel()
        self._deadline = deadline
        self._commit = self._loop.call_at(deadline, self._start_uncommitted)

    def _start_uncommitted(self) -> None:
        """Start without content, unless another upstream may yet be asked: `Start` names the one that answers."""
        self._commit = None
        if self._attempt.last:
            try:
                self._start()
            except StreamError as error:  # the journal is full
                self.stop(error)
        if not self.committed.done():
            self.committed.set_result(None)

    def _start(self) -> None:
        if not self._started and self.ended is None:
            self._started = True
            fallback = self._attempt.upstream if self._attempt.fallback else ""
            self._writer.append((Start(self._request.model, int(time.time()), fallback),))

    def _flush(self) -> None:
        """Append the text that is held back, unless text before it was refused."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        events = self._rechunker.flush()
        if events and not self._refused:
            self._writer.append(events)

    def _release_held(self) -> None:
        if self._release_at > self._loop.time():
            self._release = self._loop.call_at(self._release_at, self._release_held)
            return
        try:
            self._flush()
        except StreamError as error:
            self.stop(error)

    def _watch(self) -> None:
        """Stop the stream if a limit has passed; else come back when the next one can pass."""
        limits = self._limits
        running: list[tuple[float, float, type[TimedOut]]] = [(self._opened_at, limits.total, TotalTimeout)]
        if not self._answered:
            running.append((self._begun_at, limits.first_token, FirstTokenTimeout))
        else:
            running.append((self._read_at, limits.idle, IdleTimeout))
            running.append((self._progress_at, limits.progress, ProgressTimeout))
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        due = [(since + seconds, error) for since, seconds, error in running if seconds]
        if due:
            when, error = min(due, key=itemgetter(0))
            if when <= self._loop.time():
                self.stop(error())
            else:
                self._watchdog = self._loop.call_at(when, self._watch)

    @property
    def _attempt(self) -> Attempt:
        """The last attempt; a blank one before the first."""
        return self.attempts[-1] if self.attempts else Attempt()

    def _end(self, ending: Done | StreamError) -> None:
        """Append the terminal record, once, after the text that was held back. What `stop` was given comes first."""
        if self.ended is not None or self.left:
            return
        ending = self._stopped or ending
        if self._attempt.done is not None and isinstance(ending, (TimedOut, Draining)):
            ending = self._attempt.done  # the answer was whole: only what may follow it had not come yet
        usage: Usage | None = None
        try:
            usage = self._usage(ending)
            self._flush()
            if isinstance(ending, Done):
                if ending is not self._stopped:
                    self._rechunker.finish()
                self._start()
        except StreamError as error:
            ending = error
        except Exception as error:  # the boundary again: the record must be written here, too
            self._log_crash(error)
            ending = InternalError()
        self.duration_ms = self._since_opening(self._loop.time())
        if isinstance(ending, Done):
            self.ended = replace(
                ending,
                usage=usage,
                model=ending.model or self._attempt.model,
                first_token_ms=self.first_token_ms,
                duration_ms=self.duration_ms,
            )
        else:
            self.ended = Failure.of(ending, usage, retried=len(self.attempts) > 1 and not ending.longer)
        self._writer.append((self.ended,))

    def _usage(self, ending: Done | StreamError) -> Usage:
        """Return the upstream's own usage where it came, with an estimate of what it lacks.

        A prompt that the upstream did not accept cost nothing.
        """
        attempt = self._attempt
        known = (ending.usage if isinstance(ending, Done) else None) or attempt.usage or Usage({})
        counted = known.fields.keys() & {"prompt_tokens", "completion_tokens"}
        if known.output_tokens or (known.fields and not (counted and self.output_bytes)):
            return known
        prompt_tokens = known.input_tokens
        if not prompt_tokens and 200 <= (attempt.status or 0) < 300:
            prompt_tokens = self._past.prompt_tokens or estimate_prompt_tokens(self._request.messages)
        return Usage.estimate(prompt_tokens, estimate_tokens(self.output_bytes), known.fields)

    def _since_opening(self, now: float) -> int:
        return round((now - self._opened_at) * 1000)

    def _log_crash(self, error: Exception) -> None:
        """Log a bug by its kind and its innermost frames: its message may hold values that must not be logged."""
        frames = traceback.extract_tb(error.__traceback__)[-5:]
        where = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        self._log.error("stream.crashed", error=type(error).__name__, at=where)


def _text_of(event: Event) -> str:
    """Return what of *event* the model wrote."""
    if isinstance(event, TEXT):
        return event.text
    return event.arguments if isinstance(event, ToolCall) else ""
