"""How a case is played: to which reader, cut how, and what is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from app.errors import Disconnected, IdleTimeout, UpstreamError
from app.events import TEXT, Annotation, Content, Delta, Extra, Media, Reasoning, Refusal, ToolCall
from app.upstream.reading.chat import chat_reader
from app.upstream.reading.reader import AnswerReader
from app.usage import Usage
from tests.upstream.reading.quirks_bytes import Case, merged

MAX_EVENT = 32 * 1024


def read(reader: AnswerReader[Any], pieces: Iterable[bytes], ends: str = "eof") -> list[Content]:
    events = [event for piece in pieces for event in reader.feed(piece)]
    if ends == "eof":
        events += reader.end()
    elif ends != "open":
        events += reader.end(IdleTimeout() if ends == "timeout" else Disconnected())
    return events


def play(case: Case, pieces: Iterable[bytes], make: Callable[[int], AnswerReader[Any]] = chat_reader) -> None:
    reader = make(MAX_EVENT)
    events = read(reader, pieces, case.ends)

    assert "".join(event.text for event in events if isinstance(event, Delta)) == case.text
    assert "".join(event.text for event in events if isinstance(event, Reasoning)) == case.reasoning
    assert "".join(event.text for event in events if isinstance(event, Refusal)) == case.refusal
    assert merged([event for event in events if isinstance(event, ToolCall)]) == case.calls
    if case.others is not None:
        assert tuple(event for event in events if isinstance(event, (Annotation, Media, Extra))) == case.others
    assert all(event.text for event in events if isinstance(event, TEXT)), "no event is empty"
    if isinstance(case.end, str):
        done = reader.result()
        end = done.finish_reason if done.raw_reason is None else f"{done.finish_reason}:{done.raw_reason}"
        assert (end, done.model) == (case.end, case.model)
        assert done.usage == reader.answer.usage
    else:
        with pytest.raises(UpstreamError) as raised:
            reader.result()
        assert type(raised.value) is case.end
        if case.message is not None:
            assert raised.value.text == case.message
    assert reader.answer.usage == (Usage(case.usage) if case.usage else None)
    assert reader.replaced_bytes == case.replaced_bytes
    assert reader.answer.cut_after_finish is case.cut_after_finish


def cut_at(raw: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({cut % (len(raw) + 1) for cut in cuts} | {0, len(raw)})
    return [raw[start:end] for start, end in pairwise(places)]


def verdict(reader: AnswerReader[Any]) -> object:
    try:
        return replace(reader.result(), model="")
    except UpstreamError as error:
        return type(error), error.text


def facts(reader: AnswerReader[Any]) -> tuple[object, ...]:
    """Return what is known of an answer beside its content and its verdict."""
    answer = reader.answer
    return answer.state, answer.usage, answer.done is None, answer.cut_after_finish, reader.replaced_bytes
