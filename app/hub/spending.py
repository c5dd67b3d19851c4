"""What a stream may spend: asked before a stream is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.request import Principal, StreamRequest
from app.upstream import Attempt


class Spending:
    """Decides whether a stream may be opened, and how much it may spend. This one allows everything."""

    async def reserve(self, stream_id: str, request: StreamRequest, principal: Principal) -> StreamRequest:
        """Reserve what the stream may spend, and return *request* with that as its limit.

        Raises BudgetSpent or JournalDown.
        """
        return request

    async def extend(self, stream_id: str, request: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
        """Reserve what one attempt more may spend besides those that were made, and return its request: see `Afford`.

        Raises BudgetSpent or JournalDown.
        """
        return request

    def note(self, stream_id: str, attempts: Sequence[Attempt]) -> Mapping[str, Any]:
        """Return what `resume` needs, in another process, if the last of *attempts* brings the answer: JSON."""
        return {}

    async def resume(self, stream_id: str, account: str, note: Mapping[str, Any]) -> None:
        """Reserve again what was reserved for a stream of *account* that this process goes on with.

        It is not refused, because it may be spent already. Raises JournalDown, or ValueError for a *note* that is not
        this class's.
        """

    async def release(self, stream_id: str) -> None:
        """Give back what was reserved for a stream that was not opened after all. Raises nothing."""
