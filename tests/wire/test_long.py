"""Texts of megabytes, encoded in steps."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire.json import dumps
from app.wire.long import LONG, LongText, LongTexts, long


def test_what_is_long() -> None:
    """A text is a long one from a size on; as a text it is the same."""
    assert type(long("a" * LONG)) is str
    text = "a" * (LONG + 1)
    assert type(long(text)) is LongText
    assert long(text) == text


@given(st.text(), st.text(), st.text())
def test_the_same_json(before: str, text: str, after: str) -> None:
    """However many long texts an object has, the line is the one that a plain text would be in."""
    wrapped, other = LongText(text), LongText("b" + text)
    with patch("app.wire.long.LONG", 1):
        *steps, line = LongTexts().dumps([before, wrapped, {after: other}, wrapped], b"<", b">")
    assert line == b"<%b>" % dumps([before, text, {after: "b" + text}, text])
    assert steps == [b""] * (2 * len(text) + 2)


def test_encoded_once() -> None:
    """A text that several objects have is encoded for the first of them. One without a long text takes no step."""
    texts = LongTexts()
    text = LongText("\u2028" * (2 * LONG))
    assert [*texts.dumps({"a": 1})] == [b'{"a":1}']
    assert len([*texts.dumps({"text": text})]) == 4
    assert [*texts.dumps(["\x85", text])] == [b"", dumps(["\x85", str(text)])]


def test_no_other_classes() -> None:
    """What is no JSON is an error, as it is elsewhere."""
    with pytest.raises(TypeError):
        [*LongTexts().dumps({"a": object()})]
