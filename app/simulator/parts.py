"""What an answer is made of, in the words of neither API."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Kind(enum.Enum):
    """The kinds of text in an answer."""

    TEXT = enum.auto()
    REASONING = enum.auto()  # as open models name it
    SUMMARY = enum.auto()  # the reasoning, in OpenAI's form
    REFUSAL = enum.auto()
    CALL = enum.auto()  # the arguments of a tool call


@dataclass(slots=True)
class Part:
    """One run of deltas. *pieces* is the JSON of each delta's text, in quotes."""

    kind: Kind
    pieces: Iterator[bytes]
    tool: str = ""  # the name of the tool that is called
    index: int = 0  # of the call


class Usage(NamedTuple):
    """Tokens: of the prompt, of the answer with its reasoning, of the reasoning alone."""

    prompt: int
    completion: int
    reasoning: int
