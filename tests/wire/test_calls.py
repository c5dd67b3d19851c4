"""When a call starts, and in which order that and its arguments are said."""

from __future__ import annotations

import pytest

from app.events import ToolCall
from app.wire.calls import FAILED, WithCalls, runnable
from app.wire.long import LONG
from app.wire.transcript import Call


class Words(WithCalls[Call, str]):
    """A dialect of words, with an open text before each step."""

    def __init__(self) -> None:
        super().__init__(Call)
        self.is_open = True

    def say(self, *pieces: ToolCall) -> list[str]:
        return [word for piece in pieces for word in self._piece(piece)]

    def close(self) -> list[str]:
        return self._close()

    def _close_text(self) -> list[str]:
        was_open, self.is_open = self.is_open, False
        return ["close"] if was_open else []

    def _begin_call(self, call: Call) -> list[str]:
        return [f"begin {call.name}"]

    def _arguments(self, call: Call, arguments: str) -> list[str]:
        return [f"{call.name} {arguments}"] if arguments else []


@pytest.mark.parametrize(
    ("pieces", "said"),
    [
        ([ToolCall(0, "c", "f", "{}")], ["begin f", "f {}"]),
        ([ToolCall(0, "c", "f", "{"), ToolCall(0, "", "", "}")], ["begin f", "f {", "f }"]),
        ([ToolCall(0, "c", "a", ""), ToolCall(0, "", "b", ""), ToolCall(0, "", "", "{}")], ["begin ab", "ab {}"]),
        ([ToolCall(0, "c", "", "{"), ToolCall(0, "", "f", "}")], ["begin f", "f {}"]),
        ([ToolCall(0, "c", "f", ""), ToolCall(1, "d", "g", "{}")], ["begin f", "begin g", "g {}"]),
        (
            [ToolCall(0, "c", "f", "1"), ToolCall(1, "d", "g", "2"), ToolCall(0, "", "", "3")],
            ["begin f", "f 1", "begin g", "g 2", "f 3"],
        ),
    ],
)
def test_a_call_starts_with_its_whole_name(pieces: list[ToolCall], said: list[str]) -> None:
    """It starts once, when its arguments come or another call does, and after the text that is open."""
    assert Words().say(*pieces) == ["close", *said]


def test_a_call_that_waits_is_started_by_what_follows() -> None:
    """What comes next closes what is open: that is the call, if one waits."""
    words = Words()
    assert words.say(ToolCall(0, "c", "f", "")) == ["close"]
    assert words.close() == ["begin f"]
    assert words.close() == []


def called(arguments: str, type: str = "function") -> Call:
    return Call(0, "c", ["f"], [arguments], type)


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "unknown", "other"])
def test_a_call_that_may_be_run(reason: str) -> None:
    """Its arguments are as they came; if it may have been cut, they are whole JSON, or the input of a custom tool."""
    sure = reason in ("stop", "tool_calls")
    assert runnable(called(' {"a":1}'), reason) == ' {"a":1}'
    assert runnable(called("print(", "custom"), reason) == "print("
    for mistaken in ('{"path": "/', "NaN"):
        assert runnable(called(mistaken), reason) == (mistaken if sure else None)


@pytest.mark.parametrize(
    ("reason", "arguments"), [("stop", "{}"), ("tool_calls", "{}"), ("unknown", None), ("other", None)]
)
def test_arguments_that_did_not_come(reason: str, arguments: str | None) -> None:
    """They are an empty object only if the upstream said that its answer is whole."""
    assert [runnable(called(blank), reason) for blank in ("", " \n")] == [arguments, arguments]
    assert runnable(called("", "custom"), reason) == ""


@pytest.mark.parametrize("reason", ["length", "content_filter", "cancelled", FAILED])
def test_no_call_of_an_answer_that_was_cut_may_be_run(reason: str) -> None:
    """Whatever of it came."""
    assert [runnable(called("{}", type), reason) for type in ("function", "custom")] == [None, None]


def test_long_arguments() -> None:
    """They are whole if they end as JSON does: reading them would take too long."""
    assert runnable(called('{"a": "%s"}\n' % ("x" * LONG)), "other") is not None
    assert runnable(called('{"a": "%s' % ("x" * LONG)), "other") is None
