"""Rows F, H and E: framing, whole bodies, errors. Only data; see `quirks`."""

from __future__ import annotations

from app.errors import Disconnected, Empty, Malformed, RateLimited, Rejected, Truncated, Unauthorized, UpstreamError
from tests.upstream.reading.quirks_bytes import CUT, DONE, END, ERROR, HI, OPEN, STOP, Case, chunk, dumps, event, text

FRAMING = [
    Case("F1", b'data:{"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\ndata:[DONE]\n\n', text="hi"),
    Case("F2-crlf", (HI + END).replace(b"\n", b"\r\n"), text="hi", **OPEN),
    Case("F2-cr", (HI + END).replace(b"\n", b"\r"), text="hi", **OPEN),
    Case("F2-mixed", HI.replace(b"\n\n", b"\r\n\n") + HI.replace(b"\n\n", b"\n\r\n") + END, text="hihi"),
    Case("F3", b"\xef\xbb\xbf" + HI + END, text="hi"),
    Case("F3-kept-later", text("a\ufeffb") + END, text="a\ufeffb"),
    Case("F4", text("a\u2028b\u2029c\u0085d") + END, text="a\u2028b\u2029c\u0085d"),
    Case(
        "F4-splitlines",
        text("a\x7f") + event(b'{"choices":[{"delta":{"content":"\\u000b\\u001c"}}]}') + END,
        text="a\x7f\v\x1c",
    ),
    Case("F5", b'data: {"choices":\ndata: [{"delta":\ndata:\ndata: {"content":"hi"}}]}\n\n' + END, text="hi"),
    Case("F6", HI[:-1] + HI + END, text="hihi"),
    Case("F6-done", HI[:-1] + STOP[:-1] + DONE, text="hi", **OPEN),
    Case("F6-sentinel-is-not-the-end", b"data: [DONE]\ndata: x\n\n", Malformed),
    Case("F7", b'data:\n {"choices":[{"delta":{"content":"hi"}}]}\n\n', Malformed),
    Case("F8", b": OPENROUTER PROCESSING\n\n" + HI + b":\n\n: ping\n\n" + END, text="hi"),
    Case("F9", HI + STOP + b": x-omniroute-latency-ms=337\n" + DONE, text="hi"),
    Case("F10", b"data: : OPENROUTER PROCESSING\n\n" + HI + END, text="hi"),
    Case("F10-joined", b"data: : ping\n" + HI + END, text="hi"),
    Case("F11", b"data:\n\ndata: \n\ndata\n\n" + HI + b"data:   \n\n" + END, text="hi"),
    Case("F12", b"event: ping\n\nevent: error\n\n" + HI + b"event: message\n\n" + END, text="hi"),
    Case("F13", b"retry: 1000\n\n" + HI + b"id: 7\n\n" + END, text="hi"),
    Case("F14", b"id: 1\n" + HI + b": ping\n\nid: 2\n" + END, text="hi"),
    Case("F15", b"event: token\n" + HI + b"event: end\n" + END, text="hi"),
    Case("F15-done", b"event: token\n" + HI + b"event: end\n" + DONE, "unknown", text="hi", **OPEN),
    Case("F16", b'error: {"code":400,"message":"bad grammar"}\n\n' + DONE, Rejected, message="bad grammar"),
    Case("F16-later", HI + b'error: {"error":{"message":"bad"}}\n\n' + END, UpstreamError, text="hi", message="bad"),
    Case("F17", HI + b'{"error":{"message":"It broke."}}\n', UpstreamError, text="hi", message="It broke."),
    Case(
        "F17-pretty",
        HI + b'{\n "error": {\n "code": 429,\n "message": "slow"\n}\n}\n',
        RateLimited,
        text="hi",
        message="slow",
    ),
    Case("F17-first", b'{"error":{"message":"It broke."}}\n\n' + DONE, UpstreamError, message="It broke."),
    Case("F17-no-line-end", HI + b'{"error":"gone"}', UpstreamError, text="hi", message="gone"),
    Case("F17-harmless", HI + b'{"status":"working"}\nnonsense\n\n' + END, text="hi"),
    Case("F17-is-no-chunk", HI + HI[6:] + END, text="hi"),
    Case("F18", HI + b"data: error: engine died\n\n" + END, Malformed, text="hi", message=Malformed.message),
    Case("F19", HI + STOP, text="hi"),
    Case("F20", HI + STOP + b"data: [DONE]", text="hi"),
    Case("F20-no-finish", HI + b"data: [DONE]\n", "unknown", text="hi"),
    Case("F21-blanks", HI + b"data: [DONE] \t\n\n", "unknown", text="hi", **OPEN),
    Case("F21-twice", HI + END + DONE + HI, text="hi", **OPEN),
    Case("F21-in-text", text("data: [DONE]") + text("[DONE]") + END, text="data: [DONE][DONE]"),
    Case("F22", HI + END, text="hi", **OPEN),
    Case("F23", HI + STOP[:-1], text="hi"),
    Case("F23-no-line-end", HI + STOP[:-2], text="hi"),
    Case("F23-half", HI + STOP[:-9], Truncated, text="hi"),
    Case("F24", text("Привет, 世界 🙂") + END, text="Привет, 世界 🙂"),
    Case(
        "F25",
        event(b'{"choices":[{"delta":{"content":"a\xff\xfeb\xef\xbf\xbd"}}]}') + END,
        text="a\ufffd\ufffdb\ufffd",
        replaced_bytes=2,
    ),
    Case("F26", text("x" * 20_000) + END, text="x" * 20_000),
    Case("F26-beyond", HI + text("x" * 40_000) + END, Malformed, text="hi"),
    Case("F27", b'data: null\n\ndata: [{"a":1}]\n\ndata: 7\n\ndata: "x"\n\n' + HI + END, text="hi"),
    Case("F27-error", HI + event([ERROR]) + END, UpstreamError, text="hi", message="It broke."),
    Case("F28", HI + b'data: {"cho: keep-alive\n\nices":[]}\n\n' + END, Malformed, text="hi"),
]

WHOLE = {
    "object": "chat.completion",
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "reasoning_content": "hm",
                "content": "hi",
                "refusal": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
            },
            "finish_reason": "tool_calls",
        }
    ],
    "usage": {"total_tokens": 3},
}

BODIES = [
    Case("H4", b'{"error":{"message":"quota exceeded","code":429}}', RateLimited, message="quota exceeded"),
    Case("H4-pretty", b'\xef\xbb\xbf \n {\n"error": "no"\n}\n', UpstreamError, message="no"),
    Case("H4-list", b'[{"error":{"code":400,"message":"no"}}]', Rejected, message="no"),
    Case("H4-lines", b'{"error":"no"}\n{"more":1}\n', UpstreamError, message="no"),
    Case("H4-held-open", b'{"error":"no"}', UpstreamError, message="no", **CUT),
    Case(
        "H5", dumps(WHOLE), "tool_calls", "hi", "hm", calls=(("c1", "f", "{}"),), usage={"total_tokens": 3}, model="m"
    ),
    Case("H5-length", b'{"choices":[{"message":{"content":"hi"},"finish_reason":"length"}]}', "length", "hi"),
    Case(
        "H5-refusal", b'{"choices":[{"message":{"content":null,"refusal":"no"},"finish_reason":"stop"}]}', refusal="no"
    ),
    Case("H5-half", dumps(WHOLE)[:-5], Malformed),
    Case("H5-cut", dumps(WHOLE)[:-5], Disconnected, **CUT),
    Case("H5-nothing-in-it", b'{"choices":[]}', Empty),
    Case("H5-something-else", b'{"models":[]}', Malformed),
    Case("H6", b"\n \n" + HI + END, text="hi"),
    Case("H7", b"<!DOCTYPE html><title>Welcome</title>", Malformed),
    Case("H7-open", b" \n<html>", Malformed, **OPEN),
    Case("H7-text", b"Unexpected endpoint or method.\n", Malformed),
    Case("H8", b"", Empty),
    Case("H8-blank", b" \r\n \n", Empty),
    Case("H8-bom", b"\xef\xbb", Empty),
    Case("H8-cut", b"", Disconnected, **CUT),
    Case("H13", HI + STOP, text="hi", cut_after_finish=True, **CUT),
    Case("H13-done", HI + END, text="hi", **CUT),
    Case("H13-no-finish", HI, Disconnected, text="hi", **CUT),
    Case("H13-whole-last-line", HI + STOP[:-2], text="hi", cut_after_finish=True, **CUT),
    Case("H14", HI, Truncated, text="hi"),
    Case("H15", HI + HI[:20], Truncated, text="hi"),
]

ERRORS = [
    Case("E1", HI + event(ERROR), UpstreamError, "hi", message="It broke."),
    Case("E1-done", HI + event(ERROR) + DONE, UpstreamError, "hi", message="It broke."),
    Case("E1-cut", HI + event(ERROR), UpstreamError, "hi", message="It broke.", **CUT),
    Case("E1-first", event(ERROR), UpstreamError, message="It broke."),
    Case("E2", event({"error": "STREAM_EXPLODED"}), UpstreamError, message="STREAM_EXPLODED"),
    Case("E3", event({"object": "error", "message": "bad", "code": 400}), Rejected, message="bad"),
    Case("E3-detail", event({"detail": "Method Not Allowed"}), UpstreamError, message="Method Not Allowed"),
    Case("E3-message-and-code", event({"message": "slow", "code": "429"}), RateLimited, message="slow"),
    Case(
        "E4",
        HI
        + event(
            {
                "error": {"code": "server_error", "message": "gone"},
                "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}],
            }
        ),
        UpstreamError,
        "hi",
        message="gone",
    ),
    Case(
        "E5",
        HI + b'event: error\ndata: {"message":"gone","type":"server_error"}\n\n',
        UpstreamError,
        "hi",
        message="gone",
    ),
    Case("E5-nested", b"event: error\n" + event(ERROR), UpstreamError, message="It broke."),
    Case("E5-string", b'event: error\ndata: "gone"\n\n', UpstreamError, message="gone"),
    Case("E5-null", b"event: error\ndata: null\n\n", UpstreamError, message=UpstreamError.message),
    Case("E5-number", b"event: error\ndata: 3\n\n", UpstreamError, message=UpstreamError.message),
    Case("E5-text", b"event: error\ndata: it died\n\n", UpstreamError, message=UpstreamError.message),
    Case("E5-empty", b"event: error\ndata:\n\n", UpstreamError, message=UpstreamError.message),
    Case("E5-choices", b"event: error\n" + HI, UpstreamError),
    Case("E5-done", b"event: error\n" + DONE, UpstreamError),
    Case(
        "E6",
        HI + event({"error": {"message": "bad", "http_status_code": 422}}) + HI + END,
        Rejected,
        "hi",
        message="bad",
    ),
    Case("E7", HI + text(""), Truncated, "hi"),
    Case("E8", chunk({"content": ""}) + END),
    Case("E9", HI + event({"error": {"message": "no", "code": "500"}}), UpstreamError, "hi", message="no"),
    Case("E9-429", event({"error": {"message": "no", "code": "429"}}), RateLimited, message="no"),
    Case(
        "E10",
        event(
            {
                "error": {
                    "message": "Failed to call a function.",
                    "code": "tool_use_failed",
                    "failed_generation": "SECRET",
                }
            }
        ),
        UpstreamError,
        message="Failed to call a function.",
    ),
    *(
        Case(f"E11-{reason}", HI + chunk({"content": "!"}, reason) + DONE, UpstreamError, "hi!")
        for reason in ("error", "abort", "network_error", "insufficient_system_resource")
    ),
    Case("E12", chunk({"content": "hi"}, error=None) + chunk({"content": "!"}, error={}) + END, text="hi!"),
    Case("E13-after-done", HI + END + event(ERROR), text="hi", **OPEN),
    Case("E13-stray-after-done", HI + END + b'error: {"message":"late","code":1}\n\n', text="hi", **OPEN),
    Case("E13-after-finish", HI + STOP + event(ERROR) + DONE, UpstreamError, "hi", message="It broke."),
    Case("E14", HI + chunk({}, "content_filter") + DONE, "content_filter", "hi"),
    Case(
        "E-auth",
        event({"error": {"message": "Bad key sk-12345678", "code": "invalid_api_key"}}),
        Unauthorized,
        message=Unauthorized.message,
    ),
    Case("E-malformed-after-finish", HI + STOP + b"data: oops\n\n", text="hi", cut_after_finish=True),
]
