"""Other people's servers as upstream, for real. These run with tests/servers/run, which installs the servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import httpx
import pytest

from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import Server, launch
from tests.servers.launching import LLAMA_CPP, TRANSFORMERS, VLLM, Kind, launch_server, processor_time
from tests.servers.tiny_model import CHORUS, TEXT
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ASKED: dict[str, Any] = {"model": "tiny", "messages": [{"role": "user", "content": "hey there"}], "temperature": 0}
FOREVER: dict[str, Any] = {"model": "tiny", "prompt": "Sing forever", "max_tokens": 16000}


class Both(NamedTuple):
    """A server, and our service with that as the upstream."""

    kind: Kind
    server: Server
    service: Server


@pytest.fixture(scope="module", params=[LLAMA_CPP, TRANSFORMERS, VLLM], ids=lambda kind: kind.name)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    server = launch_server(request.param, tmp_path_factory.mktemp("server"))
    try:
        service = launch(tmp_path_factory.mktemp("service"), server)
        yield Both(request.param, server, service)
        service.stop()
    finally:
        server.stop()


def ask(service: Server, **body: Any) -> list[Event]:
    answer = httpx.post(f"{service.url}/v1/chat", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    events = parse(answer.content)
    check(events, dense=False)
    return events


def own(server: Server) -> dict[str, Any]:
    """Return what the server itself answers, unstreamed."""
    answer = httpx.post(f"{server.url}/chat/completions", json=ASKED, timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_the_text_is_the_servers_own(both: Both) -> None:
    """What is streamed, put together, is what the server answers unstreamed; a character of three tokens is whole."""
    said = own(both.server)["choices"][0]["message"]["content"]
    assert said == TEXT
    events = ask(both.service, **ASKED, chunk="none")
    assert text(events) == said
    assert [event.event for event in events] == ["start", *["delta"] * (len(events) - 2), "done"]
    assert len(events) > 10
    assert events[-1].json()["finish_reason"] == "stop"


def test_usage(both: Both) -> None:
    """Usage is the server's own where it sends it in a stream, else estimated."""
    usage = ask(both.service, **ASKED)[-1].json()["usage"]
    if both.kind.usage:
        assert {name: usage[name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")} == {
            name: own(both.server)["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")
        }
        assert "estimated" not in usage
    else:
        assert usage["estimated"] is True
        assert usage["completion_tokens"] > 0


def test_the_limit_is_told(both: Both) -> None:
    """`max_tokens` reaches the server, and its `length` the client."""
    events = ask(both.service, **FOREVER | {"max_tokens": 3})
    assert text(events) == "".join(CHORUS[:3])
    assert events[-1].json()["finish_reason"] == "length"


def works(server: Server) -> bool:
    """Return whether the server computes: more than a tenth of half a second."""
    before = processor_time(server)
    time.sleep(0.5)  # what is measured
    return processor_time(server) - before > 0.05


@pytest.mark.parametrize("pressed", [True, False], ids=["stop", "leave"])
def test_a_stop_reaches_the_server(both: Both, pressed: bool) -> None:
    """The stop button, and leaving for good, end the server's work mid-answer; and it is free for the next."""
    with httpx.stream(
        "POST", f"{both.service.url}/v1/chat", json={**FOREVER, "on_disconnect": "cancel"}, timeout=60
    ) as answer:
        address = f"{both.service.url}{answer.headers['content-location']}"
        reading = answer.iter_raw()  # httpx hangs up if it is collected
        received = b""
        while received.count(b"event: delta") < 20:
            received += next(reading)
        assert works(both.server), "it has to be busy, for this to mean anything"
        if pressed:
            httpx.delete(address).raise_for_status()
    wait_until(lambda: not works(both.server))
    found = httpx.get(address, headers={"Accept": "application/json"}).json()
    assert (found["state"], found["finish_reason"]) == ("done", "cancelled")
    assert found["content"].startswith("".join(CHORUS * 4))
    assert text(ask(both.service, **ASKED)) == TEXT


def test_several_at_once(both: Both) -> None:
    """Four clients at once have four whole answers, though a server may take one after the other."""
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: ask(both.service, **ASKED), range(4)))
    assert [text(events) for events in answers] == [TEXT] * 4
    assert {events[-1].json()["finish_reason"] for events in answers} == {"stop"}


def test_an_unknown_model(both: Both) -> None:
    """A model that the server does not have is the client's error, told before any stream; some never look."""
    answer = httpx.post(f"{both.service.url}/v1/chat", json=ASKED | {"model": "nope"}, timeout=60)
    if both.kind.unknown is None:
        assert (answer.status_code, text(parse(answer.content))) == (200, TEXT)
    else:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == both.kind.unknown, error
        assert "nope" in error["message"]


@pytest.fixture
def responses(both: Both, start_service: Start) -> Server:
    """Our service with the server's Responses as the upstream."""
    return start_service(both.server, upstream="openai-responses")


only_vllm = pytest.mark.parametrize("both", [VLLM], indirect=True, ids=["vllm"])


@only_vllm
def test_responses(both: Both, responses: Server) -> None:
    """Over Responses, the text, the usage and the limit are what they are over chat completions."""
    events = ask(responses, **ASKED, chunk="none")
    assert text(events) == TEXT
    end = events[-1].json()
    assert end["finish_reason"] == "stop"
    assert end["usage"]["total_tokens"] == own(both.server)["usage"]["total_tokens"]
    limited = ask(responses, **FOREVER | {"max_tokens": 3})
    assert text(limited) == "".join(CHORUS[:3])
    assert limited[-1].json()["finish_reason"] == "length"


@only_vllm
def test_a_stop_reaches_responses(both: Both, responses: Server) -> None:
    """The stop button ends the server's work there, too."""
    made = httpx.post(f"{responses.url}/v1/chat", json=FOREVER, headers={"Accept": "application/json"}).json()
    wait_until(lambda: works(both.server))
    httpx.delete(responses.url + made["url"]).raise_for_status()
    wait_until(lambda: not works(both.server))


@only_vllm
def test_an_unknown_model_of_responses(both: Both, responses: Server) -> None:
    """What the server refuses there is the client's error as well."""
    answer = httpx.post(f"{responses.url}/v1/chat", json=ASKED | {"model": "nope"}, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), answer.text
