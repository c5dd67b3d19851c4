"""Clients that hang up, in every dialect: whether the stream goes on without them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.types import Message, Scope
from structlog.typing import FilteringBoundLogger

from app.events import Delta
from tests.edge.service import Service
from tests.script import forever

pytestmark = pytest.mark.anyio

MESSAGES = [{"role": "user", "content": "hi"}]
PARTS = [{"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}]
# By dialect: the path, the body, and whether a client that has the answer's head can come back.
DIALECTS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "native": ("/v1/chat", {"prompt": "hi"}, True),
    "openai": ("/v1/chat/completions", {"messages": MESSAGES, "stream": True}, False),
    "responses": ("/v1/responses", {"input": "hi", "stream": True}, False),
    "responses, whole": ("/v1/responses", {"input": "hi"}, False),
    "openai, whole": ("/v1/chat/completions", {"messages": MESSAGES}, False),
    "ai-sdk": ("/v1/ai-sdk/chat", {"id": "chat-1-of-a-page", "messages": PARTS}, True),
    "ai-sdk, guessable": ("/v1/ai-sdk/chat", {"id": "demo", "messages": PARTS}, False),
    "ag-ui": ("/v1/ag-ui", {"threadId": "t", "runId": "r", "messages": MESSAGES}, False),
}


class Client:
    """Asks a service, and hangs up when it is told to."""

    def __init__(self, service: Service, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        scope: Scope = {"type": "http", "method": "POST", "path": path, "headers": raw, "query_string": b""}
        self._messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._left = asyncio.Event()
        self.begun = asyncio.Event()
        self._answer = asyncio.create_task(service.app(scope, self._receive, self._send))

    async def leave(self) -> None:
        self._left.set()
        await self._answer

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            self.begun.set()


async def left(log: FilteringBoundLogger, dialect: str, *, begun: bool, **more: Any) -> bool:
    """Hang up before or after the answer has *begun*, and return whether the stream goes on."""
    path, body, _ = DIALECTS[dialect]
    asked = asyncio.Event()

    async def wait() -> None:
        asked.set()
        await forever()

    service = Service(log, *([(Delta("a"),)] if begun else []), wait, grace=60, **more.pop("service", {}))
    client = Client(service, path, {**body, **more.pop("body", {})}, more.pop("headers", {}))
    async with asyncio.timeout(30):
        await asked.wait()
        if begun and not dialect.endswith("whole"):
            await client.begun.wait()
        await client.leave()
        await asyncio.sleep(0.01)
        goes_on = service.hub.live == 1
        assert goes_on is not service.source.closed.is_set()
        await service.hub.drain(0)
    return goes_on


def saying(dialect: str, policy: str) -> dict[str, Any]:
    """Return what a request in *dialect* has more that says what happens when its reader leaves."""
    if dialect.startswith(("openai", "responses")):
        return {"headers": {"X-On-Disconnect": policy}}
    field = {"on_disconnect": policy}
    return {"body": {"forwardedProps": field} if dialect == "ag-ui" else field}


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_before_the_answer_begins(log: FilteringBoundLogger, dialect: str) -> None:
    """No client can come back to a stream whose id it does not have, so the stream ends."""
    assert not await left(log, dialect, begun=False)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_after_the_answer_has_begun(log: FilteringBoundLogger, dialect: str) -> None:
    """The stream goes on for the grace if its client can come back by what it has."""
    assert await left(log, dialect, begun=True) is DIALECTS[dialect][2]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_says_so(log: FilteringBoundLogger, dialect: str, begun: bool) -> None:
    """An idempotency key, the request's own policy, or the operator's, keeps the stream in every dialect."""
    own = saying(dialect, "grace:60")
    assert await left(log, dialect, begun=begun, headers={"Idempotency-Key": "k"})
    assert await left(log, dialect, begun=begun, **own)
    assert await left(log, dialect, begun=begun, service={"grace_is_set": True})


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_who_says_cancel(log: FilteringBoundLogger, dialect: str) -> None:
    """`cancel` ends the stream, although its client could come back."""
    own = saying(dialect, "cancel")
    own["headers"] = {**own.get("headers", {}), "Idempotency-Key": "k"}
    assert not await left(log, dialect, begun=True, **own)


async def test_a_run_that_is_named(log: FilteringBoundLogger) -> None:
    """TanStack's client names its run in a header, and can come back to it, like any client with a key."""
    for begun in (True, False):
        assert await left(log, "ag-ui", begun=begun, headers={"X-Run-Id": "run-1"})


async def test_a_stream_without_a_reader(log: FilteringBoundLogger) -> None:
    """A 201 is the stream's id, so the stream waits for its reader."""
    service = Service(log, forever, grace=60)
    client = Client(service, "/v1/chat", {"prompt": "hi"}, {"Accept": "application/json"})
    async with asyncio.timeout(30):
        await client.begun.wait()
        await client.leave()
        await asyncio.sleep(0.01)
        assert service.hub.live == 1
        await service.hub.drain(0)
