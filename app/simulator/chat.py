"""An answer in the form of `/v1/chat/completions`: the chunks of a stream, or one message."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

import orjson

from app.simulator.errors import error
from app.simulator.parts import Kind, Part, Usage
from app.simulator.request import Request
from app.simulator.text import GAP, HOLE, joined, logprob

DONE = b"data: [DONE]\n\n"

_FIELDS = {
    Kind.TEXT: "content",
    Kind.REASONING: "reasoning",
    Kind.SUMMARY: "reasoning_content",
    Kind.REFUSAL: "refusal",
    Kind.CALL: "tool_calls",
}


class ChatEncoder:
    """Writes one answer as `chat.completion.chunk` events, or as one `chat.completion`."""

    def __init__(self, request: Request) -> None:
        self.id = "chatcmpl-" + secrets.token_urlsafe(21)
        self._created = int(time.time())
        self._model = request.model
        self._call_id = secrets.token_urlsafe(18)
        self._logprobs = request.logprobs
        options = request.body.get("stream_options")
        self._include_usage = isinstance(options, dict) and options.get("include_usage") is True
        self._collected: list[tuple[Part, list[bytes]]] = []

    def opening(self) -> bytes:
        """Return the chunk that has the role."""
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def deltas(self, part: Part) -> Iterator[bytes]:
        """Yield a chunk for each piece. This is the hot path: two concatenations a delta."""
        field = _FIELDS[part.kind]
        if part.kind is Kind.CALL:
            yield self._chunk({field: [{"index": part.index} | self._call(part, "")]})
            delta: dict[str, Any] = {field: [{"index": part.index, "function": {"arguments": HOLE}}]}
        else:
            delta = {field: HOLE}
        if self._logprobs is not None and part.kind in (Kind.TEXT, Kind.REFUSAL):
            before, middle, after = self._chunk(delta, logprobs=HOLE).split(GAP)
            for piece in part.pieces:
                yield b"".join((before, piece, middle, orjson.dumps(self._weights(field, [piece])), after))
            return
        before, after = self._chunk(delta).split(GAP)
        for piece in part.pieces:
            yield before + piece + after

    def finish(self, reason: str, usage: Usage | None) -> bytes:
        """Return the chunk that has the finish reason."""
        return self._chunk({}, finish_reason=reason)

    def after_finish(self, usage: Usage | None) -> bytes:
        """Return the chunk that has the usage, if it was asked for, and the end."""
        if usage is None or not self._include_usage:
            return DONE
        body = self._body("chat.completion.chunk") | {"choices": [], "usage": _usage(usage)}
        return _event(body) + DONE

    def error(self, message: str = "") -> bytes:
        """Return an error as an event."""
        return _event(error(500, message))  # row E1

    def after_error(self) -> bytes:
        """Return the end, which comes even after an error."""
        return DONE

    def collect(self, part: Part) -> None:
        """Keep *part* for `reply`."""
        self._collected.append((part, list(part.pieces)))

    def reply(self, reason: str, usage: Usage) -> bytes:
        """Return the completion of what was collected."""
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        weights = None
        for part, pieces in self._collected:
            field = _FIELDS[part.kind]
            if part.kind is Kind.CALL:
                message.setdefault(field, []).append(self._call(part, joined(pieces)))
            else:
                message[field] = joined(pieces)
            if self._logprobs is not None and part.kind in (Kind.TEXT, Kind.REFUSAL):
                weights = self._weights(field, pieces)
        choice = {"index": 0, "message": message, "logprobs": weights, "finish_reason": reason}
        return orjson.dumps(self._body("chat.completion") | {"choices": [choice], "usage": _usage(usage)})

    def _body(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self._created,
            "model": self._model,
        }

    def _chunk(self, delta: Any, logprobs: Any = None, finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        body = self._body("chat.completion.chunk") | {"choices": [choice]}
        # OpenAI says `usage: null` in every chunk but the last, to those who asked for usage.
        return _event(body | {"usage": None} if self._include_usage else body)

    def _call(self, part: Part, arguments: Any) -> dict[str, Any]:
        function = {"name": part.tool, "arguments": arguments}
        return {"id": f"call_{self._call_id}{part.index}", "type": "function", "function": function}

    def _weights(self, field: str, pieces: list[bytes]) -> dict[str, Any]:
        weights = [logprob(piece, self._logprobs or 0) for piece in pieces]
        return {"content": None, "refusal": None} | {field: weights}


def _event(body: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(body)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }
