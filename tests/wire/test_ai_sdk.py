"""Vercel's dialect, part for part. That the real `ai` package takes them all is shown in tests/real/test_ai_sdk.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import Batch, Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, ToolCall
from app.usage import Usage
from app.wire import Reading
from app.wire.ai_sdk import UIMessageEncoder

READING = Reading("S")
START = Start("m", 7)
STOP = Done("stop", None, Usage({"total_tokens": 3}), "m-1", 4, 9)
BROKEN = Failure("Broke.", "upstream_error", "upstream_truncated", True, 502, usage=Usage({"total_tokens": 1}, True))
OPENING = [{"type": "start", "messageId": "S"}, {"type": "start-step"}]
CLOSING = [
    {"type": "finish-step"},
    {"type": "finish", "finishReason": "stop", "messageMetadata": {"usage": {"total_tokens": 3}, "model": "m-1"}},
    "[DONE]",
]


def parts(data: bytes) -> list[Any]:
    """Return what the blocks of *data* carry, each of which is one line of data and nothing else."""
    blocks = data.decode().split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    found = [block.removeprefix("data: ") for block in blocks]
    return [part if part == "[DONE]" else json.loads(part) for part in found]


def encoded(*events: Event, **options: Any) -> list[Any]:
    """Return the parts of a stream that is read record by record; read at once, it has the same."""
    encode, at_once = UIMessageEncoder(READING, **options), UIMessageEncoder(READING, **options)
    found = parts(b"".join(encode(Batch(seq, [event])) for seq, event in enumerate(events, 1)))
    assert parts(at_once(Batch(1, events))) == found
    return found


def text(kind: str, number: int, *deltas: str, **metadata: Any) -> list[dict[str, Any]]:
    """Return a text part: its start, its pieces, its end."""
    pieces = [{"type": f"{kind}-delta", "id": str(number), "delta": delta} for delta in deltas]
    return [
        {"type": f"{kind}-start", "id": str(number), **metadata},
        *pieces,
        {"type": f"{kind}-end", "id": str(number)},
    ]


def test_text() -> None:
    """An answer is one text part in one step, in a message that has the stream's id."""
    assert encoded(START, Delta("Hel"), Delta("lo"), STOP) == [*OPENING, *text("text", 1, "Hel", "lo"), *CLOSING]


def test_nothing() -> None:
    """An answer without a text has no text part."""
    assert encoded(START, STOP) == [*OPENING, *CLOSING]


def test_kinds_take_turns() -> None:
    """One part is open at a time, and another kind of text is another part with an id of its own."""
    events = (Reasoning("hm"), Reasoning("m"), Delta("a"), Reasoning("x"), Delta("b"), Refusal("no"))
    refusal = {"providerMetadata": {"chat-sse": {"refusal": True}}}
    assert encoded(START, *events, STOP) == [
        *OPENING,
        *text("reasoning", 1, "hm", "m"),
        *text("text", 2, "a"),
        *text("reasoning", 3, "x"),
        *text("text", 4, "b"),
        *text("text", 5, "no", **refusal),
        *CLOSING,
    ]


def test_log_probabilities_are_left_out() -> None:
    """Log probabilities send nothing, and do not come between a text and its next piece."""
    logprobs = Logprobs(({"token": "a"},))
    events = (START, Delta("a"), logprobs, Delta("b"), logprobs, STOP)
    assert encoded(*events) == [*OPENING, *text("text", 1, "a", "b"), *CLOSING]


def calls(*pieces: ToolCall) -> list[Any]:
    """Return what *pieces* become, between the start of the step and its end."""
    found = encoded(START, *pieces, STOP)
    assert found[:2] == OPENING
    assert found[-3:] == CLOSING
    return found[2:-3]


def tool(type_: str, call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"tool-input-{type_}", "toolCallId": call_id, **fields}


def test_parallel_calls() -> None:
    """Pieces of parallel calls may take turns. What they call for is available when the answer is whole, in order."""
    pieces = (
        ToolCall(0, "c0", "f", ""),
        ToolCall(1, "c1", "g", "[1"),
        ToolCall(0, "", "", '{"a"'),
        ToolCall(1, "", "", "]"),
        ToolCall(0, "", "", ': "é"}'),
    )
    assert calls(*pieces) == [
        tool("start", "c0", toolName="f"),
        tool("start", "c1", toolName="g"),
        tool("delta", "c1", inputTextDelta="[1"),
        tool("delta", "c0", inputTextDelta='{"a"'),
        tool("delta", "c1", inputTextDelta="]"),
        tool("delta", "c0", inputTextDelta=': "é"}'),
        tool("available", "c0", toolName="f", input={"a": "é"}),
        tool("available", "c1", toolName="g", input=[1]),
    ]


def test_a_call_ends_a_text() -> None:
    """A text before a call and one after it are two parts."""
    found = encoded(START, Delta("a"), ToolCall(0, "c", "f", "{}"), Delta("b"), STOP)
    assert [part["type"] for part in found[2:-3]] == [
        *("text-start", "text-delta", "text-end"),
        *("tool-input-start", "tool-input-delta"),
        *("text-start", "text-delta", "text-end"),
        "tool-input-available",
    ]


def test_a_name_may_come_late() -> None:
    """A call starts once its name is known, with the arguments so far; at the end it starts without a name."""
    assert calls(ToolCall(0, "c", "", '{"a"'), ToolCall(0, "", "f", ":1"), ToolCall(0, "", "", "}")) == [
        tool("start", "c", toolName="f"),
        tool("delta", "c", inputTextDelta='{"a":1'),
        tool("delta", "c", inputTextDelta="}"),
        tool("available", "c", toolName="f", input={"a": 1}),
    ]
    assert calls(ToolCall(0, "c", "", "{}")) == [
        tool("start", "c", toolName=""),
        tool("delta", "c", inputTextDelta="{}"),
        tool("available", "c", toolName="", input={}),
    ]


def test_a_call_without_an_id() -> None:
    """A call without an id gets one, as in OpenAI's dialect."""
    found = calls(ToolCall(0, "", "f", "{}"), ToolCall(1, "", "f", "{}"))
    assert [part["toolCallId"] for part in found[-2:]] == ["call_S_0", "call_S_1"]


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_a_call_without_arguments(arguments: str) -> None:
    """No arguments are an empty object."""
    assert calls(ToolCall(0, "c", "f", arguments))[-1] == tool("available", "c", toolName="f", input={})


@pytest.mark.parametrize("arguments", ['{"city": "Par', "{}{}", "NaN", "[" * 300 + "]" * 300])
def test_arguments_that_are_no_json(arguments: str) -> None:
    """Such arguments are an error and are shown as they came: the page runs no tool with them."""
    error = "The arguments of this tool call are not valid JSON."
    assert calls(ToolCall(0, "c", "f", arguments))[-1] == tool(
        "error", "c", toolName="f", input=arguments, errorText=error
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *(("stop", "stop"), ("length", "length"), ("content_filter", "content-filter")),
        *(("tool_calls", "tool-calls"), ("unknown", "other"), ("other", "other")),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    """They are spelt as the SDK spells them."""
    assert encoded(START, Done(reason))[-2] == {
        "type": "finish",
        "finishReason": finish,
        "messageMetadata": {"usage": None},
    }


STOPPED: list[tuple[Event, dict[str, Any]]] = [
    (Done("cancelled", usage=BROKEN.usage), {"type": "abort"}),
    (BROKEN, {"type": "error", "errorText": "Broke."}),
]


@pytest.mark.parametrize(("end", "last"), STOPPED, ids=["cancelled", "failed"])
def test_a_stream_that_breaks_off(end: Event, last: dict[str, Any]) -> None:
    """The open part is closed and the usage told. A call is not available: the page would run the tool."""
    usage = {"type": "message-metadata", "messageMetadata": {"usage": {"total_tokens": 1, "estimated": True}}}
    found = encoded(START, ToolCall(0, "c", "f", "{}"), Delta("a"), end)
    assert found[2:4] == [tool("start", "c", toolName="f"), tool("delta", "c", inputTextDelta="{}")]
    assert found[4:] == [*text("text", 1, "a"), usage, last, "[DONE]"]


@pytest.mark.parametrize(("end", "last"), STOPPED, ids=["cancelled", "failed"])
def test_a_stream_that_never_began(end: Event, last: dict[str, Any]) -> None:
    """There is no message then, and telling the usage does not make one."""
    assert encoded(end) == [last, "[DONE]"]


def test_dismissal() -> None:
    """A reader that is sent away is told so: it does not come back by itself."""
    encode = UIMessageEncoder(READING)
    encode(Batch(1, [START, Delta("a")]))
    ending, error, done = parts(encode.dismissal(250))
    assert ending == {"type": "text-end", "id": "1"}
    assert error["type"] == "error"
    assert "shutting down" in error["errorText"]
    assert done == "[DONE]"


def test_an_answer_that_goes_on_with_a_message() -> None:
    """Such an answer names no message, so the SDK takes the last one."""
    assert encoded(START, STOP, continues=True)[0] == {"type": "start"}


def test_a_reader_that_is_behind() -> None:
    """For a reader far enough behind, neighbouring texts of a kind are one piece."""
    batch = Batch(1, [START, Reasoning("x"), Reasoning("y"), Delta("a"), Delta("b"), Delta("c"), STOP])
    near, far = (UIMessageEncoder(Reading("S", merge_after=after))(batch) for after in (8, 7))
    assert near == UIMessageEncoder(READING)(batch)
    assert parts(far) == [*OPENING, *text("reasoning", 1, "xy"), *text("text", 2, "abc"), *CLOSING]


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_survives_any_line_reader(said: str) -> None:
    """Whatever the text, a block is one line, even for readers that cut at every Unicode line end."""
    encode = UIMessageEncoder(READING)
    opening, piece = encode(Batch(1, [Delta(said)])).decode().splitlines()[::2]
    assert json.loads(opening.removeprefix("data: "))["type"] == "text-start"
    assert json.loads(piece.removeprefix("data: "))["delta"] == said


CONTENT = st.one_of(
    st.builds(Delta, st.just("a")),
    st.builds(Reasoning, st.just("b")),
    st.builds(Refusal, st.just("c")),
    st.just(Logprobs()),
    st.builds(lambda call, name: ToolCall(call, f"c{call}", name, "1"), st.integers(0, 2), st.sampled_from(["", "f"])),
)
ENDS: list[Event] = [Done("stop"), Done("cancelled"), BROKEN]


@given(st.lists(CONTENT), st.sampled_from(ENDS))
def test_parts_are_in_pairs(content: Sequence[Event], end: Event) -> None:
    """Whatever a stream is made of, each part is opened before its first piece, and closed once, however it ends."""
    opened: set[str] = set()
    used: set[str] = set()
    found = encoded(START, *content, end)
    assert found.pop() == "[DONE]"
    for part in found:
        match part["type"].rpartition("-"):
            case ("text" | "reasoning", _, "start"):
                assert part["id"] not in used
                assert not opened
                opened.add(part["id"])
                used.add(part["id"])
            case ("text" | "reasoning", _, "delta"):
                assert part["id"] in opened
            case ("text" | "reasoning", _, "end"):
                opened.remove(part["id"])
            case ("tool-input", _, "start"):
                assert part["toolCallId"] not in used
                used.add(part["toolCallId"])
            case ("tool-input", _, _):
                assert part["toolCallId"] in used
    assert not opened
