"""The state machine of one Responses stream: bytes in, content out, and at the end one verdict.

`body` says what holds for it. Of the 59 types of events those are read that carry what a chat has: text, reasoning,
refusals, calls of the client's own functions, and how it ends. All others are skipped, known or not (R1, R2): what
upstream's own tools do comes back as text. The rows cited are those of `reference/upstream.md`.

Everything is said up to four times (R7): in pieces, and whole at the end of a part, of its item and of the response.
Pieces are passed on, and a whole only where no piece of it came. Of the whole response it is only what had not come at
all, because upstreams do not agree on how they count their items.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from app.errors import Malformed, UpstreamError
from app.events import Content, Delta, Logprobs, Reasoning, Refusal
from app.upstream.reading.answer import BodyReader
from app.upstream.reading.logprobs import read_logprobs
from app.upstream.reading.sse import MAX_EVENT
from app.upstream.reading.values import encodable, text_of
from app.upstream.responses.calls import ARGUMENTS, ResponseCalls

MAX_PARTS = 1024
MAX_ID = 256

LIMITS: Final = {"max_output_tokens": "length", "max_tokens": "length", "content_filter": "content_filter"}  # R5
USAGE: Final = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
# R4: what `response.failed` says of a request that would fail again. The other codes mean that upstream failed.
REFUSED: Final = re.compile(
    "invalid_.*|image_.*|.*_policy|.*_policy_violation|unsupported_.*|empty_image_file|failed_to_download_image"
)

_HEARTBEATS = frozenset({"keepalive", "response.keepalive", "response.keep_alive", "response.heartbeat"})
_RESPONSE_ID = re.compile(r"[A-Za-z0-9_-][\w.:=-]*", re.ASCII)
_FORMS = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}  # of a part, and where its text is
_TEXT, _REFUSAL, _THOUGHT, _SUMMARY = "output_text", "refusal", "reasoning_text", "summary_text"
_Part = tuple[str, int, int]
"""What it is, the index of its item, and its own index in that (R6: ids change between events)."""


class ResponsesReader(BodyReader):
    """Reads one response, over as many bodies as it takes.

    *response_id* is "" until upstream gave it one, *sequence* the number of the last event that was read, -1 where
    they are not numbered. *settled* is whether upstream itself said that the response is over.
    """

    _plain_names = frozenset({b"", b"response.output_text.delta"})

    def __init__(self, max_event: int = MAX_EVENT, secrets: Iterable[str] = ()) -> None:
        super().__init__(max_event, secrets)
        self.response_id = ""
        self.sequence = -1
        self._after = -1  # events up to this number were read from the body before
        self._resumed = False
        self._reason: tuple[str, str] | None = None
        self._said: set[_Part] = set()
        self._answered: set[int] = set()  # items of which text or a refusal was said
        self._thinking: dict[int, str] = {}  # by item, the form in which its reasoning is passed on
        self._thought: _Part | None = None  # the last part of it
        self._calls = ResponseCalls()
        # The part that text came of last: what the short cut takes.
        self._item = self._content = -1

    @property
    def settled(self) -> bool:
        return self._reason is not None or self._error is not None or self._done

    @property
    def resumable(self) -> bool:
        """Whether it is known what to ask for the rest of."""
        return bool(self.response_id) and self.sequence >= 0 and not self.ended

    def resume(self) -> None:
        """Read on in another body of the same response. Events that were read already are skipped if they come again.

        What the last body left unfinished is dropped: it comes again.
        """
        self._start_over()
        self._after, self._resumed = self.sequence, True

    def _verdict(self) -> tuple[str, str] | None:
        return self._reason

    def _plain(self) -> bool:
        return self._item >= 0

    def _text_alone(self, event: Any) -> str | None:
        """Return the text of one more delta of the same part. A short cut that saves half the time."""
        try:
            text, sequence = event["delta"], event["sequence_number"]
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

    def _read(self, name: bytes, event: Any, out: list[Content]) -> None:
        if name == b"error":
            self._judge(event, certain=True)  # E5
            return
        if not isinstance(event, dict):
            self._judge(event)  # F27
            return
        kind = event.get("type")
        if not isinstance(kind, str) and name.startswith(b"response."):
            kind = name.decode("utf-8", "replace")
        if not isinstance(kind, str) or kind == "error":  # R3, E1, E3
            self._judge(event, certain=kind == "error")
            return
        sequence = event.get("sequence_number")
        if type(sequence) is int and kind not in _HEARTBEATS:  # which may be numbered, but are not kept
            if self._resumed and sequence <= self._after:
                return
            if self.sequence < sequence < 1 << 53:
                self.sequence = sequence
        read = _READ.get(kind)
        if read is not None:
            read(self, event, out)

    def _read_answer(self, answer: dict[str, Any], out: list[Content]) -> bool:
        status = answer.get("status")
        over = status in (None, "completed", "incomplete", "failed", "cancelled")
        # Of an answer that was read in part, there is no telling which part.
        if not over or not isinstance(answer.get("output"), list) or self._resumed:
            return False
        self._read(b"", {"type": f"response.{status or 'completed'}", "response": answer}, out)
        return True

    # Text: the answer's, refusals', of reasoning.

    def _text_delta(self, event: dict[str, Any], out: list[Content]) -> None:
        part = _TEXT, _index(event.get("output_index")), _index(event.get("content_index"))
        self._say_part(part, event.get("delta"), out, event.get("logprobs"))

    def _refusal_delta(self, event: dict[str, Any], out: list[Content]) -> None:
        part = _REFUSAL, _index(event.get("output_index")), _index(event.get("content_index"))
        self._say_part(part, event.get("delta"), out)

    def _thought_delta(self, event: dict[str, Any], out: list[Content]) -> None:
        part = _THOUGHT, _index(event.get("output_index")), _index(event.get("content_index"))
        self._say_part(part, event.get("delta"), out)

    def _summary_delta(self, event: dict[str, Any], out: list[Content]) -> None:
        part = _SUMMARY, _index(event.get("output_index")), _index(event.get("summary_index"))
        self._say_part(part, event.get("delta"), out)

    def _text_done(self, event: dict[str, Any], out: list[Content]) -> None:
        self._whole(_TEXT, "content_index", event, "text", out)

    def _refusal_done(self, event: dict[str, Any], out: list[Content]) -> None:
        self._whole(_REFUSAL, "content_index", event, "refusal", out)

    def _thought_done(self, event: dict[str, Any], out: list[Content]) -> None:
        self._whole(_THOUGHT, "content_index", event, "text", out)

    def _summary_done(self, event: dict[str, Any], out: list[Content]) -> None:
        self._whole(_SUMMARY, "summary_index", event, "text", out)

    def _part_done(self, event: dict[str, Any], out: list[Content]) -> None:
        at, index = _index(event.get("output_index")), _index(event.get("content_index"))
        self._read_part(at, index, event.get("part"), out)

    def _whole(self, form: str, index: str, event: dict[str, Any], field: str, out: list[Content]) -> None:
        part = form, _index(event.get("output_index")), _index(event.get(index))
        if part not in self._said:
            self._say_part(part, event.get(field), out, event.get("logprobs"))

    def _read_part(self, at: int, index: int, part: Any, out: list[Content]) -> None:
        form = part.get("type") if isinstance(part, dict) else None
        if isinstance(form, str) and form in _FORMS and (form, at, index) not in self._said:
            self._say_part((form, at, index), part.get(_FORMS[form]), out, part.get("logprobs"))

    def _say_part(self, part: _Part, text: object, out: list[Content], logprobs: object = None) -> None:
        """Say a piece of a part, and with the first one that the part was said."""
        if self.ended or not text or not isinstance(text, str):
            return
        form, at, index = part
        if part not in self._said:
            if len(self._said) >= MAX_PARTS:
                self._break(Malformed(f"The upstream service sent more than {MAX_PARTS} parts of an answer."))
                return
            self._said.add(part)
        if form in (_THOUGHT, _SUMMARY):
            # C10: reasoning and its summary are two copies of one thing. The one that is there first is passed on.
            if self._thinking.setdefault(at, form) != form:
                return
            if self._thought not in (None, part):
                text = "\n\n" + text
            self._thought = part
            self._say(Reasoning, text, out)
            return
        self._answered.add(at)
        if form == _REFUSAL:
            self._say(Refusal, text, out)
            return
        self._item, self._content = at, index
        self._say(Delta, text, out)
        if logprobs and (weights := read_logprobs(logprobs)):
            out.append(Logprobs(weights))

    # Calls.

    def _item_added(self, event: dict[str, Any], out: list[Content]) -> None:
        item = event.get("item")
        if isinstance(item, dict) and text_of(item.get("type")) in ARGUMENTS:
            self._say_call(self._calls.added(_index(event.get("output_index")), item), out)

    def _arguments_delta(self, event: dict[str, Any], out: list[Content]) -> None:
        at = _index(event.get("output_index"))
        self._say_call(self._calls.piece(at, arguments=text_of(event.get("delta"))), out)

    def _arguments_done(self, event: dict[str, Any], out: list[Content]) -> None:
        arguments = text_of(event.get("arguments")) or text_of(event.get("input"))
        self._say_call(self._calls.end(_index(event.get("output_index")), arguments), out)

    # Items, and the response.

    def _item_done(self, event: dict[str, Any], out: list[Content]) -> None:
        at, item = _index(event.get("output_index")), event.get("item")
        if not isinstance(item, dict):
            return
        kind = text_of(item.get("type"))
        if kind in ARGUMENTS:
            self._say_call(self._calls.whole(at, item), out)
        elif (kind == "message" and at not in self._answered) or (kind == "reasoning" and at not in self._thinking):
            self._read_item(at, item, out)

    def _read_item(self, at: int, item: dict[str, Any], out: list[Content]) -> None:
        for index, part in enumerate(_list(item.get("content"))):
            self._read_part(at, index, part, out)
        for index, part in enumerate(_list(item.get("summary"))):
            if isinstance(part, dict):
                self._say_part((_SUMMARY, at, index), part.get("text"), out)

    def _lifecycle(self, event: dict[str, Any], out: list[Content]) -> None:
        response = event.get("response")
        if not isinstance(response, dict):
            return
        self._name_model(response.get("model"))
        id = response.get("id")
        if not self.response_id and isinstance(id, str) and len(id) <= MAX_ID and _RESPONSE_ID.fullmatch(id):
            self.response_id = id
        usage: dict[str, Any] | None = response.get("usage")
        if usage and isinstance(usage, dict):
            self._usage = {USAGE.get(name, name): value for name, value in usage.items()}

    def _end(self, event: dict[str, Any], out: list[Content]) -> None:
        """Read a terminal event. What its type says counts, unless a `response.completed` says that it is not."""
        self._lifecycle(event, out)
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        outcome = text_of(event.get("type")).removeprefix("response.") or "completed"
        if outcome == "completed" and response.get("status") in ("incomplete", "failed", "cancelled"):
            outcome = response["status"]
        if outcome == "failed":
            self._judge({"error": _blamed(response.get("error") or event.get("error"))}, certain=True)  # R4
        elif outcome == "cancelled":
            self._error = UpstreamError("The upstream service broke off its answer.")
        else:
            self._read_rest(response.get("output"), out)
            if self.ended:
                return
            if outcome == "completed":
                kind = "tool_calls" if self._calls else "stop"
                self._reason = kind, kind
            else:
                details = response.get("incomplete_details")
                said = text_of(details.get("reason")) if isinstance(details, dict) else ""
                self._reason = LIMITS.get(said, "other"), encodable(said[:64]) or "incomplete"
        self.ended = True

    def _read_rest(self, output: object, out: list[Content]) -> None:
        """Read of a whole response what did not come at all before."""
        silent, mute, idle = not self._said, not self._answered, not self._calls
        for at, item in enumerate(_list(output)):
            kind = text_of(item.get("type")) if isinstance(item, dict) else ""
            if self.ended:
                break
            if kind in ARGUMENTS:
                if idle or self._calls.lacks(at, item):
                    self._say_call(self._calls.whole(at, item), out)
            elif (kind == "message" and mute) or (kind == "reasoning" and silent):
                self._read_item(at, item, out)


def _blamed(error: object) -> object:
    """Return *error*, with a status where its code says that the request is to blame."""
    if isinstance(error, dict) and REFUSED.fullmatch(text_of(error.get("code"))[:64]):
        return {"status_code": 400} | error
    return error


def _index(value: object) -> int:
    return value if type(value) is int and 0 <= value < 1 << 31 else 0


def _list(value: object) -> list[Any]:
    return value[:MAX_PARTS] if isinstance(value, list) else []


_READ: Final[dict[str, Callable[[ResponsesReader, dict[str, Any], list[Content]], None]]] = {
    "response.created": ResponsesReader._lifecycle,
    "response.queued": ResponsesReader._lifecycle,
    "response.in_progress": ResponsesReader._lifecycle,
    "response.output_text.delta": ResponsesReader._text_delta,
    "response.output_text.done": ResponsesReader._text_done,
    "response.refusal.delta": ResponsesReader._refusal_delta,
    "response.refusal.done": ResponsesReader._refusal_done,
    "response.reasoning_text.delta": ResponsesReader._thought_delta,
    "response.reasoning_text.done": ResponsesReader._thought_done,
    "response.reasoning_summary_text.delta": ResponsesReader._summary_delta,
    "response.reasoning_summary_text.done": ResponsesReader._summary_done,
    "response.content_part.done": ResponsesReader._part_done,
    "response.output_item.added": ResponsesReader._item_added,
    "response.output_item.done": ResponsesReader._item_done,
    "response.function_call_arguments.delta": ResponsesReader._arguments_delta,
    "response.function_call_arguments.done": ResponsesReader._arguments_done,
    "response.custom_tool_call_input.delta": ResponsesReader._arguments_delta,
    "response.custom_tool_call_input.done": ResponsesReader._arguments_done,
    "response.completed": ResponsesReader._end,
    "response.incomplete": ResponsesReader._end,
    "response.failed": ResponsesReader._end,
    "response.cancelled": ResponsesReader._end,
}
