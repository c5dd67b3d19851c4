"""Each of the simulator's models does on `/v1/responses` what its description says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from app.simulator import Simulator
from tests.simulator.asking import KEY, Seen
from tests.simulator.faults import MODELS
from tests.simulator.test_responses import ANSWER, events, frames, respond

pytestmark = pytest.mark.anyio


def finished(seen: Seen) -> bool:
    return str(events(seen)[-1]["type"]) == "response.completed"


def partial(seen: Seen) -> bool:
    """Four deltas and no end."""
    names = [name for name, _ in frames(seen)]
    return names[-4:] == ["response.output_text.delta"] * 4


def kinds_of(seen: Seen) -> list[str]:
    return [name for name, _ in frames(seen)]


def numbered(seen: Seen) -> bool:
    return [data["sequence_number"] for _, data in frames(seen)] == list(range(len(frames(seen))))


def unlined(seen: Seen) -> bool:
    """A healthy stream, except for the event lines."""
    last: dict[str, Any] = json.loads(seen.body.split(b"\n\n")[-2].removeprefix(b"data: "))
    return b"event:" not in seen.body and last["type"] == "response.completed"


def odd_one(seen: Seen, data: bytes) -> bool:
    return data in seen.body and seen.body.split(b"\n\n")[-2].startswith(b"event: response.completed\n")


# What to ask, and what must be true of what came, besides what the same model does in chat.
Check = Callable[[Seen], bool]
CHECKS: dict[str, tuple[dict[str, Any], Check]] = {
    "slow-headers": ({"knobs": "seconds=0.1"}, lambda seen: finished(seen) and seen.headers_after >= 0.09),
    "slow-content": (
        {"knobs": "seconds=0.1"},
        lambda seen: finished(seen) and seen.content_after - seen.headers_after >= 0.08,
    ),
    "slow-close": ({"patience": 1}, lambda seen: finished(seen) and seen.end == "open"),
    "bursts": ({"knobs": "after=30&seconds=0.01"}, lambda seen: finished(seen) and len(seen.frames) < 12),
    "heartbeats": ({}, lambda seen: numbered(seen) and kinds_of(seen).count("keepalive") > 20),
    "stall": ({"patience": 1}, lambda seen: partial(seen) and seen.end == "open"),
    "stall-heartbeat": (
        {"knobs": "seconds=0.01&after=4", "enough": 6000},
        lambda seen: numbered(seen) and kinds_of(seen)[-3:] == ["keepalive"] * 3,
    ),
    "cut-before-finish": ({}, lambda seen: partial(seen) and seen.end == "cut"),
    "cut-reset": ({}, lambda seen: seen.end == "cut" and b"response.completed" not in seen.body),
    "cut-clean-before-finish": ({}, lambda seen: partial(seen) and seen.end == "clean"),
    "cut-after-finish": ({}, lambda seen: finished(seen) and seen.end == "cut"),
    "no-usage": ({}, lambda seen: finished(seen) and frames(seen)[-1][1]["response"]["usage"] is None),
    "error-in-stream": (
        {},
        lambda seen: (
            kinds_of(seen)[-2:] == ["error", "response.failed"]
            and frames(seen)[-2][1]["error"]["code"] == "server_error"
            and numbered(seen)
        ),
    ),
    "error-first": ({}, lambda seen: kinds_of(seen)[0] == "error"),
    "error-flat": ({}, lambda seen: frames(seen)[-1][0] == "error" and frames(seen)[-1][1]["code"] == "server_error"),
    "failed": (
        {},
        lambda seen: (
            events(seen)[-1]["type"] == "response.failed"
            and events(seen)[-1]["response"]["error"]["code"] == "server_error"
        ),
    ),
    "rotating-ids": (
        {},
        lambda seen: len({data["item_id"] for _, data in frames(seen) if "item_id" in data}) > 20 and finished(seen),
    ),
    "no-deltas": (
        {},
        lambda seen: (
            ".delta" not in str(kinds_of(seen)) and frames(seen)[-2][1]["item"]["content"][0]["text"] == ANSWER
        ),
    ),
    "no-sequence-numbers": (
        {},
        lambda seen: "sequence_number" not in str(frames(seen)) and frames(seen)[-1][0] == "response.completed",
    ),
    "no-event-lines": ({}, unlined),
    "other-events": (
        {},
        lambda seen: (
            {"response.keep_alive", "response.telepathy.delta"} <= set(kinds_of(seen))
            and "sequence_number" not in frames(seen)[0][1]
            and kinds_of(seen)[-1] == "response.completed"
        ),
    ),
    "extra-done": ({}, lambda seen: seen.body.endswith(b"}\n\ndata: [DONE]\n\n")),
    "leak": ({}, lambda seen: seen.status == 401 and KEY in seen.body.decode()),
    "leak-in-stream": ({}, lambda seen: KEY in frames(seen)[-1][1]["error"]["message"]),
    "json-instead-of-sse": ({}, lambda seen: json.loads(seen.body)["object"] == "response"),
    "html-200": ({}, lambda seen: seen.status == 200 and b"<html>" in seen.body),
    "error-429": ({}, lambda seen: seen.status == 429 and seen.headers["retry-after"] == "1"),
    "giant-line": ({"knobs": "mib=2"}, lambda seen: finished(seen) and len(seen.body) > 2 << 20),
    "split-utf8": ({}, lambda seen: set(seen.frames) == {1} and finished(seen)),
    "bad-utf8": ({}, lambda seen: odd_one(seen, b'" \xff\xfe\xc3( "')),
    "nan": ({}, lambda seen: odd_one(seen, b'"logprobs":[{"logprob":NaN}]')),
    "garbage": ({}, lambda seen: odd_one(seen, b"data: error: engine died")),
    "deep-json": ({}, lambda seen: odd_one(seen, b"[" * 100_000)),
    "lone-surrogates": ({}, lambda seen: odd_one(seen, rb'"delta":"\ud83d"') and numbered(seen)),
}


def test_every_model_of_responses_alone_is_checked() -> None:
    """What chat's tests cannot check is checked here."""
    assert {name for name, model in MODELS.items() if model.only == "responses"} <= set(CHECKS)


@pytest.mark.parametrize("model", sorted(CHECKS))
async def test_a_model_does_as_it_says(simulator: Simulator, model: str) -> None:
    """What comes over the wire is what the model's description promises."""
    fields, check = CHECKS[model]
    rest = dict(fields)
    knobs = rest.pop("knobs", "after=4")
    seen = await respond(simulator, f"{model}?{knobs}", **rest)
    assert check(seen), seen


@pytest.mark.parametrize(
    "model",
    sorted(
        {name for name, each in MODELS.items() if each.only != "chat"}
        - {"endless-line", "gzip-bomb", "stall-heartbeat"}
    ),
)
@pytest.mark.parametrize("stream", [True, False])
async def test_no_model_breaks_the_simulator(simulator: Simulator, model: str, stream: bool) -> None:
    """Every model that speaks Responses gives some answer, cut or not, and is over when its client is gone."""
    seen = await respond(simulator, f"{model}?tokens=9&seconds=0.01&mib=1", stream=stream, patience=0.1, enough=99_999)
    assert seen.status or model == "close-before-headers"
