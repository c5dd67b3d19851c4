"""An answer put together from its events: the one fold, for every dialect that shows an answer whole."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Self, assert_never

from app.events import Delta, Done, Event, Failure, Logprobs, Reasoning, Refusal, Start, Terminal, ToolCall


@dataclass(slots=True)
class Call:
    """A tool call, as far as its *pieces* have come. A name may come later than the first piece."""

    index: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    def add(self, piece: ToolCall) -> None:
        """Add the next piece."""
        self.id = self.id or piece.id
        self.name = self.name or piece.name
        self.pieces.append(piece.arguments)

    @property
    def arguments(self) -> str:
        """All of the arguments that have come."""
        return "".join(self.pieces)


@dataclass(slots=True)
class Transcript:
    """What the first *records* of a stream make of its answer.

    *model* is the name that the upstream gave, if it gave one, else the one that was asked for. *end* is None while the
    stream is live.
    """

    content: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[Call] = field(default_factory=list)
    content_logprobs: list[Any] = field(default_factory=list)
    refusal_logprobs: list[Any] = field(default_factory=list)
    model: str | None = None
    created: int | None = None
    end: Terminal | None = None
    records: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Return what *events*, from the stream's start on, add up to."""
        transcript = cls()
        texts: dict[type, list[str]] = {Delta: [], Reasoning: [], Refusal: []}
        calls: dict[int, Call] = {}
        for event in events:
            transcript.records += 1
            match event:
                case Delta() | Reasoning() | Refusal():
                    texts[type(event)].append(event.text)
                case ToolCall():
                    calls.setdefault(event.index, Call(event.index)).add(event)
                case Logprobs():
                    transcript.content_logprobs += event.content
                    transcript.refusal_logprobs += event.refusal
                case Start():
                    transcript.model = event.model
                    transcript.created = event.created
                case Done():
                    transcript.end = event
                    transcript.model = event.model or transcript.model
                case Failure():
                    transcript.end = event
                case _:
                    assert_never(event)
        transcript.content = "".join(texts[Delta])
        transcript.reasoning = "".join(texts[Reasoning])
        transcript.refusal = "".join(texts[Refusal])
        transcript.calls = list(calls.values())
        return transcript


def call_id(stream_id: str, call: Call | ToolCall) -> str:
    """Return the id of a call: the output of a call has to name it, so one without an id gets one."""
    return call.id or f"call_{stream_id}_{call.index}"
