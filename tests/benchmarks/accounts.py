"""What processes have used up, as the kernel counts it (Linux only)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """Return *pid* and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue  # ended meanwhile
            parent = int(stat.rpartition(")")[2].split()[1])  # a name may hold blanks and parentheses
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def cpu(pids: Iterable[int]) -> float:
    """Return the seconds of processor time, user and system, that all threads of *pids* have had.

    From each process's CPU clock (clock_getcpuclockid(3)): the sum that /proc/<pid>/stat rounds to ticks of 10 ms,
    half of what nginx needs for 1,000 deltas.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids) / 1e9


def rss(pids: Iterable[int]) -> int:
    """Return the resident bytes of *pids*."""
    return sum(
        int(line.split()[1]) * 1024
        for pid in pids
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmRSS:")
    )


def idle() -> float:
    """Return the seconds for which cores had nothing to do, summed over all of them."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return (int(fields[4]) + int(fields[5])) / _TICK


def pin(pids: Iterable[int], cores: Iterable[int]) -> None:
    """Have all threads of *pids*, and what they start, run on *cores* only."""
    wanted = set(cores)
    for pid in pids:
        with suppress(FileNotFoundError):  # ended meanwhile
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread.name), wanted)
