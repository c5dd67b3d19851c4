"""One seed, one history: what is true of a service in whatever order things come, and that a fault would be seen."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from app.edge.access.budgets import DailyBudgets
from app.edge.event_stream import StreamResponse
from app.events import Batch
from app.hub import Hub, ownership
from app.hub.stream import Stream
from app.journal.file import recovery
from app.journal.file.entries import Tail
from app.journal.file.folder import Mark
from app.journal.file.store import Store
from app.journal.file.writer import FileWriter
from app.journal.memory import MemoryJournal, MemoryLog
from app.journal.redis.budgets import RedisBudgets
from app.journal.redis.committer import Committer
from app.journal.redis.replicas import Replicas
from app.journal.registry import MemoryRegistry
from app.rechunk import Resumed
from app.relay import Relay
from app.upstream.router import Resumption, Router
from tests.history.world import history
from tests.real.redis import launch_redis

# For how long other histories are tried each time, and from which seed on.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))
SEED = int(os.environ.get("HISTORY_SEED") or 1000)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a Redis that keeps nothing."""
    server = launch_redis(tmp_path_factory.mktemp("redis"))
    yield server.url
    server.stop()


@pytest.fixture(
    params=[
        "one process",
        "on disk",
        "on disk, in the background",
        pytest.param("several processes", marks=pytest.mark.real),
        pytest.param("several processes, in the background", marks=pytest.mark.real),
    ]
)
def where(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Where streams are kept: the Redis of histories of several processes, or the folder of those on disk."""
    kind, _, background = request.param.partition(", ")
    match kind:
        case "one process":
            return {}
        case "on disk":
            return {"folder": request.getfixturevalue("folder"), "background": bool(background)}
    return {"redis": request.getfixturevalue("redis"), "background": bool(background)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose disk is fast, if there is one: what a real power cut leaves does not matter here."""
    memory = Path("/dev/shm")
    return memory if os.access(memory, os.W_OK) else tmp_path


def told(seed: int, where: dict[str, Any]) -> int:
    """Run the history of *seed*. Its error says how to run it again."""
    try:
        return history(seed, **where)
    except BaseException as error:
        error.add_note(f"HISTORY_SEED={seed} FUZZ_SECONDS=0 repeats it.")
        raise


@pytest.mark.timeout(600 + 2 * SECONDS)
def test_histories(where: dict[str, Any]) -> None:
    """The invariants of `tests.history.world` hold, in a hundred histories and in those that there is time for."""
    for seed in range(100):
        told(seed, where)
    until = time.perf_counter() + SECONDS
    seed = SEED
    told(seed, where)
    while time.perf_counter() < until:
        seed += 1
        told(seed, where)
    print(f"{seed - SEED + 1} other histories")


def test_one_seed_is_one_history(where: dict[str, Any]) -> None:
    """What a seed draws happens again in every detail."""
    for seed in range(20):
        assert history(seed, **where) == history(seed, **where)


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


# Ways to break the service: what is broken, and what stands in for it.
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
    "a stranger may read": (ownership, "may_use", lambda principal, stream_id, info: True),
    "evicted bytes are counted for ever": (MemoryJournal, "let_go", lambda self, log: None),
    "it is not noted that the last reader left": (Stream, "left", lambda self: None),
    "a sink stays": (MemoryLog, "unfollow", lambda self, sink: None),
}


# The same for one that shares its streams.
SHARED_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "a dead process's streams are not ended": (Replicas, "end_orphans", nothing),
    "a charge whose reply was lost is forgotten": (RedisBudgets, "store", nothing),
    "Redis is not compared after an outage": (Committer, "require_reconcile", lambda self: None),
}


# The same for one that keeps its streams on disk.
DISK_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "what was live is forgotten at the start": (recovery, "fold", lambda batch, tails, removed: None),
    "the end of what was given up is not noted": (Store, "note_ends", nothing),
    "a power cut is not noticed": (Mark, "whole", property(lambda self: True, lambda self, whole: None)),
    "what the disk refused is not written later": (FileWriter, "put_back", lambda self: self.taken.clear()),
    "a stream is moved without its end": (Tail, "rows", lambda self: iter([(self.moved + 1, b"[]")])),
}


# The same for one that goes on with the answers of an upstream that keeps them.
BACKGROUND_MUTANTS: dict[str, tuple[Any, str, Any]] = {
    "what the log has is written again": (Resumed, "known", lambda self, events: None),
    "no answer is gone on with": (Router, "resumption", lambda self, note: Resumption(None, note)),
    "what an earlier process reserved is forgotten": (DailyBudgets, "resume", nothing),
}


# The search for a history that notices begins here, where few do: shortly before the first that did. (All are tried.)
BEGIN = {
    "a dead process's streams are not ended": 110,
    "a charge whose reply was lost is forgotten": 530,
    "Redis is not compared after an outage": 65,
    "what was live is forgotten at the start": 130,
    "the end of what was given up is not noted": 205,
    "what the disk refused is not written later": 25,
}


# A history that is broken off leaves generators that wait where they close, which Python complains of as it frees them.
breaks_off = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@breaks_off
@pytest.mark.no_cover  # a service that is broken on purpose
@pytest.mark.parametrize("name", MUTANTS)
def test_they_notice(name: str) -> None:
    """A service that is broken in this way fails in one of the first histories."""
    noticed(name, *MUTANTS[name], {}, 1000)


@breaks_off
@pytest.mark.no_cover  # a service that is broken on purpose
@pytest.mark.real
@pytest.mark.parametrize("name", SHARED_MUTANTS)
def test_they_notice_among_several(name: str, redis: str) -> None:
    """So does one that is broken where it shares its streams."""
    noticed(name, *SHARED_MUTANTS[name], {"redis": redis}, 2000)


@breaks_off
@pytest.mark.no_cover  # a service that is broken on purpose
@pytest.mark.parametrize("name", DISK_MUTANTS)
def test_they_notice_on_disk(name: str, folder: Path) -> None:
    """So does one that is broken where it keeps its streams on disk."""
    noticed(name, *DISK_MUTANTS[name], {"folder": folder}, 1000)


@breaks_off
@pytest.mark.no_cover  # a service that is broken on purpose
@pytest.mark.parametrize("name", BACKGROUND_MUTANTS)
def test_they_notice_in_the_background(name: str, folder: Path) -> None:
    """So does one that is broken where it goes on with answers."""
    noticed(name, *BACKGROUND_MUTANTS[name], {"folder": folder, "background": True}, 1000)


def noticed(name: str, owner: Any, what: str, mutant: Any, where: dict[str, Any], seeds: int) -> None:
    """Print which of the first *seeds* notices that *mutant* stands in for *what* in *owner*. Fail if none does."""
    with mock.patch.object(owner, what, mutant, create=what in ("_refused", "whole")):  # attributes of instances
        for seed in [*range(BEGIN.get(name, 0), seeds), *range(BEGIN.get(name, 0))]:
            try:
                history(seed, **where)
            except BaseException as error:
                print(f"{name}: seed {seed}, {error!r}")
                break
        else:
            pytest.fail("no history noticed")
    gc.collect()  # what the history left is freed within this test
