"""A thousand cuts: the AI SDK's chats over the two transports that resume exactly, in Node and in React in Chromium.

Each response is broken at a random byte, before the real nginx. `CUTS_SEED` repeats where.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.real.browser import Door, opened
from tests.real.node import CLIENTS, Installed
from tests.real.processes import Server, launch, launch_nginx, stats
from tests.real.proxy import Cut, Link

pytestmark = pytest.mark.real

SEED = int(os.environ.get("CUTS_SEED") or 1)
CUTS = 300  # in Node; in Chromium a third less
CHATS = 36  # in a round; there are as many rounds as it takes
AT_ONCE = 6  # as many connections as a browser has to one host
WAIT = 120_000  # milliseconds for so many chats at once, the first of which have all the cuts
TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! A stream belongs to the server, not to a connection. " * 12
# As it comes, and as it comes when the service or the reader has no time: at different speeds, in different pieces.
BODIES = [
    {"model": f"{model}&first=0", "chunk": chunk}
    for model, chunk in (
        ("sim-echo?size=3&rate=0", "none"),
        ("sim-echo?size=3&rate=2000", "none"),
        ("sim-echo?size=3&rate=2000", "auto"),
        ("sim-echo?size=3&rate=500", "word"),
        ("reasoning?rate=1000", "none"),
    )
]
# Octets: of a response's head, and of what comes after it before the cut.
HEAD = 1200
MOST = 1800


class Shears(Door):
    """A door that breaks each response somewhere, at a byte that *chance* says, until there were *wanted* cuts.

    The first *spared* octets of a response to a POST pass.
    """

    def __init__(self, url: str, chance: random.Random, wanted: int, spared: int) -> None:
        super().__init__(url)
        self._chance = chance
        self._wanted = wanted
        self._spared = spared

    def asked(self, link: Link, head: bytes) -> None:
        if self.cuts < self._wanted:
            least = self._spared if head.startswith(b"POST") else 1
            octets = len(link.received) + self._chance.randrange(least, HEAD + MOST)
            link.cut = Cut(octets=octets, reset=self._chance.random() < 0.5)
        else:
            link.cut = None


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    package = Installed(tmp_path_factory.mktemp("page"))
    package.add("cut-transports.mjs")
    return package


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    service = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=1, retry_wait=0.01)
    server = launch_nginx(tmp_path_factory.mktemp("nginx"), service)
    yield server
    server.stop()
    service.stop()


@pytest.fixture(scope="module")
def uncut(package: Installed, nginx: Server) -> list[Any]:
    """The messages of answers that are not cut, one for each of BODIES."""
    found = package.run("cut-chats", **plan("own", "uncut"), api=f"{nginx.url}/v1/ai-sdk/chat", chats=len(BODIES))
    assert {answer["status"] for answer in found} == {"ready"}
    return [answer["messages"] for answer in sorted(found, key=lambda answer: answer["number"])]


def plan(transport: str, name: str) -> dict[str, Any]:
    return {"transport": transport, "name": f"chat {SEED} {name}", "text": TEXT, "bodies": BODIES, "atOnce": AT_ONCE}


def said(messages: list[Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message["parts"]) for message in messages]


@pytest.mark.parametrize("place", ["node", "chromium"])
@pytest.mark.parametrize("transport", ["workflow", "own"])
def test_cuts(
    request: pytest.FixtureRequest,
    package: Installed,
    nginx: Server,
    simulator: Server,
    uncut: list[Any],
    transport: str,
    place: str,
) -> None:
    """Wherever connections break, each chat ends with the answer as it is without a cut: each part once, paid once.

    The transport of `@ai-sdk/workflow` gives up without the head of the response to its POST, so that head passes.
    """
    asked = stats(simulator)["requests"]
    wanted = CUTS if place == "node" else CUTS * 2 // 3
    chance = random.Random(f"{SEED} {transport} {place}")
    run: Callable[..., list[Any]] = in_node if place == "node" else in_chromium
    rounds = 0
    with Shears(nginx.url, chance, wanted, spared=HEAD if transport == "workflow" else 1) as door:
        while door.cuts < wanted:  # where time is short, events are merged, and one chat has fewer cuts
            rounds += 1
            found = run(request, package, door, plan(transport, f"{place} {rounds}"))
            resumed = sum(answer["resumed"] for answer in found)
            print(f"\nCUTS_SEED={SEED}, round {rounds}: {door.cuts} cuts, {resumed} resumed by the page")
            assert len({answer["number"] for answer in found}) == CHATS
            for answer in found:
                assert (answer["status"], answer.get("error")) == ("ready", None)
                assert said(answer["messages"]) == said(uncut[answer["number"] % len(BODIES)])
    assert stats(simulator)["requests"] == asked + rounds * CHATS


def in_node(request: pytest.FixtureRequest, package: Installed, door: Door, plan: dict[str, Any]) -> list[Any]:
    return package.run("cut-chats", **plan, api=f"{door.url}/v1/ai-sdk/chat", chats=CHATS)


def in_chromium(request: pytest.FixtureRequest, package: Installed, door: Door, plan: dict[str, Any]) -> list[Any]:
    browser: Browser = request.getfixturevalue("browser")
    script = package.bundle((CLIENTS / "cut-page.jsx").read_text())
    with opened(browser, door, script, PLAN=plan) as page:
        for first in range(0, CHATS, AT_ONCE):
            page.evaluate("(numbers) => window.begin(numbers)", list(range(first, first + AT_ONCE)))
            page.wait_for_function("(count) => window.ended.length >= count", arg=first + AT_ONCE, timeout=WAIT)
        found: list[Any] = page.evaluate("window.ended")
    return found
