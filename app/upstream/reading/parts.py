"""Content that comes in parts, of which each may be text, reasoning, a refusal, an image, a call or anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.events import Delta, Reasoning, Refusal
from app.upstream.reading.answer import Answer
from app.upstream.reading.media import kind_of, media_of
from app.upstream.reading.values import is_empty, kept, list_of, object_of, text_of, text_within

_TEXT: Final = frozenset(("text", "output_text", "input_text"))
_THOUGHTS: Final = ("reasoning", "thinking", "thought")
_CALLS: Final = frozenset(("tool_use", "tool_call", "function_call", "toolcall"))
_NOTES: Final = frozenset(("reference", "references", "citation", "citations", "annotation"))
# What of a part of text is the text, is read elsewhere, or says no more than that there is one.
_PLAIN: Final = frozenset(("type", "text", "annotations", "citations", "id", "index", "role", "status"))
_PLAIN_TEXT: Final = frozenset(("type", "value", "text", "annotations"))


def read_parts(
    answer: Answer, parts: list[Any], with_thinking: bool, read_call: Callable[[dict[str, Any]], None]
) -> None:
    """Read *parts* into *answer* (row C3), reasoning only *with_thinking*: it may stand elsewhere, too.

    A part of reasoning, one of text with more in it than that, and one of no known type are kept as they came, besides:
    an upstream takes reasoning back as it had sent it, or not at all. A part without a type and a text makes the answer
    malformed.
    """
    for part in parts:
        if not isinstance(part, dict):
            answer.close_part()
            answer.add_text(Delta, text_within(part) if isinstance(part, list) else text_of(part))
            continue
        kind = text_of(part.get("type")).lower()
        text = text_within(part)
        thinks = is_thought(kind) or (not kind and bool(part.get("thinking")))
        if thinks or (kind in _TEXT and _has_more(part)):
            answer.add_piece(part)
        else:
            answer.close_part()
        if thinks:
            if with_thinking:
                answer.add_text(Reasoning, text)
        elif kind in _TEXT:
            inner = object_of(part.get("text"))
            notes = (part.get("annotations"), part.get("citations"), inner.get("annotations"))
            answer.add_text(Delta, text)
            answer.add_notes(kept([note for value in notes for note in list_of(value)]))
        elif kind == "refusal":
            answer.add_text(Refusal, text)
        elif kind in _CALLS:
            read_call({**part, "type": "function"} if "function" in part or "name" in part else part)
        elif kind in _NOTES:
            answer.add_notes([kept(part)])
        elif (media_kind := kind_of(part)) is not None:
            media = media_of(part, media_kind, "content")
            if media is not None:
                answer.add_media(media)
            elif not is_empty({**part, "type": None}):
                answer.refuse()
        elif text:
            answer.add_text(Delta, text)
        elif kind and not is_empty({**part, "type": None}):
            answer.add_piece(part)
        elif not kind and not is_empty(part):
            answer.refuse()


def is_thought(kind: str) -> bool:
    """Whether a part is of reasoning, by its *kind*, in small letters."""
    return any(word in kind for word in _THOUGHTS)


def _has_more(part: dict[str, Any]) -> bool:
    """Whether a part of text has more in it than the text and the notes on it."""
    inner = object_of(part.get("text"))
    return not (
        all(name in _PLAIN or is_empty(value) for name, value in part.items())
        and all(name in _PLAIN_TEXT or is_empty(value) for name, value in inner.items())
    )
