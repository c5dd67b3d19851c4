"""The simulator's models, by name: adding one is adding its line to `MODELS`.

`/v1/models` lists them with these descriptions. Any knob of `knobs.Knobs` may follow a name, as in
`stall?after=3&rate=200&first=0`. Each speaks both APIs, chat completions and responses, unless its line says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from app.simulator import content, faults, responses_faults
from app.simulator.play import Content, Play, asked_for, clock, completion, normal, streamed, whole
from app.simulator.refusals import ERRORS, failure
from app.simulator.steps import End, Script


class Model(NamedTuple):
    """What a model does, with and without `stream: true`, and the knobs it sets for itself.

    *only* is the one API it speaks, if it does not speak both: `chat` or `responses`. *background* tells whether a
    background response may be had of it: what is about bytes and not events has nothing to resume.
    """

    description: str
    stream: Callable[[Play], Script]
    whole: Callable[[Play], Script] = completion
    knobs: Mapping[str, Any] = MappingProxyType({})
    only: str = ""
    background: bool = True


def says(description: str, said: Content) -> Model:
    """Return a model that says *said*, streamed or whole."""
    return Model(description, streamed(said), whole(said))


def before(description: str, script: Callable[[Play], Script], **knobs: Any) -> Model:
    """Return a model that behaves alike whether it should stream or not."""
    return Model(description, script, script, knobs)


def on_responses(description: str, script: Callable[[Play], Script]) -> Model:
    """Return a model that only `/v1/responses` has."""
    return Model(description, script, only="responses")


_NESTED = b"[" * 100_000 + b"]" * 100_000
_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

MODELS: dict[str, Model] = {
    "sim-gpt": Model("A text worth reading, chosen by the prompt.", normal),
    "sim-echo": Model("The last user message, said again.", normal),
    "clock": before("Each delta is the time it was sent, in nanoseconds of the monotonic clock.", asked_for(clock)),
    "reasoning": says(
        "Reasoning first, a summary of it on /v1/responses; then the answer.", content.reasoning(summary=True)
    ),
    "reasoning-text": says("The same as open models name it.", content.reasoning(summary=False)),
    "tools": says("Calls up to two of the tools offered, arguments in pieces.", content.calls),
    "text-and-tools": says("An answer first, then the calls.", content.text_and_calls),
    "refusal": says("Refuses, in the refusal field.", content.refusal),
    "content-filter": Model("Is stopped by the content filter after `after` deltas.", faults.content_filter),
    "never-ends": Model("Goes on for ever; on /v1/responses, for a million deltas.", normal, knobs={"tokens": 0}),
    "bursts": Model("`after` deltas at once, then nothing for `seconds`.", faults.bursts, knobs={"seconds": 0.2}),
    "heartbeats": Model("A comment, or a keepalive event, after every delta.", faults.heartbeats),
    "slow-first-token": before("Headers and first token come together, `seconds` late.", faults.slow_headers),
    "slow-headers": before("Headers come `seconds` late.", faults.slow_headers),
    "slow-content": Model("Headers come at once, content `seconds` later.", faults.slow_content),
    "slow-close": Model("The socket stays open after the end.", faults.slow_close),
    "stall": Model("After `after` deltas nothing more, the socket stays open.", faults.broken(End.HANG)),
    "stall-heartbeat": Model(
        "After `after` deltas only a heartbeat every `seconds`, for ever.",
        faults.stall_heartbeat,
        knobs={"seconds": 1},
        background=False,
    ),
    "cut-before-finish": Model("The connection closes in mid-body after `after` deltas.", faults.broken(End.CUT)),
    "cut-reset": Model("The connection is reset after `after` deltas.", faults.broken(End.RESET)),
    "cut-clean-before-finish": Model(
        "The body ends properly after `after` deltas, no finish.", faults.broken(End.CLEAN)
    ),
    "cut-after-finish": Model("The connection closes in mid-body after the finish.", faults.cut_after_finish),
    "no-done": Model("Everything but [DONE].", faults.no_done, only="chat"),
    "no-usage": Model("Never sends usage, asked or not.", faults.no_usage),
    "refuses-stream-options": Model("400 if stream_options is present.", faults.refuses_stream_options),
    "close-before-headers": before("Reads the request and closes.", faults.close_before_headers),
    "error-in-stream": Model(
        "After `after` deltas an error event, then [DONE] or response.failed.", faults.error_in_stream
    ),
    "error-first": Model("200, and an error as the very first event.", faults.error_first),
    "error-flat": on_responses("After `after` deltas an error as documented, not nested.", responses_faults.error_flat),
    "failed": on_responses("After `after` deltas response.failed, no error event.", responses_faults.failed),
    "rotating-ids": on_responses("Other ids in every event.", responses_faults.rotating_ids),
    "no-deltas": on_responses("Only the whole texts, no deltas.", responses_faults.no_deltas),
    "no-sequence-numbers": on_responses("No sequence_number anywhere.", responses_faults.no_numbers),
    "no-event-lines": on_responses("Data lines alone, no event lines.", responses_faults.no_event_lines),
    "other-events": on_responses("Event and item types that nobody knows.", responses_faults.other_events),
    "extra-done": on_responses("[DONE] after the end, which is chat's.", responses_faults.extra_done),
    "leak": before("An error (`status`) whose message holds the API key and the prompt.", faults.leak),
    "leak-in-stream": Model("The same as an event, after `after` deltas.", faults.leak_in_stream),
    "json-instead-of-sse": Model("200 with a whole JSON answer, though a stream was asked for.", completion),
    "json-error-200": before(
        "200 with a JSON error.", faults.reply(200, orjson.dumps(failure(429, "Quota exceeded.")), b"application/json")
    ),
    "html-200": before("200 with an HTML page.", faults.reply(200, _HTML, b"text/html; charset=utf-8")),
    "empty-200": before("200, event-stream, zero bytes.", faults.reply(200, b"", b"text/event-stream; charset=utf-8")),
    "split-utf8": Model(
        "Each byte in a write of its own.",
        faults.split_utf8,
        knobs={"answer": "emoji", "tokens": 40},
        background=False,
    ),
    "crlf": Model("CRLF line ends.", faults.crlf, background=False),
    "giant-line": Model("One event of `mib` MiB.", faults.giant_line, background=False),
    "endless-line": Model("A data line that never ends.", faults.endless_line, background=False),
    "gzip": Model("A compressed stream, though nobody asked.", faults.squeezed, background=False),
    "gzip-bomb": Model(
        "One event of `mib` MiB, compressed to nearly nothing.", faults.gzip_bomb, knobs={"mib": 64}, background=False
    ),
    "bad-utf8": Model(
        "Bytes that are not UTF-8, after `after` deltas.",
        faults.odd(lambda play: faults.framed(play, b'" \xff\xfe\xc3( "')),  # F25
    ),
    "nan": Model("A NaN among the logprobs, after `after` deltas.", faults.odd(faults.no_number)),  # C14
    "deep-json": Model(
        "A chunk nested 100,000 deep, after `after` deltas.",
        faults.odd(lambda play: b'data: {"type":"response.in_progress","choices":[],"x":%b}\n\n' % _NESTED),  # C15
    ),
    "garbage": Model(
        "A data line that is no JSON, after `after` deltas.",
        faults.odd(lambda play: b"data: error: engine died\n\n"),  # F18
    ),
    "lone-surrogates": Model(
        "Surrogate pairs split over two deltas, and one half alone.", streamed(content.lone_surrogates)
    ),
    "two-per-frame": Model("Two chunks in one frame, a single LF between them.", faults.two_per_frame, only="chat"),
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
