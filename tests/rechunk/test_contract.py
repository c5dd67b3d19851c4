"""What holds for every cut, whatever the text and however it arrived."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import pytest
import regex
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from app.events import TEXT, Annotation, Delta, Done, Event, Extra, Media, Reasoning, Refusal, Start, ToolCall
from app.rechunk import create, cuts
from app.rechunk._holding import LIMIT

pytestmark = pytest.mark.no_cover  # thousands of texts, through lines that the cuts' own tests cover

ARGUMENTS = {"size": ["1", "2", "3", "7"], "time": ["50", "500"]}
EVERY = [f"{name}:{value}" if value else name for name in cuts() for value in ARGUMENTS.get(name, [""])]
PASSING = ["auto", "none", "time:50"]
HOLDING = [spec for spec in EVERY if spec not in PASSING]
CUTTING = [spec for spec in HOLDING if not spec.startswith("time")]

ALPHABET = (
    "aB1é.!?,…\"'*`()[]-/ \t\n\r\u00a0\x1c\u2028\u0301\u200d\u200c\u200f\ufe0f\U0001f3fd👩👧👍🇩🇪🇫中文々。，！？「」“”"
    "かっゃーカンｶﾞ\u3099・ไทยน้ำแๆກາខ្មមြန်\u1039한\u1100\u1161नक्षि।ـعم؟\u0600\udc80"
)
TEXTS = st.text(st.sampled_from(ALPHABET), max_size=40)
SPLITS = st.lists(st.text(st.sampled_from(ALPHABET), min_size=1, max_size=9), min_size=1, max_size=12)
EVENTS = st.one_of(
    *(st.builds(kind, st.text(st.sampled_from(ALPHABET), min_size=1, max_size=12)) for kind in (Delta, Delta, Delta)),
    st.builds(Reasoning, st.text(min_size=1, max_size=5)),
    st.builds(Refusal, st.text(min_size=1, max_size=5)),
    st.builds(ToolCall, st.integers(0, 2), st.just(""), st.just(""), st.just("{")),
    st.sampled_from([Annotation([{}]), Media("image", "image/png", "u"), Extra({"a": 1})]),
    st.sampled_from([Start("m", 1), Done("stop")]),
)
BATCHES = st.lists(st.lists(EVENTS, max_size=6), max_size=8)


def texts(events: Sequence[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, TEXT)]


def pieces(spec: str, *deltas: str) -> list[str]:
    """Feed one delta at a time, and flush."""
    rechunker = create(spec)
    return texts([event for delta in deltas for event in rechunker.feed([Delta(delta)])] + [*rechunker.flush()])


def later(spec: str, text: str) -> list[str]:
    """Cut a text that is not the first of its stream."""
    rechunker = create(spec)
    rechunker.feed([Delta("x"), ToolCall(0, "", "", "")])
    return texts([*rechunker.feed([Delta(text)]), *rechunker.flush()])


def ends(parts: Sequence[str]) -> set[int]:
    return set(accumulate(map(len, parts)))


def cluster_ends(text: str) -> set[int]:
    return {match.end() for match in regex.finditer(r"\X", text)}


def joined(events: Sequence[Event]) -> list[Event]:
    """Join neighbouring texts of one kind: what no cut may change."""
    whole: list[Event] = []
    for event in events:
        if isinstance(event, TEXT) and whole and type(last := whole[-1]) is type(event) and isinstance(last, TEXT):
            whole[-1] = type(event)(last.text + event.text)
        else:
            whole.append(event)
    return whole


@pytest.mark.parametrize("spec", EVERY)
@settings(max_examples=40)
@given(batches=BATCHES, flushes=st.sets(st.integers(0, 8)))
def test_lossless(spec: str, batches: list[list[Event]], flushes: set[int]) -> None:
    """Put together, what leaves is what came: kinds apart, everything in order, no event empty, whenever flushed."""
    rechunker = create(spec)
    out: list[Event] = []
    for number, batch in enumerate(batches):
        out += rechunker.feed(batch)
        if number in flushes:
            out += rechunker.flush()
            assert not rechunker.held
    last = rechunker.flush()
    assert len(last) <= 1
    assert not rechunker.held
    assert rechunker.flush() in ([], ())
    out += last
    assert joined(out) == joined([event for batch in batches for event in batch])
    assert all(texts(out))


@pytest.mark.parametrize("spec", EVERY)
@settings(max_examples=40)
@given(batch=st.lists(EVENTS, max_size=6))
def test_held_tells_the_truth(spec: str, batch: list[Event]) -> None:
    """Text is held exactly when flush returns some."""
    rechunker = create(spec)
    rechunker.feed([Delta("first")])
    rechunker.feed(batch)
    assert rechunker.held == bool(rechunker.flush())


@pytest.mark.parametrize("spec", CUTTING)
@settings(max_examples=120)
@given(first=TEXTS.filter(bool), rest=SPLITS)
def test_independent_of_splits(spec: str, first: str, rest: list[str]) -> None:
    """Given the same first text, the pieces are the same however the rest was split."""
    split = pieces(spec, first, *rest)
    assert split == pieces(spec, first, "".join(rest))
    assert split == pieces(spec, first, *"".join(rest))


@pytest.mark.parametrize("spec", CUTTING)
@settings(max_examples=100)
@given(first=TEXTS.filter(bool), rest=TEXTS.filter(bool))
def test_first_text_adds_its_end_only(spec: str, first: str, rest: str) -> None:
    """The cuts are those of the whole text, and the end of the first text (with `size`: of its last whole cluster)."""
    rechunker = create(spec)
    left = texts(rechunker.feed([Delta(first)]))
    clusters = cluster_ends(first + rest)
    # Text that left early and then turned out to end inside a cluster has taken the cut before that cluster with it.
    assume(not spec.startswith("size") or len("".join(left)) in clusters | {0})
    whole = ends(later(spec, first + rest))
    got = ends(pieces(spec, first, rest))
    assert whole <= got
    extra = got - whole
    if spec.startswith("size"):
        assert extra <= {len("".join(left)), min(end for end in clusters if end >= len(first))}
    else:
        assert "".join(left) == first
        assert extra <= {len(first)}


@pytest.mark.parametrize("spec", HOLDING)
def test_first_text_of_each_kind_leaves_at_once(spec: str) -> None:
    """The first batch with text leaves whole, the later ones are held; reasoning and answer each count."""
    rechunker = create(spec)
    for kind in (Reasoning, Delta, Refusal):
        rechunker.feed([ToolCall(0, "", "", "")])
        assert "".join(texts(rechunker.feed([kind("a"), kind("b")]))) == "ab"
        assert not rechunker.held
        rechunker.feed([kind("c")])
        assert rechunker.held


@pytest.mark.parametrize("spec", HOLDING)
def test_what_is_held_leaves_before_anything_else(spec: str) -> None:
    """A tool call, or text of another kind, comes after the text that was before it."""
    rechunker = create(spec)
    call = ToolCall(0, "id", "name", "")
    rechunker.feed([Delta("x"), call, Reasoning("y"), call])
    assert rechunker.feed([Delta("a")]) == []
    assert rechunker.feed([call, Delta("b")]) == [Delta("a"), call]
    assert rechunker.feed([Reasoning("c")]) == [Delta("b")]
    assert rechunker.feed([Done("stop")]) == [Reasoning("c"), Done("stop")]


@pytest.mark.parametrize("spec", CUTTING)
@settings(max_examples=80)
@given(parts=SPLITS, flushed=st.integers(0, 6))
def test_flush_moves_no_cut(spec: str, parts: list[str], flushed: int) -> None:
    """A flush, as a bound on holding makes it, adds the cut where it falls and takes none away."""
    text = "".join(parts)
    early = {len(parts[0]), len("".join(parts[: flushed + 1]))}
    assume(not spec.startswith("size") or early <= cluster_ends(text))  # as above
    rechunker = create(spec)
    out: list[Event] = []
    for number, part in enumerate(parts):
        out += rechunker.feed([Delta(part)])
        if number == flushed:
            out += rechunker.flush()
    out += rechunker.flush()
    assert ends(later(spec, text)) <= ends(texts(out))


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@settings(max_examples=100)
@given(text=TEXTS.filter(bool))
def test_size_keeps_clusters_whole(size: int, text: str) -> None:
    """No event has more than N characters, unless it is a single cluster; none ends inside a cluster."""
    got = later(f"size:{size}", text)
    assert all(len(piece) <= size or regex.fullmatch(r"\X", piece) for piece in got)
    assert ends(got) <= cluster_ends(text)


@settings(max_examples=200)
@given(text=TEXTS.filter(bool))
def test_word_keeps_clusters_whole(text: str) -> None:
    """No word ends inside a grapheme cluster."""
    assert ends(pieces("word", text)) <= cluster_ends(text)


@pytest.mark.parametrize("spec", PASSING)
@settings(max_examples=50)
@given(batch=st.lists(EVENTS, max_size=6))
def test_nothing_is_held(spec: str, batch: list[Event]) -> None:
    """`auto` and `none` let everything leave at once."""
    rechunker = create(spec)
    assert joined(rechunker.feed(batch)) == joined(batch)
    assert not rechunker.held
    assert not rechunker.flush()


LONG = {
    "letters": "x",
    "spaces": " ",
    "marks": "\u0301",
    "joiners": "\u200d",
    "flags": "🇩",
    "family": "👩\u200d",
    "katakana": "カ\u3099",
    "quotes": '"',
    "points": "。”",
    "marked": "ab\u0301\u0302 \u0303",
}


@pytest.mark.parametrize("spec", HOLDING)
@pytest.mark.parametrize("name", LONG)
def test_no_more_than_the_limit_is_held(spec: str, name: str) -> None:
    """However long nothing can be cut, a piece leaves in time, at the same place however the text was split."""
    text = (LONG[name] * (2 * LIMIT))[: 2 * LIMIT + 100]
    rechunker = create(spec)
    out: list[Event] = [*rechunker.feed([Delta("first")])]
    fed = 0
    for at in range(0, len(text), 1999):
        out += rechunker.feed([Delta(text[at : at + 1999])])
        fed = 5 + min(at + 1999, len(text))
        assert fed - sum(map(len, texts(out))) <= LIMIT
    out += rechunker.flush()
    assert texts(out) == pieces(spec, "first", text)
    assert "".join(texts(out)) == "first" + text
    assert max(map(len, texts(out))) <= LIMIT


@pytest.mark.parametrize("spec", CUTTING)
@settings(max_examples=6)
@given(head=TEXTS, repeated=st.text(st.sampled_from(ALPHABET), min_size=1, max_size=3), tail=TEXTS)
def test_forced_cuts_do_not_depend_on_splits(spec: str, head: str, repeated: str, tail: str) -> None:
    """Around the limit, too, the pieces are the same however the text was split."""
    assume("".join((head, repeated, tail)))
    text = head + repeated * (LIMIT // len(repeated)) + tail
    edge = len(head) + LIMIT - 60
    assert pieces(spec, "a", text) == pieces(spec, "a", text[:edge], *text[edge:])
