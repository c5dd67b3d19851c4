"""Chromium, for tests that want to know what a browser makes of it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from tests.real.processes import Server, stats
from tests.real.proxy import Proxy
from tests.waiting import wait_until

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_PAGE = '<!DOCTYPE html><meta charset="utf-8"><div id="root"></div><script src="/page.js"></script>'

expect.set_options(timeout=30_000)  # milliseconds; its own five seconds are not many on a busy machine


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Debian's Chromium, with a profile of its own that is thrown away with it."""
    binary = shutil.which("chromium")
    assert binary is not None, "apt-get install --no-install-recommends chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Door(Proxy):
    """A proxy that can also be shut for a while."""

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Break every connection, and refuse new ones on the same port."""
        address, port = self._server.sockets[0].getsockname()
        self._call(self._server.close)
        self.cut(reset=True)
        try:
            yield
        finally:
            opening = asyncio.start_server(self._accept, address, port)
            self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(30)

    def requests(self, start: str) -> int:
        """Return how many requests began with *start*, as in `GET /v1/streams/`."""
        return sum(head.startswith(start) for head in self.heads)


@contextmanager
def opened(browser: Browser, door: Door, script: str, **known: Any) -> Iterator[Page]:
    """Open a page of the service's own origin that runs *script*, with *known* as its globals.

    Whatever is thrown on it is a failure.
    """
    thrown: list[str] = []
    with browser.new_context() as context:
        context.on("weberror", lambda error: thrown.append(str(error.error)))
        context.add_init_script("".join(f"window.{name} = {json.dumps(value)};" for name, value in known.items()))
        context.route("**/page", lambda route: route.fulfill(body=_PAGE, content_type="text/html"))
        context.route("**/page.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
        yield tab(context, door)
    assert thrown == []


def tab(context: BrowserContext, door: Door) -> Page:
    """Open the page of `opened` once more."""
    page = context.new_page()
    page.goto(f"{door.url}/page")
    return page


@contextmanager
def nothing_done(service: Server, simulator: Server, code: str, times: int = 1) -> Iterator[None]:
    """Expect so many refusals of a kind, and that none of what is asked meanwhile gets as far as the upstream."""
    asked, refused = stats(simulator)["requests"], service.text().count(code)
    yield
    wait_until(lambda: service.text().count(code) >= refused + times)
    assert service.text().count(code) == refused + times
    assert stats(simulator)["requests"] == asked
