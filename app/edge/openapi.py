"""`/openapi.json`: every endpoint, with what it takes, what it answers, and how it fails. OpenAPI 3.1.

An event stream's `schema` is that of one event, whose `data` is described by `contentSchema`. OpenAPI 3.2 has
`itemSchema` for that, which few tools read yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app import __version__
from app.edge.schemas import EVENT_ID, STREAM_ID, Schema, error_schema, family, ref, schemas
from app.errors import (
    BadRequest,
    Forbidden,
    ForeignHost,
    ForeignOrigin,
    InternalError,
    Overloaded,
    RateExceeded,
    StreamError,
    TooManyReaders,
    Unauthenticated,
    UnknownPath,
    UnknownStream,
)

_Errors = tuple[type[StreamError], ...]
_ANYWHERE: _Errors = (ForeignHost, ForeignOrigin, InternalError)
_READING: _Errors = (BadRequest, Unauthenticated, UnknownPath, UnknownStream, RateExceeded, TooManyReaders, Overloaded)
_STOPPING: _Errors = (Unauthenticated, UnknownPath, UnknownStream, Overloaded)


def openapi(credentials: bool, playground: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of `GET /openapi.json`; the arguments are `document`'s."""
    content = orjson.dumps(document(credentials, playground))
    headers = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:20]}"',
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }

    async def serve(request: Request) -> Response:
        if headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type="application/json")

    return serve


def document(credentials: bool, playground: bool = True) -> dict[str, Any]:
    """Return the API described. *credentials*: whether they are asked for. *playground*: whether its page is served."""
    paths = {
        "/v1/chat": {"post": _open(credentials)},
        "/v1/streams/{stream_id}": {
            "parameters": [_parameter("path", "stream_id", STREAM_ID)],
            "get": _attach(credentials),
            "delete": _cancel("cancelStream", credentials),
        },
        "/v1/streams/{stream_id}/cancel": {
            "parameters": [_parameter("path", "stream_id", STREAM_ID)],
            "post": _cancel("cancelStreamByPost", credentials),
        },
        **_service(credentials),
        **(_page() if playground else {}),
        "/client.js": {"get": _file("getClient", "The browser client, an ECMAScript module.", "text/javascript")},
    }
    components: dict[str, Any] = {"schemas": schemas(), "headers": _HEADERS, "parameters": _PARAMETERS}
    if credentials:
        components["securitySchemes"] = _SCHEMES
    return {
        "openapi": "3.1.0",
        "info": {"title": "chat-sse", "version": __version__, "description": _ABOUT},
        "paths": paths,
        "components": components,
    }


def _open(credentials: bool) -> Schema:
    to_stream = {"stream_id": "$response.header.X-Stream-Id"}
    links = {
        "attach": {"operationId": "attachStream", "parameters": to_stream},
        "cancel": {"operationId": "cancelStream", "parameters": to_stream},
        "cancelByPost": {"operationId": "cancelStreamByPost", "parameters": to_stream},
    }
    streamed = ("X-Stream-Id", "Content-Location", *_LIMITS)
    return {
        "operationId": "openStream",
        "summary": "Start a stream, and answer with it.",
        "description": "With `Accept: application/json` the answer is 201 and says where the stream can be read. With "
        "a `Last-Event-ID` it starts nothing but resumes that stream, and the body does not matter.",
        "security": _security(credentials, "bearer"),
        "parameters": [_parameter("Idempotency-Key"), _parameter("Last-Event-ID"), *_ALWAYS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("ChatBody")}}},
        "responses": {
            "200": {
                "description": "The stream, live.",
                "headers": _headers(*streamed, required=streamed[:2]),
                "content": {"text/event-stream": {"schema": ref("StreamEvent")}},
                "links": links,
            },
            "201": {
                "description": "The stream has been started; somebody has to read it within 10 seconds at least.",
                "headers": _headers("Location", "X-Stream-Id", *_LIMITS, required=("Location", "X-Stream-Id")),
                "content": {"application/json": {"schema": ref("Created")}},
                "links": links,
            },
            "204": _NOTHING_MORE,
            **_failures(credentials, StreamError),
        },
    }


def _attach(credentials: bool) -> Schema:
    return {
        "operationId": "attachStream",
        "summary": "Read a stream, from the start or after an event; or, with `Accept: application/json`, a snapshot.",
        "description": "An `EventSource` takes every status but 200 for final. So where this would be a 429 or a 503 "
        "and `Accept` says `text/event-stream`, it is a 200 with a `retry:` line and no event.",
        "security": _security(credentials, "bearer", "ticket"),
        "parameters": [
            _parameter("Last-Event-ID"),
            _parameter("query", "last_event_id", EVENT_ID, "For a first connect; the header wins."),
            _parameter("query", "smooth", _SMOOTH, "Spread bursts evenly, at most so many milliseconds behind."),
            *_ALWAYS,
        ],
        "responses": {
            "200": {
                "description": "The stream, replayed and then live; or the snapshot.",
                "headers": _headers("X-Stream-Id", "Content-Location", *_LIMITS),
                "content": {
                    "text/event-stream": {"schema": ref("StreamEvent")},
                    "application/json": {"schema": ref("Snapshot")},
                },
            },
            "204": _NOTHING_MORE,
            **_failures(credentials, *_READING),
        },
    }


def _cancel(operation: str, credentials: bool) -> Schema:
    return {
        "operationId": operation,
        "summary": "Stop a stream. Harmless if it has ended.",
        "security": _security(credentials, "bearer", "ticket"),
        "parameters": [*_ALWAYS],
        "responses": {
            "200": {
                "description": "What there is of it.",
                "headers": _headers("X-Stream-Id", required=("X-Stream-Id",)),
                "content": {"application/json": {"schema": ref("Snapshot")}},
            },
            **_failures(credentials, *_STOPPING),
        },
    }


def _service(credentials: bool) -> dict[str, Schema]:
    draining = {
        "description": "The service is shutting down.",
        "headers": _headers("Retry-After"),
        "content": _PLAIN,
    }
    metrics: Schema = {
        "operationId": "getMetrics",
        "summary": "What Prometheus scrapes.",
        "security": _security(credentials, "metrics"),
        "parameters": [*_ALWAYS],
        "responses": {
            "200": {
                "description": "The metrics, in the format that `Accept` asks for.",
                "headers": _headers(),
                "content": {**_PLAIN, "application/openmetrics-text": {"schema": {"type": "string"}}},
            },
            **_failures(credentials, *((Unauthenticated, Forbidden) if credentials else ())),
        },
    }
    return {
        "/healthz": {"get": _file("getHealth", "Answers as long as the process lives.", "text/plain")},
        "/readyz": {"get": _file("getReadiness", "Whether new streams are taken.", "text/plain", {"503": draining})},
        "/metrics": {"get": metrics},
        "/openapi.json": {"get": _file("getDescription", "This document.", "application/json")},
    }


def _page() -> dict[str, Schema]:
    return {
        "/": {"get": _file("getPlayground", "The playground.", "text/html")},
        "/playground.js": {"get": _file("getPlaygroundScript", "The playground's script.", "text/javascript")},
        "/playground.css": {"get": _file("getPlaygroundStyle", "The playground's style.", "text/css")},
    }


def _file(operation: str, summary: str, media_type: str, more: Schema | None = None) -> Schema:
    """Return the operation of something that is the same for everybody, and asks nobody for credentials."""
    schema: Schema = {"type": "object"} if media_type == "application/json" else {"type": "string"}
    cached: Schema = {}
    if media_type != "text/plain":
        cached = {
            "304": {"description": "The copy named in `If-None-Match` is still good.", "headers": _headers("ETag")}
        }
    return {
        "operationId": operation,
        "summary": summary,
        "security": [],
        "parameters": [*_ALWAYS],
        "responses": {
            "200": {
                "description": "It.",
                "headers": _headers("ETag") if cached else _headers(),
                "content": {media_type: {"schema": schema}},
            },
            **cached,
            **_failures(False),
            **(more or {}),
        },
    }


def _failures(credentials: bool, *kinds: type[StreamError]) -> dict[str, Schema]:
    """Return the responses, by status, of an operation that fails like *kinds*, and like all of them do."""
    status = attrgetter("status")
    found = [kind for kind in family(*kinds, *_ANYWHERE) if credentials or kind is not Unauthenticated]
    return {str(code): _failure(code, list(same)) for code, same in groupby(sorted(found, key=status), key=status)}


def _failure(status: int, kinds: list[type[StreamError]]) -> Schema:
    said = {kind.code: kind.message for kind in kinds}
    named = {401: ("WWW-Authenticate",), 429: ("Retry-After", *_LIMITS), 503: ("Retry-After", *_LIMITS)}
    return {
        "description": "\n".join(f"- `{code}`: {message}" for code, message in said.items()),
        "headers": _headers(*named.get(status, ()), required=("WWW-Authenticate",) if status == 401 else ()),
        "content": {"application/json": {"schema": error_schema(kinds)}},
    }


def _security(credentials: bool, *schemes: str) -> list[Schema]:
    return [{scheme: []} for scheme in schemes] if credentials else []


def _headers(*names: str, required: tuple[str, ...] = ()) -> Schema:
    """Return the headers of a response. Those that are *required*, and the request's id, are always there."""
    always = ("X-Request-Id", *required)
    return {
        name: _HEADERS[name] | {"required": True} if name in always else ref(name, "headers")
        for name in ("X-Request-Id", *names)
    }


def _parameter(place: str, name: str = "", schema: Schema | None = None, description: str = "") -> Schema:
    """Return a parameter: by its name a component, or one in *place* ("path" or "query")."""
    if schema is None:
        return ref(place, "parameters")
    said = {"description": description} if description else {}
    return {"name": name, "in": place, "required": place == "path", "schema": schema, **said}


_SMOOTH: Schema = {"type": "integer", "minimum": 1, "maximum": 9999}
_PLAIN: Schema = {"text/plain": {"schema": {"type": "string"}}}
_COUNT: Schema = {"type": "integer", "minimum": 0}

_HEADERS: dict[str, Schema] = {
    "X-Request-Id": {
        "description": "The caller's, if it sent one that can be logged, else a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._~+/=:-]{1,128}$"},
    },
    "X-Stream-Id": {"description": "The stream's id.", "schema": STREAM_ID},
    "Content-Location": {"description": "Where the stream is.", "schema": {"type": "string"}},
    "Location": {"description": "Where the stream is.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer", "minimum": 1}},
    "RateLimit-Limit": {"description": "How many may be asked for in a window.", "schema": _COUNT},
    "RateLimit-Remaining": {"description": "How many are left of them.", "schema": _COUNT},
    "RateLimit-Reset": {"description": "Seconds until there are more.", "schema": _COUNT},
    "RateLimit-Policy": {"description": "The limits that hold, as in `60;w=60`.", "schema": {"type": "string"}},
    "WWW-Authenticate": {"description": "What to send.", "schema": {"const": "Bearer"}},
    "ETag": {"description": "Names this version, for `If-None-Match`.", "schema": {"type": "string"}},
}
_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
_NOTHING_MORE: Schema = {
    "description": "The event in `Last-Event-ID` was the stream's last: do not reconnect.",
    "headers": _headers("X-Stream-Id", required=("X-Stream-Id",)),
}

_PARAMETERS: dict[str, Schema] = {
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
_ALWAYS = (ref("X-Request-Id", "parameters"), ref("traceparent", "parameters"))

_SCHEMES: dict[str, Schema] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or a JWT."},
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "Opens one stream to who cannot send headers; comes in the stream's `url`, and expires.",
    },
    "metrics": {"type": "http", "scheme": "bearer", "description": "The metrics' own token."},
}

_ABOUT = """Streams chat completions over Server-Sent Events, in streams that outlive their connections.

A stream's events are `start`, any number of `delta`, `reasoning`, `refusal` and `tool_call`, and exactly one of `done`
and `error`, last. A stream that stops without one was cut: reconnect with `Last-Event-ID`. Lines that begin with `:`
keep the connection alive. What fails before the first event is an HTTP status with an `Error`."""
