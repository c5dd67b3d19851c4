"""What the tests of single cuts share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from app.events import Delta, ToolCall
from app.rechunk import create


@pytest.fixture
def cut() -> Callable[[str, str], str]:
    """Cut a text that is not the first of its stream; return the pieces, joined by bars."""

    def pieces(spec: str, text: str, step: int) -> list[str]:
        rechunker = create(spec)
        rechunker.feed([Delta("first"), ToolCall(0, "", "", "")])
        events = [event for at in range(0, len(text), step) for event in rechunker.feed([Delta(text[at : at + step])])]
        return [event.text for event in (*events, *rechunker.flush()) if isinstance(event, Delta)]

    def cut(spec: str, text: str) -> str:
        whole = pieces(spec, text, len(text))
        assert pieces(spec, text, 1) == whole
        return "|".join(whole)

    return cut
