"""The budgets of a process that writes what accounts have spent to disk. Reservations end with the process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from app.journal.budgets import DAY, MemoryBudgets

Spent = tuple[str, int, float]
"""An account, what it has spent, and until when that counts, in seconds since the epoch."""


class FileBudgets(MemoryBudgets):
    """The budgets of this process. *wake* wakes what writes them; *now* is a clock in seconds since the epoch."""

    def __init__(self, wake: asyncio.Event, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._wake = wake
        self._changed: dict[str, None] = {}

    @property
    def changed(self) -> bool:
        """Whether something was spent that is not written."""
        return bool(self._changed)

    def load(self, accounts: Iterable[Spent]) -> None:
        """Begin with what the *accounts* have spent. A clock that was put back does not prolong their day."""
        for account, spent, until in accounts:
            self.restore(account, spent, min(until, self._now() + DAY))

    async def settle(self, account: str, stream_id: str, tokens: int) -> None:
        before = self.spent(account)
        await super().settle(account, stream_id, tokens)
        if self.spent(account) != before:
            self._changed[account] = None
            self._wake.set()

    def take(self) -> list[Spent]:
        """Return the accounts that have changed, and forget which they are."""
        changed, self._changed = self._changed, {}
        return [(account, *self.spent(account)) for account in changed]

    def put_back(self, accounts: Iterable[Spent]) -> None:
        """Have *accounts* written another time."""
        self._changed.update(dict.fromkeys(account for account, *_ in accounts))
