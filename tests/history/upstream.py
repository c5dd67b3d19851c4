"""An upstream of a history: what it does is drawn, and what it made is known."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any

import orjson

from app.errors import Busy, Disconnected, Malformed, RateLimited, Rejected, Truncated, Unreachable, UpstreamError
from app.events import Delta, Done
from app.request import StreamRequest
from app.upstream import Attempt, Batches
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
    """A `Source` that answers, is slow, refuses, stalls or dies, as *choose* draws. *made* is by the prompt's text."""

    def __init__(self, choose: random.Random) -> None:
        self._choose = choose
        self.made: dict[str, list[Generation]] = {}

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        choose = self._choose
        generation = Generation()
        self.made.setdefault(str(request.messages[-1]["content"]), []).append(generation)
        attempt.answers.append("")
        attempt.sent = True
        try:
            await self._pause(5)
            if choose.random() < 0.2:
                await self._refuse(attempt)
            attempt.answers[-1] = "200"
            attempt.status = 200
            yield ()
            limit = _limit_of(request)
            slowly = choose.choice((1, 1, 1, 1, 1, 10))
            length = choose.randrange(1, 40)
            for _ in range(length):
                await self._pause(slowly)
                batch = [Delta(choose.choice(PIECES)) for _ in range(choose.choice((0, 1, 1, 1, 2, 5)))]
                while sum(map(_tokens, batch)) > limit - generation.tokens:
                    batch.pop()
                if not batch:
                    yield ()
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
            if generation.counted:
                counts = {"prompt_tokens": 3, "completion_tokens": generation.tokens}
                attempt.usage = Usage({**counts, "total_tokens": 3 + generation.tokens})
            attempt.complete = True
            attempt.done = Done(generation.finished, usage=attempt.usage)
            yield [attempt.done]
            await self._pause(1)
        finally:
            try:
                if choose.random() < 0.3:
                    await asyncio.sleep(choose.random())  # a socket that takes its time to close
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


def _tokens(delta: Delta) -> int:
    return estimate_tokens(len(delta.text.encode()))


def _limit_of(request: StreamRequest) -> int:
    limits: list[Any] = [request.parameters.get(name) for name in ("max_tokens", "max_completion_tokens")]
    return min((limit for limit in limits if limit), default=1 << 30)
