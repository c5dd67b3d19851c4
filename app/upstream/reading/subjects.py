"""What an error that an upstream sent is about, as far as its words tell: the model, the content, the length, our key.

Upstreams say the same in a dozen ways, by `code`, `type` or in the message alone. The words here are those that they
have been seen to use. What is not recognised is an error about the request that says no more.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from app.errors import ContentRefused, ContextTooLong, ModelUnknown, Rejected

CODES: Final = ("code", "Code", "type", "status", "error_type")
"""The fields that hold an error's name."""

_MESSAGES: Final = (
    "message",
    "Message",
    "msg",
    "detail",
    "error_msg",
    "errmsg",
    "err_msg",
    "error_message",
    "errorMessage",
    "status_msg",
    "faultstring",
)
_MAX_SEARCHED: Final = 4096  # characters


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CONTEXT_CODES: Final = _words(
    "context_length_exceeded context_window_exceeded model_context_window_exceeded exceed_context_size_error "
    "string_above_max_length input_too_long prompt_too_long"
)
_CONTEXT: Final = re.compile(
    r"(?i)maximum (?:context|prompt|model) length|context (?:length|window|size) (?:of|is|exceed)|prompt is too long"
    r"|exceed(?:s|ed)?\b.{0,40}\b(?:context|model token limit)|input (?:is too long|length exceeds)|too many tokens"
    r"|reduce the length of the (?:messages|prompt|input)|input token count|range of input length"
    r"|(?:longer|larger|greater) than the (?:maximum )?(?:model|context)|(?:prompt|input) exceeds max(?:imum)? length"
    r"|`inputs` (?:tokens \+|must have less than)"
)
_CONTENT_CODES: Final = _words(
    "content_filter content_policy_violation content_filter_error responsibleaipolicyviolation "
    "data_inspection_failed datainspectionfailed moderation_blocked moderation_error content_moderation "
    "prohibited_content sensitive_content safety"
)
_CONTENT: Final = re.compile(
    r"(?i)content (?:management|usage )?polic|usage (?:polic|guideline)|content[ _-]filter"
    r"|\b(?:input|prompt|content|messages?|request|text|image)s?\b.{0,40}\bflagged"
    r"|flagged (?:as|by|for)\b.{0,40}\b(?:violat|moderation|content)|moderation|content exists risk"
    r"|safety (?:system|polic|filter|reasons)|inappropriate content|considered high risk|sensitive content"
)
_MODEL_CODES: Final = _words(
    "model_not_found model_not_available model_not_exist deploymentnotfound unknown_model modelnotfound "
    "model_not_supported invalid_model model.accessdenied"
)
_MODEL: Final = re.compile(
    r"(?i)\b(?:model|deployment)s?\b.{0,160}(?:\bnot (?:be )?(?:found|exist|available)|n[o'’]t (?:exist|have access)"
    r"|\bis not a valid model|\bidentifier is invalid)|\b(?:no such|unknown|invalid) model\b|\bnot a valid model\b"
    r"|unable to access model|n[o'’]t have access to (?:the )?model|\baccess to (?:the )?model\b.{0,160}\bdenied"
)
# A 404 is about the model if it speaks of one, but not as a part of a path (row H27).
_ANY_MODEL: Final = re.compile(r"(?i)(?<![/\w-])(?:models?|deployments?)(?![\w-])|endpoints found")
_BAD_URL: Final = re.compile(r"(?i)invalid url|no route|cannot (?:get|post)\b|unknown request url")
_KEY: Final = re.compile(
    r"(?i)\b(?:invalid|incorrect|missing|expired|wrong|no) api[ _-]?key|api[ _-]?key\b.{0,30}\b(?:not valid|invalid|"
    r"incorrect|expired|missing|not (?:found|provided|set))|api_key_invalid"
)
_CREDIT: Final = re.compile(
    r"(?i)credit balance|insufficient (?:account )?(?:balance|credits?|funds|quota)|not enough credits|out of credits"
    r"|balance is (?:insufficient|not enough)|quota is not enough|n[o'’]t have any credits|used all available credits"
    r"|budget has been exceeded|exceeded(?:token)?budget|spending limit"
)
# What upstreams say that may not, or cannot, stream. `stream` alone may be a part of a transport's words.
_NO_STREAM: Final = re.compile(
    r"(?i)\bstream(?:ing|ed)?\b(?!_|\.\w).{0,60}\b(?:not (?:supported|allowed|available|permitted|enabled)|unsupported"
    r"|disabled|must be false|should be false|not support)|\b(?:not support|unsupported|not allow(?:ed)?|cannot|must "
    r"be verified to|not permitted to|does ?n[o']t support)\b.{0,40}\bstream(?:ing|ed)?\b(?!_|\.\w)"
)
_BODY_STREAM: Final = re.compile(r"(?:^|; )body\.stream: ")  # FastAPI's: see `_validation_errors`
_STREAM_LOC: Final = ("stream", "body.stream")


def message_of(fields: Mapping[str, Any], *, nested: bool = False) -> str | None:
    """Return what the error says to people, by whichever name; None if it says nothing.

    FastAPI has a list in its place, and Mistral an object that holds one. An object that is *nested* holds no other.
    """
    for name in _MESSAGES:
        said = fields.get(name)
        if isinstance(said, dict) and not nested:
            said = message_of(said, nested=True)
        elif isinstance(said, list):
            said = _validation_errors(said)
        if isinstance(said, str) and said:
            return said
    return None


def first_of(fields: Mapping[str, Any], *names: str) -> Any:
    """Return the first of the fields that is not empty, or None."""
    return next((fields[name] for name in names if fields.get(name)), None)


def subject_of(status: int, fields: Mapping[str, Any]) -> type[Rejected] | None:
    """Return what an error about the request is about, if that can be told (rows H27, H31)."""
    codes = {word.lower() for name in CODES if isinstance(word := fields.get(name), str)}
    if codes & _MODEL_CODES or _said(_MODEL, fields):
        return ModelUnknown
    if codes & _CONTENT_CODES or _said(_CONTENT, fields) or _has_reasons(fields):
        return ContentRefused
    if codes & _CONTEXT_CODES or _said(_CONTEXT, fields):
        return ContextTooLong
    if status in (404, 410) and not _said(_BAD_URL, fields):
        if _said(_ANY_MODEL, fields) or fields.get("param") == "model":
            return ModelUnknown
        if isinstance(fields.get("param"), str) and fields["param"]:
            return Rejected  # a file, or an item of an earlier response
    return None


def is_about_key(fields: Mapping[str, Any]) -> bool:
    """Whether the upstream says that the key is wrong."""
    return _said(_KEY, fields)


def is_about_credit(fields: Mapping[str, Any]) -> bool:
    """Whether the upstream says that there is no money left."""
    return _said(_CREDIT, fields)


def disliked_by(fields: Mapping[str, Any]) -> frozenset[str]:
    """Return which of the service's own fields the error is about (rows H11, H29)."""
    found = set()
    said = [*(fields.get(name) for name in (*CODES, "param")), message_of(fields)]
    text = " ".join(str(value)[:_MAX_SEARCHED] for value in said if value)
    if "stream_options" in text or "include_usage" in text:
        found.add("stream_options")
    elif fields.get("param") in _STREAM_LOC or _NO_STREAM.search(text) or _BODY_STREAM.search(text):
        found.add("stream")
    return frozenset(found)


def _said(pattern: re.Pattern[str], fields: Mapping[str, Any]) -> bool:
    return pattern.search((message_of(fields) or "")[:_MAX_SEARCHED]) is not None


def _validation_errors(listed: list[object]) -> str:
    """Return FastAPI's list of errors as a sentence. Its `input` may be the whole request, and is left out."""
    items = [item for item in listed[:8] if isinstance(item, dict)]
    return "; ".join(
        f"{'.'.join(map(str, item['loc']))}: {item['msg']}"
        for item in items
        if isinstance(item.get("loc"), list) and isinstance(item.get("msg"), str)
    )


def _has_reasons(fields: Mapping[str, Any]) -> bool:
    """Whether it is OpenRouter's report of a moderation."""
    metadata = fields.get("metadata")
    return isinstance(metadata, dict) and isinstance(metadata.get("reasons"), list)
