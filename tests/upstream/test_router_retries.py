"""What is tried again, over real sockets, and what is not."""

from __future__ import annotations

import asyncio
import socket

import pytest

from app.errors import (
    Blank,
    RateLimited,
    Unreachable,
    UpstreamError,
)
from app.simulator import Simulator
from app.upstream import Attempt
from app.upstream.router import RetryPolicy
from tests.upstream.raw import Upstream, answer, answers, asked, chat, reply, retrying

pytestmark = pytest.mark.anyio


QUICK = RetryPolicy(attempts=3, initial=0.01, longest=0.2)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_retry(simulator: Simulator, status: int) -> None:
    """Statuses that time may heal are tried again, before the first content."""
    async with chat(simulator.url) as source:
        attempts: list[Attempt] = []
        request = asked(f"flaky-{status}?fail=2&retry_after=0.01", prompt=str(status))
        content, _ = await answer(retrying(source, QUICK), request, attempts)
    assert content
    assert len(answers(attempts)) == 3


@pytest.mark.parametrize("model", ["error-first", "json-error-200", "empty-200"])
async def test_retry_of_failures_with_status_200(simulator: Simulator, model: str) -> None:
    """An error that the upstream puts into a 200, before any content, is tried again as its status would be."""
    async with chat(simulator.url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(UpstreamError):
            await answer(retrying(source, QUICK), asked(model), attempts)
    assert len(answers(attempts)) == 3


@pytest.mark.parametrize("model", ["error-400", "error-401", "error-403", "error-404", "error-422", "html-200"])
async def test_no_retry(simulator: Simulator, model: str) -> None:
    """What would fail again is not tried again."""
    async with chat(simulator.url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(UpstreamError):
            await answer(retrying(source, QUICK), asked(model), attempts)
    assert len(answers(attempts)) == 1


async def test_no_retry_where_it_could_be_paid_twice(simulator: Simulator) -> None:
    """A connection that broke after the request was sent, or an error after content, is not tried again."""
    async with chat(simulator.url) as source:
        for model in ("close-before-headers", "cut-before-finish?after=2", "error-in-stream?after=2"):
            attempts: list[Attempt] = []
            with pytest.raises(UpstreamError):
                await answer(retrying(source, QUICK), asked(model), attempts)
            assert len(answers(attempts)) == 1, model


async def test_no_retry_of_an_answer_that_was_made() -> None:
    """An answer of which nothing can be shown, although its tokens were made, is not asked for again (row E8)."""
    blank = (
        b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"completion_tokens":7}}\n\ndata: [DONE]\n\n'
    )
    async with Upstream(*[reply(blank)] * 3) as upstream, chat(upstream.url) as source:
        with pytest.raises(Blank):
            await answer(retrying(source, QUICK))
        assert len(upstream.requests) == 1


async def test_retry_after_is_honoured_within_its_cap(simulator: Simulator) -> None:
    """A wait that the upstream asks for is kept to the moment; one above the cap is passed on instead."""
    async with chat(simulator.url) as source:
        clock = asyncio.get_running_loop().time
        begun = clock()
        await answer(retrying(source, QUICK), asked("flaky-429?retry_after=0.15", prompt="a"))
        assert clock() - begun >= 0.15
        attempts: list[Attempt] = []
        with pytest.raises(RateLimited) as raised:
            await answer(retrying(source, QUICK), asked("error-429?retry_after=3"), attempts)
        assert (raised.value.retry_after, len(answers(attempts))) == (3, 1)


async def test_connect_faults_are_retried() -> None:
    """An upstream that cannot be reached is tried as often as the policy says."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    async with chat(url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(Unreachable):
            await answer(retrying(source, QUICK), asked(), attempts)
    assert len(answers(attempts)) == 3


async def test_cancel_while_waiting_to_retry(simulator: Simulator) -> None:
    """A cancellation during the wait between two tries ends it at once."""
    async with chat(simulator.url) as source:
        patient = retrying(source, RetryPolicy(attempts=3, initial=60, longest=60))
        task = asyncio.create_task(answer(patient, asked("error-500")))
        while not simulator.stats.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait([task])
        assert task.cancelled()
