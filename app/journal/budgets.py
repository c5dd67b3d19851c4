"""What each account has spent of its day's budget, and what is reserved for streams that are live.

A reservation is taken before a stream is opened, and settled once after its end, so streams that are live together
cannot exceed a budget. A reservation lapses if its process dies, as the process's slots do: nothing is charged for it.

What is spent counts for a day from the first charge on; nothing is carried over into the next day.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

DAY = 86_400
_SWEEP = 60.0


class Balance(NamedTuple):
    """Where an account stands, in tokens; what is *spent* is forgotten in *reset* seconds."""

    spent: int
    reserved: int
    reset: float


class Budgets(Protocol):
    """The balances of all accounts."""

    async def balance(self, account: str) -> Balance:
        """Return the balance of an account. Raises JournalDown."""

    async def reserve(self, account: str, stream_id: str, budget: int, wanted: int, least: int) -> tuple[int, Balance]:
        """Reserve tokens for a stream: *wanted*, or what is left of *budget* if that is less.

        They take the place of what was reserved for the stream before. Returns how many were reserved, and the balance
        without the stream's own. It is 0, and nothing changes, if fewer than *least* are left. Raises JournalDown.
        """

    async def settle(self, account: str, stream_id: str, tokens: int) -> None:
        """Charge *tokens* for a stream, once, and end its reservation. Raises nothing."""


@dataclass(slots=True)
class _Account:
    spent: int = 0
    until: float = 0.0
    reserved: dict[str, int] = field(default_factory=dict)  # by stream


class MemoryBudgets:
    """The budgets of a process that shares its streams with no other. *now* is a clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._accounts: dict[str, _Account] = {}
        self._sweep_at = 0.0

    def __len__(self) -> int:
        """How many accounts are remembered."""
        return len(self._accounts)

    async def balance(self, account: str) -> Balance:
        now = self._now()
        return _balance(self._accounts.get(account) or _Account(), now)

    async def reserve(self, account: str, stream_id: str, budget: int, wanted: int, least: int) -> tuple[int, Balance]:
        now = self._now()
        self._sweep(now)
        known = self._accounts.get(account) or _Account()
        balance = _balance(known, now)
        balance = balance._replace(reserved=balance.reserved - known.reserved.get(stream_id, 0))
        granted = min(wanted, budget - balance.spent - balance.reserved)
        if granted < least:
            return 0, balance
        self._accounts[account] = known
        known.reserved[stream_id] = granted
        return granted, balance

    async def settle(self, account: str, stream_id: str, tokens: int) -> None:
        known = self._accounts.get(account)
        if known is None or known.reserved.pop(stream_id, None) is None:
            return
        now = self._now()
        if tokens:
            if known.until <= now:
                known.spent = 0
                known.until = now + DAY
            known.spent += tokens

    def restore(self, account: str, spent: int, until: float) -> None:
        """Have an account begin with what it has *spent*, which counts *until* that time."""
        self._accounts[account] = _Account(spent, until)

    def spent(self, account: str) -> tuple[int, float]:
        """Return what an account has spent, and until when that counts."""
        known = self._accounts.get(account) or _Account()
        return known.spent, known.until

    def _sweep(self, now: float) -> None:
        """Forget the accounts that have neither spent nor reserved anything; look for them once a minute only."""
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP
            forgotten = [name for name, each in self._accounts.items() if each.until <= now and not each.reserved]
            for name in forgotten:
                del self._accounts[name]


def _balance(account: _Account, now: float) -> Balance:
    live = account.until > now
    return Balance(
        account.spent if live else 0, sum(account.reserved.values()), account.until - now if live else float(DAY)
    )
