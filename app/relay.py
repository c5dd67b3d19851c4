"""The hot path: source → rechunk → journal, for one stream.

A `Relay` runs in the stream's producer task, which owns the upstream connection. However the stream ends, by upstream's
finish, an error, a limit, a stop or a bug, exactly one terminal record is appended, last, after all text that was held
back. This is the only place where an exception becomes a record.

Clocks: the source yields a batch per network read, empty ones included, so that all limits can be kept here by one
timer per stream that looks at two timestamps when it fires. Nothing is armed or cancelled per delta, except the bound
on held text, and that once per held piece.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace

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
from app.events import TEXT, Content, Delta, Done, Failure, Logprobs, Start, ToolCall
from app.journal import Writer
from app.meter import Meter
from app.rechunk import Rechunker
from app.request import StreamRequest
from app.upstream import Attempt, Opener
from app.usage import Usage, estimate_prompt_tokens, estimate_tokens


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a stream may take, in seconds; 0 is no limit, except that with a *commit* of 0 it starts at once.

    *first_token* runs from the opening to the first content, retries included. *idle* (no byte) and *progress* (bytes,
    but no content) run only after that: a reasoning model may well be silent before it. *commit* is how long the first
    content may keep the answer's HTTP status open.
    """

    commit: float = 2.0
    first_token: float = 300.0
    idle: float = 120.0
    progress: float = 300.0
    total: float = 1800.0


class Relay:
    """One stream's producer. `run` it in a task of its own; `stop` ends it from outside."""

    def __init__(
        self,
        opener: Opener,
        request: StreamRequest,
        rechunker: Rechunker,
        writer: Writer,
        limits: Limits,
        meter: Meter,
        log: FilteringBoundLogger,
    ) -> None:
        self._opener = opener
        self._request = request
        self._rechunker = rechunker
        self._writer = writer
        self._limits = limits
        self._meter = meter
        self._append = writer.append
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._stopped: Done | StreamError | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._commit: asyncio.TimerHandle | None = None
        self._release: asyncio.TimerHandle | None = None
        self._opened_at = self._loop.time()
        self._read_at = self._progress_at = self._opened_at
        self._first_at: float | None = None
        self._ended_at: float | None = None
        self._due = 0.0  # when what is held has to leave
        self._started = False
        self.output_bytes = 0
        self.attempts: list[Attempt] = []
        self.deltas = 0
        self.ended: Done | Failure | None = None

    async def run(self) -> None:
        """Relay the whole stream, and let upstream's connection go. Raises nothing but a cancellation from outside."""
        self._task = asyncio.current_task()
        self._commit = self._loop.call_later(self._limits.commit, self._commit_start)
        self._watch()
        try:
            if self._stopped is None:  # else: stopped before the task had its first turn
                await self._relay()
            self._end(self._stopped or InternalError())  # a source that just ends broke its contract
        except StreamError as error:
            self._end(self._stopped or error)
        except asyncio.CancelledError:
            self._end(self._stopped or Draining())
            if self._stopped is None:  # not by `stop`: the loop itself is going down
                raise
        except Exception as error:  # the boundary: a bug must not leave a reader without a terminal record
            self._crashed(error)
            self._end(self._stopped or InternalError())
        finally:
            self._disarm()

    def stop(self, ending: Done | StreamError) -> None:
        """End the stream with *ending* and abort upstream. Harmless if it has ended or is being stopped already."""
        if self._stopped is None and self.ended is None:
            self._stopped = ending
            if self._task is not None:
                self._task.cancel()

    async def _relay(self) -> None:
        """Relay batch after batch. The hot path proper: what is done here is done per network read."""
        rechunker, writer, clock = self._rechunker, self._writer, self._loop.time
        take, observe_gap = self._take, self._meter.gap.observe
        first, batches = await self._opener.begin(self._request, self.attempts)
        async with aclosing(batches):
            self._read_at = now = clock()
            if isinstance(first[0], Done):
                self._end(first[0])
            else:
                self._begin(now)
                take(first, now)
            following, pause = batches.asend, rechunker.pause
            with suppress(StopAsyncIteration):
                while True:
                    batch = await following(pause)
                    self._read_at = now = clock()
                    pause = None
                    if not batch:
                        continue
                    if isinstance(batch[0], Done):
                        self._end(batch[0])
                        continue  # the source may take a moment yet, to leave its connection fit for use again
                    observe_gap(now - self._progress_at)
                    take(batch, now)
                    pause = rechunker.pause
                    if writer.full:
                        await writer.drain()

    def _take(self, batch: Sequence[Content | Done], now: float) -> None:
        """Append what may leave of *batch*, which was read *now*."""
        for event in batch:
            if type(event) is not Logprobs:
                text = event.text if type(event) is Delta else _said(event)
                self.deltas += 1
                self.output_bytes += len(text) if text.isascii() else len(text.encode())
        self._progress_at = now
        rechunker = self._rechunker
        events = rechunker.feed(batch)
        if events:
            self._append(events)
        if rechunker.held and (bounded := rechunker.max_delay):
            if events or self._release is None:
                self._due = now + bounded  # all that is held came with this read
            if self._release is None:
                self._release = self._loop.call_at(self._due, self._let_go)

    def _begin(self, now: float) -> None:
        """Note the first content: from now on the answer is a stream, and other limits hold."""
        self._first_at = self._progress_at = now
        self._meter.first_token.observe(now - self._opened_at)
        self._start()
        self._watch()

    def _commit_start(self) -> None:
        """Start without content. But while another upstream may yet answer, it is not known what to say of that."""
        if self._attempt.last:
            self._start()

    def _start(self) -> None:
        if not self._started and self.ended is None:
            self._started = True
            fallback = self._attempt.upstream if self._attempt.fallback else ""
            self._writer.append((Start(self._request.model, int(time.time()), fallback),))

    def _flush(self) -> None:
        """Append the text that is held back."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        events = self._rechunker.flush()
        if events:
            self._writer.append(events)

    def _let_go(self) -> None:
        """Release held text if its time is up; else come back when it is."""
        if self._due > self._loop.time():
            self._release = self._loop.call_at(self._due, self._let_go)
            return
        try:
            self._flush()
        except StreamError as error:
            self.stop(error)

    def _watch(self) -> None:
        """Stop the stream if a limit has passed; else come back when the next one may have."""
        limits, now = self._limits, self._loop.time()
        due: list[tuple[float, type[TimedOut]]] = (
            [(self._opened_at + limits.total, TotalTimeout)] if limits.total else []
        )
        if self._first_at is None:
            if limits.first_token:
                due.append((self._opened_at + limits.first_token, FirstTokenTimeout))
        else:
            if limits.idle:
                due.append((self._read_at + limits.idle, IdleTimeout))
            if limits.progress:
                due.append((self._progress_at + limits.progress, ProgressTimeout))
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if due:
            when, error = min(due, key=lambda limit: limit[0])
            if when <= now:
                self.stop(error())
            else:
                self._watchdog = self._loop.call_at(when, self._watch)

    def _disarm(self) -> None:
        for timer in (self._commit, self._watchdog, self._release):
            if timer is not None:
                timer.cancel()

    @property
    def _attempt(self) -> Attempt:
        """The last attempt; a blank one before the first."""
        return self.attempts[-1] if self.attempts else Attempt()

    def _end(self, ending: Done | StreamError) -> None:
        """Append the terminal record, once, after the text that was held back."""
        if self.ended is not None:
            return
        if self._attempt.done is not None and isinstance(ending, (TimedOut, Draining)):
            ending = self._attempt.done  # the answer was whole: only what may follow it had not come yet
        try:
            self._flush()
            usage = self._usage(ending)
        except StreamError as error:
            ending, usage = error, None
        except Exception as error:  # the boundary again: here, too, the record must be written
            self._crashed(error)
            ending, usage = InternalError(), None
        self._ended_at = self._loop.time()
        if isinstance(ending, StreamError):
            self.ended = Failure.of(ending, usage)
        else:
            self._start()
            self.ended = replace(
                ending,
                usage=usage,
                model=ending.model or self._attempt.model,
                first_token_ms=self.first_token_ms,
                duration_ms=self.duration_ms,
            )
        self._writer.append((self.ended,))

    def _crashed(self, error: Exception) -> None:
        """Log a bug: its kind and its place, and none of the values that its message may hold."""
        self._log.error("stream.crashed", error=type(error).__name__, at=_where(error))

    def _usage(self, ending: Done | StreamError) -> Usage:
        """Upstream's own usage where it came, else an estimate.

        A prompt that upstream did not accept cost nothing.
        """
        known = ending.usage if isinstance(ending, Done) else None
        if known is None:
            known = self._attempt.usage
        if known is not None:
            return known
        prompt_tokens = estimate_prompt_tokens(self._request.messages) if self._attempt.status == 200 else 0
        return Usage.estimate(prompt_tokens, estimate_tokens(self.output_bytes))

    @property
    def first_token_ms(self) -> int | None:
        """Whole milliseconds from the opening to the first content, or None."""
        return None if self._first_at is None else round((self._first_at - self._opened_at) * 1000)

    @property
    def duration_ms(self) -> int:
        """Whole milliseconds from the opening to the end, or to now."""
        return round(((self._ended_at or self._loop.time()) - self._opened_at) * 1000)


def _said(event: Content | Done) -> str:
    """Return what of *event* the model wrote."""
    if isinstance(event, TEXT):
        return event.text
    return event.arguments if isinstance(event, ToolCall) else ""


def _where(error: Exception) -> list[str]:
    """Return the innermost frames as `file:line function`: what a log needs of a bug without the values in it."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)[-5:]]
