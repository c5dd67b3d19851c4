"""What a response has besides its text, and whose its calls are: rows R10–R14. Only data; see `quirks`."""

from __future__ import annotations

from typing import Any

from app.errors import Blank, Malformed, UpstreamError
from app.events import Annotation, Extra, Media
from tests.upstream.reading.quirks_bytes import Case
from tests.upstream.responses.bytes import END, HI, arguments, function, item, message, over, said, sent

NOTE = {"type": "url_citation", "url": "https://a.example", "title": "A", "start_index": 0, "end_index": 2}
F = ("call_A", "f", '{"a":1}')
G = ("call_B", "g", '{"b":2}')


def added(letter: str, name: str) -> bytes:
    return sent("output_item.added", item=function(f"call_{letter}", name, id=f"fc_{letter}"))


def piece(letter: str, delta: object, by: str = "fc") -> bytes:
    return sent("function_call_arguments.delta", item_id=f"{by}_{letter}", delta=delta)


def done(call: tuple[str, str, str]) -> bytes:
    return sent("output_item.done", item=function(*call, id=call[0].replace("call", "fc")))


def part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [NOTE]}


SIGNED = {"type": "output_text", "thought_signature": "c2ln"}
NOTED = message("hi") | {"content": [part("hi")]}
SEARCH: dict[str, Any] = {"id": "ws_1", "type": "web_search_call", "status": "completed", "action": {"query": "q"}}
PATCH: dict[str, Any] = {"id": "ap_1", "type": "apply_patch_call", "call_id": "call_1", "operation": {"path": "x"}}
TOKENS: dict[str, Any] = {"output_tokens": 7}
DRAWN: dict[str, Any] = {"id": "ig_1", "type": "image_generation_call", "status": "completed", "output_format": "webp"}
THOUGHT: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "gAAA"}
KEPT_THOUGHT = Extra(
    {},
    {},
    {
        "reasoning_details": [
            {"type": "reasoning.encrypted", "id": "rs_1", "data": "gAAA", "format": "openai-responses-v1", "index": 0}
        ]
    },
)

PLACES = [
    Case(
        "R10",
        added("A", "f")
        + added("B", "g")
        + piece("A", '{"a":')
        + piece("B", '{"b":')
        + piece("A", "1}")
        + piece("B", "2}")
        + done(F)
        + done(G)
        + END,
        "tool_calls",
        calls=(F, G),
    ),
    Case(
        "R10-call-id",
        added("A", "f") + added("B", "g") + piece("B", G[2], "call") + piece("A", F[2], "call") + END,
        "tool_calls",
        calls=(F, G),
    ),
    Case("R10-whole-only", done(F) + done(G) + END, "tool_calls", calls=(F, G)),
    Case(
        "R10-texts",
        sent("output_item.added", item={"id": "rs_1", "type": "reasoning"})
        + sent("reasoning_text.delta", item_id="rs_1", delta="hm")
        + sent("output_item.added", item=message() | {"id": "m_1"})
        + sent("output_text.delta", item_id="m_1", delta="hi")
        + sent("output_text.done", item_id="m_1", text="hi")
        + sent("output_item.done", item=message("hi") | {"id": "m_1"})
        + END,
        text="hi",
        reasoning="hm",
    ),
    Case(
        "R10-as-text",
        item("added", 0, function(*F[:2])) + arguments(F[2], 0).replace(b'": 0', b'": "0"') + END,
        "tool_calls",
        calls=(F,),
    ),
    Case("R10-object", item("done", 0, function(*F[:2]) | {"arguments": {"a": 1}}) + END, "tool_calls", calls=(F,)),
    Case(
        "R10-one-id",
        item("done", 0, function(*F)) + item("done", 1, function("call_A", "g", "{}")) + END,
        "tool_calls",
        calls=(F, ("call_A-2", "g", "{}")),
    ),
]

ENDS = [
    Case("R12", HI + over("done", status="completed"), text="hi"),
    Case(
        "R12-incomplete",
        HI + over("done", status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
        "length",
        "hi",
    ),
    Case("R12-failed", HI + over("done", status="failed", error={"message": "no"}), UpstreamError, "hi", message="no"),
    Case(
        "R5-google",
        HI + over("incomplete", incomplete_details={"reason": "content_filter: SAFETY"}),
        "content_filter",
        "hi",
    ),
    *(
        Case(
            f"X15-{name}",
            item("done", 0, function(*F) | {"arguments": None, name: {"a": 1}}) + END,
            "tool_calls",
            calls=(F,),
        )
        for name in ("parameters", "args")
    ),
    Case("X18", item("done", 0, function("call_A", "", "{}")) + END, Malformed, calls=(("call_A", "", "{}"),)),
    Case("R5-failed", HI + over("incomplete", incomplete_details={"reason": "api_error"}), UpstreamError, "hi"),
    Case("R5-spelling", HI + over("incomplete", incomplete_details={"reason": "MAX_TOKENS"}), "length", "hi"),
    Case("R12-no-status", HI + sent("done", response={}), text="hi"),
    Case(
        "R4-error-in-completed",
        HI + over(error={"code": "server_error", "message": "no"}),
        UpstreamError,
        "hi",
        message="no",
    ),
    Case("R4-error-event", HI + sent("error", message="no"), UpstreamError, "hi", message="no"),
    Case("R4-error-is-empty", HI + over(error={"code": None, "message": ""}), text="hi"),
    Case("E8-responses", over(usage={"output_tokens": 7}), Blank, usage={"output_tokens": 7, "completion_tokens": 7}),
]

MORE = [
    Case(
        "R13-notes",
        HI
        + sent("output_text.annotation.added", output_index=0, content_index=0, annotation_index=0, annotation=NOTE)
        + sent("content_part.done", output_index=0, content_index=0, part=part("hi"))
        + item("done", 0, NOTED)
        + over(output=[NOTED]),
        text="hi",
        others=(Annotation([NOTE]),),
    ),
    Case("R13-notes-whole", over(output=[NOTED]), text="hi", others=(Annotation([NOTE]),)),
    Case(
        "R13-item",
        item("done", 0, SEARCH) + HI.replace(b'index": 0', b'index": 1') + over(output=[SEARCH, message("hi")]),
        text="hi",
        others=(Extra({}, {}, {"output": [SEARCH]}),),
    ),
    Case(
        "R13-item-whole", over(output=[SEARCH, message("hi")]), text="hi", others=(Extra({}, {}, {"output": [SEARCH]}),)
    ),
    Case(
        "R13-for-the-client",
        item("done", 0, PATCH) + over(output=[PATCH], usage=TOKENS),
        usage=TOKENS | {"completion_tokens": 7},
        others=(Extra({}, {}, {"output": [PATCH]}),),
    ),
    Case(
        "R13-nothing-for-the-client",
        item("done", 0, SEARCH) + over(output=[SEARCH], usage=TOKENS),
        Blank,
        usage=TOKENS | {"completion_tokens": 7},
        others=(),
    ),
    Case(
        "R13-image",
        item("done", 0, DRAWN | {"result": "UklGRg=="}) + END,
        others=(Media("image", "image/webp", "data:image/webp;base64,UklGRg=="), Extra({}, {}, {"output": [DRAWN]})),
    ),
    Case(
        "R13-part",
        item("done", 0, message() | {"content": [{"type": "output_image", "image_url": "https://a.example/x.png"}]})
        + END,
        others=(
            Media(
                "image",
                "image/png",
                "https://a.example/x.png",
                "",
                {"type": "output_image", "image_url": "https://a.example/x.png"},
            ),
        ),
    ),
    Case(
        "R13-fields-of-a-text",
        HI
        + sent("content_part.done", output_index=0, content_index=0, part=part("hi"))
        + sent("content_part.done", output_index=0, content_index=0, part=part("hi") | SIGNED)
        + item("done", 0, message() | {"content": [part("hi") | SIGNED]})
        + END,
        text="hi",
        others=(Annotation([NOTE]), Extra({}, {}, {"content_parts": [{**SIGNED, "index": 0}]})),
    ),
    Case(
        "R14",
        said("I will look.", 0)
        + item("done", 0, message("I will look.", phase="commentary"))
        + said("Done.", 1)
        + item("done", 1, message("Done.", phase="final_answer"))
        + END,
        text="I will look.Done.",
        others=(
            Extra({}, {}, {"output": [{"type": "message", "id": "msg_1", "phase": "commentary"}]}),
            Extra({}, {}, {"output": [{"type": "message", "id": "msg_1", "phase": "final_answer"}]}),
        ),
    ),
    Case(
        "R13-audio",
        sent("audio.delta", delta="AAAA") + sent("audio.transcript.delta", delta="hi") + END,
        others=(
            Media("audio", "audio/pcm", "data:audio/pcm;base64,AAAA"),
            Media("audio", "audio/pcm", "", "", {"transcript": "hi"}),
        ),
    ),
    Case(
        "R13-encrypted",
        item("done", 0, THOUGHT) + said("hi", 1) + over(output=[THOUGHT, message("hi")]),
        text="hi",
        others=(KEPT_THOUGHT,),
    ),
    Case(
        "R13-fields",
        sent(
            "created", response={"id": "r", "service_tier": "auto", "instructions": "the operator's", "temperature": 1}
        )
        + HI
        + over(service_tier="default", instructions="the operator's", output=[message("hi")]),
        text="hi",
        others=(Extra({"service_tier": "auto"}), Extra({"service_tier": "default"})),
    ),
    Case("R13-text-part", over(output=[message() | {"content": [{"type": "text", "text": "h"}, "i"]}]), text="hi"),
    Case("R13-text", over(output=[message() | {"content": "hi"}]), text="hi"),
]

WHOLE_RESPONSES = [*PLACES, *ENDS, *MORE]
