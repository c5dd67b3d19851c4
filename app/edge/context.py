"""What is known about one request. The middleware makes it, the access control completes it, the endpoints read it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from starlette.types import Scope
from structlog.typing import FilteringBoundLogger

from app.meter import Meter
from app.request import Principal
from app.wire import ErrorForm, native

_KEY = "chat_sse.context"


async def _counted() -> None:
    """Do nothing: the request is counted, or there is no limit."""


@dataclass(slots=True)
class RequestContext:
    """One request's id, trace and logger, and who sent it.

    *traceparent* is the W3C header, or "". The access control sets *principal*; on the paths that ask for no
    credentials there is none, and reading it raises AttributeError. *headers* are for its answer. *form* makes the
    answer if that is an error. *count* counts the request, if it was not counted before the endpoint, and raises what
    refuses it. *place* is the reader's place that is kept while the request opens a stream; it is closed at the end of
    the request at the latest. *known_origin* says whether its page is the service's own, or of an origin that is
    allowed by name.
    """

    request_id: str
    traceparent: str
    log: FilteringBoundLogger
    meter: Meter
    principal: Principal = field(init=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: ErrorForm = native.refusal
    count: Callable[[], Awaitable[None]] = _counted
    place: ExitStack | None = None
    known_origin: bool = False

    def put_into(self, scope: Scope) -> None:
        """Have `request_context` find it."""
        scope[_KEY] = self


def request_context(scope: Scope) -> RequestContext:
    """Return the context of the request with that ASGI *scope*."""
    context: RequestContext = scope[_KEY]
    return context


def account_in(scope: Scope) -> str:
    """Return what the requests of that *scope*'s principal are counted under, or "" if no principal is known."""
    context: RequestContext | None = scope.get(_KEY)
    principal = getattr(context, "principal", None)  # the access control may not have been reached
    return "" if principal is None else principal.counted_as()
