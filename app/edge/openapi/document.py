"""`/openapi.json`: every endpoint, with what it takes, what it answers, and how it fails. OpenAPI 3.1.

An event stream's `schema` is that of one event, whose `data` is described by `contentSchema`. OpenAPI 3.2 has
`itemSchema` for that, which few tools read yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app import __version__
from app.edge.dialects.ai_sdk_schemas import ai_sdk_paths, ai_sdk_schemas
from app.edge.openapi.openai_operations import openai_paths, openai_schemas
from app.edge.openapi.operations import (
    ALWAYS,
    HEADERS,
    LIMITS,
    NOTHING_MORE,
    PARAMETERS,
    PLAIN,
    SCHEMES,
    failures,
    headers,
    parameter,
    security,
)
from app.edge.openapi.schemas import EVENT_ID, STREAM_ID, Schema, ref, schemas
from app.errors import (
    BadRequest,
    Cancelled,
    Forbidden,
    Overloaded,
    RateExceeded,
    StreamError,
    TooManyReaders,
    Unauthenticated,
    UnknownModel,
    UnknownPath,
    UnknownStream,
)

_Errors = tuple[type[StreamError], ...]
# The dialects that a stream can be read in, and the schema of an event in each.
_DIALECTS = {"events": "StreamEvent", "openai": "ChunkEvent", "ai-sdk": "UIMessageEvent"}
_SMOOTH: Schema = {"type": "integer", "minimum": 1, "maximum": 9999}
_READING: _Errors = (BadRequest, Unauthenticated, UnknownPath, UnknownStream, RateExceeded, TooManyReaders, Overloaded)
_STOPPING: _Errors = (Unauthenticated, UnknownPath, UnknownStream, Overloaded)


def openapi(credentials: bool, playground: bool = True) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of `GET /openapi.json`; the arguments are `document`'s."""
    content = orjson.dumps(document(credentials, playground))
    cached = {
        "ETag": f'"{hashlib.sha256(content).hexdigest()[:20]}"',
        "Cache-Control": "no-cache",
        "X-Content-Type-Options": "nosniff",
    }

    async def serve(request: Request) -> Response:
        if cached["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=cached)
        return Response(content, headers=cached, media_type="application/json")

    return serve


def document(credentials: bool, playground: bool = True) -> dict[str, Any]:
    """Return the API described. *credentials*: whether they are asked for. *playground*: whether its page is served."""
    paths = {
        "/v1/chat": {"post": _open(credentials)},
        "/v1/streams/{stream_id}": {
            "parameters": [parameter("path", "stream_id", STREAM_ID)],
            "get": _attach(credentials),
            "delete": _cancel("cancelStream", credentials),
        },
        "/v1/streams/{stream_id}/cancel": {
            "parameters": [parameter("path", "stream_id", STREAM_ID)],
            "post": _cancel("cancelStreamByPost", credentials),
        },
        **openai_paths(credentials),
        **ai_sdk_paths(credentials),
        **_service(credentials),
        **(_page() if playground else {}),
        "/client.js": {"get": _file("getClient", "The browser client, an ECMAScript module.", "text/javascript")},
    }
    components: dict[str, Any] = {
        "schemas": schemas() | openai_schemas() | ai_sdk_schemas(),
        "headers": HEADERS,
        "parameters": PARAMETERS,
    }
    if credentials:
        components["securitySchemes"] = SCHEMES
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
    streamed = ("X-Stream-Id", "Content-Location", *LIMITS)
    return {
        "operationId": "openStream",
        "summary": "Start a stream, and answer with it.",
        "description": "With `Accept: application/json` the answer is 201 and says where the stream can be read. With "
        "a `Last-Event-ID` it starts nothing but resumes that stream, and the body does not matter.",
        "security": security(credentials, "bearer"),
        "parameters": [parameter("Idempotency-Key"), parameter("Last-Event-ID"), *ALWAYS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("ChatBody")}}},
        "responses": {
            "200": {
                "description": "The stream, live.",
                "headers": headers(*streamed, required=streamed[:2]),
                "content": {"text/event-stream": {"schema": ref("StreamEvent")}},
                "links": links,
            },
            "201": {
                "description": "The stream has been started; somebody has to read it within 10 seconds at least.",
                "headers": headers("Location", "X-Stream-Id", *LIMITS, required=("Location", "X-Stream-Id")),
                "content": {"application/json": {"schema": ref("Created")}},
                "links": links,
            },
            "204": NOTHING_MORE,
            **failures(credentials, StreamError, but=(Cancelled, UnknownModel)),
        },
    }


def _attach(credentials: bool) -> Schema:
    return {
        "operationId": "attachStream",
        "summary": "Read a stream, from the start or after an event; or, with `Accept: application/json`, a snapshot.",
        "description": "An `EventSource` takes every status but 200 for final. So where this would be a 429 or a 503 "
        "and `Accept` says `text/event-stream`, it is a 200 with a `retry:` line and no event.",
        "security": security(credentials, "bearer", "ticket"),
        "parameters": [
            parameter("Last-Event-ID"),
            parameter("query", "last_event_id", EVENT_ID, "For a first connect; the header wins."),
            parameter("query", "dialect", {"enum": list(_DIALECTS)}, "Whose events; `events`, ours, are the default."),
            parameter("query", "smooth", _SMOOTH, "Spread bursts evenly, at most so many milliseconds behind."),
            *ALWAYS,
        ],
        "responses": {
            "200": {
                "description": "The stream, replayed and then live; or the snapshot.",
                "headers": headers("X-Stream-Id", "Content-Location", *LIMITS),
                "content": {
                    "text/event-stream": {"schema": {"anyOf": [ref(name) for name in _DIALECTS.values()]}},
                    "application/json": {"schema": ref("Snapshot")},
                },
            },
            "204": NOTHING_MORE,
            **failures(credentials, *_READING),
        },
    }


def _cancel(operation: str, credentials: bool) -> Schema:
    return {
        "operationId": operation,
        "summary": "Stop a stream. Harmless if it has ended.",
        "security": security(credentials, "bearer", "ticket"),
        "parameters": [*ALWAYS],
        "responses": {
            "200": {
                "description": "What there is of it.",
                "headers": headers("X-Stream-Id", required=("X-Stream-Id",)),
                "content": {"application/json": {"schema": ref("Snapshot")}},
            },
            **failures(credentials, *_STOPPING),
        },
    }


def _service(credentials: bool) -> dict[str, Schema]:
    draining = {
        "description": "The service is shutting down.",
        "headers": headers("Retry-After"),
        "content": PLAIN,
    }
    metrics: Schema = {
        "operationId": "getMetrics",
        "summary": "What Prometheus scrapes.",
        "security": security(credentials, "metrics"),
        "parameters": [*ALWAYS],
        "responses": {
            "200": {
                "description": "The metrics, in the format that `Accept` asks for.",
                "headers": headers(),
                "content": {**PLAIN, "application/openmetrics-text": {"schema": {"type": "string"}}},
            },
            **failures(credentials, *((Unauthenticated, Forbidden) if credentials else ())),
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
            "304": {"description": "The copy named in `If-None-Match` is still good.", "headers": headers("ETag")}
        }
    return {
        "operationId": operation,
        "summary": summary,
        "security": [],
        "parameters": [*ALWAYS],
        "responses": {
            "200": {
                "description": "It.",
                "headers": headers("ETag") if cached else headers(),
                "content": {media_type: {"schema": schema}},
            },
            **cached,
            **failures(False),
            **(more or {}),
        },
    }


_ABOUT = """Streams chat completions over Server-Sent Events, in streams that outlive their connections.

A stream's events are `start`, any number of `delta`, `reasoning`, `refusal` and `tool_call`, and exactly one of `done`
and `error`, last. A stream that stops without one was cut: reconnect with `Last-Event-ID`. Lines that begin with `:`
keep the connection alive. What fails before the first event is an HTTP status with an `Error`."""
