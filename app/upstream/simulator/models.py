"""The simulator's models, by name: adding one is adding its line to `MODELS`.

`/v1/models` lists them with these descriptions. Any knob of `play.Knobs` may follow a name, as in
`stall?after=3&rate=200&first=0`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from app.upstream.simulator import faults
from app.upstream.simulator.play import ERRORS, End, Play, Script, clock, completion, failure, normal


class Model(NamedTuple):
    """What a model does, with and without `stream: true`, and the knobs it sets for itself."""

    description: str
    stream: Callable[[Play], Script]
    whole: Callable[[Play], Script] = completion
    knobs: Mapping[str, Any] = MappingProxyType({})


def before(description: str, script: Callable[[Play], Script], **knobs: Any) -> Model:
    """Return a model that behaves alike whether it should stream or not."""
    return Model(description, script, script, knobs)


_NESTED = b"[" * 100_000 + b"]" * 100_000
_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

MODELS: dict[str, Model] = {
    "sim-gpt": Model("A text worth reading, chosen by the prompt.", normal),
    "sim-echo": Model("The last user message, said again.", normal),
    "clock": before("Each delta is the time it was sent, in nanoseconds of the monotonic clock.", clock),
    "reasoning": Model("Reasoning first, then the answer.", faults.reasoning, faults.reasoning_whole),
    "tools": Model("Calls up to two of the tools offered, arguments in pieces.", faults.tools, faults.tools_whole),
    "refusal": Model("Refuses, in the refusal field.", faults.refusal, faults.refusal_whole),
    "content-filter": Model("Is stopped by the content filter after `after` deltas.", faults.content_filter),
    "never-ends": Model("Goes on for ever.", normal, knobs={"tokens": 0}),
    "slow-first-token": before("Headers and first token come together, `seconds` late.", faults.slow_headers),
    "slow-headers": before("Headers come `seconds` late.", faults.slow_headers),
    "slow-content": Model("Headers come at once, content `seconds` later.", faults.slow_content),
    "slow-close": Model("The socket stays open after [DONE].", faults.slow_close),
    "stall": Model("After `after` deltas nothing more, the socket stays open.", faults.broken(End.HANG)),
    "stall-heartbeat": Model(
        "After `after` deltas only a comment every `seconds`, for ever.", faults.stall_heartbeat, knobs={"seconds": 1}
    ),
    "cut-before-finish": Model("The connection closes in mid-body after `after` deltas.", faults.broken(End.CUT)),
    "cut-reset": Model("The connection is reset after `after` deltas.", faults.broken(End.RESET)),
    "cut-clean-before-finish": Model(
        "The body ends properly after `after` deltas, no finish.", faults.broken(End.CLEAN)
    ),
    "cut-after-finish": Model("The connection closes in mid-body after the finish chunk.", faults.cut_after_finish),
    "no-done": Model("Everything but [DONE].", faults.no_done),
    "no-usage": Model("Never sends usage, asked or not.", faults.no_usage),
    "refuses-stream-options": Model("400 if stream_options is present.", faults.refuses_stream_options),
    "close-before-headers": before("Reads the request and closes.", faults.close_before_headers),
    "error-in-stream": Model("After `after` deltas an error event, then [DONE].", faults.error_in_stream),
    "error-first": Model("200, and an error as the very first event.", faults.error_first),
    "leak": before("An error (`status`) whose message holds the API key and the prompt.", faults.leak),
    "leak-in-stream": Model("The same as an event, after `after` deltas.", faults.leak_in_stream),
    "json-instead-of-sse": Model("200 with a chat.completion, though a stream was asked for.", completion),
    "json-error-200": before(
        "200 with a JSON error.", faults.reply(200, orjson.dumps(failure(429, "Quota exceeded.")), b"application/json")
    ),
    "html-200": before("200 with an HTML page.", faults.reply(200, _HTML, b"text/html; charset=utf-8")),
    "empty-200": before("200, event-stream, zero bytes.", faults.reply(200, b"", b"text/event-stream; charset=utf-8")),
    "split-utf8": Model("Each byte in a write of its own.", faults.split_utf8, knobs={"answer": "emoji", "tokens": 40}),
    "crlf": Model("CRLF line ends.", faults.crlf),
    "giant-line": Model("One event of `mib` MiB.", faults.giant_line),
    "endless-line": Model("A data line that never ends.", faults.endless_line),
    "gzip": Model("A compressed stream, though nobody asked.", faults.squeezed),
    "gzip-bomb": Model("One event of `mib` MiB, compressed to nearly nothing.", faults.gzip_bomb, knobs={"mib": 64}),
    "bad-utf8": Model(
        "Bytes that are not UTF-8, after `after` deltas.",
        faults.odd(lambda play: play.chunks.before + b'" \xff\xfe\xc3( "' + play.chunks.after),  # F25
    ),
    "nan": Model(
        "A NaN among the logprobs, after `after` deltas.",
        faults.odd(lambda play: play.chunks.delta({"content": "?"}, logprobs=b'{"content":[{"logprob":NaN}]}')),  # C14
    ),
    "deep-json": Model(
        "A chunk nested 100,000 deep, after `after` deltas.",
        faults.odd(lambda play: b'data: {"choices":[],"x":%b}\n\n' % _NESTED),  # C15
    ),
    "garbage": Model(
        "A data line that is no JSON, after `after` deltas.",
        faults.odd(lambda play: b"data: error: engine died\n\n"),  # F18
    ),
    "lone-surrogates": Model("Surrogate pairs split over two deltas, and one half alone.", faults.lone_surrogates),
    "two-per-frame": Model("Two chunks in one frame, a single LF between them.", faults.two_per_frame),
} | {
    name: model
    for status in ERRORS
    for name, model in (
        (f"error-{status}", before(f"Status {status}; `retry_after` sets the hint.", faults.failing(status))),
        (
            f"flaky-{status}",
            before(f"Status {status} the first `fail` times for a prompt or `key`.", faults.flaky(status)),
        ),
    )
}
