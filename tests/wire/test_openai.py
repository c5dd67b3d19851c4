"""OpenAI's dialect, byte for byte, and against OpenAI's own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.errors import Disconnected
from app.events import (
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    ReasoningText,
    Refusal,
    Start,
    ToolCall,
)
from app.usage import Usage
from app.wire import Reading
from app.wire.openai import ChunkEncoder, completion, failure_of
from app.wire.transcript import Transcript
from tests.wire import strict
from tests.wire.blocks import blocks

START = Start("gpt", 1_750_000_000)
COUNTS = Usage({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
STOP = Done("stop", usage=COUNTS, model="gpt-2026")
BROKEN = Failure.of(Disconnected(), COUNTS)
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": None}]}
HEAD = b'data: {"id":"chatcmpl-S","object":"chat.completion.chunk","created":1750000000,"model":"gpt","choices":['


def encoded(*events: Event, alone: bool = True, merge_after: int = 100, include_usage: bool = False) -> bytes:
    """Return the bytes of a whole stream, each record *alone* in its batch or all in one."""
    encode = ChunkEncoder(Reading("S", merge_after=merge_after, include_usage=include_usage))
    if alone:
        return b"".join(encode(Batch(seq, [event])) for seq, event in enumerate(events, 1))
    return encode(Batch(1, events))


def whole(*events: Event) -> dict[str, Any]:
    """Return the completion that *events* make."""
    return completion("S", Transcript.of(events))


def payloads(data: bytes) -> list[Any]:
    """Take the blocks apart; `[DONE]` stays as it is."""
    return [json.loads(content) if content != "[DONE]" else content for content, _ in blocks(data)]


def deltas(data: bytes) -> list[dict[str, Any]]:
    return [item["choices"][0]["delta"] for item in payloads(data) if item != "[DONE]"]


def test_the_bytes() -> None:
    """A stream is its role, its texts, its finish and `[DONE]`, each in a line of data with its position."""
    assert encoded(START, Delta("Hello"), STOP) == (
        HEAD + b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
        b'"logprobs":null,"finish_reason":null}]}\nid: S-1\n\n'
        + HEAD
        + b'{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}\nid: S-2\n\n'
        + HEAD
        + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\nid: S-3.1\n\n'
        b"data: [DONE]\nid: S-3\n\n"
    )


def test_usage_where_it_was_asked_for() -> None:
    """With `include_usage`, one chunk without choices has it, and all others say null, as OpenAI's do."""
    *chunks, last, done = payloads(encoded(START, Delta("a"), STOP, include_usage=True))
    assert (last["choices"], last["usage"], done) == ([], COUNTS.fields, "[DONE]")
    assert [item["usage"] for item in chunks] == [None] * 3
    assert b"usage" not in encoded(START, Delta("a"), STOP)


def test_an_estimate_says_so() -> None:
    """Usage that this service counted is marked as an estimate, in chunks and in a completion."""
    done = replace(STOP, usage=replace(COUNTS, estimated=True))
    assert payloads(encoded(START, done, include_usage=True))[-2]["usage"]["estimated"] is True
    assert whole(START, done)["usage"]["estimated"] is True


@pytest.mark.parametrize(
    ("reason", "shown"),
    [(reason, reason) for reason in ("stop", "length", "content_filter", "tool_calls")]
    + [("unknown", "stop"), ("other", "stop")],
)
def test_finish_reasons(reason: str, shown: str) -> None:
    """OpenAI's reasons are shown as they are; those that it lacks are an ordinary stop."""
    done = replace(STOP, finish_reason=reason)
    assert payloads(encoded(START, done))[-2]["choices"][0]["finish_reason"] == shown
    assert whole(START, done)["choices"][0]["finish_reason"] == shown


@pytest.mark.parametrize(
    ("end", "code"), [(BROKEN, "upstream_disconnected"), (replace(STOP, finish_reason="cancelled"), "cancelled")]
)
def test_no_success(end: Done | Failure, code: str) -> None:
    """What broke, or was stopped, ends with an error that SDKs raise, and without `[DONE]`."""
    failed = failure_of(end)
    assert failed is not None
    assert failed.code == code
    *_, last = payloads(encoded(START, Delta("a"), end, include_usage=True))
    assert last == {
        "error": {
            "message": failed.message,
            "type": failed.type,
            "code": code,
            "retryable": failed.retryable,
            "param": None,
            "service_code": code,
        }
    }


def test_a_failure_before_the_start() -> None:
    """A stream that failed at once is one error."""
    assert [list(item) for item in payloads(encoded(BROKEN))] == [["error"]]


def test_dismissal() -> None:
    """A reader that is sent away gets an error: it would take the end of the body for the end of the answer."""
    last = json.loads(ChunkEncoder(Reading("S")).dismissal(5).removeprefix(b"data: "))
    assert (last["error"]["code"], last["error"]["retryable"]) == ("shutting_down", True)


def test_tool_calls() -> None:
    """A call's first piece has its id, type and name; later ones have nothing that a client would join to those."""
    pieces: list[Event] = [ToolCall(0, "c0", "f", ""), ToolCall(0, "", "", '{"a"'), ToolCall(1, "c1", "g", "{}")]
    pieces.append(ToolCall(0, "", "", ":1}"))
    found = [delta["tool_calls"] for delta in deltas(encoded(START, *pieces, STOP)) if "tool_calls" in delta]
    assert found == [
        [{"index": 0, "id": "c0", "type": "function", "function": {"name": "f", "arguments": ""}}],
        [{"index": 0, "function": {"arguments": '{"a"'}}],
        [{"index": 1, "id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}}],
        [{"index": 0, "function": {"arguments": ":1}"}}],
    ]
    message = whole(START, *pieces, STOP)["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c0", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
        {"id": "c1", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_a_call_without_an_id() -> None:
    """A call without an id gets one, the same in both forms, because a tool's output has to name it."""
    pieces: list[Event] = [ToolCall(0, "", "", "{"), ToolCall(0, "", "f", "}"), ToolCall(1, "", "g", "")]
    found = [piece for delta in deltas(encoded(START, *pieces, STOP)) for piece in delta.get("tool_calls", ())]
    assert [piece.get("id") for piece in found] == ["call_S_0", None, "call_S_1"]
    assert [piece["function"].get("name") for piece in found] == ["", "f", "g"]
    calls = whole(START, *pieces, STOP)["choices"][0]["message"]["tool_calls"]
    assert [(call["id"], call["function"]["name"]) for call in calls] == [("call_S_0", "f"), ("call_S_1", "g")]


def test_logprobs_ride_with_their_text() -> None:
    """A text and its log probabilities are one chunk; where they came apart, both still come."""
    told = Logprobs([TOKEN])
    events: list[Event] = [START, Delta("a"), told, Refusal("b"), Logprobs((), [TOKEN]), STOP]
    together, apart = payloads(encoded(*events, alone=False)), payloads(encoded(*events))
    assert [item["choices"][0]["logprobs"] for item in together[:-1]] == [
        None,
        {"content": [TOKEN], "refusal": None},
        {"content": None, "refusal": [TOKEN]},
        None,
    ]
    assert [item["choices"][0]["delta"] for item in apart[1:5]] == [{"content": "a"}, {}, {"refusal": "b"}, {}]
    assert [item["choices"][0]["logprobs"] for item in apart[1:5]] == [
        None,
        {"content": [TOKEN], "refusal": None},
        None,
        {"content": None, "refusal": [TOKEN]},
    ]
    assert whole(*events)["choices"][0]["logprobs"] == {"content": [TOKEN], "refusal": [TOKEN]}


def test_other_texts() -> None:
    """Reasoning and refusal have fields of their own, and never mix into the content."""
    events: list[Event] = [START, Reasoning("why"), Reasoning("?"), Delta("a"), Refusal("no"), STOP]
    assert deltas(encoded(*events))[1:-1] == [
        {"reasoning_content": "why"},
        {"reasoning_content": "?"},
        {"content": "a"},
        {"refusal": "no"},
    ]
    message = whole(*events)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "a", "refusal": "no", "reasoning_content": "why?"}


def test_reasoning_keeps_its_name() -> None:
    """Reasoning stands in the field that the upstream has for it, in chunks and in a completion."""
    events: list[Event] = [START, PlainReasoning("why"), PlainReasoning("?"), STOP]
    assert deltas(encoded(*events))[1:-1] == [{"reasoning": "why"}, {"reasoning": "?"}]
    message = whole(*events)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "refusal": None, "reasoning": "why?"}


def test_reasoning_of_a_third_name() -> None:
    """It stands in the field that clients know, too."""
    events: list[Event] = [START, ReasoningText("why"), STOP]
    both = {"reasoning": "why", "reasoning_text": "why"}
    assert deltas(encoded(*events))[1:-1] == [both]
    assert whole(*events)["choices"][0]["message"] == {"role": "assistant", "content": "", "refusal": None, **both}


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


def test_a_name_in_pieces_and_what_else_a_call_has() -> None:
    """The pieces of a name are joined by the client; other fields of a call, and of its function, stand in it."""
    pieces: list[Event] = [
        ToolCall(0, "c", "mcp__", "", "function", SIGNED),
        ToolCall(0, "", "get", ""),
        ToolCall(0, "", "", "{}", "function", {"function": {"odd": 1, "arguments": "no"}, "id": "no"}),
    ]
    found = [delta["tool_calls"][0] for delta in deltas(encoded(START, *pieces, STOP)) if "tool_calls" in delta]
    assert found == [
        {"index": 0, "id": "c", "type": "function", "function": {"name": "mcp__", "arguments": ""}, **SIGNED},
        {"index": 0, "function": {"name": "get", "arguments": ""}},
        {"index": 0, "function": {"odd": 1, "arguments": "{}"}},
    ]
    [call] = whole(START, *pieces, STOP)["choices"][0]["message"]["tool_calls"]
    assert call == {
        "id": "c",
        "type": "function",
        "function": {"name": "mcp__get", "arguments": "{}", "odd": 1},
        **SIGNED,
    }


def test_custom_calls() -> None:
    """A custom call has an input instead of arguments."""
    pieces: list[Event] = [ToolCall(0, "c", "run", "print(", "custom"), ToolCall(0, "", "", "1)", "custom")]
    found = [delta["tool_calls"][0] for delta in deltas(encoded(START, *pieces, STOP)) if "tool_calls" in delta]
    assert found == [
        {"index": 0, "id": "c", "type": "custom", "custom": {"name": "run", "input": "print("}},
        {"index": 0, "custom": {"input": "1)"}},
    ]
    assert whole(START, *pieces, STOP)["choices"][0]["message"]["tool_calls"] == [
        {"id": "c", "type": "custom", "custom": {"name": "run", "input": "print(1)"}}
    ]


def test_a_function_of_the_upstreams() -> None:
    """A call has the type that the upstream gave it."""
    own = {"type": "builtin_function"}
    pieces: list[Event] = [ToolCall(0, "c", "$web_search", "{", "function", own), ToolCall(0, "", "", "}")]
    found = [delta["tool_calls"][0] for delta in deltas(encoded(START, *pieces, STOP)) if "tool_calls" in delta]
    assert found == [
        {"index": 0, "id": "c", **own, "function": {"name": "$web_search", "arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
    ]
    assert whole(START, *pieces, STOP)["choices"][0]["message"]["tool_calls"] == [
        {"id": "c", **own, "function": {"name": "$web_search", "arguments": "{}"}}
    ]


CITED = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}


def test_notes() -> None:
    """Annotations stand in the delta and the message; Perplexity's citations and results in the chunk."""
    events: list[Event] = [START, Delta("a"), Annotation([CITED]), Annotation([], ["u"], [{"url": "u"}]), STOP]
    _, _, first, second, *_ = payloads(encoded(*events))
    assert first["choices"][0]["delta"] == {"annotations": [CITED]}
    assert (second["choices"][0]["delta"], second["citations"], second["search_results"]) == ({}, ["u"], [{"url": "u"}])
    answer = whole(*events)
    assert answer["choices"][0]["message"]["annotations"] == [CITED]
    assert (answer["citations"], answer["search_results"]) == (["u"], [{"url": "u"}])


def test_notes_of_responses() -> None:
    """A citation of a URL gets the form of chat completions; what has none is beside the annotations."""
    flat = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    page = {"type": "file_citation", "file_id": "f", "index": 1}
    events: list[Event] = [START, Delta("a"), Annotation([flat, page]), STOP]
    _, _, notes, *_ = payloads(encoded(*events))
    message = whole(*events)["choices"][0]["message"]
    for said in (notes["choices"][0]["delta"], message):
        facts = {"url": "u", "title": "t", "start_index": 0, "end_index": 1}
        assert said["annotations"] == [{"type": "url_citation", "url_citation": facts}]
        assert said["other_annotations"] == [page]


PICTURE = "data:image/png;base64,eA=="
DRAWN = {"type": "image_url", "image_url": {"url": PICTURE}, "index": 0}
MEDIA: dict[str, tuple[list[Media], list[dict[str, Any]], dict[str, Any]]] = {
    "images, verbatim": (
        [Media("image", "image/png", PICTURE, "images", DRAWN)],
        [{"images": [DRAWN]}],
        {"images": [DRAWN]},
    ),
    "an image from elsewhere": (
        [Media("image", "image/png", PICTURE)],
        [{"images": [{"type": "image_url", "image_url": {"url": PICTURE}}]}],
        {"images": [{"type": "image_url", "image_url": {"url": PICTURE}}]},
    ),
    "a sound in pieces": (
        [
            Media(
                "audio",
                "audio/wav",
                "data:audio/wav;base64,eA==",
                "audio",
                {"id": "a", "data": "eA==", "transcript": "x"},
            ),
            Media(
                "audio",
                "audio/wav",
                "data:audio/wav;base64,eQ==",
                "audio",
                {"data": "eQ==", "transcript": "y", "expires_at": 1},
            ),
        ],
        [
            {"audio": {"id": "a", "data": "eA==", "transcript": "x"}},
            {"audio": {"data": "eQ==", "transcript": "y", "expires_at": 1}},
        ],
        {"audio": {"id": "a", "data": "eHk=", "transcript": "xy", "expires_at": 1}},
    ),
    "a sound cut anywhere": (
        [Media("audio", "audio/wav", f"data:audio/wav;base64,{piece}", "audio") for piece in ("e", "Hk=")],
        [{"audio": {"data": "e"}}, {"audio": {"data": "Hk="}}],
        {"audio": {"data": "eHk="}},
    ),
    "a sound from elsewhere": (
        [Media("audio", "audio/wav", "data:audio/wav;base64,eA==")],
        [{"audio": {"data": "eA=="}}],
        {"audio": {"data": "eA=="}},
    ),
    "a field that is one object": (
        [Media("file", "video/mp4", "https://a.example/a.mp4", "video", {"url": "https://a.example/a.mp4"})],
        [{"video": {"url": "https://a.example/a.mp4"}}],
        {"video": {"url": "https://a.example/a.mp4"}},
    ),
    "two in a field that is one object": (
        [Media("image", "image/png", url, "image", {"url": url}) for url in ("a://a", "b://b")],
        [{"image": {"url": "a://a"}}, {"image": {"url": "b://b"}}],
        {"image": [{"url": "a://a"}, {"url": "b://b"}]},
    ),
    "a link to a sound": (
        [Media("audio", "audio/wav", "https://a.example/a.wav", "audio")],
        [{"audio": {"url": "https://a.example/a.wav"}}],
        {"audio": {"url": "https://a.example/a.wav"}},
    ),
    "a file": (
        [Media("file", "text/plain", "https://a.example/a.txt")],
        [{"files": [{"type": "file", "file": {"file_data": "https://a.example/a.txt"}}]}],
        {"files": [{"type": "file", "file": {"file_data": "https://a.example/a.txt"}}]},
    ),
}


@pytest.mark.parametrize(("media", "pieces", "fields"), MEDIA.values(), ids=MEDIA)
def test_media(media: list[Media], pieces: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    """Images, sounds and files stand where the upstream had put them, in chunks and in a completion."""
    assert deltas(encoded(START, *media, STOP))[1:-1] == pieces
    message = whole(START, *media, STOP)["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "", "refusal": None, **fields}


def test_media_in_the_content() -> None:
    """Parts of the content that are not text are parts of it here, too, at their places between the texts."""
    part = {"type": "image_url", "image_url": {"url": PICTURE}}
    events: list[Event] = [
        START,
        Delta("a"),
        Delta("b"),
        Media("image", "image/png", PICTURE, "content", part),
        Delta("c"),
        STOP,
    ]
    assert deltas(encoded(*events))[1:-1] == [{"content": "a"}, {"content": "b"}, {"content": [part]}, {"content": "c"}]
    assert whole(*events)["choices"][0]["message"]["content"] == [
        {"type": "text", "text": "ab"},
        part,
        {"type": "text", "text": "c"},
    ]


DETAIL = {"type": "reasoning.text", "index": 0}


def test_other_fields() -> None:
    """Fields without a word of this service's are in the chunk, the choice and the delta, with what they came with."""
    events: list[Event] = [
        START,
        Extra({"system_fingerprint": "fp", "filters": [1]}),
        PlainReasoning("a"),
        Extra({}, {}, {"reasoning_details": [DETAIL | {"text": "a"}]}),
        PlainReasoning("b"),
        Extra({}, {}, {"reasoning_details": [DETAIL | {"text": "b", "signature": "s"}]}),
        Delta("x"),
        Extra({"provider": "p"}, {"stop_reason": 5}),
        STOP,
    ]
    *chunks, done = payloads(encoded(*events, alone=False))
    assert done == "[DONE]"
    assert [chunk["choices"][0]["delta"] for chunk in chunks[1:]] == [
        {"reasoning": "a", "reasoning_details": [DETAIL | {"text": "a"}]},
        {"reasoning": "b", "reasoning_details": [DETAIL | {"text": "b", "signature": "s"}]},
        {"content": "x"},
        {},
    ]
    assert [chunk.get("system_fingerprint") for chunk in chunks] == ["fp"] * 5
    assert [chunk.get("provider") for chunk in chunks] == [None, None, None, "p", "p"]
    assert [chunk.get("filters") for chunk in chunks] == [[1], None, None, None, None]
    assert [chunk["choices"][0].get("stop_reason") for chunk in chunks] == [None, None, None, 5, None]
    answer = whole(*events)
    assert (answer["system_fingerprint"], answer["provider"], answer["filters"]) == ("fp", "p", [1])
    assert answer["choices"][0]["stop_reason"] == 5
    message = answer["choices"][0]["message"]
    assert message["reasoning_details"] == [DETAIL | {"text": "ab", "signature": "s"}]


def test_other_fields_that_come_alone() -> None:
    """Such fields are in a chunk of their own if what they came with has gone out."""
    found = payloads(encoded(START, Delta("x"), Extra({"provider": "p"}, {"c": 1}, {"d": [1]}), STOP))
    assert found[2]["choices"][0] == {"index": 0, "delta": {"d": [1]}, "logprobs": None, "finish_reason": None, "c": 1}
    assert found[2]["provider"] == "p"


def test_what_is_repeated_has_a_bound() -> None:
    """A field of the chunks is in each of them as long as it is short; what is long, or was replaced by that, once."""
    long = "x" * 300
    events: list[Event] = [
        START,
        Extra({"a": "1"}),
        Delta("x"),
        Extra({"b": long}),
        Extra({"a": long}),
        Delta("y"),
        STOP,
    ]
    *chunks, _ = payloads(encoded(*events))
    assert [chunk.get("b") for chunk in chunks] == [None, None, None, long, None, None, None]
    assert [chunk.get("a") for chunk in chunks] == [None, "1", "1", "1", long, None, None]
    assert whole(*events)["a"] == long


def test_other_fields_never_stand_for_ours() -> None:
    """A field of the upstream's does not take the place of one that this service writes."""
    taken = Extra({"id": "x", "choices": [], "error": {}}, {"delta": {}, "finish_reason": "x"}, {"content": "x"})
    for found in payloads(encoded(START, Delta("a"), taken, STOP, alone=False))[:-1]:
        assert (found["id"], "error" in found) == ("chatcmpl-S", False)
        assert found["choices"][0]["delta"].get("content") in ("", "a", None)
        assert found["choices"][0]["finish_reason"] in (None, "stop")
    answer = whole(START, Delta("a"), taken, STOP)
    assert (answer["id"], answer["choices"][0]["message"]["content"]) == ("chatcmpl-S", "a")


def test_a_reason_that_openai_does_not_have() -> None:
    """The upstream's own word stands beside it."""
    done = replace(STOP, finish_reason="other", raw_reason="odd")
    last = payloads(encoded(START, done))[-2]["choices"][0]
    assert (last["finish_reason"], last["native_finish_reason"]) == ("stop", "odd")
    assert whole(START, done)["choices"][0]["native_finish_reason"] == "odd"


@pytest.mark.parametrize(("said", "content"), [([], ""), ([Refusal("no")], None), ([ToolCall(0, "c", "f", "")], None)])
def test_no_content(said: Sequence[Event], content: str | None) -> None:
    """A completion's content is null where there is something instead of it, and else a text."""
    assert whole(START, *said, STOP)["choices"][0]["message"]["content"] == content


def test_a_completion_names_who_answered() -> None:
    """The model of a completion is the upstream's own name for it, if the upstream gave one."""
    assert whole(START, STOP)["model"] == "gpt-2026"
    assert whole(START, replace(STOP, model=""))["model"] == "gpt"


def test_a_reader_that_is_behind() -> None:
    """For a reader far enough behind, neighbouring texts of a kind are one chunk."""
    events: list[Event] = [
        START,
        Reasoning("x"),
        Reasoning("y"),
        Delta("a"),
        Delta("b"),
        ToolCall(0, "c", "f", ""),
        Delta("d"),
    ]
    near, far = encoded(*events, alone=False, merge_after=8), encoded(*events, alone=False, merge_after=7)
    assert near == encoded(*events)
    assert [delta.get("content") for delta in deltas(far)] == ["", None, "ab", None, "d"]
    assert deltas(far)[1] == {"reasoning_content": "xy"}


@given(st.text(st.characters(codec="utf-8")))
def test_any_text_survives_any_line_reader(text: str) -> None:
    """Whatever the text, a block is two lines, even for readers that cut at every Unicode line end."""
    data = encoded(START, Delta(text)).decode()
    assert data.splitlines() == data.split("\n")[:-1]
    assert deltas(data.encode())[1] == {"content": text}


def test_the_yardstick() -> None:
    """What OpenAI does not have, or has as something else, does not pass for its own."""
    good = payloads(encoded(START))[0]
    strict.chunk(good)
    for more in ({"x": 1}, {"object": "chunk"}, {"created": "1"}, {"choices": [good["choices"][0] | {"x": 1}]}):
        with pytest.raises((AssertionError, ValidationError)):
            strict.chunk(good | more)


texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5)
counted = st.builds(Usage, st.just(COUNTS.fields), st.booleans())
said = st.lists(
    st.one_of(
        st.builds(Delta, texts),
        st.builds(Reasoning, texts),
        st.builds(Refusal, texts),
        st.builds(lambda arguments: ToolCall(0, "c", "f", arguments), texts),
        st.builds(lambda tokens: Logprobs(tokens), st.lists(st.just(TOKEN), min_size=1, max_size=2)),
    ),
    max_size=6,
)
ends = st.builds(
    lambda reason, usage: replace(STOP, finish_reason=reason, usage=usage),
    st.sampled_from(["stop", "length", "content_filter", "tool_calls", "unknown", "other"]),
    counted,
)


@given(said, ends, st.booleans(), st.booleans(), st.sampled_from([2, 100]))
def test_nothing_but_openais_own(
    content: list[Event], end: Done, include_usage: bool, alone: bool, merge_after: int
) -> None:
    """Every chunk and completion is OpenAI's to the letter, except for the two fields that the docstring names.

    And put together, the chunks are the completion.
    """
    events: list[Event] = [START, *content, end]
    *chunks, done = payloads(encoded(*events, alone=alone, include_usage=include_usage, merge_after=merge_after))
    assert done == "[DONE]"
    read = [strict.chunk(item) for item in chunks]
    answer = strict.completion(whole(*events)).choices[0]
    choices = [choice for chunk in read for choice in chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == (answer.message.content or "")
    assert "".join(choice.delta.refusal or "" for choice in choices) == (answer.message.refusal or "")
    pieces = [piece for choice in choices for piece in choice.delta.tool_calls or ()]
    calls = answer.message.tool_calls or []
    assert len([piece for piece in pieces if piece.id]) == len(calls)
    for call in calls:
        assert call.type == "function"
        assert call.function.arguments == "".join(
            piece.function.arguments or "" for piece in pieces if piece.function is not None
        )
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content or ()]
    assert tokens == ((answer.logprobs.content or []) if answer.logprobs else [])
    assert choices[-1].finish_reason == answer.finish_reason
