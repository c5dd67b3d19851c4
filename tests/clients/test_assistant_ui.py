"""assistant-ui's runtime for the AI SDK, in Chromium, with its own transport and with this service's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.clients.packages import package
from tests.real.browser import Door, opened
from tests.real.frameworks import forecasting
from tests.real.node import NODE
from tests.real.processes import ROOT, Server, launch, stats
from tests.real.proxy import Cut

pytestmark = pytest.mark.real

PACKAGES = ("@assistant-ui/react@0.15.22", "@assistant-ui/react-ai-sdk@1.4.12")
BESIDE = ("react@19.3.1", "react-dom@19.3.1", "ai@7.0.173", "esbuild@0.28.2")
LINE = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! A stream belongs to the server, not to a connection. " * 3
SLOW = "sim-echo?rate=8&first=0"


@pytest.fixture(scope="module")
def script() -> str:
    modules = package(*PACKAGES, *BESIDE).parent
    page = Path(__file__).parent / "assistant-ui-page.jsx"
    options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="development"', "--loader:.js=jsx"]
    options.append(f"--alias:chat-sse-client={ROOT / 'app' / 'client'}")
    command = [NODE, str(modules / "esbuild" / "bin" / "esbuild"), str(page), *options]
    env = {**os.environ, "NODE_PATH": str(modules)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=50, retry_wait=0.01)
    yield server
    server.stop()


def ask(page: Page, text: str) -> None:
    page.fill("textarea", text)
    page.press("textarea", "Enter")


def whole(page: Page, text: str) -> None:
    """Wait for the end of the answer, which is there once, and whole."""
    expect(page.locator(".assistant")).to_have_count(1)
    page.wait_for_function("document.querySelector('.assistant').textContent")
    expect(page.locator("output")).to_have_count(0)
    assert page.locator(".assistant").text_content() == text


@pytest.mark.parametrize("transport", ["assistant-ui", "chat-sse"])
def test_answer(browser: Browser, service: Server, script: str, transport: str) -> None:
    """It shows the whole answer."""
    with Door(service.url) as door, opened(browser, door, script, TRANSPORT=transport, MODEL=SLOW) as page:
        ask(page, LINE)
        whole(page, LINE)
        assert page.evaluate("window.failed") is None


def test_cuts(browser: Browser, service: Server, script: str, simulator: Server) -> None:
    """With `ChatSseTransport` no cut shows: one text, one generation."""
    asked = stats(simulator)["requests"]
    with Door(service.url) as door, opened(browser, door, script, TRANSPORT="chat-sse", MODEL=SLOW) as page:
        door.plan(Cut(octets=octets) for octets in range(800, 1600, 100))
        ask(page, LINE)
        whole(page, LINE)
        assert door.requests("POST /v1/ai-sdk/chat") == 1
    assert stats(simulator)["requests"] == asked + 1


def test_reload(browser: Browser, service: Server, script: str, simulator: Server) -> None:
    """A page that is reloaded in the middle of an answer reads all of it, and nothing is asked again."""
    asked = stats(simulator)["requests"]
    with Door(service.url) as door, opened(browser, door, script, TRANSPORT="assistant-ui", MODEL=SLOW) as page:
        ask(page, LINE)
        page.wait_for_function("document.querySelector('.assistant')?.textContent.length > 20")
        page.reload()
        whole(page, LINE)
        assert door.requests("POST /v1/ai-sdk/chat") == 1
    assert stats(simulator)["requests"] == asked + 1


def test_a_tool(browser: Browser, tmp_path: Path, script: str) -> None:
    """The page's tool is called, and its output answered."""
    known = {"TRANSPORT": "assistant-ui", "MODEL": "m"}
    with forecasting(tmp_path) as service, Door(service.url) as door, opened(browser, door, script, **known) as page:
        ask(page, "Rome?")
        whole(page, "It is 21 degrees.")
        assert page.evaluate("window.called") == ["Rome"]
