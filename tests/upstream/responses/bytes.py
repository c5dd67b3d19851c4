"""Responses streams, event by event: how a case is written down in that dialect."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.upstream.reading.quirks_bytes import event

TYPES = [
    "created",
    "queued",
    "in_progress",
    "compaction.compacting",
    "completed",
    "failed",
    "incomplete",
    "output_item.added",
    "output_item.done",
    "content_part.added",
    "content_part.done",
    "output_text.delta",
    "output_text.done",
    "output_text.annotation.added",
    "refusal.delta",
    "refusal.done",
    "reasoning_text.delta",
    "reasoning_text.done",
    "reasoning_summary_part.added",
    "reasoning_summary_part.done",
    "reasoning_summary_text.delta",
    "reasoning_summary_text.done",
    "audio.delta",
    "audio.done",
    "audio.transcript.delta",
    "audio.transcript.done",
    "function_call_arguments.delta",
    "function_call_arguments.done",
    "custom_tool_call_input.delta",
    "custom_tool_call_input.done",
    "mcp_call_arguments.delta",
    "mcp_call_arguments.done",
    "mcp_call.in_progress",
    "mcp_call.completed",
    "mcp_call.failed",
    "mcp_list_tools.in_progress",
    "mcp_list_tools.completed",
    "mcp_list_tools.failed",
    "web_search_call.in_progress",
    "web_search_call.searching",
    "web_search_call.completed",
    "file_search_call.in_progress",
    "file_search_call.searching",
    "file_search_call.completed",
    "code_interpreter_call.in_progress",
    "code_interpreter_call.interpreting",
    "code_interpreter_call.completed",
    "code_interpreter_call_code.delta",
    "code_interpreter_call_code.done",
    "image_generation_call.in_progress",
    "image_generation_call.generating",
    "image_generation_call.partial_image",
    "image_generation_call.completed",
    "shell_call_command.added",
    "shell_call_command.delta",
    "shell_call_command.done",
    "shell_call_output_content.delta",
    "shell_call_output_content.done",
]
"""All that openai-python 3.54.0 knows, except `error`, without their `response.`."""
READ = frozenset(
    [
        "created",
        "queued",
        "in_progress",
        "completed",
        "failed",
        "incomplete",
        "output_item.added",
        "output_item.done",
        "content_part.done",
        "output_text.delta",
        "output_text.done",
        "output_text.annotation.added",
        "audio.delta",
        "audio.transcript.delta",
        "refusal.delta",
        "refusal.done",
        "reasoning_text.delta",
        "reasoning_text.done",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "custom_tool_call_input.delta",
        "custom_tool_call_input.done",
    ]
)
"""Those that say something to a chat."""


def sent(kind: str, **fields: object) -> bytes:
    """Return an event of type `response.KIND` as OpenAI frames it."""
    return b"event: response.%s\n" % kind.encode() + event({"type": f"response.{kind}"} | fields)


def said(content: object, at: int = 0, index: int = 0, **more: object) -> bytes:
    fields = {"item_id": "msg_1", "output_index": at, "content_index": index, "delta": content}
    return sent("output_text.delta", **fields | more)


def over(kind: str = "completed", **response: object) -> bytes:
    return sent(kind, response={"id": "resp_1", "object": "response", "status": kind, "output": []} | response)


def message(*texts: str, **more: object) -> dict[str, object]:
    content = [{"type": "output_text", "text": text, "annotations": []} for text in texts]
    return {"id": "msg_1", "type": "message", "role": "assistant", "content": content} | more


def function(call_id: str = "call_1", name: str = "f", arguments: str = "", **more: object) -> dict[str, object]:
    return {"id": "fc_1", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments} | more


def item(step: str, at: int, fields: object) -> bytes:
    return sent(f"output_item.{step}", output_index=at, item=fields)


def arguments(delta: object, at: int = 0) -> bytes:
    return sent("function_call_arguments.delta", item_id="fc_1", output_index=at, delta=delta)


HI, END = said("hi"), over()
USAGE: dict[str, Any] = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 8,
}
AS_CHAT = USAGE | {
    "prompt_tokens": 5,
    "prompt_tokens_details": {"cached_tokens": 2},
    "completion_tokens": 3,
    "completion_tokens_details": {"reasoning_tokens": 1},
}


def whole_stream() -> bytes:
    """Return an answer as OpenAI sends it, with everything said four times."""
    number = count()
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    place = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    begun = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "gpt-5", "output": []}
    thought = {"id": "rs_1", "type": "reasoning", "summary": []}
    done = begun | {"status": "completed", "output": [thought, message("Hello you")], "usage": USAGE}
    steps: list[tuple[str, dict[str, object]]] = [
        ("created", {"response": begun | {"usage": None}}),
        ("in_progress", {"response": begun}),
        ("output_item.added", {"output_index": 0, "item": thought}),
        ("output_item.done", {"output_index": 0, "item": thought}),
        ("output_item.added", {"output_index": 1, "item": message() | {"status": "in_progress"}}),
        ("content_part.added", place | {"part": part}),
        ("output_text.delta", place | {"delta": "Hello", "logprobs": [], "obfuscation": "x"}),
        ("output_text.delta", place | {"delta": " ", "logprobs": [], "obfuscation": "xy"}),
        ("output_text.delta", place | {"delta": "you", "logprobs": [], "obfuscation": ""}),
        ("output_text.done", place | {"text": "Hello you", "logprobs": []}),
        ("content_part.done", place | {"part": part | {"text": "Hello you"}}),
        ("output_item.done", {"output_index": 1, "item": message("Hello you")}),
        ("completed", {"response": done}),
    ]
    return b"".join(sent(kind, sequence_number=next(number), **fields) for kind, fields in steps)


WHOLE = whole_stream()


THOUGHT, SUMMARY = "reasoning_text.delta", "reasoning_summary_text.delta"


def thought(text: str, at: int = 0, index: int = 0) -> bytes:
    return sent(THOUGHT, output_index=at, content_index=index, delta=text)


def summary(text: str, at: int = 0, index: int = 0) -> bytes:
    return sent(SUMMARY, output_index=at, summary_index=index, delta=text)


SUMMED = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}],
}
