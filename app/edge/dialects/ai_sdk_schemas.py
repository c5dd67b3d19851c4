"""The AI SDK's dialect in `/openapi.json`."""

from __future__ import annotations

from app.edge.dialects.ai_sdk import UIChatBody
from app.edge.openapi.operations import ALWAYS, LIMITS, failures, headers, parameter, security
from app.edge.openapi.schemas import CHUNK_PATTERN, POLICY_PATTERN, Schema, object_of, ref, text, tidy
from app.errors import (
    Draining,
    JournalDown,
    Overloaded,
    RateExceeded,
    StreamError,
    TooManyReaders,
    Unauthenticated,
    UnknownPath,
)

_SAID = {
    "id": "The chat's: its newest stream is found by it.",
    "messages": "The conversation, as the page keeps it. What is for the page and not for the model is ignored.",
    "trigger": "Ignored: the messages say all.",
    "messageId": "Ignored: the messages say all.",
    "model": "Absent: the service's default.",
    "chunk": "How the text's deltas are cut anew: as `chunk` in `ChatBody`.",
    "on_disconnect": "What happens when the last reader is gone: as `on_disconnect` in `ChatBody`.",
}
_PATTERNS = {"chunk": CHUNK_PATTERN, "on_disconnect": POLICY_PATTERN}
_STREAM: Schema = {
    "description": "The stream: parts of a UI message stream, version 1, then `[DONE]`. One without that was cut.",
    "headers": headers("X-Vercel-AI-UI-Message-Stream", "X-Stream-Id", "Content-Location", *LIMITS),
    "content": {"text/event-stream": {"schema": ref("UIMessageEvent")}},
}


def ai_sdk_schemas() -> dict[str, Schema]:
    """Return what there is of it in `components.schemas`."""
    body = UIChatBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components = {**body.pop("$defs"), "UIChatBody": body}
    for schema in components.values():
        tidy(schema)
    for name, said in _SAID.items():
        body["properties"][name]["description"] = said
    for name, pattern in _PATTERNS.items():
        body["properties"][name]["anyOf"][0]["pattern"] = pattern
    data = text("One line of JSON, an object with a `type`; or `[DONE]`.")
    return {**components, "UIMessageEvent": object_of("An event without a name or an id.", data=data)}


def ai_sdk_paths(credentials: bool) -> dict[str, Schema]:
    """Return its paths. *credentials*: whether they are asked for."""
    chat_id = parameter("path", "chat_id", {"type": "string", "pattern": "^[^/]{1,256}$"}, "`useChat`'s `id`.")
    return {
        "/v1/ai-sdk/chat": {"post": _open(credentials)},
        "/v1/ai-sdk/chat/{chat_id}/stream": {
            "parameters": [chat_id],
            "get": _resume(credentials),
            "delete": _cancel("cancelUIChat", credentials),
        },
        "/v1/ai-sdk/chat/{chat_id}/cancel": {
            "parameters": [chat_id],
            "post": _cancel("cancelUIChatByPost", credentials),
        },
    }


def _open(credentials: bool) -> Schema:
    return {
        "operationId": "openUIChat",
        "summary": "Start a stream in a chat of the AI SDK's, and answer with it: `useChat`'s `api`.",
        "security": security(credentials, "bearer"),
        "parameters": [parameter("Idempotency-Key"), *ALWAYS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("UIChatBody")}}},
        "responses": {"200": _STREAM, **failures(credentials, StreamError)},
    }


def _resume(credentials: bool) -> Schema:
    reading = (Unauthenticated, UnknownPath, RateExceeded, TooManyReaders, Overloaded, Draining, JournalDown)
    return {
        "operationId": "resumeUIChat",
        "summary": "Read the chat's newest stream from its start, while it is live.",
        "security": security(credentials, "bearer"),
        "parameters": [*ALWAYS],
        "responses": {"200": _STREAM, "204": _nothing("Nothing is live."), **failures(credentials, *reading)},
    }


def _cancel(operation: str, credentials: bool) -> Schema:
    return {
        "operationId": operation,
        "summary": "Stop the chat's newest stream. Harmless if there is none.",
        "security": security(credentials, "bearer"),
        "parameters": [*ALWAYS],
        "responses": {
            "204": _nothing("It has ended."),
            **failures(credentials, Unauthenticated, UnknownPath, Overloaded, JournalDown),
        },
    }


def _nothing(description: str) -> Schema:
    return {"description": description, "headers": headers()}
