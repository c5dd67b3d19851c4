"""What the events of a Responses stream mean.

Of the 59 types of events, those are read that carry what a chat has: text, reasoning, refusals, calls of the client's
own functions, notes, sounds, whole items, and the end. All others are skipped, known or not (rows R1, R2): what they
tell of the upstream's own tools comes again when their item is whole.

Everything is sent up to four times (row R7): in pieces, and whole at the end of a part, of its item and of the
response. Pieces are passed on, and a whole only where none of its pieces came. The whole response counts only for what
did not come at all, because upstreams do not agree on how they number their items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from app.errors import Malformed, UpstreamError
from app.events import Delta, Logprobs, Media, Reasoning, Refusal
from app.upstream.reading.answer import ENDED, LIMITS, Answer
from app.upstream.reading.extras import Said
from app.upstream.reading.finish import FAILED, read_finish
from app.upstream.reading.logprobs import read_logprobs
from app.upstream.reading.reader import AnswerReader
from app.upstream.reading.sse import MAX_EVENT
from app.upstream.reading.values import (
    arguments_of,
    encodable,
    index_of,
    is_empty,
    kept,
    list_of,
    object_of,
    text_of,
    text_within,
)
from app.upstream.responses.calls import CALLS, ResponseCalls
from app.upstream.responses.items import TEXT_FIELD, add_item, add_part
from app.upstream.responses.places import Places

MAX_PARTS: Final = 1024
MAX_ID: Final = 256  # characters

REFUSED: Final = re.compile(
    "invalid_.*|image_.*|.*_policy|.*_policy_violation|unsupported_.*|empty_image_file|failed_to_download_image"
)
"""The codes of `response.failed` for a request that would fail again (row R4). Others mean that the upstream failed."""
_RESPONSE: Final = frozenset(
    # What has a meaning here,
    [
        "id",
        "object",
        "status",
        "model",
        "output",
        "output_text",
        "usage",
        "error",
        "incomplete_details",
        "created_at",
        "completed_at",
        "background",
        "conversation",
        "frequency_penalty",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "parallel_tool_calls",
        "presence_penalty",
        "previous_response_id",
        "prompt",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "store",
        "stream",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
        "verbosity",
    ]
)

_HEARTBEATS = frozenset({"keepalive", "response.keepalive", "response.keep_alive", "response.heartbeat"})
_RESPONSE_ID = re.compile(r"[A-Za-z0-9_-][\w.:=-]*", re.ASCII)

# The forms of a part, which are also the types that the parts of an item have.
_TEXT = "output_text"
_REFUSAL = "refusal"
_THOUGHT = "reasoning_text"
_SUMMARY = "summary_text"
_INDEX_FIELD = {_TEXT: "content_index", _REFUSAL: "content_index", _THOUGHT: "content_index", _SUMMARY: "summary_index"}
_DELTAS = {
    "response.output_text.delta": _TEXT,
    "response.text.delta": _TEXT,
    "response.refusal.delta": _REFUSAL,
    "response.reasoning_text.delta": _THOUGHT,
    "response.reasoning.delta": _THOUGHT,
    "response.reasoning_summary_text.delta": _SUMMARY,
    "response.reasoning_summary.delta": _SUMMARY,
}
_WHOLES = {kind.removesuffix("delta") + "done": form for kind, form in _DELTAS.items()}

_Part = tuple[str, int, int]
"""Its form, the index of its item, and its own index in that; ids change between events (row R6)."""


class ResponsesDialect:
    """See `Dialect`. One response may come over several bodies.

    *response_id* is "" until the upstream gave it one, *sequence* is the number of the last event that was read, -1 if
    the upstream does not number its events. *unread* says that no event was read yet, apart from heartbeats.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.ready = False
        self.response_id = ""
        self.sequence = -1
        self.unread = True
        self._read_before: int | None = None  # after a resumption: events up to this number are known
        self._begun: set[_Part] = set()
        self._answered: set[int] = set()  # items of which text or a refusal came
        self._thinking: dict[int, str] = {}  # by item, the form in which its reasoning is passed on
        self._thought: _Part | None = None  # the last part of reasoning
        self._places = Places()
        self._calls = ResponseCalls(answer)
        self._items: set[int] = set()  # whole ones
        self._said = Said(_RESPONSE)
        # The part that the last text belonged to, which `take_text` goes on with.
        self._item = -1
        self._content = -1

    @property
    def resumable(self) -> bool:
        """Whether the upstream can be asked for the rest, which is all of it as long as it is unread."""
        named = bool(self.response_id)
        return named and (self.unread or self.sequence >= 0) and self.answer.state is not ENDED

    def offer(self, tools: object) -> None:
        """Note the *tools* that the request offers: only those are the client's to run."""
        self._calls.offer(tools)

    @property
    def offered(self) -> list[dict[str, str]]:
        """What `offer` needs to know of the tools that were offered."""
        return self._calls.offered

    def resume(self) -> None:
        """Expect the rest in another body. Events that were read already are skipped if they come again."""
        if not self.unread:
            self._read_before = self.sequence

    def take_text(self, event: Any) -> str | None:
        """See `Dialect.take_text`: one more delta of the same part, whose number is noted. This saves half the time."""
        try:
            text = event["delta"]
            sequence = event["sequence_number"]
            if (
                event["type"] == "response.output_text.delta"
                and event["output_index"] == self._item
                and event["content_index"] == self._content
                and not event.get("logprobs")
                and isinstance(text, str)
                and type(sequence) is int
                and sequence > self.sequence
            ):
                self.sequence = sequence
                return text
        except (KeyError, TypeError):
            pass  # of another shape
        return None

    def read(self, name: bytes, event: Any) -> None:
        """See `Dialect.read`. The name counts only if the event has no type."""
        if name == b"error":
            self.answer.judge(event, certain=True)  # row E5
            return
        if not isinstance(event, dict):
            self.answer.judge(event)  # row F27
            return
        kind = event.get("type")
        if not isinstance(kind, str) and name.startswith(b"response."):
            kind = name.decode("utf-8", "replace")
        if not isinstance(kind, str) or kind in ("error", "response.error"):
            self.answer.judge(event, certain=isinstance(kind, str))  # rows R3, E1, E3
            return
        if kind in _HEARTBEATS:  # the upstream does not keep them, so their numbers do not count
            return
        self.unread = False
        sequence = event.get("sequence_number")
        if type(sequence) is int:
            if self._read_before is not None and sequence <= self._read_before:
                return
            if self.sequence < sequence < 1 << 53:
                self.sequence = sequence
        if kind in _DELTAS:
            self._add_text(self._part(_DELTAS[kind], event), event.get("delta"), event.get("logprobs"))
        elif kind in _WHOLES:
            form = _WHOLES[kind]
            self._add_whole(self._part(form, event), event.get(TEXT_FIELD.get(form, "text")), event.get("logprobs"))
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, event)

    def read_whole(self, body: dict[str, Any]) -> None:
        """See `Dialect.read_whole`."""
        status = body.get("status")
        is_over = status in (None, "completed", "incomplete", "failed", "cancelled")
        # Of an answer that was read in part already, nothing tells which part that was.
        if is_over and isinstance(body.get("output"), list) and self._read_before is None:
            self.read(b"", {"type": f"response.{status or 'completed'}", "response": body})

    # Texts: of the answer, of refusals, of reasoning.

    def _add_text(self, part: _Part, text: object, logprobs: object = None) -> None:
        """Take a piece of a part, or the whole of it."""
        if self.answer.state is ENDED:
            return
        if not isinstance(text, str):
            said = text_of(text) or text_within(text)
            if not said and not is_empty(text):
                self.answer.refuse()
            text = said
        if not text:
            return
        if part not in self._begun:
            if len(self._begun) >= MAX_PARTS:
                self.answer.end(fault=Malformed(f"The upstream service sent more than {MAX_PARTS} parts of an answer."))
                return
            self._begun.add(part)
        form, at, index = part
        self._settle_calls()
        if form in (_THOUGHT, _SUMMARY):
            self._add_thought(part, text)
            return
        self._answered.add(at)
        if form == _REFUSAL:
            self.answer.add_text(Refusal, text)
            return
        self._item = at
        self._content = index
        self.ready = True
        self.answer.add_text(Delta, text)
        if logprobs and (weights := read_logprobs(logprobs)):
            self.answer.content.append(Logprobs(weights))

    def _add_thought(self, part: _Part, text: str) -> None:
        form, at, _ = part
        # Row C10: reasoning and its summary are two copies of one thing. The one that comes first is passed on.
        if self._thinking.setdefault(at, form) != form:
            return
        if self._thought not in (None, part):
            text = "\n\n" + text
        self._thought = part
        self.answer.add_text(Reasoning, text)

    def _add_whole(self, part: _Part, text: object, logprobs: object = None) -> None:
        if part not in self._begun:
            self._add_text(part, text, logprobs)

    def _add_part(self, at: int, index: int, part: object) -> None:
        fields = part if isinstance(part, dict) else {"type": _TEXT, "text": part}
        form = text_of(fields.get("type"))
        if form in TEXT_FIELD:
            form = _TEXT if form == "text" else form
            self._add_whole((form, at, index), fields.get(TEXT_FIELD[form]), fields.get("logprobs"))
        add_part(self.answer, fields, at)

    def _read_part_done(self, event: dict[str, Any]) -> None:
        self._add_part(self._places.of(event), index_of(event.get("content_index")) or 0, event.get("part"))

    def _read_annotation(self, event: dict[str, Any]) -> None:
        self.answer.add_notes(kept(list_of(event.get("annotation"))))

    def _read_audio(self, event: dict[str, Any]) -> None:
        data = encodable(text_of(event.get("delta")))
        if data:
            self.answer.add_media(Media("audio", "audio/pcm", f"data:audio/pcm;base64,{data}"))

    def _read_transcript(self, event: dict[str, Any]) -> None:
        transcript = encodable(text_of(event.get("delta")))
        if transcript:
            self.answer.add_media(Media("audio", "audio/pcm", "", "", {"transcript": transcript}))

    # Tool calls.

    def _read_arguments_delta(self, event: dict[str, Any]) -> None:
        kind = "custom" if "custom" in str(event.get("type")) else "function"
        self._calls.add(self._places.of(event), arguments_of(event.get("delta")), type=kind)

    def _read_arguments_done(self, event: dict[str, Any]) -> None:
        arguments = event.get("arguments")
        self._calls.end(self._places.of(event), arguments_of(event.get("input") if arguments is None else arguments))

    def _settle_calls(self) -> None:
        """Take the calls that were kept back for the upstream's own: it goes on with its answer."""
        for item in self._calls.take_upstream_calls():
            add_item(self.answer, item, 0)

    # Items, and the response.

    def _read_item_added(self, event: dict[str, Any]) -> None:
        item = object_of(event.get("item"))
        at = self._places.of(event, item, begins=True)
        if text_of(item.get("type")) in CALLS:
            self._calls.begin(at, item)

    def _read_item_done(self, event: dict[str, Any]) -> None:
        item = object_of(event.get("item"))
        self._add_item(self._places.of(event, item), item)

    def _add_item(self, at: int, item: dict[str, Any]) -> None:
        """Take a whole item, of which only what did not come before is news."""
        kind = text_of(item.get("type"))
        if kind in CALLS:
            self._calls.complete(at, item)
        elif kind and at not in self._items:
            self._items.add(at)
            if (kind == "message" and at not in self._answered) or (kind == "reasoning" and at not in self._thinking):
                self._add_texts(at, item)
            elif kind == "message":
                for part in map(object_of, list_of(item.get("content"))):
                    add_part(self.answer, part, at)
            if kind != "reasoning":
                self._settle_calls()
            add_item(self.answer, item, at)

    def _add_texts(self, at: int, item: dict[str, Any]) -> None:
        content = item.get("content")
        for index, part in enumerate(list_of(content)[:MAX_PARTS] if isinstance(content, (list, dict)) else [content]):
            if not is_empty(part):
                self._add_part(at, index, part)
        for index, part in enumerate(list_of(item.get("summary"))[:MAX_PARTS]):
            self._add_text((_SUMMARY, at, index), object_of(part).get("text") or part)

    def _read_response(self, event: dict[str, Any]) -> None:
        response = object_of(event.get("response"))
        self.answer.set_model(response.get("model"))
        id = response.get("id")
        if not self.response_id and isinstance(id, str) and len(id) <= MAX_ID and _RESPONSE_ID.fullmatch(id):
            self.response_id = id
        self.answer.add_usage(response.get("usage"))
        self.answer.add_extra(self._said.news(response), {}, {})

    def _read_end(self, event: dict[str, Any]) -> None:
        """Read a terminal event. Its type counts, unless the response in a `response.completed` says otherwise."""
        self._read_response(event)
        response = object_of(event.get("response"))
        outcome = text_of(event.get("type")).removeprefix("response.") or "completed"
        if outcome in ("completed", "done"):  # row R12
            outcome = text_of(response.get("status")) or "completed"
        error = response.get("error") or event.get("error")
        if outcome == "failed" or (error and not is_empty(error)):
            self.answer.judge({"error": _with_status(error)}, certain=True)
            return
        if outcome in ("cancelled", "canceled", "expired"):
            self.answer.end(error=UpstreamError("The upstream service broke off its answer."))
            return
        self._add_missing(response.get("output"))
        if self._calls.are_upstream_calls:
            self._settle_calls()
        else:
            self._calls.release()
        if self.answer.state is ENDED:
            return
        if outcome == "incomplete":
            raw = text_of(object_of(response.get("incomplete_details")).get("reason"))
            reason, _ = read_finish(raw)
            if reason == FAILED:
                self.answer.finish_as(raw)
                return
            # Row R5: a response is incomplete for these reasons, or for one that is not known.
            self.answer.finish(reason if reason in LIMITS else "other", raw or "incomplete")
        else:
            reason = "tool_calls" if self._calls else "stop"
            self.answer.finish(reason, reason)
        self.answer.end()

    def _add_missing(self, output: object) -> None:
        """Take from a whole response what did not come at all before."""
        nothing_came = not self._begun
        no_answer_came = not self._answered
        no_call_came = not self._calls
        no_item_came = not self._items
        for at, item in enumerate(list_of(output)[:MAX_PARTS]):
            if self.answer.state is ENDED:
                return
            fields = object_of(item)
            kind = text_of(fields.get("type"))
            if kind in CALLS:
                if no_call_came or self._calls.lacks(at, fields):
                    self._calls.complete(at, fields)
            elif (kind == "message" and no_answer_came) or (kind == "reasoning" and nothing_came):
                self._add_item(at, fields)
            elif no_item_came:
                add_item(self.answer, fields, at)

    def _part(self, form: str, event: dict[str, Any]) -> _Part:
        return form, self._places.of(event), index_of(event.get(_INDEX_FIELD[form])) or 0


ResponsesReader = AnswerReader[ResponsesDialect]


def responses_reader(
    max_event: int = MAX_EVENT, secrets: Iterable[str] = (), own: Callable[[], Iterable[str]] = tuple
) -> ResponsesReader:
    """Return a reader for one response, as `chat_reader` does."""
    return AnswerReader(ResponsesDialect(Answer(secrets, own)), max_event)


def _with_status(error: object) -> object:
    """Return *error*, with a status if its code says that the request is to blame."""
    if isinstance(error, dict) and REFUSED.fullmatch(text_of(error.get("code"))[:64]):
        return {"status_code": 400} | error
    return error


_HANDLERS: Final[dict[str, Callable[[ResponsesDialect, dict[str, Any]], None]]] = {
    "response.created": ResponsesDialect._read_response,
    "response.queued": ResponsesDialect._read_response,
    "response.in_progress": ResponsesDialect._read_response,
    "response.content_part.done": ResponsesDialect._read_part_done,
    "response.output_item.added": ResponsesDialect._read_item_added,
    "response.output_item.done": ResponsesDialect._read_item_done,
    "response.function_call_arguments.delta": ResponsesDialect._read_arguments_delta,
    "response.function_call_arguments.done": ResponsesDialect._read_arguments_done,
    "response.custom_tool_call_input.delta": ResponsesDialect._read_arguments_delta,
    "response.custom_tool_call_input.done": ResponsesDialect._read_arguments_done,
    "response.output_text.annotation.added": ResponsesDialect._read_annotation,
    "response.audio.delta": ResponsesDialect._read_audio,
    "response.audio.transcript.delta": ResponsesDialect._read_transcript,
    "response.completed": ResponsesDialect._read_end,
    "response.done": ResponsesDialect._read_end,
    "response.incomplete": ResponsesDialect._read_end,
    "response.failed": ResponsesDialect._read_end,
    "response.cancelled": ResponsesDialect._read_end,
}
