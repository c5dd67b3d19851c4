"""What the items of a response are made of: a call, a part of text, a note on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.wire.json import string_in
from app.wire.long import long
from app.wire.notes import NOTHING_MORE, URL, inner_of
from app.wire.transcript import Call, call_id

Said = dict[str, Any]
"""An event without its `sequence_number`, or an item."""

_OWN_OF_CALL = frozenset(("id", "type", "status", "index", "call_id", "name", "arguments", "input"))
_INNER = frozenset(("function", "custom"))  # where chat completions have what Responses have in the call itself


@dataclass(slots=True)
class ItemCall(Call):
    """A call that has its place *at* in the output once it has started."""

    at: int | None = None

    @property
    def field(self) -> str:
        """The field that has its arguments."""
        return "input" if self.type == "custom" else "arguments"

    @property
    def event(self) -> str:
        """What the types of its events have in common."""
        return "custom_tool_call_input" if self.type == "custom" else "function_call_arguments"

    def item(self, stream_id: str, status: str) -> Said:
        """Return the item, as far as it has come."""
        kind = "custom_tool_call" if self.type == "custom" else "function_call"
        extra = self.extra.value
        inner = extra.get(self.type)
        more = {**(inner if isinstance(inner, dict) else {}), **extra}
        return {
            "id": self._id(stream_id),
            "type": kind,
            "status": status,
            "call_id": call_id(stream_id, self),
            "name": self.name,
            self.field: long(self.arguments),
            **{name: value for name, value in more.items() if name not in _OWN_OF_CALL | _INNER},
        }

    def delta(self, stream_id: str, piece: str) -> list[Said]:
        """Return the event for a *piece* of its arguments, if there is anything in that."""
        place: Said = {"item_id": self._id(stream_id), "output_index": self.at}
        return [{"type": f"response.{self.event}.delta", **place, "delta": piece}] if piece else []

    def _id(self, stream_id: str) -> str:
        return f"{'ctc' if self.type == 'custom' else 'fc'}_{stream_id}_{self.at}"


def text_part(text: str, annotations: Sequence[Any] = (), logprobs: Sequence[Any] = ()) -> Said:
    """Return a part of text, with its notes and the log probabilities of its tokens."""
    return {"type": "output_text", "text": text, "annotations": [*annotations], "logprobs": [*logprobs]}


def annotation(note: Any) -> Any:
    """Return a note in the form of Responses, which have no inner object, and require all of a citation's fields."""
    inner = inner_of(note)
    kind = string_in(note, "type")
    flat = note if inner is note else {"type": kind, **inner}
    if kind == URL:
        flat = NOTHING_MORE | flat
    return flat
