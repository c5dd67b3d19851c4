"""Budgets: what is reserved for a stream, what the upstream is told, and what is charged on each way out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.edge.access.budgets import DailyBudgets
from app.edge.access.prompt import prompt_tokens
from app.edge.whole import ending
from app.errors import (
    Blank,
    BudgetSpent,
    Disconnected,
    Draining,
    Empty,
    FirstTokenTimeout,
    JournalDown,
    Malformed,
    Overloaded,
    Rejected,
    Truncated,
    Unreachable,
)
from app.events import Delta, Done, Failure
from app.journal.budgets import DAY, Balance, MemoryBudgets
from app.request import Allowance, Principal, StreamRequest
from app.upstream import Attempt
from app.upstream.router import Router, Target
from app.usage import Usage
from tests.clock import Clock
from tests.house import House
from tests.script import Script, forever
from tests.telemetry.test_stream_counts import outcome
from tests.waiting import until

pytestmark = pytest.mark.anyio

MESSAGES = ({"role": "user", "content": "hi"},)
TEXT = Delta("x" * 40)


def principal(tokens: int, name: str = "ann") -> Principal:
    return Principal(name, Allowance(tokens=tokens))


def done(**usage: Any) -> tuple[Done]:
    return (Done("stop", usage=Usage(usage)),)


class Budgeted(House):
    """A hub whose streams have budgets."""

    def __init__(self, log: FilteringBoundLogger, *steps: Any, source: Any = None, count_input: bool = False) -> None:
        self.accounts = MemoryBudgets(Clock(1000))
        self.budgets = DailyBudgets(self.accounts, 100, count_input=count_input)
        super().__init__(log, *steps, source=source, observers=[self.budgets], spending=self.budgets)

    async def open(self, who: Principal, grace: float = math.inf, **parameters: Any) -> str:
        return await self.hub.open(StreamRequest("m", MESSAGES, parameters, grace=grace), who)

    async def balance(self, who: str = "ann") -> tuple[int, int]:
        """Return what is spent and what is reserved."""
        spent, reserved, _ = await self.accounts.balance(Principal(who).counted_as())
        return spent, reserved


# What is reserved, and what the upstream is told.


@pytest.mark.parametrize(
    ("left", "asked", "told"),
    [
        (1000, {}, {"max_completion_tokens": 100}),
        (60, {}, {"max_completion_tokens": 60}),
        (1000, {"max_tokens": 500}, {"max_tokens": 500}),
        (60, {"max_tokens": 500}, {"max_tokens": 60}),
        (60, {"max_tokens": 500, "max_completion_tokens": 400}, {"max_tokens": 60, "max_completion_tokens": 60}),
        (60, {"max_completion_tokens": 20}, {"max_completion_tokens": 20}),
        (5, {"max_tokens": 5}, {"max_tokens": 5}),
        (16, {}, {"max_completion_tokens": 16}),
        (
            60,
            {"max_tokens": None, "temperature": 1},
            {"max_tokens": None, "max_completion_tokens": 60, "temperature": 1},
        ),
    ],
)
async def test_a_reservation(left: int, asked: dict[str, Any], told: dict[str, Any]) -> None:
    """The smallest of what is asked, of the default and of what is left is reserved, and is the upstream's limit."""
    accounts = MemoryBudgets()
    budgets = DailyBudgets(accounts, 100)
    request = await budgets.reserve("s", StreamRequest("m", MESSAGES, asked), principal(left))
    assert request.parameters == told
    limit = min(value for name, value in told.items() if name != "temperature" and value)
    assert (await accounts.balance(principal(0).counted_as())).reserved == limit
    await budgets.release("s")
    assert (await accounts.balance(principal(0).counted_as()))[:2] == (0, 0)


async def test_the_upstreams_own_field() -> None:
    """A limit that the request does not have goes into the field that the upstream heeds."""
    request = StreamRequest("m", MESSAGES, output_tokens_field="max_tokens")
    assert (await DailyBudgets(MemoryBudgets()).reserve("s", request, principal(5000))).parameters == {
        "max_tokens": 4096
    }


async def test_without_a_budget() -> None:
    """A principal without a budget has nothing reserved, and its request is as it was."""
    budgets = DailyBudgets(accounts := MemoryBudgets())
    request = StreamRequest("m", MESSAGES)
    assert await budgets.reserve("s", request, principal(0)) is request
    assert len(accounts) == 0


@pytest.mark.parametrize(("asked", "least"), [({}, 16), ({"max_tokens": 10}, 10), ({"max_tokens": 400}, 16)])
async def test_too_little_left(asked: dict[str, Any], least: int) -> None:
    """An answer is not cut to a few tokens: a budget with fewer than the upstream takes as a limit is spent."""
    request = StreamRequest("m", MESSAGES, asked)
    budgets = DailyBudgets(MemoryBudgets())
    assert await budgets.reserve("s", request, principal(least)) is not None
    with pytest.raises(BudgetSpent):
        await budgets.reserve("t", request, principal(2 * least - 1))


async def test_when_to_come_back() -> None:
    """Where streams hold the rest of a budget, it may be had shortly; where it is spent, when its day is over."""
    clock = Clock(1000)
    budgets = DailyBudgets(accounts := MemoryBudgets(clock), 100)
    request = StreamRequest("m", MESSAGES)
    account = principal(0).counted_as()
    await budgets.reserve("s", request, principal(100))
    with pytest.raises(BudgetSpent, match="being written") as held:
        await budgets.reserve("t", request, principal(100))
    assert held.value.retry_after == 5
    await accounts.settle(account, "s", 100)
    clock.now += 600
    with pytest.raises(BudgetSpent, match="used up") as spent:
        await budgets.reserve("t", request, principal(100))
    assert spent.value.retry_after == DAY - 600
    clock.now += DAY - 600
    await budgets.reserve("t", request, principal(100))


async def test_a_prompt_counts(log: FilteringBoundLogger) -> None:
    """If the tokens of prompts count, those are reserved as well, with all that goes upstream. More is refused."""
    budgets = DailyBudgets(accounts := MemoryBudgets(), 100, count_input=True)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "x" * 10_000}}
    message = {"role": "user", "content": [{"type": "text", "text": "x" * 784}, picture]}
    request = StreamRequest("m", (message,), {"tools": [{"n": "y" * 380}]}, responses={"metadata": {"n": "z" * 380}})
    limited = await budgets.reserve("s", request, principal(10_000))
    assert limited.parameters["max_completion_tokens"] == 100
    reserved = (await accounts.balance(principal(0).counted_as())).reserved
    assert (
        reserved == prompt_tokens([message], {**request.parameters, **request.responses}) + 100 > 1500 + 784 // 4 + 290
    )
    with pytest.raises(BudgetSpent):
        await budgets.reserve("t", request, principal(reserved + 1500))
    level = await budgets.level(principal(10_000))
    assert level is not None
    assert level.policy == '10000;w=86400;comment="tokens"'


@pytest.mark.parametrize(("usage", "spent"), [({"prompt_tokens": 50, "completion_tokens": 7}, 57), ({}, 105)])
async def test_a_prompt_is_charged(log: FilteringBoundLogger, usage: dict[str, Any], spent: int) -> None:
    """The upstream's count of the prompt is charged, or else the estimate."""
    house = Budgeted(log, (TEXT,), done(**usage), count_input=True)
    await house.open(principal(1000))
    await house.settled()
    assert await house.balance() == (spent, 0)


# What is charged.


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"completion_tokens": 7}, 7),
        ({"completion_tokens": 700}, 700),
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 92}, 87),  # xAI: reasoning in the total alone
        ({"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 3}, 7),
        ({"completion_tokens": 7, "total_tokens": 30}, 7),
        ({"completion_tokens": 0}, 100),
        ({"completion_tokens": -7}, 100),
        ({"completion_tokens": "7"}, 100),
        ({"completion_tokens": True}, 100),
        ({"completion_tokens": 7.5}, 100),
        ({"completion_tokens": None}, 100),
        ({"completion_tokens": [7]}, 100),
        ({"completion_tokens": 10**30}, 100),
        ({"prompt_tokens": 7}, 100),
        ({}, 100),
    ],
)
async def test_the_upstreams_count(log: FilteringBoundLogger, usage: dict[str, Any], tokens: int) -> None:
    """The upstream's count is charged if it can be true; without one, what was reserved, for some may be hidden."""
    house = Budgeted(log, (TEXT,), done(**usage))
    await house.open(principal(1000))
    await house.settled()
    assert await house.balance() == (tokens, 0)


async def test_more_text_than_reserved(log: FilteringBoundLogger) -> None:
    """Of an upstream that neither heeds the limit nor counts, the text is charged if it is more."""
    house = Budgeted(log, (Delta("x" * 4000),), (Done("stop"),))
    await house.open(principal(5000))
    await house.settled()
    assert await house.balance() == (1000, 0)


STOPS = ["cancelled", "drained", "left", "shut down"]


@pytest.mark.parametrize("way", STOPS)
@pytest.mark.parametrize("when", ["before content", "after content", "after the finish"])
async def test_a_stop_is_charged_in_full(log: FilteringBoundLogger, way: str, when: str) -> None:
    """A client that stops a stream before its usage has come pays what was reserved, however little of it was seen."""

    class Finishing(Script):
        async def stream(self, request: StreamRequest, attempt: Any) -> Any:
            async for batch in super().stream(request, attempt):
                if when == "after the finish":
                    attempt.done = Done("stop", usage=Usage({"completion_tokens": 1}))
                yield batch

    said: list[Any] = [] if when == "before content" else [(TEXT,)]
    house = Budgeted(log, source=Finishing(*said, forever))
    await stop(house, way)
    assert await house.balance() == (100, 0)


async def test_an_early_count_is_not_believed(log: FilteringBoundLogger) -> None:
    """A running total is not the last one: a client that then stops the stream pays what was reserved."""

    class Counting(Script):
        async def stream(self, request: StreamRequest, attempt: Any) -> Any:
            attempt.usage = Usage({"completion_tokens": 1})
            async for batch in super().stream(request, attempt):
                yield batch

    house = Budgeted(log, source=Counting((TEXT,), forever))
    await stop(house, "cancelled")
    assert await house.balance() == (100, 0)


async def stop(house: Budgeted, way: str) -> None:
    """Open a stream, wait until the upstream has said all, and end the stream that way."""
    stream_id = await house.open(principal(1000), 0 if way == "left" else math.inf)
    said = sum(not callable(step) for step in house.source.steps)
    async with await house.hub.attach(stream_id, principal(1000)) as batches:
        while said and not any(isinstance(event, Delta) for event in (await anext(batches)).events):
            pass
        await until(lambda: house.source.started > 0)
        if way == "cancelled":
            await house.hub.cancel(stream_id, principal(1000))
        elif way == "drained":
            await house.hub.drain(0)
        elif way == "shut down":
            house.hub.stop(stream_id, Draining())
    await house.settled()


@pytest.mark.parametrize(
    ("steps", "tokens"),
    [
        ([(TEXT,), Truncated()], 100),
        ([(TEXT,), Disconnected()], 100),
        ([(TEXT,), ZeroDivisionError()], 100),
        ([ZeroDivisionError()], 100),
        ([Malformed()], 100),  # perhaps by what was asked for: a picture beyond the bound
        ([Blank()], 100),
        ([FirstTokenTimeout()], 100),
        ([Truncated()], 0),
        ([Disconnected()], 0),
        ([Empty()], 0),
        ([Rejected()], 0),
        ([Overloaded()], 100),
    ],
)
async def test_a_failure(log: FilteringBoundLogger, steps: Sequence[Any], tokens: int) -> None:
    """A failure after content costs what was reserved; one of the upstream's before any content costs nothing."""
    house = Budgeted(log, *steps)
    await house.open(principal(1000))
    await house.settled()
    assert await house.balance() == (tokens, 0)


@pytest.mark.parametrize(
    ("status", "sent", "tokens"),
    [(None, False, 0), (None, True, 100), (200, True, 100), (201, True, 100), (429, True, 0), (500, True, 0)],
)
async def test_what_reached_the_upstream(
    log: FilteringBoundLogger, status: int | None, sent: bool, tokens: int
) -> None:
    """A stop costs nothing before the request was sent, or once it was refused; an upstream may answer late."""

    class Waiting(Script):
        async def stream(self, request: StreamRequest, attempt: Any) -> Any:
            self.started += 1
            attempt.answers.append("")
            attempt.status, attempt.sent = status, sent
            await forever()
            yield ()

    house = Budgeted(log, source=Waiting())
    house.source.closed.set()
    await stop(house, "cancelled")
    assert await house.balance() == (tokens, 0)


async def test_every_attempt_is_charged(log: FilteringBoundLogger) -> None:
    """An upstream that was given up for a slower one than promised may have made all its tokens; one refused, none."""
    slow, refusing, good = Script(forever), Script(Unreachable()), Script((TEXT,), done(completion_tokens=7))
    routes = [Target("slow", None, slow, 0.01), Target("refusing", None, refusing), Target("good", None, good)]
    house = Budgeted(log, source=good)
    house.hub._production._upstreams = Router({"m": routes})
    await house.open(principal(1000))
    await house.settled()
    assert await house.balance() == (107, 0)


class Told(Script):
    """Keeps the limits that it was asked with, and plays its steps."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)
        self.limits: list[Any] = []

    async def stream(self, request: StreamRequest, attempt: Any) -> Any:
        self.limits.append(request.parameters.get("max_completion_tokens"))
        async for batch in super().stream(request, attempt):
            yield batch


def counted(tokens: int) -> Usage:
    return Usage({"prompt_tokens": 50, "completion_tokens": tokens})


@pytest.mark.parametrize(
    ("budget", "asked", "limits", "spent"),
    [
        (1000, {}, [100, 100, 100], 207),
        (250, {}, [100, 100, 50], 207),
        (216, {}, [100, 100, 16], 207),
        (215, {}, [100, 100, None], 200),
        (150, {}, [100, 50, None], 150),
        (100, {}, [100, None, None], 100),
        (1000, {"max_completion_tokens": 400}, [400, 400, 200], 807),
        (25, {"max_completion_tokens": 10}, [10, 10, None], 20),
    ],
)
async def test_another_attempt(
    log: FilteringBoundLogger, budget: int, asked: dict[str, Any], limits: list[Any], spent: int
) -> None:
    """After an attempt that may have cost something, the next has what is left as its limit, or is not made."""
    sources = [Told(forever), Told(forever), Told((TEXT,), done(completion_tokens=7))]
    targets = [Target(str(at), None, source, 0.01) for at, source in enumerate(sources)]
    house = Budgeted(log, source=sources[2])
    house.hub._production._upstreams = Router({"m": targets})
    stream_id = await house.open(principal(budget), **asked)
    await house.settled()
    assert [source.limits[0] if source.limits else None for source in sources] == limits
    assert await house.balance() == (spent, 0)
    end = ending(await house.hub.log_of(stream_id, principal(0)))
    assert isinstance(end, Failure if None in limits else Done)
    assert not isinstance(end, Failure) or (end.code, end.status) == ("token_budget_spent", 429)


async def test_attempts_that_the_upstream_counted(log: FilteringBoundLogger) -> None:
    """What an upstream has counted, with its prompt, is all that its attempt took. A failure takes nothing."""

    class Counting(Told):
        async def stream(self, request: StreamRequest, attempt: Any) -> Any:
            attempt.usage, attempt.complete = counted(30), True
            async for batch in super().stream(request, attempt):
                yield batch

    sources = [Counting(Empty()), Told(Unreachable()), Told((TEXT,), forever)]
    house = Budgeted(log, source=sources[2], count_input=True)
    house.hub._production._upstreams = Router(
        {"m": [Target(str(at), None, source) for at, source in enumerate(sources)]}
    )
    prompt = prompt_tokens(MESSAGES, {})
    stream_id = await house.open(principal(80 + prompt + 60))
    await until(lambda: bool(sources[2].limits))
    assert [source.limits for source in sources] == [[100], [60], [60]]
    assert await house.balance() == (0, 80 + prompt + 60)
    await house.hub.cancel(stream_id, principal(0))
    await house.settled()
    assert await house.balance() == (80 + prompt + 60, 0)


async def test_before_the_first_turn(log: FilteringBoundLogger) -> None:
    """A stream that was stopped before anything was asked costs nothing."""
    house = Budgeted(log, forever)
    await house.hub.cancel(await house.open(principal(1000)), principal(1000))
    await house.settled()
    assert await house.balance() == (0, 0)


# Together.


async def test_parallel_streams(log: FilteringBoundLogger) -> None:
    """Streams that are live at once cannot take more than the budget has, and what they leave can be had again."""
    house = Budgeted(log, (TEXT,), forever)
    opened, refused = [], 0
    for _ in range(10):
        try:
            opened.append(await house.open(principal(250)))
        except BudgetSpent:
            refused += 1
    assert (len(opened), refused) == (3, 7)
    assert await house.balance() == (0, 250)
    await until(lambda: house.source.started == 3)
    for stream_id in opened:
        await house.hub.cancel(stream_id, principal(250))
    await house.settled()
    assert await house.balance() == (250, 0)


async def test_a_stream_that_is_not_opened(log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was reserved for a stream that could not be opened is given back."""
    house = Budgeted(log, forever)

    async def down(*_: Any) -> Any:
        raise JournalDown

    monkeypatch.setattr(house.journal, "create", down)
    with pytest.raises(JournalDown):
        await house.open(principal(250))
    assert await house.balance() == (0, 0)


async def test_what_is_left_is_told(log: FilteringBoundLogger) -> None:
    """What streams hold is not left; without a journal, nothing is told."""
    house = Budgeted(log, forever)
    await house.open(principal(250))
    level = await house.budgets.level(principal(250))
    assert level is not None
    assert (level.most, level.remaining, level.policy) == (250, 150, '250;w=86400;comment="output tokens"')
    assert await house.budgets.level(principal(0)) is None
    await house.hub.drain(0)

    class Away(MemoryBudgets):
        async def balance(self, account: str) -> Balance:
            raise JournalDown

    assert await DailyBudgets(Away()).level(principal(250)) is None


@pytest.mark.parametrize(("usage", "spent"), [(counted(30), 30 + 40), (None, 40 + 40)])
async def test_in_another_process(log: FilteringBoundLogger, usage: Any, spent: int) -> None:
    """What was reserved for a stream, and what earlier attempts took, are taken over with it, and charged there."""
    first, second = DailyBudgets(MemoryBudgets(), 40), DailyBudgets(accounts := MemoryBudgets(), 40)
    request = await first.reserve("s", StreamRequest("m", MESSAGES), principal(100))
    attempts = [Attempt(status=200)]
    await first.extend("s", request, attempts)
    note = first.note("s", [*attempts, Attempt(status=200)])
    account = principal(0).counted_as()
    await second.resume("s", account, json.loads(json.dumps(note)))
    assert await accounts.balance(account) == (0, 80, 86_400)
    ended = replace(outcome(("a", "200")), stream_id="s", costs=(usage,), output_bytes=0)
    await second.ended(ended, log)
    assert (await accounts.balance(account))[:2] == (spent, 0)


async def test_without_a_budget_in_another_process() -> None:
    """A stream that has no budget has none there, either."""
    first, second = DailyBudgets(MemoryBudgets()), DailyBudgets(accounts := MemoryBudgets())
    await first.reserve("s", StreamRequest("m", MESSAGES), principal(0))
    await second.resume("s", "account", first.note("s", [Attempt()]))
    assert len(accounts) == 0


async def test_left_to_another_process() -> None:
    """Nothing is charged for a stream that is left, and what is reserved for it stays so for the other process."""
    budgets = MemoryBudgets()
    spending = DailyBudgets(budgets)
    ann = principal(1000)
    await spending.reserve("s", StreamRequest("m", MESSAGES, parameters={"max_tokens": 100}), ann)
    note = spending.note("s", [Attempt()])
    spending.left("s")
    assert not spending._reserved
    assert (await budgets.balance(ann.counted_as()))[:2] == (0, 100)
    await DailyBudgets(budgets).resume("s", ann.counted_as(), note)
    assert (await budgets.balance(ann.counted_as()))[:2] == (0, 100)


@pytest.mark.parametrize("note", [{"prompt": 1}, {"prompt": 1, "limit": [], "taken": 0}])
async def test_another_note(note: Mapping[str, Any]) -> None:
    """What is no note of a reservation reserves nothing."""
    budgets = MemoryBudgets()
    spending = DailyBudgets(budgets)
    with pytest.raises(ValueError, match="reservation"):
        await spending.resume("s", "account", note)
    assert (await budgets.balance("account"))[:2] == (0, 0)
