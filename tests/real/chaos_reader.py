"""A reader that does what browsers and careful programs do, and keeps what it was given.

It comes back after any cut with the last id it has seen, as an EventSource does. A POST is repeated with its
idempotency key until it has an answer.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any, Protocol

import aiohttp

from tests.real import node
from tests.real.clients.sse import Event, parse

# Seconds without an event after which a reader counts as hanging.
SILENCE = 60.0
# aiohttp has the last one for a connection that was closed before its answer was asked for.
CUT = (aiohttp.ClientError, OSError, RuntimeError)
_RETRY = re.compile(rb"^retry: (\d+)$", re.MULTILINE)


class Setting(Protocol):
    """Where readers read: from *url*, over *session*. `lose` is told what must not be."""

    url: str
    session: aiohttp.ClientSession
    counts: Counter[str]

    def lose(self, what: str) -> None: ...


class Reader:
    """One reader of one stream: what it has so far, and what it made of the rest."""

    def __init__(self, load: Setting, address: str = "", *, before: Sequence[Event] = ()) -> None:
        self.load = load
        self.address = address
        self.before = list(before)  # what it did not read itself, but was told
        self.events: list[Event] = []
        self.refused = ""  # the code of a failure that came instead of a stream
        self.gone_at = 0.0  # when it was told that there is no such stream, as time.time() has it
        self.heard_at = 0.0  # when the last event came, likewise
        self.silence = 0.0
        self._heard = time.monotonic()
        self._retry = 1.0
        self._bound: asyncio.Timeout

    @property
    def ended(self) -> bool:
        return bool(self.events) and self.events[-1].event in ("done", "error")

    @property
    def ending(self) -> str:
        """The finish reason, or the error's code, or nothing."""
        if not self.ended:
            return self.refused
        end = self.events[-1].json()
        return str(end["error"]["code"] if "error" in end else end["finish_reason"])

    @property
    def position(self) -> str:
        seen = self.events or self.before
        return seen[-1].id if seen else ""

    async def follow(self, leaves: Sequence[float] = (), **post: Any) -> None:
        """Read to the end; hang up in between, once after each of *leaves* seconds; first *post*, if that is given."""
        times = [*leaves][::-1]
        self._heard = time.monotonic()
        try:
            async with asyncio.timeout(SILENCE) as self._bound:
                while not self.ended and not self.refused:
                    await self._once(times.pop() if times else None, post)
        except TimeoutError:
            self.load.lose(f"{self.address}: hangs after {self.position}")

    async def watch(self) -> None:
        """Let a real EventSource read it to the end."""
        self._heard = time.monotonic()
        try:
            async with (
                asyncio.timeout(SILENCE) as self._bound,
                aclosing(node.lines("eventsource", url=self.address)) as lines,
            ):
                async for line in lines:
                    if "data" in line:
                        self._take([Event(line["id"], line["event"], line["data"])])
                    elif line["state"] == 0:  # connecting again
                        self.load.counts["resumes"] += 1
                    elif line["code"] == 404:
                        self.refused, self.gone_at = "unknown_stream", time.time()
                    elif line["code"] != 204:
                        self.load.lose(f"{self.address}: EventSource gave up on {line['code']} after {self.position}")
        except TimeoutError:
            self.load.lose(f"{self.address}: EventSource hangs after {self.position}")

    async def _once(self, leave_after: float | None, post: dict[str, Any]) -> None:
        """Make one request and read its answer, to its end or for *leave_after* seconds."""
        wait = self._retry
        try:
            async with asyncio.timeout(leave_after):
                if not self.address:
                    wait = await self._post(**post)
                else:
                    wait = await self._get()
        except TimeoutError:
            wait = 0.05
        except CUT:
            self.load.counts["cuts"] += 1
        if not self.ended and not self.refused:
            await asyncio.sleep(wait)

    async def _post(self, **request: Any) -> float:
        async with self.load.session.post(f"{self.load.url}/v1/chat", **request) as answer:
            if answer.status == 201:
                self.address = f"{self.load.url}{(await answer.json())['url']}"
                return 0
            if answer.status != 200:
                return self._failed(answer, (await answer.json())["error"])
            self.address = f"{self.load.url}{answer.headers['Content-Location']}"
            await self._read(answer)
            return self._retry

    async def _get(self) -> float:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
        if self.position:
            headers["Last-Event-ID"] = self.position
            self.load.counts["resumes"] += 1
        async with self.load.session.get(self.address, headers=headers) as answer:
            if answer.status == 200:
                await self._read(answer)
            elif answer.status == 404:
                self.refused, self.gone_at = "unknown_stream", time.time()
            else:
                # An EventSource would never come back.
                self.refused = str(answer.status)
                self.load.lose(f"{self.address}: {answer.status} after {self.position!r} {await answer.text()}")
            return self._retry

    def _failed(self, answer: aiohttp.ClientResponse, error: dict[str, Any]) -> float:
        """Decide what to do about a POST that was refused; return in how many seconds to repeat it."""
        if answer.status == 503:
            self.load.counts[f"503 {error['code']}"] += 1
            self._hear()
            return min(float(answer.headers["Retry-After"]), 1)
        self.refused = error["code"]
        return 0

    async def _read(self, answer: aiohttp.ClientResponse) -> None:
        received = b""
        async for data in answer.content.iter_any():
            whole, blank, received = (received + data).rpartition(b"\n\n")
            if blank:
                self._take(parse(whole + blank))
                self._reconnect(whole)
        self._reconnect(received)

    def _take(self, events: list[Event]) -> None:
        self.events += events
        self._hear()

    def _hear(self) -> None:
        now = time.monotonic()
        self.heard_at = time.time()
        self.silence = max(self.silence, now - self._heard)
        self._heard = now
        self._bound.reschedule(asyncio.get_running_loop().time() + SILENCE)

    def _reconnect(self, data: bytes) -> None:
        if found := _RETRY.findall(data):
            self._retry = int(found[-1]) / 1000
