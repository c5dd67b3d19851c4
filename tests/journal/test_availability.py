"""Whether what keeps the streams can be used, what is logged of that, and who waits for it."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.journal.availability import Availability
from tests.waiting import until

pytestmark = pytest.mark.anyio


async def test_away_and_back(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """Each reason is logged once between going away and coming back, and never what the error says."""
    place = Availability(lambda error: {"reason": type(error).__name__.upper()}, log)
    assert (place.away, place.answered()) == (False, False)
    for error in (OSError("secret"), OSError("secret"), ValueError("secret")):
        place.failed(error)
    assert place.away
    assert [place.answered(), place.answered(), place.away] == [True, False, False]
    assert [(entry["event"], entry.get("reason")) for entry in logs.entries] == [
        ("journal.away", "OSERROR"),
        ("journal.away", "VALUEERROR"),
        ("journal.back", None),
    ]
    assert "secret" not in str(logs.entries)


async def test_an_outage(log: FilteringBoundLogger) -> None:
    """An outage has lasted too long only if nothing came back meanwhile."""
    place = Availability(lambda error: {"reason": ""}, log)
    place.failed(OSError())
    waiting = asyncio.create_task(place.outage(0.05))
    await asyncio.sleep(0)
    place.answered()
    place.failed(OSError())
    await until(waiting.done)
    assert place.away
