"""The simulator's models, by name. Adding one is adding its line to `MODELS`.

`/v1/models` lists them with these descriptions. Any knob of `knobs.Knobs` may follow a name, as in
`stall?after=3&rate=200&first=0`. A model speaks both APIs, unless its line says otherwise. The tests add more of them
by passing a table of their own to `serve`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from app.simulator import scripts
from app.simulator.answer import Answer, Content, calls, lone_surrogates, reasoning, refusal
from app.simulator.errors import ERRORS
from app.simulator.parts import Kind
from app.simulator.script import End, Script


class Model(NamedTuple):
    """What a model does, with and without `stream: true`, and the knobs that it sets for itself.

    *only* is the one API that it speaks, if it does not speak both: `chat` or `responses`. *background* tells whether
    it may be asked for a background response: a fault in bytes, and not in events, leaves nothing to resume.
    """

    description: str
    stream: Callable[[Answer], Script]
    whole: Callable[[Answer], Script] = scripts.whole
    knobs: Mapping[str, Any] = MappingProxyType({})
    only: str = ""
    background: bool = True


def saying_it(description: str, content: Content) -> Model:
    """Return a model that says *content*, streamed or whole."""
    return Model(description, partial(scripts.stream, content=content), partial(scripts.whole, content=content))


def always(description: str, script: Callable[[Answer], Script], **knobs: Any) -> Model:
    """Return a model that does the same whether it was asked to stream or not."""
    return Model(description, script, script, knobs)


_HTML = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

MODELS: dict[str, Model] = {
    "sim-gpt": Model("A text worth reading, chosen by the prompt.", scripts.stream),
    "sim-echo": Model("The last user message, said again.", scripts.stream),
    "reasoning": saying_it(
        "Reasoning first, a summary of it on /v1/responses; then the answer.", partial(reasoning, kind=Kind.SUMMARY)
    ),
    "tools": saying_it("Calls up to two of the tools offered, arguments in pieces.", calls),
    "refusal": saying_it("Refuses, in the refusal field.", refusal),
    "never-ends": Model("Goes on for ever; on /v1/responses, for 50,000 deltas.", scripts.stream, knobs={"tokens": 0}),
    "lone-surrogates": Model(
        "Surrogate pairs split over two deltas, and one half alone.", partial(scripts.stream, content=lone_surrogates)
    ),
    "split-utf8": Model(
        "Each byte in a write of its own.",
        scripts.split_utf8,
        knobs={"answer": "emoji", "tokens": 40},
        background=False,
    ),
    "slow-content": Model("Headers come at once, content `seconds` later.", scripts.slow_content),
    "no-done": Model("Everything but [DONE].", scripts.no_done, only="chat"),
    "cut-after-finish": Model("The connection closes mid-body after the finish.", scripts.cut_after_finish),
    "content-filter": Model("Is stopped by the content filter after `after` deltas.", scripts.content_filter),
    "error-in-stream": Model(
        "After `after` deltas an error event, then [DONE] or response.failed.", scripts.error_in_stream
    ),
    "garbage": Model(
        "A data line that is no JSON, after `after` deltas.",
        partial(scripts.odd, make=lambda _: b"data: error: engine died\n\n"),  # row F18
    ),
    "cut-before-finish": Model(
        "The connection closes mid-body after `after` deltas.", partial(scripts.breaks, end=End.CUT)
    ),
    "cut-reset": Model("The connection is reset after `after` deltas.", partial(scripts.breaks, end=End.RESET)),
    "cut-clean-before-finish": Model(
        "The body ends properly after `after` deltas, no finish.", partial(scripts.breaks, end=End.CLEAN)
    ),
    "stall": Model("After `after` deltas nothing more, the socket stays open.", partial(scripts.breaks, end=End.HANG)),
    "html-200": always(
        "200 with an HTML page.", partial(scripts.says, body=_HTML, content_type=b"text/html; charset=utf-8")
    ),
}
for _status in ERRORS:
    _fails = partial(scripts.fails, status=_status)
    _flaky = partial(scripts.flaky, status=_status)
    MODELS[f"error-{_status}"] = always(f"Status {_status}; `retry_after` sets the hint.", _fails)
    MODELS[f"flaky-{_status}"] = always(f"Status {_status} the first `fail` times for a prompt or `key`.", _flaky)
