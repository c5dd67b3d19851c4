"""Token counts: the upstream's own, and the estimates that stand in where the upstream sent none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

_MOST_TOKENS = 1 << 31


@dataclass(frozen=True, slots=True)
class Usage:
    """What a stream consumed.

    *fields* is the upstream's own usage object, with OpenAI's names beside its own. Where the upstream did not count
    the answer's tokens, *estimated* is true, and *fields* has OpenAI's three counts.
    """

    fields: Mapping[str, Any]
    estimated: bool = False

    @classmethod
    def estimate(cls, prompt_tokens: int, completion_tokens: int, known: Mapping[str, Any] | None = None) -> Usage:
        """Return estimated counts in OpenAI's form, with the other fields that are *known*."""
        return cls(
            {
                **(known or {}),
                "prompt_tokens": prompt_tokens,
                "completion_tokens": completion_tokens,
                "total_tokens": prompt_tokens + completion_tokens,
            },
            estimated=True,
        )

    @property
    def input_tokens(self) -> int:
        """How many tokens the prompt took, or 0 where *fields* has no believable count."""
        return _believable(self.fields.get("prompt_tokens"))

    @property
    def output_tokens(self) -> int:
        """How many tokens the answer took, or 0 where *fields* has no believable count."""
        return _believable(self.fields.get("completion_tokens"))

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt were read from a cache, or 0 where *fields* has no believable count."""
        return self._detail("cached_tokens", "input", "prompt")

    @property
    def cache_write_tokens(self) -> int:
        """How many tokens of the prompt were written to a cache, or 0 where *fields* has no believable count."""
        return self._detail("cache_write_tokens", "input", "prompt")

    @property
    def reasoning_tokens(self) -> int:
        """How many tokens of the answer are reasoning, or 0 where *fields* has no believable count."""
        return self._detail("reasoning_tokens", "output", "completion")

    @property
    def made_tokens(self) -> int:
        """How many tokens the upstream made, hidden reasoning included, or 0 where *fields* has no believable count.

        Some upstreams (xAI) count the reasoning in the total only.
        """
        total = _believable(self.fields.get("total_tokens"))
        return max(self.output_tokens, total - self.input_tokens if self.input_tokens else 0)

    def _detail(self, name: str, *kinds: str) -> int:
        """Return a count of the details: in the words of Responses, or in those of chat completions."""
        details = [self.fields.get(f"{kind}_tokens_details") for kind in kinds]
        counts = [_believable(counted.get(name)) for counted in details if isinstance(counted, Mapping)]
        return next(filter(None, counts), 0)


def estimate_tokens(size: int) -> int:
    """Return about how many tokens *size* bytes of UTF-8 text are.

    Byte-pair tokenizers average four bytes a token, within a factor of two, across models and scripts. Their exact
    tables would have to be downloaded for each model.
    """
    return (size + 3) // 4


def estimate_prompt_tokens(messages: Iterable[Mapping[str, Any]]) -> int:
    """Return about how many tokens *messages*, in OpenAI's form, are. Each costs four tokens besides its text."""
    tokens = 0
    for message in messages:
        content = message.get("content")
        parts = [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
        sizes = [len(part.encode(errors="replace")) for part in parts if isinstance(part, str)]
        tokens += 4 + sum(sizes) // 4
    return tokens


def _believable(tokens: object) -> int:
    """Return *tokens* if it is a count that an answer can have. One absurd number would spoil a sum for good."""
    return tokens if type(tokens) is int and 0 < tokens < _MOST_TOKENS else 0
