"""An answer in the form of `/v1/responses`: typed events, numbered from 0, and the response that they add up to.

All kinds of text are told by the same events under other names: an item is added, a part of it is added, deltas follow,
and then the whole text comes four times over: as the text, the part, the item and the response (row R7). So the deltas
are kept until the end.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import orjson

from app.simulator.errors import error
from app.simulator.parts import Kind, Part, Usage
from app.simulator.request import Request
from app.simulator.text import GAP, HOLE, joined, logprob


class Form(NamedTuple):
    """How a kind of text is told."""

    item: str  # what the item's id begins with
    event: str  # what its events' names begin with
    field: str  # the field that holds the whole text
    part_event: str = ""  # the same for the part; empty where an item is one text without parts
    part_type: str = ""
    part_number: str = ""  # the field that numbers the parts


_CONTENT = "response.content_part"
_SUMMARY = "response.reasoning_summary_part"
FORMS = {
    Kind.TEXT: Form("msg", "response.output_text", "text", _CONTENT, "output_text", "content_index"),
    Kind.REFUSAL: Form("msg", "response.refusal", "refusal", _CONTENT, "refusal", "content_index"),
    Kind.REASONING: Form("rs", "response.reasoning_text", "text", _CONTENT, "reasoning_text", "content_index"),
    Kind.SUMMARY: Form("rs", "response.reasoning_summary_text", "text", _SUMMARY, "summary_text", "summary_index"),
    Kind.CALL: Form("fc", "response.function_call_arguments", "arguments"),
}
# What an item is when it begins, by what its id begins with.
_ITEMS: dict[str, dict[str, Any]] = {
    "msg": {"type": "message", "status": "in_progress", "content": [], "role": "assistant"},
    "rs": {"type": "reasoning", "summary": [], "status": "in_progress"},
    "fc": {"type": "function_call", "status": "in_progress", "arguments": ""},
}
# How a response ends, by chat's finish reasons: the status, and why it is incomplete.
_ENDINGS = {"length": ("incomplete", "max_output_tokens"), "content_filter": ("incomplete", "content_filter")}
# The settings that a response repeats, as they are unless the request says otherwise.
_REPEATED: dict[str, Any] = {
    **dict.fromkeys(("instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "user")),
    "background": False,
    "metadata": {},
    "parallel_tool_calls": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
}


class ResponsesEncoder:
    """Writes one response as events, which add up to the response whether they are sent or not."""

    def __init__(self, request: Request) -> None:
        self.id = "resp_" + secrets.token_hex(24)
        self._request = request
        self._created = int(time.time())
        # What is known of the response by now, besides its output.
        self._state: dict[str, Any] = {"status": "queued" if request.body.get("background") else "in_progress"}
        self._output: list[dict[str, Any]] = []  # the items that are done
        self._number = 0  # of the next event
        self._part: Part | None = None  # the one that is being told,
        self._item: dict[str, Any] = {}  # its item,
        self._pieces: list[bytes] = []  # and its deltas so far

    def opening(self) -> bytes:
        """Return the events that announce the response."""
        out = self._lifecycle("response.created")
        if self._state["status"] == "queued":
            out += self._lifecycle("response.queued")
            self._state = {"status": "in_progress"}
        return out + self._lifecycle("response.in_progress")

    def deltas(self, part: Part) -> Iterator[bytes]:
        """Yield an event for each piece; what begins an item shares an event on the beat with the first."""
        first = next(part.pieces, None)
        if first is None:
            return
        goes_on = self._part is not None and self._part.kind is part.kind and part.kind is not Kind.CALL
        opened = b"" if goes_on else self._close() + self._open(part)
        form = FORMS[part.kind]
        fields = self._where(form) | {"delta": HOLE}
        if part.kind is Kind.TEXT:
            fields |= {"logprobs": HOLE}
        before, after_number, after_piece, *after_weights = _event(f"{form.event}.delta", HOLE, fields).split(GAP)
        after = after_piece + b"[]" + after_weights[0] if after_weights else after_piece
        top = self._request.logprobs if part.kind is Kind.TEXT else None
        pieces = self._pieces
        for piece in chain((first,), part.pieces):
            pieces.append(piece)
            if top is not None:
                after = after_piece + orjson.dumps([_brief(logprob(piece, top))]) + after_weights[0]
            number = self._number
            self._number = number + 1
            yield b"%b%b%d%b%b%b" % (opened, before, number, after_number, piece, after)
            opened = b""

    def finish(self, reason: str, usage: Usage | None) -> bytes:
        """Return the events that end the item and the response."""
        out = b""
        if self._part is None and not self._output and reason == "stop":
            out = self._open(Part(Kind.TEXT, iter(())))  # an answer without a word is a message, too
        status, why = _ENDINGS.get(reason, ("completed", None))
        out += self._close(status)
        self._state = {"status": status, "usage": _usage(usage) if usage else None}
        if why:
            self._state["incomplete_details"] = {"reason": why}
        else:
            self._state["completed_at"] = int(time.time())
        return out + self._lifecycle(f"response.{status}")

    def after_finish(self, usage: Usage | None) -> bytes:
        """Return nothing."""
        return b""

    def error(self, message: str = "") -> bytes:
        """Return an error with its fields nested, unlike the documentation (row R3)."""
        return self.event("error", error=self.fail(message))

    def after_error(self) -> bytes:
        """Return `response.failed`."""
        return self.failed()

    def failed(self) -> bytes:
        """Return a failure that needs no error event before it (row R4)."""
        self.fail()
        return self._lifecycle("response.failed")

    def fail(self, message: str = "") -> dict[str, Any]:
        """Let the response have failed, if it has not ended. Return the error, as its fields."""
        fields: dict[str, Any] = error(500, message, code="server_error")["error"]
        if self._state["status"] in ("queued", "in_progress"):
            self._state = {"status": "failed", "error": {name: fields[name] for name in ("code", "message")}}
        return fields

    def cancelled(self) -> bytes:
        """Return the end of a background response that was cancelled.

        openai-python's types have that status and a webhook of that name, but no such event in a stream. So a reader
        must expect it, or an end without one.
        """
        self._state = {"status": "cancelled"}
        return self._lifecycle("response.cancelled")

    def collect(self, part: Part) -> None:
        """Add *part* to the response."""
        for _ in self.deltas(part):
            pass

    def reply(self, reason: str, usage: Usage) -> bytes:
        """Return the response that would have ended the stream."""
        self.finish(reason, usage)
        return self.snapshot()

    def snapshot(self) -> bytes:
        """Return the response as it is now."""
        return orjson.dumps(self._response())

    def event(self, kind: str, **fields: Any) -> bytes:
        """Return an event of the type *kind*, with the next number."""
        self._number += 1
        return _event(kind, self._number - 1, fields)

    def _lifecycle(self, kind: str) -> bytes:
        return self.event(kind, response=self._response())

    def _response(self) -> dict[str, Any]:
        body = self._request.body
        given = {name: body[name] for name in _REPEATED if body.get(name) is not None}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            **dict.fromkeys(("completed_at", "error", "incomplete_details", "usage")),
            **_REPEATED,
            **given,
            "reasoning": {"effort": None, "summary": None} | _object(body.get("reasoning")),
            "text": {"format": {"type": "text"}} | _object(body.get("text")),
            "tools": [_repeated(tool) for tool in body.get("tools") or ()],
            "model": self._request.model,
            "output": self._output,
            **self._state,
        }

    def _open(self, part: Part) -> bytes:
        """Begin an item for *part*."""
        form = FORMS[part.kind]
        self._part = part
        self._pieces = []
        self._item = {"id": f"{form.item}_{secrets.token_hex(24)}"} | _ITEMS[form.item]
        if part.kind is Kind.CALL:
            self._item |= {"call_id": "call_" + secrets.token_hex(12), "name": part.tool}
        out = self.event("response.output_item.added", output_index=len(self._output), item=self._item)
        if form.part_event:
            out += self.event(f"{form.part_event}.added", **self._where(form), part=self._part_so_far(part.kind))
        return out

    def _close(self, status: str = "completed") -> bytes:
        """End the item that is being told, if there is one."""
        part = self._part
        if part is None:
            return b""
        form = FORMS[part.kind]
        whole: dict[str, Any] = {form.field: joined(self._pieces)}
        weights = {"logprobs": [_brief(weight) for weight in self._weights()]} if part.kind is Kind.TEXT else {}
        out = self.event(f"{form.event}.done", **self._where(form), **whole, **weights)
        if form.part_event:
            told = self._part_so_far(part.kind)
            out += self.event(f"{form.part_event}.done", **self._where(form), part=told)
            whole = {"summary" if part.kind is Kind.SUMMARY else "content": [told]}
        item = self._item | whole | {"status": status}
        out += self.event("response.output_item.done", output_index=len(self._output), item=item)
        self._output.append(item)
        self._part = None
        return out

    def _where(self, form: Form) -> dict[str, Any]:
        where = {"item_id": self._item["id"], "output_index": len(self._output)}
        return where | {form.part_number: 0} if form.part_number else where

    def _part_so_far(self, kind: Kind) -> dict[str, Any]:
        form = FORMS[kind]
        part: dict[str, Any] = {"type": form.part_type, form.field: joined(self._pieces)}
        return part | {"annotations": [], "logprobs": self._weights()} if kind is Kind.TEXT else part

    def _weights(self) -> list[dict[str, Any]]:
        top = self._request.logprobs
        return [] if top is None else [logprob(piece, top) for piece in self._pieces]


def _event(kind: str, number: Any, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (
        kind.encode(),
        orjson.dumps({"type": kind, "sequence_number": number} | fields),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _brief(weight: dict[str, Any]) -> dict[str, Any]:
    """Return *weight* as events have it: without the tokens' bytes, which only a part has."""
    others = [{name: other[name] for name in ("token", "logprob")} for other in weight["top_logprobs"]]
    return {"token": weight["token"], "logprob": weight["logprob"], "top_logprobs": others}


def _repeated(tool: dict[str, Any]) -> dict[str, Any]:
    """Return *tool* as a response repeats it."""
    return {"strict": True, "parameters": None} | tool if tool.get("type") == "function" else tool


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }
