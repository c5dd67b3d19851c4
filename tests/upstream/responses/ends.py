"""Calls, and the ends of a Responses stream: rows R3–R5. Only data; see `responses_quirks`."""

from __future__ import annotations

from typing import Any

from app.errors import Disconnected, Empty, Malformed, RateLimited, Rejected, Truncated, Unpaid, UpstreamError
from tests.upstream.reading import quirks_bytes as chat
from tests.upstream.reading.quirks_bytes import CUT, DONE, OPEN, Case, dumps, event
from tests.upstream.responses.bytes import END, HI, SUMMED, arguments, function, item, message, over, said, sent

F = ("call_1", "f", '{"a":1}')
CALLS = [
    Case(
        "call",
        item("added", 1, function())
        + arguments('{"a"', 1)
        + arguments(":1}", 1)
        + sent("function_call_arguments.done", output_index=1, arguments=F[2])
        + item("done", 1, function(arguments=F[2]))
        + over(output=[{"type": "reasoning"}, function(arguments=F[2])]),
        "tool_calls",
        calls=(F,),
    ),
    Case(
        "calls-in-parallel",
        item("added", 2, function("a", "f"))
        + item("added", 5, function("b", "g"))
        + arguments("1", 5)
        + arguments("2", 2)
        + arguments("3", 5)
        + END,
        "tool_calls",
        calls=(("a", "f", "2"), ("b", "g", "13")),
    ),
    Case(
        "calls-R6",
        item("added", 0, function("x", id="a"))
        + arguments("{}")
        + item("done", 0, function("call_9", arguments="{}", id="b"))
        + END,
        "tool_calls",
        calls=(("x", "f", "{}"),),
    ),
    Case(
        "calls-R7-done",
        item("added", 0, function())
        + sent("function_call_arguments.done", output_index=0, arguments=F[2])
        + item("done", 0, function(arguments=F[2]))
        + END,
        "tool_calls",
        calls=(F,),
    ),
    Case(
        "calls-R7-item",
        item("done", 0, function(arguments=F[2])) + over(output=[function(arguments=F[2])]),
        "tool_calls",
        calls=(F,),
    ),
    Case("calls-R7-response", over(output=[message("hi"), function(arguments=F[2])]), "tool_calls", "hi", calls=(F,)),
    Case(
        "calls-R7-response-late",
        item("added", 0, function()) + over(output=[function(arguments=F[2])]),
        "tool_calls",
        calls=(F,),
    ),
    Case(
        "calls-R7-counts-otherwise",
        item("added", 3, function()) + arguments(F[2], 3) + over(output=[function(arguments=F[2])]),
        "tool_calls",
        calls=(F,),
    ),
    Case(
        "calls-X2",
        item("added", 0, function("a")) + arguments("1") + item("added", 0, function("b")) + arguments("2") + END,
        "tool_calls",
        calls=(("a", "f", "1"), ("b", "f", "2")),
    ),
    Case("calls-added-twice", item("added", 0, function()) * 2 + arguments(F[2]) + END, "tool_calls", calls=(F,)),
    Case(
        "calls-not-added", arguments(F[2]) + item("done", 0, function(arguments=F[2])) + END, "tool_calls", calls=(F,)
    ),
    Case("calls-without-arguments", item("added", 0, function()) + END, "tool_calls", calls=(("call_1", "f", ""),)),
    Case(
        "calls-no-call-id",
        item("added", 0, function() | {"call_id": None}) + arguments("{}") + END,
        "tool_calls",
        calls=(("fc_1", "f", "{}"),),
    ),
    Case(
        "calls-custom",
        item("added", 0, {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": ""})
        + sent("custom_tool_call_input.delta", output_index=0, delta="SELECT")
        + sent("custom_tool_call_input.delta", output_index=0, delta=" 1")
        + sent("custom_tool_call_input.done", output_index=0, input="SELECT 1")
        + item("done", 0, {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"})
        + END,
        "tool_calls",
        calls=(("c", "sql", "SELECT 1"),),
    ),
    Case(
        "calls-of-upstream's-own",
        item("added", 0, {"type": "mcp_call", "name": "x", "arguments": ""})
        + sent("mcp_call_arguments.delta", output_index=0, delta="{}")
        + item("done", 0, {"type": "mcp_call", "name": "x", "arguments": "{}"})
        + item("done", 1, {"type": "web_search_call", "id": "ws"})
        + said("hi", 2)
        + END,
        text="hi",
    ),
    Case(
        "calls-not-whole",
        item("added", 0, function())
        + arguments("{")
        + over("incomplete", incomplete_details={"reason": "max_output_tokens"}),
        "length",
        calls=(("call_1", "f", "{"),),
    ),
    Case(
        "calls-too-many",
        b"".join(item("added", at, function(f"c{at}")) for at in range(300)),
        Malformed,
        calls=tuple((f"c{at}", "f", "") for at in range(256)),
    ),
    Case(
        "calls-too-many-in-response",
        over(output=[function(f"c{at}") for at in range(300)]),
        Malformed,
        calls=tuple((f"c{at}", "f", "") for at in range(256)),
    ),
    Case(
        "calls-odd",
        item("added", 0, None)
        + item("added", 0, {"type": ["x"]})
        + item("done", 0, 3)
        + arguments(None)
        + item("added", 0, {"type": "function_call", "call_id": {}, "name": {}})
        + HI
        + END,
        text="hi",
    ),
]

NO = "It broke."
ENDINGS = [
    Case(
        "R3-flat",
        HI + event({"type": "error", "code": "server_error", "message": NO, "param": None, "sequence_number": 1}),
        UpstreamError,
        "hi",
        message=NO,
    ),
    Case(
        "R3-nested",
        HI
        + event(
            {
                "type": "error",
                "sequence_number": 2,
                "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": NO},
            }
        ),
        Unpaid,
        "hi",
    ),
    Case(
        "R3-nested-limit",
        event(
            {
                "type": "error",
                "error": {"code": "rate_limit_exceeded", "message": NO, "headers": {"x-ratelimit-limit": "1"}},
            }
        ),
        RateLimited,
        message=NO,
    ),
    Case(
        "R3-named",
        b"event: error\n" + event({"code": "invalid_prompt", "message": NO, "param": "input"}),
        Rejected,
        message=NO,
    ),
    Case("R3-typed-only", event({"type": "error"}), UpstreamError, message=UpstreamError.message),
    Case("R3-no-type", HI + event({"error": {"message": NO}}) + END, UpstreamError, "hi", message=NO),
    Case("R4", HI + over("failed", error={"code": "server_error", "message": NO}), UpstreamError, "hi", message=NO),
    Case("R4-limit", over("failed", error={"code": "rate_limit_exceeded", "message": NO}), RateLimited, message=NO),
    Case("R4-prompt", over("failed", error={"code": "invalid_prompt", "message": NO}), Rejected, message=NO),
    *(
        Case(f"R4-{code}", over("failed", error={"code": code, "message": NO}), Rejected, message=NO)
        for code in (
            "invalid_image_url",
            "image_too_large",
            "bio_policy",
            "misalignment_policy_violation",
            "failed_to_download_image",
        )
    ),
    Case(
        "R4-vector_store_timeout",
        over("failed", error={"code": "vector_store_timeout", "message": NO}),
        UpstreamError,
        message=NO,
    ),
    Case("R4-nothing-said", over("failed", error=None), UpstreamError, message=UpstreamError.message),
    Case("R4-no-response", sent("failed", error={"message": NO}), UpstreamError, message=NO),
    Case("R4-in-completed", HI + over(status="failed", error={"message": NO}), UpstreamError, "hi", message=NO),
    Case(
        "R4-usage",
        HI + over("failed", error={"message": NO}, usage={"input_tokens": 1}),
        UpstreamError,
        "hi",
        usage={"input_tokens": 1, "prompt_tokens": 1},
    ),
    Case("R4-cancelled", HI + over(status="cancelled"), UpstreamError, "hi"),
    Case("R5-length", HI + over("incomplete", incomplete_details={"reason": "max_output_tokens"}), "length", "hi"),
    Case("R5-filter", HI + over("incomplete", incomplete_details={"reason": "content_filter"}), "content_filter", "hi"),
    Case(
        "R5-other", HI + over("incomplete", incomplete_details={"reason": "max_messages"}), "other:max_messages", "hi"
    ),
    Case("R5-no-reason", HI + over("incomplete", incomplete_details=None), "other:incomplete", "hi"),
    Case(
        "R5-in-completed",
        HI + over(status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        "length",
        "hi",
    ),
    Case(
        "R5-whole",
        over("incomplete", incomplete_details={"reason": "content_filter"}, output=[message("hi")]),
        "content_filter",
        "hi",
    ),
    Case("end-done", HI + END + DONE, text="hi", **OPEN),
    Case("end-at-once", HI + END + HI + over("failed", error={"message": NO}), text="hi", **OPEN),
    Case("end-done-alone", HI + DONE, "unknown", "hi"),
    Case("end-none", HI, Truncated, "hi"),
    Case("end-cut", HI, Disconnected, "hi", **CUT),
    Case("end-cut-after", HI + END, text="hi", **CUT),
    Case("end-empty-response", sent("completed"), **OPEN),
    Case("end-nothing", sent("created", response={"model": "m"}) + event({"type": "keepalive"}), Empty),
    Case("end-another-dialect", chat.HI + chat.END, Empty),
    Case(
        "usage-in-part",
        HI + over(usage={"input_tokens": 1, "output_tokens": 2, "x": {"y": 3}}),
        text="hi",
        usage={"input_tokens": 1, "output_tokens": 2, "x": {"y": 3}, "prompt_tokens": 1, "completion_tokens": 2},
    ),
    Case("usage-odd", HI + over(usage="much"), text="hi"),
    Case("model-odd", sent("created", response={"model": 7}) + HI + over(model="m"), text="hi", model="m"),
    Case(
        "response-odd", sent("created", response=[]) + sent("created") + HI + sent("completed", response=3), text="hi"
    ),
]

ANSWER: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "status": "completed",
    "error": None,
    "model": "m",
    "output": [SUMMED, message("hi"), function(arguments="{}")],
    "usage": {"total_tokens": 3},
}
BODIES = [
    Case(
        "H5",
        dumps(ANSWER),
        "tool_calls",
        "hi",
        "a\n\nb",
        calls=(("call_1", "f", "{}"),),
        usage={"total_tokens": 3},
        model="m",
    ),
    Case(
        "H5-length",
        dumps(
            ANSWER
            | {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}, "output": [message("hi")]}
        ),
        "length",
        "hi",
        usage={"total_tokens": 3},
        model="m",
    ),
    Case(
        "H5-failed",
        dumps(ANSWER | {"status": "failed", "output": [], "error": {"code": "server_error", "message": NO}}),
        UpstreamError,
        message=NO,
    ),
    Case("H5-not-yet", dumps(ANSWER | {"status": "queued", "output": []}), Malformed),
    Case("H5-of-a-chat", b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}', Malformed),
]
