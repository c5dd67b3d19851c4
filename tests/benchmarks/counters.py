"""How many instructions other processes retire, as the processor counts them (Linux, perf_event_open(2)).

What runs beside a process changes how long its instructions take, by a third and more, but hardly how many they are.

Counting is not free: each switch between tasks stops and starts a counter, which on a virtual machine takes the host's
help: about 10 µs. So nothing else should be measured meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import NamedTuple, Self

# The call's number (syscalls(2)), of processes of 64 bits.
_NUMBERS = {"x86_64": 298, "aarch64": 241} if sys.maxsize > 2**32 else {}

# struct perf_event_attr in its first version (PERF_ATTR_SIZE_VER0): type, size, config, sample_period, sample_type,
# read_format, flags, wakeup_events, bp_type, bp_addr. The kernel takes what was added later for zero.
_ATTRIBUTES = struct.Struct("=IIQQQQQIIQ")
_HARDWARE, _INSTRUCTIONS = 0, 1  # PERF_TYPE_HARDWARE, PERF_COUNT_HW_INSTRUCTIONS
_TIMES = 1 << 0 | 1 << 1  # PERF_FORMAT_TOTAL_TIME_ENABLED, PERF_FORMAT_TOTAL_TIME_RUNNING
_FLAGS = 1 << 1 | 1 << 6  # inherit, exclude_hv
_CLOSE_ON_EXEC = 1 << 3  # PERF_FLAG_FD_CLOEXEC
_READ = struct.Struct("=QQQ")  # what `_TIMES` makes a read yield

# What says that it cannot be had here: no such counter (virtual machines), not allowed (containers, or
# /proc/sys/kernel/perf_event_paranoid), no such call (sandboxes), taken by somebody else. The rest are mistakes.
_REFUSALS = {
    errno.ENOENT,
    errno.ENODEV,
    errno.EOPNOTSUPP,
    errno.EACCES,
    errno.EPERM,
    errno.ENOSYS,
    errno.EBUSY,
}


class Unavailable(Exception):
    """Instructions cannot be counted here; the message says why."""


class Reading(NamedTuple):
    """What was counted so far, and for how many nanoseconds it should have been (*enabled*) and was (*running*).

    The times are of running on a processor. They differ where there are more events than counters, which then take
    turns.
    """

    instructions: int
    enabled: int
    running: int


class Counters:
    """Counts the instructions of groups of processes, in user mode and in the kernel, from now on until it is closed.

    Threads and children started later are counted with who started them, even when they have ended ("inherit"); those
    that are there already are counted only if listed. Of a listed process, all threads are counted. Raises
    Unavailable, or another OSError if, for instance, there are too many threads for the limit on open files.
    """

    def __init__(self, groups: Mapping[str, Iterable[int]]) -> None:
        with ExitStack() as opened:  # which closes what it has if the next one cannot be opened
            self._groups = {name: list(_open(pids, opened)) for name, pids in groups.items()}
            self._opened = opened.pop_all()

    def read(self) -> dict[str, Reading]:
        """Return what was counted so far, by group."""
        return {
            name: Reading(
                *map(sum, zip((0, 0, 0), *(_READ.unpack(os.read(fd, _READ.size)) for fd in fds), strict=True))
            )
            for name, fds in self._groups.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()


def retired(before: Mapping[str, Reading], after: Mapping[str, Reading]) -> dict[str, float]:
    """Return the instructions retired between two readings, by group; what had to do without a counter is estimated.

    Raises Unavailable if what ran was not counted at all: some virtual machines have counters that stand still.
    """
    found = {}
    for name in before:
        count, enabled, running = (late - early for early, late in zip(before[name], after[name], strict=True))
        if enabled and not (count and running):
            raise Unavailable("the counter stands still")
        found[name] = count * enabled / running if running else 0.0  # else it slept
    return found


def unavailable() -> str:
    """Return why instructions cannot be counted here; an empty string if they can."""
    try:
        with Counters({"own": [os.getpid()]}) as counters:
            retired(counters.read(), counters.read())
    except Unavailable as error:
        return str(error)
    return ""


def _open(pids: Iterable[int], opened: ExitStack) -> Iterator[int]:
    """Open an event for each thread of *pids*; those that have ended meanwhile have none."""
    for pid in pids:
        try:
            threads = os.listdir(f"/proc/{pid}/task")
        except FileNotFoundError:
            continue
        for thread in threads:
            try:
                fd = _perf_event_open(int(thread))
            except ProcessLookupError:
                continue
            except OSError as error:
                if error.errno in _REFUSALS:
                    raise Unavailable(f"perf_event_open: {error.strerror}") from error
                raise
            opened.callback(os.close, fd)
            yield fd


def _perf_event_open(thread: int) -> int:
    """Return the descriptor of an event that counts on whichever processor *thread* runs. Raises OSError."""
    number = _NUMBERS.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    attributes = _ATTRIBUTES.pack(_HARDWARE, _ATTRIBUTES.size, _INSTRUCTIONS, 0, 0, _TIMES, _FLAGS, 0, 0, 0)
    any_processor = no_group = -1
    arguments = (ctypes.c_long(each) for each in (thread, any_processor, no_group, _CLOSE_ON_EXEC))
    fd = int(ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), attributes, *arguments))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
