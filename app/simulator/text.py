"""What the simulator says: its answers, and how they are cut into deltas.

Strategy: the texts are fixed, so each delta's JSON is made once per process. Deltas are cut at code points, never
inside one: what a tokenizer does to words, Han and emoji families is imitated, lone surrogates are left to the model
that is about them.
"""

from __future__ import annotations

import json
import re
import tomllib
import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from importlib import resources
from typing import Any

import orjson

ANSWERS: dict[str, str] = tomllib.loads(resources.files("app.simulator").joinpath("answers.toml").read_text("utf-8"))
REASONING = "The reader asks something. First recall what is known, then weigh it: 先に考える。 Keep it short. Good."
REFUSAL = "I’m sorry, but I can’t help with that. 申し訳ありませんが、お手伝いできません。"

# An English prompt gets one of these; another script, or a script's name, gets its own.
_PLAIN = ("stream", "markdown", "tour")
_WANTED = tuple(
    (name, re.compile(pattern, re.I))
    for name, pattern in (
        ("japanese", r"[\u3040-\u30ff]|\bjapanese\b"),
        ("chinese", r"[\u4e00-\u9fff]|\bchinese\b"),
        ("thai", r"[\u0e00-\u0e7f]|\bthai\b"),
        ("arabic", r"[\u0600-\u06ff]|\barabic\b"),
        ("hindi", r"[\u0900-\u097f]|\bhindi\b"),
        ("greek", r"[\u0370-\u03ff]|\bgreek\b"),
        ("emoji", r"[\U0001f300-\U0001faff]|\bemojis?\b"),
        ("markdown", r"\b(?:markdown|list|table|code)\b"),
        ("tour", r"\b(?:scripts|languages|unicode)\b"),
    )
)

_TOKEN = re.compile(
    r"\n+"
    r"|\ ?[A-Za-z\u00c0-\u024f\u0400-\u04ff]{1,7}"  # a word and its space, or a piece of a long one
    r"|\ ?[\u0370-\u03ff\u1f00-\u1fff]{1,4}"
    r"|\ ?[\u0600-\u06ff\u0900-\u097f\uac00-\ud7af]{1,3}"
    r"|[\u0e00-\u0e7f]{1,3}"
    r"|[\u4e00-\u9fff]{2}(?=[\u3000-\u3002\uff0c的是在了不])|[\u3040-\u30ff]{1,2}|[\u4e00-\u9fff]"
    r"|[0-9]{1,3}"
    r"|\ {2,}(?=\ )"
    r"|[\U0001f300-\U0001faff]\u200d[\U0001f3a8\U0001f4bb\U0001f680]"  # people at work stay whole
    r"|\ ?[\U0001f300-\U0001faff]\u200d?"  # families come one by one
    r"|\ ?[!-/:-@\[-`{-~]{1,3}"
    r"|.",
    re.S,
)


def choose(prompt: str) -> str:
    """Return the name of the answer to *prompt*, the same one each time."""
    for name, pattern in _WANTED:
        if pattern.search(prompt):
            return name
    return _PLAIN[zlib.crc32(prompt.encode()) % len(_PLAIN)]


def cut(text: str, size: int = 0) -> Iterator[str]:
    """Cut *text* the way a tokenizer would, or every *size* code points."""
    if size:
        return (text[at : at + size] for at in range(0, len(text), size))
    return (match[0] for match in _TOKEN.finditer(text))


def encoded(text: str, size: int = 0) -> Iterator[bytes]:
    """Yield the JSON of each delta of *text*."""
    return map(orjson.dumps, cut(text, size))


@lru_cache(maxsize=64)
def encoded_answer(name: str, size: int = 0) -> tuple[bytes, ...]:
    """Return the JSON of each delta of the answer *name*."""
    return tuple(encoded(ANSWERS[name], size))


# Stands in an event that is made once where the bytes of each delta go. JSON escapes it everywhere else.
GAP = b"\0"
HOLE = orjson.Fragment(GAP)


def joined(pieces: Iterable[bytes]) -> orjson.Fragment:
    """Return the JSON of the text whose deltas' JSON is *pieces*, whatever is escaped in them."""
    return orjson.Fragment(b'"%b"' % b"".join(piece[1:-1] for piece in pieces))


def logprob(piece: bytes, top: int) -> dict[str, Any]:
    """Return the log probability of the token whose JSON is *piece*, with *top* alternatives: the same each time."""
    chance = -(zlib.crc32(piece) % 1000) / 1000
    token = json.loads(piece)  # not orjson: a lone surrogate may be a token
    said = {"token": orjson.Fragment(piece), "logprob": chance, "bytes": _bytes(token)}
    others = [{"token": f" other{at}", "logprob": chance - at, "bytes": _bytes(f" other{at}")} for at in range(1, top)]
    return said | {"top_logprobs": [said, *others] if top else []}


def _bytes(token: str) -> list[int]:
    return list(token.encode(errors="surrogatepass"))
