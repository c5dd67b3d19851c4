"""Where answers come from. Adding an upstream is adding one file with a `Source` in it.

This floor reads bytes and gives events. `sse`, `body` and the readers are plain synchronous code; only `transport` and
what is below it touch a socket.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from app.model import Content, Done, StreamRequest, Trace


class Source(Protocol):
    """One way to get an answer."""

    def stream(self, request: StreamRequest, trace: Trace) -> AsyncGenerator[Sequence[Content | Done], None]:
        """Ask upstream and yield one batch per network read.

        The first batch is empty and comes with upstream's response headers. A batch may be empty: bytes came, content
        did not; whoever keeps the clocks needs to know the difference. The last batch is a lone `Done`; every other end
        raises an `UpstreamError`, after all content that came before it was yielded. Closing the generator, at any
        point, aborts the request to upstream.
        """
        ...
