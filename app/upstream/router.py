"""Chooses the upstream that answers, over several upstreams and several tries.

Another try is made only while nothing has been relayed. After the first content every failure is the stream's failure:
tokens were made and paid for, and another answer would be a different one (row H21). The next upstream is asked at
once. Only the last one is asked again after a wait, because until then another upstream may answer sooner.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

from app.errors import (
    Busy,
    Conflicting,
    ConnectTimeout,
    Empty,
    FirstTokenTimeout,
    ModelNotAllowed,
    ProducerLost,
    RateLimited,
    Rejected,
    Unreachable,
    UpstreamError,
)
from app.request import StreamRequest
from app.upstream import Afford, Attempt, Batches, Begun, Opener, Resumable, Source, first_content


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often to try, and how long to wait.

    *attempts* are all tries. The waits double from *initial* up to *longest* seconds, with jitter. An upstream that
    asks for a longer wait than *longest* is not asked again: its answer is passed on instead.
    """

    attempts: int = 3
    initial: float = 0.5
    longest: float = 8.0

    def wait(self, error: UpstreamError, tries: int) -> float | None:
        """Return how many seconds to wait before another try, after so many *tries*; None if there is to be none."""
        if tries >= self.attempts or not _may_heal(error):
            return None
        if error.retry_after is None:
            jitter = random.uniform(0, self.initial)  # noqa: S311 - no secret
            return min(self.longest, self.initial * 2.0 ** (tries - 1) + jitter)
        return error.retry_after if error.retry_after <= self.longest else None


ONCE = RetryPolicy(attempts=1)


class Target(NamedTuple):
    """An upstream that may be asked. *upstream* is its name; *model* is its name for the model, None for the client's.

    *first_token* is how many seconds it has for its first content before the next target is asked; 0 is no limit. It
    does not hold for the last target, which the relay's own limit bounds.
    """

    upstream: str
    model: str | None
    source: Source
    first_token: float = 0.0

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        """Ask for *request*, by the upstream's name for the model."""
        return self.source.stream(replace(request, model=self.model) if self.model else request, attempt)


class Router:
    """Asks the targets of a model in order, until one answers.

    *routes* are by the model that the client asks for, *rest* is for all other models. *retry* says how a route's last
    target is asked again.
    """

    def __init__(
        self,
        routes: Mapping[str, Sequence[Target]],
        rest: Sequence[Target] = (),
        retry: RetryPolicy = ONCE,
    ) -> None:
        self._routes = {model: tuple(targets) for model, targets in routes.items()}
        self._rest = tuple(rest)
        self._retry = retry
        self._sources = {target.upstream: target.source for target in chain(*self._routes.values(), self._rest)}

    def __repr__(self) -> str:
        return f"<Router {len(self._routes)} routes, {len(self._rest)} targets for the rest>"

    async def begin(
        self, request: StreamRequest, attempts: list[Attempt], changed: Callable[[], None], afford: Afford
    ) -> Begun:
        """See `Opener.begin`. Raises ModelNotAllowed, too, for a model without a target."""
        targets = self._routes.get(request.model, self._rest)
        if not targets:
            raise ModelNotAllowed(param="model")
        errors: list[UpstreamError] = []
        for index, target in enumerate(targets):
            fallback = index > 0
            try:
                if index == len(targets) - 1:
                    return await self._ask_last(target, request, attempts, fallback, changed, afford)
                request = await _affordable(request, attempts, afford)
                attempts.append(Attempt(target.upstream, fallback, last=False))
                return await _ask(target, request, attempts[-1], changed)
            except UpstreamError as error:
                errors.append(error)
                if not error.retryable:
                    break
        try:
            told = _most_useful(errors)
            told.longer = told.retry_after is not None and told.retry_after > self._retry.longest
            raise told
        finally:
            del errors, told  # which would keep the error's own frames alive

    async def abandon(self, request: StreamRequest, attempts: list[Attempt]) -> None:
        """See `Opener.abandon`. No upstream was asked."""

    def resumption(self, note: Mapping[str, Any]) -> Opener:
        """See `Upstreams.resumption`."""
        return Resumption(self._sources.get(str(note.get("upstream"))), note)

    def secrets_at(self, upstream: str, request: StreamRequest) -> Sequence[str]:
        """See `Upstreams.secrets_at`."""
        source: object = self._sources.get(upstream)
        return source.secrets(request) if isinstance(source, Resumable) else request.secrets

    async def _ask_last(
        self,
        target: Target,
        request: StreamRequest,
        attempts: list[Attempt],
        fallback: bool,
        changed: Callable[[], None],
        afford: Afford,
    ) -> Begun:
        tries = 0
        while True:
            tries += 1
            request = await _affordable(request, attempts, afford)
            attempts.append(Attempt(target.upstream, fallback))
            batches = target.stream(request, attempts[-1])
            try:
                return await first_content(batches, attempts[-1], changed), batches
            except UpstreamError as error:
                seconds = self._retry.wait(error, tries)
                if seconds is None:
                    raise
            await asyncio.sleep(seconds)


class Resumption:
    """An `Opener` that asks for no answer, but goes on with the one of which an earlier process left this *note*."""

    def __init__(self, source: object, note: Mapping[str, Any]) -> None:
        self._source = source
        self._note = note
        # The earlier process has asked, and the upstream has accepted that.
        self._attempt = Attempt(str(note.get("upstream")), bool(note.get("fallback")), status=200, sent=True)

    def __repr__(self) -> str:
        return f"<Resumption of an answer of {self._attempt.upstream}>"

    async def begin(
        self, request: StreamRequest, attempts: list[Attempt], changed: Callable[[], None], afford: Afford
    ) -> Begun:
        """See `Opener.begin`."""
        attempts.append(self._attempt)
        if not isinstance(self._source, Resumable):
            raise ProducerLost
        batches = self._source.resume(self._note, request, self._attempt)
        return await first_content(batches, self._attempt, changed), batches

    async def abandon(self, request: StreamRequest, attempts: list[Attempt]) -> None:
        """See `Opener.abandon`."""
        attempts.append(self._attempt)
        if isinstance(self._source, Resumable):
            with suppress(UpstreamError):
                async with aclosing(self._source.resume(self._note, request, self._attempt)) as batches:
                    await anext(batches)


async def _affordable(request: StreamRequest, attempts: Sequence[Attempt], afford: Afford) -> StreamRequest:
    """Return *request* as it may be asked for next: an attempt that may have cost something has left less to spend."""
    return await afford(request, attempts) if attempts and attempts[-1].costs else request


async def _ask(target: Target, request: StreamRequest, attempt: Attempt, changed: Callable[[], None]) -> Begun:
    batches = target.stream(request, attempt)
    try:
        async with asyncio.timeout(target.first_token or None):
            return await first_content(batches, attempt, changed), batches
    except TimeoutError:
        attempt.failed = True
        changed()
        if attempt.status is None:
            attempt.answers[-1:] = [FirstTokenTimeout.code]
        raise FirstTokenTimeout from None


def _may_heal(error: UpstreamError) -> bool:
    """Return whether the same request may succeed shortly, without the risk of paying for an answer twice.

    A connection that broke after the request was sent is no such case: the upstream may be answering, and billing, it.
    An `UpstreamError` that is no subclass is a 408 or 5xx, as a status or as an error in the stream.
    """
    if isinstance(error, (Unreachable, ConnectTimeout, RateLimited, Busy, Conflicting, Empty)):
        return error.retryable  # `Blank` is not: its tokens were made
    return type(error) is UpstreamError and error.retryable


def _most_useful(errors: Sequence[UpstreamError]) -> UpstreamError:
    """Return what to tell the client when no upstream answered.

    What is wrong with the request comes first. Next is when to come back, the soonest that an upstream named. Then the
    last failure that may heal, because one key that is refused makes no request hopeless; then the last failure.
    """
    last = errors[-1]
    if isinstance(last, Rejected):
        return last
    timed = [error for error in errors if error.retry_after is not None]
    if timed:
        return min(timed, key=lambda error: error.retry_after or 0.0)
    return next((error for error in reversed(errors) if error.retryable), last)
