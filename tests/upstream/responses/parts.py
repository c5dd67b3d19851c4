"""What is said in a Responses stream, and how often: rows R1, R2, R6–R8. Only data; see `responses_quirks`."""

from __future__ import annotations

import json

from app.errors import Malformed
from tests.upstream.reading.quirks_bytes import OPEN, Case, event
from tests.upstream.responses.bytes import (
    AS_CHAT,
    END,
    HI,
    SUMMED,
    WHOLE,
    item,
    message,
    over,
    said,
    sent,
    summary,
    thought,
)

TEXTS = [
    Case("whole", WHOLE, text="Hello you", usage=AS_CHAT, model="gpt-5"),
    Case("whole-open", WHOLE, text="Hello you", usage=AS_CHAT, model="gpt-5", **OPEN),
    Case(
        "R1", event({"type": "keepalive", "sequence_number": 466}) + HI + sent("brand_new", delta="x") + END, text="hi"
    ),
    Case(
        "R2",
        sent("keep_alive") + sent("in_progress") + sent("created", response={"model": "m"}) + HI + END,
        text="hi",
        model="m",
    ),
    Case(
        "R6", said("a", item_id="x") + said("b", item_id="b") + item("done", 0, message("ab", id="z")) + END, text="ab"
    ),
    Case("R7-text", sent("output_text.done", output_index=0, content_index=0, text="hi") + END, text="hi"),
    Case(
        "R7-part",
        sent("content_part.done", output_index=0, content_index=0, part={"type": "output_text", "text": "hi"}) + END,
        text="hi",
    ),
    Case("R7-item", item("done", 0, message("h", "i")) + END, text="hi"),
    Case("R7-response", over(output=[message("h"), message("i")]), text="hi"),
    Case("R7-response-counts-otherwise", said("hi", 3) + over(output=[message("hi")]), text="hi"),
    Case("R7-item-counts-otherwise", said("hi", 0, 2) + item("done", 0, message("hi")) + END, text="hi"),
    Case(
        "R7-one-of-two",
        said("a", 0, 0)
        + sent("output_text.done", output_index=0, content_index=0, text="a")
        + sent("output_text.done", output_index=0, content_index=1, text="b")
        + item("done", 0, message("a", "b"))
        + item("done", 1, message("c"))
        + over(output=[message("a", "b"), message("c")]),
        text="abc",
    ),
    Case(
        "R7-no-index",
        sent("output_text.delta", delta="hi") + sent("output_text.done", content_index=0, text="hi") + END,
        text="hi",
    ),
    Case(
        "R8-gaps",
        said("a", sequence_number=0) + said("b", sequence_number=9) + said("c", sequence_number=9) + said("d") + END,
        text="abcd",
    ),
    Case(
        "R8-backwards",
        said("a", sequence_number=9) + said("b", sequence_number=1) + said("c", sequence_number=-1) + END,
        text="abc",
    ),
    Case("no-type", b"event: response.output_text.delta\n" + event({"delta": "hi"}) + END, text="hi"),
    Case("no-name", event({"type": "response.output_text.delta", "delta": "hi"}) + END, text="hi"),
    Case("empty-deltas", said("") + said(None) + said([]) + said({}) + HI + END, text="hi"),
    Case(
        "other-types",
        said("$") + said(0.5) + said([6, "x"]) + said(True) + said({"text": "a"}) + END,
        text="$0.56xtruea",
    ),
    Case("not-to-be-understood", HI + said({"a": 1}) + END, Malformed, text="hi"),
    Case("two-messages", said("a", 0) + said("b", 2) + END, text="ab"),
    Case(
        "refusal",
        sent("refusal.delta", output_index=0, content_index=0, delta="I ")
        + sent("refusal.delta", output_index=0, content_index=0, delta="can't")
        + sent("refusal.done", output_index=0, content_index=0, refusal="I can't")
        + over(output=[message() | {"content": [{"type": "refusal", "refusal": "I can't"}]}]),
        refusal="I can't",
    ),
    Case("refusal-done", sent("refusal.done", output_index=0, content_index=0, refusal="no") + END, refusal="no"),
    Case(
        "surrogates",
        b"".join(
            event(json.dumps({"type": "response.output_text.delta", "delta": half}).encode())
            for half in ("a\ud83d", "\ude00b")
        )
        + END,
        text="a😀b",
    ),
    Case("half-a-character", event(b'{"type":"response.output_text.delta","delta":"a\\ud83d"}') + END, text="a\ufffd"),
    Case(
        "odd-indexes",
        said("a", at=-1)
        + said("b", output_index="x")
        + said("c", content_index=[1])
        + said("d", output_index=1 << 70)
        + END,
        text="abcd",
    ),
    Case("too-many-parts", b"".join(said("x", 0, index) for index in range(1100)) + END, Malformed, text="x" * 1024),
]

REASONING = [
    Case("reasoning", thought("a") + thought("b") + HI + END, text="hi", reasoning="ab"),
    Case(
        "reasoning-summary",
        summary("a") + summary("b") + summary("c", 0, 1) + summary("d", 0, 1) + HI + END,
        text="hi",
        reasoning="ab\n\ncd",
    ),
    Case("reasoning-items", thought("a") + HI + thought("b", 2) + END, text="hi", reasoning="a\n\nb"),
    Case("reasoning-once", thought("a") + summary("A") + thought("b") + item("done", 0, SUMMED) + END, reasoning="ab"),
    Case("reasoning-once-otherwise", summary("A") + thought("a") + summary("B") + END, reasoning="AB"),
    Case("reasoning-each-its-own", thought("a", 0) + summary("B", 1) + END, reasoning="a\n\nB"),
    Case(
        "reasoning-done",
        sent("reasoning_text.done", output_index=0, content_index=0, text="a")
        + sent("reasoning_summary_text.done", output_index=0, summary_index=0, text="A")
        + sent("reasoning_summary_text.done", output_index=1, summary_index=0, text="B")
        + END,
        reasoning="a\n\nB",
    ),
    Case("reasoning-item", item("done", 0, SUMMED) + HI + over(output=[SUMMED]), text="hi", reasoning="a\n\nb"),
    Case(
        "reasoning-item-both",
        item("done", 0, SUMMED | {"content": [{"type": "reasoning_text", "text": "t"}]}) + END,
        reasoning="t",
    ),
    Case("reasoning-response", over(output=[SUMMED, message("hi")]), text="hi", reasoning="a\n\nb"),
    Case("reasoning-not-afterwards", HI + over(output=[SUMMED, message("hi")]), text="hi"),
]
