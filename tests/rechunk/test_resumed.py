"""Going on with a stream that another process began: what the log has is left out, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ProducerLost
from app.events import (
    Annotation,
    Delta,
    Event,
    Extra,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    ToolCall,
    merged,
)
from app.rechunk import Resumed, create

SPECS = ("auto", "none", "word", "sentence", "line", "size:3", "time:50", "word,80ms")
TEXTS = st.text("ab .!\n\u3002e\u0301", min_size=1, max_size=8)
CALLS = st.builds(
    ToolCall,
    st.integers(0, 1),
    st.just(""),
    st.sampled_from(["", "f"]),
    TEXTS,
    st.just("function"),
    st.sampled_from([None, {"signature": "x"}]),
)
EVENTS = st.one_of(
    TEXTS.map(Delta),
    TEXTS.map(Delta),
    TEXTS.map(Reasoning),
    TEXTS.map(PlainReasoning),
    TEXTS.map(Refusal),
    CALLS,
    st.just(Logprobs(({"token": "a"},), ())),
    st.just(Annotation([{"type": "url_citation"}])),
    st.just(Media("audio", "audio/pcm", "data:,x")),
    st.just(Extra({"a": 1}, {}, {"b": [1]})),
)


def put_together(events: Sequence[Event]) -> tuple[Any, ...]:
    """Return what *events* say, however they are cut: texts in their order, calls, log probabilities."""
    calls: dict[int, list[Any]] = {}
    order: list[Any] = []
    for _, event in merged([event for event in events if not isinstance(event, Logprobs)]):
        if isinstance(event, ToolCall):
            known = calls.setdefault(event.index, ["", "", "", {}])
            known[0] += event.id
            known[1] += event.name
            known[2] += event.arguments
            known[3] |= event.extra or {}
        else:
            order.append(event)
    return order, calls, sum(isinstance(event, Logprobs) for event in events)


def first_of_each(events: Sequence[Event]) -> list[Event]:
    """Give each call an id with its first piece, as upstreams do."""
    seen: set[int] = set()
    out: list[Event] = []
    for event in events:
        if isinstance(event, ToolCall):
            id = "" if event.index in seen else f"call_{event.index}"
            seen.add(event.index)
            event = ToolCall(event.index, id, event.name, event.arguments, event.type, event.extra)
        out.append(event)
    return out


def cut(rechunker: Any, batches: Sequence[Sequence[Event]]) -> list[Event]:
    out: list[Event] = []
    for batch in batches:
        out += rechunker.feed(batch)
    return out


@pytest.mark.parametrize("spec", SPECS)
@given(st.lists(st.lists(EVENTS, min_size=1, max_size=4), max_size=8), st.data())
def test_log_and_rest_are_the_whole(spec: str, batches: list[list[Event]], data: Any) -> None:
    """Wherever a process was killed, whatever was held back then, and however the upstream's answer comes again."""
    whole = first_of_each([event for batch in batches for event in batch])
    first = create(spec)
    log: list[Event] = [Start("m", 1), *cut(first, [[event] for event in whole])]
    if data.draw(st.booleans()):
        log += first.flush()
    log = log[: data.draw(st.integers(0, len(log)))]
    again = Resumed(create(spec))
    again.known(json_again(log[: len(log) // 2]))
    again.known(json_again(log[len(log) // 2 :]))
    assert again.answered is any(not isinstance(event, Start) for event in log)
    rest: list[Event] = []
    at = 0
    while at < len(whole):
        size = data.draw(st.integers(1, 5))
        rest += again.feed(whole[at : at + size])
        if again.held and data.draw(st.booleans()):
            rest += again.flush()
        at += size
    rest += again.flush()
    again.finish()
    assert put_together([*log[1:], *rest]) == put_together(whole)


def json_again(events: Sequence[Event]) -> list[Event]:
    """Return *events* as they come out of a journal: what was a tuple is a list."""
    return [
        Logprobs(json.loads(json.dumps(event.content)), []) if isinstance(event, Logprobs) else event
        for event in events
    ]


def test_cuts_are_those_of_one_process() -> None:
    """A sentence whose beginning the log lacks, because it was held back, comes whole."""
    pieces = [Delta(text) for text in ("One. ", "Tw", "o. Thr", "ee. ", "Four")]
    uncut = create("sentence")
    expected = [*cut(uncut, [[piece] for piece in pieces]), *uncut.flush()]
    killed = cut(create("sentence"), [[piece] for piece in pieces[:3]])
    again = Resumed(create("sentence"))
    again.known(killed)
    at_once = Resumed(create("sentence"))
    at_once.known(killed)
    assert [*killed, *cut(again, [[piece] for piece in pieces]), *again.flush()] == expected
    rest = [*at_once.feed(pieces[:3]), *at_once.feed(pieces[3:]), *at_once.flush()]
    assert [*killed, *rest] == expected


@pytest.mark.parametrize(
    ("known", "comes"),
    [
        (Delta("Hello"), Delta("Help")),
        (Reasoning("abc"), Reasoning("x")),
        (ToolCall(0, "a", "f", "{1"), ToolCall(0, "a", "f", "{2")),
        (ToolCall(0, "a", "f", "{1"), ToolCall(0, "b", "f", "{1")),
    ],
)
def test_another_answer(known: Event, comes: Event) -> None:
    """If the upstream tells something else than the log has, the stream cannot go on, and nothing more is appended."""
    again = Resumed(create("none"))
    again.known([known])
    with pytest.raises(ProducerLost):
        again.feed([comes])
    assert again.feed([Delta("more")]) == ()
    assert again.flush() == ()


SIGNED = ToolCall(0, "", "", "", extra={"signature": "x"})


@pytest.mark.parametrize(
    ("known", "comes"),
    [
        (Delta("Hello"), [Delta("Hell")]),
        (Delta("Hello"), [Reasoning("Hello")]),
        (ToolCall(0, "a", "f", "{1"), [ToolCall(0, "a", "f", "{")]),
        (ToolCall(0, "a", "f", "{1"), []),
    ],
)
def test_a_shorter_answer(known: Event, comes: list[Event]) -> None:
    """An upstream's answer that ends before what the log has of it is another one."""
    again = Resumed(create("none"))
    again.known([known])
    again.feed(comes)
    with pytest.raises(ProducerLost):
        again.finish()


@pytest.mark.parametrize("known", [[Start("m", 1)], [Delta("Hello"), Extra({"a": 1}, {}, {})], [SIGNED]])
def test_once_all_of_it_has_come(known: list[Event]) -> None:
    """From then on the cut alone decides, and what is sent again is news."""
    again = Resumed(create("none"))
    again.known(known)
    assert again.feed([event for event in known if not isinstance(event, Start)]) == []
    for more in ([Delta("Hello")], [Extra({"a": 1}, {}, {})], [SIGNED]):
        assert again.feed(more) is more
    again.finish()


def test_a_signature_in_pieces() -> None:
    """The other fields of a call are left out as often as the log has them, and no more often."""
    pieces = [ToolCall(0, "", "", "", extra={"signature": part}) for part in ("a", "b", "a")]
    again = Resumed(create("none"))
    again.known(pieces[:2])
    assert [*again.feed(pieces[:1]), *again.feed(pieces[1:])] == pieces[2:]


def test_a_delay() -> None:
    """The pauses of the cut, and its longest delay, are the same."""
    assert Resumed(create("word,80ms")).max_delay == 0.08
    assert Resumed(create("time:50")).pause == create("time:50").pause
