"""Open WebUI, with the service as its OpenAI connection: by its own API, and by its page in Chromium."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from tests.clients.offline import ENVIRONMENT
from tests.ports import free_port
from tests.real.processes import Process, Server, launch, log_file, stats
from tests.servers.environments import environment
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(sys.version_info >= (3, 13), reason="Open WebUI runs on Python 3.11 and 3.12"),
]

TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! A stream belongs to the server, not to a connection."
MODEL = "sim-echo"
# Nothing is asked of a hub, no model of its own is loaded, and of the service only the answer.
SETTINGS = {
    "WEBUI_AUTH": "False",
    "WEBUI_SECRET_KEY": "a key of forty characters for these tests",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "ENABLE_VERSION_UPDATE_CHECK": "False",
    "RAG_EMBEDDING_ENGINE": "openai",
    "ENABLE_OLLAMA_API": "False",
    "ENABLE_TITLE_GENERATION": "False",
    "ENABLE_TAGS_GENERATION": "False",
    "ENABLE_FOLLOW_UP_GENERATION": "False",
}


@pytest.fixture(scope="module")
def service(simulator: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def webui(service: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an Open WebUI without users, which takes a minute to start on a slow machine."""
    folder = tmp_path_factory.mktemp("webui")
    url = f"http://127.0.0.1:{(port := free_port())}"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": "", "HOME": str(folder), "DATA_DIR": str(folder), **SETTINGS}
    env |= {"OPENAI_API_BASE_URL": f"{service.url}/v1", "OPENAI_API_KEY": "csk_test", **ENVIRONMENT}
    command = [str(environment("open-webui") / "open-webui"), "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, log_file(folder, "webui"), env)
    try:
        process.awaits("Uvicorn running on|Scheduler worker started", 300)
        wait_until(lambda: answers(url))
        yield url
    finally:
        process.stop()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def client(webui: str) -> Iterator[httpx.Client]:
    """A client of its API, with the token that it gives to everyone."""
    with httpx.Client(base_url=webui, timeout=60) as client:
        token = client.post("/api/v1/auths/signin", json={"email": "", "password": ""}).json()["token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def test_models(client: httpx.Client, service: Server) -> None:
    """It lists the service's models."""
    listed = {model["id"] for model in client.get("/api/models").json()["data"]}
    assert {model["id"] for model in httpx.get(f"{service.url}/v1/models").json()["data"]} <= listed


@pytest.mark.parametrize("stream", [True, False])
def test_answer(client: httpx.Client, stream: bool) -> None:
    """Its own API for completions gives the whole answer, streaming and not."""
    body = {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": TEXT}]}
    client.get("/api/models")  # it asks for no model that it has not listed
    answer = client.post("/api/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if stream:
        *chunks, end = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
        assert end == "[DONE]"
        choices: list[Any] = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
        assert "".join(choice["delta"].get("content") or "" for choice in choices) == TEXT
    else:
        choices = answer.json()["choices"]
        assert choices[0]["message"]["content"] == TEXT
    assert choices[-1]["finish_reason"] == "stop"


def test_page(webui: str, browser: Browser, simulator: Server) -> None:
    """A chat in its page shows the whole answer, for which the upstream was asked once."""
    before = stats(simulator)["requests"]
    with browser.new_context(base_url=webui) as context:
        page = context.new_page()
        page.goto(f"/?models={MODEL}")
        page.get_by_role("button", name="Okay, Let's Go!").click()  # it begins with its release notes
        page.locator("#chat-input").click()
        page.keyboard.insert_text(TEXT)
        page.keyboard.press("Enter")
        expect(page.locator("#response-content-container")).to_have_text(TEXT)
        expect(page.locator("#response-message-model-name")).to_have_text(MODEL)
    assert stats(simulator)["requests"] == before + 1
