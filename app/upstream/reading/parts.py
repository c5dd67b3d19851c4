"""Content that comes in parts, of which each may be text, reasoning, a refusal, an image, a call or anything else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from app.events import Delta, Reasoning, Refusal
from app.upstream.reading.answer import Answer
from app.upstream.reading.media import kind_of, media_of
from app.upstream.reading.values import is_empty, kept, list_of, text_of, text_within

PARTS: Final = "content_parts"
"""The field of an extra delta that holds the parts with more in them than their text, such as a signature."""
_TEXT: Final = frozenset(("text", "output_text", "input_text"))
_THOUGHTS: Final = ("reasoning", "thinking", "thought")
_CALLS: Final = frozenset(("tool_use", "tool_call", "function_call", "toolcall"))
_NOTES: Final = frozenset(("reference", "references", "citation", "citations", "annotation"))
# What of a part of reasoning is its text, or says no more than that there is one.
_PLAIN: Final = frozenset(("type", "text", "thinking", "summary", "reasoning", "content", "index"))


def read_parts(
    answer: Answer, parts: list[Any], with_thinking: bool, read_call: Callable[[dict[str, Any]], None]
) -> None:
    """Read *parts* into *answer* (row C3), reasoning only *with_thinking*: it may stand elsewhere, too.

    A part of no known type, without a text, is kept as it is; one without a type makes the answer malformed.
    """
    more: list[Any] = []
    for part in parts:
        if not isinstance(part, dict):
            answer.add_text(Delta, text_within(part) if isinstance(part, list) else text_of(part))
            continue
        kind = text_of(part.get("type")).lower()
        text = text_within(part)
        if kind in _TEXT and text:
            answer.add_text(Delta, text)
            answer.add_notes(kept([*list_of(part.get("annotations")), *list_of(part.get("citations"))]))
        elif any(word in kind for word in _THOUGHTS) or (not kind and part.get("thinking")):
            if with_thinking:
                answer.add_text(Reasoning, text)
            if not all(name in _PLAIN or is_empty(value) for name, value in part.items()):
                more.append(kept(part))
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
            more.append(kept(part))
        elif not kind and not is_empty(part):
            answer.refuse()
    if more:
        answer.add_extra({}, {}, {PARTS: more})
