"""What a stream may spend: asked before a stream is opened."""

from __future__ import annotations

from collections.abc import Sequence

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

    async def release(self, stream_id: str) -> None:
        """Give back what was reserved for a stream that was not opened after all. Raises nothing."""
