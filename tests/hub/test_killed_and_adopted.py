"""Kills and drains at any moment: what readers had seen stays, and the rest of the answer follows, through any cut."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.access.budgets import DailyBudgets
from app.events import Annotation, Content, Delta, Done, Event, Extra, Logprobs, Reasoning, Start, ToolCall, values
from app.hub import Capacity, Hub, IdempotencyKey
from app.journal.encoding import decode, encode
from app.journal.file.journal import FileJournal
from app.journal.memory import MemoryLog
from app.meter import Meter
from app.relay import Limits
from app.request import Allowance, Principal, StreamRequest
from app.telemetry.stream_counts import StreamCounts
from app.upstream import Attempt, Batches
from app.upstream.router import Router, Target
from app.usage import Usage
from tests.journal.file.disk import Disk
from tests.rechunk.test_resumed import SPECS, put_together
from tests.waiting import until

pytestmark = pytest.mark.anyio

PIECES = ("a", "word ", "Two words. ", "日本語。", "line\n", "é", "👩\u200d🔬 ", "  ", "x" * 30, "end.\n\n")
ANN = Principal("ann", Allowance(streams=2, tokens=10_000))
KEY = IdempotencyKey("key", b"body")
USAGE = Usage({"prompt_tokens": 3, "completion_tokens": 70, "total_tokens": 73})


class Kept:
    """A source whose upstream answers *content* once, keeps that, and cuts it into batches as *choose* draws."""

    note: Mapping[str, Any] = {"response": "resp_1"}

    def __init__(self, choose: random.Random, content: Sequence[Content]) -> None:
        self.asked = 0
        self._choose = choose
        self._content = content

    def leave(self) -> None:
        """Go on: the answer is never said not to be wanted."""

    def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        self.asked += 1
        attempt.status, attempt.sent = 200, True
        return self._played(attempt)

    def resume(self, note: Mapping[str, Any], request: StreamRequest, attempt: Attempt) -> Batches:
        assert note["response"] == "resp_1"
        attempt.kept = self
        return self._played(attempt)

    def secrets(self, request: StreamRequest) -> Sequence[str]:
        return request.secrets

    async def _played(self, attempt: Attempt) -> Batches:
        choose = self._choose
        yield ()
        attempt.kept = self
        at = 0
        while at < len(self._content):
            await asyncio.sleep(choose.choice((0, 0, 0.001, 0.003)))
            size = choose.choice((0, 1, 1, 2, 9))
            yield self._content[at : at + size]
            at += size
        attempt.usage, attempt.complete = USAGE, True
        attempt.done = Done("stop", usage=USAGE)
        yield [attempt.done]


def drawn(choose: random.Random) -> list[Content]:
    """Return an answer: reasoning, text with notes on it, and calls."""
    content: list[Content] = [Reasoning(choose.choice(PIECES)) for _ in range(choose.randrange(5))]
    for number in range(choose.randrange(1, 60)):
        content.append(Delta(choose.choice(PIECES)))
        if choose.random() < 0.1:
            content.append(choose.choice((Annotation([{"n": number}]), Extra({"n": 1}), Logprobs([{"n": number}]))))
    for index in range(choose.randrange(3)):
        content.append(ToolCall(index, f"call_{index}", "f", ""))
        content += [ToolCall(index, "", "", piece) for piece in ('{"a":', "1", "}")]
    return content


@asynccontextmanager
async def process(
    disk: Disk, source: Kept, log: FilteringBoundLogger, meter: Meter
) -> AsyncIterator[tuple[Hub, FileJournal]]:
    """Run a service on *disk*, up to where the journal ends and the upstream begins."""
    journal = disk.journal()
    budgets = DailyBudgets(journal.budgets, 100)
    router = Router({}, [Target("up", None, source)])
    hub = Hub(journal, router, Limits(), Capacity(), meter, log, [budgets, StreamCounts(meter)], spending=budgets)
    async with journal.serving(hub):
        yield hub, journal
        await hub.drain(0)


async def left(disk: Disk, hub: Hub, journal: FileJournal, choose: random.Random) -> Disk:
    """Return what a process leaves that is killed now, or drained."""
    if choose.random() < 0.5:
        return await journal._store.write(disk.killed)
    await hub.drain(0)
    return disk


@pytest.mark.parametrize("seed", range(24))
async def test_killed_and_adopted(tmp_path: Path, log: FilteringBoundLogger, seed: int) -> None:
    """After up to three the log is one answer, which begins with what was seen each time, and was paid for once."""
    choose = random.Random(seed)
    content = drawn(choose)
    source = Kept(random.Random(seed), content)
    chunk = choose.choice(SPECS)
    asked = ({"role": "user", "content": "x"},)
    request = StreamRequest("m", asked, chunk=chunk, grace=math.inf, unknown_grace=math.inf)
    seen: list[Event] = []
    disk = Disk(tmp_path / "streams", log)
    async with process(disk, source, log, Meter()) as (hub, journal):
        stream_id = await hub.open(request, ANN, KEY)
        written = await journal.open(stream_id)
        at = choose.randrange(1, 20)
        await until(lambda: written.ended or written.last >= at)
        seen = records(written)
        disk = await left(disk, hub, journal, choose)
    for _ in range(choose.randrange(3)):
        async with process(disk, source, log, Meter()) as (hub, journal):
            written = await journal.open(stream_id)
            at = len(seen) + choose.randrange(9)
            await until(lambda: written.ended or written.last >= at)  # noqa: B023 - awaited at once
            known, seen = seen, records(written)
            assert seen[: len(known)] == known
            disk = await left(disk, hub, journal, choose)
    meter = Meter()
    async with process(disk, source, log, meter) as (hub, journal):
        assert await hub.open(request, ANN, KEY) == stream_id
        written = await journal.open(stream_id)
        await until(lambda: written.ended)
        events = records(written)
        await until(lambda: hub.live == 0)
        spent, reserved, _ = await journal.budgets.balance(ANN.counted_as())
        assert await journal.registry.occupy(ANN.counted_as(), "probe", 1)
    assert events[: len(seen)] == seen
    start, *answer, end = events
    assert isinstance(start, Start)
    assert isinstance(end, Done)
    assert (end.finish_reason, end.usage) == ("stop", USAGE)
    assert not any(isinstance(event, Start | Done) for event in answer)
    assert normal(answer) == normal(content)
    assert source.asked == 1
    # Who ends a stream charges it. A process before may have been killed in between: it is never charged twice.
    assert (spent, reserved) == (70, 0) or (meter.adopted == 0 and (spent, reserved) == (0, 0))


def records(log: MemoryLog) -> list[Event]:
    """Return what is in a log, as it would be read from disk."""
    return decode(encode(log.records(0, log.last)))


def normal(events: Sequence[Event]) -> str:
    """Return what *events* say, as JSON: what was a tuple may be a list."""
    return json.dumps(put_together(events), default=lambda event: [type(event).__name__, *values(event)])
