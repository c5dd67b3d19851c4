"""What of a request goes into the prompt: its texts, and its media, which have bounds of their own.

The list of what passes, the cap on the prompt and the budgets all go by this, so a picture is the same to each of them,
whatever the dialect was and wherever in a message it stands. What is no payload of media is text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from app.edge.bodies import Parameters
from app.usage import estimate_tokens

# What a picture, a sound or a file is taken for, in tokens, if the upstream does not count them.
_MEDIA_TOKENS: Final = 1_500
# Parts of text: the client's, and those of an answer, which it sends back.
_TEXTS: Final = frozenset(
    (
        *("text", "input_text", "output_text", "summary_text", "summary_encrypted_text", "reasoning_text"),
        *("refusal", "reasoning", "thinking", "redacted_thinking", "reference"),
    )
)
# The fields of a message that hold media, and the type of media that do not say theirs. Only answers have the others.
_FIELDS: Final = {
    "content": "",
    **dict.fromkeys(("images", "image", "image_url"), "image_url"),
    **dict.fromkeys(("files", "file"), "file"),
    **dict.fromkeys(("videos", "video"), "video_url"),
    "audio": "input_audio",
}
NOTES: Final = frozenset(("type", "detail", "format", "filename", "transcript", "title", "context", "text", "id"))
"""The fields of media that are no addresses, and no payloads."""
# Some servers go by these fields of a part, whatever its type is.
_DECISIVE: Final = frozenset(("image_url", "input_audio", "file", "video_url", "audio_url"))
# A payload that is no text. A text file is text in base64, and a drawing in SVG is text, too: the model reads both.
_PAYLOAD: Final = re.compile(
    r"https?://|data:(?:image/(?!svg)|audio/|video/|application/pdf[;,])", re.ASCII | re.IGNORECASE
)
# A payload that is longer is left out before a part is encoded.
_COPIED: Final = 4096

Object = Mapping[str, Any]


class Part(NamedTuple):
    """A *part* of a message that is more than text in its usual form, and the *place* where it is."""

    at: int
    field: str
    number: int | None
    part: Any

    @property
    def place(self) -> str:
        """Where it is in the request, as an error names it."""
        return f"messages[{self.at}].{self.field}" + ("" if self.number is None else f"[{self.number}]")

    @property
    def kind(self) -> str:
        """Its type; "" if it has none."""
        return kind_of(self.part) or _FIELDS[self.field]

    def strings(self) -> list[tuple[str, str]]:
        """Return all strings in it, each with the name of its field."""
        found = []
        waiting = [(self.field, self.part)]
        while waiting:
            name, value = waiting.pop()
            if isinstance(value, str):
                found.append((name, value))
            elif isinstance(value, dict):
                waiting += value.items()
            elif isinstance(value, list):
                waiting += [(name, each) for each in value]
        return found

    def payloads(self, strings: Iterable[tuple[str, str]] | None = None) -> list[str]:
        """Return those of its *strings* that are no text."""
        sound = self.kind == "input_audio"
        strings = self.strings() if strings is None else strings
        return [
            text for name, text in strings if (sound and name == "data") or (name not in NOTES and _PAYLOAD.match(text))
        ]


def parts_in(messages: Sequence[Object]) -> Iterator[Part]:
    """Yield the parts of all messages, except those that are text and say nothing else."""
    for at, message in enumerate(messages):
        for field in _FIELDS:
            value = message.get(field)
            if isinstance(value, list):
                others = []
                for number, part in enumerate(value):
                    if not isinstance(part, dict):
                        others.append(part)
                    elif not _is_plain(part):
                        yield Part(at, field, number, part)
                if others:  # together: there may be very many
                    yield Part(at, field, None, others)
            elif value is not None and field != "content":
                yield Part(at, field, None, value)


def prompt_sizes(messages: Sequence[Object], parameters: Object, measure: Callable[[str], int] = len) -> dict[str, int]:
    """Return the size of what each field puts into the prompt, except the payloads of media.

    A text counts as it is, and everything else as its JSON, with names and numbers. What is bounded anyway does not
    count: roles, and OpenAI's parameters that are a single number. JSON is measured by its encoder, because a walk in
    Python over a million numbers would hold the event loop.
    """

    def size_of(value: object) -> int:
        return measure(value if isinstance(value, str) else orjson.dumps(value).decode())

    size = 0
    for message in messages:
        rest = {name: value for name, value in message.items() if name not in _FIELDS and name != "role"}
        size += size_of(rest) if rest else 0
        content = message.get("content")
        if isinstance(content, str):
            size += measure(content)
        elif content:
            size += sum([measure(part["text"]) for part in content if isinstance(part, dict) and _is_plain(part)])
    for part in parts_in(messages):
        payloads = [] if is_text(part.part) else part.payloads()
        if any(len(payload) > _COPIED for payload in payloads):
            size += size_of(_without(part.part, set(map(id, payloads))))
        else:
            size += size_of(part.part) - sum(map(measure, payloads))
    sizes = {"messages": size}
    for name, value in parameters.items():
        if name not in Parameters.model_fields:
            sizes[name] = measure(name) + size_of(value)
        elif not isinstance(value, (int, float)):
            sizes[name] = size_of(value)
    return sizes


def prompt_tokens(messages: Sequence[Object], parameters: Object) -> int:
    """Return about how many tokens the prompt is. A message takes four tokens besides what is in it."""
    size = sum(prompt_sizes(messages, parameters, _utf8_size).values())
    media = sum(not is_text(part.part) for part in parts_in(messages))
    return estimate_tokens(16 * len(messages) + size) + media * _MEDIA_TOKENS


def is_text(part: object) -> bool:
    """Whether a part is text: one that an upstream may take for media is not."""
    return isinstance(part, dict) and kind_of(part) in _TEXTS and _DECISIVE.isdisjoint(part)


def kind_of(value: object) -> str:
    """Return the type that an object says it has, or ""."""
    kind = value.get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


def _is_plain(part: Object) -> bool:
    return len(part) == 2 and part.get("type") == "text" and isinstance(part.get("text"), str)


def _without(value: Any, payloads: Collection[int]) -> Any:
    """Return *value* with "" in the places of *payloads*, which are given by their identity: they may be large."""
    if isinstance(value, str):
        return "" if id(value) in payloads else value
    if isinstance(value, dict):
        return {name: _without(each, payloads) for name, each in value.items()}
    return [_without(each, payloads) for each in value] if isinstance(value, list) else value


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="replace"))
