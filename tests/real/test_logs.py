"""The logs: what is there, and above all what is not."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from app import __version__
from tests.real.conftest import Start
from tests.waiting import wait_until

pytestmark = pytest.mark.real

PROMPT = "my-secret-prompt-4711"
KEY = "sk-secret-key-0815abcdef"


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def lines_of(answer: httpx.Response) -> list[str]:
    """Return the answer's text in pieces that are long enough to come from nowhere else."""
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    text = "".join(json.loads(line).get("content", "") for line in data)
    return [text[at : at + 20] for at in range(0, len(text) - 20, 20)]


def test_one_canonical_line_per_stream(start_service: Start) -> None:
    """A stream leaves: opened, attached, detached, and one line with everything, all with the request's id."""
    service = start_service(log_format="json")
    body = {"prompt": PROMPT, "model": "sim-gpt?rate=0&first=0&tokens=7"}
    answer = httpx.post(f"{service.url}/v1/chat", json=body, headers={"X-Request-Id": "req-1"})
    wait_until(lambda: len(lines(service.text())) >= 4)
    entries = {entry["event"]: entry for entry in lines(service.text())}
    assert set(entries) == {"stream.opened", "subscriber.attached", "subscriber.detached", "stream.finished"}
    assert {entry["request_id"] for entry in entries.values()} == {"req-1"}
    assert {entry["stream_id"] for entry in entries.values()} == {answer.headers["x-stream-id"]}
    finished = entries["stream.finished"]
    assert (finished["reason"], finished["deltas"], finished["upstream_status"]) == ("stop", 7, 200)
    assert finished["completion_tokens"] == 7
    assert finished["first_token_ms"] <= finished["duration_ms"]
    assert entries["subscriber.detached"]["whole"] is True


def test_nothing_secret_is_logged(start_simulator: Start, start_service: Start) -> None:
    """At DEBUG, over successes and every kind of failure, neither prompt, answer nor key is in the logs."""
    simulator = start_simulator()
    url = simulator.url
    env = {"openai_api_key": KEY, "openai_base_url": url}
    service = start_service(log_level="debug", idle_timeout=0.3, retry_wait=0.01, **env)
    models = [
        "sim-echo?rate=0&first=0",
        "leak?status=400&first=0",
        "leak?status=401&first=0",
        "leak?status=500&first=0",
        "leak-in-stream?first=0&after=2",
        "stall?first=0&after=2",
        "cut-before-finish?first=0&after=2",
        "garbage?first=0&after=2",
        "html-200?first=0",
    ]
    texts = lines_of(httpx.post(f"{service.url}/v1/chat", json={"prompt": PROMPT, "model": "sim-gpt?rate=0&first=0"}))
    for model in models:
        answer = httpx.post(f"{service.url}/v1/chat", json={"prompt": PROMPT, "model": model})
        assert KEY not in answer.text, model  # the prompt may be quoted to the client that sent it
    for body in (f'{{"prompt": "{PROMPT}", "{PROMPT}": 1}}', f'{{"prompt": ["{PROMPT}"]}}', f'{{"prompt": "{PROMPT}'):
        assert httpx.post(f"{service.url}/v1/chat", content=body).status_code == 400
    wait_until(lambda: service.text().count("subscriber.detached") == 1 + len(models))
    assert len(texts) > 5
    for secret in (PROMPT, KEY, *texts):
        assert secret not in service.text()


def test_console(start_service: Start) -> None:
    """For people, the same lines without braces; what the service is doing is said in one friendly line first."""
    service = start_service(log_format="console")
    assert service.text().startswith(f"chat-sse {__version__} ")
    assert "built-in simulator" in service.text()
    httpx.post(f"{service.url}/v1/chat", json={"prompt": "x", "model": "sim-echo?rate=0&first=0"})
    service.awaits("stream.finished")
    assert "{" not in service.text()
