"""Who is asked, and who next: in order, once each, only before the first content, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import pytest

from app.errors import (
    BudgetSpent,
    Busy,
    Conflicting,
    Disconnected,
    Empty,
    FirstTokenTimeout,
    ModelNotAllowed,
    ProducerLost,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
    UpstreamError,
)
from app.events import Content, Delta, Done
from app.request import StreamRequest
from app.upstream import Attempt, Batches
from app.upstream.router import ONCE, RetryPolicy, Router, Target
from app.usage import Usage
from tests.script import Script, affordable, forever, played, unheard

pytestmark = pytest.mark.anyio

HI, STOP = (Delta("hi"),), (Done("stop"),)
ASKED = StreamRequest("m", ({"role": "user", "content": "x"},))


def route(*sources: Script, first_token: float = 0, retry: RetryPolicy = ONCE) -> Router:
    targets = [Target("abc"[at], None, source, first_token) for at, source in enumerate(sources)]
    return Router({"m": targets}, retry=retry)


async def batches(
    router: Router, attempts: list[Attempt], request: StreamRequest = ASKED
) -> list[list[Content | Done]]:
    async with aclosing(played(router, request, attempts)) as stream:
        return [list(batch) async for batch in stream if batch]


async def failure(router: Router, attempts: list[Attempt] | None = None) -> UpstreamError:
    with pytest.raises(UpstreamError) as raised:
        await batches(router, [] if attempts is None else attempts)
    return raised.value


async def test_no_layer_around_the_answer() -> None:
    """What is read from is the upstream's own generator."""
    script = Script((), HI, STOP)
    attempts: list[Attempt] = []
    first, stream = await route(script).begin(ASKED, attempts, unheard, affordable)
    assert first == HI
    assert getattr(stream, "ag_code", None) is Script.stream.__code__
    await stream.aclose()
    assert (attempts[-1].upstream, attempts[-1].fallback, attempts[-1].last) == ("a", False, True)


async def test_the_first_answers() -> None:
    """Where the first choice answers, no other upstream is asked."""
    first, second = Script((), (), HI, STOP), Script()
    attempts: list[Attempt] = []
    assert await batches(route(first, second), attempts) == [list(HI), list(STOP)]
    assert (second.started, attempts[-1].upstream, attempts[-1].fallback) == (0, "a", False)
    assert first.closed.is_set()


@pytest.mark.parametrize("error", [Unreachable(), RateLimited(retry_after=9), UpstreamError(), Disconnected(), Empty()])
@pytest.mark.parametrize("headers", [True, False])
async def test_the_next_answers(error: UpstreamError, headers: bool) -> None:
    """A failure that time may heal, before any content, makes the next one be asked; the headers may have come."""
    first, second = Script(*([()] if headers else []), error), Script((), HI, STOP)
    attempts: list[Attempt] = []
    assert await batches(route(first, second), attempts) == [list(HI), list(STOP)]
    assert (attempts[-1].upstream, attempts[-1].fallback, attempts[-1].last, len(attempts)) == ("b", True, True, 2)


async def test_an_end_without_anything() -> None:
    """A source that ends without content and without a Done has failed."""
    assert await batches(route(Script(()), Script(HI, STOP)), []) == [list(HI), list(STOP)]


async def test_done_alone_is_an_answer() -> None:
    """An answer without content is one: no other upstream is asked."""
    second = Script()
    assert await batches(route(Script((), STOP), second), []) == [list(STOP)]
    assert second.started == 0


@pytest.mark.parametrize("error", [Rejected(), Unauthorized()])
async def test_what_no_time_heals(error: UpstreamError) -> None:
    """What would fail elsewhere too, or is ours to mend, is told and not papered over."""
    second = Script()
    assert await failure(route(Script(error), second)) is error
    assert second.started == 0


async def test_not_after_content() -> None:
    """Once content has passed, a failure is the stream's."""
    error, second = Disconnected(), Script()
    attempts: list[Attempt] = []
    router = route(Script((), HI, error), second)
    async with aclosing(played(router, ASKED, attempts)) as stream:
        assert await anext(stream) == HI
        with pytest.raises(Disconnected):
            await anext(stream)
    assert (second.started, attempts[-1].upstream, attempts[-1].fallback) == (0, "a", False)


async def test_settled() -> None:
    """It is not settled which upstream answers as long as another may be asked."""
    attempts: list[Attempt] = []
    seen: list[tuple[str, bool, bool]] = []

    async def look() -> None:
        seen.append((attempts[-1].upstream, attempts[-1].fallback, attempts[-1].last))

    await batches(route(Script(look, Empty()), Script(look, Empty()), Script(look, HI, STOP)), attempts)
    assert seen == [("a", False, False), ("b", True, False), ("c", True, True)]


class Talkative:
    """A source that leaves its mark on every field of its attempt, then fails."""

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        yield ()
        attempt.answers.append("200")
        attempt.status, attempt.request_id, attempt.model = 200, "r", "wrong"
        attempt.usage, attempt.done = Usage({"total_tokens": 9}), Done("stop")
        attempt.cut_after_finish, attempt.replaced_bytes = True, 3
        raise Empty


async def test_each_attempt_has_a_record_of_its_own() -> None:
    """Nothing that a failed upstream sent is in the next one's attempt."""
    attempts: list[Attempt] = []
    router = Router({"m": [Target("a", None, Talkative()), Target("b", None, Script(HI, STOP, status=201))]})
    await batches(router, attempts)
    assert (attempts[0].upstream, attempts[0].answers, attempts[0].model) == ("a", ["200"], "wrong")
    assert attempts[1:] == [Attempt("b", fallback=True, answers=["201"], status=201, sent=True, complete=True)]


class Keeping(Script):
    """Keeps the names that it was asked for."""

    asked: list[str]

    async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
        self.asked = [*getattr(self, "asked", []), request.model]
        async with aclosing(super().stream(request, attempt)) as batches:
            async for batch in batches:
                yield batch


async def test_names() -> None:
    """Each target is asked for the model by its own name; one without a name of its own, by the client's."""
    first, second, rest = Keeping(Empty()), Keeping(HI, STOP), Keeping(HI, STOP)
    targets = [Target("a", "org/x", first), Target("b", None, second)]
    router = Router({"m": targets}, [Target("c", None, rest)])
    await batches(router, [])
    await batches(router, [], StreamRequest("other", ()))
    assert (first.asked, second.asked, rest.asked) == (["org/x"], ["m"], ["other"])


async def test_a_model_without_a_target() -> None:
    """A model without a route, where there is none for the rest, is refused."""
    with pytest.raises(ModelNotAllowed):
        await batches(Router({"other": [Target("a", None, Script(HI, STOP))]}), [])


async def test_first_token_timeout() -> None:
    """One that is silent for its time, before or after its headers, is closed, and the next one asked."""
    silent, headed = Script(forever), Script((), (), forever)
    attempts: list[Attempt] = []
    router = route(silent, headed, Script(HI, STOP), first_token=0.02)
    assert await batches(router, attempts) == [list(HI), list(STOP)]
    assert silent.closed.is_set() and headed.closed.is_set()
    assert attempts[-1].upstream == "c"


async def test_a_silence_without_a_status_is_an_answer_too() -> None:
    """Where the time passed before a status came, that is what there is to count of the upstream."""

    class Mute:
        async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
            await forever()
            yield ()

    attempts: list[Attempt] = []
    router = Router({"m": [Target("a", None, Mute(), 0.01), Target("b", None, Script(HI, STOP))]})
    await batches(router, attempts)
    assert attempts[0].answers == [FirstTokenTimeout.code]


async def test_the_last_is_waited_for() -> None:
    """The last one has no time limit of its own: no other could do better."""
    started = asyncio.Event()

    async def slowly() -> None:
        started.set()
        await asyncio.sleep(0.1)  # several times what it has; the event it would wait for is that nothing happens

    assert await batches(route(Script(Empty()), Script(slowly, HI, STOP), first_token=0.02), []) == [
        list(HI),
        list(STOP),
    ]
    assert started.is_set()


async def test_content_in_time_is_not_timed_on() -> None:
    """The first-token time is over with the first content, however slow the rest is."""

    async def slowly() -> None:
        await asyncio.sleep(0.6)

    assert await batches(route(Script(HI, slowly, HI, STOP), Script(), first_token=0.3), []) == [
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
    attempts: list[Attempt] = []
    assert await failure(route(*map(Script, errors)), attempts) is errors[told]
    assert attempts[-1].upstream == "b"


async def test_only_the_last_is_retried() -> None:
    """The last one is asked again as the policy says, the others once: the next one is sooner than a wait."""
    first, last = Script(Unreachable()), Script(Unreachable())
    attempts: list[Attempt] = []
    quick = RetryPolicy(attempts=3, initial=0.001, longest=0.01)
    await failure(route(first, last, retry=quick), attempts)
    assert (first.started, last.started) == (1, 3)
    alone = Script(Unreachable())
    await failure(route(alone, retry=quick))
    assert alone.started == 3


@pytest.mark.parametrize("steps", [(forever,), ((), forever), (HI, forever)])
@pytest.mark.parametrize("failing", [0, 1])
async def test_cancel(steps: tuple[Any, ...], failing: int) -> None:
    """A cancellation closes the upstream that is being asked, however far it got, and asks no other."""
    running = asyncio.Event()

    async def reached() -> None:
        running.set()
        await forever()

    live = Script(*[reached if step is forever else step for step in steps])
    after = Script()
    router = route(*[Script(Empty()) for _ in range(failing)], live, after, first_token=60)
    task = asyncio.create_task(batches(router, []))
    await running.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert live.closed.is_set()
    assert after.started == 0


async def test_close() -> None:
    """Closing the stream in the middle closes the source that was answering."""
    live = Script(HI, HI, STOP)
    first, stream = await route(Script(Empty()), live).begin(ASKED, [], unheard, affordable)
    assert first == HI
    await stream.aclose()
    assert live.closed.is_set()


@pytest.mark.parametrize(("wait", "longer"), [(None, False), (0.1, False), (9, True)])
async def test_a_longer_wait_is_said(wait: float | None, longer: bool) -> None:
    """The error says whether the upstream asked for a longer wait than this service's own."""
    error = await failure(route(Script(RateLimited(retry_after=wait)), retry=RetryPolicy(1, 0.01, 0.2)))
    assert error.longer is longer


async def test_what_becomes_of_attempts_is_told() -> None:
    """Each attempt says when an answer was promised and that it failed, and the relay is told then."""
    first, second = Script((), (), Empty()), Script((), HI, STOP)
    attempts: list[Attempt] = []
    seen: list[tuple[int, bool, bool]] = []

    def changed() -> None:
        seen.append((len(attempts), attempts[-1].answered_at is not None, attempts[-1].failed))

    _, stream = await route(first, second).begin(ASKED, attempts, changed, affordable)
    await stream.aclose()
    assert seen == [(1, True, False), (1, True, True), (2, True, False)]


@pytest.mark.parametrize("error", [Busy(), Conflicting()])
async def test_full_and_conflicting_upstreams_are_asked_again(error: UpstreamError) -> None:
    """What is full, or busy with another request, may be free in a moment."""
    attempts: list[Attempt] = []
    await failure(route(Script(error), retry=RetryPolicy(3, 0.01, 0.02)), attempts)
    assert len(attempts) == 3


# What may be spent.


async def test_what_an_attempt_may_spend() -> None:
    """Before another attempt, after one that may have cost something, it is asked what the next may spend."""
    request = replace(ASKED, parameters={"max_tokens": 3})
    seen: list[tuple[int, Any]] = []

    async def afford(asked: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
        seen.append((len(attempts), asked.parameters["max_tokens"]))
        return replace(asked, parameters={"max_tokens": asked.parameters["max_tokens"] - 1})

    def targets(*scripts: Script) -> Router:
        return Router({"m": [Target("u", None, script, 0.01) for script in scripts]}, retry=RetryPolicy(3, 0.001, 0.01))

    class Counting(Script):
        async def stream(self, request: StreamRequest, attempt: Attempt) -> Batches:
            attempt.usage, attempt.complete = Usage({"completion_tokens": 5}), True
            async for batch in super().stream(request, attempt):
                yield batch

    router = targets(Script(forever), Script(Unreachable()), Script(forever), Script(HI))
    first, stream = await router.begin(request, [], unheard, afford)
    await stream.aclose()
    assert (first, seen) == (HI, [(1, 3), (3, 2)])
    seen.clear()
    with pytest.raises(Empty):
        await targets(Script(forever), Counting(Empty())).begin(request, [], unheard, afford)
    assert seen == [(1, 3), (2, 2), (3, 1)]


async def test_what_cannot_be_spent() -> None:
    """No other upstream is asked if nothing is left, and that is the error."""

    async def spent(asked: StreamRequest, attempts: Sequence[Attempt]) -> StreamRequest:
        raise BudgetSpent

    others = Script(HI), Script(HI)
    with pytest.raises(BudgetSpent):
        await route(Script(forever), *others, first_token=0.01).begin(ASKED, [], unheard, spent)
    assert [other.started for other in others] == [0, 0]


class Resuming(Script):
    """A source whose upstream keeps its answers."""

    def resume(self, note: Mapping[str, Any], request: StreamRequest, attempt: Attempt) -> Batches:
        self.notes.append(note)
        return self.stream(request, attempt)

    def secrets(self, request: StreamRequest) -> Sequence[str]:
        return [*request.secrets, "of the endpoint"]


async def test_resumption() -> None:
    """An answer of an earlier process is read from the upstream that has it, and none is asked for."""
    other, keeping = Script(), Resuming((), HI, STOP)
    note = {"upstream": "b", "fallback": True, "response": "r"}
    attempts: list[Attempt] = []
    async with aclosing(played(route(other, keeping).resumption(note), ASKED, attempts)) as stream:
        assert [list(batch) async for batch in stream] == [list(HI), list(STOP)]
    assert (keeping.notes, other.started) == ([note], 0)
    assert [(it.upstream, it.fallback) for it in attempts] == [("b", True)]
    assert repr(route(keeping).resumption({"upstream": "a"})) == "<Resumption of an answer of a>"


@pytest.mark.parametrize("upstream", ["a", "c", None])
async def test_resumption_without_the_upstream(upstream: str | None) -> None:
    """Without that upstream, or if it keeps no answers, the answer is lost, and may have cost."""
    attempts: list[Attempt] = []
    opener = route(Script(STOP), Resuming(STOP)).resumption({"upstream": upstream})
    with pytest.raises(ProducerLost):
        await anext(played(opener, ASKED, attempts))
    assert attempts[-1].costs == (None,)


def test_what_an_upstream_may_quote() -> None:
    """An upstream that keeps its answers may quote what its own settings add to a request, too."""
    router = route(Script(), Resuming())
    request = replace(ASKED, secrets=("of the model",))
    assert router.secrets_at("b", request) == ["of the model", "of the endpoint"]
    assert router.secrets_at("a", request) == router.secrets_at("gone", request) == ("of the model",)


@pytest.mark.parametrize("upstream", ["a", "b"])
async def test_an_answer_that_is_not_wanted(upstream: str) -> None:
    """An answer of an earlier process is given up without reading it, and may have cost; one not asked for has not."""
    attempts: list[Attempt] = []
    keeping = Resuming((), AssertionError())
    await route(Script(), keeping).abandon(ASKED, attempts)
    assert attempts == []
    await route(Script(), keeping).resumption({"upstream": upstream}).abandon(ASKED, attempts)
    assert [attempt.costs for attempt in attempts] == [(None,)]
    assert (keeping.started, keeping.closed.is_set()) == ((1, True) if upstream == "b" else (0, False))


async def test_a_note_is_told() -> None:
    """That an answer can be gone on with is told before there is content."""
    attempts: list[Attempt] = []
    told: list[object] = []

    class Named:
        note: Mapping[str, Any] = MappingProxyType({"response": "r"})

        def leave(self) -> None: ...

    async def name() -> None:
        attempts[-1].kept = Named()

    script = Script((), name, (), (), HI, STOP)
    first, stream = await route(script).begin(ASKED, attempts, lambda: told.append(attempts[-1].note), affordable)
    await stream.aclose()
    assert (first, told) == (HI, [None, Named.note])
