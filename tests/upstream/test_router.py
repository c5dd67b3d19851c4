"""Who is asked, and who next: in order, once each, only before the first content, and nothing is left behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import fields
from typing import Any

import pytest

from app.errors import (
    Disconnected,
    Empty,
    FirstTokenTimeout,
    ModelNotAllowed,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
    UpstreamError,
)
from app.events import Content, Delta, Done, Trace
from app.request import StreamRequest
from app.upstream import Batches
from app.upstream.retry import Policy
from app.upstream.router import Router, Target
from app.usage import Usage
from tests.script import Script, forever, played

pytestmark = pytest.mark.anyio

HI, STOP = (Delta("hi"),), (Done("stop"),)
ASKED = StreamRequest("m", ({"role": "user", "content": "x"},))


def route(*sources: Script, first_token: float = 0, retry: Policy | None = None) -> Router:
    targets = [Target("abc"[at], None, source, first_token) for at, source in enumerate(sources)]
    return Router({"m": targets}, retry=retry)


async def batches(router: Router, trace: Trace, request: StreamRequest = ASKED) -> list[list[Content | Done]]:
    async with aclosing(played(router, request, trace)) as stream:
        return [list(batch) async for batch in stream if batch]


async def failure(router: Router, trace: Trace | None = None) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await batches(router, trace or Trace())
    return raised.value


async def test_no_layer_around_the_answer() -> None:
    """What is read from is the upstream's own generator."""
    script, trace = Script((), HI, STOP), Trace()
    first, stream = await route(script).begin(ASKED, trace)
    assert first == HI
    assert getattr(stream, "ag_code", None) is Script.stream.__code__
    await stream.aclose()
    assert (trace.upstream, trace.fallback, trace.settled) == ("a", False, True)


async def test_the_first_answers() -> None:
    """Where the first choice answers, nobody else is asked."""
    first, second, trace = Script((), (), HI, STOP), Script(), Trace()
    assert await batches(route(first, second), trace) == [list(HI), list(STOP)]
    assert (second.started, trace.upstream, trace.fallback) == (0, "a", False)
    assert first.closed.is_set()


@pytest.mark.parametrize("error", [Unreachable(), RateLimited(retry_after=9), UpstreamError(), Disconnected(), Empty()])
@pytest.mark.parametrize("headers", [True, False])
async def test_the_next_answers(error: UpstreamError, headers: bool) -> None:
    """A failure that time may heal, before any content, makes the next one be asked; the headers may have come."""
    first, second, trace = Script(*([()] if headers else []), error), Script((), HI, STOP), Trace()
    assert await batches(route(first, second), trace) == [list(HI), list(STOP)]
    assert (trace.upstream, trace.fallback, trace.settled, trace.attempts) == ("b", True, True, 2)


async def test_an_end_without_anything() -> None:
    """A source that ends without content and without a Done has failed."""
    assert await batches(route(Script(()), Script(HI, STOP)), Trace()) == [list(HI), list(STOP)]


async def test_done_alone_is_an_answer() -> None:
    """An answer without content is one: nobody else is asked."""
    second = Script()
    assert await batches(route(Script((), STOP), second), Trace()) == [list(STOP)]
    assert second.started == 0


@pytest.mark.parametrize("error", [Rejected(), Unauthorized()])
async def test_what_no_time_heals(error: UpstreamError) -> None:
    """What would fail elsewhere too, or is ours to mend, is told and not papered over."""
    second = Script()
    assert await failure(route(Script(error), second)) is error
    assert second.started == 0


async def test_not_after_content() -> None:
    """Once content has passed, a failure is the stream's."""
    error, second, trace = Disconnected(), Script(), Trace()
    router = route(Script((), HI, error), second)
    async with aclosing(played(router, ASKED, trace)) as stream:
        assert await anext(stream) == HI
        with pytest.raises(Disconnected):
            await anext(stream)
    assert (second.started, trace.upstream, trace.fallback) == (0, "a", False)


async def test_settled() -> None:
    """It is not settled who answers as long as somebody is left to be asked."""
    trace, seen = Trace(), []

    async def look() -> None:
        seen.append((trace.upstream, trace.fallback, trace.settled))

    await batches(route(Script(look, Empty()), Script(look, Empty()), Script(look, HI, STOP)), trace)
    assert seen == [("a", False, False), ("b", True, False), ("c", True, True)]


class Talkative:
    """A source that leaves its mark on every field of the trace, then fails."""

    async def stream(self, request: StreamRequest, trace: Trace) -> Batches:
        yield ()
        trace.status, trace.request_id, trace.model = 200, "r", "wrong"
        trace.usage, trace.done = Usage({"total_tokens": 9}), Done("stop")
        trace.cut_after_finish, trace.replaced_bytes = True, 3
        trace.attempts += 1
        trace.answers.append((trace.upstream, "200"))
        raise Empty


async def test_nothing_leaks_from_one_to_the_next() -> None:
    """What a failed upstream said is forgotten; only that it was asked is not."""
    trace = Trace()
    router = Router({"m": [Target("a", None, Talkative()), Target("b", None, Script(HI, STOP, status=201))]})
    await batches(router, trace)
    assert (trace.attempts, trace.answers, trace.status) == (2, [("a", "200")], 201)
    kept = {"attempts", "answers", "status", "upstream", "fallback"}
    for field in fields(Trace):
        if field.name not in kept:
            assert getattr(trace, field.name) == getattr(Trace(), field.name), field.name


class Keeping(Script):
    """Keeps the names that it was asked for."""

    asked: list[str]

    async def stream(self, request: StreamRequest, trace: Trace) -> Batches:
        self.asked = [*getattr(self, "asked", []), request.model]
        async with aclosing(super().stream(request, trace)) as batches:
            async for batch in batches:
                yield batch


async def test_names() -> None:
    """Each target is asked for the model by its own name; one without a name of its own, by the client's."""
    first, second, rest = Keeping(Empty()), Keeping(HI, STOP), Keeping(HI, STOP)
    targets = [Target("a", "org/x", first), Target("b", None, second)]
    router = Router({"m": targets}, [Target("c", None, rest)])
    await batches(router, Trace())
    await batches(router, Trace(), StreamRequest("other", ()))
    assert (first.asked, second.asked, rest.asked) == (["org/x"], ["m"], ["other"])


async def test_nobody_to_ask() -> None:
    """A model without a route, where there is none for the rest, is refused."""
    with pytest.raises(ModelNotAllowed):
        await batches(Router({"other": [Target("a", None, Script(HI, STOP))]}), Trace())


async def test_first_token_timeout() -> None:
    """One that is silent for its time, before or after its headers, is closed, and the next one asked."""
    silent, headed = Script(forever), Script((), (), forever)
    trace = Trace()
    router = route(silent, headed, Script(HI, STOP), first_token=0.02)
    assert await batches(router, trace) == [list(HI), list(STOP)]
    assert silent.closed.is_set() and headed.closed.is_set()
    assert trace.upstream == "c"


async def test_a_silence_without_a_status_is_an_answer_too() -> None:
    """Where the time passed before a status came, that is what there is to count of the upstream."""

    class Mute:
        async def stream(self, request: StreamRequest, trace: Trace) -> Batches:
            await forever()
            yield ()

    trace = Trace()
    router = Router({"m": [Target("a", None, Mute(), 0.01), Target("b", None, Script(HI, STOP))]})
    await batches(router, trace)
    assert trace.answers == [("a", FirstTokenTimeout.code)]


async def test_the_last_is_waited_for() -> None:
    """No time of its own ends the last one: nobody is left to do better."""
    started = asyncio.Event()

    async def slowly() -> None:
        started.set()
        await asyncio.sleep(0.1)  # several times what it has; the event it would wait for is that nothing happens

    assert await batches(route(Script(Empty()), Script(slowly, HI, STOP), first_token=0.02), Trace()) == [
        list(HI),
        list(STOP),
    ]
    assert started.is_set()


async def test_content_in_time_is_not_timed_on() -> None:
    """The first-token time is over with the first content, however slow the rest is."""

    async def slowly() -> None:
        await asyncio.sleep(0.1)

    assert await batches(route(Script(HI, slowly, HI, STOP), Script(), first_token=0.05), Trace()) == [
        list(HI),
        list(HI),
        list(STOP),
    ]


@pytest.mark.parametrize(
    ("errors", "told"),
    [
        ([Unreachable(), Disconnected()], 1),
        ([RateLimited(retry_after=20), Unreachable()], 0),
        ([RateLimited(retry_after=20), RateLimited(retry_after=3)], 1),
        ([RateLimited(retry_after=3), RateLimited(retry_after=20)], 0),
        ([RateLimited(), Unreachable()], 1),
        ([UpstreamError(), Unauthorized()], 0),
        ([RateLimited(retry_after=3), Rejected()], 1),
    ],
)
async def test_what_is_told_if_all_fail(errors: list[UpstreamError], told: int) -> None:
    """When to come back is what helps most; then the last failure that may heal. A wrong request is told as such."""
    trace = Trace()
    assert await failure(route(*map(Script, errors)), trace) is errors[told]
    assert trace.upstream == "b"
    assert trace.settled


async def test_retries_only_where_nobody_is_left() -> None:
    """The last one is asked again as the policy says, the others once: the next one is sooner than a wait."""
    first, last, trace = Script(Unreachable()), Script(Unreachable()), Trace()
    quick = Policy(attempts=3, initial=0.001, longest=0.01)
    await failure(route(first, last, retry=quick), trace)
    assert (first.started, last.started) == (1, 3)
    alone = Script(Unreachable())
    await failure(route(alone, retry=quick))
    assert alone.started == 3


@pytest.mark.parametrize("steps", [(forever,), ((), forever), (HI, forever)])
@pytest.mark.parametrize("failing", [0, 1])
async def test_cancel(steps: tuple[Any, ...], failing: int) -> None:
    """A cancellation, whoever is being asked and however far it got, closes that one and asks nobody else."""
    running = asyncio.Event()

    async def reached() -> None:
        running.set()
        await forever()

    live = Script(*[reached if step is forever else step for step in steps])
    after = Script()
    router = route(*[Script(Empty()) for _ in range(failing)], live, after, first_token=60)
    task = asyncio.create_task(batches(router, Trace()))
    await running.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert live.closed.is_set()
    assert after.started == 0


async def test_close() -> None:
    """Closing the stream in the middle closes the source that was answering."""
    live = Script(HI, HI, STOP)
    first, stream = await route(Script(Empty()), live).begin(ASKED, Trace())
    assert first == HI
    await stream.aclose()
    assert live.closed.is_set()
