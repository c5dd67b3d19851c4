"""A fake at the seam that the design names: a `Source` that plays what a test wrote down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from app.events import Content, Done
from app.request import StreamRequest
from app.upstream import Afford, Attempt, Batches, Begun, Opener, first_content


class Script:
    """A `Source`, and the `Opener` of that alone.

    It plays steps: a batch is yielded, an exception raised, an event or a future waited for.

    It tells how it was treated: *started* counts its generators, *closed* is set when one has ended, however that came
    about, *notes* are those with which it was to go on, and *abandoned* counts how often that was not wanted.
    """

    def __init__(self, *steps: Sequence[Content | Done] | BaseException | Callable[[], Any], status: int = 200) -> None:
        self.steps = steps
        self.status = status
        self.started = 0
        self.notes: list[Mapping[str, Any]] = []
        self.abandoned = 0
        self.closed = asyncio.Event()

    async def begin(
        self, request: StreamRequest, attempts: list[Attempt], changed: Callable[[], None], afford: Afford
    ) -> Begun:
        attempts.append(Attempt())
        batches = self.stream(request, attempts[-1])
        return await first_content(batches, attempts[-1], changed), batches

    async def abandon(self, request: StreamRequest, attempts: list[Attempt]) -> None:
        if self.notes:
            self.abandoned += 1
            attempts.append(Attempt(status=200, sent=True))

    def secrets_at(self, upstream: str, request: StreamRequest) -> Sequence[str]:
        return request.secrets

    def resumption(self, note: Mapping[str, Any]) -> Opener:
        """Play the same steps again."""
        self.notes.append(note)
        return self

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        self.started += 1
        attempt.answers.append(str(self.status))
        attempt.status = self.status
        attempt.sent = True
        try:
            for step in self.steps:
                if isinstance(step, BaseException):
                    raise step
                if callable(step):
                    await step()
                else:
                    if step and isinstance(step[0], Done):
                        attempt.usage = step[0].usage
                        attempt.complete = True
                    yield step
        finally:
            self.closed.set()


def unheard() -> None:
    """Take no note of what becomes of an attempt."""


async def affordable(request: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
    """Let any number of attempts spend as much as they like."""
    return request


async def played(opener: Opener, request: StreamRequest, attempts: list[Attempt]) -> Batches:
    """Yield all batches of *opener*'s that have something in them."""
    first, batches = await opener.begin(request, attempts, unheard, affordable)
    async with aclosing(batches):
        yield first
        async for batch in batches:
            if batch:
                yield batch


async def forever() -> None:
    """A step of a `Script`: the upstream says nothing more."""
    await asyncio.get_running_loop().create_future()
