"""Where answers come from. Adding an upstream is adding one file with a `Source` in it.

This floor reads bytes and gives events. `sse`, `body` and the readers are plain synchronous code; only `transport` and
what is below it touch a socket.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from app.errors import Empty
from app.events import Content, Done, Trace
from app.request import StreamRequest

Batches = AsyncGenerator[Sequence[Content | Done], float | None]
"""What a network read brought, each time. What is sent in is for how many seconds not to read before the next one."""


class Source(Protocol):
    """Somebody to get an answer from."""

    def stream(self, request: StreamRequest, trace: Trace) -> Batches:
        """Ask, and yield one batch per network read.

        The first batch is empty and comes with the response headers. A batch may be empty: bytes came, content did not;
        whoever keeps the clocks needs to know the difference. The last batch is a lone `Done`; every other end raises
        an `UpstreamError`, after all content that came before it was yielded. Closing the generator, at any point,
        aborts the request.
        """
        ...


class Opener(Protocol):
    """A way to an answer, whoever is to be asked for it."""

    async def begin(self, request: StreamRequest, trace: Trace) -> tuple[Sequence[Content | Done], Batches]:
        """Return the first batch with something in it, and the source's own generator, suspended after it.

        Not a generator around that one: each would cost every batch a microsecond. Raises what `Source.stream` does
        before there is content.
        """
        ...


async def first_content(batches: Batches) -> Sequence[Content | Done]:
    """Return the first batch that has something in it. Raises UpstreamError: what raised it is closed already."""
    async for batch in batches:
        if batch:
            return batch
    raise Empty
