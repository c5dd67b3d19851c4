"""`/docs` in Chromium, and each of its commands in a shell."""

from __future__ import annotations

import html
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import httpx
import pytest
from playwright.sync_api import Browser, Page, ViewportSize

from app.edge.access.api_keys import digest
from tests.real import node
from tests.real.processes import Server, launch

pytestmark = pytest.mark.real

KEY, TOKEN = "csk_for-these-tests-alone", "the-metrics-token-of-these-tests"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    keys = {"api_keys": f"tests:{digest(KEY)}", "metrics_token": TOKEN}
    server = launch(tmp_path_factory.mktemp("service"), model="sim-gpt?tokens=3&rate=0&first=0", **keys)
    yield server
    server.stop()


def open_page(browser: Browser, service: Server, complaints: list[str]) -> Page:
    page = browser.new_page()
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{service.url}/docs")
    return page


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1440, "dark")])
def test_it_fits(browser: Browser, service: Server, width: int, scheme: Literal["light", "dark"]) -> None:
    """In each size and theme nothing sticks out, and neither axe-core nor the browser has a complaint."""
    complaints: list[str] = []
    page = open_page(browser, service, complaints)
    try:
        page.set_viewport_size(ViewportSize(width=width, height=900))
        page.emulate_media(color_scheme=scheme)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.evaluate((node.install() / "axe-core" / "axe.min.js").read_text())
        found = page.evaluate("axe.run()")
        assert len(found["passes"]) > 20
        assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (max(ground) < 64) == (scheme == "dark")
        assert complaints == []
    finally:
        page.close()


def test_by_keyboard(browser: Browser, service: Server) -> None:
    """The first Tab leads past the contents, each link of these to its endpoint, and Enter opens what is folded."""
    page = open_page(browser, service, [])
    try:
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.parentElement.open")
        page.locator('nav a[href="#openRun"]').focus()
        page.keyboard.press("Enter")
        top = page.evaluate("document.getElementById('openRun').getBoundingClientRect().top")
        assert 0 <= top < 200
    finally:
        page.close()


def test_every_command_works(service: Server, tmp_path: Path) -> None:
    """Each command of the page, sent as it stands except for address and ids, is answered as the description says."""
    page = httpx.get(f"{service.url}/docs").text
    description = httpx.get(f"{service.url}/openapi.json").json()
    authorized = {"Authorization": f"Bearer {KEY}"}
    started = httpx.post(f"{service.url}/v1/chat", json={"prompt": "hi"}, headers=authorized)
    commands = re.findall(r'<h3 id="([^"]+)">.*?<pre><code>(curl .*?)</code></pre>', page, re.DOTALL)
    paths = {path: item for path, item in description["paths"].items() if not path.startswith("/playground/")}
    ids = [operation["operationId"] for item in paths.values() for operation in _methods(item)]
    assert sorted(name for name, _ in commands) == sorted(ids)
    answered = {}
    # What removes a stream is last.
    for name, shown in sorted(commands, key=lambda each: each[0].startswith("delete")):
        line = html.unescape(shown).replace("http://localhost:8000", service.url).replace("gpt-4o-mini", "sim-gpt")
        line = line.replace("l3m8HXRrOpRkQgtlBzNDWg", started.headers["X-Stream-Id"])
        line = line.replace("/v1/models/sim-gpt", "/v1/models/sim-gpt%3Ftokens%3D3%26rate%3D0%26first%3D0")
        done = subprocess.run(
            ["bash", "-c", line.replace("curl ", "curl -s -o answer -w '%{http_code}' ", 1)],
            cwd=tmp_path,
            env={"CHAT_SSE_KEY": KEY, "METRICS_TOKEN": TOKEN, "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        answered[name] = done.stdout
    assert {name: status for name, status in answered.items() if status not in ("200", "204")} == {}


def _methods(item: dict[str, dict[str, str]]) -> Iterator[dict[str, str]]:
    yield from (operation for method, operation in item.items() if method != "parameters")
