"""Splitter against the web platform tests, every way to cut the bytes, and endless input."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Malformed
from app.upstream.reading.sse import BOM, MAX_STRAY, Splitter, SSEEvent

Pair = tuple[str, str]
LONG = b"x" * 2048


def split(raw: bytes, size: int, splitter: Splitter | None = None) -> list[SSEEvent]:
    splitter = splitter or Splitter()
    return [found for at in range(0, len(raw), size) for found in splitter.feed(raw[at : at + size])]


# web-platform-tests, eventsource/format-*: what is sent, and the (type, data) of the messages that must come of it.
WPT: dict[str, tuple[bytes, list[Pair]]] = {
    "format-bom": (b"\xef\xbb\xbfdata:1\n\n\xef\xbb\xbfdata:2\n\ndata:3\n\n", [("", "1"), ("", "3")]),
    "format-bom-2": (b"\xef\xbb\xbf\xef\xbb\xbfdata:1\n\ndata:2\n\ndata:3\n\n", [("", "2"), ("", "3")]),
    "format-comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        [("", "1\n2\n3\n4")],
    ),
    "format-data-before-final-empty-line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2", [("", "test1")]),
    "format-field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [("", ""), ("", "\n"), ("", "test")]),
    "format-field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [("test", "x"), ("", "x")]),
    "format-field-event-empty": (b"event: \ndata:data\n\n", [("", "data")]),
    "format-field-id": ("id: …\ndata: x\n\ndata: y\n\n".encode(), [("", "x"), ("", "y")]),
    "format-field-id-3": (b"id:1\ndata:a\n\nid:\ndata:b\n\nid\ndata:c\n\n", [("", "a"), ("", "b"), ("", "c")]),
    "format-field-id-null": (b"id:\0\ndata:a\n\nid:a\0b\ndata:b\n\n", [("", "a"), ("", "b")]),
    "format-field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\n"
        b"da-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [("", "\0\n 2\n1\n3\n\n4")],
    ),
    "format-field-retry": (b"retry:03000\ndata:x\n\n", [("", "x")]),
    "format-field-retry-bogus": (b"retry:3000\nretry:1000x\ndata:x\n\n", [("", "x")]),
    "format-field-retry-empty": (b"retry\ndata:test\n\n", [("", "test")]),
    "format-field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [("", "test\n\ntest")],
    ),
    "format-leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [("", "\ttest\n\ntest")]),
    "format-newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [("", "test\n\ntest")]),
    "format-null-character": (b"data:\0\n\n\n\n", [("", "\0")]),
    "format-utf-8": ("data:ok…\n\n".encode(), [("", "ok…")]),
    "event-data": (
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        [("", "msg\nmsg"), ("", ""), ("", "end")],
    ),
    "event-only": (b"event: done\n\ndata: x\n\n", [("", "x")]),
    "id-and-retry-only": (b"id: 1\n\nretry: 5\n\n: ping\n\n\n\n", []),
    "unicode-line-ends": ("data: a\u2028b\u0085c\v\f\x1c\n\n".encode(), [("", "a\u2028b\u0085c\v\f\x1c")]),
}


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 20])
@pytest.mark.parametrize("name", WPT)
def test_web_platform_vectors(name: str, size: int) -> None:
    """Type and data of every message are the standard's, whatever the reads."""
    raw, wanted = WPT[name]
    found = [(kind.decode(), data.decode()) for kind, data in split(raw, size) if kind is not None]
    assert found == wanted


LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from([b"data: {}", b"data:x", b"data", b"data: ", b"event: e", b": c", b"", b"id: 1", b"?", BOM])
RAW = st.lists(st.tuples(LINES, LINE_ENDS).map(b"".join), max_size=30).map(b"".join)


@given(RAW, st.lists(st.integers(0, 200), max_size=10))
def test_cuts_do_not_matter(raw: bytes, cuts: list[int]) -> None:
    """Any mixture of line ends, cut anywhere, gives what it gives in one read, and what it gives with LF alone."""
    places = sorted({min(cut, len(raw)) for cut in cuts} | {0, len(raw)})
    pieces = Splitter()
    found = [event for start, end in pairwise(places) for event in pieces.feed(raw[start:end])]
    whole = Splitter()
    assert found == whole.feed(raw)
    plain = Splitter()
    assert found == plain.feed(raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
    assert pieces.eof() == whole.eof() == plain.eof()


def test_cr_ends_a_line_at_once() -> None:
    """Nothing waits for the LF that may or may not follow (F2)."""
    splitter = Splitter()
    assert splitter.feed(b"data: a\r\r") == [(b"", b"a")]
    assert splitter.feed(b"\ndata: b\n") == []
    assert splitter.feed(b"\n") == [(b"", b"b")]


@pytest.mark.parametrize(
    ("raw", "left"),
    [
        (b"data: [DONE]", [(b"", b"[DONE]")]),
        (b"event: e\ndata: a\ndata: b\n", [(b"e", b"a\nb")]),
        (b"data: a\n\n", []),
        (b"event: e\n", []),
        (b'{"error":1}', [(None, b'{"error":1}')]),
        (b"\xef\xbb", [(None, b"\xef\xbb")]),
    ],
)
def test_eof_gives_what_is_left(raw: bytes, left: list[SSEEvent]) -> None:
    """The unfinished end of a body can be asked for, once (rows F20, F23)."""
    splitter = Splitter()
    splitter.feed(raw)
    assert splitter.eof() == left
    assert splitter.eof() == []


def test_lines_that_are_no_field_keep_their_place() -> None:
    """They come where they stood, and no more than the first eight kilobytes of them (rows F16, F17)."""
    assert split(b"data: a\n\nerror: {}\n\ndata: b\n\n", 1) == [(b"", b"a"), (None, b"error: {}"), (b"", b"b")]
    flood = split(b"junk\n" * MAX_STRAY, 1000)
    assert MAX_STRAY - 5 <= sum(len(line) + 1 for _, line in flood) <= MAX_STRAY + 1


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(
    "raw", [b"x" * 101, b"data: " + b"x" * 101 + b"\n\n", b"data: x\n" * 20, b":" + b"x" * 101 + b"\n"]
)
def test_events_are_bounded(raw: bytes, size: int) -> None:
    """A line or an event over the bound is a named error, after what came before it; nothing comes after (F26)."""
    splitter = Splitter(max_event=100)
    assert split(b"data: a\n\n" + raw + b"\n\ndata: b\n\n", size, splitter) == [(b"", b"a")]
    assert isinstance(splitter.error, Malformed)
    assert "100 bytes" in splitter.error.text
    assert splitter.eof() == []


def test_an_event_at_the_bound_passes() -> None:
    """The bound itself is allowed, field name included."""
    splitter = Splitter(max_event=100)
    assert split(b"data: " + b"x" * 94 + b"\n\n", 9, splitter) == [(b"", b"x" * 94)]
    assert splitter.error is None


def work(size: int, read: int) -> int:
    """Return how many bytes the splitter's buffer was moved through for one line of *size* bytes."""
    splitter = Splitter()
    moved = 0
    for at in range(0, size, read):
        before = splitter._tail
        splitter.feed(b"x" * min(read, size - at))
        # Appending in place moves what is new. A new buffer would have moved everything.
        moved += read if splitter._tail is before else len(splitter._tail)
    return moved


def test_an_event_of_many_lines() -> None:
    """What has come of it is one text, and not a list of its lines, which would all be joined at its end."""
    splitter = Splitter()
    for _ in range(100):
        assert splitter.feed(b"data: x\ndata:\n" * 2000) == []
        assert len(splitter._data) <= 1
    assert splitter.feed(b"\n") == [(b"", b"x\n\n" * 199_999 + b"x\n")]


def test_a_dripping_line_costs_linear_work() -> None:
    """Twice the line is twice the work: the buffer grows in place and is never replaced."""
    assert work(200_000, 100) == 2 * work(100_000, 100)
    assert work(100_000, 1) == 100_000
