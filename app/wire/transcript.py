"""An answer put together from its events: the one fold, for every dialect that shows an answer whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self, assert_never

from app.events import (
    Annotation,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    Reasoning,
    Refusal,
    Start,
    Terminal,
    ToolCall,
)
from app.wire.joined import Joined


@dataclass(slots=True)
class Call:
    """A tool call, as far as its *pieces* have come. A name may come later than the first piece, and in pieces."""

    index: int
    id: str = ""
    names: list[str] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    type: str = "function"
    extra: Joined = field(default_factory=Joined)

    def add(self, piece: ToolCall) -> None:
        """Add the next piece."""
        self.id = self.id or piece.id
        if piece.name:
            self.names.append(piece.name)
        self.pieces.append(piece.arguments)
        self.type = piece.type
        if piece.extra:
            self.extra.add(piece.extra)

    @property
    def name(self) -> str:
        """All of the name that has come."""
        return "".join(self.names)

    @property
    def arguments(self) -> str:
        """All of the arguments that have come."""
        return "".join(self.pieces)


@dataclass(slots=True)
class Transcript:
    """What the first *records* of a stream make of its answer.

    *parts* are the answer's texts, each followed by the media that stood between it and the next; *content* are the
    texts alone. *reasoning_field* is what the upstream calls the reasoning. *extra* is joined, piece by piece. *model*
    is the name that the upstream gave, if it gave one, else the one that was asked for. *end* is None while the stream
    is live.
    """

    content: str = ""
    reasoning: str = ""
    reasoning_field: str = Reasoning.FIELD
    refusal: str = ""
    calls: list[Call] = field(default_factory=list)
    content_logprobs: list[Any] = field(default_factory=list)
    refusal_logprobs: list[Any] = field(default_factory=list)
    annotations: list[Any] = field(default_factory=list)
    citations: Sequence[Any] = ()
    search_results: Sequence[Any] = ()
    parts: list[str | Media] = field(default_factory=list)
    extra: Extra = field(default_factory=Extra)
    model: str | None = None
    created: int | None = None
    end: Terminal | None = None
    records: int = 0

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        """Return what *events*, from the stream's start on, add up to."""
        transcript = cls()
        texts: list[str] = []  # since the last media
        reasoning: list[str] = []
        refusal: list[str] = []
        calls: dict[int, Call] = {}
        chunk: dict[str, Any] = {}
        choice: dict[str, Any] = {}
        delta = Joined()
        for event in events:
            transcript.records += 1
            match event:
                case Delta(text):
                    texts.append(text)
                case Reasoning(text):
                    reasoning.append(text)
                    transcript.reasoning_field = event.FIELD
                case Refusal(text):
                    refusal.append(text)
                case Media():
                    transcript.parts += (*_joined(texts), event)
                    texts.clear()
                case Annotation():
                    transcript.annotations += event.annotations
                    transcript.citations = event.citations or transcript.citations
                    transcript.search_results = event.search_results or transcript.search_results
                case Extra():
                    chunk.update(event.chunk)
                    choice.update(event.choice)
                    delta.add(event.delta)
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
        transcript.parts += _joined(texts)
        transcript.content = "".join([part for part in transcript.parts if isinstance(part, str)])
        transcript.reasoning = "".join(reasoning)
        transcript.refusal = "".join(refusal)
        transcript.calls = list(calls.values())
        transcript.extra = Extra(chunk, choice, delta.value)
        return transcript

    @property
    def media(self) -> list[Media]:
        """The images, sounds and files."""
        return [part for part in self.parts if isinstance(part, Media)]


def _joined(texts: Sequence[str]) -> list[str]:
    text = "".join(texts)
    return [text] if text else []


def call_id(stream_id: str, call: Call | ToolCall) -> str:
    """Return the id of a call: the output of a call has to name it, so one without an id gets one."""
    return call.id or f"call_{stream_id}_{call.index}"
