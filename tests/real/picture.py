"""README's picture: the playground, after it dropped its connection mid-answer and resumed the stream.

python -m tests.real.picture deploy/playground.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, Page, expect

from tests.real.browser import chromium
from tests.real.processes import Server, launch

_SIZE = 1280, 720


def take(browser: Browser, service: Server, path: Path) -> None:
    """Ask in the playground, drop the connection twice, and photograph the stream when it goes on."""
    width, height = _SIZE
    with browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="light", bypass_csp=True
    ) as context:
        page = context.new_page()
        page.goto(service.url)
        page.locator("#model").fill("sim-gpt?rate=20&answer=stream")
        page.locator("#prompt").fill("How does a stream reach its reader?")
        page.get_by_role("button", name="Send").click()
        for times in (1, 2):
            _wait_for_text(page, 250 * times)
            page.get_by_role("button", name="Drop the connection").click()
            expect(page.locator("#resumed")).to_have_text(f"{times}×")
        _wait_for_text(page, 520)
        path.write_bytes(page.screenshot())
        page.get_by_role("button", name="Stop").click(force=True)  # a slow page may have the whole answer by now


def _wait_for_text(page: Page, characters: int) -> None:
    page.wait_for_function("(least) => document.querySelector('.answer').textContent.length > least", arg=characters)


if __name__ == "__main__":
    with TemporaryDirectory() as folder, chromium() as browser:
        service = launch(Path(folder), reconnect_ms=300)
        try:
            take(browser, service, Path(sys.argv[1]))
        finally:
            service.stop()
