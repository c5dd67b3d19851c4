"""An event loop without a clock of its own: one seed, one history."""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVarTuple

Ts = TypeVarTuple("Ts")


class Stuck(AssertionError):
    """Nothing is left to run, and no timer is left to wait for, but the history has not ended."""


class SeededLoop(asyncio.BaseEventLoop):
    """Runs what is ready in an order that *choose* draws. Time passes only when nothing is ready, and then at once.

    It has no sockets, threads, processes or signals. *failures* are the exceptions that nothing has caught, and *steps*
    counts the callbacks.

    asyncio runs callbacks in the order in which they were scheduled. Nothing says in which order the network, other
    processes and timers bring them. So those that one callback has scheduled keep their order, and others mix.
    """

    def __init__(self, choose: random.Random) -> None:
        super().__init__()
        self._choose = choose
        self._now = 0.0
        self._now_scheduled: list[events.Handle] = []  # by the callback that runs
        self._waiting: list[list[events.Handle]] = []  # by the callback that scheduled them
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._timers_so_far = 0
        self.steps = 0
        self.failures: list[dict[str, Any]] = []

    def time(self) -> float:
        return self._now

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = events.Handle(callback, args, self, context)
        self._now_scheduled.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = events.TimerHandle(when, callback, args, self, context)
        self._timers_so_far += 1
        heapq.heappush(self._timers, (when, self._timers_so_far, handle))
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """Do nothing: `_let_time_pass` skips it."""

    def call_exception_handler(self, context: Any) -> None:
        self.failures.append(context)

    def run_until_complete(self, future: Any) -> Any:
        task = asyncio.ensure_future(future, loop=self)
        events._set_running_loop(self)
        try:
            while not task.done():
                self._step()
        finally:
            events._set_running_loop(None)
        return task.result()

    def _step(self) -> None:
        """Run one callback of those that are ready. If there are none, let time pass."""
        if self._now_scheduled:
            self._waiting.append(self._now_scheduled)
            self._now_scheduled = []
        if not self._waiting:
            self._let_time_pass()
            return
        index = self._choose.randrange(len(self._waiting)) if len(self._waiting) > 1 else 0
        handles = self._waiting[index]
        handle = handles.pop(0)
        if not handles:
            del self._waiting[index]
        if not handle.cancelled():
            self.steps += 1
            handle._run()

    def _let_time_pass(self) -> None:
        """Go to the time of the next timer. Those of one time are ready together."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if not self._timers:
            raise Stuck("nothing is ready, and there is no timer")
        self._now = max(self._now, self._timers[0][0])
        while self._timers and self._timers[0][0] <= self._now:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self._waiting.append([handle])
