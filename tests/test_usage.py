"""Token counts: the upstream's, and estimates."""

from __future__ import annotations

from typing import Any

import pytest

from app.usage import Usage, estimate_prompt_tokens, estimate_tokens


def test_an_estimate_has_openais_counts() -> None:
    """An estimate has OpenAI's three counts and says that it is one."""
    usage = Usage.estimate(3, 4)
    assert usage.fields == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert (usage.estimated, usage.input_tokens, usage.output_tokens) == (True, 3, 4)


def test_an_estimate_keeps_what_is_known() -> None:
    """What the upstream said besides the counts stays."""
    assert Usage.estimate(3, 4, {"cost": 0.1, "total_tokens": 3}).fields["cost"] == 0.1


@pytest.mark.parametrize("absurd", [None, "7", 7.0, True, -1, 1 << 31])
def test_a_count_that_no_answer_can_have_is_none(absurd: object) -> None:
    """An upstream's count that is no number of tokens is left out of all sums."""
    assert Usage({"prompt_tokens": absurd, "completion_tokens": 5}).input_tokens == 0


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3}}, (2, 3, 0)),
        ({"completion_tokens_details": {"reasoning_tokens": 4}}, (0, 0, 4)),
        ({"input_tokens_details": {"cached_tokens": 2}, "output_tokens_details": {"reasoning_tokens": 4}}, (2, 0, 4)),
        ({"input_tokens_details": {}, "prompt_tokens_details": {"cached_tokens": 2}}, (2, 0, 0)),
        ({"prompt_tokens_details": None, "completion_tokens_details": {"reasoning_tokens": "4"}}, (0, 0, 0)),
    ],
)
def test_details(fields: dict[str, Any], counts: tuple[int, int, int]) -> None:
    """The details have the words of chat completions or of Responses."""
    usage = Usage(fields)
    assert (usage.cached_tokens, usage.cache_write_tokens, usage.reasoning_tokens) == counts


def test_four_bytes_are_a_token() -> None:
    """A text of N bytes is estimated at N / 4 tokens, rounded up."""
    assert [estimate_tokens(size) for size in (0, 1, 4, 5)] == [0, 1, 1, 2]


def test_a_prompt_is_its_texts_and_four_tokens_a_message() -> None:
    """All texts of a message count, in UTF-8; parts that have none do not."""
    parts = [{"type": "text", "text": "é" * 4}, {"type": "image_url"}, {"type": "text", "text": "\ud800"}]
    messages: list[dict[str, Any]] = [{"role": "user", "content": "x" * 8}, {"content": parts}, {"content": None}]
    assert estimate_prompt_tokens(messages) == (4 + 2) + (4 + 2) + 4


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ({"completion_tokens": 7}, 7),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 92}, 87),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}, 7),
        ({"completion_tokens": 7, "total_tokens": 92}, 7),
        ({"prompt_tokens": 5, "total_tokens": 10**30}, 0),
        ({}, 0),
    ],
)
def test_made_tokens(fields: dict[str, Any], made: int) -> None:
    """Reasoning counts among the tokens that were made, also where only the total has it."""
    assert Usage(fields).made_tokens == made
