"""Trying again, while nothing has been relayed.

An `Opener` of a `Source`. Once the first content has passed, every failure is the stream's failure: the tokens
were made and paid for, and asking again would answer differently (H21).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import stamina

from app.errors import ConnectTimeout, Empty, RateLimited, Unreachable, UpstreamError
from app.events import Content, Done
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source, first_content


@dataclass(frozen=True, slots=True)
class Policy:
    """How often and how patiently: *attempts* in all, waits from *initial* doubling up to *longest* seconds.

    An upstream that asks for a longer wait than *longest* is not tried again: its answer is passed on instead.
    """

    attempts: int = 3
    initial: float = 0.5
    longest: float = 8.0


class Retrying:
    """Asks *source* again on faults that time may heal, before the first content.

    *upstream* and *fallback* are what its attempts say of it.
    """

    def __init__(self, source: Source, policy: Policy, upstream: str = "", *, fallback: bool = False) -> None:
        self._source = source
        self._policy = policy
        self._upstream = upstream
        self._fallback = fallback

    async def begin(self, request: StreamRequest, attempts: list[Attempt]) -> tuple[Sequence[Content | Done], Batches]:
        """See `Opener.begin`."""
        policy = self._policy
        async for another in stamina.retry_context(
            on=self._wait,
            attempts=policy.attempts,
            timeout=None,  # the relay's limits hold
            wait_initial=policy.initial,
            wait_max=policy.longest,
            wait_jitter=policy.initial,
        ):
            with another:
                attempt = Attempt(self._upstream, self._fallback)
                attempts.append(attempt)
                batches = self._source.stream(request, attempt)
                return await first_content(batches), batches
        raise AssertionError("stamina raises what the last attempt raised")

    def _wait(self, error: Exception) -> bool | float:
        """Tell stamina whether to try again: False, True for its own back-off, or the seconds upstream asked for."""
        if not _heals(error):
            return False
        asked = getattr(error, "retry_after", None)
        if asked is None:
            return True
        return asked if asked <= self._policy.longest else False


def _heals(error: Exception) -> bool:
    """Whether the same request may succeed shortly, without the risk of paying for an answer twice.

    A connection that broke after the request was sent is not such a case: upstream may be answering, and billing, it.
    An `UpstreamError` that is no subclass is a 408, 409 or 5xx, as a status or as an error in the stream.
    """
    if isinstance(error, (Unreachable, ConnectTimeout, RateLimited, Empty)):
        return True
    return type(error) is UpstreamError and error.retryable
