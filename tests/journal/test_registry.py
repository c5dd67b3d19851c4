"""What every registry promises, whatever its engine."""

from __future__ import annotations

import asyncio

import pytest

from app.errors import KeyReused
from app.events import Done, Failure
from app.journal import Bounds, Journal
from app.journal.memory import MemoryJournal
from app.request import StreamInfo
from tests.journal.processes import INFO, opened

pytestmark = pytest.mark.anyio


async def test_claims(journal: Journal) -> None:
    """A key is one stream's; with the same body it leads there, with another it is refused; owners do not collide."""
    assert await journal.registry.claim("ann", "k", b"1", "s") is None
    await journal.create("s", INFO)
    assert await journal.registry.claim("ann", "k", b"1", "t") == "s"
    with pytest.raises(KeyReused):
        await journal.registry.claim("ann", "k", b"2", "t")
    assert await journal.registry.claim("bob", "k", b"2", "t") is None
    assert await journal.registry.claim("an", "nk", b"3", "u") is None
    assert [await journal.registry.keyed("ann", name) for name in ("k", "other")] == ["s", None]
    assert await journal.registry.keyed("carol", "k") is None


async def test_release(journal: Journal) -> None:
    """A claim that was given up can be made again; giving up what was never claimed does nothing."""
    assert await journal.registry.claim("ann", "k", b"1", "s") is None
    await journal.registry.release("t")
    await journal.registry.release("s")
    assert await journal.registry.claim("ann", "k", b"2", "t") is None
    await journal.registry.release("s")
    await journal.create("t", INFO)
    assert await journal.registry.claim("ann", "k", b"2", "u") == "t"


async def test_release_after_the_end(journal: Journal) -> None:
    """A stream that has ended can still give its claim up: a client that paid nothing may try again."""
    assert await journal.registry.claim("ann", "k", b"1", "s") is None
    (await journal.create("s", INFO)).append([Failure("m", "t", "c", True, 502)])
    await opened(journal)
    await journal.registry.release("s")
    assert await journal.registry.claim("ann", "k", b"1", "t") is None


async def test_labels(journal: Journal) -> None:
    """A label names the newest stream that its owner created with it; another owner's label is another one."""
    assert await journal.registry.labelled("o", "l") is None
    await journal.create("s", StreamInfo("auto", "o", 0, "l"))
    assert await journal.registry.labelled("o", "l") == "s"
    await journal.create("t", StreamInfo("auto", "o", 0, "l"))
    await journal.create("u", StreamInfo("auto", "o"))
    await journal.create("v", StreamInfo("auto", "p", 0, "l"))
    assert await journal.registry.labelled("o", "l") == "t"
    assert await journal.registry.labelled("p", "l") == "v"
    assert await journal.registry.labelled("o", "m") is None


async def test_slots(journal: Journal) -> None:
    """As many as the limit are let in, each owner's own; a refusal takes no slot, and leaving frees one."""
    assert [await journal.registry.occupy("ann", name, 2) for name in "abcd"] == [True, True, False, False]
    assert await journal.registry.occupy("bob", "e", 1)
    await journal.registry.vacate("ann", "c")  # it had none
    assert not await journal.registry.occupy("ann", "c", 2)
    await journal.registry.vacate("ann", "a")
    assert await journal.registry.occupy("ann", "c", 2)
    assert not await journal.registry.occupy("ann", "a", 2)


async def test_a_rush_for_slots(journal: Journal) -> None:
    """Of many that ask at once, exactly as many as the limit get in."""
    answers = await asyncio.gather(*[journal.registry.occupy("ann", str(number), 7) for number in range(30)])
    assert sum(answers) == 7


async def test_a_rush_for_a_key(journal: Journal) -> None:
    """Of many that claim one key at once, exactly one gets it, and all others are led to its stream."""

    async def claim(stream_id: str) -> str | None:
        known = await journal.registry.claim("ann", "k", b"1", stream_id)
        if known is None:
            await journal.create(stream_id, INFO)
        return known

    answers = await asyncio.gather(*[claim(f"s{number}") for number in range(20)])
    assert answers.count(None) == 1
    assert set(answers) == {None, f"s{answers.index(None)}"}


async def test_labels_go_with_their_streams() -> None:
    """A label that names an evicted stream is gone; one that names a newer stream is not."""
    journal = MemoryJournal(Bounds(1 << 20, 1 << 20, 1, 60.0))
    for stream_id, label in (("a", "first"), ("b", "second"), ("c", "second"), ("d", "third")):
        writer = await journal.create(stream_id, StreamInfo("auto", "o", 0, label))
        writer.append((Done("stop"),))
    assert [await journal.registry.labelled("o", label) for label in ("first", "second", "third")] == [None, None, "d"]
    writer = await journal.create("e", StreamInfo("auto", "o", 0, "third"))
    writer.append((Done("stop"),))
    assert await journal.registry.labelled("o", "third") == "e"
    journal.close()
