"""Several processes behind one address: a supervisor that starts workers, restarts those that die, and replaces them.

The supervisor holds the listening sockets and accepts no connection itself. A worker inherits the listeners and one
end of a socket pair. Over that pair the worker says that it accepts connections, and the supervisor tells it to retire.
When either process ends, for whatever cause, the other one reads the end of the pair.
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

from structlog.typing import FilteringBoundLogger

# The messages over the pair: the first from the worker, the second from the supervisor.
_ACCEPTING = b"+"
_RETIRE = b"-"
# Seconds until a dead worker is restarted. The delay doubles each time, until a worker has lived for a while.
_FIRST_DELAY = 0.1
_LONGEST_DELAY = 10.0
_LONG_LIFE = 30.0
# Seconds that a worker may take to accept connections.
_START_TIMEOUT = 60.0
# Seconds that a worker may take to end, beyond the grace of its streams: 5 each for the upstream's sockets, the last
# events, Redis and OTLP, and some to spare.
END_TIMEOUT = 25.0
# Starts the worker of a number, from 0 on, which inherits the descriptor of its end of the pair.
Spawn = Callable[[int, int], subprocess.Popen[bytes]]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_WRONG_SETTINGS = 2


class SupervisorSocket:
    """A worker's end of the pair, which it inherited as *descriptor*."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)

    def accepting(self, on_retire: Callable[[], None], on_orphaned: Callable[[], None]) -> None:
        """Say that this worker accepts connections.

        From now on, the running loop calls *on_retire* when the supervisor tells it to, and *on_orphaned* when the
        supervisor has ended.
        """
        loop = asyncio.get_running_loop()

        def read() -> None:
            if _receive(self._socket):
                on_retire()
            else:
                loop.remove_reader(self._socket)
                on_orphaned()

        with suppress(OSError):  # the supervisor has ended, which `read` will notice
            self._socket.send(_ACCEPTING)
        loop.add_reader(self._socket, read)


class _Worker:
    """A child process, for the slot *slot*. It is killed at *deadline* if it is still starting or ending then."""

    def __init__(self, slot: _Slot, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.control = control
        self.started = time.monotonic()
        self.deadline = self.started + _START_TIMEOUT
        self.ending = False  # as it was told to


class _Slot:
    """One of the *count* places for workers.

    *current* accepts connections. *starting* will replace it as soon as it does so too. If there is neither, a worker
    is started at *restart_at*.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: _Worker | None = None
        self.starting: _Worker | None = None
        self.restart_at = math.inf
        self.next_delay = _FIRST_DELAY

    @property
    def empty(self) -> bool:
        return self.current is None and self.starting is None

    @property
    def settled(self) -> bool:
        return self.current is not None and self.starting is None


class Supervisor:
    """Runs *count* workers, which *spawn* starts.

    A worker that is to end gets *grace* seconds for its streams and *end_timeout* more; then it is killed.
    """

    def __init__(
        self, count: int, spawn: Spawn, grace: float, log: FilteringBoundLogger, end_timeout: float = END_TIMEOUT
    ) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._spawn = spawn
        self._end_timeout = grace + end_timeout
        self._log = log
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()
        self._to_replace: deque[_Slot] = deque()
        self._announced = False
        self._stopping = False
        self._status = 0

    def run(self, announce: Callable[[], None]) -> int:
        """Run the workers until SIGTERM or SIGINT has ended them all, and return the exit status.

        *announce* is called once, when all workers accept connections. SIGHUP replaces the workers one at a time. If a
        worker finds the settings wrong before that, the status is 2. Later, wrong settings only end a reload: the
        workers that are there go on.
        """
        with self._signals():
            # The first worker starts alone, so that wrong settings are reported once.
            self._start(self._slots[0])
            while self._workers or not self._stopping:
                for key, _ in self._selector.select(self._time_to_wait()):
                    key.data()
                self._reap()
                self._kill_overdue()
                if not self._stopping:
                    self._restart()
                    self._replace_next()
                    if not self._announced and all(slot.settled for slot in self._slots):
                        self._announced = True
                        announce()
        return self._status

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Have signals wake the selector."""
        receiver, sender = socket.socketpair()
        receiver.setblocking(False)
        sender.setblocking(False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        self._selector.register(receiver, selectors.EVENT_READ, lambda: self._on_signals(receiver.recv(64)))
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            receiver.close()
            sender.close()

    def _on_signals(self, numbers: bytes) -> None:
        """Act on signals, of which there is one a byte. SIGCHLD only wakes the selector."""
        for number in numbers:
            if number == signal.SIGINT and self._stopping:
                for worker in self._workers:
                    worker.process.send_signal(signal.SIGINT)  # do not wait for your streams
            elif number in (signal.SIGTERM, signal.SIGINT):
                self._stop()
            elif number == signal.SIGHUP and not self._stopping:
                self._log.info("workers.reloading", workers=len(self._slots))
                self._to_replace = deque(self._slots)

    def _stop(self) -> None:
        """Have all workers drain and end."""
        if self._stopping:
            return
        self._stopping = True
        self._log.info("workers.stopping", workers=len(self._workers))
        for worker in self._workers:
            self._expect_end(worker)
            worker.process.send_signal(signal.SIGTERM)

    def _start(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            worker = _Worker(slot, self._spawn(slot.number, theirs.fileno()), ours)
        self._workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._on_readable(worker))
        slot.restart_at = math.inf
        slot.starting = worker

    def _on_readable(self, worker: _Worker) -> None:
        if not _receive(worker.control):
            self._selector.unregister(worker.control)  # it is ending, and SIGCHLD says when it has ended
        elif worker is worker.slot.starting:
            self._on_accepting(worker)

    def _on_accepting(self, worker: _Worker) -> None:
        slot = worker.slot
        replaced = slot.current
        slot.current = worker
        slot.starting = None
        if not worker.ending:
            worker.deadline = math.inf
        self._log.info("worker.started", worker=slot.number, pid=worker.process.pid)
        if replaced is not None:
            self._expect_end(replaced)
            with suppress(OSError):  # it is ending by itself
                replaced.control.send(_RETIRE)
        if not self._announced and not self._stopping:
            # The first worker is there, so the settings are right: start the others.
            for other in self._slots:
                if other.empty and other.restart_at == math.inf:
                    self._start(other)

    def _expect_end(self, worker: _Worker) -> None:
        worker.ending = True
        worker.deadline = time.monotonic() + self._end_timeout

    def _reap(self) -> None:
        """Take note of the workers that have ended."""
        for worker in list(self._workers):
            status = worker.process.poll()
            if status is None:
                continue
            self._workers.remove(worker)
            if worker.control.fileno() in self._selector.get_map():
                self._selector.unregister(worker.control)
            worker.control.close()
            self._on_end(worker, status)

    def _on_end(self, worker: _Worker, status: int) -> None:
        slot = worker.slot
        facts = {"worker": slot.number, "pid": worker.process.pid, "status": status}
        if worker.ending:
            self._log.info("worker.ended", **facts)
            return
        if status == _WRONG_SETTINGS and not self._announced:
            self._status = status
            self._stop()
            return
        if slot.current is worker:
            slot.current = None
        if slot.starting is worker:
            slot.starting = None
        if slot.empty:
            now = time.monotonic()
            delay = _FIRST_DELAY if now - worker.started > _LONG_LIFE else slot.next_delay
            slot.restart_at = now + delay
            slot.next_delay = min(2 * delay, _LONGEST_DELAY)
            self._log.error("worker.died", **facts, again_in=delay)
        else:
            # What kept this worker from starting would keep the others from it as well.
            self._to_replace.clear()
            self._log.error("workers.not_reloaded", **facts)

    def _kill_overdue(self) -> None:
        for worker in self._workers:
            if worker.deadline <= time.monotonic():
                worker.deadline = math.inf
                if self._stopping and not self._status:
                    self._status = 1
                self._log.error("worker.killed", worker=worker.slot.number, pid=worker.process.pid)
                worker.process.kill()

    def _restart(self) -> None:
        for slot in self._slots:
            if slot.restart_at <= time.monotonic():
                self._start(slot)

    def _replace_next(self) -> None:
        """Start the next replacement if the last one is complete."""
        starting = any(slot.starting for slot in self._slots)
        ending = any(worker.ending for worker in self._workers)
        if self._to_replace and not starting and not ending:
            self._start(self._to_replace.popleft())

    def _time_to_wait(self) -> float | None:
        """Return the seconds until a worker has to be restarted or killed, or None if none has to be."""
        times = [worker.deadline for worker in self._workers]
        if not self._stopping:
            times += [slot.restart_at for slot in self._slots]
        earliest = min(times, default=math.inf)
        return None if earliest == math.inf else max(0.0, earliest - time.monotonic())


def _receive(control: socket.socket) -> bytes:
    """Return one message, or nothing if the other process has ended."""
    try:
        return control.recv(1)
    except ConnectionError:
        return b""
