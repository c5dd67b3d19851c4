"""Budgets: how many tokens a day the streams of each principal may take.

Tokens are reserved before a stream is opened: as many as the request asks for, or as the upstream may be asked for at
most, or as are left. The upstream is told that number as its limit. So neither streams that are live together nor one
that is stopped before its usage comes can take more than the budget has.

An attempt may have taken tokens, and be followed by another: the upstream was too slow, say, and the next one is asked.
Then tokens for that one are reserved as well, and it is not asked if the budget has none.

When the stream has ended, the upstream's own count is charged in place of the reservation, for each attempt that it
accepted. Where it sent none, because it was stopped, cut or does not count, the whole reservation is charged: hidden
reasoning takes tokens of which nothing is seen. What never reached an upstream, and what the upstream refused, costs
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from app.edge.access.prompt import prompt_tokens
from app.edge.access.rates import Level
from app.edge.bodies import TOKEN_FIELDS
from app.errors import BudgetSpent, JournalDown
from app.hub import Observer, Outcome, Spending
from app.journal.budgets import DAY, Budgets
from app.request import Principal, StreamRequest
from app.upstream import Attempt
from app.usage import Usage, estimate_tokens

# An answer is not cut to fewer tokens than the least that every upstream takes as a limit (OpenAI's Responses: 16).
_LEAST = 16
# A budget that nothing exceeds.
_ANY = 1 << 50
# Seconds to wait where the rest of a budget is reserved for streams that are live.
_WAIT_FOR_STREAMS = 5.0


class _Reservation(NamedTuple):
    """What is reserved for a stream of an *account* that has a *budget*.

    It is the tokens of the *prompt* and a limit on those of the answer, for each attempt that may cost something, and
    what the attempts of an earlier process have *taken*.
    """

    account: str
    budget: int
    prompt: int
    limits: tuple[int, ...] = ()
    taken: int = 0


class DailyBudgets(Spending, Observer):
    """Keeps the streams of each principal within its budget.

    *reserve_tokens* are reserved for a request that asks for no limit. With *count_input*, the tokens of prompts count,
    too.
    """

    def __init__(self, budgets: Budgets, reserve_tokens: int = 4096, *, count_input: bool = False) -> None:
        self._budgets = budgets
        self._reserve_tokens = reserve_tokens
        self._count_input = count_input
        self._reserved: dict[str, _Reservation] = {}  # by live stream

    async def level(self, principal: Principal) -> Level | None:
        """Return what is left of the principal's budget; None if it has none, or if that cannot be known now."""
        most = principal.allowance.tokens
        if not most:
            return None
        try:
            spent, reserved, reset = await self._budgets.balance(principal.counted_as())
        except JournalDown:
            return None  # no stream can be opened either
        tokens = "tokens" if self._count_input else "output tokens"
        return Level(most, max(0, most - spent - reserved), reset, f'{most};w={DAY};comment="{tokens}"')

    async def reserve(self, stream_id: str, request: StreamRequest, principal: Principal) -> StreamRequest:
        """See `Spending`."""
        budget = principal.allowance.tokens
        if not budget:
            return request
        prompt = 0
        if self._count_input:
            prompt = prompt_tokens(request.messages, {**request.responses, **request.parameters})
        reservation = _Reservation(principal.counted_as(), budget, prompt)
        return await self._reserve(stream_id, request, reservation, 0)

    async def extend(self, stream_id: str, request: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
        """See `Spending`."""
        reservation = self._reserved.get(stream_id)
        if reservation is None:
            return request
        costs = [usage for attempt in attempts for usage in attempt.costs]
        return await self._reserve(stream_id, request, reservation, self._tokens(costs, reservation))

    async def _reserve(
        self, stream_id: str, request: StreamRequest, reservation: _Reservation, taken: int
    ) -> StreamRequest:
        """Reserve what the next attempt may take, besides the tokens that earlier ones have *taken*."""
        asked = min(_limits(request), default=None)
        answer = self._reserve_tokens if asked is None else asked
        fixed = taken + reservation.prompt
        least = fixed + min(answer, _LEAST)
        account, budget = reservation.account, reservation.budget
        granted, balance = await self._budgets.reserve(account, stream_id, budget, fixed + answer, least)
        if not granted:
            if budget - balance.spent < least:
                raise BudgetSpent(retry_after=max(1, math.ceil(balance.reset)))
            raise BudgetSpent(
                "What is left of today's tokens is reserved for answers that are being written.",
                retry_after=_WAIT_FOR_STREAMS,
            )
        limit = granted - fixed
        self._reserved[stream_id] = reservation._replace(limits=(*reservation.limits, limit))
        return request if limit == asked else _limited(request, limit)

    def note(self, stream_id: str, attempts: Sequence[Attempt]) -> Mapping[str, Any]:
        """See `Spending`. The last attempt is the one that goes on."""
        reservation = self._reserved.get(stream_id)
        if reservation is None:
            return {}
        costs = [usage for attempt in attempts[:-1] for usage in attempt.costs]
        taken = self._tokens(costs, reservation)
        return {"prompt": reservation.prompt, "limit": reservation.limits[-1], "taken": taken}

    async def resume(self, stream_id: str, account: str, note: Mapping[str, Any]) -> None:
        """See `Spending`."""
        if not note:
            return
        try:
            prompt, limit, taken = (int(note[name]) for name in ("prompt", "limit", "taken"))
        except (KeyError, TypeError):
            raise ValueError("no note of a reservation") from None
        self._reserved[stream_id] = _Reservation(account, _ANY, prompt, (limit,), taken)
        await self._budgets.reserve(account, stream_id, _ANY, taken + prompt + limit, 0)

    async def release(self, stream_id: str) -> None:
        """See `Spending`."""
        reservation = self._reserved.pop(stream_id, None)
        if reservation is not None:
            await self._budgets.settle(reservation.account, stream_id, 0)

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Charge the stream's owner for what the upstreams made, however the stream ended."""
        reservation = self._reserved.pop(outcome.stream_id, None)
        if reservation is not None:
            tokens = self._tokens(outcome.costs, reservation, outcome.output_bytes)
            await self._budgets.settle(reservation.account, outcome.stream_id, tokens)

    def left(self, stream_id: str) -> None:
        """Forget what was reserved: the process that goes on with the stream reserves and charges it."""
        self._reserved.pop(stream_id, None)

    def _tokens(self, costs: Iterable[Usage | None], reservation: _Reservation, output_bytes: int = 0) -> int:
        """Return the tokens of all attempts that may have cost something."""
        tokens = reservation.taken
        for usage, limit in zip(costs, reservation.limits, strict=False):
            tokens += usage.made_tokens if usage else max(limit, estimate_tokens(output_bytes))
            if self._count_input:
                tokens += (usage.input_tokens if usage else 0) or reservation.prompt
        return tokens


def _limits(request: StreamRequest) -> Iterable[int]:
    """Return the limits on the answer's tokens that a request has."""
    values = (request.parameters.get(name) for name in TOKEN_FIELDS)
    return [value for value in values if type(value) is int and value > 0]


def _limited(request: StreamRequest, tokens: int) -> StreamRequest:
    """Return *request* with a limit of *tokens* in the fields in which it has one, or else in the upstream's own."""
    names = [name for name in TOKEN_FIELDS if request.parameters.get(name)] or [request.output_tokens_field]
    return replace(request, parameters={**request.parameters, **dict.fromkeys(names, tokens)})
