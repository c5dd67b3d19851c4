"""One process of the service: everything between the ASGI interface and the upstream, and nothing below them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest import mock

import structlog
from starlette.applications import Starlette
from starlette.types import Scope
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access.authentication import AccessMiddleware, Credentials
from app.edge.access.budgets import DailyBudgets
from app.edge.access.origins import Origins
from app.edge.access.quota import Quota
from app.edge.access.rates import Counts, MemoryCounts
from app.edge.bodies import Defaults
from app.edge.dialects import routes
from app.edge.error_responses import crashed, failed
from app.edge.middleware import ContextMiddleware
from app.edge.streams import Options, Streams
from app.errors import StreamError, Unauthenticated
from app.hub import Capacity, Hub
from app.hub.stream import Stream
from app.journal import Bounds, Journal
from app.journal.budgets import MemoryBudgets
from app.journal.file.address import Address
from app.journal.file.journal import FileJournal
from app.journal.memory import MemoryJournal
from app.journal.redis.client import OnConnect
from app.journal.redis.journal import RedisJournal
from app.meter import Meter
from app.relay import Limits
from app.request import Allowance, Principal, StreamRequest, keyed_hash
from app.telemetry.canonical_line import CanonicalLine
from app.telemetry.stream_counts import StreamCounts
from app.upstream.router import RetryPolicy, Router, Target
from tests.history.disk import DrawnDisk
from tests.history.redis import DrawnClient, DrawnRedis
from tests.history.upstream import DrawnUpstream

ALLOWANCES = {
    "anne": Allowance(streams=2, readers=3, tokens=120, requests=60),
    "bert": Allowance(streams=3, readers=2),
    "cleo": Allowance(tokens=300, readers=4),
    "dirk": Allowance(),
}


class _Names(Credentials):
    """The principal is the one that `Authorization` names."""

    async def principal(self, scope: Scope) -> Principal:
        name = dict(scope["headers"]).get(b"authorization", b"").decode()
        if name not in ALLOWANCES:
            raise Unauthenticated
        return Principal(name, ALLOWANCES[name], account=keyed_hash(name))


class Process:
    """One process, in front of *upstream*, with limits that *choose* draws. It *shares* its streams over Redis, or not.

    Its streams are on a *disk*, or in memory.
    While it is *cut_off*, nothing that it sends arrives, and nothing reaches it. Once it is *killed*, that stays so: to
    the others it is dead.
    """

    def __init__(
        self,
        choose: random.Random,
        upstream: DrawnUpstream,
        bounds: Bounds,
        *,
        shares: bool = False,
        disk: DrawnDisk | None = None,
    ) -> None:
        self.logs = LogCapture()
        log: FilteringBoundLogger = structlog.wrap_logger(
            structlog.PrintLogger(),
            processors=[self.logs],
            wrapper_class=structlog.make_filtering_bound_logger(0),
            cache_logger_on_first_use=False,
        ).bind()
        self.killed = False
        self.upstream = upstream
        self.bounds = bounds
        self.disk = disk
        self.cut_off = False
        self.redis: DrawnRedis
        self.meter = Meter(["m"])
        self.journal: Journal

        def evicted(stream_id: str, reason: str) -> None:
            self.hub.evicted(stream_id, reason)

        if shares:
            with mock.patch("app.journal.redis.journal.connector", lambda url, timing: self._connect):
                self.journal = RedisJournal("redis://history", bounds, choose.choice((1, 20)), evicted, log)
        elif disk is not None:
            with mock.patch("app.journal.file.store.Worker", disk.worker):
                address = Address(disk.folder, disk.durable)
                self.journal = FileJournal(address, bounds, choose.choice((1, 20)), evicted, log)
        else:
            self.journal = MemoryJournal(bounds, on_evict=evicted)
            self.journal.budgets = MemoryBudgets(asyncio.get_running_loop().time)
        self.spending = DailyBudgets(self.journal.budgets, reserve_tokens=50)
        source = upstream.source(lambda: self.killed)
        first = Target("first", None, source, first_token=choose.choice((0, 2)))
        both = [first, Target("second", None, source)]
        targets = both[choose.randrange(2) :]
        # It knows both by name, because it may go on with an answer that an earlier process has got from either.
        router = Router({"none that is asked for": both}, targets, RetryPolicy(attempts=2, initial=0.5, longest=4))
        self.hub = Hub(
            self.journal,
            router,
            Limits(commit=choose.choice((0, 0.5, 2)), first_token=20, idle=15, progress=30, total=60),
            Capacity(choose.choice((3, 100)), choose.choice((4, 100))),
            self.meter,
            log,
            [CanonicalLine(), StreamCounts(self.meter), self.spending],
            10.0,
            self.spending,
        )
        options = Options(
            Defaults(model="m", chunk="auto", grace=10, max_grace=1000, grace_is_set=False),
            admit=self._admit,
            tickets=None,
            commit_after=2,
            max_body=1 << 20,
            body_seconds=10,
            keep_alive=choose.choice((1, 15)),
            reconnect_ms=1000,
            models=("m",),
            listed=self._listed,
        )
        handlers: Any = {StreamError: failed, Exception: crashed}
        inner = Starlette(routes=routes(Streams(self.hub, options)), exception_handlers=handlers)
        quota = Quota(Counts(MemoryCounts()), self.spending, choose.choice((0, 90)))
        guarded = AccessMiddleware(inner, _Names(), quota, ())
        self.app = ContextMiddleware(guarded, Origins(), self.meter, log)

    def _connect(self, on_connect: OnConnect | None) -> DrawnClient:
        return DrawnClient(lambda: self.redis, lambda: self.cut_off, on_connect)

    def kill(self) -> None:
        """Be dead to all others from now on."""
        self.killed = self.cut_off = True

    def _admit(self, request: StreamRequest) -> StreamRequest:
        return request

    async def _listed(self) -> list[Any]:
        return []

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve while the block runs, and drain then."""
        try:
            async with self.journal.serving(self.hub):
                self.hub.begin_accepting()
                yield
                await self.hub.drain(0)
        finally:
            if isinstance(self.journal, FileJournal):
                self.journal._store._held.close()  # what is open still, after a kill or while the disk hangs

    @property
    def alone(self) -> dict[str, Stream]:
        """The streams that are live here and have no reader here."""
        read = {reader.stream_id for reader in self.hub._readers}
        live = [stream for stream in self.hub._streams.values() if stream.relay.ended is None]
        return {stream.id: stream for stream in live if stream.id not in read}

    def check_rest(self) -> None:
        """Check that nothing is left of the streams and readers that were there."""
        hub = self.hub
        assert not hub.live
        assert not hub.reading
        assert (hub._reserved, hub._opening, dict(hub._readers_of), hub._stopping) == (0, 0, {}, set())
        assert self.spending._reserved == {}
        memory = self.journal if isinstance(self.journal, MemoryJournal) else self.journal._memory  # type: ignore[attr-defined]  # all journals but that one have one within
        logs = memory._logs.values()
        assert all(not log.reading and not log._sinks for log in logs)
        assert memory.size == sum(log.size for log in logs)
        for holder in memory._holders.values():
            assert holder.size == sum(log.size for log in holder.logs.values())

    def check_crashes(self) -> None:
        """Check that no exception came from where none may."""
        crashes = [entry for entry in self.logs.entries if str(entry["event"]).endswith("crashed")]
        assert crashes == []
