"""What a request may have in it, as soon as the operator limits what may be asked.

The API of an upstream has parameters, tools and files that cost more than a cap allows, that lead elsewhere, or that
are another principal's, and it gets new ones. So this is a list of what passes, at each level of a request, and
anything else is refused by name.

One place is open: any other field of an assistant's message passes. In these an upstream gets back the signatures and
the reasoning that it wants to see again. They count as a part of the prompt.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import orjson

from app.edge.access.prompt import NOTES, Object, Part, is_text, kind_of, parts_in
from app.edge.bodies import MOST_TOP_LOGPROBS
from app.errors import BadRequest
from app.wire.opaque import is_of_reasoning

# OpenAI's parameters that shape the answer, or name it (`metadata`). Not among them are
#   `service_tier`                     another price
#   `prediction`                       what is predicted wrongly is paid for as output, beyond any cap
#   `web_search_options`               each search is paid for, and so is what it finds, as input
#   `moderation`                       another model, which is asked, too
#   `prompt_cache_options`, `prompt_cache_retention`  what the account keeps, and for how long
#   `store`                            the account keeps the answer. `false` passes, because it is what absence means
#   `user`, `safety_identifier`        by these the upstream tells people apart, and blocks them
#   `modalities`, `audio`              an image or a sound costs more than text. `["text"]` passes, likewise
#   `functions`, `function_call`       no dialect takes them
_ORDINARY: Final = frozenset(
    (
        *("frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "metadata"),
        *("n", "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "reasoning_effort"),
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
# The tools that the client itself runs. Some upstreams take a further field of one for a tool of their own.
_CLIENTS: Final = ("function", "custom")
_OF_TOOLS: Final = frozenset(
    (
        *("name", "description", "parameters", "format", "strict", "cache_control"),
        *("async", "defer_loading", "output_schema"),
    )
)
_OF_CHOICES: Final = frozenset(("name", "mode", "tools"))
# The fields of any message; and those of an answer, beside which it may have any others.
_OF_MESSAGES: Final = frozenset(("role", "content", "name", "tool_call_id", "cache_control"))
_OF_ANSWERS: Final = frozenset(("tool_calls", "function_call", "refusal", "audio", "images", "files", "videos"))
# The fields of a part of text, beside those that are about the reasoning. These of them may be parts again.
_OF_TEXTS: Final = frozenset(
    (
        *("type", "text", "refusal", "data", "summary", "content", "id", "index", "annotations", "citations"),
        *("logprobs", "closed", "reference_ids", "cache_control", "extra_content"),
    )
)
_NESTED: Final = ("text", "thinking", "reasoning", "summary", "content")
# The fields of parts that are no text, and those of what is in them, by their types.
_OF_MEDIA: Final = frozenset(("type", "index", "cache_control"))
_OF_TYPES: Final = {
    "image_url": frozenset(("url", "detail", "format")),
    "input_audio": frozenset(("data", "format")),
    "file": frozenset(("file_data", "filename", "format", "file_id")),
}
# The names by which a request says what the upstream's account keeps; and these, and a container's, in JSON.
_STORED: Final = re.compile("(?:file|vector_store|container)_?ids?", re.ASCII | re.IGNORECASE)
_STORED_IN_JSON: Final = re.compile(
    b'"(?:(?:file|vector_store|container)_?ids?":|container":")', re.ASCII | re.IGNORECASE
)
# An address that only the upstream's own account, or its machine, can reach: `gs:`, `s3:`, `file:`. Some readers of
# addresses skip what is before the scheme, and Python's, as browsers do, skips tabs and line ends anywhere.
_ELSEWHERE: Final = re.compile(r"[^a-zA-Z0-9]*+(?!(?i:https?://|data:))[a-zA-Z][a-zA-Z0-9+.\t\r\n-]*+:[^ ]", re.ASCII)
# What of an address says where it leads; and its host, without a port.
_AUTHORITY: Final = re.compile(r"[^a-zA-Z0-9]*+https?://[/\\\t\r\n]*+([^/?#]*)", re.ASCII | re.IGNORECASE)
# The most characters of that. A host's name has 253 at most (RFC 1035); there may be a user's name before it.
_LONGEST_AUTHORITY: Final = 1024
_NO_BREAKS: Final = dict.fromkeys(map(ord, "\t\r\n"))
_HOST: Final = re.compile(r"\[[^\]]*\]|[^:]*")
# What else asks for log probabilities: vLLM's parameter, for those of each token of the prompt, and llama.cpp's.
_MORE_LOGPROBS: Final = ("prompt_logprobs", "n_probs")

_MAX_NAME: Final = 64  # characters of a client's name that an error repeats


@dataclass(frozen=True, slots=True)
class AllowList:
    """What passes: *parameters* besides the ordinary ones, types of tools, types of parts besides text; None is any.

    A request has at most *max_media* parts that are no text, with payloads of *max_media_bytes* together, as they are
    sent; 0 is no limit. *stored_files* says whether it may name what the upstream's account keeps, which is also what
    has an address at one of *hosts*, the upstreams' own. At each token it may ask for *max_top_logprobs* log
    probabilities besides the token's own; with 0, it may ask for none at all.
    """

    parameters: frozenset[str] | None = None
    tool_types: frozenset[str] | None = None
    media_types: frozenset[str] | None = None
    max_media: int = 0
    max_media_bytes: int = 0
    stored_files: bool = True
    max_top_logprobs: int = MOST_TOP_LOGPROBS
    hosts: frozenset[str] = frozenset()

    def check(self, messages: Sequence[Object], parameters: Object) -> None:
        """Raise BadRequest, which names the field and the setting, unless all of a request passes."""
        if self.parameters is not None:
            refused = parameters.keys() - _ORDINARY - self.parameters
            if parameters.get("store") is False:
                refused.discard("store")
            if parameters.get("modalities") == ["text"]:
                refused.discard("modalities")
            if refused:
                raise _refused(min(refused), "this service does not pass it on", "EXTRA_PARAMETERS")
            for index, message in enumerate(messages):
                self._check_message(message, f"messages[{index}]", self.parameters)
        self._check_tools(parameters)
        self._check_media(messages)
        self._check_logprobs(parameters)

    def check_responses(self, fields: Object) -> None:
        """Raise BadRequest as `check` does. *fields* are those that only Responses have."""
        if self.parameters is None:
            return
        refused = fields.keys() - _ORDINARY_IN_RESPONSES - self.parameters
        if "reasoning" not in self.parameters:
            refused |= {f"reasoning.{name}" for name in fields.get("reasoning", {}).keys() - _OF_REASONING}
        if refused:
            raise _refused(min(refused), "this service does not pass it on", "EXTRA_PARAMETERS")

    def _check_logprobs(self, parameters: Object) -> None:
        if (parameters.get("top_logprobs") or 0) > self.max_top_logprobs:
            what = f"at most {self.max_top_logprobs} are taken"
            raise _refused("top_logprobs", what, "MAX_TOP_LOGPROBS")
        if parameters.get("logprobs") and not self.max_top_logprobs:
            raise _refused("logprobs", "log probabilities are not taken", "MAX_TOP_LOGPROBS")
        for name in _MORE_LOGPROBS:
            asked = parameters.get(name)  # not checked before: -1 is all of a vocabulary, and some servers read texts
            if asked is None or (name == "n_probs" and asked == 0):  # of vLLM's, 0 asks for those of the tokens alone
                continue
            if not self.max_top_logprobs:
                raise _refused(name, "log probabilities are not taken", "MAX_TOP_LOGPROBS")
            if type(asked) is not int or not 0 <= asked <= self.max_top_logprobs:
                raise _refused(name, f"a number up to {self.max_top_logprobs} is taken", "MAX_TOP_LOGPROBS")

    def _check_message(self, message: Object, place: str, allowed: frozenset[str]) -> None:
        further = message.keys() - _OF_MESSAGES - allowed
        if message.get("role") == "assistant":
            # Upstreams that are written in Go read a field by its name in any case.
            known = _OF_MESSAGES | _OF_ANSWERS
            further = {name for name in further - _OF_ANSWERS if name.casefold() in known}
        if further:
            raise _further(place, further, f"a message of role {message.get('role')}", "EXTRA_PARAMETERS")

    def _check_tools(self, parameters: Object) -> None:
        for index, tool in enumerate(parameters.get("tools") or ()):
            self._check_tool(tool, f"tools[{index}]")
        self._check_choice(parameters.get("tool_choice"), "tool_choice")

    def _check_tool(self, tool: Object, place: str) -> None:
        kind = kind_of(tool)
        if self.tool_types is not None:
            if kind not in self.tool_types:
                raise _refused(f"{place}.type", "tools of this type are not taken", "TOOL_TYPES")
            further = _further_fields(tool, _OF_TOOLS) if kind in _CLIENTS else ()
            if further:
                raise _further(place, further, f"a tool of type {kind}", "TOOL_TYPES")
        if not self.stored_files and kind not in _CLIENTS and _STORED_IN_JSON.search(orjson.dumps(tool)):
            raise _refused(place, "it names a file that is kept at the upstream", "STORED_FILES")

    def _check_choice(self, choice: object, place: str) -> None:
        if not isinstance(choice, dict) or self.tool_types is None:
            return
        kind = kind_of(choice)
        if kind not in ("allowed_tools", "function", *self.tool_types):
            raise _refused(f"{place}.type", "tools of this type are not taken", "TOOL_TYPES")
        if kind == "allowed_tools" or kind in _CLIENTS:
            further = _further_fields(choice, _OF_CHOICES)
            if further:
                raise _further(place, further, "a choice of tools", "TOOL_TYPES")
        for where, fields in ((place, choice), (f"{place}.{kind}", choice.get(kind))):
            tools = fields.get("tools") if isinstance(fields, dict) else None
            for index, tool in enumerate(tools if isinstance(tools, list) else ()):
                self._check_choice(tool, f"{where}.tools[{index}]")

    def _check_media(self, messages: Sequence[Object]) -> None:
        if self.media_types is None and self.stored_files and not (self.max_media or self.max_media_bytes):
            return
        count = size = 0
        for part in parts_in(messages):
            text = is_text(part.part)
            if self.media_types is not None:
                wrong = _wrong_in_text(part.part) if text else _wrong_in_media(part, self.media_types)
                if wrong is not None:
                    raise _refused(f"{part.place}.{wrong[0]}", wrong[1], "MEDIA_TYPES")
            if text:
                continue
            strings = part.strings()
            if not self.stored_files:
                self._check_addresses(part, strings)
            count += max(1, len(part.payloads(strings)))
            if 0 < self.max_media < count:
                what = f"at most {self.max_media} parts that are no text are taken"
                raise _refused(part.place, what, "MAX_MEDIA")
            size += sum([len(text) for name, text in strings if name not in NOTES])
            if 0 < self.max_media_bytes < size:
                what = f"at most {self.max_media_bytes} bytes of pictures, sounds and files are taken"
                raise _refused(part.place, what, "MAX_MEDIA_BYTES")

    def _check_addresses(self, part: Part, strings: Iterable[tuple[str, str]]) -> None:
        """Raise BadRequest if a part that is no text says where it is in the upstream's account, or on its machine."""
        for name, text in strings:
            if _STORED.fullmatch(name) or (name == "id" and part.field == "audio"):
                raise _refused(part.place, "it names a file that is kept at the upstream", "STORED_FILES")
            if name in NOTES:
                continue
            if _ELSEWHERE.match(text):
                raise _refused(part.place, "its address is neither http: nor https: nor data:", "STORED_FILES")
            if self.hosts and (found := _AUTHORITY.match(text)):
                if len(found[1]) > _LONGEST_AUTHORITY:
                    raise _refused(part.place, "its address has a host that is too long", "STORED_FILES")
                if not self.hosts.isdisjoint(_hosts_in(found[1])):
                    raise _refused(part.place, "its address is one of the upstream's own", "STORED_FILES")


ANYTHING: Final = AllowList()


def _hosts_in(authority: str) -> Iterator[str]:
    """Yield the hosts that readers of addresses find in an *authority*: to some, a backslash is a slash."""
    plain = authority.translate(_NO_BREAKS)
    authority = unicodedata.normalize("NFKC", unquote(plain)).casefold()
    for whole in {authority, authority.partition("\\")[0]}:
        host = _HOST.match(whole.rpartition("@")[2])
        yield host[0].strip(". ") if host else ""


_Wrong = tuple[str, str]
"""The name of a field that does not pass, and what is wrong with it."""


def _wrong_in_media(part: Part, allowed: frozenset[str]) -> _Wrong | None:
    """Return what of a part that is no text does not pass."""
    if part.kind not in allowed:
        return "type", "parts of this type are not taken"
    own = _OF_TYPES.get(part.kind)
    further = _further_fields(part.part, own, _OF_MEDIA) if own is not None and part.field == "content" else ()
    return (_one_of(further), f"a part of type {part.kind} has its own fields only") if further else None


def _wrong_in_text(part: Object) -> _Wrong | None:
    """Return what in a part of text is media, or a field by which an upstream may take it for media."""
    if not part.keys() <= _OF_TEXTS:
        further = [name for name in part.keys() - _OF_TEXTS if not is_of_reasoning(name)]
        if further:
            return _one_of(further), "a part of text has its own fields only"
    for name in _NESTED:
        value = part.get(name)
        if isinstance(value, (list, dict)):
            for index, inner in enumerate(value if isinstance(value, list) else [value]):
                if isinstance(inner, dict):
                    wrong = _wrong_in_text(inner) if is_text(inner) else ("type", "parts of this type are not taken")
                    if wrong is not None:
                        where = f"{name}[{index}]" if isinstance(value, list) else name
                        return f"{where}.{wrong[0]}", wrong[1]
    return None


def _further_fields(value: Object, own: frozenset[str], outer: frozenset[str] | None = None) -> set[str]:
    """Return the fields that an object of a type has besides its *own*, which may be in a field of the type's name.

    If *outer* is given, its own are there only, and these are beside it.
    """
    kind = kind_of(value)
    inner = value.get(kind)
    further = value.keys() - (own | {"type"} if outer is None else outer) - {kind}
    return further | ({f"{kind}.{name}" for name in inner.keys() - own} if isinstance(inner, dict) else set())


def _further(place: str, fields: Iterable[str], what: str, setting: str) -> BadRequest:
    return _refused(f"{place}.{_one_of(fields)}", f"{what} has its own fields only", setting)


def _one_of(fields: Iterable[str]) -> str:
    """Return one of them, as an error may repeat it."""
    return min(fields)[:_MAX_NAME]


def _refused(field: str, what: str, setting: str) -> BadRequest:
    return BadRequest(f"'{field}': {what} (CHAT_SSE_{setting}).", param=field)
