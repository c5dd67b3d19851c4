"""Streams for every dialect: any of them, and what the bytes of a dialect say when they are put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from app.events import (
    REASONING,
    REASONING_FIELDS,
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
    EventId,
    Extra,
    Failure,
    Logprobs,
    Media,
    PlainReasoning,
    Refusal,
    Start,
    ToolCall,
)
from app.usage import Usage
from app.wire import Encoder
from app.wire.blocks import after
from app.wire.joined import Joined

STREAM_ID = "S" * 22
START = Start("m", 7)
STOP = Done("tool_calls", None, Usage({"total_tokens": 3}), "m-1", 4, 9)
BROKEN = Failure("Broke.", "upstream_error", "upstream_truncated", True, 502, usage=Usage({"total_tokens": 1}, True))
ENDS: list[Event] = [
    STOP,
    BROKEN,
    Done("stop"),
    Done("length"),
    Done("content_filter"),
    Done("unknown"),
    Done("other", "odd"),
    Done("cancelled"),
]
SIGNATURE = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
CITED = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0}}
PICTURE = "data:image/png;base64,eA=="
SOUND = "data:audio/wav;base64,eA=="

# One of everything, with two calls whose pieces take turns.
EVERYTHING: list[Event] = [
    START,
    Extra({"system_fingerprint": "fp", "filters": [1]}),
    PlainReasoning("I "),
    Extra({}, {}, {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "I "}]}),
    PlainReasoning("think"),
    Extra(
        {}, {}, {"reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "think", "signature": "c2ln"}]}
    ),
    Delta("Hello"),
    Delta(", "),
    Logprobs([{"token": "a"}]),
    Annotation([CITED], ["https://b.example"], [{"url": "https://b.example", "title": "B"}]),
    Delta("world"),
    Media("image", "image/png", PICTURE, "images", {"type": "image_url", "image_url": {"url": PICTURE}}),
    Media("audio", "audio/wav", SOUND, "audio", {"id": "a", "data": "eA==", "transcript": "x"}),
    Media("audio", "audio/wav", SOUND, "audio", {"data": "eA==", "transcript": "y"}),
    Refusal("no"),
    ToolCall(0, "c0", "mcp__", "", "function", SIGNATURE),
    ToolCall(0, "", "get", ""),
    ToolCall(1, "c1", "run", "print(", "custom"),
    ToolCall(0, "", "", '{"a"'),
    ToolCall(1, "", "", "1)", "custom"),
    ToolCall(0, "", "", ":1}"),
    Extra({"provider": "x"}, {"stop_reason": 1}, {"odd": "o", "thinking_blocks": [{"type": "thinking"}]}),
]

# What only a Responses upstream has.
OF_RESPONSES: list[Event] = [
    Extra({}, {}, {"content_parts": [{"type": "output_text", "thought_signature": "c2ln"}]}),
    Extra({}, {}, {"output": [{"type": "message", "id": "m", "phase": "commentary"}]}),
]

_STREAMED = REASONING_FIELDS | {"content", "refusal", "arguments", "input"}

_TEXT = st.text(st.sampled_from("ab é\u2028\n"), min_size=1, max_size=4)
CONTENT = st.lists(
    st.one_of(
        *(st.builds(kind, _TEXT) for kind in (Delta, Delta, Delta, *REASONING, Refusal)),
        st.sampled_from(EVERYTHING[1:] + OF_RESPONSES),
        st.builds(ToolCall, st.integers(0, 2), st.just(""), st.sampled_from(["", "f"]), st.sampled_from(["", "1"])),
    ),
    max_size=12,
)
STREAMS = st.builds(lambda content, end: [START, *content, end], CONTENT, st.sampled_from(ENDS))


def batches(events: Sequence[Event], sizes: Sequence[int], first: int = 1) -> list[Batch]:
    """Return *events* in batches of these *sizes*, the last of which holds for the rest, too."""
    found: list[Batch] = []
    at = 0
    while at < len(events):
        size = sizes[min(len(found), len(sizes) - 1)] if sizes else 1
        found.append(Batch(first + at, events[at : at + size]))
        at += size
    return found


def encoded(encode: Encoder, events: Sequence[Event], sizes: Sequence[int] = (), first: int = 1) -> bytes:
    """Return the bytes for *events*, which begin with record number *first*."""
    return b"".join([encode(batch) for batch in batches(events, sizes, first)])


def rest(encode: Encoder, rest: Sequence[Batch], position: EventId) -> bytes:
    """Return the bytes for the *rest* of the records, for a client that has those up to *position*."""
    sent: list[bytes] = []
    for number, batch in enumerate(rest):
        pieces = encode.pieces(batch)
        sent += [data for data, _ in (after(pieces, position) if position.place and not number else pieces)]
    return b"".join(sent)


def _in_pieces(value: Any) -> Any:
    """Return *value* with the texts that a client joins where `Joined` joins them."""
    if isinstance(value, list):
        return [_in_pieces(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: {"text": inner} if name in _STREAMED and isinstance(inner, str) else _in_pieces(inner)
        for name, inner in value.items()
    }


def native(blocks: Sequence[dict[str, str]]) -> Any:
    """Return what the events of the native dialect say."""
    said = Joined()
    others: list[Any] = []
    for block in blocks:
        name = block["event"]
        data = json.loads(block["data"])
        match name:
            case "delta" | "reasoning" | "refusal":
                said.add({name: _in_pieces(data)})
            case "tool_call":
                said.add({"calls": [_in_pieces(data)]})
            case _:
                others.append((name, data))
    return said.value, others


def openai(blocks: Sequence[dict[str, str]]) -> Any:
    """Return what the chunks of OpenAI's dialect say, put together as its clients do."""
    said = Joined()
    chunks: dict[str, Any] = {}
    last = []
    for block in blocks:
        if block["data"] == "[DONE]":
            last.append("[DONE]")
            continue
        chunk = json.loads(block["data"])
        for choice in chunk.pop("choices", ()):
            said.add(_in_pieces(choice.pop("delta")))
            said.add({"logprobs": choice.pop("logprobs") or {}})
            chunks.update({f"choice.{name}": value for name, value in choice.items() if value is not None})
        chunks.update({name: value for name, value in chunk.items() if value is not None})
    return said.value, chunks, last


def ai_sdk(blocks: Sequence[dict[str, str]]) -> Any:
    """Return the message that the AI SDK makes: the parts in their order, texts and inputs put together."""
    parts: list[Any] = []
    texts: dict[str, list[str]] = {}
    for block in blocks:
        part = {"type": "[DONE]"} if block["data"] == "[DONE]" else json.loads(block["data"])
        if part["type"].endswith("-delta"):
            texts.setdefault(part.get("id") or part["toolCallId"], []).append(
                part.get("delta") or part["inputTextDelta"]
            )
        else:
            parts.append(part)
    return parts, {key: "".join(pieces) for key, pieces in texts.items()}


def responses(blocks: Sequence[dict[str, str]]) -> Any:
    """Return what the events of a response say, each with its number: pieces are joined, and have the last one's."""
    events: list[Any] = []
    pieces: dict[Any, list[Any]] = {}
    for block in blocks:
        event = json.loads(block["data"])
        number = event.pop("sequence_number")
        assert block["event"] == event["type"]
        if not event["type"].endswith(".delta"):
            events.append((number, event))
            continue
        said = pieces.setdefault((event["type"], event["item_id"], event.get("content_index")), ["", [], 0])
        said[0] += event["delta"]
        said[1] += event.get("logprobs", ())
        said[2] = number
    return events, pieces


def ag_ui(blocks: Sequence[dict[str, str]]) -> Any:
    """Return what the events of a run say: texts and arguments are put together where they begin."""
    events: list[Any] = []
    pieces: dict[Any, list[str]] = {}
    for block in blocks:
        event = json.loads(block["data"])
        if event["type"].endswith(("_CONTENT", "_ARGS")):
            name = event.get("messageId") or event["toolCallId"]
            pieces.setdefault(name, []).append(event["delta"])
        else:
            events.append(event)
    return events, {name: "".join(said) for name, said in pieces.items()}


FOLDS: dict[str, Callable[[Sequence[dict[str, str]]], Any]] = {
    "events": native,
    "openai": openai,
    "ai-sdk": ai_sdk,
    "responses": responses,
    "ag-ui": ag_ui,
}


def blocks_of(data: bytes) -> list[dict[str, str]]:
    """Return the fields of each block of *data*."""
    *found, end = data.decode().split("\n\n")
    assert end == ""
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in found]
