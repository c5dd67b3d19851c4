"""What the fields of an event are taken for."""

from __future__ import annotations

import pytest

from app.upstream.reading.values import (
    arguments_field,
    arguments_of,
    bounded_json,
    count_of,
    encodable,
    index_of,
    is_empty,
    kept,
    list_of,
    object_of,
    text_of,
    text_within,
)


def test_arguments_field() -> None:
    """The first of the usual names counts that is not null, as OpenAI's own does if there is none."""
    assert arguments_field({"args": 1, "parameters": 2, "arguments": None}) == "parameters"
    assert arguments_field({"args": 1, "arguments": ""}) == "arguments"
    assert arguments_field({"name": "f"}) == "arguments"


def test_bounded_json() -> None:
    """Numbers that JSON does not have, depth and length go; the rest stays as it is."""
    fine = {"prompt_tokens": 3, "details": {"cached": 0, "ok": True}, "cost": 0.5, "tier": "default", "list": [1, "a"]}
    assert bounded_json(fine, 3) == fine
    assert bounded_json({"a": float("nan"), "b": 2**64, "c": {"d": {"e": {}}}, "f": None, "g": "\ud800"}, 3) == {
        "c": {"d": {}},
        "g": "\ufffd",
    }
    assert len(bounded_json({str(n): n for n in range(99)}, 3)) == 32


def test_kept() -> None:
    """What is kept is as it came, except what cannot be encoded."""
    fine: dict[str, object] = {"a": None, "b": [1, 0.5, True, "x" * 9999], "": {}}
    assert kept(fine) == fine
    assert kept([float("nan"), 2**64, 10**400, "\ud800", {"\ud800": 1}]) == [
        None,
        2.0**64,
        None,
        "\ufffd",
        {"\ufffd": 1},
    ]
    deep: object = "bottom"
    for _ in range(100):
        deep = [deep]
    assert str(kept(deep)) == "[" * 32 + "None" + "]" * 32


def test_encodable() -> None:
    """Pairs are joined, halves replaced, and everything else kept."""
    assert encodable("a\ud83d\ude00b\ud83dc\ude00\ud83d") == "a😀b\ufffdc\ufffd\ufffd"


@pytest.mark.parametrize(
    ("value", "text", "arguments"),
    [
        (None, "", ""),
        ("x", "x", "x"),
        (7, "7", "7"),
        (0, "0", "0"),
        (0.005, "0.005", "0.005"),
        (True, "true", "true"),
        ([], "", ""),
        (["a", 1, None, "b"], "a1b", "a1b"),
        ({}, "", "{}"),
        ({"a": "é"}, "", '{"a":"é"}'),
        ([{"a": 1}], "", '[{"a":1}]'),
    ],
)
def test_texts(value: object, text: str, arguments: str) -> None:
    """A number is the text that JSON has for it, a list of texts is joined; arguments may be JSON itself."""
    assert (text_of(value), arguments_of(value)) == (text, arguments)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([{"text": "a"}, {"summary": "b", "text": "c"}, 3, {"text": 4}, {"text": [{"text": "d"}]}], "ac34d"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "a"}]}, "a"),
        ({"text": {"value": "a"}}, "a"),
        ({"type": "reasoning.encrypted", "data": "x"}, ""),
        (False, ""),
    ],
)
def test_texts_within(value: object, text: str) -> None:
    """The text of parts is wherever it usually stands."""
    assert text_within(value) == text


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (7, 7),
        ("7", 7),
        (7.0, 7),
        ("", None),
        (-1, None),
        (7.5, None),
        (True, None),
        (1 << 40, None),
        ("x", None),
        ([7], None),
    ],
)
def test_indexes(value: object, index: int | None) -> None:
    """An index may be written as a text or as a float."""
    assert index_of(value) == index


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (7, 7),
        ("7", 7),
        (7.0, 7),
        ("7.0", 7),
        (-1, None),
        ("nan", None),
        (float("inf"), None),
        (True, None),
        ("x" * 99, None),
    ],
)
def test_counts(value: object, count: int | None) -> None:
    """So may a count of tokens."""
    assert count_of(value) == count


@pytest.mark.parametrize("value", [None, "", [], {}, [""], {"a": None, "b": [{}]}])
def test_empty(value: object) -> None:
    """Nothing is said by what is made of nothing; zero and false say something."""
    assert is_empty(value)
    assert not is_empty([value, 0])
    assert not is_empty({"a": value, "b": False})


def test_objects_and_lists() -> None:
    """An object in the place of a list is the only item of that list."""
    assert (object_of({"a": 1}), object_of([1]), object_of(None)) == ({"a": 1}, {}, {})
    assert (list_of([1]), list_of({"a": 1}), list_of({}), list_of("x")) == ([1], [{"a": 1}], [], [])
