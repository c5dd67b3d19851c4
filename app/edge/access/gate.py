"""Who may, and how much: credentials and quotas, before an endpoint is reached. Pure ASGI."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.edge.access.authentication import Credentials
from app.edge.access.quota import Quota
from app.edge.context import request_context
from app.edge.error_responses import refuse
from app.errors import BudgetSpent, StreamError


class Gate:
    """Wraps *app*. Puts the principal into the request's context, and what is left of its quota on the answer.

    Whatever is not in *public* asks for credentials: paths that nobody thought of, too. Stopping a stream is never
    limited: it only ever saves.
    """

    def __init__(self, app: ASGIApp, credentials: Credentials, quota: Quota, public: Collection[str]) -> None:
        self._app = app
        self._credentials = credentials
        self._quota = quota
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        try:
            principal = await self._credentials.principal(scope)
        except StreamError as error:
            await refuse(error, scope, receive, send)
            return
        context = request_context(scope)
        context.principal = principal
        if _stops(scope):
            await self._app(scope, receive, send)
            return
        standing = await self._quota.admit(principal, spends=_spends(scope))
        if standing.headers:
            send = _telling(standing.headers, send)
        if standing.refusal is None or _repeats(standing.refusal, scope):
            context.refusal = standing.refusal
            await self._app(scope, receive, send)
        else:
            await refuse(standing.refusal, scope, receive, send)


def _stops(scope: Scope) -> bool:
    method: str = scope["method"]
    path: str = scope["path"]
    return method == "DELETE" or (method == "POST" and path.endswith("/cancel"))


def _spends(scope: Scope) -> bool:
    """Whether the request may start a stream. One for the rest of a stream, which it was charged for, does not."""
    if scope["method"] != "POST":
        return False
    # Nowhere else: in the other dialects the header means nothing, and would be a way around the budget.
    return scope["path"] != "/v1/chat" or not Headers(scope=scope).get("last-event-id")


def _repeats(refusal: StreamError, scope: Scope) -> bool:
    """Whether a request that may not spend may cost nothing: the hub knows if its key stands for a stream already."""
    return isinstance(refusal, BudgetSpent) and "idempotency-key" in Headers(scope=scope)


def _telling(limits: Mapping[str, str], send: Send) -> Send:
    async def send_limits(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(limits)
        await send(message)

    return send_limits
