"""What the events of a chat-completions stream mean.

An ordinary chunk of 330 bytes costs 0.9 µs if the template knows it. Else it costs 3.4 µs alone in its read, framing
included, and 2.1 as one of many, of which orjson takes 1.1.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.errors import UpstreamError
from app.events import Delta, Logprobs, Reasoning, Refusal
from app.upstream.reading.answer import ENDED, Answer
from app.upstream.reading.logprobs import read_logprobs
from app.upstream.reading.reader import AnswerReader
from app.upstream.reading.sse import MAX_EVENT
from app.upstream.reading.tool_calls import ToolCalls
from app.upstream.reading.values import encodable, list_of, object_of, text_of

FINISH: Final = (
    dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop")
    | dict.fromkeys(("length", "model_length", "max_tokens", "model_context_window_exceeded"), "length")
    | dict.fromkeys(("tool_calls", "function_call"), "tool_calls")
    | dict.fromkeys(("content_filter", "sensitive"), "content_filter")
)
"""Our finish reason by the upstream's; any other is `other`."""
FAILED: Final = frozenset({"error", "abort", "network_error", "insufficient_system_resource"})
"""Finish reasons that mean a failure (row E11)."""

_FUNCTION_CALL: Final = -1  # the index of the one call that `function_call` is (row X10)


def chat_reader(max_event: int = MAX_EVENT, secrets: Iterable[str] = ()) -> AnswerReader[ChatDialect]:
    """Return a reader for one response. *max_event* bounds an event, in bytes; *secrets* are as `Answer` has them."""
    return AnswerReader(ChatDialect(Answer(secrets)), max_event, uniform=True)


class ChatDialect:
    """See `Dialect`."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.ready = False
        self._has_delta = False
        self._calls = ToolCalls()

    @staticmethod
    def take_text(event: Any) -> str | None:
        """See `Dialect.take_text`: a short cut that saves 1 µs of 3.5."""
        try:
            [choice] = event["choices"]
            delta = choice["delta"]
            text = delta.get("content")
            if (
                isinstance(text, str)
                and len(delta) == 1
                and choice["index"] == 0
                and choice["finish_reason"] is None
                and not (choice.get("logprobs") or "usage" in choice or "finishReason" in choice)
                and not (event.get("error") or event.get("usage") or event.get("x_groq"))
            ):
                return text
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # of another shape
        return None

    def read(self, name: bytes, event: Any) -> None:
        """See `Dialect.read`. The name means nothing unless it is `error` (row F15)."""
        answer = self.answer
        if name == b"error":
            answer.judge(event, certain=True)  # row E5
            return
        if not isinstance(event, dict):
            answer.judge(event)  # row F27
            return
        choices = event.get("choices")
        if (event.get("error") or choices is None) and answer.judge(event):  # rows E1, E3
            return
        usage = event.get("usage")
        if not usage and "x_groq" in event:
            usage = object_of(event["x_groq"]).get("usage")
        if usage and isinstance(usage, dict):
            answer.usage_fields = usage
        if not choices or not isinstance(choices, list):
            return  # rows C4, C5, C6
        if not answer.model:
            answer.set_model(event.get("model"))
        for choice in choices:
            if isinstance(choice, dict):
                self._read_choice(choice, has_usage=bool(usage))
        # A plain chunk neither names the model nor tells that deltas come (row C8), so both must be known.
        self.ready = self._has_delta and answer.model != ""

    def read_whole(self, body: dict[str, Any]) -> None:
        """See `Dialect.read_whole`."""
        if isinstance(body.get("choices"), list):
            self.read(b"", body)
            self.answer.end(complete=True)

    def _read_choice(self, choice: dict[str, Any], has_usage: bool) -> None:
        usage = choice.get("usage")
        if usage and isinstance(usage, dict) and not has_usage:
            self.answer.usage_fields = usage
        index = choice.get("index")
        if isinstance(index, int) and index != 0:
            return  # row C13: one answer was asked for
        delta = choice.get("delta")
        if delta and isinstance(delta, dict):
            self._has_delta = True
            self._read_delta(delta, choice.get("logprobs"))
        elif not self._has_delta:
            self._read_message(choice)
        reason = choice.get("finish_reason") or choice.get("finishReason")  # row C21
        if not reason or not isinstance(reason, str) or self.answer.state is ENDED:
            return  # row C20
        if reason in FAILED:
            self.answer.end(error=UpstreamError("The upstream service broke off its answer."))
        else:
            # Row X7: `stop` after tool calls stays `stop`, as OpenAI sends it when the request named the tool.
            self.answer.finish(FINISH.get(reason, "other"), reason)

    def _read_message(self, choice: dict[str, Any]) -> None:
        """Read what a choice without a delta has in its place (rows H5, C8)."""
        message = choice.get("message")
        if isinstance(message, dict):
            before = len(self.answer.content)
            self._read_delta(message, choice.get("logprobs"))
            self._has_delta = len(self.answer.content) > before

    def _read_delta(self, delta: dict[str, Any], logprobs: object) -> None:
        answer = self.answer
        get = delta.get
        reasoning = get("reasoning_content") or get("reasoning") or get("reasoning_details")  # row C10: never two
        if reasoning:
            answer.add_text(Reasoning, text_of(reasoning, "text", "summary"))
        content = get("content")
        if content:
            if isinstance(content, list):
                self._read_parts(content, with_thinking=not reasoning)
            else:
                answer.add_text(Delta, text_of(content))
        refusal = get("refusal")
        if refusal:
            answer.add_text(Refusal, text_of(refusal))
        if logprobs and isinstance(logprobs, dict):
            weights = Logprobs(read_logprobs(logprobs.get("content")), read_logprobs(logprobs.get("refusal")))
            if weights.content or weights.refusal:
                answer.content.append(weights)
        calls = get("tool_calls")
        if calls:
            for call in list_of(calls):  # row X8
                if isinstance(call, dict):
                    self._read_call(call.get("index"), call.get("id"), call.get("function"))
        function = get("function_call")
        if function:
            self._read_call(_FUNCTION_CALL, None, function)

    def _read_parts(self, parts: list[Any], with_thinking: bool) -> None:
        """Read content that comes in parts (row C3)."""
        for part in parts:
            fields = object_of(part)
            self.answer.add_text(Delta, text_of(fields.get("text")))
            if with_thinking:
                self.answer.add_text(Reasoning, text_of(fields.get("thinking"), "text"))

    def _read_call(self, index: object, id: object, function: object) -> None:
        fields = object_of(function)
        call_id = encodable(text_of(id))
        name = encodable(text_of(fields.get("name")))
        arguments = text_of(fields.get("arguments"))
        if call_id or name or arguments:
            index = index if isinstance(index, int) else None
            self.answer.add_call(*self._calls.place(index, call_id, name), arguments)
