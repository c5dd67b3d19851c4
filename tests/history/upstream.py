"""An upstream of a history: what it does is drawn, and what it made is known."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import (
    Busy,
    Disconnected,
    Malformed,
    ProducerLost,
    RateLimited,
    Rejected,
    Truncated,
    Unreachable,
    UpstreamError,
)
from app.events import Delta, Done
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source
from app.usage import Usage, estimate_tokens

PIECES = ("a", "word ", "Two words. ", "日本語。", "line\n", "é", "👩\u200d🔬 ", "  ", "x" * 30, "end.\n\n")
orjson.dumps(PIECES)  # A text that was sent once takes more memory: the first history finds them as later ones do.
_EARLY: tuple[type[UpstreamError], ...] = (Unreachable, RateLimited, Busy, UpstreamError, Rejected, Malformed)
_LATE: tuple[type[UpstreamError], ...] = (Disconnected, Truncated, Malformed, UpstreamError)


@dataclass(slots=True)
class Generation:
    """What one try made: its *text*, its *tokens* (of four bytes at most), and how it *finished*: "" if it did not.

    *closed* says that the service has let go of it. *counted* says that it told its usage.
    """

    text: str = ""
    tokens: int = 0
    finished: str = ""
    counted: bool = False
    closed: bool = False


class DrawnUpstream:
    """Answers, is slow, refuses, stalls or dies, as *choose* draws. *made* is by the prompt's text.

    It is a `Source`. *keeps* says that it goes on with an answer that has no reader, *forgets* that it may not know
    that answer any more.
    """

    keeps = False
    forgets = True

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self.made: dict[str, list[Generation]] = {}

    def source(self, dead: Callable[[], bool]) -> Source:
        """Return this upstream as it is to a process that may be *dead*, so that it can tell it nothing."""
        return self

    @property
    def live(self) -> bool:
        """Whether it makes an answer that may have no reader."""
        return False

    async def stop(self) -> None:
        """Make no more of such answers."""

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """See `Source`."""
        generation = self._asked(request, attempt)
        try:
            await self._accept(attempt)
            yield ()
            async with aclosing(self._make(generation, request)) as batches:
                async for batch in batches:
                    yield batch
            yield [finish(generation, attempt)]
            await self._pause(1)
        finally:
            await self.close(generation)

    def _asked(self, request: StreamRequest, attempt: Attempt) -> Generation:
        generation = Generation()
        self.made.setdefault(str(request.messages[-1]["content"]), []).append(generation)
        attempt.answers.append("")
        attempt.sent = True
        return generation

    async def _accept(self, attempt: Attempt) -> None:
        """Answer a request with a status. Raises UpstreamError."""
        await self._pause(5)
        if self._choose.random() < 0.2:
            await self._refuse(attempt)
        attempt.answers[-1] = "200"
        attempt.status = 200

    async def _make(self, generation: Generation, request: StreamRequest) -> AsyncGenerator[list[Delta], None]:
        """Make the answer, piece by piece. Raises UpstreamError."""
        choose = self._choose
        limit = _limit_of(request)
        slowly = choose.choice((1, 1, 1, 1, 1, 10))
        length = choose.randrange(1, 40)
        for _ in range(length):
            await self._pause(slowly)
            batch = [Delta(choose.choice(PIECES)) for _ in range(choose.choice((0, 1, 1, 1, 2, 5)))]
            while sum(map(_tokens, batch)) > limit - generation.tokens:
                batch.pop()
            if not batch:
                yield []
                continue
            generation.tokens += sum(map(_tokens, batch))
            generation.text += "".join(delta.text for delta in batch)
            yield batch
            if choose.random() < 0.01:
                raise choose.choice(_LATE)
            if choose.random() < 0.005:
                await asyncio.sleep(10_000)  # the limits of the relay end it
            if generation.tokens == limit:
                break
        if not generation.tokens:
            raise Truncated
        generation.finished = "length" if generation.tokens == limit else "stop"
        generation.counted = choose.random() < 0.8

    async def close(self, generation: Generation) -> None:
        """Be let go of by the service."""
        try:
            if self._choose.random() < 0.3:
                await asyncio.sleep(self._choose.random())  # a socket that takes its time to close
        finally:
            generation.closed = True

    async def _refuse(self, attempt: Attempt) -> None:
        kind = self._choose.choice(_EARLY)
        if kind is Unreachable:
            attempt.sent = False
            attempt.answers[-1] = kind.code
        else:
            attempt.status = kind.status
            attempt.answers[-1] = str(kind.status)
        raise kind(retry_after=self._choose.choice((None, 1.0, 60.0)))

    async def _pause(self, most: float) -> None:
        """Wait as networks do: mostly not at all, at times for a while."""
        if self._choose.random() < 0.4:
            await asyncio.sleep(most * self._choose.random() ** 3)


class Response:
    """An answer that the upstream keeps, and goes on to *make* without a reader. *error* is how it failed."""

    def __init__(self, generation: Generation, make: Callable[[Response], Coroutine[Any, Any, None]]) -> None:
        self.generation = generation
        self.deltas: list[Delta] = []
        self.error: UpstreamError | None = None
        self.changed = asyncio.Event()
        self.making = asyncio.create_task(make(self))

    @property
    def ended(self) -> bool:
        return bool(self.generation.finished) or self.error is not None

    def cancel(self) -> None:
        """Make no more of it."""
        if not self.ended:
            self.making.cancel()

    def news(self) -> None:
        """Wake up those that read it."""
        self.changed.set()
        self.changed = asyncio.Event()


class KeepingUpstream(DrawnUpstream):
    """Makes its answers in the background, and keeps them, unless it *forgets*, at times."""

    keeps = True

    def __init__(self, choose: random.Random) -> None:
        super().__init__(choose)
        self.forgets = choose.random() < 0.3
        self._responses: list[Response] = []

    def source(self, dead: Callable[[], bool]) -> Source:
        return _KeepingSource(self, dead)

    @property
    def live(self) -> bool:
        return any(not response.ended for response in self._responses)

    async def stop(self) -> None:
        for response in self._responses:
            response.cancel()
            await response.making

    async def ask(self, request: StreamRequest, attempt: Attempt) -> tuple[str, Response]:
        """Begin a response, and return its name and it. Raises UpstreamError."""
        generation = self._asked(request, attempt)
        try:
            await self._accept(attempt)
        except BaseException:
            await self.close(generation)
            raise
        response = Response(generation, lambda response: self._go_on(response, request))
        self._responses.append(response)
        return str(len(self._responses) - 1), response

    async def find(self, name: str) -> Response:
        """Return the response of that *name*. Raises ProducerLost if it is forgotten."""
        await self._pause(5)
        if self.forgets and self._choose.random() < 0.3:
            raise ProducerLost
        return self._responses[int(name)]

    async def read(self, response: Response, attempt: Attempt) -> Batches:
        """Read a response from its start, some of it at a time, as `Source.stream` does."""
        at = 0
        while at < len(response.deltas) or not response.ended:
            if at == len(response.deltas):
                await response.changed.wait()
                if at == len(response.deltas):
                    yield ()
                    continue
            some = response.deltas[at : at + self._choose.choice((1, 3, 100))]
            at += len(some)
            yield some
        if response.error is not None:
            raise type(response.error)
        yield [finish(response.generation, attempt)]

    async def cancel(self, response: Response) -> None:
        """Be told that the rest of a response is not wanted."""
        try:
            await self._pause(2)
        finally:  # who tells it may be cancelled meanwhile, and has told it
            response.cancel()

    async def _go_on(self, response: Response, request: StreamRequest) -> None:
        try:
            async with aclosing(self._make(response.generation, request)) as batches:
                async for batch in batches:
                    response.deltas += batch
                    response.news()
        except UpstreamError as error:
            response.error = error
        except asyncio.CancelledError:
            response.error = UpstreamError("It was cancelled.")
        response.news()


class _KeepingSource:
    """One process's `Resumable`."""

    def __init__(self, upstream: KeepingUpstream, dead: Callable[[], bool]) -> None:
        self._upstream = upstream
        self._dead = dead

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        name, response = await self._upstream.ask(request, attempt)
        attempt.kept = kept = _Kept(name)
        try:
            yield ()
            async with aclosing(self._upstream.read(response, attempt)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            await self._let_go(kept, response)

    async def resume(self, note: Mapping[str, Any], request: StreamRequest, attempt: Attempt) -> Batches:
        attempt.kept = kept = _Kept(note["response"])
        response: Response | None = None
        try:
            yield ()
            response = await self._upstream.find(kept.name)
            response.generation.closed = False
            async with aclosing(self._upstream.read(response, attempt)) as batches:
                async for batch in batches:
                    yield batch
        finally:
            await self._let_go(kept, response)

    def secrets(self, request: StreamRequest) -> Sequence[str]:
        return request.secrets

    async def _let_go(self, kept: _Kept, response: Response | None) -> None:
        try:
            if not kept.left and not self._dead():
                with suppress(ProducerLost):
                    await self._upstream.cancel(response or await self._upstream.find(kept.name))
        finally:
            if response is not None:
                await self._upstream.close(response.generation)


class _Kept:
    """What one process knows of an answer that is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.left = False

    @property
    def note(self) -> Mapping[str, Any]:
        return {"response": self.name}

    def leave(self) -> None:
        self.left = True


def finish(generation: Generation, attempt: Attempt) -> Done:
    """Note in *attempt* how the answer ends, and return that."""
    if generation.counted:
        counts = {"prompt_tokens": 3, "completion_tokens": generation.tokens}
        attempt.usage = Usage({**counts, "total_tokens": 3 + generation.tokens})
    attempt.complete = True
    attempt.done = Done(generation.finished, usage=attempt.usage)
    return attempt.done


def _tokens(delta: Delta) -> int:
    return estimate_tokens(len(delta.text.encode()))


def _limit_of(request: StreamRequest) -> int:
    limits: list[Any] = [request.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return min((limit for limit in limits if limit), default=1 << 30)
