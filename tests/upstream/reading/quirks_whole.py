"""What an answer has besides its text, and values of unexpected types. Only data; see `quirks`."""

from __future__ import annotations

from typing import Any

from app.errors import Blank, Empty, Malformed, RateLimited, UpstreamError
from app.events import Annotation, Extra, Media
from tests.upstream.reading.quirks_bytes import DONE, END, HI, STOP, Case, chunk, dumps, event, text, tool

CALLED = chunk({}, "tool_calls") + DONE
NOTE = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
OTHER_NOTE = {"type": "url_citation", "url_citation": {"url": "https://b.example", "title": "B"}}
PNG = "data:image/png;base64,iVBORw0KGgo="
IMAGE = {"type": "image_url", "image_url": {"url": PNG}}
SEEN = Media("image", "image/png", PNG, "images")
SIGNED = {"google": {"thought_signature": "c2ln"}}


def choice(delta: object, finish: object = None, **more: object) -> bytes:
    return event({"choices": [{"index": 0, "delta": delta, "finish_reason": finish, **more}]})


def whole(**message: object) -> bytes:
    return dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def thinking(*items: object, **more: object) -> dict[str, Any]:
    return {"type": "thinking", "thinking": [*items], **more}


def parts(*kept: dict[str, Any]) -> tuple[Extra, ...]:
    return tuple(Extra({}, {}, {"content_parts": [{**part, "index": at}]}) for at, part in enumerate(kept))


NOTES = [
    Case("C31", HI + chunk({"annotations": [NOTE]}) + END, text="hi", others=(Annotation([NOTE]),)),
    Case(
        "C31-again",
        HI + chunk({"annotations": [NOTE]}) + chunk({"annotations": [NOTE, OTHER_NOTE]}) * 2 + END,
        text="hi",
        others=(Annotation([NOTE]), Annotation([OTHER_NOTE])),
    ),
    Case("C31-whole", whole(content="hi", annotations=[NOTE]), text="hi", others=(Annotation([NOTE]),)),
    Case(
        "C31-perplexity",
        chunk({"content": "a"}, citations=["u"], search_results=[{"url": "u"}], model="m") * 3
        + chunk({"content": "b"}, citations=["u", "v"], search_results=[{"url": "u"}], model="m")
        + END,
        text="aaab",
        model="m",
        others=(Annotation([], ["u"], [{"url": "u"}]), Annotation([], ["u", "v"], ())),
    ),
    Case(
        "C31-part",
        text([{"type": "text", "text": "hi", "annotations": [NOTE]}, {"type": "reference", "reference_ids": [1]}])
        + END,
        text="hi",
        others=(Annotation([NOTE]), Annotation([{"type": "reference", "reference_ids": [1]}])),
    ),
    Case("C31-empty", chunk({"content": "hi", "annotations": []}, citations=[]) + END, text="hi", others=()),
]

MEDIA = [
    Case("C32", chunk({"content": "", "images": [IMAGE]}) + END, others=(SEEN,)),
    Case("C32-again", chunk({"images": [IMAGE]}) * 2 + END, others=(SEEN,)),
    Case(
        "C32-more-in-it",
        chunk({"images": [IMAGE | {"index": 0}]}) + END,
        others=(Media("image", "image/png", PNG, "images", IMAGE | {"index": 0}),),
    ),
    Case("C32-whole", whole(content=None, images=[IMAGE]), others=(SEEN,)),
    Case(
        "C32-forms",
        chunk({"images": PNG, "image": "https://a.example/x.jpg?y", "files": [{"b64_json": "JVBERi0="}]}) + END,
        others=(
            Media("image", "image/png", PNG, "images", PNG),
            Media("image", "image/jpeg", "https://a.example/x.jpg?y", "image", "https://a.example/x.jpg?y"),
            Media("file", "application/pdf", "data:application/pdf;base64,JVBERi0=", "files", {"b64_json": "JVBERi0="}),
        ),
    ),
    Case(
        "C32-parts",
        text(
            [
                {"type": "text", "text": "see "},
                IMAGE,
                {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "UklGRg=="}},
                {"type": "text", "text": "this"},
            ]
        )
        + END,
        text="see this",
        others=(
            Media("image", "image/png", PNG, "content"),
            Media(
                "image",
                "image/webp",
                "data:image/webp;base64,UklGRg==",
                "content",
                {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": "UklGRg=="}},
            ),
        ),
    ),
    Case(
        "C32-gemini",
        text([{"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}}]) + END,
        others=(
            Media(
                "audio",
                "audio/wav",
                "data:audio/wav;base64,UklGRg==",
                "content",
                {"inlineData": {"mimeType": "audio/wav", "data": "UklGRg=="}},
            ),
        ),
    ),
    Case("C32-odd", HI + chunk({"images": [{"id": 3}]}) + END, Malformed, text="hi"),
    Case("C32-empty", chunk({"content": "hi", "images": [], "audio": None}) + END, text="hi", others=()),
    Case(
        "C32-nothing-but-an-image",
        chunk({"images": [IMAGE]}) + chunk({}, "stop", usage={"completion_tokens": 1120, "prompt_tokens": 9}) + DONE,
        usage={"completion_tokens": 1120, "prompt_tokens": 9},
        others=(SEEN,),
    ),
]

THOUGHT: dict[str, Any] = {"type": "reasoning.text", "text": "hm", "index": 0}
SIGNATURE = {"type": "reasoning.text", "signature": "c2ln", "index": 0}
BLOCK = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
REFERENCE = {"type": "reference", "reference_ids": [1]}
SUMMARY = {"type": "summary_text", "text": "hm"}
SECRET = {"type": "summary_encrypted_text", "data": "x"}

OPAQUE = [
    Case(
        "C33",
        chunk({"reasoning": "hm", "reasoning_details": [THOUGHT]})
        + chunk({"reasoning_details": [SIGNATURE]})
        + HI
        + END,
        text="hi",
        reasoning="hm",
        others=(
            Extra({}, {}, {"reasoning_details": [THOUGHT]}),
            Extra({}, {}, {"reasoning_details": [SIGNATURE]}),
        ),
    ),
    Case(
        "C33-encrypted",
        chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}) + HI + END,
        text="hi",
        others=(Extra({}, {}, {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}),),
    ),
    Case(
        "C33-blocks",
        chunk({"thinking_blocks": [BLOCK]}) + HI + END,
        text="hi",
        reasoning="hm",
        others=(Extra({}, {}, {"thinking_blocks": [BLOCK]}),),
    ),
    Case(
        "C36",
        text([BLOCK]) + text([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "hi"}]) + END,
        text="hi",
        reasoning="hm",
        others=parts(BLOCK, {"type": "redacted_thinking", "data": "x"}),
    ),
    Case(
        "C36-pieces-mistral",
        text([thinking({"type": "text", "text": "h"})])
        + text([thinking({"type": "text", "text": "m"}, REFERENCE, closed=True)])
        + HI * 2
        + END,
        text="hihi",
        reasoning="hm",
        others=parts(thinking({"type": "text", "text": "hm"}, REFERENCE, closed=True)),
    ),
    Case(
        "C36-pieces-databricks",
        text([{"type": "reasoning", "summary": [{**SUMMARY, "signature": ""}]}])
        + text([{"type": "reasoning", "summary": [{**SUMMARY, "text": "", "signature": "c2ln"}]}])
        + text([{"type": "reasoning", "summary": [SECRET]}])
        + text([{"type": "text", "text": "hi"}])
        + END,
        text="hi",
        reasoning="hm",
        others=parts({"type": "reasoning", "summary": [{**SUMMARY, "signature": "c2ln"}, SECRET]}),
    ),
    Case(
        "C36-before-a-call",
        text([thinking("hm")]) + tool({"index": 0, "id": "a", "function": {"name": "f", "arguments": "{}"}}) + CALLED,
        end="tool_calls",
        reasoning="hm",
        calls=(("a", "f", "{}"),),
        others=parts(thinking("hm")),
    ),
    Case(
        "C36-without-an-end",
        HI + text([thinking("hm")]) + DONE,
        end="unknown",
        text="hi",
        reasoning="hm",
        others=parts(thinking("hm")),
    ),
    Case(
        "C36-text",
        text([{"type": "text", "text": "hi", "thought_signature": "c2ln"}]) + HI + END,
        text="hihi",
        others=parts({"type": "text", "text": "hi", "thought_signature": "c2ln"}),
    ),
    Case(
        "C31-text",
        text([{"type": "text", "text": {"value": "hi", "annotations": [NOTE]}}]) + END,
        text="hi",
        others=(Annotation([NOTE]),),
    ),
    *(
        Case(f"C36-reasoning-{n}", chunk({"content": [part]}) + HI + END, text="hi", reasoning="hm", others=parts(part))
        for n, part in enumerate[dict[str, Any]](
            (
                {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "signature": ""}]},
                {"type": "reasoning", "text": "hm"},
                {"type": "thinking", "thinking": "hm"},
            )
        )
    ),
    *(
        Case(f"C33-{name}", chunk({name: value}) + HI + END, text="hi", reasoning="hm", others=())
        for name in ("reasoning", "reasoning_content", "reasoning_text", "thinking", "thoughts")
        for value in ("hm",)
    ),
    Case("C33-number", chunk({"reasoning_content": 7}) + HI + END, text="hi", reasoning="7"),
    Case("C33-list", chunk({"reasoning": ["h", "m"]}) + HI + END, text="hi", reasoning="hm"),
    Case(
        "C33-switch",
        chunk({"reasoning": True, "content": "hi"}) + END,
        text="hi",
        others=(Extra({}, {}, {"reasoning": True}),),
    ),
]

CONSTANT: dict[str, Any] = {"system_fingerprint": "fp", "service_tier": "default", "provider": "P", "seed": None}
EXTRAS = [
    Case(
        "C34",
        chunk({"role": "assistant"}, model="m", **CONSTANT)
        + chunk({"content": "a"}, model="m", obfuscation="xy", **CONSTANT) * 9
        + chunk({"content": "b"}, model="m", obfuscation="xyz", **CONSTANT | {"service_tier": "flex"})
        + chunk({"content": "c"}, model="m", **CONSTANT | {"service_tier": "flex"})
        + END,
        text="aaaaaaaaabc",
        model="m",
        others=(
            Extra({"system_fingerprint": "fp", "service_tier": "default", "provider": "P"}),
            Extra({"service_tier": "flex"}),
        ),
    ),
    Case(
        "C34-choice",
        choice({"content": "a"}, matched_stop=None, token_ids=[1])
        + choice({"content": "b"}, matched_stop=None, token_ids=[1])
        + choice({"content": "c", "vibe": {"x": float("nan")}}, token_ids=[2])
        + choice({"vibe": {"x": 1}}, "stop", native_finish_reason="STOP")
        + DONE,
        text="abc",
        others=(
            Extra({}, {"token_ids": [1]}),
            Extra({}, {"token_ids": [2]}),
            Extra({}, {"native_finish_reason": "STOP"}, {"vibe": {"x": 1}}),
        ),
    ),
    Case(
        "C34-delta",
        chunk({"reasoning": "hm", "channel": "analysis"}) * 3
        + chunk({"content": "h", "channel": "final", "token_id": 7})
        + chunk({"content": "i", "channel": "final", "token_id": 7, "seen": ["x" * 20_000]})
        + chunk({"content": "!", "channel": "final", "token_id": 8, "seen": ["x" * 20_000]})
        + END,
        text="hi!",
        reasoning="hmhmhm",
        others=(
            Extra({}, {}, {"channel": "analysis"}),
            Extra({}, {}, {"channel": "final", "token_id": 7}),
            Extra({}, {}, {"seen": ["x" * 20_000]}),
            Extra({}, {}, {"token_id": 8}),
        ),
    ),
    Case("C34-no-answer", chunk({"vibe": 1}, provider="P") + DONE, end=Empty, others=()),
    Case(
        "C34-filtered", chunk({}, "content_filter", provider="P"), "content_filter", others=(Extra({"provider": "P"}),)
    ),
    Case(
        "C34-no-choices",
        HI + event({"choices": [], "timings": {"n": 1}}) + END,
        text="hi",
        others=(Extra({"timings": {"n": 1}}),),
    ),
]

OTHER_TYPES = [
    Case(
        "C29",
        b"".join(event({"choices": [{"index": at, "delta": {"content": said}}]}) for at, said in enumerate("abc"))
        + event({"choices": [{"index": 3, "delta": {}, "finish_reason": "stop"}]})
        + DONE,
        text="abc",
    ),
    Case("C29-text", event({"choices": [{"index": "0", "delta": {"content": "hi"}}]}) + END, text="hi"),
    Case(
        "C30", event({"choices": [{"text": "h"}]}) + event({"choices": [{"text": "i", "delta": {}}]}) + END, text="hi"
    ),
    Case("C30-whole", b'{"choices":[{"text":"hi","finish_reason":"stop"}]}', text="hi"),
    Case("C30-copy", HI + event({"choices": [{"text": "hi", "delta": {}, "finish_reason": "stop"}]}) + DONE, text="hi"),
    *(
        Case(f"X15-{n}", tool({"index": "0", "id": "a"} | call) + CALLED, "tool_calls", calls=(("a", "f", '{"x":1}'),))
        for n, call in enumerate[dict[str, Any]](
            (
                {"function": {"name": "f", "arguments": {"x": 1}}},
                {"function": {"name": "f", "input": {"x": 1}}},
                {"function": {"name": ["f"], "arguments": ['{"x"', ":1}"]}},
                {"name": "f", "arguments": {"x": 1}},
                {"function": "f", "arguments": '{"x":1}'},
                {"function": {"name": "f", "parameters": {"x": 1}}},
                {"function": {"name": "f", "args": '{"x":1}', "arguments": None}},
                {"function": {"name": "f"}, "args": {"x": 1}},
                {"name": "f", "args": {"x": 1}},
                {"name": "f", "function": {"arguments": '{"x":1}'}},
                {"function": '{"name": "f", "arguments": {"x": 1}}'},
            )
        )
    ),
    Case(
        "X15-no-list",
        chunk({"tool_calls": {"id": "a", "function": {"name": "f", "arguments": {}}}}) + CALLED,
        "tool_calls",
        calls=(("a", "f", "{}"),),
    ),
    Case(
        "X15-part",
        text([{"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}]) + CALLED,
        "tool_calls",
        calls=(("a", "f", '{"x":1}'),),
    ),
    Case(
        "X15-args-of-part",
        text([{"type": "tool_call", "id": "a", "name": "f", "args": {"x": 1}}]) + CALLED,
        "tool_calls",
        calls=(("a", "f", '{"x":1}'),),
    ),
    *(
        Case(f"X18-{n}", tool({"index": 0, "id": "a"} | call) + end, Malformed, calls=calls)
        for n, (call, calls, end) in enumerate[tuple[dict[str, Any], tuple[tuple[str, str, str], ...], bytes]](
            (
                ({"function": {"arguments": "{}"}}, (("a", "", "{}"),), CALLED),
                ({"function": {"arguments": "{}"}}, (("a", "", "{}"),), DONE),
                ({"function": {"name": {"a": 1}, "arguments": "{}"}}, (("a", "", "{}"),), STOP),
                ({"function": '{"name": "f", "argum'}, (), CALLED),
            )
        )
    ),
    Case(
        "X18-cut",
        tool({"index": 0, "id": "a", "function": {"arguments": "{"}}) + chunk({}, "length") + DONE,
        "length",
        calls=(("a", "", "{"),),
    ),
    Case(
        "X16",
        tool({"index": 0, "id": "a", "type": "custom", "custom": {"name": "run", "input": "print("}})
        + tool({"index": 0, "custom": {"input": "1)"}})
        + CALLED,
        "tool_calls",
        calls=(("a", "run", "print(1)"),),
    ),
]

BROKEN = [
    *(
        Case(f"E15-{n}", HI + raw + DONE, UpstreamError, "hi", message="no")
        for n, raw in enumerate(
            (
                choice({}, error={"code": 502, "message": "no"}),
                choice({"content": ""}, "stop", error={"code": 502, "message": "no"}),
                choice({"error": {"message": "no"}}, "stop"),
                event({"choices": [], "x_groq": {"id": "r", "error": "no"}}),
                chunk({}, "stop", base_resp={"status_code": 1039, "status_msg": "no"}),
                event({"choices": None, "base_resp": {"status_code": 1039, "status_msg": "no"}}),
                event({"error_code": 336100, "error_msg": "no"}),
                event({"code": "1301", "msg": "no"}),
                event({"choices": [], "success": False, "msg": "no"}),
                event({"errors": [{"message": "no"}]}),
                event({"status": "error", "message": "no"}),
                event({"status": 500, "message": "no"}),
                event({"statusCode": 500, "message": "no"}),
                event({"Code": "InternalError", "Message": "no", "RequestId": "r"}),
                event({"fault": {"faultstring": "no", "detail": {"errorcode": "policies.x"}}}),
                event({"object": "Error", "message": "no"}),
                b'event: exception\ndata: {"message":"no"}\n\n',
            )
        )
    ),
    Case("E15-429", event({"error_code": 429, "error_msg": "slow"}), RateLimited, message="slow"),
    Case("E15-aliyun", HI + event({"Code": "Throttling", "Message": "slow"}), RateLimited, "hi", message="slow"),
    Case("E15-status-code", event({"statusCode": 429, "message": "slow"}), RateLimited, message="slow"),
    *(
        Case(f"E15-native-{reason}", HI + choice({}, "stop", native_finish_reason=reason) + DONE, UpstreamError, "hi")
        for reason in ("error", "network_error", "ABORT", "MALFORMED_FUNCTION_CALL")
    ),
    *(
        Case(f"E11-{reason}", HI + chunk({}, reason) + DONE, UpstreamError, "hi")
        for reason in ("ERROR", "failed", "cancelled", "error: it died", "api_error", "overloaded", "connection_error")
    ),
    *(
        Case(
            f"E11-google-{reason}",
            event({"choices": [{"index": 0, "finish_reason": f"function_call_filter: {reason}"}]}) + DONE,
            UpstreamError,
        )
        for reason in ("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL")
    ),
    *(
        Case(f"E16-{n}", chunk({"content": "hi"}, error=empty) + chunk({}, "stop", error=empty), text="hi")
        for n, empty in enumerate(
            (
                {"message": "", "type": "", "param": "", "code": None},
                {"code": 0, "message": ""},
                {"code": 0, "message": "success"},
                {"code": 200, "message": "OK"},
                [],
                [{}],
                False,
                "",
                "none",
            )
        )
    ),
    *(
        Case(f"E16-after-{n}", chunk({"content": "hi"}) + chunk({}, "stop") + event(healthy) + DONE, text="hi")
        for n, healthy in enumerate(
            (
                {"choices": [], "detail": {"latency": 3}},
                {"code": "Success", "message": "OK", "usage": {}},
                {"code": 20000, "message": "Ok.", "status": True},
                {"status": "ok", "statusCode": 200, "message": "Finished", "fault": None},
            )
        )
    ),
    Case(
        "E16-whole",
        dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "error": {"message": ""}}),
        text="hi",
    ),
    Case("E16-base-resp", chunk({"content": "hi"}, base_resp={"status_code": 0, "status_msg": ""}) + END, text="hi"),
]

COUNTED: dict[str, Any] = {"prompt_tokens": 9, "completion_tokens": 5}
USED: dict[str, Any] = {"usage": COUNTED}
COUNTS = [
    Case("E8-tokens", chunk({"content": ""}) + chunk({}, "stop", usage=COUNTED) + DONE, Blank, **USED),
    Case("E8-tokens-no-finish", event({"choices": [], "usage": COUNTED}) + DONE, Blank, **USED),
    Case("E8-length", chunk({}, "length", usage=COUNTED) + DONE, "length", **USED),
    Case("E8-filter", chunk({}, "content_filter", usage=COUNTED) + DONE, "content_filter", **USED),
    Case(
        "E8-hidden",
        chunk({}, "stop", usage=COUNTED | {"completion_tokens_details": {"reasoning_tokens": 5}}) + DONE,
        usage=COUNTED | {"completion_tokens_details": {"reasoning_tokens": 5}},
    ),
    Case("E8-reasoning", chunk({"reasoning": "hm"}) + chunk({}, "stop", usage=COUNTED) + DONE, reasoning="hm", **USED),
    Case("E8-zeros", chunk({}, "stop", usage={"completion_tokens": 0}) + DONE, usage={"completion_tokens": 0}),
    Case(
        "usage-zeros-last",
        HI + chunk({}, "stop", **USED) + event({"choices": [], "usage": dict.fromkeys(COUNTED, 0)}) + DONE,
        text="hi",
        **USED,
    ),
    Case("usage-only-zeros", HI + chunk({}, "stop", usage=dict.fromkeys(COUNTED, 0)) + DONE, text="hi"),
    Case(
        "usage-other-words",
        HI + chunk({}, "stop", usage={"input_tokens": 9, "outputTokens": 5.0, "prompt_tokens": 0}) + DONE,
        text="hi",
        usage={"input_tokens": 9, "outputTokens": 5.0, "prompt_tokens": 9, "completion_tokens": 5},
    ),
    Case(
        "usage-texts",
        HI + chunk({}, "stop", usage={"prompt_tokens": "9", "completion_tokens": "5"}) + STOP,
        text="hi",
        **USED,
    ),
    Case(
        "usage-in-details",
        HI
        + chunk({}, "stop", usage=COUNTED | {"prompt_tokens_details": {"cached_tokens": 4}})
        + event({"choices": [], "usage": COUNTED | {"prompt_tokens_details": {"cached_tokens": 0}}}),
        text="hi",
        usage=COUNTED | {"prompt_tokens_details": {"cached_tokens": 4}},
    ),
]

WHOLE_ANSWERS = [*NOTES, *MEDIA, *OPAQUE, *EXTRAS, *OTHER_TYPES, *BROKEN, *COUNTS]
