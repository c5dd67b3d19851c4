"""JSON of clients: what is read, what is mended, and that no body holds the event loop while it is read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.json import MAX_DEPTH, MAX_VALUES, check_sealed, parse_json
from app.errors import BadRequest
from app.wire.opaque import seal
from tests.watchdog import watching

MEGABYTE = 1 << 20


def parsed(body: bytes) -> Any:
    return asyncio.run(parse_json(body))


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_other_encodings(encoding: str) -> None:
    """JSON in another encoding than UTF-8 is refused by a sentence that says so."""
    with pytest.raises(BadRequest, match="UTF-8"):
        parsed('{"prompt":"hi"}'.encode(encoding))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (rb'"cut \ud83d"', "cut \ufffd"),
        (rb'"\uDE00 first"', "\ufffd first"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ude00\ud83d"', "\ufffd\ufffd"),
        (rb'["\ud83d", "\\ud83d", "\\\ud83d"]', ["\ufffd", "\\ud83d", "\\\ufffd"]),
        (rb'{"\ud83d": [{"x": {"\udc00": "\udc00"}}]}', {"\ufffd": [{"x": {"\ufffd": "\ufffd"}}]}),
    ],
)
def test_lone_surrogates(text: bytes, read: Any) -> None:
    """A half of a pair becomes U+FFFD, in values, in keys and at any depth. Pairs and escaped backslashes stay."""
    assert parsed(text) == read


escapes = st.sampled_from(["\\\\", "\\ud83d", "\\uDE00", "\\n", '\\"', "\\u0041", "u", "d83d", "x"])


@given(st.lists(escapes, max_size=12))
def test_any_escapes(pieces: list[str]) -> None:
    """Whatever surrounds it, no more than a lone surrogate changes."""
    text = f'"{"".join(pieces)}"'
    mended = json.loads(text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    assert parsed(text.encode()) == mended


BIGGEST = {
    "zeros": b"[" + b"0," * (MAX_VALUES - 1) + b"0]",
    "objects": b'[{"a":"b"}' + b',{"a":"b"}' * (MAX_VALUES // 2 - 1) + b"]",
    "fields": b"{%s}" % b",".join(b'"%d":"%d"' % (number, number) for number in range(MAX_VALUES)),
    "deep": b"[%s]" % b",".join([b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1)] * (MAX_VALUES // MAX_DEPTH)),
    "short texts": b"[" + b'"abcdefghijklmnopqrstuvwxyz",' * (MAX_VALUES - 1) + b"0]",
    "one text": b'"%s"' % (b"a" * MEGABYTE),
    "punctuation in a text": b'"%s"' % (b"[{,}]" * (MEGABYTE // 5)),
    "escapes": b'"%s"' % (b"\\u00e9" * (MEGABYTE // 6)),
    "escaped quotes": b'"%s"' % (b'\\",' * (MEGABYTE // 3)),
    "Han": b'"%s"' % ("漢".encode() * (MEGABYTE // 3)),
    "lone surrogates": b'"%s"' % (b"\\ud83d" * (MEGABYTE // 6)),
    "pairs, and a lone surrogate": b'"%s\\ud83d"' % (b"\\ud83d\\ude00" * (MEGABYTE // 12)),
    "backslashes, and a lone surrogate": b'"%s\\ud83d"' % (b"\\\\" * (MEGABYTE // 2)),
}


@pytest.mark.parametrize("name", BIGGEST)
def test_the_biggest(name: str) -> None:
    """What is as large as allowed is read in slices that the watchdog allows, and is what it says."""
    body = BIGGEST[name]
    expected = json.loads(body)
    if "surrogate" in name:
        expected = expected.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    with watching():
        assert parsed(body) == expected


REFUSED = {
    "zeros": (b"[" + b"0," * MAX_VALUES + b"0]", "values"),
    "half a million zeros": (b"[" + b"0," * (MEGABYTE // 2) + b"0]", "values"),
    "half a million opening brackets": (b"[" * (MEGABYTE // 2), "levels|values"),
    "half a million closing brackets": (b"]" * (MEGABYTE // 2), "not valid JSON"),
    "empty texts": (b'""' * (MEGABYTE // 2), "not valid JSON"),
    "empty objects": (b"[" + b"{}," * (MEGABYTE // 3) + b"{}]", "values"),
    "fields": (b"{%s}" % b",".join(b'"%d":0' % number for number in range(90_000)), "values"),
    "after a long text": (b'["%s"%s]' % (b"a" * (MEGABYTE // 2), b",0" * MAX_VALUES), "values"),
    "one level too deep": (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), "levels"),
    "a text without an end": (b'["%s' % (b"," * MEGABYTE), "not valid JSON"),
    "lone surrogates in what is wrong": (b'["%s' % (b"\\ud83d" * (MEGABYTE // 6)), "not valid JSON"),
    "NUL": (b'["\\ud83d \0\0"]', "not valid JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    """What has more values or levels than allowed, or is no JSON, is refused by a sentence, and in slices."""
    body, why = REFUSED[name]
    with watching(), pytest.raises(BadRequest, match=why):
        parsed(body)


@pytest.mark.parametrize("text", ['\\"', "\\\\", '\\\\\\"', ",", "[", '"', "ab\\n", "€"])
def test_strings_across_slices(text: str) -> None:
    """A string in which slices meet, at any place, is a string: its commas and brackets are no values."""
    for shift in range(9):
        string = json.dumps(text * 50_000)[1:-1]
        body = b'["%s%s", "%s"]' % (b"x" * shift, string.encode(), b",[{" * MAX_VALUES)
        assert parsed(body) == json.loads(body)
        with pytest.raises(BadRequest, match="values"):
            parsed(body[:-1] + b",0" * MAX_VALUES + b"]")


def test_sealed_values_count() -> None:
    """What is in sealed texts is bounded as the body is, all together; anything else is not looked into."""
    half = seal({"a": [0] * (MAX_VALUES // 2 - 1)})
    asyncio.run(check_sealed([half, half, "[" * 100, None, 1]))
    for texts in ([half, half, seal({"a": 0})], [seal({"a": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)})]):
        with pytest.raises(BadRequest):
            asyncio.run(check_sealed(texts))
