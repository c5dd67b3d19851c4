"""Finish reasons: what upstreams call them, and what they mean."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

from app.upstream.reading.values import encodable, text_of

FAILED: Final = "failed"
"""Stands for a reason that means a failure, and not the end of an answer (row E11)."""

_SPELLINGS: Final = {
    "": "null none unspecified notfinished unfinished inprogress pending",
    "unknown": "unknown",
    "stop": "stop stopped eos eostoken eot endofturn endturn endoftext stopsequence stopsequences stoptoken end finish "
    "finished complete completed done success normal",
    "length": "length modellength maxlength maxlen maxtoken maxtokens maxtokensreached maxtokensexceeded maximumtokens "
    "maxoutputtokens maxnewtokens maxcompletiontokens tokenlimit outputlimit modelcontextwindowexceeded contextlength "
    "contextlengthexceeded contextwindowexceeded maxcontext errorlimit repetition repetitiontruncation",
    "tool_calls": "tool tools toolcall toolcalls tooluse functioncall functioncalls functions",
    "content_filter": "contentfilter contentfiltered contentpolicy contentpolicyviolation contentmoderation sensitive "
    "safety imagesafety recitation imagerecitation blocked blocklist prohibitedcontent imageprohibitedcontent spii "
    "language refusal refused moderation moderated guardrail guardrailintervened errortoxic modelarmor",
    FAILED: "fail abort aborted cancel canceled cancelled usercancel insufficientsystemresource timelimit "
    "unexpectedtoolcall toomanytoolcalls functioncallfilter missingthoughtsignature",
}
_MEANING: Final = {word: reason for reason, words in _SPELLINGS.items() for word in words.split()}
_PREFIXES: Final = ("finishreason", "reason")  # of enumerations: `FinishReason.STOP`, `REASON_STOP`
# How a word that is not in the table begins or ends if it names a failure: `api_error`, `MALFORMED_RESPONSE`.
_FAILING: Final = re.compile(
    "((finish)?reason)?(error|malformed).*"
    "|.*(error|exception|failed|failure|overloaded|unavailable|disconnected|timeout|timedout)"
)


def read_finish(said: Any) -> tuple[str, str]:
    """Return a finish reason in our words and in the upstream's.

    Ours is one of `Done`'s, `FAILED`, or "" if the upstream has given none yet (rows C20, E11). Case and separators do
    not count. Some put the reason into an object, as its `type` or `reason`. Of a word that says more after a colon,
    as Google's `content_filter: RECITATION` does, the first part that is known counts, and a failure before that.
    """
    if isinstance(said, dict):
        said = said.get("type") or said.get("reason")
    if not isinstance(said, str) or not said:
        return "", ""
    return _read(said[:64])


@lru_cache(maxsize=256)  # an upstream says the same words every time
def _read(said: str) -> tuple[str, str]:
    meaning = _meaning(said)
    if meaning is None:
        parts = [part for part in map(_meaning, said.split(":", 1)) if part]
        meaning = FAILED if FAILED in parts else next(iter(parts), "other")
    return meaning, encodable(said)


def _meaning(said: str) -> str | None:
    word = re.sub("[^a-z0-9]", "", said.lower())
    for prefix in ("", *_PREFIXES):
        if (reason := _MEANING.get(word.removeprefix(prefix))) is not None:
            return reason
    return FAILED if _FAILING.fullmatch(word) else None


def has_failed(said: object) -> bool:
    """Return whether a finish reason means a failure."""
    return read_finish(text_of(said))[0] == FAILED
