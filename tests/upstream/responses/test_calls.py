"""Which call a piece of a Responses tool call belongs to."""

from __future__ import annotations

from app.events import ToolCall
from app.upstream.reading.answer import Answer
from app.upstream.responses.calls import ResponseCalls
from tests.upstream.responses.bytes import function


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


def test_a_piece_of_nothing() -> None:
    """A piece without anything in it begins no call."""
    answer = Answer()
    calls = ResponseCalls(answer)
    calls.add(0)
    assert (answer.take(), len(calls)) == ([], 0)
