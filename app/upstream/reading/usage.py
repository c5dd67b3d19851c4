"""The counts of tokens that an upstream sends, in chat completions' words and beside them in its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from app.upstream.reading.values import bounded_json, count_of, number_of

_OURS: Final = {
    "prompttokens": "prompt_tokens",
    "inputtokens": "prompt_tokens",
    "prompttokencount": "prompt_tokens",
    "inputtokencount": "prompt_tokens",
    "promptevalcount": "prompt_tokens",
    "completiontokens": "completion_tokens",
    "outputtokens": "completion_tokens",
    "generatedtokens": "completion_tokens",
    "completiontokencount": "completion_tokens",
    "outputtokencount": "completion_tokens",
    "candidatestokencount": "completion_tokens",
    "evalcount": "completion_tokens",
    "totaltokens": "total_tokens",
    "totaltokencount": "total_tokens",
    "prompttokensdetails": "prompt_tokens_details",
    "inputtokensdetails": "prompt_tokens_details",
    "completiontokensdetails": "completion_tokens_details",
    "outputtokensdetails": "completion_tokens_details",
}
"""Chat completions' names by the upstream's, of which case and separators do not count."""


MAX_NAMES: Final = 32  # at each level


def merge_usage(before: Mapping[str, Any], said: Mapping[str, Any], depth: int = 3) -> dict[str, Any]:
    """Return what is known of the usage after *said* came, of which *before* was known.

    What was said last counts, but nothing and zero do not replace a number.
    """
    merged = dict(before)
    for name, value in said.items():
        if type(value) is int and value and name in merged:  # what there is most of, where totals run with the text
            merged[name] = value
            continue
        known = merged.get(name)
        if name not in merged and len(merged) >= MAX_NAMES:
            continue
        if isinstance(value, dict):
            if depth:
                merged[name] = merge_usage(known if isinstance(known, dict) else {}, value, depth - 1)
        elif value or not known:
            merged[name] = value if isinstance(value, (int, float)) else bounded_json(value, depth)
    return merged


def in_our_words(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return *said* with chat completions' names beside the upstream's, and counts that are numbers."""
    usage = dict(said)
    for name, value in said.items():
        ours = _ours(name[:64])
        if ours is not None and (not said.get(ours) if ours != name else value):
            usage[ours] = value if isinstance(value, dict) else _number(value)
    return usage


@lru_cache(maxsize=256)  # an upstream says the same names every time
def _ours(name: str) -> str | None:
    """Return what chat completions call a count, given an upstream's *name* for it."""
    return _OURS.get(re.sub("[^a-z]", "", name.lower()))


def counts_nothing(usage: Mapping[str, Any]) -> bool:
    """Return whether no number in *usage* is other than zero."""
    return all(
        counts_nothing(value) if isinstance(value, Mapping) else not number_of(value) for value in usage.values()
    )


def visible_tokens(usage: Mapping[str, Any]) -> int:
    """Return how many tokens of the answer were not reasoning."""
    details = usage.get("completion_tokens_details")
    hidden = details.get("reasoning_tokens") if isinstance(details, Mapping) else None
    hidden = hidden or usage.get("reasoning_tokens")
    return (count_of(usage.get("completion_tokens")) or 0) - (count_of(hidden) or 0)


def _number(value: Any) -> Any:
    count = count_of(value)
    return value if count is None else count
