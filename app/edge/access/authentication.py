"""Who sends a request, and whether it may go on: credentials and quotas, checked before an endpoint is reached.

Without credentials, every request is that of one anonymous principal.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from app.edge.access.quota import Quota
from app.edge.access.tickets import Tickets
from app.edge.context import RequestContext, request_context
from app.edge.error_responses import refuse
from app.edge.positions import given_position
from app.errors import StreamError, Unauthenticated
from app.request import ANYONE, UNLIMITED, Allowance, Principal, keyed_hash

# Longer than the tokens of the usual issuers. Proxies refuse headers of this size, too.
_MAX_TOKEN = 8192
_MAX_QUERY = 2048
# https://www.rfc-editor.org/rfc/rfc6750#section-2.1: the scheme, in any case, and one b64token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
# The paths that a ticket opens.
_STREAM_PATH = re.compile(r"/v1/streams/([A-Za-z0-9_-]{22})(?:/cancel)?", re.ASCII)
# The endpoints that stop a stream, and count the request themselves.
_STOPS = re.compile(
    r"DELETE /v1/(?:streams|responses)/[^/]+|DELETE /v1/ai-sdk/chat/[^/]+/stream"
    r"|POST /v1/(?:streams|responses|ai-sdk/chat)/[^/]+/cancel"
)

# Where a POST with a position starts nothing.
_RESUMING = ("/v1/chat", "/v1/chat/completions", "/v1/ai-sdk/chat", "/v1/responses", "/v1/ag-ui")


class Scheme(Protocol):
    """One kind of bearer token."""

    async def principal(self, token: str) -> Principal | None:
        """Return the principal of *token*, or None if the token is not of this kind.

        Raises Unauthenticated if it is of this kind but not valid.
        """
        ...


class Credentials:
    """Finds a request's principal by asking the *schemes* in their order, until one knows the token.

    Without *schemes*, every request has the same principal, which has the *allowance*. Accounts are hashes of names
    with *key*, so processes that share it count a principal as one.
    """

    def __init__(
        self,
        schemes: Sequence[Scheme] = (),
        tickets: Tickets | None = None,
        allowance: Allowance = UNLIMITED,
        key: bytes = b"",
    ) -> None:
        self._schemes = tuple(schemes)
        self._tickets = tickets
        self._anyone = ANYONE._replace(allowance=allowance, account=ANYONE.counted_as())
        self._key = key

    async def principal(self, scope: Scope) -> Principal:
        """Return the principal. Raises Unauthenticated, or Overloaded if credentials cannot be checked now."""
        if not self._schemes:
            return self._anyone
        headers = Headers(scope=scope).getlist("authorization")
        if not headers:
            return self._of_ticket(scope)
        token = _token(headers)
        for scheme in self._schemes:
            principal = await scheme.principal(token)
            if principal is not None:
                return principal._replace(account=keyed_hash(principal.name, self._key))
        raise Unauthenticated("These credentials are not known here.")

    def _of_ticket(self, scope: Scope) -> Principal:
        """Return the principal of the ticket in the query, which may read and stop the stream in the path.

        Raises Unauthenticated.
        """
        path = _STREAM_PATH.fullmatch(scope["path"])
        query = scope["query_string"]
        if self._tickets is None or path is None or len(query) > _MAX_QUERY:
            raise Unauthenticated
        tickets = QueryParams(query).getlist("ticket")
        if len(tickets) != 1:
            raise Unauthenticated
        return self._tickets.check(tickets[0], path[1])


class AccessMiddleware:
    """Wraps *app*: puts into the request's context the principal, and the headers that tell of its quota.

    It is pure ASGI, and so costs a stream next to nothing. All paths that are not *public* ask for credentials, also
    those that do not exist. A request that stops a stream is counted by its endpoint, which knows whether there is
    something to stop: the first stop of a live stream only saves, and is never refused.
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
        if _STOPS.fullmatch(f"{scope['method']} {scope['path']}"):
            context.count = partial(self._count, context)
            await self._app(scope, receive, send)
            return
        spends = principal.allowance.tokens > 0 and _spends(scope)
        standing = await self._quota.admit(principal, spends=spends)
        context.headers = standing.headers
        if standing.refusal is None:
            await self._app(scope, receive, send)
        else:
            await refuse(standing.refusal, scope, receive, send)

    async def _count(self, context: RequestContext) -> None:
        standing = await self._quota.admit(context.principal, spends=False)
        context.headers = standing.headers
        if standing.refusal is not None:
            raise standing.refusal


def _token(headers: list[str]) -> str:
    """Return the bearer token in the values of `Authorization`, of which there must be one. Raises Unauthenticated."""
    # A proxy in front may have checked the other one of two.
    value = headers[0].strip(" \t") if len(headers) == 1 else ""
    match = _BEARER.fullmatch(value) if len(value) <= _MAX_TOKEN else None
    if match is None:
        raise Unauthenticated("The credentials cannot be read: send one header, 'Authorization: Bearer ...'.")
    return match[1]


def _spends(scope: Scope) -> bool:
    """Return whether the request may start a stream, and so asks for output tokens.

    A request for the rest of a stream does not. Elsewhere a position may mean nothing, and would be a way around the
    budget.
    """
    if scope["method"] != "POST":
        return False
    return scope["path"] not in _RESUMING or not given_position(HTTPConnection(scope))
