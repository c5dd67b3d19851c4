"""An answer in the form of `/v1/chat/completions`: the chunks of a stream, or one message.

A stream builds the bytes before and after its deltas once; sending one is two concatenations.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import orjson

from app.simulator.refusals import failure
from app.simulator.request import Asked
from app.simulator.steps import Reply
from app.simulator.text import joined, logprob
from app.simulator.voice import Counts, Voice

DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    """Return *value* as one SSE event."""
    return b"data: %b\n\n" % orjson.dumps(value)


class ChatVoice:
    """The `chat.completion.chunk` events of one stream."""

    __slots__ = ("_base", "_calls", "_include_usage", "_logprobs", "_tail", "created", "ended", "id", "model")

    def __init__(self, asked: Asked) -> None:
        self.id = "chatcmpl-" + secrets.token_urlsafe(21)
        self.model = asked.model
        self.created = int(time.time())
        self.ended = False
        self._calls = secrets.token_urlsafe(18)
        self._logprobs = asked.logprobs
        options = asked.body.get("stream_options")
        self._include_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._base = b'data: {"id":"%b","object":"chat.completion.chunk","created":%d,"model":%b,' % (
            self.id.encode(),
            self.created,
            orjson.dumps(self.model),
        )
        self._base += b'"service_tier":"default","system_fingerprint":"fp_simulator",'
        # OpenAI says `usage: null` on every chunk but the last of those who asked for it.
        self._tail = b',"usage":null}\n\n' if self._include_usage else b"}\n\n"

    def opening(self) -> bytes:
        return self._delta({"role": "assistant", "content": "", "refusal": None})

    def text(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return self._deltas("content", pieces)

    def thinking(self, pieces: Iterator[bytes], *, summary: bool) -> Iterator[bytes]:
        # The two names that are in use (C10); OpenAI has none.
        return self._deltas("reasoning_content" if summary else "reasoning", pieces)

    def refusing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return self._deltas("refusal", pieces)

    def calling(self, at: int, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        call = {"id": f"call_{self._calls}{at}", "type": "function", "function": {"name": name, "arguments": ""}}
        yield self._delta({"tool_calls": [{"index": at} | call]})
        before = self._base + b'"choices":[{"index":0,"delta":{"tool_calls":[{"index":%d,"function":{"arguments":' % at
        after = b'}}]},"logprobs":null,"finish_reason":null}]' + self._tail
        for piece in pieces:
            yield before + piece + after

    def frame(self) -> tuple[bytes, bytes]:
        return self._frame("content")

    def finish(self, reason: str, counts: Counts | None) -> bytes:
        choice = b'"choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":%b}]' % orjson.dumps(reason)
        return self._base + choice + self._tail

    def after(self, counts: Counts | None) -> Iterator[bytes]:
        if counts is not None and self._include_usage:
            yield self._base + b'"choices":[],"usage":%b}\n\n' % orjson.dumps(usage(counts))
        yield DONE
        self.ended = True

    def error(self, text: str = "") -> bytes:
        self.ended = True
        return event(failure(500, text))  # E1

    def after_error(self) -> bytes:
        return DONE

    def heartbeat(self) -> bytes:
        return b": keep-alive\n\n"

    def collecting(self) -> Voice:
        return ChatMessage(self)

    def reply(self, reason: str, counts: Counts | None) -> Reply:
        return ChatMessage(self).reply(reason, counts)

    def _delta(self, fields: Any) -> bytes:
        choice = b'"choices":[{"index":0,"delta":%b,"logprobs":null,"finish_reason":null}]' % orjson.dumps(fields)
        return self._base + choice + self._tail

    def _frame(self, field: str) -> tuple[bytes, bytes]:
        before = self._base + b'"choices":[{"index":0,"delta":{"%b":' % field.encode()
        return before, b'},"logprobs":null,"finish_reason":null}]' + self._tail

    def _deltas(self, field: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The hot path: per delta, two concatenations."""
        if self._logprobs is not None and field in ("content", "refusal"):
            yield from self._weighed(field, pieces, self._logprobs)
            return
        before, after = self._frame(field)
        for piece in pieces:
            yield before + piece + after

    def _weighed(self, field: str, pieces: Iterator[bytes], top: int) -> Iterator[bytes]:
        """The deltas with their log probabilities."""
        before, _ = self._frame(field)
        after = b',"finish_reason":null}]' + self._tail
        for piece in pieces:
            weights = {"content": None, "refusal": None} | {field: [logprob(piece, top)]}
            yield b"".join((before, piece, b'},"logprobs":', orjson.dumps(weights), after))


class ChatMessage(ChatVoice):
    """The same, kept for one `chat.completion`."""

    __slots__ = ("_made", "_said")

    def __init__(self, voice: ChatVoice) -> None:
        for name in ChatVoice.__slots__:
            setattr(self, name, getattr(voice, name))
        self._said: dict[str, list[bytes]] = {}
        self._made: list[dict[str, Any]] = []

    def calling(self, at: int, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        said: list[bytes] = []
        for piece in pieces:
            said.append(piece)
            yield piece
        function = {"name": name, "arguments": joined(said)}
        self._made.append({"id": f"call_{self._calls}{at}", "type": "function", "function": function})

    def collecting(self) -> Voice:
        return self

    def reply(self, reason: str, counts: Counts | None) -> Reply:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        message |= {field: joined(pieces) for field, pieces in self._said.items()}
        if self._made:
            message["tool_calls"] = self._made
        weights: dict[str, Any] | None = None
        if (top := self._logprobs) is not None and (kept := self._said.keys() & {"content", "refusal"}):
            weights = {"content": None, "refusal": None}
            weights |= {field: [logprob(piece, top) for piece in self._said[field]] for field in kept}
        choice = {"index": 0, "message": message, "logprobs": weights, "finish_reason": reason}
        body = {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [choice],
            "usage": usage(counts) if counts else None,
            "service_tier": "default",
            "system_fingerprint": "fp_simulator",
        }
        return Reply(200, orjson.dumps(body))

    def _deltas(self, field: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        said = self._said.setdefault(field, [])
        for piece in pieces:
            said.append(piece)
            yield piece


def usage(counts: Counts) -> dict[str, Any]:
    """Return *counts* as chat completions name them."""
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.said,
        "total_tokens": counts.prompt + counts.said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": counts.thought},
    }
