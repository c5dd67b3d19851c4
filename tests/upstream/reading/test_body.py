"""Bodies of every kind, from bytes to events."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest

from app.errors import Malformed
from app.upstream.reading.body import MAX_BLANK, Body, Mark, kind_of
from app.upstream.reading.json import parse_whole


def events(pieces: Iterable[bytes]) -> list[tuple[bytes | Mark, object]]:
    """Return the names and values of a body's events, up to where it cannot be read on."""
    body = Body(1000)
    found: list[tuple[bytes | Mark, object]] = []
    with suppress(Malformed):
        for piece in pieces:
            found += (event[:2] for event in body.feed(piece))
        for event in body.end():
            found.append(event[:2])
    return found


@pytest.mark.parametrize("raw", [b'{"a":1}', b'{"a":1}\n{"b":2}\n', b"[%s]" % (b"[]," * 40_000)])
def test_parsed_in_steps(raw: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that is one value is looked at, parsed and read in several steps, with what one step makes of it."""
    done: list[str] = []

    def noted(data: bytes) -> object:
        done.append("parse_whole")
        return parse_whole(data)

    monkeypatch.setattr("app.upstream.reading.body.parse_whole", noted)
    bodies = [Body(1 << 20), Body(1 << 20)]
    for body in bodies:
        assert not [*body.feed(raw)]
    steps = bodies[0].parse()
    assert next(steps) == next(steps) is None
    assert not done
    assert not [*steps][1:]
    assert len(done) == len(set(done))
    found: list[list[object]] = [[], []]
    for body, values in zip(bodies, found, strict=True):
        with pytest.raises(Malformed):
            for event in body.end():
                values.append(event)
    assert found[0] == found[1]
    assert len(done) == 2 * len(set(done))


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"data: 1\n\nevent: a\ndata: {}\n\n", [(b"", 1), (b"a", {})]),
        (b"event: exception\ndata: {}\n\nevent: exception\ndata: 1", [(b"error", {}), (b"error", 1)]),
        (b"data: 1\ndata: 2\n\n", [(b"", 1), (b"", 2)]),
        (b"data:\n\ndata: null\n\n", [(b"", None), (b"", None)]),
        (b"data: [DONE]\n\n", [(Mark.DONE, None)]),
        (b"event: error\ndata: oops\n\n", [(b"error", None)]),
        (b'error: {"a":1}\n\n', [(Mark.STRAY, {"a": 1})]),
        (b': hi\n{"a":\n1}\n', [(Mark.STRAY, {"a": 1})]),
        (b'{"a":\n1}\n', [(Mark.WHOLE, {"a": 1})]),
        (b'{"a":1}\n{"b":2}\n', [(Mark.STRAY, {"a": 1}), (Mark.STRAY, {"b": 2})]),
        (b"data: 1\n\ndata: 2", [(b"", 1), (b"", 2)]),
        (b'data: 1\n\ndata: {"a', [(b"", 1)]),
    ],
)
def test_events(raw: bytes, found: list[tuple[bytes | Mark, object]]) -> None:
    """Names and values come out as they should, whole and byte by byte."""
    assert events([raw]) == found
    assert events(raw[at : at + 1] for at in range(len(raw))) == found


@pytest.mark.parametrize("raw", [b"<html>", b"data: oops\n\n", b"{" * 1001, b"data: " + b"x" * 1001])
def test_bodies_that_cannot_be_read_on(raw: bytes) -> None:
    """A page, data that is not JSON, and what outgrows the bound raise."""
    with pytest.raises(Malformed):
        list(Body(1000).feed(raw))


def test_broken_utf_8_is_counted() -> None:
    """Each broken sequence becomes one U+FFFD; those that the upstream sent do not count."""
    body = Body()
    found = [value for _, value, _ in body.feed(b'data: "a\xffb\xfe\xef\xbf\xbd"\n\n')]
    assert found == ["a\ufffdb\ufffd\ufffd"]
    assert body.replaced_bytes == 2


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"", None),
        (b"\xef\xbb", None),
        (b"\xef\xbb\xbf \r\n", None),
        (b"\xef\xbb\xbf\n{", "json"),
        (b" [", "json"),
        (b"<html>", "page"),
        (b"data: {", "stream"),
        (b": hi", "stream"),
        (b"\n" * (MAX_BLANK + 1) + b"{", "stream"),
    ],
)
def test_kind_of_body(beginning: bytes, kind: str | None) -> None:
    """The first byte that is not blank tells a stream from JSON and from a page."""
    assert kind_of(beginning) == kind
