"""How late the event loop is."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.meter import Meter
from app.telemetry.loop_delay import sampling
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_a_blocked_loop_shows() -> None:
    """A loop that was blocked shows for how long; after the block, nothing is sampled any more."""
    meter = Meter()
    with sampling(meter.loop_delay, every=0.02):
        await until(lambda: meter.loop_delay.count == 2)
        before = meter.loop_delay.total
        time.sleep(0.12)  # noqa: ASYNC251 - this is the fault
        await until(lambda: meter.loop_delay.count == 3)
        assert meter.loop_delay.total - before > 0.08
    count = meter.loop_delay.count
    await asyncio.sleep(0.05)  # longer than the interval
    assert meter.loop_delay.count == count
