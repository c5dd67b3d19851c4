"""One seed, one history: what is true of a service in whatever order things come, and that a fault would be seen."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from app.edge.access.budgets import DailyBudgets
from app.edge.event_stream import StreamResponse
from app.events import Batch
from app.hub import Hub, hub
from app.hub.stream import Stream
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.registry import MemoryRegistry
from app.relay import Relay
from tests.history.world import history

# How long other histories are tried each time, from which seed on. A failure is repeated by HISTORY_SEED=… and no time.
SECONDS = float(os.environ.get("HISTORY_SECONDS", "30"))
SEED = int(os.environ.get("HISTORY_SEED", "0")) or time.time_ns() // 1_000_000


def seeded(seed: int) -> None:
    try:
        history(seed)
    except BaseException as error:
        error.add_note(f"HISTORY_SEED={seed} HISTORY_SECONDS=0 repeats it")
        raise


@pytest.mark.parametrize("seed", range(200))
def test_known_histories(seed: int) -> None:
    """The invariants of `tests.history.world` hold in histories that are the same each time."""
    seeded(seed)


def test_other_histories() -> None:
    """They hold in others, too."""
    until = time.perf_counter() + SECONDS
    seed = SEED
    seeded(seed)
    while time.perf_counter() < until:
        seed += 1
        seeded(seed)
    print(f"{seed - SEED + 1} histories")


def test_one_seed_is_one_history() -> None:
    """What a seed draws happens again in every detail."""
    for seed in range(50):
        assert history(seed) == history(seed)


async def nothing(*args: object) -> None:
    """Do nothing, in place of a coroutine function."""


async def unknown(*args: object) -> None:
    """Know no key."""


def pushed_and_forgotten(self: StreamResponse, batch: Batch | None) -> None:
    """Take a batch for sent although the server has declined it."""
    if batch is not None and not self._news.done():
        self._write(self._encode(batch))
        self._subscription.sent = batch
        if self._subscription.log.ended:
            self._news.set_result(None)
    elif not self._news.done():
        self._news.set_result(None)


def off_by_one(original: Callable[..., Any]) -> Callable[..., Any]:
    """Attach after the record before the one that the client has."""

    async def attach(self: Hub, stream_id: str, principal: Any, after: int = 0, *args: Any, **options: Any) -> Any:
        return await original(self, stream_id, principal, max(0, after - 1), *args, **options)

    return attach


def ended_twice(original: Callable[..., Any]) -> Callable[..., Any]:
    """Forget that the terminal record was written."""

    def end(self: Relay, ending: Any) -> None:
        self.ended = None
        original(self, ending)

    return end


# Ten ways to break the service, each with the name of what is broken and what stands in for it.
MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "held text is lost at the end": (Relay, "_flush", lambda self: None),
    "text follows text that was refused": (Relay, "_refused", property(lambda self: False, lambda self, to: None)),
    "two terminal records": (Relay, "_end", ended_twice(Relay._end)),
    "a batch is lost where a client is slow": (StreamResponse, "_push", pushed_and_forgotten),
    "a reader gets an event again": (Hub, "attach", off_by_one(Hub.attach)),
    "a reader's place is not given back": (Hub, "_give_back", lambda self, name: None),
    "a reader's place is not kept": (Hub, "admit", lambda self, principal: None),
    "a slot is not given back": (MemoryRegistry, "vacate", nothing),
    "a key means nothing": (MemoryRegistry, "claim", unknown),
    "a reservation is not settled": (DailyBudgets, "ended", nothing),
    "a stranger may read": (hub, "_may_use", lambda principal, stream_id, info: True),
    "evicted bytes are counted for ever": (MemoryJournal, "let_go", lambda self, log: None),
    "nobody notes that the last reader left": (Stream, "left", lambda self: None),
    "a sink stays": (MemoryLog, "unfollow", lambda self, sink: None),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_they_notice(name: str) -> None:
    """A service that is broken in this way fails in one of the first histories."""
    where, what, mutant = MUTANTS[name]
    patch = (
        mock.patch(f"{where}.{what}", mutant)
        if isinstance(where, str)
        else mock.patch.object(where, what, mutant, create=True)
    )
    with patch:
        for seed in range(1000):
            try:
                history(seed)
            except BaseException as error:
                print(f"{name}: seed {seed}, {error!r}")
                return
    pytest.fail("no history noticed")
