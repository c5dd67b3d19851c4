"""The playground in Chromium, for the tests of it: opening it, asking in it, and reading what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from playwright.sync_api import Browser, Locator, Page, expect

from tests.real.processes import Server


@contextmanager
def playground(browser: Browser, service: Server) -> Iterator[Page]:
    """The playground, opened. Whatever the browser complains about, violations of its policy included, is a failure."""
    complaints: list[str] = []
    with browser.new_context() as context:
        context.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.goto(service.url)
        yield page
    assert [
        complaint for complaint in complaints if "status of" not in complaint
    ] == []  # a refusal is no fault of ours


def ask(page: Page, prompt: str, model: str, transport: str = "fetch", **options: str) -> None:
    page.fill("#prompt", prompt)
    page.fill("#model", model)
    for name, value in {"transport": transport, **options}.items():
        page.select_option(f"#{name}", value)
    page.click("#send")


def ended(page: Page) -> str:
    """Wait for the verdict, and return the answer that the page shows."""
    expect(part(page, "whole")).to_have_attribute("data-same", "yes")
    return answer(page)


def part(page: Page, name: str) -> Locator:
    """A part of the conversation's newest turn."""
    return page.locator(f".turn:last-child .{name}")


def answer(page: Page) -> str:
    return part(page, "answer").text_content() or ""


def snapshot(page: Page) -> dict[str, Any]:
    origin, _, stream_id = page.url.partition("/?stream=")
    found: dict[str, Any] = httpx.get(f"{origin}/v1/streams/{stream_id}", headers={"Accept": "application/json"}).json()
    return found
