"""What an owner has in memory; `test_journal_contract` lists it through the journal."""

from __future__ import annotations

import pytest

from app.events import Done, Failure
from app.journal.holder import Holder, state_after
from app.journal.memory import MemoryJournal, MemoryLog
from tests.journal.processes import DONE, INFO, ROOMY

pytestmark = pytest.mark.anyio


async def test_the_order_is_that_of_the_times() -> None:
    """A clock that was set back changes neither the order nor what comes on which page."""
    journal = MemoryJournal(ROOMY)
    for stream_id, created in (("a", 3), ("b", 1), ("c", 2)):
        await journal.create(stream_id, INFO._replace(created=created))
    holder: Holder[MemoryLog] = journal.holder("ann")
    first = holder.listing(2, None, live=True)
    assert ([stream.stream_id for stream in first.streams], first.before) == (["a", "c"], 2)
    rest = holder.listing(2, first.before, live=True)
    assert ([stream.stream_id for stream in rest.streams], rest.before) == (["b"], None)


async def test_nothing_is_left_of_an_owner() -> None:
    """What an owner had is forgotten with its last stream."""
    journal = MemoryJournal(ROOMY)
    (await journal.create("s", INFO)).append([DONE])
    await journal.remove("s")
    assert not journal.holder("ann").logs
    assert len(journal._holders) == 0


def test_state_after() -> None:
    """A stream that was cancelled is done, too."""
    assert state_after(Done("cancelled")) == "done"
    assert state_after(Failure("m", "t", "c", True, 502)) == "error"
