"""Several upstreams behind one `Opener`: who is asked for a model, and who is asked next.

The next one is asked only while nothing has been relayed, for the reason that `retry` has. A wait before another try is
made only where nobody else is left to ask: until then somebody else's answer is sooner than the wait's end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from app.errors import FirstTokenTimeout, ModelNotAllowed, Rejected, UpstreamError
from app.events import Content, Done
from app.request import StreamRequest
from app.upstream import Attempt, Batches, Source, first_content
from app.upstream.retry import Policy, Retrying


class Target(NamedTuple):
    """One upstream to ask. *upstream* is its name; *model* is what it calls the model, None for what the client does.

    *first_token* is how many seconds it has for its first content before the next target is asked; 0 is no limit. It
    does not hold for the last one: to give up on that helps nobody, and the relay's own limit holds anyway.
    """

    upstream: str
    model: str | None
    source: Source
    first_token: float = 0.0


class Router:
    """Asks the targets of a model, in order, until one answers.

    *routes* are by the model that the client asks for, *rest* is for the models that have none. *retry* says how a
    route's last target is asked again.
    """

    def __init__(
        self, routes: Mapping[str, Sequence[Target]], rest: Sequence[Target] = (), retry: Policy | None = None
    ) -> None:
        self._routes = {model: tuple(targets) for model, targets in routes.items()}
        self._rest = tuple(rest)
        self._retry = retry

    def __repr__(self) -> str:
        return f"<Router {len(self._routes)} routes, {len(self._rest)} targets for the rest>"

    async def begin(self, request: StreamRequest, attempts: list[Attempt]) -> tuple[Sequence[Content | Done], Batches]:
        """See `Opener.begin`. Raises ModelNotAllowed for a model that nobody is to be asked for."""
        targets = self._routes.get(request.model, self._rest)
        if not targets:
            raise ModelNotAllowed(param="model")
        errors: list[UpstreamError] = []
        for index, target in enumerate(targets):
            last = index == len(targets) - 1
            asked = _for(target, request)
            try:
                if last and self._retry is not None:
                    retrying = Retrying(target.source, self._retry, target.upstream, fallback=index > 0)
                    return await retrying.begin(asked, attempts)
                attempt = Attempt(target.upstream, fallback=index > 0, last=last)
                attempts.append(attempt)
                return await _ask(target, asked, attempt)
            except UpstreamError as error:
                errors.append(error)
                if not error.retryable:
                    break
        try:
            raise _most_useful(errors)
        finally:
            del errors  # which would keep the error's own frames alive


async def _ask(target: Target, request: StreamRequest, attempt: Attempt) -> tuple[Sequence[Content | Done], Batches]:
    batches = target.source.stream(request, attempt)
    if attempt.last:
        return await first_content(batches), batches
    try:
        async with asyncio.timeout(target.first_token or None):
            return await first_content(batches), batches
    except TimeoutError:
        if attempt.status is None:
            attempt.answers[-1:] = [FirstTokenTimeout.code]
        raise FirstTokenTimeout from None


def _for(target: Target, request: StreamRequest) -> StreamRequest:
    return request if target.model in (None, request.model) else replace(request, model=target.model)


def _most_useful(errors: Sequence[UpstreamError]) -> UpstreamError:
    """Return what to tell the client when nobody answered.

    What is wrong with the request outweighs all. Else it is when to come back, the soonest that an upstream named. Else
    the last failure that may heal, since one key that is not good makes no request hopeless; else the last.
    """
    last = errors[-1]
    if isinstance(last, Rejected):
        return last
    timed = [error for error in errors if error.retry_after is not None]
    if timed:
        return min(timed, key=lambda error: error.retry_after or 0.0)
    return next((error for error in reversed(errors) if error.retryable), last)
