"""Who asks: API keys, JWTs, tickets; or nobody in particular."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from app.edge.access.tickets import Tickets
from app.errors import Unauthenticated
from app.request import ANYONE, UNLIMITED, Allowance, Principal

# Larger than any token that the usual issuers make; proxies refuse headers of this size, too.
_MAX_TOKEN = 8192
_MAX_QUERY = 2048
# https://www.rfc-editor.org/rfc/rfc6750#section-2.1: one scheme, of any case, and one b64token.
_BEARER = re.compile(r"bearer +([A-Za-z0-9._~+/-]+=*)", re.ASCII | re.IGNORECASE)
# All that a ticket opens.
_STREAM_PATH = re.compile(r"/v1/streams/([A-Za-z0-9_-]{22})(?:/cancel)?", re.ASCII)


class Scheme(Protocol):
    """One kind of bearer token."""

    async def principal(self, token: str) -> Principal | None:
        """Return whose *token* is, or None if it is not of this kind. Raises Unauthenticated if it is, but not good."""
        ...


class Credentials:
    """Finds a request's principal. Without *schemes* everybody is the same one, who may have *allowance*.

    The schemes are asked in their order, until one knows the token.
    """

    def __init__(
        self, schemes: Sequence[Scheme] = (), tickets: Tickets | None = None, allowance: Allowance = UNLIMITED
    ) -> None:
        self._schemes = tuple(schemes)
        self._tickets = tickets
        self._anyone = ANYONE._replace(allowance=allowance)

    async def principal(self, scope: Scope) -> Principal:
        """Return who asks. Raises Unauthenticated, or Overloaded if that cannot be found out at the moment."""
        if not self._schemes:
            return self._anyone
        headers = Headers(scope=scope).getlist("authorization")
        if not headers:
            return self._bearer_of_ticket(scope)
        token = _token(headers)
        for scheme in self._schemes:
            principal = await scheme.principal(token)
            if principal is not None:
                return principal
        raise Unauthenticated("These credentials are not known here.")

    def _bearer_of_ticket(self, scope: Scope) -> Principal:
        """Return who may do nothing but read and stop the stream of the path. Raises Unauthenticated."""
        path, query = _STREAM_PATH.fullmatch(scope["path"]), scope["query_string"]
        if self._tickets is None or path is None or len(query) > _MAX_QUERY:
            raise Unauthenticated
        tickets = QueryParams(query).getlist("ticket")
        if len(tickets) != 1:
            raise Unauthenticated
        return self._tickets.check(tickets[0], path[1])


def _token(headers: list[str]) -> str:
    """Return the one bearer token in the values of `Authorization`. Raises Unauthenticated."""
    # Of two, a proxy in front may have looked at the other one.
    value = headers[0].strip(" \t") if len(headers) == 1 else ""
    match = _BEARER.fullmatch(value) if len(value) <= _MAX_TOKEN else None
    if match is None:
        raise Unauthenticated("The credentials cannot be read: send one header, 'Authorization: Bearer ...'.")
    return match[1]
