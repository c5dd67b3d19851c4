"""Turns of the event loop: work that may be large is done in steps, and one turn of the loop has room for few of them.

A turn of the loop runs all that is ready, and only then looks for what the network has brought. So it is not enough
that each step is short: a thousand readers that are ready at once would hold the loop together. All steps of a process
share the room, and those that find none wait for a later turn, first come, first served.
"""

from __future__ import annotations

import asyncio
from collections import deque
from weakref import WeakKeyDictionary

ROOM = 1024
"""How much work one turn has room for: from two to ten milliseconds."""


class _Turns:
    """The turns of one loop. A step may be larger than what is left: the turns after it have less room then."""

    __slots__ = ("_room", "_scheduled", "_waiting")

    def __init__(self) -> None:
        self._room = ROOM
        self._scheduled = False
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    async def wait(self, work: int) -> None:
        if self._room > 0 and not self._waiting:
            self.spend(work)
            return
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((ready, work))
        await ready

    def spend(self, work: int) -> None:
        self._room -= work
        self._schedule()

    def _begin(self) -> None:
        """Begin the next turn. What is waked now runs in it, and so does this function, after that."""
        self._scheduled = False
        self._room = min(ROOM, self._room + ROOM)
        while self._waiting and self._room > 0:
            ready, work = self._waiting.popleft()
            if not ready.done():  # it may have been cancelled
                self._room -= work
                ready.set_result(None)
        if self._waiting or self._room < ROOM:
            self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def turn(work: int) -> None:
    """Return when the loop has room for a step of so much *work*: at once, or in a later turn.

    One unit is what a short record costs to be read and encoded, or a kilobyte of a long one: a few microseconds.
    """
    await _here().wait(work)


def worked(work: int) -> None:
    """Take note of *work* that was done without waiting, because it was not known before."""
    _here().spend(work)


def _here() -> _Turns:
    loop = asyncio.get_running_loop()
    turns = _of_loop.get(loop)
    if turns is None:
        turns = _of_loop[loop] = _Turns()
    return turns
