"""`/metrics` of a real process: exact counts of what was done to it, and no client's words for labels."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.real.conftest import Start
from tests.real.processes import Server
from tests.waiting import wait_until

pytestmark = pytest.mark.real

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

MODEL = "sim-gpt?rate=0&first=0"
ENDLESS = "never-ends?rate=50&first=0"


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


def scrape(url: str, **headers: str) -> Samples:
    answer = httpx.get(f"{url}/metrics", headers=headers)
    assert answer.status_code == 200
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def ended(service: Server, count: int) -> Samples:
    """Return what is shown once *count* streams have ended, and no reader is left."""

    def settled() -> bool:
        found = scrape(service.url)
        streams = sum(value for (name, _), value in found.items() if name == "chat_sse_streams_total")
        return streams == count and not found[key("chat_sse_subscribers_live")]

    wait_until(settled)
    return scrape(service.url)


def ask(service: Server, model: str) -> httpx.Response:
    return httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": model})


def test_counts(start_service: Start) -> None:
    """A whole stream, a cut one, a retried one, a cancelled one, a resume and two refusals are each counted once."""
    service = start_service(model=MODEL, retry_wait=0.01)
    stream_id = ask(service, MODEL).headers["x-stream-id"]
    assert b"event: error" in ask(service, "cut-before-finish?after=3&rate=0&first=0").content
    assert b"event: done" in ask(service, "flaky-503?fail=1&first=0&rate=0&retry_after=0").content
    resumed = httpx.get(f"{service.url}/v1/streams/{stream_id}", headers={"Last-Event-ID": f"{stream_id}-1"})
    assert b"event: done" in resumed.content
    with httpx.stream("POST", f"{service.url}/v1/chat", json={"prompt": "hi", "model": ENDLESS}) as answer:
        assert httpx.delete(f"{service.url}/v1/streams/{answer.headers['x-stream-id']}").status_code == 200
        answer.read()
    assert httpx.post(f"{service.url}/v1/chat", json={"prompt": 1}).status_code == 400
    assert httpx.get(f"{service.url}/nowhere").status_code == 404
    found = ended(service, 4)
    for name, labels, count in (
        ("chat_sse_streams_total", {"model": MODEL, "upstream": "default", "reason": "stop"}, 1),
        ("chat_sse_streams_total", {"model": "other", "upstream": "default", "reason": "stop"}, 1),
        ("chat_sse_streams_total", {"model": "other", "upstream": "default", "reason": "upstream_disconnected"}, 1),
        ("chat_sse_streams_total", {"model": "other", "upstream": "default", "reason": "cancelled"}, 1),
        ("chat_sse_upstream_responses_total", {"upstream": "default", "status": "200"}, 4),
        ("chat_sse_upstream_responses_total", {"upstream": "default", "status": "503"}, 1),
        ("chat_sse_upstream_retries_total", {"upstream": "default"}, 1),
        ("chat_sse_fallbacks_total", {"upstream": "default"}, 0),
        ("chat_sse_requests_refused_total", {"reason": "bad_request"}, 1),
        ("chat_sse_requests_refused_total", {"reason": "not_found"}, 1),
        ("chat_sse_requests_refused_total", {"reason": "overloaded"}, 0),
        ("chat_sse_streams_opened_total", {}, 4),
        ("chat_sse_streams_live", {}, 0),
        ("chat_sse_subscribers_total", {}, 5),
        ("chat_sse_resumes_total", {}, 1),
        ("chat_sse_journal_streams", {}, 4),
        ("gen_ai_server_request_duration_seconds_count", {}, 4),
        ("gen_ai_server_time_to_first_token_seconds_count", {}, 4),
        ("chat_sse_draining", {}, 0),
    ):
        assert found[key(name, **labels)] == count, (name, labels)
    assert found[key("gen_ai_client_inference_usage_output_tokens_total", model=MODEL)] > 0
    assert found[key("chat_sse_journal_bytes")] > 0
    assert found[key("process_resident_memory_bytes")] > 1 << 20
    wait_until(lambda: scrape(service.url)[key("chat_sse_event_loop_lag_seconds_count")] >= 2)


def test_fifty_live(start_service: Start) -> None:
    """Fifty live streams are shown while they are live, and one scrape among them is quick."""
    service = start_service(model=ENDLESS, on_disconnect="cancel", shutdown_grace=0)

    async def read() -> None:
        async with httpx.AsyncClient(limits=httpx.Limits(max_connections=None)) as client, asyncio.TaskGroup() as group:
            begun = asyncio.Semaphore(0)

            async def one() -> None:
                async with client.stream("POST", f"{service.url}/v1/chat", json={"prompt": "hi"}) as answer:
                    chunks = answer.aiter_bytes()
                    await anext(chunks)
                    begun.release()
                    await finish.wait()

            finish = asyncio.Event()
            for _ in range(50):
                group.create_task(one())
            for _ in range(50):
                await begun.acquire()
            began = time.monotonic()
            found = await asyncio.to_thread(scrape, service.url)
            print(f"a scrape beside 50 live streams took {time.monotonic() - began:.3f} s")
            assert found[key("chat_sse_streams_live")] == found[key("chat_sse_streams_opened_total")] == 50
            assert found[key("chat_sse_subscribers_live")] == found[key("chat_sse_subscribers_total")] == 50
            finish.set()

    asyncio.run(asyncio.wait_for(read(), 30))


def test_labels(start_service: Start) -> None:
    """However a model is spelt, what a client wrote is no label."""
    service = start_service(model=MODEL)
    names = [
        'sim-gpt?first=0"',
        'x"} 1\nevil_metric 1',
        "a\nb",
        "\\",
        "é",
        "x" * 300,
        *(f"mine-{it}" for it in range(50)),
    ]
    opened = [ask(service, name).status_code for name in names]
    text = httpx.get(f"{service.url}/metrics").text
    assert "evil" not in text
    assert "mine-" not in text
    assert "xxx" not in text
    models = {dict(labels).get("model") for _, labels in scrape(service.url)}
    assert models <= {None, MODEL, "other"}
    assert len(opened) == len(names)
    assert max(opened) < 500


def test_access(start_service: Start) -> None:
    """Where credentials are asked for, so is the token for the metrics; an API key is none."""
    service = start_service(api_keys=f"web:{'0' * 64}", metrics_token="scrape-me")
    answer = httpx.get(f"{service.url}/metrics")
    assert answer.status_code == 401
    assert "chat_sse_streams_live" not in answer.text
    assert scrape(service.url, Authorization="Bearer scrape-me")[key("chat_sse_streams_live")] == 0
    closed = start_service(api_keys=f"web:{'0' * 64}")
    assert httpx.get(f"{closed.url}/metrics").status_code == 403


def test_openmetrics(start_service: Start) -> None:
    """Who asks for OpenMetrics gets it; nothing in an Accept header is echoed, or an error."""
    service = start_service()
    accept = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.5"
    answer = httpx.get(f"{service.url}/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.text.endswith("# EOF\n")
    answer = httpx.get(f"{service.url}/metrics", headers={"Accept": "text/plain;version=mine"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
