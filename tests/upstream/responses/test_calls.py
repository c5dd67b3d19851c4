"""Which call a piece of a Responses tool call belongs to."""

from __future__ import annotations

import pytest

from app.events import Extra, ToolCall
from app.upstream.reading.answer import Answer
from app.upstream.responses.calls import ResponseCalls
from app.upstream.responses.reader import responses_reader
from tests.upstream.responses.bytes import END, arguments, function, item, message, over, said


def test_pieces_of_the_call_at_an_index() -> None:
    """The id and the name come once; what is whole at the end is no news after its pieces (row R7)."""
    answer = Answer()
    calls = ResponseCalls(answer)
    calls.begin(5, function())
    calls.add(5, '{"a"')
    calls.add(5, ":1}")
    calls.end(5, '{"a":1}')
    calls.complete(5, function(arguments='{"a":1}'))
    assert answer.take() == [ToolCall(0, "call_1", "f", ""), ToolCall(0, "", "", '{"a"'), ToolCall(0, "", "", ":1}")]
    assert len(calls) == 1


def test_a_new_call_at_a_used_index() -> None:
    """Another id at an index begins another call, with a number of its own (row X2)."""
    answer = Answer()
    calls = ResponseCalls(answer)
    calls.begin(0, function("a"))
    calls.begin(0, function("b"))
    assert [(call.index, call.id) for call in answer.take() if isinstance(call, ToolCall)] == [(0, "a"), (1, "b")]


def test_what_a_call_lacks() -> None:
    """A call without arguments lacks them; after its arguments, or under another id, it does not."""
    calls = ResponseCalls(Answer())
    calls.begin(0, function("a"))
    assert calls.lacks(0, function("a"))
    assert not calls.lacks(0, function("b"))
    calls.add(0, "{}")
    assert not calls.lacks(0, function("a"))


OURS = {"type": "function", "name": "f"}
WHOLE = item("done", 0, function("a", "f", "{}"))
STREAMED = item("added", 1, function("b", "g")) + arguments("{}", 1) + item("done", 1, function("b", "g", "{}"))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    ("tools", "raw", "expected"),
    [
        ([OURS], WHOLE + END, (["f"], [], "tool_calls")),
        ([OURS], STREAMED + said("hi", 2) + END, ([], ["g"], "stop")),
        ([OURS], STREAMED + WHOLE.replace(b'index": 0', b'index": 2') + END, (["f", "g"], [], "tool_calls")),
        (
            [OURS],
            STREAMED + said("hi", 2) + over(output=[function("b", "g", "{}"), message("hi")]),
            ([], ["g"], "stop"),
        ),
        ([OURS, {"type": "x_search"}], STREAMED + END, ([], ["g"], "stop")),
        ([{"type": "namespace", "name": "n", "tools": [OURS]}], WHOLE + END, (["f"], [], "tool_calls")),
        ([{"type": "custom", "name": "g"}], STREAMED + END, (["g"], [], "tool_calls")),
        ([], STREAMED + END, (["g"], [], "tool_calls")),
        ([], STREAMED + over(output=[function("b", "g", "{}"), message("hi")]), ([], ["g"], "stop")),
        ([OURS], over(output=[function("b", "g", "{}"), message("hi")]), ([], ["g"], "stop")),
    ],
    ids=range(10),
)
def test_whose_a_call_is(tools: list[object], raw: bytes, expected: object, size: int) -> None:
    """A call to a tool that was not offered is the upstream's own if the upstream goes on after it (row R11)."""
    reader = responses_reader()
    reader.dialect.offer(tools)
    content = [event for at in range(0, len(raw), size) for event in reader.feed(raw[at : at + size])]
    calls = [call.name for call in content if isinstance(call, ToolCall) and call.name]
    items = [item["name"] for extra in content if isinstance(extra, Extra) for item in extra.delta["output"]]
    assert (calls, items, reader.result().finish_reason) == expected


def test_custom_calls() -> None:
    """A call of a custom tool says so, and what else is in an item comes with its call."""
    answer = Answer()
    calls = ResponseCalls(answer)
    custom = {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT", "namespace": "n"}
    calls.begin(0, custom | {"input": ""})
    calls.add(0, "SELECT")
    calls.complete(0, custom)
    assert answer.take() == [
        ToolCall(0, "c", "sql", "", "custom"),
        ToolCall(0, "", "", "SELECT", "custom"),
        ToolCall(0, "", "", "", "custom", {"namespace": "n"}),
    ]


def test_a_piece_of_nothing() -> None:
    """A piece without anything in it begins no call."""
    answer = Answer()
    calls = ResponseCalls(answer)
    calls.add(0)
    assert (answer.take(), len(calls)) == ([], 0)
