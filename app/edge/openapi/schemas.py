"""What bodies and events look like, as JSON Schema: the components of `/openapi.json`.

The request's body comes from the model that reads it, the errors from their tree, so neither can drift. What only code
says (the grammar of a cut, the range of an integer) is added here, and tests hold it against that code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from app import errors
from app.edge.bodies import ChatBody
from app.errors import Draining, InternalError, Overloaded, StreamError, StreamTooLarge, UpstreamError

Schema = dict[str, Any]

STREAM_ID: Schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]{22}$"}
EVENT_ID: Schema = {
    "type": "string",
    "pattern": "^[A-Za-z0-9_-]{22}-[1-9][0-9]{0,11}$",
    "description": "`<stream id>-<sequence number>`, numbered from 1 without a gap.",
}

# What becomes a terminal `error` event instead of a status.
IN_BAND = (UpstreamError, StreamTooLarge, Overloaded, Draining, InternalError)

_TREE = tuple(kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StreamError))

_MS = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)"
_N = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-6])"
_SMOOTH = "smooth:[1-9][0-9]{0,3}"
_CUT = f"(?:auto|none|(?:word|sentence|line|size:{_N})(?:,{_MS}ms)?|time:{_MS})"
CHUNK_PATTERN = f"^(?:{_CUT}(?:,{_SMOOTH})?|{_SMOOTH}|)$"
POLICY_PATTERN = r"^(?:cancel|continue|grace:[0-9]{1,6}(?:\.[0-9]{1,3})?)$"
_SAID: dict[str, Schema] = {
    "prompt": {"description": "The user's message; or else give `messages`."},
    "messages": {"description": "The conversation in OpenAI's shape; or else give `prompt`."},
    "model": {"description": "Empty or absent: the service's default."},
    "chunk": {
        "pattern": CHUNK_PATTERN,
        "description": "How the text's deltas are cut anew: `auto`, `none`, `word`, `sentence`, `line`, `size:N` or "
        "`time:MS`; `,MSms` bounds how long text is held back, `smooth:MS` spreads bursts. The text stays the same.",
    },
    "on_disconnect": {
        "pattern": POLICY_PATTERN,
        "description": "What happens when the last reader is gone: `cancel`, `continue`, or `grace:SECONDS` to come "
        "back in. The service may bound it.",
    },
}


def family(*roots: type[StreamError]) -> list[type[StreamError]]:
    """Return the errors that are of *roots* and can be raised: a class that only groups others has no code of its own.

    They are in the order of the tree.
    """
    return [kind for kind in _TREE if issubclass(kind, roots) and ("code" in vars(kind) or not kind.__subclasses__())]


def ref(name: str, place: str = "schemas") -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/{place}/{name}"}


def error_schema(kinds: Iterable[type[StreamError]]) -> Schema:
    """Return the schema of an error's body that is one of *kinds*."""
    return {**ref("Error"), "properties": {"error": {"properties": {"code": {"enum": _codes(kinds)}}}}}


def schemas() -> dict[str, Schema]:
    """Return `components.schemas`."""
    chat = ChatBody.model_json_schema(ref_template="#/components/schemas/{model}")
    components = {**chat.pop("$defs"), "ChatBody": chat}
    for schema in components.values():
        tidy(schema)
    for name, said in _SAID.items():
        branch = chat["properties"][name]["anyOf"][0]
        branch |= {key: value for key, value in said.items() if key == "pattern"}
        chat["properties"][name]["description"] = said["description"]
    chat["oneOf"] = [
        {"required": ["prompt"], "properties": {"prompt": {"type": "string"}}},
        {"required": ["messages"], "properties": {"messages": {"type": "array"}}},
    ]
    events = {f"{name}Event": _block(event, name) for event, name in EVENTS.items()}
    listed = {"anyOf": [ref(name) for name in events], "description": "One event of a stream."}
    return {**components, **_BODIES, **_DATA, **events, "StreamEvent": listed}


def tidy(schema: Any) -> None:
    """Take out what says nothing, and give integers the range that a JSON parser of 64 bits has."""
    if isinstance(schema, list):
        for item in schema:
            tidy(item)
    elif isinstance(schema, dict):
        schema.pop("title", None)
        if schema.get("default", ...) is None:
            del schema["default"]
        if schema.get("type") == "integer":
            schema.setdefault("minimum", -(2**63))
            schema.setdefault("maximum", 2**63 - 1)
        for item in schema.values():
            tidy(item)


def _codes(kinds: Iterable[type[StreamError]]) -> list[str]:
    return list(dict.fromkeys(kind.code for kind in kinds))


def _types(kinds: Iterable[type[StreamError]]) -> list[str]:
    return list(dict.fromkeys(kind.type for kind in kinds))


def object_of(description: str, required: Sequence[str] | None = None, /, **properties: Schema) -> Schema:
    """Return the schema of an object. All *properties* are required unless it says which."""
    names = list(properties) if required is None else list(required)
    return {"type": "object", "description": description, "required": names, "properties": properties}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def text(description: str, **more: Any) -> Schema:
    return {"type": "string", "description": description, **more}


def whole(description: str, least: int = 0) -> Schema:
    return {"type": "integer", "minimum": least, "description": description}


def _block(event: str, name: str) -> Schema:
    """Return the schema of an event as a client library hands it out."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": ref(name)}
    return object_of(
        f"`event: {event}`; its `data` is one line of JSON, a {name}.",
        ("event", "id", "data"),
        event={"const": event},
        id=EVENT_ID,
        data=data,
        retry=whole("With the first event of each answer: milliseconds to wait before reconnecting."),
    )


EVENTS = {
    "start": "Start",
    "delta": "Delta",
    "reasoning": "Reasoning",
    "refusal": "Refusal",
    "tool_call": "ToolCall",
    "done": "Done",
    "error": "Failure",
}
"""The names of a stream's events, and of the schemas of their data."""

_FINISH: Schema = {"enum": ["stop", "length", "content_filter", "tool_calls", "cancelled", "unknown", "other"]}
USAGE = or_null(ref("Usage"))
_URL = text("Where the stream can be read, with a ticket in it if credentials are asked for.", format="uri-reference")
FAILED = {
    "message": text("For people; never holds a key, a prompt or an answer."),
    "type": {"enum": _types(family(*IN_BAND))},
    "code": {"enum": _codes(family(*IN_BAND)), "description": "The stable name of what went wrong."},
    "retryable": {"type": "boolean", "description": "Whether the same request may succeed later."},
}

_DATA: dict[str, Schema] = {
    "Start": object_of(
        "Always first.",
        ("stream_id", "model", "created"),
        stream_id=STREAM_ID,
        url=_URL,
        model=text("The model that was asked for."),
        created=whole("Unix time in seconds."),
        fallback=text("The upstream that answers instead of the first choice."),
    ),
    "Delta": object_of("A piece of the answer's text.", content=text("Joined, they are the answer.", minLength=1)),
    "Reasoning": object_of("A piece of the model's reasoning.", content=text("Never answer text.", minLength=1)),
    "Refusal": object_of("A piece of a refusal.", content=text("Never answer text.", minLength=1)),
    "ToolCall": object_of(
        "A piece of a tool call.",
        ("index", "arguments"),
        index=whole("Which call: from 0, without a gap."),
        id=text("With the call's first piece."),
        name=text("With the call's first piece."),
        arguments=text("A piece of its JSON."),
    ),
    "Done": object_of(
        "Last: the answer is whole, or was cancelled.",
        ("finish_reason", "usage", "model", "first_token_ms", "duration_ms"),
        finish_reason=_FINISH,
        raw_finish_reason=text("What upstream said, with `other`."),
        usage=USAGE,
        model=text("The name that upstream gave itself, or empty."),
        first_token_ms=or_null(whole("Milliseconds to the first content.")),
        duration_ms=or_null(whole("Milliseconds that the stream took.")),
    ),
    "Failure": object_of("Last: the stream broke.", error=object_of("What broke it.", **FAILED), usage=USAGE),
    "Usage": object_of(
        "Upstream's own object as it came; or counted by the service, and then it says `estimated`.",
        (),
        prompt_tokens=whole("Tokens of the request."),
        completion_tokens=whole("Tokens of the answer."),
        total_tokens=whole("Both together."),
        estimated={"const": True, "description": "The service counted, because upstream did not."},
    ),
}

_BODIES: dict[str, Schema] = {
    "Created": object_of(
        "A stream that was started for somebody to read.",
        stream_id=STREAM_ID,
        url=_URL,
        cancel_url=text("Where a `POST` stops it.", format="uri-reference"),
    ),
    "Snapshot": object_of(
        "A stream as one object.",
        stream_id=STREAM_ID,
        state={"enum": ["live", "done", "error"]},
        model=or_null(text("The name that upstream gave itself, or else the one that was asked for.")),
        created=or_null(whole("Unix time in seconds.")),
        finish_reason=or_null(_FINISH),
        content=text("The answer so far."),
        reasoning=text("The reasoning so far."),
        refusal=text("The refusal so far."),
        tool_calls={
            "type": "array",
            "items": object_of(
                "A call so far.",
                index=whole("From 0, without a gap."),
                id=text(""),
                name=text(""),
                arguments=text("Its JSON so far."),
            ),
        },
        usage=USAGE,
        error=or_null(object_of("What broke it.", **FAILED)),
        last_event_id=or_null(EVENT_ID | {"description": "Where to go on reading."}),
    ),
    "Error": object_of(
        "Why there is no stream.",
        error=object_of(
            "One of the service's errors.",
            message=FAILED["message"],
            type={"enum": _types(_TREE)},
            code={"enum": _codes(_TREE), "description": "The stable name of what went wrong."},
            param={"type": ["string", "null"], "description": "The field of the request that is wrong."},
            retryable=FAILED["retryable"],
            request_id=text("The same as the header `X-Request-Id`."),
        ),
    ),
}
