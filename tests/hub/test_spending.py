"""Spending: what is asked before a stream is opened, and what that decides."""

from __future__ import annotations

from dataclasses import replace

import pytest
from structlog.typing import FilteringBoundLogger

from app.errors import BudgetSpent
from app.events import Delta, Done
from app.hub import IdempotencyKey, Spending
from app.request import Allowance, Principal, StreamRequest
from app.upstream import Attempt
from tests.house import House

pytestmark = pytest.mark.anyio

ASKED = StreamRequest("m", ({"role": "user", "content": "hi"},))
KEY = IdempotencyKey("k", b"fingerprint")


async def test_everything_is_allowed_by_default() -> None:
    """Without a budget, a request is as it was, and there is nothing to give back."""
    assert await Spending().reserve("s", ASKED, Principal()) is ASKED
    assert await Spending().extend("s", ASKED, [Attempt()]) is ASKED
    await Spending().release("s")


async def test_a_stream_that_may_not_spend(log: FilteringBoundLogger) -> None:
    """Where nothing may be spent, nothing is started and the key stays free; a key in use still leads to its stream."""

    class Sparing(Spending):
        spent = False

        async def reserve(self, stream_id: str, request: StreamRequest, principal: Principal) -> StreamRequest:
            if self.spent:
                raise BudgetSpent
            return replace(request, parameters={"max_tokens": 7})

    spending = Sparing()
    house = House(log, (Delta("a"),), (Done("stop"),), spending=spending)
    stream_id = await house.hub.open(ASKED, key=KEY)
    spending.spent = True
    assert await house.hub.open(ASKED, key=KEY) == stream_id
    other = IdempotencyKey("another", b"other")
    who = Principal("ann", Allowance(streams=1))
    for key in (other, None, other):
        with pytest.raises(BudgetSpent):
            await house.hub.open(ASKED, who, key)
    await house.settled()
    assert house.source.started == 1
    spending.spent = False
    assert await house.hub.open(ASKED, who, other) != stream_id
    await house.settled()
