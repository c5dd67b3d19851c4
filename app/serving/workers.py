"""Several processes behind one address: a supervisor that starts workers, restarts those that die, and replaces them.

The supervisor holds the listening sockets and accepts no connection itself. A worker inherits the listeners and one
end of a socket pair. Over that pair the worker says that it accepts connections, and the supervisor tells it to retire.
When either process ends, for whatever cause, the other one reads the end of the pair.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

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
    """A child process, for the slot *slot*. The timer *killing* kills it unless it starts, or ends, in time."""

    killing: asyncio.TimerHandle

    def __init__(self, slot: _Slot, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self.slot = slot
        self.process = process
        self.control = control
        self.started = time.monotonic()
        self.ending = False  # as it was told to


class _Slot:
    """One of the *count* places for workers.

    *current* accepts connections. *starting* will replace it as soon as it does so too. If there is neither, the timer
    *restart* starts a worker.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.current: _Worker | None = None
        self.starting: _Worker | None = None
        self.restart: asyncio.TimerHandle | None = None
        self.next_delay = _FIRST_DELAY

    @property
    def empty(self) -> bool:
        return self.current is None and self.starting is None


class Supervisor:
    """Runs *count* workers, which *spawn* starts.

    A worker that is to end gets *grace* seconds for its streams and *end_timeout* more; then it is killed. *announce*
    is called once, when all workers accept connections, and *interrupted* at the first SIGINT.
    """

    _ended: asyncio.Future[None]

    def __init__(
        self,
        count: int,
        spawn: Spawn,
        grace: float,
        announce: Callable[[], None],
        interrupted: Callable[[], None],
        log: FilteringBoundLogger,
        end_timeout: float = END_TIMEOUT,
    ) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._spawn = spawn
        self._end_timeout = grace + end_timeout
        self._announce = announce
        self._interrupted = interrupted
        self._log = log
        self._workers: list[_Worker] = []
        self._to_replace: deque[_Slot] = deque()
        self._announced = False
        self._stopping = False
        self._status = 0

    async def run(self) -> int:
        """Run the workers until SIGTERM or SIGINT has ended them all, and return the exit status.

        SIGHUP replaces the workers one at a time. If a worker finds the settings wrong before all workers accept
        connections, the status is 2. Later, wrong settings only end a reload: the workers that are there go on.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        # The loop would only log that a worker could not be started. Without a supervisor, the others drain and end.
        loop.set_exception_handler(lambda _, context: self._ended.set_exception(context["exception"]))
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._interrupt)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        # The first worker starts alone, so that wrong settings are reported once.
        self._start(self._slots[0])
        await self._ended
        return self._status

    def _interrupt(self) -> None:
        """Stop; if that is under way, have the workers not wait for their streams."""
        if not self._stopping:
            self._interrupted()
            self._stop()
            return
        for worker in self._workers:
            worker.process.send_signal(signal.SIGINT)

    def _stop(self) -> None:
        """Have all workers drain and end."""
        if self._stopping:
            return
        self._stopping = True
        self._log.info("workers.stopping", workers=len(self._workers))
        for worker in self._workers:
            self._expect_end(worker)
            worker.process.send_signal(signal.SIGTERM)
        self._go_on()

    def _reload(self) -> None:
        if not self._stopping:
            self._log.info("workers.reloading", workers=len(self._slots))
            self._to_replace = deque(self._slots)
            self._go_on()

    def _start(self, slot: _Slot) -> None:
        if self._stopping:
            return
        if slot.restart is not None:
            slot.restart.cancel()
            slot.restart = None
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            process = self._spawn(slot.number, theirs.fileno())
        worker = _Worker(slot, process, ours)
        worker.killing = loop.call_later(_START_TIMEOUT, self._kill, worker)
        self._workers.append(worker)
        slot.starting = worker
        loop.add_reader(ours, self._on_readable, worker)

    def _on_readable(self, worker: _Worker) -> None:
        if not _receive(worker.control):
            # It is ending, and SIGCHLD says when it has ended.
            asyncio.get_running_loop().remove_reader(worker.control)
        elif worker is worker.slot.starting:
            self._on_accepting(worker)

    def _on_accepting(self, worker: _Worker) -> None:
        slot = worker.slot
        replaced = slot.current
        slot.current = worker
        slot.starting = None
        if not worker.ending:
            worker.killing.cancel()
        self._log.info("worker.started", worker=slot.number, pid=worker.process.pid)
        if replaced is not None:
            self._expect_end(replaced)
            with suppress(OSError):  # it is ending by itself
                replaced.control.send(_RETIRE)
        if not self._announced:
            # The first worker is there, so the settings are right: start the others.
            for other in self._slots:
                if other.empty and other.restart is None:
                    self._start(other)
        self._go_on()

    def _expect_end(self, worker: _Worker) -> None:
        worker.ending = True
        worker.killing.cancel()
        worker.killing = asyncio.get_running_loop().call_later(self._end_timeout, self._kill, worker)

    def _kill(self, worker: _Worker) -> None:
        if self._stopping and not self._status:
            self._status = 1
        self._log.error("worker.killed", worker=worker.slot.number, pid=worker.process.pid)
        worker.process.kill()

    def _reap(self) -> None:
        """Take note of the workers that have ended."""
        for worker in list(self._workers):
            status = worker.process.poll()
            if status is not None:
                self._workers.remove(worker)
                worker.killing.cancel()
                asyncio.get_running_loop().remove_reader(worker.control)
                worker.control.close()
                self._on_end(worker, status)
        self._go_on()

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
            delay = _FIRST_DELAY if time.monotonic() - worker.started > _LONG_LIFE else slot.next_delay
            slot.restart = asyncio.get_running_loop().call_later(delay, self._start, slot)
            slot.next_delay = min(2 * delay, _LONGEST_DELAY)
            self._log.error("worker.died", **facts, again_in=delay)
        else:
            # What kept this worker from starting would keep the others from it as well.
            self._to_replace.clear()
            self._log.error("workers.not_reloaded", **facts)

    def _go_on(self) -> None:
        """After a change, do what was waiting for it: announce, start the next replacement, or end."""
        if self._stopping:
            if not self._workers and not self._ended.done():
                self._ended.set_result(None)
            return
        if any(slot.starting for slot in self._slots):
            return
        if not self._announced and all(slot.current for slot in self._slots):
            self._announced = True
            self._announce()
        if self._to_replace and not any(worker.ending for worker in self._workers):
            self._start(self._to_replace.popleft())


def _receive(control: socket.socket) -> bytes:
    """Return one message, or nothing if the other process has ended."""
    try:
        return control.recv(1)
    except ConnectionError:
        return b""
