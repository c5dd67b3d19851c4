"""Whether what keeps the streams can be used, what is logged of that, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger


class Availability:
    """Whether the place where streams are kept did what it was last asked for.

    *explain* returns what an error says, for the log, and repeats nothing of the content. Its `reason` is a word that
    operators search for.
    """

    def __init__(self, explain: Callable[[Exception], dict[str, str]], log: FilteringBoundLogger) -> None:
        self._explain = explain
        self._log = log
        self._since = 0.0
        self._away = asyncio.Event()
        self._back = asyncio.Event()
        self._logged: set[str] = set()  # the reasons that were logged since it went away

    @property
    def away(self) -> bool:
        """Whether it did not answer, or refused."""
        return self._away.is_set()

    def failed(self, error: Exception) -> None:
        """Note that it cannot be used, and log why: each reason once, until it is back."""
        facts = self._explain(error)
        reason = facts["reason"]
        if not self.away:
            self._since = asyncio.get_running_loop().time()
            self._logged.clear()
            self._back.clear()
            self._away.set()
        if not self._logged or (reason and reason not in self._logged):
            self._logged.add(reason)
            self._log.error("journal.away", error=type(error).__name__, **facts)

    def answered(self) -> bool:
        """Note that it can be used; return whether it could not be used until now."""
        if not self.away:
            return False
        self._away.clear()
        self._back.set()
        self._log.info("journal.back", away=round(asyncio.get_running_loop().time() - self._since, 3))
        return True

    async def outage(self, seconds: float) -> None:
        """Wait until it has been away for *seconds* on end, counted from now or from when it goes away."""
        while True:
            await self._away.wait()
            try:
                async with asyncio.timeout(seconds):
                    await self._back.wait()
            except TimeoutError:
                return
