"""An upstream's words as a client may see them: bounded, on one line, without markup, keys or the operator's secrets.

A client may see its own words again: they say what is wrong with the request, and clients go by them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from functools import cache, partial
from itertools import chain
from typing import Final

MAX_MESSAGE: Final = 300  # characters
REDACTED: Final = "[redacted]"

# A longer text is no message but an echo.
_MAX_TEXT = 16 * 1024
# Secrets that are shorter than this are words.
_MIN_SECRET = 8
# So many characters of a secret betray it.
_TELLING = 24

_PAGE = re.compile(r"<\s*(?:!doctype|html|head|body|title)\b", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+")
_KEY = re.compile(
    r"""
      (?i:\b(?:bearer|basic)\s+)[^\s"'`,;]{8,}
    | \b(?i:sk|pk|rk|gsk|csk|xai|pplx|nvapi|hf|r8|fw|ghp|org|proj)[-_][^\s"'`,;]{6,}
    | \bAIza[\w-]{20,}
    | \b(?i:team|api[ ]key)(?i:[ ]id)?:[ ](?=[\w-]{0,40}[0-9])[\w-]+               # what xAI tells of an account
    | \beyJ[\w-]{8,}[.\w-]*                                                      # a JSON Web Token
    | \b(?<!-tool-)(?=[A-Za-z]*[0-9])[A-Za-z0-9+/]{24,}={0,2}                    # hexadecimal, base64; no call's id
    | (?<![\w-])(?P<url>[A-Za-z0-9_-]{40,})={0,2}                               # base64 as in URLs: see `_redacted`
    """,
    re.VERBOSE | re.ASCII,
)

_PIECE = re.compile(r"[\w-]+")
_SECRET_PIECE = re.compile(rf"[\w-]{{{_MIN_SECRET},}}")

Presenter = Callable[[str | None], str | None]
"""Returns a text as `presentable` has it."""


def presenter(secrets: Iterable[str], own: Callable[[], Iterable[str]] = tuple) -> Presenter:
    """Return `presentable` for one request. *own* returns the client's words, which look like keys now and then."""
    secrets = tuple(secrets)
    return partial(
        presentable, secrets=secrets, own=cache(lambda: _found(_PIECE, own()) - _found(_SECRET_PIECE, secrets))
    )


def presentable(
    said: str | None, secrets: Iterable[str], own: Callable[[], AbstractSet[str]] = frozenset
) -> str | None:
    """Return *said* as a client may see it, or None if nothing of it is fit to be seen.

    What looks like a key stays if all of it is among the client's *own* words: names of tools, fields and models.
    """
    # Row H3: a page is for people before a browser.
    if said is None or len(said) > _MAX_TEXT or _PAGE.search(said):
        return None
    text = _UNPRINTABLE.sub(" ", _TAG.sub("", scrub(said, secrets)))
    text = " ".join(_KEY.sub(lambda match: _redacted(match, own), text).split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return *text* without any secret of at least 8 characters, plain or escaped as in JSON, or in JSON within that.

    Echoes are often cut short, so the first 24 characters of a secret are taken out as well.
    """
    for secret in sorted(set(secrets), key=len, reverse=True):  # or a short one would hide the rest of a longer one
        if len(secret) < _MIN_SECRET:
            continue
        once = _escaped({secret})
        forms = {secret, *once, *_escaped(once)}
        for form in forms:
            text = text.replace(form, REDACTED)
        for beginning in {form[:_TELLING] for form in forms if len(form) > _TELLING}:
            while (start := text.find(beginning)) >= 0:  # several forms may begin like this
                end = start + max(_common_length(text[start:], form) for form in forms)
                text = text[:start] + REDACTED + text[end:]
    return text


def _escaped(texts: set[str]) -> set[str]:
    return {json.dumps(text, ensure_ascii=ascii)[1:-1] for text in texts for ascii in (True, False)}


def _common_length(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (mine, theirs) in pairs if mine != theirs), min(len(one), len(other)))


def _found(pattern: re.Pattern[str], texts: Iterable[str]) -> frozenset[str]:
    return frozenset(chain.from_iterable(map(pattern.findall, texts)))


def _redacted(match: re.Match[str], own: Callable[[], AbstractSet[str]]) -> str:
    text = match["url"]
    # A text with digits and letters of both cases is no word. Lookaheads in the pattern would be quadratic.
    random = text is None or (re.search("[0-9]", text) and re.search("[a-z]", text) and re.search("[A-Z]", text))
    return REDACTED if random and not own() >= set(_PIECE.findall(match[0])) else match[0]
