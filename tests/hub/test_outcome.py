"""What the hub's observers are told of a stream that has ended."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from app.errors import Truncated
from app.events import Delta, Done, Failure
from app.hub import Observer, Outcome
from app.request import StreamRequest
from app.upstream import Attempt, first_content
from app.usage import Usage
from tests.house import House
from tests.script import Script

pytestmark = pytest.mark.anyio


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        self.outcomes.append(outcome)


class Attempted(Script):
    """A `Script` that is asked after other attempts."""

    def __init__(self, *steps: Any, attempts: list[Attempt]) -> None:
        super().__init__(*steps)
        self.attempts = attempts

    async def begin(self, request: StreamRequest, attempts: list[Attempt], changed: Any, afford: Any) -> Any:
        attempts += self.attempts
        batches = self.stream(request, attempts[-1])
        return await first_content(batches, attempts[-1], changed), batches


async def outcome(log: FilteringBoundLogger, source: Script) -> Outcome:
    told = Told()
    house = House(log, source=source, observers=[told])
    await house.read(StreamRequest("m", ()))
    await house.settled()
    return told.outcomes[0]


async def test_a_whole_answer(log: FilteringBoundLogger) -> None:
    """The outcome has the terminal record, the upstream's own counts, and how many readers there were."""
    usage = Usage({"prompt_tokens": 7, "completion_tokens": 11})
    ended = await outcome(log, Script((Delta("a"),), (Delta("é"),), (Done("length", usage=usage),)))
    assert isinstance(ended.terminal, Done)
    assert (ended.model, ended.reason, ended.deltas, ended.output_bytes) == ("m", "length", 2, 3)
    assert (ended.input_tokens, ended.output_tokens) == (7, 11)
    assert (ended.readers, ended.readers_peak) == (1, 1)
    assert ended.first_token_ms is not None
    assert ended.duration_ms >= ended.first_token_ms


async def test_several_attempts(log: FilteringBoundLogger) -> None:
    """All answers of all upstreams are in it, in order; a request that got none counts as sent."""
    attempts = [Attempt("a", answers=["400", "503"]), Attempt("b", fallback=True, answers=[""]), Attempt("b", True)]
    ended = await outcome(log, Attempted((Delta("a"),), Truncated(), attempts=attempts))
    assert isinstance(ended.terminal, Failure)
    assert ended.reason == "upstream_truncated"
    assert ended.attempt is attempts[-1]
    assert ended.answers == (("a", "400"), ("a", "503"), ("b", "200"))
    assert ended.requests == 4


@pytest.mark.parametrize(("text", "tokens"), [("x" * 40, 10), ("", 0)])
async def test_a_zero_is_not_believed_where_text_came(log: FilteringBoundLogger, text: str, tokens: int) -> None:
    """What came is estimated if the upstream counts no output."""
    steps = [(Delta(text),)] if text else []
    done = Done("stop", usage=Usage({"prompt_tokens": 1, "completion_tokens": 0}))
    ended = await outcome(log, Script(*steps, (done,)))
    assert ended.output_tokens == tokens


async def test_no_upstream_was_asked(log: FilteringBoundLogger) -> None:
    """Without an attempt there is a blank one."""

    class Refusing(Script):
        async def begin(self, request: StreamRequest, attempts: list[Attempt], changed: Any, afford: Any) -> Any:
            raise Truncated

    ended = await outcome(log, Refusing())
    assert (ended.attempt, ended.answers, ended.requests, ended.first_token_ms) == (Attempt(), (), 0, None)
