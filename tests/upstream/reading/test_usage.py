"""The counts of tokens that upstreams send."""

from __future__ import annotations

from typing import Any

import pytest

from app.upstream.reading.usage import MAX_NAMES, counts_nothing, in_our_words, merge_usage, visible_tokens


@pytest.mark.parametrize(
    ("before", "said", "known"),
    [
        ({}, {"a": 1}, {"a": 1}),
        ({"a": 5}, {"a": 7}, {"a": 7}),  # what was said last counts
        ({"a": 5}, {"a": 3}, {"a": 3}),
        ({"a": 5}, {"a": 0}, {"a": 5}),  # but nothing and zero do not
        ({"a": 5}, {"a": None}, {"a": 5}),
        ({"a": None}, {"a": 0}, {"a": 0}),
        ({"a": 5}, {"b": 0}, {"a": 5, "b": 0}),
        ({"a": 0.5}, {"a": 0.7}, {"a": 0.7}),
        ({"d": {"a": 1, "b": 2}}, {"d": {"b": 3, "c": 4}}, {"d": {"a": 1, "b": 3, "c": 4}}),
        ({"d": 1}, {"d": {"a": 1}}, {"d": {"a": 1}}),
        ({"tier": "a"}, {"tier": "b"}, {"tier": "b"}),
        ({}, {"n": 10**30, "list": [1, float("nan")]}, {"n": 10**30, "list": [1]}),
    ],
)
def test_merge(before: dict[str, Any], said: dict[str, Any], known: dict[str, Any]) -> None:
    """What came before is kept, except where there is a number or a text in its place."""
    untouched = repr(before)
    assert merge_usage(before, said) == known
    assert repr(before) == untouched


def test_merge_is_bounded() -> None:
    """At each level only so many names are kept, and only four levels; what is known can still change."""
    many = {f"k{number}": number for number in range(1, 99)}
    merged = merge_usage({}, many | {"d": 1})
    assert len(merged) == MAX_NAMES
    assert merge_usage(merged, {"k1": 7, "new": 1}) == merged | {"k1": 7}
    assert len(merge_usage({}, {"d": many})["d"]) == MAX_NAMES
    assert merge_usage({}, {"a": {"b": {"c": {"d": {"e": 1}, "n": 1}}}}) == {"a": {"b": {"c": {"n": 1}}}}


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("prompt_tokens", "prompt_tokens"),
        ("input_tokens", "prompt_tokens"),
        ("inputTokens", "prompt_tokens"),
        ("promptTokenCount", "prompt_tokens"),
        ("prompt_eval_count", "prompt_tokens"),
        ("Output-Tokens", "completion_tokens"),
        ("candidatesTokenCount", "completion_tokens"),
        ("eval_count", "completion_tokens"),
        ("generated_tokens", "completion_tokens"),
        ("totalTokenCount", "total_tokens"),
    ],
)
def test_our_words(name: str, ours: str) -> None:
    """Chat completions' name stands beside the upstream's, whatever its case and separators."""
    assert in_our_words({name: 7, "cost": 0.5}) == {name: 7, ours: 7, "cost": 0.5}


@pytest.mark.parametrize(
    ("said", "in_words"),
    [
        ({"prompt_tokens": "7"}, {"prompt_tokens": 7}),
        ({"prompt_tokens": 7.0}, {"prompt_tokens": 7}),
        ({"prompt_tokens": -1}, {"prompt_tokens": -1}),
        ({"prompt_tokens": 7, "input_tokens": 9}, {"prompt_tokens": 7, "input_tokens": 9}),
        ({"prompt_tokens": 0, "input_tokens": 9}, {"prompt_tokens": 9, "input_tokens": 9}),
        (
            {"output_tokens_details": {"reasoning_tokens": 3}},
            {
                "output_tokens_details": {"reasoning_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 3},
            },
        ),
        ({"cached_tokens": "7"}, {"cached_tokens": "7"}),
    ],
)
def test_counts_in_our_words(said: dict[str, Any], in_words: dict[str, Any]) -> None:
    """Counts become numbers; a count under our name is not replaced, unless it is zero."""
    assert in_our_words(said) == in_words


@pytest.mark.parametrize(
    ("usage", "nothing"),
    [
        ({}, True),
        ({"a": 0, "b": None, "c": "x", "d": {"e": 0.0, "f": "0"}}, True),
        ({"a": 1}, False),
        ({"a": "7"}, False),
        ({"a": {"b": {"c": 0.5}}}, False),
    ],
)
def test_counts_nothing(usage: dict[str, Any], nothing: bool) -> None:
    """Only a number other than zero counts something, at whatever depth."""
    assert counts_nothing(usage) is nothing


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({}, 0),
        ({"completion_tokens": 7}, 7),
        ({"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 3}}, 4),
        ({"completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 0}, "reasoning_tokens": 3}, 4),
        ({"completion_tokens": 7, "completion_tokens_details": None, "reasoning_tokens": "7"}, 0),
        ({"completion_tokens": "x"}, 0),
    ],
)
def test_visible_tokens(usage: dict[str, Any], tokens: int) -> None:
    """Reasoning is counted with the answer, in its details or beside it."""
    assert visible_tokens(usage) == tokens
