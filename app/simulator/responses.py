"""An answer in the form of `/v1/responses`: typed events, numbered from 0, and the response they add up to.

Each kind of text is said by the same events under other names: an item is added, a part of it is added, deltas, and
then the whole text four times over: of the text, of the part, of the item, of the response (R7). So the deltas are
kept until the end.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import orjson

from app.simulator.refusals import failure
from app.simulator.request import Asked
from app.simulator.steps import Reply
from app.simulator.text import joined, logprob
from app.simulator.voice import Counts


class Kind(NamedTuple):
    """The names of one kind of text. *part* is that of the part's events, empty where an item is one text."""

    prefix: str  # of the item's id
    part: str
    part_type: str
    number: str  # the field that numbers the parts
    event: str
    field: str  # that holds the text, in the `.done` event and in the part


TEXT = Kind("msg", "response.content_part", "output_text", "content_index", "response.output_text", "text")
REFUSAL = Kind("msg", "response.content_part", "refusal", "content_index", "response.refusal", "refusal")
REASONING = Kind("rs", "response.content_part", "reasoning_text", "content_index", "response.reasoning_text", "text")
SUMMARY = Kind(
    *("rs", "response.reasoning_summary_part", "summary_text", "summary_index"),
    *("response.reasoning_summary_text", "text"),
)
CALL = Kind("fc", "", "", "", "response.function_call_arguments", "arguments")

# What a response ends with, by chat's finish reasons: the status, and what is incomplete about it.
_ENDINGS = {"length": ("incomplete", "max_output_tokens"), "content_filter": ("incomplete", "content_filter")}


class ResponsesVoice:
    """The events of one response; the same whether they are sent or only kept for a reply."""

    __slots__ = (
        *("_item", "_kind", "_logprobs", "_said", "_sequence", "created", "ended", "id", "model", "output"),
        *("request", "settled"),
    )

    def __init__(self, asked: Asked) -> None:
        self.id = "resp_" + secrets.token_hex(24)
        self.model = asked.model
        self.created = int(time.time())
        self.request = asked.body
        self.ended = False
        self.output: list[dict[str, Any]] = []  # the items that are done
        # What is known of the response by now, beside its output.
        self.settled: dict[str, Any] = {"status": "queued" if asked.body.get("background") else "in_progress"}
        self._logprobs = asked.logprobs
        self._sequence = 0
        self._kind: Kind | None = None
        self._item: dict[str, Any] = {}  # the one being said
        self._said: list[bytes] = []

    def response(self) -> dict[str, Any]:
        """Return the response as it is now."""
        asked = self.request
        reasoning = asked.get("reasoning")
        text = asked.get("text")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "background": bool(asked.get("background")),
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.get("instructions"),
            "max_output_tokens": asked.get("max_output_tokens"),
            "max_tool_calls": asked.get("max_tool_calls"),
            "metadata": asked.get("metadata") or {},
            "model": self.model,
            "output": self.output,
            "parallel_tool_calls": asked.get("parallel_tool_calls") is not False,
            "previous_response_id": asked.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None} | (reasoning if isinstance(reasoning, dict) else {}),
            "service_tier": "default",
            "temperature": asked.get("temperature", 1.0),
            "text": {"format": {"type": "text"}} | (text if isinstance(text, dict) else {}),
            "tool_choice": asked.get("tool_choice") or "auto",
            "tools": [_echoed(tool) for tool in asked.get("tools") or ()],
            "top_logprobs": asked.get("top_logprobs") or 0,
            "top_p": asked.get("top_p", 1.0),
            "truncation": asked.get("truncation") or "disabled",
            "usage": None,
            "user": asked.get("user"),
        } | self.settled

    def opening(self) -> bytes:
        out = self._lifecycle("response.created")
        if self.settled["status"] == "queued":
            out += self._lifecycle("response.queued")
            self.settled = {"status": "in_progress"}
        return out + self._lifecycle("response.in_progress")

    def text(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return self._deltas(TEXT, pieces)

    def thinking(self, pieces: Iterator[bytes], *, summary: bool) -> Iterator[bytes]:
        return self._deltas(SUMMARY if summary else REASONING, pieces)

    def refusing(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        return self._deltas(REFUSAL, pieces)

    def calling(self, at: int, name: str, pieces: Iterator[bytes]) -> Iterator[bytes]:
        opened = self._close()
        opened += self._open(CALL, {"call_id": "call_" + secrets.token_hex(12), "name": name})
        yield opened
        yield from self._deltas(CALL, pieces)

    def frame(self) -> tuple[bytes, bytes]:
        opened = b"" if self._kind is TEXT else self._close() + self._open(TEXT)
        before, middle, after = self._frame(TEXT)
        self._sequence += 1
        return opened + before + b"%d" % (self._sequence - 1) + middle, after

    def finish(self, reason: str, counts: Counts | None) -> bytes:
        # An answer without a word is one, too.
        opened = self._open(TEXT) if self._kind is None and not self.output and reason == "stop" else b""
        status, detail = _ENDINGS.get(reason, ("completed", None))
        closed = opened + self._close(status)
        self.settled = {"status": status, "usage": usage(counts) if counts else None}
        if detail:
            self.settled["incomplete_details"] = {"reason": detail}
        else:
            self.settled["completed_at"] = int(time.time())
        self.ended = True
        return closed + self._lifecycle(f"response.{status}")

    def after(self, counts: Counts | None) -> Iterator[bytes]:
        return iter(())

    def error(self, text: str = "") -> bytes:
        """Return the nested form; the documented one is `flat_error` (R3)."""
        return self._event("error", {"error": self._failed(text)})

    def flat_error(self) -> bytes:
        """Return an error as the documentation has it."""
        error = self._failed("")
        return self._event("error", {name: error[name] for name in ("code", "message", "param")})

    def after_error(self) -> bytes:
        return self.failed()

    def failed(self) -> bytes:
        """Return the failure that needs no error before it (R4)."""
        self._failed("")
        return self._lifecycle("response.failed")

    def cancelled(self) -> bytes:
        """Return the end of a background response that was cancelled.

        openai-python's types have the status and a webhook of that name, but no such event in a stream: a reader must
        expect it or an end without one.
        """
        self.settled = {"status": "cancelled"}
        self.ended = True
        return self._lifecycle("response.cancelled")

    def heartbeat(self) -> bytes:
        return self._event("keepalive", {})  # R1

    def collecting(self) -> ResponsesVoice:
        return self

    def reply(self, reason: str, counts: Counts | None) -> Reply:
        self.finish(reason, counts)
        return self.snapshot()

    def snapshot(self) -> Reply:
        """Return the response as it is now."""
        return Reply(200, orjson.dumps(self.response()))

    def unnumbered(self) -> bytes:
        """Return an early `response.in_progress` without a number, as some servers send for a heartbeat (R2)."""
        return b'event: response.in_progress\ndata: {"type":"response.in_progress"}\n\n'

    def other(self, kind: str, **fields: Any) -> bytes:
        """Return an event of some other type."""
        return self._event(kind, fields)

    def _event(self, kind: str, fields: dict[str, Any]) -> bytes:
        body = {"type": kind, "sequence_number": self._sequence} | fields
        self._sequence += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(body))

    def _lifecycle(self, kind: str) -> bytes:
        return self._event(kind, {"response": self.response()})

    def _failed(self, text: str) -> dict[str, Any]:
        error: dict[str, Any] = failure(500, text, code="server_error")["error"]
        if not self.ended:
            self.settled = {"status": "failed", "error": {"code": "server_error", "message": error["message"]}}
        self.ended = True
        return error

    def _open(self, kind: Kind, fields: dict[str, Any] | None = None) -> bytes:
        """Begin an item of *kind* and its one part."""
        self._kind = kind
        self._said = []
        item: dict[str, Any] = {"id": f"{kind.prefix}_{secrets.token_hex(24)}"}
        match kind.prefix:
            case "msg":
                item |= {"type": "message", "status": "in_progress", "content": [], "role": "assistant"}
            case "rs":
                item |= {"type": "reasoning", "summary": [], "status": "in_progress"}
            case _:
                item |= {"type": "function_call", "status": "in_progress", "arguments": ""} | (fields or {})
        self._item = item
        out = self._event("response.output_item.added", {"output_index": len(self.output), "item": item})
        if kind.part:
            out += self._event(f"{kind.part}.added", self._where(kind) | {"part": self._part(kind, [])})
        return out

    def _close(self, status: str = "completed") -> bytes:
        """End the item being said, if there is one."""
        kind, item, said = self._kind, self._item, self._said
        if kind is None:
            return b""
        self._kind = None
        whole: dict[str, Any] = {kind.field: joined(said)}
        if kind is TEXT:
            whole["logprobs"] = self._weights(said, bare=True)
        out = self._event(f"{kind.event}.done", self._where(kind) | whole)
        if kind.part:
            part = self._part(kind, said)
            out += self._event(f"{kind.part}.done", self._where(kind) | {"part": part})
            item = item | {"summary" if kind is SUMMARY else "content": [part]}
        else:
            item = item | whole
        item["status"] = status
        out += self._event("response.output_item.done", {"output_index": len(self.output), "item": item})
        self.output.append(item)
        self._said = []
        return out

    def _where(self, kind: Kind) -> dict[str, Any]:
        where = {"item_id": self._item["id"], "output_index": len(self.output)}
        return where | {kind.number: 0} if kind.number else where

    def _part(self, kind: Kind, said: list[bytes]) -> dict[str, Any]:
        part: dict[str, Any] = {"type": kind.part_type, kind.field: joined(said)}
        if kind is TEXT:
            part |= {"annotations": [], "logprobs": self._weights(said, bare=False)}
        return part

    def _weights(self, said: list[bytes], *, bare: bool) -> list[dict[str, Any]]:
        """Return the log probabilities of *said*: without their bytes (*bare*) in events, with them in parts."""
        if (top := self._logprobs) is None:
            return []
        weights = [logprob(piece, top) for piece in said]
        return [_bare(weight) for weight in weights] if bare else weights

    def _frame(self, kind: Kind) -> tuple[bytes, bytes, bytes]:
        """Return what comes before a delta's number, between that and its text, and after it."""
        name = f"{kind.event}.delta".encode()
        where = orjson.dumps(self._where(kind))[1:-1]
        before = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        return before, b",%b" % where + b',"delta":', b',"logprobs":[]}\n\n' if kind is TEXT else b"}\n\n"

    def _deltas(self, kind: Kind, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the deltas, what begins the item in one with the first: a delta is a beat, and these wait for none."""
        first = next(pieces, None)
        if first is None:
            return
        opened = b"" if self._kind is kind else self._close() + self._open(kind)
        before, middle, after = self._frame(kind)
        said = self._said
        top = self._logprobs if kind is TEXT else None
        for piece in chain((first,), pieces):
            said.append(piece)
            if top is not None:
                after = b',"logprobs":%b}\n\n' % orjson.dumps([_bare(logprob(piece, top))])
            number = self._sequence
            self._sequence = number + 1
            yield b"%b%b%d%b%b%b" % (opened, before, number, middle, piece, after)
            opened = b""


def _bare(weight: dict[str, Any]) -> dict[str, Any]:
    """Return *weight* without the tokens' bytes."""
    others = [{name: other[name] for name in ("token", "logprob")} for other in weight["top_logprobs"]]
    return {"token": weight["token"], "logprob": weight["logprob"], "top_logprobs": others}


def _echoed(tool: dict[str, Any]) -> dict[str, Any]:
    """Return *tool* as a response repeats it."""
    return {"strict": True, "parameters": None} | tool if tool.get("type") == "function" else tool


def usage(counts: Counts) -> dict[str, Any]:
    """Return *counts* as responses name them."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": counts.said,
        "output_tokens_details": {"reasoning_tokens": counts.thought},
        "total_tokens": counts.prompt + counts.said,
    }
