"""The state machine of one chat-completions stream: bytes in, content out, and at the end one verdict.

`body` says what holds for it. An ordinary chunk is orjson, a few look-ups and a Delta: 2.4 µs all in, framing included,
of which parsing its 330 bytes takes 1.1; alone in its read, 3.6. The rows cited (C3, E5 …) are those of
`reference/upstream.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from app.errors import UpstreamError
from app.events import Content, Delta, Logprobs, Reasoning, Refusal
from app.upstream.reading.answer import BodyReader
from app.upstream.reading.logprobs import read_logprobs
from app.upstream.reading.sse import MAX_EVENT
from app.upstream.reading.tool_calls import ToolCalls
from app.upstream.reading.values import encodable, text_of

FINISH: Final = (
    dict.fromkeys(("stop", "eos", "eos_token", "stop_sequence", "end_turn"), "stop")
    | dict.fromkeys(("length", "model_length", "max_tokens", "model_context_window_exceeded"), "length")
    | dict.fromkeys(("tool_calls", "function_call"), "tool_calls")
    | dict.fromkeys(("content_filter", "sensitive"), "content_filter")
)
FAILED: Final = frozenset({"error", "abort", "network_error", "insufficient_system_resource"})  # E11

_LEGACY: Final = -1  # where the one call of `function_call` is, among upstream's indexes


class ChatReader(BodyReader):
    """Reads one response body.

    *ended* is true once nothing more is wanted: `[DONE]`, an error, nonsense. *finished* is true once a finish reason
    was seen: usage, `[DONE]` and even content (C19) may follow.
    """

    _templated = True

    def __init__(self, max_event: int = MAX_EVENT, secrets: Iterable[str] = ()) -> None:
        super().__init__(max_event, secrets)
        self._reason: str | None = None
        self._has_delta = False
        self._calls = ToolCalls()

    def _verdict(self) -> tuple[str, str] | None:
        # X7: `stop` after tool calls stays `stop`, as OpenAI itself has it where the request named the tool.
        return None if self._reason is None else (FINISH.get(self._reason, "other"), self._reason)

    def _plain(self) -> bool:
        return self._has_delta and bool(self.model)

    @staticmethod
    def _text_alone(chunk: Any) -> str | None:
        """Return the text of a chunk that has nothing else in it. A short cut that saves 1 µs of 3.5."""
        try:
            [choice] = chunk["choices"]
            delta = choice["delta"]
            text = delta.get("content")
            if (
                isinstance(text, str)
                and len(delta) == 1
                and choice["index"] == 0
                and choice["finish_reason"] is None
                and not (choice.get("logprobs") or "usage" in choice or "finishReason" in choice)
                and not (chunk.get("error") or chunk.get("usage") or chunk.get("x_groq"))
            ):
                return text
        except (AttributeError, KeyError, TypeError, ValueError):
            pass  # of another shape
        return None

    def _read_answer(self, answer: dict[str, Any], out: list[Content]) -> bool:
        if not isinstance(answer.get("choices"), list):
            return False
        self._read(b"", answer, out)
        return True

    def _read(self, name: bytes, chunk: Any, out: list[Content]) -> None:
        if name == b"error":
            self._judge(chunk, certain=True)  # E5
            return
        if not isinstance(chunk, dict):
            self._judge(chunk)  # F27
            return
        choices = chunk.get("choices")
        if (chunk.get("error") or choices is None) and self._judge(chunk):  # E1, E3
            return
        usage = chunk.get("usage") or (isinstance(groq := chunk.get("x_groq"), dict) and groq.get("usage"))
        if usage and isinstance(usage, dict):
            self._usage = usage
        if not choices or not isinstance(choices, list):
            return  # C4, C5, C6
        self._name_model(chunk.get("model"))
        for choice in choices:
            if isinstance(choice, dict):
                if not usage and isinstance(of_choice := choice.get("usage"), dict) and of_choice:
                    self._usage = of_choice
                index = choice.get("index")
                if not isinstance(index, int) or index == 0:  # C13
                    self._read_choice(choice, out)

    def _read_choice(self, choice: dict[str, Any], out: list[Content]) -> None:
        delta = choice.get("delta")
        if delta and isinstance(delta, dict):
            self._has_delta = True
            self._read_delta(delta, choice.get("logprobs"), out)
        elif not self._has_delta and isinstance(message := choice.get("message"), dict):  # H5, C8
            before = len(out)
            self._read_delta(message, choice.get("logprobs"), out)
            self._has_delta = len(out) > before
        reason = choice.get("finish_reason") or choice.get("finishReason")  # C21
        if not reason or not isinstance(reason, str) or self.ended:
            return
        if reason in FAILED:
            self._error = UpstreamError("The upstream service broke off its answer.")
            self.ended = True
        elif self._reason is None:
            self._reason = encodable(reason[:64])

    def _read_delta(self, delta: dict[str, Any], logprobs: object, out: list[Content]) -> None:
        get = delta.get
        reasoning = get("reasoning_content") or get("reasoning") or get("reasoning_details")  # C10: never two copies
        if reasoning:
            self._say(Reasoning, text_of(reasoning, "text", "summary"), out)
        content = get("content")
        if content:
            if isinstance(content, str):
                self._say(Delta, content, out)
            elif isinstance(content, list):
                for part in content:  # C3
                    if isinstance(part, dict):
                        self._say(Delta, text_of(part.get("text")), out)
                        if not reasoning:
                            self._say(Reasoning, text_of(part.get("thinking"), "text"), out)
        refusal = get("refusal")
        if refusal:
            self._say(Refusal, text_of(refusal), out)
        if logprobs and isinstance(logprobs, dict):
            weights = Logprobs(read_logprobs(logprobs.get("content")), read_logprobs(logprobs.get("refusal")))
            if weights.content or weights.refusal:
                out.append(weights)
        calls = get("tool_calls")
        if calls and isinstance(calls, list):  # X8
            for call in calls:
                if isinstance(call, dict):
                    self._call(call.get("index"), call.get("id"), call.get("function"), out)
        function = get("function_call")
        if function:
            self._call(_LEGACY, None, function, out)  # X10

    def _call(self, index: object, id: object, function: object, out: list[Content]) -> None:
        fields = function if isinstance(function, dict) else {}
        said = encodable(text_of(id)), encodable(text_of(fields.get("name"))), text_of(fields.get("arguments"))
        if not any(said):
            return
        self._say_call(self._calls.take(index if isinstance(index, int) else None, *said), out)
