"""JSON that is not quite JSON."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.reading import json as json_
from app.upstream.reading.json import (
    DONE,
    MAX_COMMAS,
    MAX_CONTAINERS,
    MAX_DEPTH,
    MAX_LINES,
    MAX_PATIENT,
    crowding,
    parse,
    payloads,
)


def test_what_is_tolerated() -> None:
    """NaN, lone surrogates, broken UTF-8 and a byte order mark are no reason to refuse."""
    assert math.isnan(parse(b"NaN"))
    assert parse(b'"\\ud83d"') == "\ud83d"
    assert parse(b'"a\xff"') == "a\ufffd"
    assert parse(b"\xef\xbb\xbf1") == 1


@pytest.mark.parametrize("data", [b"", b"{", b"oops", b"9" * 5000, b"[" * 100_000])
def test_the_rest_is_a_value_error(data: bytes) -> None:
    """Nothing else is raised, whatever the bytes are."""
    with pytest.raises(ValueError):
        parse(data)


def test_depth() -> None:
    """Nesting is bounded; brackets inside a string are not nesting."""
    assert parse(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(ValueError, match="nested too deeply"):
        parse(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    brackets = b"[" * 1000
    assert parse(b'"%s"' % brackets) == brackets.decode()


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"[DONE]", [DONE]),
        (b" [DONE] ", [DONE]),
        (b'"[DONE]"', ["[DONE]"]),
        (b"", [None]),
        (b": ping", [None]),
        (b"1\n2", [1, 2]),
        (b"[1,\n2]", [[1, 2]]),
        (b"1\n[DONE]", [1, DONE]),
    ],
)
def test_payloads(data: bytes, values: list[object]) -> None:
    """An event holds one value, or one a line (rows F6, F10, F11, F21)."""
    assert payloads(data) == values


@pytest.mark.parametrize(
    ("data", "crowded"),
    [
        (b'"%b"' % (b"[{," * 100_000), False),  # in a text
        (rb'"%b"' % (rb"\"[," * 200_000), False),
        (b"[%b1]" % (b"1," * (MAX_COMMAS + 1)), True),
        (b"[%b1]" % (b"1," * MAX_COMMAS), False),
        (b"[%b1]" % (b"{}," * MAX_CONTAINERS), True),
        (b'{"a":[%b""]}' % (b'"",' * (MAX_COMMAS - 1)), False),
        (b'{"a":[%b""]}' % (b'"",' * 2 * MAX_COMMAS), True),
        (b"[" * MAX_CONTAINERS, False),
        (b"[" * (MAX_CONTAINERS + 1), True),
    ],
)
def test_crowded(data: bytes, crowded: bool) -> None:
    """What counts are values: commas and brackets outside of strings."""
    assert any(crowding(data)) is crowded


TEXTS = st.lists(st.sampled_from([rb"\"", rb"\\", b"[", b",", b"a"]), max_size=9).map(
    lambda parts: b'"%b"' % b"".join(parts)
)


@given(st.lists(st.sampled_from([b"[", b",", b"{"]) | TEXTS, max_size=20), st.integers(1, 9))
def test_counted_in_steps(parts: list[bytes], size: int) -> None:
    """Values are counted as they are in one piece, wherever that is cut."""
    data = b"".join(parts)
    with patch.multiple(json_, MAX_CONTAINERS=1, MAX_COMMAS=1):
        whole = any(crowding(data))
        with patch.object(json_, "_PIECE", size):
            assert any(crowding(data)) == whole


def test_patience_ends() -> None:
    """What orjson refuses is read with patience up to a size, and up to a number of lines."""
    assert parse(b"[%bNaN]" % (b" " * 1000)) != []
    with pytest.raises(ValueError, match="too long"):
        parse(b"[%bNaN]" % (b" " * MAX_PATIENT))
    assert len(payloads(b"{}\n" * (MAX_LINES - 1))) == MAX_LINES
    with pytest.raises(ValueError, match="Extra data"):
        payloads(b"{}\n" * MAX_LINES)
