"""Several processes behind one address: started, looked after, replaced, and ended together.

The supervisor holds the listening sockets and answers nobody. Between it and each worker is a pair of sockets: there a
worker says that it accepts connections, is told to retire, and by the end of it knows that the supervisor is gone,
however that came about.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Protocol

from structlog.typing import FilteringBoundLogger

# What is said between the two.
_ACCEPTING, _RETIRE = b"+", b"-"
# Seconds before a worker that died is replaced: doubled each time, until one has lived for a while.
_PAUSE, _LONGEST_PAUSE, _LONG_LIFE = 0.1, 10.0, 30.0
# Seconds that a worker may take to accept connections, and to end beyond the grace that its streams have: 5 each for
# upstream's sockets, the last events, Redis and OTLP, and some to spare.
_STARTING, _ENDING = 60.0, 25.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_WRONG_SETTINGS = 2


class Supervisor:
    """The supervisor, as one of its workers sees it, on the socket that came with *descriptor*."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def accepting(self, retire: Callable[[], None], abandon: Callable[[], None]) -> None:
        """Say that this worker accepts connections; from now on call what it is told, in the running loop."""
        with suppress(OSError):  # it is gone, which is read, too
            self._socket.send(_ACCEPTING)
        loop = asyncio.get_running_loop()

        def listen() -> None:
            try:
                word = self._socket.recv(1)
            except ConnectionError:
                word = b""
            if not word:
                loop.remove_reader(self._socket)
            retire() if word else abandon()

        loop.add_reader(self._socket, listen)


class Spawn(Protocol):
    """Who starts workers."""

    def __call__(self, number: int, control: int) -> subprocess.Popen[bytes]:
        """Start worker *number*, from 0, with the descriptor *control* to its supervisor."""
        ...


class _Worker:
    """A child process. *deadline* is when it is killed unless it has done by then what is expected of it."""

    def __init__(self, slot: _Slot, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.control = control
        self.started = time.monotonic()
        self.deadline = self.started + _STARTING
        self.leaving = False


class _Slot:
    """The place of one worker: who has it, and who is to have it next."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: _Worker | None = None
        self.coming: _Worker | None = None
        self.pause = _PAUSE
        self.due = math.inf


class Workers:
    """*count* processes that *spawn* starts, which have *grace* seconds to end their streams when they are to leave."""

    def __init__(self, count: int, spawn: Spawn, grace: float, log: FilteringBoundLogger) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._spawn = spawn
        self._patience = grace + _ENDING
        self._log = log
        self._living: list[_Worker] = []
        self._waking = selectors.DefaultSelector()
        self._to_replace: deque[_Slot] = deque()
        self._announced = False
        self._stopping = False
        self._status = 0

    def run(self, announce: Callable[[], None]) -> int:
        """Look after the workers until SIGTERM or SIGINT has ended them all, and return the exit status.

        *announce* is called once, when all accept connections. SIGHUP replaces them one at a time. What is wrong with
        the settings ends it with status 2, unless that turns up later, when it keeps no worker from working.
        """
        with self._signals():
            self._start(self._slots[0])  # the first one alone, so that a complaint is made once
            while not (self._stopping and not self._living):
                for key, _ in self._waking.select(self._next_due()):
                    key.data()
                self._reap()
                self._go_on()
                if not self._announced and all(slot.current for slot in self._slots) and not self._starting():
                    self._announced = True
                    announce()
        return self._status

    @contextmanager
    def _signals(self) -> Iterator[None]:
        heard, told = socket.socketpair()
        for end in (heard, told):
            end.setblocking(False)
        before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        waker = signal.set_wakeup_fd(told.fileno(), warn_on_full_buffer=False)
        self._waking.register(heard, selectors.EVENT_READ, lambda: self._heard(heard.recv(64)))
        try:
            yield
        finally:
            signal.set_wakeup_fd(waker)
            for number, handler in before.items():
                signal.signal(number, handler)
            self._waking.close()
            heard.close()
            told.close()

    def _heard(self, numbers: bytes) -> None:
        for number in numbers:
            if number in (signal.SIGTERM, signal.SIGINT):
                self._stop(hurry=number == signal.SIGINT)
            elif number == signal.SIGHUP and not self._stopping:
                self._log.info("workers.reloading", workers=len(self._slots))
                self._to_replace = deque(self._slots)

    def _stop(self, *, hurry: bool = False) -> None:
        """Have all drain; if they do so already and there is a *hurry*, have them end at once."""
        again, self._stopping = self._stopping, True
        if not again:
            self._log.info("workers.stopping", workers=len(self._living))
        for worker in self._living:
            if not again:
                self._expect_end(worker)
            if hurry or not again:
                # A first SIGINT asks for no more than SIGTERM does; a second one is told as such.
                worker.process.send_signal(signal.SIGINT if again else signal.SIGTERM)

    def _start(self, slot: _Slot) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            worker = _Worker(slot, self._spawn(slot.number, theirs.fileno()), ours)
        self._living.append(worker)
        self._waking.register(ours, selectors.EVENT_READ, lambda: self._told(worker))
        slot.due = math.inf
        slot.coming = worker
        return worker

    def _told(self, worker: _Worker) -> None:
        try:
            word = worker.control.recv(1)
        except ConnectionError:
            word = b""
        if not word:
            self._waking.unregister(worker.control)  # it is ending; SIGCHLD says when
        elif worker is worker.slot.coming:
            self._accepts(worker)

    def _accepts(self, worker: _Worker) -> None:
        slot, worker.deadline = worker.slot, math.inf
        old, slot.current, slot.coming = slot.current, worker, None
        self._log.info("worker.started", worker=slot.number, pid=worker.process.pid)
        if old is not None:
            self._expect_end(old)
            with suppress(OSError):  # it is just ending by itself
                old.control.send(_RETIRE)
        for other in self._slots if not self._announced else ():
            if other.current is other.coming is None and other.due == math.inf:
                self._start(other)

    def _expect_end(self, worker: _Worker) -> None:
        worker.leaving = True
        worker.deadline = time.monotonic() + self._patience

    def _reap(self) -> None:
        for worker in list(self._living):
            status = worker.process.poll()
            if status is not None:
                self._living.remove(worker)
                if worker.control.fileno() in self._waking.get_map():
                    self._waking.unregister(worker.control)
                worker.control.close()
                self._ended(worker, status)
            elif time.monotonic() >= worker.deadline:
                worker.deadline = math.inf
                self._status = self._status or int(self._stopping)
                self._log.error("worker.killed", worker=worker.slot.number, pid=worker.process.pid)
                worker.process.kill()

    def _ended(self, worker: _Worker, status: int) -> None:
        slot, facts = worker.slot, {"worker": worker.slot.number, "pid": worker.process.pid, "status": status}
        if worker.leaving:
            self._log.info("worker.ended", **facts)
            return
        if status == _WRONG_SETTINGS and not self._announced:
            self._status = status
            self._stop()
            return
        slot.current, slot.coming = (None if it is worker else it for it in (slot.current, slot.coming))
        if slot.current is None and slot.coming is None:
            lived = time.monotonic() - worker.started
            pause = _PAUSE if lived > _LONG_LIFE else slot.pause
            slot.due, slot.pause = time.monotonic() + pause, min(2 * pause, _LONGEST_PAUSE)
            self._log.error("worker.died", **facts, again_in=pause)
        else:
            self._to_replace.clear()  # what keeps one from starting keeps the others as well
            self._log.error("workers.not_reloaded", **facts)

    def _go_on(self) -> None:
        """Start whoever is due, and the next replacement when the last one is done."""
        if self._stopping:
            return
        for slot in self._slots:
            if slot.due <= time.monotonic():
                self._start(slot)
        if self._to_replace and not self._starting() and not any(worker.leaving for worker in self._living):
            self._start(self._to_replace.popleft())

    def _starting(self) -> bool:
        return any(slot.coming is not None for slot in self._slots)

    def _next_due(self) -> float | None:
        times = [slot.due for slot in self._slots] + [worker.deadline for worker in self._living]
        soonest = min(times, default=math.inf)
        return None if soonest == math.inf else max(0.0, soonest - time.monotonic())
