"""Each of the simulator's models does what its description says."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app.simulator import Simulator
from app.simulator.errors import ERRORS
from tests.simulator.asking import KEY, PROMPT, Seen, ask
from tests.simulator.faults import MODELS

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


def healthy(seen: Seen) -> bool:
    return seen.status == 200 and seen.finish == "stop" and seen.done and seen.end == "clean"


def giant(seen: Seen, field: str) -> bool:
    return any(len(json.dumps(delta[field])) > 900_000 for delta in seen.deltas if field in delta)


def without_finish(seen: Seen, deltas: int = 4) -> bool:
    return len(seen.deltas) == deltas and seen.finish is None and not seen.done


def text(seen: Seen) -> str:
    return "".join(delta.get("content") or "" for delta in seen.deltas)


def odd_one(seen: Seen, data: bytes) -> bool:
    """An odd event after four deltas, and a healthy stream around it."""
    blocks = seen.body.split(b"\n\n")
    return data in blocks[5] and seen.done and b'"finish_reason":"stop"' in seen.body and seen.end == "clean"


# What to ask (knobs, fields of the body, how long to wait), and what must be true of what came.
Check = Callable[[Seen], bool]
CHECKS: dict[str, tuple[dict[str, Any], Check]] = {
    "sim-gpt": ({}, healthy),
    "sim-echo": ({}, lambda seen: healthy(seen) and text(seen) == PROMPT),
    "clock": (
        {},
        lambda seen: (
            healthy(seen) and 0 < max(int(delta["content"][:-1]) for delta in seen.deltas) <= time.monotonic_ns()
        ),
    ),
    "reasoning": (
        {},
        lambda seen: healthy(seen) and "reasoning_content" in seen.deltas[0] and "content" in seen.deltas[-1],
    ),
    "reasoning-text": (
        {},
        lambda seen: healthy(seen) and "reasoning" in seen.deltas[0] and "content" in seen.deltas[-1],
    ),
    "text-and-tools": (
        {},
        lambda seen: (
            seen.finish == "tool_calls"
            and "content" in seen.deltas[0]
            and "tool_calls" in seen.deltas[-1]
            and seen.done
        ),
    ),
    "bursts": (
        {"knobs": "after=30&seconds=0.01"},
        lambda seen: healthy(seen) and seen.frames[1] > 20 * 200 and len(seen.frames) < len(seen.deltas) / 10,
    ),
    "heartbeats": ({}, lambda seen: healthy(seen) and seen.body.count(b": keep-alive\n\n") == len(seen.deltas)),
    "tools": (
        {"tools": [{"type": "function", "function": {"name": name}} for name in ("one", "two")]},
        lambda seen: (
            seen.finish == "tool_calls"
            and [c["function"]["name"] for d in seen.deltas for c in d["tool_calls"] if "id" in c] == ["one", "two"]
            and [
                json.loads(
                    "".join(c["function"]["arguments"] for d in seen.deltas for c in d["tool_calls"] if c["index"] == i)
                )["query"]
                for i in (0, 1)
            ]
            == [PROMPT, PROMPT]
        ),
    ),
    "refusal": ({}, lambda seen: healthy(seen) and all("refusal" in delta for delta in seen.deltas)),
    "content-filter": ({}, lambda seen: seen.finish == "content_filter" and len(seen.deltas) == 4 and seen.done),
    "never-ends": ({"enough": 1 << 20}, lambda seen: seen.end == "open" and seen.finish is None),
    "slow-first-token": ({"knobs": "seconds=0.2"}, lambda seen: healthy(seen) and seen.headers_after >= 0.19),
    "slow-headers": ({"knobs": "seconds=0.2"}, lambda seen: healthy(seen) and seen.headers_after >= 0.19),
    "slow-content": (
        {"knobs": "seconds=0.2"},
        lambda seen: healthy(seen) and seen.content_after - seen.headers_after >= 0.18,
    ),
    "slow-close": ({"patience": 1}, lambda seen: seen.done and seen.end == "open"),
    "stall": ({"patience": 1}, lambda seen: without_finish(seen) and seen.end == "open"),
    "stall-heartbeat": (
        {"knobs": "seconds=0.01&after=4", "enough": 1800},
        lambda seen: without_finish(seen) and seen.body.endswith(b": keep-alive\n\n" * 3),
    ),
    "cut-before-finish": ({}, lambda seen: without_finish(seen) and seen.end == "cut"),
    "cut-reset": ({}, lambda seen: seen.finish is None and not seen.done and seen.end == "cut"),
    "cut-clean-before-finish": ({}, lambda seen: without_finish(seen) and seen.end == "clean"),
    "cut-after-finish": ({}, lambda seen: seen.finish == "stop" and not seen.done and seen.end == "cut"),
    "no-done": ({}, lambda seen: seen.finish == "stop" and not seen.done and seen.end == "clean"),
    "no-usage": (
        {"stream_options": {"include_usage": True}},
        lambda seen: healthy(seen) and not any(event.get("usage") for event in seen.events[:-1]),
    ),
    "refuses-stream-options": (
        {"stream_options": {"include_usage": True}},
        lambda seen: seen.status == 400 and json.loads(seen.body)["error"]["param"] == "stream_options",
    ),
    "close-before-headers": ({}, lambda seen: seen.status == 0 and seen.end == "cut"),
    "error-in-stream": ({}, lambda seen: len(seen.deltas) == 4 and "error" in seen.events[-2] and seen.done),
    "error-first": ({}, lambda seen: seen.status == 200 and "error" in seen.events[0]),
    "leak": (
        {},
        lambda seen: seen.status == 401 and {KEY, PROMPT} <= set_of(json.loads(seen.body)["error"]["message"]),
    ),
    "leak-in-stream": ({}, lambda seen: {KEY, PROMPT} <= set_of(seen.events[-1]["error"]["message"])),
    "json-instead-of-sse": (
        {},
        lambda seen: (
            seen.headers["content-type"] == "application/json" and json.loads(seen.body)["object"] == "chat.completion"
        ),
    ),
    "json-error-200": ({}, lambda seen: seen.status == 200 and "error" in json.loads(seen.body)),
    "html-200": ({}, lambda seen: seen.status == 200 and b"<html>" in seen.body),
    "empty-200": (
        {},
        lambda seen: (seen.status, seen.body) == (200, b"") and "event-stream" in seen.headers["content-type"],
    ),
    "split-utf8": ({}, lambda seen: healthy(seen) and set(seen.frames) == {1} and not text(seen).isascii()),
    "crlf": ({}, lambda seen: seen.body.count(b"\n") == seen.body.count(b"\r\n") and seen.body.endswith(b"\r\n\r\n")),
    "giant-line": ({"knobs": "mib=2"}, lambda seen: healthy(seen) and len(text(seen)) == 2 << 20),
    "giant-escapes": ({"knobs": "mib=1"}, lambda seen: healthy(seen) and giant(seen, "content")),
    "giant-call": ({"knobs": "mib=1"}, lambda seen: healthy(seen) and giant(seen, "tool_calls")),
    "giant-image": ({"knobs": "mib=1"}, lambda seen: healthy(seen) and giant(seen, "images")),
    "giant-notes": ({"knobs": "mib=1"}, lambda seen: healthy(seen) and giant(seen, "annotations")),
    "giant-fields": ({"knobs": "mib=1"}, lambda seen: healthy(seen) and giant(seen, "zz")),
    "giant-error": ({"knobs": "mib=1"}, lambda seen: len(seen.events[-1]["error"]["message"]) == 1 << 20),
    "endless-line": ({"enough": 4 << 20}, lambda seen: seen.end == "open" and seen.body.count(b"\n") == 2),
    "gzip": ({}, lambda seen: zlib.decompress(seen.body, 31).endswith(b"data: [DONE]\n\n") and len(seen.frames) > 9),
    "gzip-bomb": (
        {"knobs": "mib=20"},
        lambda seen: len(zlib.decompress(seen.body, 31)) > 20 << 20 and len(seen.body) < 100_000,
    ),
    "bad-utf8": ({}, lambda seen: odd_one(seen, b'" \xff\xfe\xc3( "')),
    "nan": ({}, lambda seen: odd_one(seen, b"NaN")),
    "deep-json": ({}, lambda seen: odd_one(seen, b"[" * 100_000)),
    "garbage": ({}, lambda seen: odd_one(seen, b"data: error: engine died")),
    "lone-surrogates": (
        {},
        lambda seen: (
            healthy(seen)
            and [d["content"] for d in seen.deltas if not d["content"].isprintable()] == ["\ud83d", "\ude00", "\ud83d"]
        ),
    ),
    "two-per-frame": ({}, lambda seen: seen.body.count(b"}\ndata: ") > 10 and seen.done),
}


def set_of(message: str) -> set[str]:
    """Return which of the secrets are in *message*."""
    return {secret for secret in (KEY, PROMPT) if secret in message}


def test_every_model_is_checked_here() -> None:
    """No model is listed without a test of what its description says."""
    statuses = {f"{kind}-{status}" for kind in ("error", "flaky") for status in ERRORS}
    assert {name for name, model in MODELS.items() if model.only != "responses"} == set(CHECKS) | statuses


@pytest.mark.parametrize("model", sorted(CHECKS))
async def test_a_model_does_as_it_says(simulator: Simulator, model: str) -> None:
    """What comes over the wire is what the model's description promises."""
    fields, check = CHECKS[model]
    rest = dict(fields)
    knobs = rest.pop("knobs", "after=4")
    seen = await ask(simulator, f"{model}?{knobs}", **rest)
    assert check(seen), seen


@pytest.mark.parametrize("status", sorted(ERRORS))
async def test_an_error_model_has_the_status_and_openais_body(simulator: Simulator, status: int) -> None:
    """error-<status> answers so at once; 429 and 503 say when to come back."""
    seen = await ask(simulator, f"error-{status}")
    assert seen.status == status
    assert json.loads(seen.body)["error"].keys() == {"message", "type", "param", "code"}
    assert seen.headers.get("retry-after") == ("1" if status in (429, 503) else None)
    hinted = await ask(simulator, f"error-{status}?retry_after=0.25")
    assert (hinted.headers["retry-after"], hinted.headers["retry-after-ms"]) == ("1", "250")


@pytest.mark.parametrize("status", sorted(ERRORS))
async def test_a_flaky_model_fails_and_then_works(simulator: Simulator, status: int) -> None:
    """flaky-<status> fails `fail` times for each key, and for ever works then, until a reset."""
    statuses = [(await ask(simulator, f"flaky-{status}?fail=2&tokens=1")).status for _ in range(4)]
    assert statuses == [status, status, 200, 200]
    assert (await ask(simulator, f"flaky-{status}?key=other&tokens=1")).status == status
    simulator.reset()
    assert (await ask(simulator, f"flaky-{status}?fail=2&tokens=1")).status == status


async def test_all_models_are_listed_with_a_description(simulator: Simulator) -> None:
    """/v1/models has OpenAI's list shape, and each model can be asked for alone."""
    async with httpx.AsyncClient(base_url=simulator.url) as client:
        listed = (await client.get("/models")).json()
        assert listed["object"] == "list"
        assert [each["id"] for each in listed["data"]] == list(MODELS)
        assert all(each["object"] == "model" and each["description"] for each in listed["data"])
        assert (await client.get("/models/stall")).json() == listed["data"][list(MODELS).index("stall")]
        assert (await client.get("/models/unknown")).status_code == 404


@pytest.mark.parametrize(
    ("model", "field"),
    [("sim-gpt", "content"), ("reasoning", "reasoning_content"), ("tools", "tool_calls"), ("refusal", "refusal")],
)
async def test_a_whole_answer_has_the_same_kinds(simulator: Simulator, model: str, field: str) -> None:
    """`stream: false` says in one message what the stream says in deltas."""
    seen = await ask(simulator, model, stream=False)
    choice = json.loads(seen.body)["choices"][0]
    assert choice["message"][field]
    assert choice["finish_reason"] == ("tool_calls" if model == "tools" else "stop")


async def test_tools_answers_once_a_tool_has(simulator: Simulator) -> None:
    """After a tool's result the tools model says something, so that an agent's loop ends."""
    messages = [{"role": "user", "content": PROMPT}, {"role": "tool", "content": "18 °C", "tool_call_id": "call_1"}]
    assert healthy(await ask(simulator, "tools", messages=messages))


async def test_counters_tell_the_ends_apart(simulator: Simulator) -> None:
    """A stream that the simulator cuts is neither finished nor aborted, and one that lingers is finished."""
    await ask(simulator, "cut-before-finish")
    assert (simulator.stats.streams_cut, simulator.stats.streams_aborted) == (1, 0)
    await ask(simulator, "slow-close", patience=1)
    assert (simulator.stats.streams_finished, simulator.stats.live) == (1, 0)
