"""Instructions are counted where the kernel lets us, and where it does not, that is said."""

from __future__ import annotations

import errno
import os
import platform
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from tests.benchmarks import counters
from tests.benchmarks.counters import Counters, Reading, Unavailable, retired, unavailable

# Burns as many turns as each line asks for, in itself, in a thread begun for it, or in a process; then says so.
_BURNER = """
import os, sys, threading

def burn(turns):
    for _ in range(turns):
        pass

def beget(turns, lives):
    ready, done = os.pipe(), os.pipe()
    if not os.fork():
        burn(turns)
        os.write(ready[1], b"x")
        os.close(done[1])
        if lives:
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    if not lives:
        os.wait()
    keep.append(done)  # for as long as we live, so does the child that is to

keep = []
print("ready", flush=True)
for line in sys.stdin:
    where, turns = line.split()
    if where == "self":
        burn(int(turns))
    elif where == "thread":
        thread = threading.Thread(target=burn, args=(int(turns),))
        thread.start()
        thread.join()
    else:
        beget(int(turns), where == "living")
    print("done", flush=True)
"""
_TURNS = 2_000_000


class Burner:
    """A process that burns what it is asked to."""

    def __init__(self, popen: subprocess.Popen[str], asks: IO[str], says: IO[str]) -> None:
        self.pid = popen.pid
        self._asks = asks
        self._says = says

    def burn(self, where: str, turns: int) -> None:
        """Have it burn *turns*, and wait until it did."""
        self._asks.write(f"{where} {turns}\n")
        self._asks.flush()
        assert self._says.readline() == "done\n"


@contextmanager
def burning() -> Iterator[Burner]:
    """Run a burner."""
    with subprocess.Popen(
        [sys.executable, "-c", _BURNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as popen:
        assert popen.stdin
        assert popen.stdout
        assert popen.stdout.readline() == "ready\n"
        yield Burner(popen, popen.stdin, popen.stdout)


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.real
@pytest.mark.skipif(bool(unavailable()), reason=f"this machine does not count instructions: {unavailable()}")
def test_another_process_is_counted_with_all_that_it_starts() -> None:
    """Twice the work is twice the instructions; and a later thread's or child's, ended or living, are as many."""
    before = descriptors()
    with burning() as burner, Counters({"burner": [burner.pid], "own": [os.getpid()]}) as counting:
        found = {}
        burner.burn("self", _TURNS)  # what is warmed up once is
        for where, turns in (("self", 1), ("self", 2), ("thread", 1), ("ended", 1), ("living", 1), ("living", 2)):
            early = counting.read()
            burner.burn(where, turns * _TURNS)
            found[where, turns] = retired(early, counting.read())
    once = found["self", 1]["burner"]
    assert once > 5 * _TURNS, "a turn of the loop takes at least so many"
    assert {key: each["burner"] / once for key, each in found.items()} == {
        key: pytest.approx(key[1], rel=0.1) for key in found
    }
    assert all(0 < each["own"] < once / 5 for each in found.values()), "who waits does little"
    assert descriptors() == before


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_refusal_is_told_and_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where the kernel refuses, even the second event only, instructions are unavailable, in the kernel's words."""
    opened: list[int] = []

    def refuse(_: int) -> int:
        if opened:
            raise OSError(code, os.strerror(code))
        opened.append(os.open(os.devnull, os.O_RDONLY))
        return opened[0]

    monkeypatch.setattr(counters, "_perf_event_open", refuse)
    before = descriptors()
    with pytest.raises(Unavailable, match=os.strerror(code)):
        Counters({"first": [os.getpid()], "second": [os.getpid()]})
    assert descriptors() == before
    assert os.strerror(code) in unavailable()


def test_a_mistake_is_not_taken_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says nothing of the machine goes up as it is."""

    def fail(_: int) -> int:
        raise OSError(errno.EINVAL, "invalid")

    monkeypatch.setattr(counters, "_perf_event_open", fail)
    with pytest.raises(OSError, match="invalid"):
        unavailable()


def test_a_processor_that_is_not_known_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """On another processor the call has another number: instructions are unavailable there."""
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert os.strerror(errno.ENOSYS) in unavailable()


def test_a_counter_that_stands_still_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A virtual machine may have an event that can be opened and never counts."""
    (tmp_path / "counter").write_bytes(struct.pack("QQQ", 0, 5, 5) + struct.pack("QQQ", 0, 9, 9))
    monkeypatch.setattr(counters, "_perf_event_open", lambda _: os.open(tmp_path / "counter", os.O_RDONLY))
    assert unavailable() == "the counter stands still"


def test_who_has_ended_is_not_counted() -> None:
    """A process that ended before it could be counted has no instructions, and disturbs no other count."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with Counters({"ended": [ended.pid]}) as counting:
        assert retired(counting.read(), counting.read()) == {"ended": 0.0}


def test_times_without_a_counter_are_made_up_for() -> None:
    """Of a group that had a counter for half of the time, twice as much is assumed; of one that slept, nothing."""
    before = {"half": Reading(100, 1000, 1000), "slept": Reading(7, 5, 5)}
    after = {"half": Reading(400, 3000, 2000), "slept": Reading(7, 5, 5)}
    assert retired(before, after) == {"half": 600.0, "slept": 0.0}
    with pytest.raises(Unavailable):
        retired(before, {"half": Reading(100, 3000, 1000), "slept": Reading(7, 5, 5)})
