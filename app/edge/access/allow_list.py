"""What a request may have in it, as soon as the operator limits what may be asked; and how long a prompt is.

The API of an upstream has parameters, tools and files that cost more than a cap allows, that lead elsewhere, or that
are another principal's, and it gets new ones. So this is a list of what passes, and anything else is refused by name.

Any other field of a message passes: in these an upstream gets back the signatures and the reasoning that it wants to
see again. They count as a part of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.edge.bodies import Parameters
from app.errors import BadRequest

# OpenAI's parameters that shape the answer, or name it (`metadata`). Not among them are
#   `service_tier`                     another price
#   `prediction`                       what is predicted wrongly is paid for as output, beyond any cap
#   `web_search_options`               each search is paid for, and so is what it finds, as input
#   `moderation`                       another model, which is asked, too
#   `prompt_cache_options`, `prompt_cache_retention`  what the account keeps, and for how long
#   `store`                            the account keeps the answer. `false` passes, because it is what absence means
#   `user`, `safety_identifier`        by these the upstream tells people apart, and blocks them
#   `audio`, `functions`, `function_call`  no dialect takes them
_ORDINARY: Final = frozenset(
    (
        *("frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "metadata"),
        *("modalities", "n", "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "reasoning_effort"),
        *("response_format", "seed", "stop", "temperature", "tool_choice", "tools", "top_logprobs", "top_p"),
        "verbosity",
    )
)
# Likewise those of Responses that chat completions lack, and of its `reasoning`. Not among them are
#   `context_management`   what is paid for besides
#   `prompt_cache_retention`  see above
_ORDINARY_IN_RESPONSES: Final = frozenset(
    ("client_metadata", "include", "max_tool_calls", "metadata", "reasoning", "truncation")
)
_OF_REASONING: Final = frozenset(("effort", "summary", "generate_summary"))
# Parts of text: the client's, and those of an answer, which it sends back.
_TEXTS: Final = frozenset(
    ("text", "input_text", "output_text", "refusal", "reasoning", "thinking", "redacted_thinking", "reference")
)
# The fields of a message that hold parts.
_PARTS: Final = ("content", "images")
# Where in a part of media its payload is.
_PAYLOADS: Final = ("url", "data", "file_data")
# A payload that is no text. A text file is text in base64: the model reads it as a part of the prompt.
_MEDIA: Final = re.compile("https?://|data:(?:image|audio|video)/|data:application/pdf[;,]", re.ASCII | re.IGNORECASE)
# A place that only the upstream's own account, or its machine, can reach: `gs:`, `s3:`, `file:`.
_ELSEWHERE: Final = re.compile("(?!https?:|data:)[a-z][a-z0-9+.-]*:", re.ASCII | re.IGNORECASE)
# The names by which a request says what the upstream's account keeps; and these, and a container's, in JSON.
_STORED: Final = frozenset(("file_id", "file_ids", "vector_store_id", "vector_store_ids", "container_id"))
_STORED_IN_JSON: Final = re.compile(b'"(?:file_ids?|vector_store_ids?|container_id)":|"container":"')
# A payload longer than this is left out before a part is encoded.
_COPIED: Final = 4096
# Some servers go by these fields of a part, whatever its type is.
_MEDIA_FIELDS: Final = frozenset(("image_url", "input_audio", "file", "video_url", "audio_url"))
# The tools that the client itself runs. Some upstreams take a further field of one for a tool of their own.
_CLIENTS: Final = ("function", "custom")
_TOOL_FIELDS: Final = frozenset(("type", "name", "description", "parameters", "format", "strict", "cache_control"))

_MAX_NAME: Final = 64  # characters of a client's name that an error repeats

_Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class AllowList:
    """What passes: *parameters* besides the ordinary ones, types of tools, types of parts besides text; None is any.

    A request has at most *max_media* parts that are no text, with payloads of *max_media_bytes* together, as they are
    sent; 0 is no limit. *stored_files* says whether it may name what the upstream's account keeps.
    """

    parameters: frozenset[str] | None = None
    tool_types: frozenset[str] | None = None
    media_types: frozenset[str] | None = None
    max_media: int = 0
    max_media_bytes: int = 0
    stored_files: bool = True

    def check(self, messages: Sequence[_Object], parameters: _Object) -> None:
        """Raise BadRequest, which names the field and the setting, unless all of a request passes."""
        if self.parameters is not None:
            refused = parameters.keys() - _ORDINARY - self.parameters
            if parameters.get("store") is False:
                refused.discard("store")
            if refused:
                raise _refused(min(refused), "this service does not pass it on", "EXTRA_PARAMETERS")
        self._check_tools(parameters)
        self._check_parts(messages)

    def check_responses(self, fields: _Object) -> None:
        """Raise BadRequest as `check` does. *fields* are those that only Responses have."""
        if self.parameters is None:
            return
        refused = fields.keys() - _ORDINARY_IN_RESPONSES - self.parameters
        if "reasoning" not in self.parameters:
            refused |= {f"reasoning.{name}" for name in fields.get("reasoning", {}).keys() - _OF_REASONING}
        if refused:
            raise _refused(min(refused), "this service does not pass it on", "EXTRA_PARAMETERS")

    def _check_tools(self, parameters: _Object) -> None:
        for index, tool in enumerate(parameters.get("tools") or ()):
            self._check_tool(tool, f"tools[{index}]")
        choice = parameters.get("tool_choice")
        chosen = _kind(choice) if isinstance(choice, dict) else "function"
        if self.tool_types is not None and chosen not in ("allowed_tools", "function", *self.tool_types):
            raise _refused("tool_choice.type", "tools of this type are not taken", "TOOL_TYPES")

    def _check_tool(self, tool: _Object, place: str) -> None:
        kind = _kind(tool)
        if self.tool_types is not None:
            if kind not in self.tool_types:
                raise _refused(f"{place}.type", "tools of this type are not taken", "TOOL_TYPES")
            further = tool.keys() - _TOOL_FIELDS - {kind} if kind in _CLIENTS else ()
            if further:
                what = f"a tool of type {kind} has its own fields only"
                raise _refused(f"{place}.{min(further)[:_MAX_NAME]}", what, "TOOL_TYPES")
        if not self.stored_files and kind not in _CLIENTS and _STORED_IN_JSON.search(orjson.dumps(tool)):
            raise _refused(place, "it names a file that is kept at the upstream", "STORED_FILES")

    def _check_parts(self, messages: Sequence[_Object]) -> None:
        count = size = 0
        for at, field, number, part in _parts(messages):
            kind = _kind(part)
            if kind in _TEXTS and _MEDIA_FIELDS.isdisjoint(part):
                continue
            if self.media_types is not None and kind not in self.media_types:
                raise _refused(f"{_place(at, field, number)}.type", "parts of this type are not taken", "MEDIA_TYPES")
            payload = _payload(part)
            if not self.stored_files and (_is_stored(part) or _ELSEWHERE.match(payload)):
                what = "it names a file that is kept at the upstream"
                raise _refused(_place(at, field, number), what, "STORED_FILES")
            count += 1
            size += len(payload)
            if 0 < self.max_media < count:
                what = f"at most {self.max_media} parts that are no text are taken"
                raise _refused(_place(at, field, number), what, "MAX_MEDIA")
            if 0 < self.max_media_bytes < size:
                what = f"at most {self.max_media_bytes} bytes of pictures, sounds and files are taken"
                raise _refused(_place(at, field, number), what, "MAX_MEDIA_BYTES")


ANYTHING: Final = AllowList()


def prompt_sizes(messages: Sequence[_Object], parameters: _Object) -> dict[str, int]:
    """Return how many characters of each field go upstream, except the payloads of media.

    A text counts as it is, and everything else as its JSON, with names and numbers. What is bounded anyway does not
    count: roles, and OpenAI's parameters that are a single number. JSON is measured by its encoder, because a walk in
    Python over a million numbers would hold the event loop.
    """
    sizes = {"messages": sum(map(_message_size, messages))}
    for name, value in parameters.items():
        if name not in Parameters.model_fields:
            sizes[name] = len(name) + _size(value)
        elif not isinstance(value, (int, float)):
            sizes[name] = _size(value)
    return sizes


def _message_size(message: _Object) -> int:
    size = 0
    rest = {}
    for name, value in message.items():
        if name in _PARTS and isinstance(value, list):
            size += sum(map(_part_size, value))
        elif name == "content":
            size += len(value or "")
        elif name != "role":
            rest[name] = value
    return size + _size(rest) if rest else size


def _part_size(part: Any) -> int:
    if not isinstance(part, dict):
        return _size(part)
    if _is_plain(part):
        return _size(part["text"])
    payload = _payload(part)
    if not payload or not (_MEDIA.match(payload) or part["type"] == "input_audio"):
        return _size(part)
    if len(payload) <= _COPIED:
        return _size(part) - len(payload)
    inner = part[part["type"]]
    emptied = "" if inner is payload else {name: "" if it is payload else it for name, it in inner.items()}
    return _size({**part, part["type"]: emptied})


def _size(value: object) -> int:
    return len(value) if isinstance(value, str) else len(orjson.dumps(value).decode())


def _parts(messages: Sequence[_Object]) -> Iterator[tuple[int, str, int, dict[str, Any]]]:
    """Yield the parts that are not just text: the message's number, its field, the part's number in that, the part."""
    for at, message in enumerate(messages):
        for field in _PARTS:
            parts = message.get(field)
            for number, part in enumerate(parts) if isinstance(parts, list) else ():
                if isinstance(part, dict) and not _is_plain(part):
                    yield at, field, number, part


def _place(at: int, field: str, number: int) -> str:
    return f"messages[{at}].{field}[{number}]"


def _is_plain(part: dict[str, Any]) -> bool:
    return len(part) == 2 and part.get("type") == "text" and "text" in part


def _payload(part: _Object) -> str:
    """Return the payload of a part that is no text, or ""."""
    kind = _kind(part)
    inner = None if kind in _TEXTS else part.get(kind)
    if isinstance(inner, dict):
        inner = next((inner[name] for name in _PAYLOADS if isinstance(inner.get(name), str)), "")
    return inner if isinstance(inner, str) else ""


def _kind(value: _Object) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def _is_stored(part: _Object) -> bool:
    """Whether a part that is no text names a file that the upstream's account keeps."""
    inner = part.get(_kind(part))
    return not (_STORED.isdisjoint(part) and (not isinstance(inner, dict) or _STORED.isdisjoint(inner)))


def _refused(field: str, what: str, setting: str) -> BadRequest:
    return BadRequest(f"'{field}': {what} (CHAT_SSE_{setting}).", param=field)
