"""The access control and its answers: who is admitted, what is told of limits, how an EventSource is refused."""

from __future__ import annotations

from collections.abc import Mapping

import httpx
import httpx_sse
import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.authentication import AccessMiddleware, Credentials
from app.edge.access.budgets import DailyBudgets
from app.edge.access.origins import Origins
from app.edge.access.quota import Quota, Standing
from app.edge.access.rates import Counts, MemoryCounts
from app.edge.context import request_context
from app.edge.error_responses import crashed, failed, unrouted
from app.edge.middleware import ContextMiddleware
from app.errors import (
    BudgetSpent,
    Draining,
    Forbidden,
    Overloaded,
    RateExceeded,
    StreamError,
    TooManyReaders,
    Unauthenticated,
    UnknownStream,
)
from app.journal.budgets import MemoryBudgets
from app.meter import Meter
from app.request import Allowance, Principal

pytestmark = pytest.mark.anyio

STREAM = "/v1/streams/AAAAAAAAAAAAAAAAAAAAAA"
EVENTS = {"Accept": "text/event-stream"}


class Names(Credentials):
    """The principal is the one that `Authorization` names, with one request a minute; without the header, none."""

    async def principal(self, scope: Scope) -> Principal:
        name = dict(scope["headers"]).get(b"authorization")
        if name is None:
            raise Unauthenticated
        return Principal(name.decode(), Allowance(requests=1))


class Budgeted(Names):
    """The same, with tokens to spend."""

    async def principal(self, scope: Scope) -> Principal:
        return Principal((await super().principal(scope)).name, Allowance(tokens=1))


class Noted(Quota):
    """A quota that notes what it is asked, and answers *standing*."""

    def __init__(self, standing: Standing) -> None:
        super().__init__(Counts(MemoryCounts()), DailyBudgets(MemoryBudgets()), 0)
        self.standing = standing
        self.asked: list[tuple[str, bool]] = []

    async def admit(self, principal: Principal, *, spends: bool) -> Standing:
        self.asked.append((principal.name, spends))
        return self.standing


class OneEndpoint:
    """A service of one endpoint, which answers with the principal's name, or raises *error*."""

    def __init__(
        self,
        log: FilteringBoundLogger,
        quota: Quota,
        error: Exception | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.reached = 0
        self.error = error
        self.meter = Meter()
        methods = ["GET", "POST", "DELETE"]
        app = Starlette(
            routes=[Route(path, self.endpoint, methods=methods) for path in ("/healthz", "/v1/{path:path}")],
            exception_handlers={StreamError: failed, HTTPException: unrouted, Exception: crashed},
        )
        guarded = AccessMiddleware(app, credentials or Names(), quota, ["/healthz"])
        transport = httpx.ASGITransport(ContextMiddleware(guarded, Origins(), self.meter, log))
        self.client = httpx.AsyncClient(
            transport=transport, base_url="http://service", headers={"Authorization": "ann"}
        )

    async def endpoint(self, request: Request) -> Response:
        self.reached += 1
        if self.error is not None:
            raise self.error
        principal = getattr(request_context(request.scope), "principal", None)
        return JSONResponse(principal and principal.name)


@pytest.fixture
def quota() -> Quota:
    return Quota(Counts(MemoryCounts()), DailyBudgets(MemoryBudgets()), 0)


async def test_credentials(log: FilteringBoundLogger, quota: Quota) -> None:
    """A request without credentials gets 401, also at paths that do not exist, and is not counted."""
    service = OneEndpoint(log, quota)
    del service.client.headers["Authorization"]
    for path in ("/v1/chat", "/nowhere", "/healthz/", "/HEALTHZ", "//healthz", "/healthz/../v1/chat"):
        refused = await service.client.post(path)
        assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthenticated")
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert "RateLimit-Limit" not in refused.headers
    assert service.reached == 0
    assert service.meter.refused == {"unauthenticated": 6}
    service.client.headers["Authorization"] = "ann"
    assert (await service.client.post("/v1/chat")).json() == "ann"


async def test_public_paths(log: FilteringBoundLogger, quota: Quota) -> None:
    """Public paths ask for no credentials and are not limited."""
    service = OneEndpoint(log, quota)
    del service.client.headers["Authorization"]
    for _ in range(3):
        answer = await service.client.get("/healthz")
        assert (answer.status_code, answer.json()) == (200, None)
        assert "RateLimit-Limit" not in answer.headers


async def test_limits_are_told(log: FilteringBoundLogger, quota: Quota) -> None:
    """Every answer tells what is left, errors included; beyond that, a 429 tells when there is more."""
    service = OneEndpoint(log, quota)
    for name, error, status in (("ann", None, 200), ("bob", UnknownStream(), 404), ("cat", RuntimeError(), 500)):
        service.error, service.client.headers["Authorization"] = error, name
        answer = await service.client.get("/v1/any")
        assert answer.status_code == status
        assert (answer.headers["RateLimit-Limit"], answer.headers["RateLimit-Remaining"]) == ("1", "0")
    refused = await service.client.get("/v1/any")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
    assert refused.json()["error"]["retryable"] is True
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.headers["RateLimit-Reset"] == refused.headers["Retry-After"]
    assert refused.headers["RateLimit-Policy"] == "1;w=60"
    assert service.reached == 3
    assert service.meter.refused == {"unknown_stream": 1, "internal_error": 1, "rate_limited": 1}


async def test_stopping(log: FilteringBoundLogger) -> None:
    """Requests that stop a stream are left to their endpoint to count; requests that only look like them are not."""
    quota = Noted(Standing(RateExceeded(), {}))
    service = OneEndpoint(log, quota)
    chat = "/v1/ai-sdk/chat/x"
    response = "/v1/responses/x"
    stops = [("DELETE", path) for path in (STREAM, response, f"{chat}/stream")]
    stops += [("POST", f"{path}/cancel") for path in (STREAM, response, chat)]
    for method, path in stops:
        assert (await service.client.request(method, path)).json() == "ann"
    assert quota.asked == []
    similar = (STREAM, f"{STREAM}/cancel/x", f"{chat}/stream")
    for method, path in (("GET", f"{STREAM}/cancel"), ("DELETE", "/v1/other"), *(("POST", path) for path in similar)):
        assert (await service.client.request(method, path)).status_code == 429
    del service.client.headers["Authorization"]
    assert (await service.client.delete(STREAM)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "headers", "spends"),
    [
        ("POST", "/v1/chat", {}, True),
        ("POST", "/v1/chat", {"Last-Event-ID": ""}, True),
        ("POST", "/v1/chat", {"Last-Event-ID": "x-1"}, False),
        ("POST", "/v1/chat?lastEventId=x-1", {}, False),
        ("POST", "/v1/chat/completions", {"Last-Event-ID": "x-1"}, False),
        ("POST", "/v1/chat/completions?last_event_id=x-1", {}, False),
        ("POST", "/v1/chat/completions?last_event_id=", {}, True),
        ("POST", "/v1/ai-sdk/chat", {"Last-Event-ID": "x-1"}, False),
        ("POST", "/v1/ag-ui", {"Last-Event-ID": "x-1"}, False),
        ("POST", "/v1/other", {"Last-Event-ID": "x-1"}, True),
        ("GET", STREAM, {}, False),
        ("HEAD", STREAM, {}, False),
    ],
)
async def test_what_spends(
    log: FilteringBoundLogger, method: str, path: str, headers: Mapping[str, str], spends: bool
) -> None:
    """Whatever may start a stream asks for tokens, if they are counted; reading on by a POST does not."""
    quota = Noted(Standing(None, {}))
    await OneEndpoint(log, quota, credentials=Budgeted()).client.request(method, path, headers=headers)
    await OneEndpoint(log, quota).client.request(method, path, headers=headers)
    assert quota.asked == [("ann", spends), ("ann", False)]


OVERLOADS: list[tuple[StreamError, int, int]] = [
    (RateExceeded(retry_after=7.2), 429, 8),
    (BudgetSpent(retry_after=86_400), 429, 86_400),
    (TooManyReaders(), 429, 5),
    (Overloaded(), 503, 1),
    (Draining(), 503, 1),
    (Overloaded(retry_after=0), 503, 1),
]


@pytest.mark.parametrize(("error", "status", "seconds"), OVERLOADS)
@pytest.mark.parametrize("where", ["quota", "endpoint"])
async def test_an_event_source_is_told_to_come_back(
    log: FilteringBoundLogger, logs: LogCapture, where: str, error: StreamError, status: int, seconds: int
) -> None:
    """Overload is a 200 with `retry:` and no event for an EventSource's GET, and a status for all other requests."""
    if where == "quota":
        service = OneEndpoint(log, Noted(Standing(error, {"RateLimit-Remaining": "0"})))
    else:
        service = OneEndpoint(log, Noted(Standing(None, {"RateLimit-Remaining": "0"})), error)
    answer = await service.client.get(STREAM, headers=EVENTS)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["RateLimit-Remaining"] == "0"
    assert "X-Request-Id" in answer.headers
    assert answer.content == b"retry: %d\n" % (seconds * 1000)
    assert list(httpx_sse.EventSource(answer).iter_sse()) == []
    for method, accept in (("GET", "application/json"), ("GET", "*/*"), ("POST", "text/event-stream")):
        refused = await service.client.request(method, STREAM, headers={"Accept": accept})
        assert (refused.status_code, refused.json()["error"]["code"]) == (status, error.code)
        assert refused.headers["Retry-After"] == str(seconds)
    assert service.meter.refused == {error.code: 4}
    assert [entry["code"] for entry in logs.entries if entry["event"] == "request.refused"] == [error.code] * 4


@pytest.mark.parametrize(("error", "status"), [(Forbidden(), 403), (UnknownStream(), 404), (RuntimeError(), 500)])
async def test_what_is_final_stays_final(log: FilteringBoundLogger, error: Exception, status: int) -> None:
    """An error that will not pass is a status for an EventSource, too, which makes it stop."""
    service = OneEndpoint(log, Noted(Standing(None, {})), error)
    refused = await service.client.get(STREAM, headers=EVENTS)
    assert refused.status_code == status
    assert refused.headers["Content-Type"] == "application/json"


async def test_without_limits_nothing_is_said(log: FilteringBoundLogger, quota: Quota) -> None:
    """Where nothing is limited, answers carry no headers of limits."""
    service = OneEndpoint(log, quota, credentials=Credentials())
    for _ in range(3):
        answer = await service.client.post("/v1/chat")
        assert (answer.status_code, answer.json()) == (200, "")
        assert not [name for name in answer.headers if name.startswith("ratelimit")]
