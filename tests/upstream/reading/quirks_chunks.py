"""Rows C and X: the shape of chunks and of tool calls. Only data; see `quirks`."""

from __future__ import annotations

from typing import Any

from app.errors import Disconnected, Empty, Malformed, Truncated
from app.events import Annotation, Media
from tests.upstream.reading.quirks_bytes import CUT, DONE, END, HI, STOP, Case, call, chunk, event, text, tool

THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]
AZURE: dict[str, Any] = {"created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []}
HIGH, LOW = b'{"choices":[{"delta":{"content":"a\\ud83d"}}]}', b'{"choices":[{"delta":{"content":"\\ude00b"}}]}'
LINK, OTHER_LINK = "https://a.example/x.png", "https://b.example/y.png"
NOTE = {"type": "url_citation", "url_citation": {"url": "https://a.example"}}


def called(id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def last_message(finish: str, **message: object) -> bytes:
    """Return an end whose last chunk has the whole message, beside an empty delta."""
    return event({"choices": [{"index": 0, "delta": {}, "message": message, "finish_reason": finish}]}) + DONE


CHUNKS = [
    Case(
        "C1",
        chunk({"role": "assistant", "content": ""})
        + chunk({"role": "assistant", "content": None})
        + chunk({"role": "assistant"})
        + HI
        + END,
        text="hi",
    ),
    Case("C1-nothing-else", chunk({"role": "assistant"}) + DONE, Empty),
    Case(
        "C2",
        chunk({"role": None, "content": None, "reasoning_content": "We", "tool_calls": None}) + text(" ") + END,
        text=" ",
        reasoning="We",
    ),
    Case(
        "C2-other-types",
        text("$")
        + text(0.005)
        + text([6, "]"])
        + text(0)
        + text(True)
        + text({"text": "a"})
        + text([])
        + text({})
        + END,
        text="$0.0056]0truea",
    ),
    Case(
        "C2-delta-is-the-text",
        event({"choices": [{"delta": "hi"}]}) + event({"choices": {"delta": 1}}) + END,
        text="hi1",
    ),
    *(
        Case(f"C2-not-to-be-understood-{n}", HI + text(odd) + END, Malformed, "hi")
        for n, odd in enumerate(({"a": 1}, [{"a": 1}], [{"type": "image_url", "image_url": {"id": 3}}]))
    ),
    Case(
        "C3",
        text(THINKING)
        + text([{"type": "text", "text": "4"}, {"type": "image"}, 3, {"type": "text", "text": "2"}])
        + END,
        text="432",
        reasoning="hm",
    ),
    Case("C4", event({"choices": [], **AZURE}) + chunk({"content": "hi"}, model="gpt") + END, text="hi", model="gpt"),
    Case(
        "C5",
        event({"choices": []}) + HI + event({"choices": []}) + STOP + event({"choices": [], "usage": {"a": 1}}) + DONE,
        text="hi",
        usage={"a": 1},
    ),
    Case("C6", event({"id": "c"}) + event({"id": "c", "choices": None}) + HI + END, text="hi"),
    Case(
        "C6-other-types",
        event({"choices": 5}) + event({"choices": "x"}) + event({"choices": [None, 3, [], "x"]}) + HI + END,
        text="hi",
    ),
    Case(
        "C7",
        HI
        + event({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]})
        + event({"choices": [{"index": 0, "content_filter_results": {}}], "id": "", "model": ""})
        + DONE,
        text="hi",
    ),
    Case(
        "C8",
        event({"choices": [{"message": {"role": "assistant", "content": "all"}, "finish_reason": None}]}) * 2 + END,
        text="all",
    ),
    Case(
        "C8-beside",
        event({"choices": [{"delta": {"content": "a"}, "message": {"content": "a"}}]})
        + event({"choices": [{"delta": {}, "message": {"content": "ab"}}]})
        + event({"choices": [{"delta": {"content": "b"}, "message": {"content": "ab"}, "finish_reason": "stop"}]}),
        text="ab",
    ),
    Case(
        "C8-empty-first",
        event({"choices": [{"message": {"content": ""}}]})
        + event({"choices": [{"message": {"content": "all"}, "finish_reason": "stop"}]}),
        text="all",
    ),
    Case(
        "C8-call",
        text("hi") + last_message("tool_calls", content="hi", tool_calls=[called("a", "f", "{}")]),
        end="tool_calls",
        text="hi",
        calls=(("a", "f", "{}"),),
    ),
    Case(
        "C8-calls",
        tool({"index": 0, **called("a", "f", '{"a":')})
        + tool({"index": 0, "function": {"arguments": "1}"}})
        + tool({"index": 1, **called("b", "f", "{}")})
        + last_message(
            "tool_calls",
            tool_calls=[called("a", "f", '{"a": 1}'), called("x", "f", "{}"), called("c", "f", '{"b":2}')],
        ),
        end="tool_calls",
        calls=(("a", "f", '{"a":1}'), ("b", "f", "{}"), ("c", "f", '{"b":2}')),
    ),
    Case(
        "C8-same-calls",
        tool({"index": 0, **called("a", "f", '{"a":1}')})
        + last_message("tool_calls", tool_calls=[called("x", "f", '{"a": 1}')], function_call={"name": "f"}),
        end="tool_calls",
        calls=(("a", "f", '{"a":1}'),),
    ),
    Case(
        "C8-function-call",
        HI + last_message("function_call", function_call={"name": "f", "arguments": "{}"}),
        end="tool_calls",
        text="hi",
        calls=(("", "f", "{}"),),
    ),
    Case(
        "C8-all-but-the-text",
        chunk({"content": "hi", "annotations": [NOTE], "images": [LINK]})
        + last_message("stop", content="hi", annotations=[NOTE, 1], images=[LINK, OTHER_LINK], audio={"data": "AA=="}),
        text="hi",
        others=(
            Media("image", "image/png", LINK, "images", LINK),
            Annotation([NOTE]),
            Media("image", "image/png", OTHER_LINK, "images", OTHER_LINK),
            Annotation([1]),
        ),
    ),
    Case(
        "C8-text-only-there",
        chunk({"role": "assistant", "reasoning_content": "hm"}) + last_message("stop", content="all"),
        text="all",
        reasoning="hm",
    ),
    Case(
        "C9",
        event(
            {
                "choices": [{"text": " a", "delta": {"token_id": 2287, "content": " a"}}],
                "content": " a",
                "lastOne": False,
            }
        )
        + END,
        text=" a",
    ),
    *(
        Case(f"C10-{name}", chunk({name: "hm"}) + HI + END, text="hi", reasoning="hm")
        for name in ("reasoning_content", "reasoning")
    ),
    Case(
        "C10-details",
        chunk(
            {
                "reasoning_details": [
                    {"type": "reasoning.text", "text": "hm"},
                    {"type": "reasoning.encrypted", "data": "x"},
                    {"type": "reasoning.summary", "summary": "!"},
                ]
            }
        )
        + HI
        + END,
        text="hi",
        reasoning="hm!",
    ),
    Case(
        "C10-copies",
        chunk(
            {"reasoning_content": "hm", "reasoning": "hm", "reasoning_details": [{"text": "hm"}], "content": THINKING}
        )
        + HI
        + END,
        text="hi",
        reasoning="hm",
    ),
    Case("C10-empty-name", chunk({"reasoning_content": "", "reasoning": "hm"}) + HI + END, text="hi", reasoning="hm"),
    Case("C10-only", chunk({"reasoning": "hm"}), Truncated, reasoning="hm"),
    Case("C11", chunk({"refusal": "I "}) + chunk({"refusal": "can't"}) + END, refusal="I can't"),
    Case(
        "C12",
        chunk({"role": "assistant", "content": "a"})
        + chunk({"role": "", "content": "b"})
        + chunk({"role": None, "content": "c"})
        + END,
        text="abc",
    ),
    Case(
        "C13",
        event({"choices": [{"index": 1, "delta": {"content": "B"}}, {"index": 0, "delta": {"content": "A"}}]})
        + event({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]})
        + END,
        text="A",
    ),
    Case(
        "C13-no-index",
        event({"choices": [{"delta": {"content": "A"}}, {"index": None, "delta": {"content": "B"}}]}) + END,
        text="AB",
    ),
    Case(
        "C14",
        event(
            b'{"choices":[{"delta":{"content":"hi"},"logprobs":{"content":[{"logprob":NaN},{"logprob":-Infinity}]}}]}'
        )
        + END,
        text="hi",
    ),
    Case(
        "C14-usage",
        HI + STOP + event(b'{"choices":[],"usage":{"a":NaN,"b":1,"c":{"d":-Infinity,"e":2},"f":1e999}}') + DONE,
        text="hi",
        usage={"b": 1, "c": {"e": 2}},
    ),
    Case(
        "C15-digits", HI + event(b'{"choices":[{"delta":{"content":"x"}}],"n":' + b"9" * 5000 + b"}"), Malformed, "hi"
    ),
    Case("C15-brackets", HI + event(b"[" * 9000), Malformed, "hi"),
    Case("C15-nested", HI + event(b'{"a":' * 3000 + b"1" + b"}" * 3000), Malformed, "hi"),
    Case("C16", event(HIGH) + event(LOW) + END, text="a😀b"),
    Case("C16-beside", event(HIGH) + chunk({"reasoning": "hm"}) + event(LOW) + END, text="a😀b", reasoning="hm"),
    Case("C16-in-short-cut", text("x") + event(HIGH) + HI + END, text="xa\ufffdhi"),
    Case("C16-lone-high", event(HIGH) + END, text="a\ufffd"),
    Case("C16-lone-high-cut", event(HIGH), Disconnected, "a\ufffd", **CUT),
    Case("C16-lone-low", event(LOW) + END, text="\ufffdb"),
    Case(
        "C16-call",
        event(
            b'{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"\\ud83d"}}]}}]}'
        )
        + event(b'{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"\\ude00"}}]}}]}')
        + END,
        calls=(("c", "f", "😀"),),
    ),
    Case("C17", text("a\ufffdb") + END, text="a\ufffdb"),
    Case("C18", HI + chunk({"content": "!"}, "stop") + DONE, text="hi!"),
    Case("C19", HI + STOP + text(" there") + DONE, text="hi there"),
    Case("C19-reason", HI + chunk({}, "length") + text(" a") + text(" b") + STOP + DONE, text="hi a b"),
    Case("C19-first", HI + chunk({}, "length") + STOP + DONE, "length", "hi"),
    Case("C20", chunk({"content": "hi"}, "") + chunk({}, "") + DONE, "unknown", "hi"),
    Case("C20-eof", chunk({"content": "hi"}, ""), Truncated, "hi"),
    Case("C21", HI + DONE, "unknown", "hi"),
    Case("C21-eof", HI, Truncated, "hi"),
    Case("C21-camel", HI + event({"choices": [{"delta": {}, "finishReason": "stop"}]}), text="hi"),
    Case(
        "C22",
        event({"object": "chat.completion.done", "id": "", "choices": [{"delta": {"content": "hi"}}]})
        + event({"id": "2", "choices": [{"delta": {}, "finish_reason": "stop"}]}),
        text="hi",
    ),
    Case(
        "C23",
        chunk(
            {"content": "hi", "token_ids": [1], "annotations": []},
            obfuscation="aaaa",
            service_tier="default",
            system_fingerprint="fp",
            provider="x",
            citations=["u"],
        )
        + END,
        text="hi",
    ),
    Case(
        "C24",
        HI
        + chunk({"audio": {"id": "a", "transcript": "hi", "data": "AAAA"}})
        + chunk({"audio": {"expires_at": 1}})
        + DONE,
        "unknown",
        "hi",
    ),
    Case("C25", text("\n") + text("\n") + text("He") + text("Hell") + END, text="\n\nHeHell"),
    Case("C26", text("paragraph " * 500) + text("") + text("x") + END, text="paragraph " * 500 + "x"),
    Case("C27", HI + b"\n" + HI + b"\n\n\n" + END, text="hihi"),
    Case("C28", event({"choices": [{"delta": {}, "index": 0, "finish_reason": None}]}) + HI + END, text="hi"),
    Case("C28-only", event({"choices": [{"delta": {}, "index": 0, "finish_reason": None}]}) * 3 + DONE, Empty),
]

CALLED = chunk({}, "tool_calls") + DONE
TWO = (("a", "f", "{}"), ("b", "g", "[]"))

TOOLS = [
    Case(
        "X0",
        tool(call(0, "a", "f", ""))
        + tool(call(0, None, None, "{"))
        + tool(call(0, None, None, "}"))
        + tool(call(1, "b", "g", ""))
        + tool(call(1, None, None, "[]"))
        + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case("X1", tool(call(None, "a", "f", "{}")) + tool(call(None, "b", "g", "[]")) + CALLED, "tool_calls", calls=TWO),
    Case(
        "X1-continued",
        tool(call(None, "a", "f", "{"))
        + tool(call(None, None, None, "}"))
        + tool(call(None, "b", "g", "["))
        + tool(call(None, "b", None, "]"))
        + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case(
        "X1-no-ids",
        tool(call(None, None, "f", "{}"), call(None, "", "f", "[]")) + CALLED,
        "tool_calls",
        calls=(("", "f", "{}"), ("", "f", "[]")),
    ),
    Case("X2", tool(call(0, "a", "f", "{}"), call(0, "b", "g", "[]")) + CALLED, "tool_calls", calls=TWO),
    Case(
        "X2-interleaved",
        tool(call(0, "a", "f", "{"))
        + tool(call(0, "b", "g", "["))
        + tool(call(0, "a", None, "}"))
        + tool(call(0, "b", None, "]"))
        + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case(
        "X2-same-id-elsewhere",
        tool(call(0, "a", "f", "{}"), call(1, "a", "g", "[]")) + CALLED,
        "tool_calls",
        calls=(("a", "f", "{}"), ("a-2", "g", "[]")),
    ),
    Case("X3", tool(call(1, "a", "f", "{}")) + tool(call(2, "b", "g", "[]")) + CALLED, "tool_calls", calls=TWO),
    Case(
        "X4-empty",
        tool(call(0, "a", "f", "{")) + tool(call(0, "", None, "}")) + tool(call(1, "b", "g", "[]")) + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case(
        "X4-same",
        tool(call(0, "a", "f", "{")) + tool(call(0, "a", None, "}")) + tool(call(1, "b", "g", "[]")) + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case(
        "X4-later",
        tool(call(0, None, "f", "{")) + tool(call(0, "a", None, "}")) + tool(call(1, "b", "g", "[]")) + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case("X5-empty", tool(call(0, "a", "f", "{")) + tool(call(0, None, "", "}")) + CALLED, "tool_calls", calls=TWO[:1]),
    Case(
        "X5-later", tool(call(0, "a", None, "{")) + tool(call(0, None, "f", "}")) + CALLED, "tool_calls", calls=TWO[:1]
    ),
    Case(
        "X5-repeated", tool(call(0, "a", "f", "{")) + tool(call(0, "a", "f", "}")) + CALLED, "tool_calls", calls=TWO[:1]
    ),
    Case("X6", tool(call(0, "a", "f", "{}"), call(1, "b", "g", "[]")) + CALLED, "tool_calls", calls=TWO),
    Case("X7", tool(call(0, "a", "f", "{}")) + END, calls=TWO[:1]),
    Case("X8", chunk({"content": "hi", "tool_calls": None}) + tool() + tool(None, {}) + END, text="hi"),
    Case("X8-no-call", HI + tool(3) + CALLED, Malformed, text="hi"),
    Case(
        "X9",
        chunk({"index": 0, "content": "hi"}) + tool({**call(None, "a", "f", "{}"), "index": None}) + CALLED,
        "tool_calls",
        text="hi",
        calls=TWO[:1],
    ),
    Case(
        "X10",
        chunk({"function_call": {"name": "f", "arguments": ""}})
        + chunk({"function_call": {"arguments": "{}"}})
        + chunk({}, "function_call")
        + DONE,
        "tool_calls",
        calls=(("", "f", "{}"),),
    ),
    Case("X11", tool(call(0, "a", "f", '{"x":')), Truncated, calls=(("a", "f", '{"x":'),)),
    Case(
        "X12",
        tool(call(0, "a", "f", "")) + tool(call(0, "b", None, "{")) + tool(call(0, "c", "", "}")) + CALLED,
        "tool_calls",
        calls=TWO[:1],
    ),
    Case(
        "X12-second-call",
        tool(call(0, "a", "f", "{")) + tool(call(0, "c", None, "}")) + tool(call(0, "b", "g", "[]")) + CALLED,
        "tool_calls",
        calls=TWO,
    ),
    Case(
        "X13",
        tool(call(0, "a", "mcp__", "")) + tool(call(0, None, "get", None)) + tool(call(0, None, None, "{}")) + CALLED,
        "tool_calls",
        calls=(("a", "mcp__get", "{}"),),
    ),
    Case(
        "X14",
        tool(call(0, "a", "f", "{}")) + tool(call(0, "a", "g", "[]")) + tool(call(0, "a", "g", "[]")) + CALLED,
        "tool_calls",
        calls=(("a", "f", "{}"), ("a-2", "g", "[]")),
    ),
    Case(
        "X-empty-piece",
        tool(call(7, None, None, None)) + tool(call(0, "a", "f", "{}")) + CALLED,
        "tool_calls",
        calls=TWO[:1],
    ),
    Case(
        "X-too-many",
        tool(*(call(i, f"c{i}", "f", "") for i in range(300))) + CALLED,
        Malformed,
        calls=tuple((f"c{i}", "f", "") for i in range(256)),
    ),
]
