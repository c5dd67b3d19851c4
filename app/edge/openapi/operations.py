"""What the operations of `/openapi.json` are made of: parameters, headers, and the ways to fail."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter

from app.edge.dialects.openai_requests import CHUNK, ON_DISCONNECT
from app.edge.openapi.schemas import (
    CHUNK_PATTERN,
    EVENT_ID,
    POLICY_PATTERN,
    STREAM_ID,
    Schema,
    error_schema,
    family,
    ref,
)
from app.errors import ForeignHost, ForeignOrigin, InternalError, MethodNotAllowed, StreamError, Unauthenticated

_ANYWHERE = (ForeignHost, ForeignOrigin, InternalError)


def failures(
    credentials: bool, *kinds: type[StreamError], but: tuple[type[StreamError], ...] = ()
) -> dict[str, Schema]:
    """Return the responses, by status, of an operation that fails like *kinds* *but* some, and like all of them do."""
    status = attrgetter("status")
    # What is described is allowed.
    never = {MethodNotAllowed, *but} if credentials else {MethodNotAllowed, Unauthenticated, *but}
    found = [kind for kind in family(*kinds, *_ANYWHERE) if kind not in never]
    return {str(code): _failure(code, list(same)) for code, same in groupby(sorted(found, key=status), key=status)}


def _failure(status: int, kinds: list[type[StreamError]]) -> Schema:
    said = {kind.code: kind.message for kind in kinds}
    always = ("X-Should-Retry", "WWW-Authenticate") if status == 401 else ("X-Should-Retry",)
    named = {401: ("WWW-Authenticate",), 429: ("Retry-After", *LIMITS), 503: ("Retry-After", *LIMITS)}
    return {
        "description": "\n".join(f"- `{code}`: {message}" for code, message in said.items()),
        "headers": headers(*named.get(status, ()), "X-Should-Retry", required=always),
        "content": {"application/json": {"schema": error_schema(kinds)}},
    }


def security(credentials: bool, *schemes: str) -> list[Schema]:
    return [{scheme: []} for scheme in schemes] if credentials else []


def headers(*names: str, required: tuple[str, ...] = ()) -> Schema:
    """Return the headers of a response. Those that are *required*, and the request's id, are always there."""
    always = ("X-Request-Id", *required)
    return {
        name: HEADERS[name] | {"required": True} if name in always else ref(name, "headers")
        for name in ("X-Request-Id", *names)
    }


def parameter(place: str, name: str = "", schema: Schema | None = None, description: str = "") -> Schema:
    """Return a parameter: by its name a component, or one in *place* ("path" or "query")."""
    if schema is None:
        return ref(place, "parameters")
    said = {"description": description} if description else {}
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **said}


PLAIN: Schema = {"text/plain": {"schema": {"type": "string"}}}
_COUNT: Schema = {"type": "integer", "minimum": 0}

HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "The caller's, if it sent one that can be logged, else a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~+/=:-]{1,128}$"},
    },
    "X-Stream-Id": {"description": "The stream's id.", "schema": STREAM_ID},
    "Content-Location": {"description": "Where the stream is.", "schema": {"type": "string"}},
    "Location": {"description": "Where the stream is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer", "minimum": 1}},
    "X-Should-Retry": {
        "description": "Whether the same request may succeed later: the error's `retryable`, for OpenAI's SDKs.",
        "schema": {"enum": ["true", "false"]},
    },
    "RateLimit-Limit": {"description": "How many may be asked for in a window.", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "How many are left of them.", "schema": _COUNT},
    "RateLimit-Reset": {"description": "Seconds until there are more.", "schema": _COUNT},
    "RateLimit-Policy": {"description": "The limits that hold, as in `60;w=60`.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "What to send.", "schema": {"const": "Bearer"}},
    "ETag": {"description": "Names this version, for `If-None-Match`.", "schema": {"type": "string"}},
    "X-Vercel-AI-UI-Message-Stream": {
        "description": "The version of the AI SDK's protocol.",
        "schema": {"const": "v1"},
    },
}
LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
NOTHING_MORE: Schema = {
    "description": "The event in `Last-Event-ID` was the stream's last: do not reconnect.",
    "headers": headers("X-Stream-Id", required=("X-Stream-Id",)),
}

PARAMETERS: dict[str, Schema] = {
    "Last-Event-ID": {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "The id of the last event that was read; empty is none.",
        "schema": {"type": "string", "pattern": f"^(?:{EVENT_ID['pattern'].strip('^$')})?$"},
    },
    "Idempotency-Key": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "With the same body again, the same stream: nothing is paid twice.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    },
    CHUNK: {
        "name": CHUNK,
        "in": "header",
        "description": "How the text is cut anew: as `chunk` in `ChatBody`.",
        "schema": {"type": "string", "pattern": CHUNK_PATTERN},
    },
    ON_DISCONNECT: {
        "name": ON_DISCONNECT,
        "in": "header",
        "description": "What happens when the last reader is gone: as `on_disconnect` in `ChatBody`.",
        "schema": {"type": "string", "pattern": POLICY_PATTERN},
    },
    "X-Request-Id": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Names the request in the log; one that cannot be logged is replaced.",
        "schema": {"type": "string"},
    },
    "traceparent": {
        "name": "traceparent",
        "in": "header",
        "description": "W3C trace context; one that is not well-formed is ignored.",
        "schema": {"type": "string"},
    },
}
ALWAYS = (ref("X-Request-Id", "parameters"), ref("traceparent", "parameters"))

SCHEMES: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."},
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Opens one stream to who cannot send headers; comes in the stream's `url`, and expires.",
    },
    "metrics": {"type": "http", "scheme": "bearer", "description": "The metrics' own token."},
}
