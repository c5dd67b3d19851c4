"""What there is in a response besides text, reasoning and the client's calls: images, notes, items of the upstream's.

An item that a chat has no word for is an `Extra` at `delta.output`, as it came. Encrypted reasoning is one at
`delta.reasoning_details`, in the form that OpenRouter gave it, so that a chat's client sends it back.
"""

from __future__ import annotations

from typing import Any, Final

from app.upstream.reading.answer import Answer
from app.upstream.reading.extras import unknown
from app.upstream.reading.media import kind_of, media_of
from app.upstream.reading.values import is_empty, kept, list_of, text_of

ENCRYPTED: Final = "reasoning.encrypted"
FORMAT: Final = "openai-responses-v1"
_MESSAGE: Final = frozenset(["id", "type", "role", "status", "content"])
TEXT_FIELD: Final = {"output_text": "text", "text": "text", "refusal": "refusal", "reasoning_text": "text"}
"""Where the text of a whole part is, by the part's type."""
_PART: Final = frozenset(["type", "text", "refusal", "annotations", "logprobs"])
_IMAGE: Final = "image_generation_call"
# The items that the client has to act upon, as with a call of its shell or a request for its approval, are those of
# these types, except the calls of tools that only run upstream. An answer may be nothing else.
_FOR_CLIENT: Final = ("_call", "_request")
_DONE_UPSTREAM: Final = frozenset((_IMAGE, "web_search_call", "file_search_call", "code_interpreter_call", "mcp_call"))


def add_item(answer: Answer, item: dict[str, Any], at: int) -> None:
    """Take a whole item, except its texts and calls, into *answer*. *at* is its place."""
    kind = text_of(item.get("type"))
    if kind == "message":
        more = unknown(item, _MESSAGE)
        if more:
            _add_output(answer, {"type": kind, "id": kept(item.get("id")), **more})
    elif kind == "reasoning":
        if item.get("encrypted_content"):
            thought = {"type": ENCRYPTED, "id": item.get("id"), "data": item["encrypted_content"]}
            answer.add_extra({}, {}, {"reasoning_details": [kept(thought | {"format": FORMAT, "index": at})]})
    elif kind == _IMAGE:
        image = media_of({name: item.get(name) for name in ("result", "output_format")}, "image")
        if image is not None:
            image.raw = None
            answer.add_media(image)
        _add_output(answer, {name: value for name, value in item.items() if name != "result"})
    else:
        for output in list_of(item.get("outputs")):  # of a code interpreter
            if isinstance(output, dict) and (shown := kind_of(output)) is not None:
                add_media(answer, output, shown)
        _add_output(answer, item)


def add_part(answer: Answer, part: dict[str, Any], at: int) -> None:
    """Take a whole part, except its text, of the item at place *at* into *answer*. It may come again.

    A part that is a text is an extra with the fields that it has besides: its text has been said.
    """
    answer.add_notes(kept(list_of(part.get("annotations"))))
    kind = kind_of(part)
    if kind is not None:
        add_media(answer, part, kind)
    elif more := unknown(part, _PART):
        form = text_of(part.get("type"))
        answer.add_part({"type": form, **more} if form in TEXT_FIELD else kept(part), at)


def add_media(answer: Answer, value: object, kind: str) -> None:
    """Take an image, a sound or a file into *answer*, which is malformed if it cannot be understood."""
    media = media_of(value, kind)
    if media is not None:
        answer.add_media(media)
    elif not is_empty(value):
        answer.refuse()


def _add_output(answer: Answer, item: dict[str, Any]) -> None:
    kind = text_of(item.get("type"))
    answer.add_item(kept(item), is_content=kind.endswith(_FOR_CLIENT) and kind not in _DONE_UPSTREAM)
