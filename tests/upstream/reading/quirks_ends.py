"""Finish reasons, usage and the ends of a stream. Only data; see `quirks`."""

from __future__ import annotations

from app.errors import Disconnected, Empty, IdleTimeout, UpstreamError
from tests.upstream.reading.quirks_bytes import CUT, DONE, END, ERROR, HI, OPEN, STOP, Case, chunk, event

FINISHES = [
    Case(f"finish-{raw}", HI + chunk({}, raw) + DONE, kind, "hi")
    for kind, raws in (
        ("stop", ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "STOP", "COMPLETE", "FinishReason.STOP")),
        ("length", ("length", "model_length", "max_tokens", "model_context_window_exceeded", "MAX_TOKENS", "LENGTH")),
        ("length", ("max_output_tokens", "max_new_tokens", "max-tokens", "maxTokens", "REASON_MAX_LEN")),
        ("tool_calls", ("tool_calls", "function_call", "tool_use", "TOOL_CALLS", "tool-calls", "toolUse")),
        ("content_filter", ("content_filter", "sensitive", "SAFETY", "content-filter", "RECITATION", "refusal")),
        ("content_filter", ("PROHIBITED_CONTENT", "guardrail_intervened", "IMAGE_SAFETY")),
        ("content_filter", ("content_filter: PROHIBITED_CONTENT", "content_filter: RECITATION", "MODEL_ARMOR")),
        ("length", ("repetition", "repetition_truncation")),
        ("unknown", ("null", "unknown", "NOT_FINISHED")),
        ("other:pause_turn", ("pause_turn",)),
        ("other:" + "x" * 64, ("x" * 100,)),
    )
    for raw in raws
] + [
    Case(
        "C35-alone",
        event({"choices": [{"index": 0, "finish_reason": "content_filter: SAFETY"}], "usage": {"completion_tokens": 0}})
        + DONE,
        "content_filter",
        usage={"completion_tokens": 0},
    ),
    Case("finish-other-type", HI + chunk({}, 3) + chunk({}, {"a": 1}) + DONE, "unknown", "hi"),
    Case("finish-first-counts", HI + chunk({}, "length") + STOP + DONE, "length", "hi"),
    Case("finish-object", HI + chunk({}, {"type": "length", "length": 16}) + DONE, "length", "hi"),
    Case(
        "finish-on-every-chunk",
        chunk({"content": "a"}, "stop")
        + chunk({"content": "b"}, "stop")
        + chunk({"content": "c"}, "MAX_TOKENS")
        + DONE,
        "length",
        "abc",
    ),
]

USAGE = [
    Case(
        "usage-extra-chunk",
        chunk({"content": "hi"}, usage=None) + STOP + event({"choices": [], "usage": {"n": 3}}) + DONE,
        text="hi",
        usage={"n": 3},
    ),
    Case("usage-at-finish", HI + chunk({}, "stop", usage={"n": 3}) + DONE, text="hi", usage={"n": 3}),
    Case("usage-groq", HI + chunk({}, "stop", x_groq={"id": "x", "usage": {"n": 3}}) + DONE, text="hi", usage={"n": 3}),
    Case(
        "usage-moonshot",
        HI + event({"choices": [{"delta": {}, "finish_reason": "stop", "usage": {"n": 3}}]}) + DONE,
        text="hi",
        usage={"n": 3},
    ),
    Case(
        "usage-bifrost",
        HI
        + event({"choices": [{"delta": {}, "finish_reason": "stop", "usage": {"n": 2}}]})
        + event({"choices": [], "usage": {"n": 3}})
        + DONE,
        text="hi",
        usage={"n": 3},
    ),
    Case(
        "usage-running",
        chunk({"content": "a"}, usage={"n": 1})
        + chunk({"content": "b"}, usage={"n": 2})
        + chunk({}, "stop", usage=None),
        text="ab",
        usage={"n": 2},
    ),
    Case(
        "usage-short-cut",
        chunk({"content": "a"}, model="m")
        + chunk({"content": "b"}, model="m")
        + chunk({"content": "c"}, x_groq={"usage": {"n": 1}})
        + END,
        text="abc",
        usage={"n": 1},
        model="m",
    ),
    Case(
        "usage-with-error", chunk({"content": "a"}, usage={"n": 1}) + event(ERROR), UpstreamError, "a", usage={"n": 1}
    ),
    Case(
        "usage-odd",
        chunk({"content": "a"}, usage={"n": 1}) + chunk({}, "stop", usage="lots") + event({"choices": [], "usage": {}}),
        text="a",
        usage={"n": 1},
    ),
]

ENDS = [
    Case("end-error-open", HI + event(ERROR), UpstreamError, "hi", **OPEN),
    Case("end-finish-open", HI + STOP, text="hi", **OPEN),
    Case("end-nothing-done", DONE, Empty, **OPEN),
    Case("end-usage-only", event({"choices": [], "usage": {"n": 1}}) + DONE, Empty, usage={"n": 1}),
    Case("end-nothing-cut", b": ping\n\n", Disconnected, **CUT),
]

TIMED_OUT = Case("end-timed-out", HI, IdleTimeout, "hi", ends="timeout")
