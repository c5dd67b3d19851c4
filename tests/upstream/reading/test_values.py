"""What the fields of an event are taken for."""

from __future__ import annotations

import pytest

from app.upstream.reading.values import bounded_json, encodable, index_of, list_of, object_of, text_of


def test_bounded_json() -> None:
    """Numbers that JSON does not have, depth and length go; the rest stays as it is."""
    fine = {"prompt_tokens": 3, "details": {"cached": 0, "ok": True}, "cost": 0.5, "tier": "default", "list": [1, "a"]}
    assert bounded_json(fine, 3) == fine
    assert bounded_json({"a": float("nan"), "b": 2**64, "c": {"d": {"e": {}}}, "f": None, "g": "\ud800"}, 3) == {
        "c": {"d": {}},
        "g": "\ufffd",
    }
    assert len(bounded_json({str(n): n for n in range(99)}, 3)) == 32


def test_encodable() -> None:
    """Pairs are joined, halves replaced, and everything else kept."""
    assert encodable("a\ud83d\ude00b\ud83dc\ude00\ud83d") == "a😀b\ufffdc\ufffd\ufffd"


@pytest.mark.parametrize("value", [None, True, 7, 0.5, -1, 1 << 40, "x", [], ["x"], {}, {"text": "x"}])
def test_values_of_another_type(value: object) -> None:
    """A value of another type than the field's is taken for none."""
    assert text_of(value) == (value if isinstance(value, str) else "")
    assert object_of(value) == (value if isinstance(value, dict) else {})
    assert list_of(value) == (value if isinstance(value, list) else [])
    assert index_of(value) == (7 if value == 7 else 0)


def test_text_of_parts() -> None:
    """A list of objects is the texts that they have under one of the names."""
    parts = [{"text": "a"}, {"summary": "b", "text": "c"}, 3, {"text": 4}, {"text": [{"text": "no"}]}]
    assert text_of(parts, "text", "summary") == "acb"
