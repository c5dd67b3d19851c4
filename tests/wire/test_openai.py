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
from app.events import Batch, Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, ToolCall
from app.usage import Usage
from app.wire import Reading
from app.wire.openai import ChunkEncoder, completion, failure_of
from app.wire.transcript import Transcript
from tests.wire import strict

START = Start("gpt", 1_750_000_000)
COUNTS = Usage({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3})
STOP = Done("stop", usage=COUNTS, model="gpt-2026")
BROKEN = Failure.of(Disconnected(), COUNTS)
TOKEN = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [{"token": "a", "logprob": -0.5, "bytes": None}]}
HEAD = b'data: {"id":"chatcmpl-S","object":"chat.completion.chunk","created":1750000000,"model":"gpt","choices":['


def encoded(*events: Event, alone: bool = True, merge_after: int = 100, include_usage: bool = False) -> bytes:
    """Return the bytes of a whole stream, each record *alone* in its batch or all in one."""
    encode = ChunkEncoder(Reading("S", merge_after=merge_after), include_usage=include_usage)
    if alone:
        return b"".join(encode(Batch(seq, [event])) for seq, event in enumerate(events, 1))
    return encode(Batch(1, events))


def whole(*events: Event) -> dict[str, Any]:
    """Return the completion that *events* make."""
    return completion("S", Transcript.of(events))


def payloads(data: bytes) -> list[Any]:
    """Take the blocks apart; `[DONE]` stays as it is."""
    *blocks, end = data.decode().split("\n\n")
    assert end == ""
    texts = [block.removeprefix("data: ") for block in blocks]
    assert all(block == f"data: {text}" and "\n" not in text for block, text in zip(blocks, texts, strict=True))
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def deltas(data: bytes) -> list[dict[str, Any]]:
    return [item["choices"][0]["delta"] for item in payloads(data) if item != "[DONE]"]


def test_the_bytes() -> None:
    """A stream is its role, its texts, its finish and `[DONE]`, in data lines and nothing else."""
    assert encoded(START, Delta("Hello"), STOP) == (
        HEAD + b'{"index":0,"delta":{"role":"assistant","content":"","refusal":null},'
        b'"logprobs":null,"finish_reason":null}]}\n\n'
        + HEAD
        + b'{"index":0,"delta":{"content":"Hello"},"logprobs":null,"finish_reason":null}]}\n\n'
        + HEAD
        + b'{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}\n\n'
        b"data: [DONE]\n\n"
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
        }
    }


def test_a_failure_before_the_start() -> None:
    """A stream that failed at once is one error."""
    assert [list(item) for item in payloads(encoded(BROKEN))] == [["error"]]


def test_dismissal() -> None:
    """A reader that is sent away gets an error: it would take the end of the body for the end of the answer."""
    (last,) = payloads(ChunkEncoder(Reading("S")).dismissal(5))
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
    """Whatever the text, a block is one line, even for readers that cut at every Unicode line end."""
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
    """Every chunk and completion is OpenAI's to the letter but for the two fields that the docstring names.

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
