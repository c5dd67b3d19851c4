"""Bytes that no upstream would send, and some that one might: the splitter, the reader and the decompression.

`FUZZ_SECONDS` (3) bounds the part that goes on from one `FUZZ_SEED` (1) to the next; what it finds, it prints with
the seed that finds it again. What was found once is an `@example`.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import Malformed
from app.events import Delta
from app.upstream.reading.answer import ENDED
from app.upstream.reading.body import MAX_BLANK
from app.upstream.reading.chat import chat_reader
from app.upstream.reading.reader import AnswerReader
from app.upstream.reading.sse import MAX_STRAY, Splitter
from tests.upstream.play import cut_at
from tests.upstream.reading.fuzz import (
    CUTS,
    ENDS,
    HALF,
    MAX_EVENT,
    NAMED,
    RESPONSE_SEEDS,
    SEEDS,
    TOKENS,
    check_gzip,
    check_reader,
    check_responses_reader,
    check_splitter,
    held,
    inflated,
    mutated,
    standard,
)
from tests.upstream.reading.quirks_bytes import END, HI, call, event, text, tool

pytestmark = pytest.mark.no_cover  # thousands of streams, through lines that the readers' own tests cover

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("FUZZ_SEED") or 1)
FIXED = settings(derandomize=True, database=None, max_examples=120)
ROUND = settings(FIXED, derandomize=False, max_examples=100)


@pytest.mark.parametrize("raw", SEEDS, ids=range(len(SEEDS)))
def test_seeds(raw: bytes) -> None:
    """All of it holds for the streams that the others are made of."""
    for ends in ("eof", "cut"):
        check_reader(raw, range(0, len(raw), 19), ends)
    check_splitter(raw, range(0, len(raw), 19))


@FIXED
@given(mutated(), CUTS, ENDS)
@example(b"\xef\xbb", [1], "eof")
@example(HI + b"data: " + b"[" * 3000 + b"\n\n", [], "eof")
@example(NAMED + HALF + text("b") + END, [len(NAMED)], "eof")
def test_reader(raw: bytes, cuts: list[int], ends: str) -> None:
    """The reader survives what hypothesis makes of real streams."""
    check_reader(raw, cuts, ends)


@pytest.mark.parametrize("raw", RESPONSE_SEEDS, ids=range(len(RESPONSE_SEEDS)))
def test_response_seeds(raw: bytes) -> None:
    """So it does for those of Responses."""
    for ends in ("eof", "cut"):
        check_responses_reader(raw, range(0, len(raw), 19), ends)


@FIXED
@given(mutated(RESPONSE_SEEDS), CUTS, ENDS)
def test_responses_reader(raw: bytes, cuts: list[int], ends: str) -> None:
    """So does the other dialect's reader."""
    check_responses_reader(raw, cuts, ends)


@FIXED
@given(mutated() | st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join), CUTS)
@example(b"data: a\r\ndata: b\r\n\r\n", [])
@example(b"event: a\ndata: b\n\ndata: c\n\n", [])
@example(b"data: a\xf0\x9f\ndata\x98\x80\n\n", [9])
def test_splitter(raw: bytes, cuts: list[int]) -> None:
    """The splitter is the standard's parser, for any bytes."""
    check_splitter(raw, cuts)


@FIXED
@given(st.sampled_from(SEEDS), CUTS, st.lists(st.integers(0, 1 << 16), max_size=3))
def test_gzip(raw: bytes, cuts: list[int], harm: list[int]) -> None:
    """So does the decompression."""
    check_gzip(raw, cuts, harm)


@pytest.mark.timeout(600 + 2 * SECONDS)
def test_for_a_while() -> None:
    """All four hold for one seed's examples after another's, for as long as `FUZZ_SECONDS` says."""
    checks: list[Callable[[], None]] = [
        ROUND(given(mutated(), CUTS, ENDS)(check_reader)),
        ROUND(given(mutated(RESPONSE_SEEDS), CUTS, ENDS)(check_responses_reader)),
        ROUND(given(mutated(), CUTS)(check_splitter)),
        ROUND(given(st.sampled_from(SEEDS), CUTS, st.lists(st.integers(0, 1 << 16), max_size=3))(check_gzip)),
    ]
    deadline, seed = time.monotonic() + SECONDS, SEED
    while time.monotonic() < deadline:
        for check in checks:
            try:
                hypothesis.seed(seed)(check)()
            except BaseException as error:
                error.add_note(f"FUZZ_SEED={seed} finds it again")
                raise
        seed += 1


LINE_ENDS = st.sampled_from(["\n", "\r", "\r\n"])
PIECES = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=12)


@FIXED
@given(PIECES, st.booleans(), st.booleans(), LINE_ENDS, st.booleans(), CUTS)
def test_text_is_upstreams(
    pieces: list[str], escaped: bool, pretty: bool, line_end: str, noisy: bool, cuts: list[int]
) -> None:
    """What comes out, put together, is what a parser by the book finds in a valid stream."""
    lines = ["\ufeffretry: 1", ": hello"] if noisy else []
    for content in pieces:
        fields = {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": None}], "model": "m"}
        data = json.dumps(fields, ensure_ascii=escaped, indent=1 if pretty else None)
        lines += [f"data: {line}" for line in data.split("\n")] + ["id: 1", ": ping"] * noisy + [""]
    raw = line_end.join([*lines, "data: [DONE]", "", ""]).encode()
    found = [json.loads(data) for _, data in standard(raw) if data != "[DONE]"]
    assert [chunk["choices"][0]["delta"]["content"] for chunk in found] == pieces

    reader = chat_reader()
    events = [event for piece in cut_at(raw, cuts) for event in reader.feed(piece)]
    assert [event.text for event in events if isinstance(event, Delta)] == [piece for piece in pieces if piece]
    assert reader.answer.state is ENDED


@pytest.mark.parametrize(
    "again", [b"x" * 1000, b"data: x\n" * 100, b"data:\r" * 100, b"junk\n" * 200, b": x\r\n" * 100]
)
@pytest.mark.parametrize("beginning", [b"", b"data: ", b"{", b" ", HI + b": ", b"event: ", HI + b'data: {"a":"'])
def test_endless_input_is_not_kept(beginning: bytes, again: bytes) -> None:
    """Of megabytes without an event no more is kept than the bound; if they are one, that is an error."""
    reader, splitter = chat_reader(MAX_EVENT), Splitter(MAX_EVENT)
    reader.feed(beginning)
    splitter.feed(beginning)
    for _ in range(1000):
        reader.feed(again)
        splitter.feed(again)
        # An empty line of data is an item, too.
        assert held(reader) <= 2 * MAX_EVENT + MAX_BLANK + MAX_STRAY + 2000
        assert held(splitter) <= 2 * MAX_EVENT + 2000
    if again[:1] == b"x" or again[:5] == b"data:":
        assert splitter.error is not None
        assert reader.answer.state is ENDED
        with pytest.raises(Malformed):
            reader.result()


def effort(pieces: Iterable[bytes]) -> int:
    """Return what reading costs: calls made, and bytes put into new buffers instead of growing ones."""
    reader = chat_reader(1 << 30)
    buffers = ("stray", "_blank", "_json"), ("_tail", "_opening", "_data")
    cost = 0

    def count(*_: object) -> None:
        nonlocal cost
        cost += 1

    before = [(value, len(value or b"")) for value in _buffers(reader, buffers)]
    for piece in pieces:
        sys.setprofile(count)
        try:
            reader.feed(piece)
        finally:
            sys.setprofile(None)
        after = [(value, len(value or b"")) for value in _buffers(reader, buffers)]
        for (old, old_size), (new, size) in zip(before, after, strict=True):
            cost += max(0, size - old_size) if new is old else size
        before = after
    return cost


def _buffers(reader: AnswerReader[Any], names: tuple[tuple[str, ...], tuple[str, ...]]) -> list[Any]:
    body = reader._body
    return [getattr(body, name) for name in names[0]] + [getattr(body._splitter, name) for name in names[1]]


@pytest.mark.parametrize(
    ("beginning", "again", "size"),
    [
        (HI + b"data: ", b"x", 1),
        (HI, b"data: x\n", 8),
        (HI, b"data\r", 5),
        (HI, b"junk\n\n", 6),
        (HI, b": ping\n\n", 3),
        (HI, b"\r\n", 1),
        (b"{", b"[", 1),
        (b" ", b" ", 1),
        (b"", text("hi"), 7),
        (HI, tool(call(0, None, None, "{")), 9),
        (HI, event({"choices": [], "usage": {"n": 1}}), 5),
    ],
    ids=str,
)
def test_cost_is_linear(beginning: bytes, again: bytes, size: int) -> None:
    """The second half of a long body costs no more than the first, however small the reads."""
    # What is bounded by a constant (the blank beginning, the lines that are no field) is over before the first half.
    warm = beginning + again * (2 * MAX_STRAY // len(again))
    half = again * (6_000 // len(again))

    def pieces(raw: bytes) -> Iterator[bytes]:
        return (raw[at : at + size] for at in range(0, len(raw), size))

    least = effort(pieces(warm))
    once, twice = (effort(pieces(warm + half * times)) - least for times in (1, 2))
    assert once > 0
    assert twice <= 2.02 * once + 100


def test_gzip_in_members() -> None:
    """A body of several gzip members is all of them (RFC 1952, 2.2), cut anywhere; what follows the last is dropped."""
    raw = gzip.compress(b"one ") + gzip.compress(b"two ") + gzip.compress(b"three")
    for size in (1, 7, len(raw)):
        pieces = [raw[at : at + size] for at in range(0, len(raw), size)]
        assert inflated(pieces) == (b"one two three", True)
        assert inflated([*pieces, b"\0" * 100, b"junk"]) == (b"one two three", True)
    assert inflated([zlib.compress(b"one "), zlib.compress(b"two")], "deflate") == (b"one ", True)


def test_nothing_is_read_after_the_end_of_a_compressed_body() -> None:
    """Bytes that follow it are not kept: an upstream could send them for ever."""
    asked = 0

    def endless() -> Iterator[bytes]:
        nonlocal asked
        yield gzip.compress(b"all")
        while asked < 1000:
            asked += 1
            yield b"\0" * 1000

    assert inflated(endless()) == (b"all", True)
    assert asked <= 1
