"""What is understood of an answer, and the verdict: the table "How a stream ended" of the upstream README."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.errors import Disconnected, Empty, Malformed, Truncated, UpstreamError
from app.events import Delta, Done, Reasoning, ToolCall
from app.upstream.reading.answer import ENDED, FINISHED, MAX_TOOL_CALLS, OPEN, Answer
from app.usage import Usage

ERROR = UpstreamError("It broke.")


def nothing(answer: Answer) -> None:
    pass


def content(answer: Answer) -> None:
    answer.add_text(Delta, "hi")


def finish(answer: Answer) -> None:
    answer.add_text(Delta, "hi")
    answer.finish("length", "max_tokens")


def error(answer: Answer) -> None:
    answer.finish("stop", "stop")
    answer.end(error=ERROR)


@pytest.mark.parametrize(
    ("seen", "done", "clean", "cut"),
    [
        (error, UpstreamError, UpstreamError, UpstreamError),
        (finish, "length", "length", "length"),
        (content, "unknown", Truncated, Disconnected),
        (nothing, Empty, Empty, Disconnected),
    ],
)
def test_verdict(
    seen: Callable[[Answer], None],
    done: str | type[UpstreamError],
    clean: str | type[UpstreamError],
    cut: str | type[UpstreamError],
) -> None:
    """What was seen before the end, and what the end was, decide."""
    for end, expected in (
        (lambda answer: answer.end(complete=True), done),
        (Answer.end, clean),
        (lambda answer: answer.end(fault=Disconnected()), cut),
    ):
        answer = Answer()
        seen(answer)
        end(answer)
        answer.take()
        if isinstance(expected, str):
            assert answer.result().finish_reason == expected
        else:
            with pytest.raises(expected) as raised:
                answer.result()
            assert raised.type is expected


def test_states() -> None:
    """A finish reason finishes an answer, an end ends it, and neither is taken back."""
    answer = Answer()
    assert (answer.state, answer.done, answer.ended_by_upstream) == (OPEN, None, False)
    answer.finish("stop", "eos")
    answer.finish("length", "length")
    assert (answer.state, answer.done, answer.ended_by_upstream) == (FINISHED, Done("stop"), True)
    answer.end(fault=Disconnected())
    answer.end(error=ERROR)
    answer.finish("length", "length")
    assert (answer.state, answer.result(), answer.cut_after_finish) == (ENDED, Done("stop"), True)


def test_a_reason_of_no_kind() -> None:
    """A finish reason that is none of ours keeps the upstream's word, bounded."""
    answer = Answer()
    answer.finish("other", "S" * 100)
    assert answer.done == Done("other", "S" * 64)


def test_half_characters() -> None:
    """Halves join over pieces of one kind, whatever comes between, and become U+FFFD at the end (row C16)."""
    answer = Answer()
    answer.add_text(Delta, "a\ud83d")
    answer.add_text(Reasoning, "hm")
    answer.add_text(Delta, "\ude00\ud83d")
    answer.add_call(0, "c", "f", "\ud83d")
    assert answer.take() == [Delta("a"), Reasoning("hm"), Delta("😀"), ToolCall(0, "c", "f", "")]
    answer.end()
    assert answer.take() == [Delta("\ufffd"), ToolCall(0, "", "", "\ufffd")]
    assert answer.take() == []


def test_too_many_calls() -> None:
    """The number of tool calls is bounded."""
    answer = Answer()
    answer.add_call(MAX_TOOL_CALLS - 1, "a", "f", "")
    assert answer.state is OPEN
    answer.add_call(MAX_TOOL_CALLS, "b", "f", "")
    assert isinstance(answer.fault, Malformed)


def test_usage_and_model() -> None:
    """The last usage counts, and the first model's name."""
    answer = Answer()
    answer.add_usage({"n": 1})
    answer.add_usage({"n": 2})
    for name in (None, 3, "", "m", "other"):
        answer.set_model(name)
    answer.finish("stop", "stop")
    assert answer.done == Done("stop", usage=Usage({"n": 2}), model="m")
