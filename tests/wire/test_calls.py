"""When a call starts, and in which order that and its arguments are said."""

from __future__ import annotations

import pytest

from app.events import ToolCall
from app.wire.calls import WithCalls
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
