"""The native dialect, byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import (
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Media,
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    ToolCall,
)
from app.usage import Usage
from app.wire import Reading
from app.wire.native import EventEncoder, snapshot
from app.wire.transcript import Transcript

CASES: list[tuple[str, Event, bytes]] = [
    ("start", Start("m", 7), b'event: start\ndata: {"stream_id":"S","model":"m","created":7}'),
    ("delta", Delta("Hello"), b'event: delta\ndata: {"content":"Hello"}'),
    ("delta-lines", Delta("a\r\nb\rc\n"), rb"event: delta" + b"\n" + rb'data: {"content":"a\r\nb\rc\n"}'),
    ("delta-unicode", Delta("é 你 👩‍👧"), 'event: delta\ndata: {"content":"é 你 👩‍👧"}'.encode()),
    (
        "delta-separators",
        Delta("\u2028\u2029\x85\x0b\x1c"),
        b'event: delta\ndata: {"content":"\\u2028\\u2029\\u0085\\u000b\\u001c"}',
    ),
    ("delta-nul", Delta("\0"), b'event: delta\ndata: {"content":"\\u0000"}'),
    ("reasoning", Reasoning("hm"), b'event: reasoning\ndata: {"content":"hm"}'),
    ("refusal", Refusal("no"), b'event: refusal\ndata: {"content":"no"}'),
    (
        "tool-first",
        ToolCall(0, "c1", "f", ""),
        b'event: tool_call\ndata: {"index":0,"id":"c1","name":"f","arguments":""}',
    ),
    ("tool-later", ToolCall(0, "", "", '{"a"'), b'event: tool_call\ndata: {"index":0,"arguments":"{\\"a\\""}'),
    (
        "tool-custom",
        ToolCall(1, "c2", "g", "x", "custom", {"extra_content": {"a": "b"}}),
        b'event: tool_call\ndata: {"index":1,"id":"c2","name":"g","arguments":"x","type":"custom",'
        b'"extra":{"extra_content":{"a":"b"}}}',
    ),
    ("reasoning-plain", PlainReasoning("hm"), b'event: reasoning\ndata: {"content":"hm","field":"reasoning"}'),
    (
        "annotation",
        Annotation([{"type": "url_citation"}]),
        b'event: annotation\ndata: {"annotations":[{"type":"url_citation"}]}',
    ),
    (
        "annotation-perplexity",
        Annotation([], ["https://a.example"], [{"url": "https://a.example"}]),
        b'event: annotation\ndata: {"annotations":[],"citations":["https://a.example"],'
        b'"search_results":[{"url":"https://a.example"}]}',
    ),
    (
        "media",
        Media("image", "image/png", "data:image/png;base64,eA=="),
        b'event: media\ndata: {"type":"image","media_type":"image/png","url":"data:image/png;base64,eA=="}',
    ),
    (
        "media-raw",
        Media(
            "audio",
            "audio/wav",
            "data:audio/wav;base64,eA==",
            "audio",
            {"id": "a", "data": "eA==", "transcript": "x y"},
        ),
        b'event: media\ndata: {"type":"audio","media_type":"audio/wav","url":"data:audio/wav;base64,eA==",'
        b'"field":"audio","extra":{"id":"a","transcript":"x y"}}',
    ),
    ("extra", Extra({"system_fingerprint": "fp"}), b'event: extra\ndata: {"chunk":{"system_fingerprint":"fp"}}'),
    (
        "extra-all",
        Extra({"a": 1}, {"b": [2]}, {"c": {"d": None}}),
        b'event: extra\ndata: {"chunk":{"a":1},"choice":{"b":[2]},"delta":{"c":{"d":null}}}',
    ),
    (
        "done",
        Done("stop", None, Usage({"total_tokens": 3}), "m", 4, 9),
        b'event: done\ndata: {"finish_reason":"stop","usage":{"total_tokens":3},"model":"m",'
        b'"first_token_ms":4,"duration_ms":9}',
    ),
    (
        "done-other",
        Done("other", "SAFETY", Usage({"total_tokens": 3}, estimated=True), "m", None, 9),
        b'event: done\ndata: {"finish_reason":"other","raw_finish_reason":"SAFETY",'
        b'"usage":{"total_tokens":3,"estimated":true},"model":"m","first_token_ms":null,"duration_ms":9}',
    ),
    (
        "error",
        Failure("Broke.", "upstream_error", "upstream_truncated", True, 502, usage=Usage({"total_tokens": 1}, True)),
        b'event: error\ndata: {"error":{"message":"Broke.","type":"upstream_error","code":"upstream_truncated",'
        b'"retryable":true},"usage":{"total_tokens":1,"estimated":true}}',
    ),
]


@pytest.mark.parametrize(("event", "block"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_block(event: Event, block: bytes) -> None:
    """Each event is one block: name, one line of data, id; retry rides on the first block of a response."""
    encode = EventEncoder(Reading("S", 2000))
    assert encode(Batch(1, [event])) == b"retry: 2000\n" + block + b"\nid: S-1\n\n"
    assert encode(Batch(2, [event])) == block + b"\nid: S-2\n\n"


def test_batch() -> None:
    """A batch is its blocks, numbered on."""
    encode = EventEncoder(Reading("S", 5))
    assert encode(Batch(9, [Delta("a"), Delta("b")])) == (
        b'retry: 5\nevent: delta\ndata: {"content":"a"}\nid: S-9\n\nevent: delta\ndata: {"content":"b"}\nid: S-10\n\n'
    )


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_survives_any_line_reader(text: str) -> None:
    """Whatever the text, a block has its four lines, even for readers that cut at every Unicode line end."""
    block = EventEncoder(Reading("S", 1))(Batch(1, [Delta(text)])).decode()
    lines = block.splitlines()
    assert lines == block.split("\n")[:-1]
    assert len(lines) == 5
    assert json.loads(lines[2].removeprefix("data: "))["content"] == text


def test_a_reader_that_is_behind() -> None:
    """For a reader far enough behind, neighbouring texts of a kind are one event with the last one's id."""
    call = ToolCall(0, "c", "f", "{}")
    batch = Batch(3, [Reasoning("x"), Reasoning("y"), Delta("a"), Delta("b"), Delta("c"), call, call, Delta("d")])
    near, far = EventEncoder(Reading("S", 5, merge_after=9))(batch), EventEncoder(Reading("S", 5, merge_after=8))(batch)
    assert near == EventEncoder(Reading("S", 5))(batch)
    blocks = [block.split("\n") for block in far.decode().removeprefix("retry: 5\n").split("\n\n")[:-1]]
    assert [block[2] for block in blocks] == ["id: S-4", "id: S-7", "id: S-8", "id: S-9", "id: S-10"]
    contents = [json.loads(block[1].removeprefix("data: ")).get("content") for block in blocks]
    assert contents == ["xy", "abc", None, None, "d"]


def test_a_single_record_is_never_merged() -> None:
    """One record is one event, even for a reader that is behind by one."""
    assert EventEncoder(Reading("S", 5, merge_after=1))(Batch(1, [Delta("a")])).count(b"event:") == 1


def shown(*events: Event) -> dict[str, Any]:
    """Return the snapshot of a stream that has *events* so far."""
    found: dict[str, Any] = json.loads(snapshot("S", Transcript.of(events)))
    return found


def test_snapshot_of_nothing() -> None:
    """A stream without a record is live, and there is no position in it."""
    assert shown() == {
        "stream_id": "S",
        "state": "live",
        "model": None,
        "created": None,
        "finish_reason": None,
        "content": "",
        "reasoning": "",
        "refusal": "",
        "tool_calls": [],
        "annotations": [],
        "media": [],
        "extra": {},
        "usage": None,
        "error": None,
        "last_event_id": None,
    }


def test_snapshot_of_a_live_stream() -> None:
    """A live stream shows its texts, each kind apart, its calls put together, and the id to go on after."""
    found = shown(
        Start("m", 7),
        Reasoning("h"),
        Reasoning("m"),
        Delta("a"),
        ToolCall(0, "c", "f", "{"),
        ToolCall(1, "d", "g", ""),
        ToolCall(0, "", "", "}"),
        Refusal("no"),
        Delta("b"),
    )
    assert (found["state"], found["model"], found["created"], found["last_event_id"]) == ("live", "m", 7, "S-9")
    assert (found["content"], found["reasoning"], found["refusal"]) == ("ab", "hm", "no")
    assert found["tool_calls"] == [
        {"index": 0, "id": "c", "name": "f", "arguments": "{}"},
        {"index": 1, "id": "d", "name": "g", "arguments": ""},
    ]


def test_snapshot_of_what_is_not_text() -> None:
    """Notes, media and other fields are in a snapshot; what came in pieces is put together."""
    found = shown(
        Start("m", 7),
        PlainReasoning("h"),
        Extra({"provider": "x"}, {}, {"reasoning_details": [{"index": 0, "text": "h"}]}),
        PlainReasoning("m"),
        Extra({}, {}, {"reasoning_details": [{"index": 0, "text": "m", "signature": "c2ln"}]}),
        Annotation([{"a": 1}], ["u"]),
        Annotation([{"a": 2}]),
        Media("image", "image/png", "u"),
        ToolCall(0, "c", "f_", "{", "function", {"extra_content": {"google": {"thought_signature": "x"}}}),
        ToolCall(0, "", "g", "}"),
    )
    assert found["reasoning"] == "hm"
    assert found["extra"] == {
        "chunk": {"provider": "x"},
        "delta": {"reasoning_details": [{"index": 0, "text": "hm", "signature": "c2ln"}]},
    }
    assert (found["annotations"], found["citations"]) == ([{"a": 1}, {"a": 2}], ["u"])
    assert found["media"] == [{"type": "image", "media_type": "image/png", "url": "u"}]
    [call] = found["tool_calls"]
    assert (call["name"], call["arguments"]) == ("f_g", "{}")
    assert call["extra"] == {"extra_content": {"google": {"thought_signature": "x"}}}


def test_snapshot_of_an_answer() -> None:
    """An ended stream has its finish reason, its usage, and the upstream's name of the model."""
    found = shown(Start("m", 7), Delta("a"), Done("stop", usage=Usage({"total_tokens": 1}, True), model="real"))
    assert (found["state"], found["finish_reason"], found["model"]) == ("done", "stop", "real")
    assert found["usage"] == {"total_tokens": 1, "estimated": True}
    assert found["error"] is None


def test_snapshot_of_a_failure() -> None:
    """A failed stream has its error, in the form of the error event, and the text until then."""
    found = shown(Start("m", 7), Delta("a"), Failure("Broke.", "t", "c", True, 502))
    assert (found["state"], found["content"]) == ("error", "a")
    assert found["error"] == {"message": "Broke.", "type": "t", "code": "c", "retryable": True}
