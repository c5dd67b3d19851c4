"""An answer put together from its events: the one fold, for every dialect that shows an answer whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never

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

    @staticmethod
    def of(events: Iterable[Event]) -> Transcript:
        """Return what *events*, from the stream's start on, add up to."""
        draft = Draft()
        draft.add(events)
        return draft.transcript()

    @property
    def media(self) -> list[Media]:
        """The images, sounds and files."""
        return [part for part in self.parts if isinstance(part, Media)]


class Draft:
    """A transcript in the making, for an answer that is too long to be put together in one go."""

    def __init__(self) -> None:
        self.records = 0
        self._parts: list[str | Media] = []  # texts in pieces
        self._reasoning: list[str] = []
        self._reasoning_field = Reasoning.FIELD
        self._refusal: list[str] = []
        self._calls: dict[int, Call] = {}
        self._content_logprobs: list[Any] = []
        self._refusal_logprobs: list[Any] = []
        self._annotations: list[Any] = []
        self._citations: Sequence[Any] = ()
        self._search_results: Sequence[Any] = ()
        self._chunk: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}
        self._delta = Joined()
        self._model: str | None = None
        self._created: int | None = None
        self._end: Terminal | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Add the next *events*."""
        texts: list[str] = []  # since the last media
        reasoning: list[str] = []
        refusal: list[str] = []
        for event in events:
            self.records += 1
            match event:
                case Delta(text):
                    texts.append(text)
                case Reasoning(text):
                    reasoning.append(text)
                    self._reasoning_field = event.FIELD
                case Refusal(text):
                    refusal.append(text)
                case Media():
                    self._parts += (*_joined(texts), event)
                    texts.clear()
                case Annotation():
                    self._annotations += event.annotations
                    self._citations = event.citations or self._citations
                    self._search_results = event.search_results or self._search_results
                case Extra():
                    self._chunk.update(event.chunk)
                    self._choice.update(event.choice)
                    self._delta.add(event.delta)
                case ToolCall():
                    self._calls.setdefault(event.index, Call(event.index)).add(event)
                case Logprobs():
                    self._content_logprobs += event.content
                    self._refusal_logprobs += event.refusal
                case Start():
                    self._model = event.model
                    self._created = event.created
                case Done():
                    self._end = event
                    self._model = event.model or self._model
                case Failure():
                    self._end = event
                case _:
                    assert_never(event)
        # Joined now, a text takes a twentieth of the memory of its pieces.
        self._parts += _joined(texts)
        self._reasoning += _joined(reasoning)
        self._refusal += _joined(refusal)

    def transcript(self) -> Transcript:
        """Return what has been added. It is the draft's own, so nothing may be added after that."""
        parts: list[str | Media] = []
        texts: list[str] = []
        for part in self._parts:
            if isinstance(part, str):
                texts.append(part)
            else:
                parts += (*_joined(texts), part)
                texts.clear()
        parts += _joined(texts)
        return Transcript(
            content="".join([part for part in parts if isinstance(part, str)]),
            reasoning="".join(self._reasoning),
            reasoning_field=self._reasoning_field,
            refusal="".join(self._refusal),
            calls=[*self._calls.values()],
            content_logprobs=self._content_logprobs,
            refusal_logprobs=self._refusal_logprobs,
            annotations=self._annotations,
            citations=self._citations,
            search_results=self._search_results,
            parts=parts,
            extra=Extra(self._chunk, self._choice, self._delta.value),
            model=self._model,
            created=self._created,
            end=self._end,
            records=self.records,
        )


def _joined(texts: Sequence[str]) -> list[str]:
    text = "".join(texts)
    return [text] if text else []


def call_id(stream_id: str, call: Call | ToolCall) -> str:
    """Return the id of a call: the output of a call has to name it, so one without an id gets one."""
    return call.id or f"call_{stream_id}_{call.index}"
