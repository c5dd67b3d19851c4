"""Bodies that are made to cost the service as much as they can, and what the service answers to each.

Those that it takes are as large as its limits allow: 1 MB, 32,768 values, 64 levels.
"""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from app.edge.json import MAX_DEPTH, MAX_VALUES
from app.wire.opaque import seal

_MEGABYTE: Final = 1 << 20
QUICK: Final = "sim-gpt?first=0&rate=0&tokens=3"
# An upstream that says no, and one that quotes the key and the request while it does so.
REFUSES: Final = "error-400?first=0"
QUOTES: Final = "leak?first=0&status=400"


class Hostile(NamedTuple):
    """A body for *path*, which is answered with *status*."""

    path: str
    content: bytes
    status: int = 200


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def _filled(value: Any, filling: bytes) -> bytes:
    """Return *value* as JSON, with *filling* in place of its one string "@"."""
    before, _, after = _json(value).partition(b'"@"')
    return before + filling + after


def _times(item: bytes, number: int) -> bytes:
    return b",".join([item] * number)


def _size_of(item: bytes) -> int:
    """Return for how many values *item* counts in a list."""
    return 1 + sum(map(item.count, (b",", b"[", b"{")))


def _list(item: bytes) -> bytes:
    """Return a list of *item*, as long as the limits allow."""
    return b"[%s]" % _times(item, min((MAX_VALUES - 100) // _size_of(item), (_MEGABYTE - 1000) // (len(item) + 1)))


def _fields(value: bytes, number: int = 0) -> bytes:
    """Return an object of *value* under different names, as large as the limits allow."""
    number = number or (MAX_VALUES - 100) // _size_of(value)
    return b"{%s}" % b",".join(b'"%d":%s' % (at, value) for at in range(number))


def _native(body: dict[str, Any], filling: bytes = b"", status: int = 200, model: str = QUICK) -> Hostile:
    return Hostile("/v1/chat", _filled({"model": model, **body}, filling), status)


def _openai(body: dict[str, Any], filling: bytes = b"", status: int = 200, model: str = QUICK) -> Hostile:
    return Hostile("/v1/chat/completions", _filled({"model": model, "stream": True, **body}, filling), status)


def _ui(parts: Any, filling: bytes = b"", status: int = 200, role: str = "user", **more: Any) -> Hostile:
    first = {"role": "user", "parts": [{"type": "text", "text": "hi"}]}
    body = {"model": QUICK, "id": "chat-1-of-a-page", "messages": [first, {"role": role, "parts": parts}], **more}
    return Hostile("/v1/ai-sdk/chat", _filled(body, filling), status)


def _responses(items: Any, filling: bytes, status: int = 200) -> Hostile:
    return Hostile("/v1/responses", _filled({"model": QUICK, "stream": True, "input": items}, filling), status)


def _run(message: dict[str, Any], filling: bytes, status: int = 200, role: str = "user", **more: Any) -> Hostile:
    messages = [{"id": "u", "role": "user", "content": "hi"}, {"id": "m", "role": role, **message}]
    body = {"threadId": "t", "runId": "r", "forwardedProps": {"model": QUICK}, "messages": messages, **more}
    return Hostile("/v1/ag-ui", _filled(body, filling), status)


_USER: Final = {"role": "user", "content": "hi"}
_TEXT: Final = b'{"type":"text","text":"some words of a text"}'
_HALF_A_MILLION: Final = b"[%s]" % _times(b"0", 500_000)
_DEEP: Final = b"[" * (MAX_DEPTH - 8) + b"]" * (MAX_DEPTH - 8)
_DETAILS: Final = (
    b'{"type":"reasoning.encrypted","id":"a","data":"x"},{"type":"reasoning.summary","id":"a","summary":"x"}'
)

REFUSED: Final = {
    "half a million parts of zeros": _ui("@", _HALF_A_MILLION, 400),
    "half a million zeros as content": _native({"messages": [{"role": "user", "content": "@"}]}, _HALF_A_MILLION, 400),
    "340,000 empty objects": _native(
        {"messages": [{"role": "user", "content": "@"}]}, b"[%s]" % _times(b"{}", 340_000), 400
    ),
    "90,000 unknown fields": _native({"prompt": "hi", "x": "@"}, b"0," + _fields(b"0", 90_000)[1:-1], 400),
    "half a million brackets": _native({"prompt": "hi", "tools": "@"}, b"[" * 500_000 + b"]" * 500_000, 400),
    "zeros as parts": _ui("@", _list(b"0"), 400),
    "zeros as content": _openai({"messages": [{"role": "user", "content": "@"}]}, _list(b"0"), 400),
    "zeros as messages": _native({"messages": "@"}, _list(b"0"), 400),
    "wrong messages": _native({"messages": "@"}, b"[%s]" % _times(b'{"role":"pope","content":[0]}', 4096), 400),
    "unknown fields": _native({"prompt": "hi", "x": "@"}, b"0," + _fields(b"0")[1:-1], 400),
    "wrong biases": _native({"prompt": "hi", "logit_bias": "@"}, _fields(b'"x"'), 400),
    "wrong metadata": _openai({"messages": [_USER], "metadata": "@"}, _fields(b"0"), 400),
    "wrong tools by name": _ui([{"type": "text", "text": "hi"}], _fields(b"0"), 400, tools="@"),
    "zeros as items": _responses("@", _list(b"0"), 400),
    "references to nothing": _responses("@", _list(b'{"type":"item_reference","id":"x"}'), 404),
    "too much in encrypted values": _run(
        {"toolCalls": "@"},
        b"[%s]"
        % _times(
            b'{"id":"c","function":{"name":"f","arguments":"{}"},"encryptedValue":%s}' % _json(seal({"a": [0] * 2000})),
            100,
        ),
        400,
        "assistant",
    ),
    "a name of a megabyte": _native({"prompt": "hi", "@": 0}, b'"%s"' % (b"temperatur" * 100_000), 400),
    "lone surrogates in what is no JSON": _native({"prompt": "@"}, b'"%s' % (b"\\ud83d" * 170_000), 400),
}

TAKEN: Final = {
    "empty objects": _native({"messages": [{"role": "user", "content": "@"}]}, _list(b"{}")),
    "parts": _openai({"messages": [{"role": "user", "content": "@"}]}, _list(_TEXT)),
    "parts with a note": _openai(
        {"messages": [{"role": "user", "content": "@"}]}, _list(b'{"type":"text","text":"x","cache_control":{}}')
    ),
    "parts of a thought": _native(
        {"messages": [{"role": "assistant", "content": [{"type": "thinking", "thinking": "@"}]}]},
        _list(b'{"type":"text","text":"x"}'),
    ),
    "pictures": _native(
        {"messages": [{"role": "user", "content": "@"}]}, _list(b'{"type":"image_url","image_url":{"url":"https://x"}}')
    ),
    "pictures of an answer": _native(
        {"messages": [{"role": "assistant", "content": "hi", "images": "@"}]}, _list(b'"https://x"')
    ),
    "choices": _native(
        {
            "prompt": "hi",
            "tools": [{"type": "function", "function": {"name": "f"}}],
            "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": "@"}},
        },
        _list(b'{"type":"function","function":{"name":"f"}}'),
    ),
    "messages": _native({"messages": "@"}, b"[%s]" % _times(b'{"role":"user","content":"%s"}' % (b"x" * 200), 4096)),
    "fields of a message": _native({"messages": [{**_USER, "metadata": "@"}]}, _fields(b'"some text"')),
    "nested parts": _native(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "more": "@"}]}]}, _list(_DEEP)
    ),
    "texts deep in a part": _native(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "more": "@"}]}]},
        b"[" * (MAX_DEPTH - 8) + _list(b'"a"') + b"]" * (MAX_DEPTH - 8),
    ),
    "texts deep in a schema": _native(
        {"prompt": "hi", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": "@"}}}]},
        b"[" * (MAX_DEPTH - 8) + _list(b'"a"') + b"]" * (MAX_DEPTH - 8),
    ),
    "a wide schema": _openai(
        {"messages": [_USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": "@"}}]},
        _fields(b'{"type":"string"}'),
    ),
    "a thousand tools": _native(
        {"prompt": "hi", "tools": "@"},
        b"[%s]"
        % _times(
            b'{"type":"function","function":{"name":"f","parameters":{"enum":[%s]}}}' % _times(b'"a"', 25),
            1024,
        ),
    ),
    "biases": _native({"prompt": "hi", "logit_bias": "@"}, _fields(b"1")),
    "an unknown parameter": _openai({"messages": [_USER], "vendor": "@"}, _list(b'{"a":[1,"b"]}')),
    "reasoning details": _native(
        {"messages": [_USER, {"role": "assistant", "content": "hi", "reasoning_details": "@"}]}, _list(_DETAILS)
    ),
    "a run's parts": _run({"content": "@"}, _list(_TEXT)),
    "a run's calls": _run(
        {"toolCalls": "@"}, _list(b'{"id":"c","function":{"name":"f","arguments":"{}"}}'), role="assistant"
    ),
    "a run's reasoning": _run(
        {"content": "x"},
        b'[{"role":"user","content":"x"},%s]' % _times(b'{"role":"reasoning","content":"%s"}' % (b"x" * 200), 4000),
        messages="@",
    ),
    "a run's encrypted value": _run(
        {"encryptedValue": "@", "content": "hi"}, _json(seal({"a": [[0, "b"]] * 10_000})), role="assistant"
    ),
    "a run's state": _run({"content": "hi"}, _fields(b'"some text"'), state="@"),
    "UI parts": _ui("@", _list(_TEXT)),
    "UI reasoning": _ui("@", _list(b'{"type":"reasoning","text":"%s"}' % (b"x" * 60)), role="assistant"),
    "UI steering": _ui([{"type": "steering-message", "parts": "@"}], _list(_TEXT), role="assistant"),
    "UI tools by name": _ui(
        [{"type": "text", "text": "hi"}], _fields(b'{"parameters":{"enum":[%s]}}' % _times(b"1", 20), 1000), tools="@"
    ),
    "UI extras": _ui("@", _list(b'{"type":"data-extra","data":{"vendor":["x"]}}'), role="assistant"),
    "UI outputs of a tool": _ui(
        [{"type": "tool-f", "toolCallId": "c", "state": "output-available", "input": {}, "output": "@"}],
        _list(b'{"a":1.5}'),
        role="assistant",
    ),
    "UI metadata": _ui([{"type": "text", "text": "hi"}], _fields(b'"some text"'), metadata="@"),
    "items": _responses("@", b"[%s]" % _times(b'{"role":"user","content":"%s"}' % (b"x" * 200), 4096)),
    "parts of an item": _responses(
        [{"role": "user", "content": "@"}], _list(b'{"type":"input_text","text":"some words of a text"}')
    ),
    "refusals": _responses(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "@"}],
        _list(b'{"type":"refusal","refusal":"some words"}'),
    ),
    "reasoning after a long one": _responses(
        "@",
        b'[{"type":"reasoning","summary":[{"text":"%s"}]},%s,{"role":"assistant","content":"hi"}]'
        % (b"x" * 700_000, _times(b'{"type":"reasoning","summary":[{"text":"x"}]}', 4000)),
    ),
    "refusals after a long one": _responses(
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "@"}],
        b'[{"type":"refusal","refusal":"%s"},%s]' % (b"x" * 700_000, _times(b'{"type":"refusal","refusal":"x"}', 6000)),
    ),
    "a picture": _native(
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "@"}}]}]},
        b'"data:image/png;base64,%s"' % (b"QUJD" * 260_000),
    ),
    "escapes": _native({"prompt": "@"}, b'"%s"' % (b"\\u6f22" * 170_000)),
    "lone surrogates": _native({"prompt": "@"}, b'"%s"' % (b"\\ud83d" * 170_000)),
    "backslashes": _native({"prompt": "@"}, b'"%s\\ud83d"' % (b"\\\\" * 500_000)),
    "Han": _native({"prompt": "@"}, b'"%s"' % ("漢".encode() * 340_000)),
    "fields of a message that is refused": _native(
        {"messages": [{**_USER, "metadata": "@"}]}, _fields(b'"some text"'), 400, REFUSES
    ),
    "fields of a message that is quoted": _native(
        {"messages": [{**_USER, "metadata": "@"}]}, _fields(b'"some text"'), 502, QUOTES
    ),
    "a text that is quoted": _native({"prompt": "@"}, b'"%s"' % (b"sk-a " * 200_000), 400, QUOTES),
}

LARGE: Final = {
    "a picture of 8 MB": _native(
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "@"}}]}]},
        b'"data:image/png;base64,%s"' % (b"QUJD" * 2_080_000),
    ),
    "escapes": _native({"prompt": "@"}, b'"%s"' % (b"\\u6f22" * 1_380_000)),
    "Han": _native({"prompt": "@"}, b'"%s"' % ("漢".encode() * 2_760_000)),
    "lone surrogates": _native({"prompt": "@"}, b'"%s"' % (b"\\ud83d" * 1_380_000)),
    "backslashes": _native({"prompt": "@"}, b'"%s\\ud83d"' % (b"\\\\" * 4_100_000)),
    "commas in a text": _native({"prompt": "@"}, b'"%s"' % (b"," * 8_300_000)),
    "quotes": _native({"prompt": "@"}, b'""' * 4_100_000, 400),
    "blanks": _native({"prompt": "@"}, b'""%sx' % (b"\n" * 8_300_000), 400),
    "texts": _openai(
        {"messages": [{"role": "user", "content": "@"}]},
        b"[%s]" % _times(b'{"type":"text","text":"%s"}' % ("漢".encode() * 290), 9000),
    ),
}
