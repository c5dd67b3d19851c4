"""Answers that are sent whole: built in slices and once, kept within bounds, sent piece by piece."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from starlette.types import Message, Scope

from app.edge.whole import _ENTRY as ENTRY
from app.edge.whole import OfTranscript, WholeAnswers, WholeResponse, ending
from app.errors import Overloaded
from app.events import Delta, Done, Event, Failure, Reasoning, ToolCall
from app.journal import Bounds, Log
from app.journal.memory import MemoryJournal, MemoryLog
from app.request import StreamInfo
from app.wire.native import snapshot
from app.wire.transcript import Transcript
from tests.waiting import until
from tests.watchdog import watching

pytestmark = pytest.mark.anyio

DONE = Done("stop")


class Encoded:
    """An encoding that counts how often it is used, or fails."""

    def __init__(self, size: int = 100) -> None:
        self.size = size
        self.calls = 0
        self.error: Exception | None = None

    def __call__(self, stream_id: str, transcript: Transcript) -> bytes:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return stream_id.encode() + transcript.content.encode() + bytes(self.size)


async def log_of(events: Sequence[Event], owner: str = "ann", bound: int = 1 << 30) -> MemoryLog:
    log = await MemoryJournal(Bounds(bound, bound, 10, 60)).create("s", StreamInfo("none", owner))
    log.append(events)
    return log


async def body_of(answers: WholeAnswers, encode: Any, log: MemoryLog, stream_id: str = "s") -> bytes:
    async with answers.built(stream_id, log, OfTranscript(encode)) as body:
        return body


async def test_ending() -> None:
    """A live stream has none; an ended one has its terminal record."""
    failure = Failure("m", "t", "c", True, 502)
    assert ending(await log_of([Delta("a")])) is None
    assert ending(await log_of([Delta("a"), failure])) == failure


LARGE: dict[str, list[Event]] = {
    "text": [Delta("word")] * 1_500_000,
    "reasoning": [Reasoning("word")] * 1_500_000,
    "calls": [ToolCall(0, "c", "f", "1234")] * 80_000,
}


@pytest.mark.parametrize("kind", LARGE)
async def test_a_large_snapshot(kind: str) -> None:
    """The largest that a stream's bound allows is built without holding the event loop."""
    log = await log_of(LARGE[kind][:1000])
    for start in range(1000, len(LARGE[kind]), 1000):
        log.append(LARGE[kind][start : start + 1000])
    with watching():
        body = await asyncio.create_task(body_of(WholeAnswers(), snapshot, log))
    assert len(body) > 300_000


async def test_built_once() -> None:
    """All who ask for the same position get one answer; a later position, or another form, is another."""
    answers, encode = WholeAnswers(), Encoded()
    log = await log_of([Delta("a")])
    bodies = await asyncio.gather(*(body_of(answers, encode, log) for _ in range(50)))
    assert (len(set(bodies)), encode.calls) == (1, 1)
    assert await body_of(answers, encode, log) is bodies[0]
    log.append([Delta("b")])
    assert (await body_of(answers, encode, log)).startswith(b"sab")
    assert encode.calls == 2
    assert json.loads(await body_of(answers, snapshot, log))["content"] == "ab"


async def test_what_is_kept() -> None:
    """The answers that were used longest ago are forgotten, and those that are being sent are not."""
    answers, encode = WholeAnswers(MOST := 4 * (ENTRY + 350)), Encoded(300)
    log = await log_of([Delta("a")], owner="")
    async with answers.built("0", log, OfTranscript(encode)):
        for number in (1, 2, 1, 3, 4):
            await body_of(answers, encode, log, str(number))
        assert encode.calls == 5
        for number in (0, 4, 3, 1):
            await body_of(answers, encode, log, str(number))
        assert encode.calls == 5
        await body_of(answers, encode, log, "2")
        assert encode.calls == 6
    assert answers._size <= MOST
    assert not answers._in_use


async def test_too_much_unread() -> None:
    """What clients have yet to read is bounded, for each owner and for all; one that is built may be sent to more."""
    answers, encode = WholeAnswers(8000), Encoded(150)
    logs = {owner: await log_of([Delta("a")], owner) for owner in ("ann", "bob", "cid", "dan", "eve")}
    async with AsyncExitStack() as held:
        for owner, log in logs.items():
            for number in range(2):
                with suppress(Overloaded):
                    await held.enter_async_context(answers.built(f"{owner}{number}", log, OfTranscript(encode)))
            with pytest.raises(Overloaded):
                await body_of(answers, encode, log, f"{owner}2")
        assert 8000 <= answers._in_use.total() < 8000 + 2 * (ENTRY + 160)
        await body_of(answers, encode, logs["ann"], "ann0")
    for owner, log in logs.items():
        await body_of(answers, encode, log, f"{owner}3")
    assert not answers._in_use


async def test_one_owner_keeps_no_other_out() -> None:
    """However large the answers of one owner are, another one's are built; and few of that owner's are at once."""
    answers, encode = WholeAnswers(100_000), Encoded()
    mine, other = await log_of([Delta("a")]), await log_of([Delta("a")], "bob")
    built, leave = asyncio.Event(), asyncio.Event()
    begun = 0

    async def build(stream_id: str, log: Log) -> bytes:
        nonlocal begun
        begun += 1
        await built.wait()
        return bytes(200_000)  # more than all may be together

    async def hold(number: int) -> None:
        async with answers.built(str(number), mine, build):
            await leave.wait()

    clients = [asyncio.create_task(hold(number)) for number in range(4)]
    await until(lambda: begun == 4)  # there was room for each
    built.set()
    await until(lambda: sum(client.done() for client in clients) == 3)
    with pytest.raises(Overloaded):
        answers.check_room("ann")
    assert await body_of(answers, encode, other)
    leave.set()
    errors = await asyncio.gather(*clients, return_exceptions=True)
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", *["Overloaded"] * 3]
    assert not answers._in_use
    assert not answers._shared


async def test_asked_for_at_once() -> None:
    """However many answers are asked for before one is built, few are built beyond the bound."""
    answers, encode = WholeAnswers(100_000), Encoded(20_000)
    logs = [await log_of([Delta("a")], f"owner{number}") for number in range(40)]
    leave = asyncio.Event()

    async def hold(number: int) -> None:
        async with answers.built(str(number), logs[number], OfTranscript(encode)):
            await leave.wait()

    clients = [asyncio.create_task(hold(number)) for number in range(40)]
    await until(lambda: sum(client.done() for client in clients) + encode.calls == 40)
    assert encode.calls <= 8
    leave.set()
    refused = [error for error in await asyncio.gather(*clients, return_exceptions=True) if error is not None]
    assert {type(error) for error in refused} == {Overloaded}
    assert not answers._in_use
    assert answers._size == sum(kept.size for kept in answers._kept.values())


async def test_many_small_answers() -> None:
    """Each takes memory of its own besides its bytes, and so counts, however small it is."""
    answers, encode = WholeAnswers(100 * ENTRY), Encoded(0)
    log = await log_of([Delta("a")])
    for number in range(150):
        await body_of(answers, encode, log, str(number))
    assert 90 < len(answers._kept) < 100


async def test_an_answer_that_no_client_waits_for() -> None:
    """It is not built, and takes no room; who asks after that gets one."""
    answers, encode = WholeAnswers(), Encoded()
    log = await log_of([Delta("a")] * 5000)
    leaving = [asyncio.create_task(body_of(answers, encode, log)) for _ in range(2)]
    await until(lambda: answers._kept)
    for client in leaving:
        client.cancel()
    await asyncio.wait(leaving)
    assert (encode.calls, len(answers._kept), answers._size) == (0, 0, 0)
    assert not answers._in_use
    assert len(await body_of(answers, encode, log)) > 5000
    assert encode.calls == 1


async def test_an_answer_that_cannot_be_built() -> None:
    """An error reaches all who wait for the answer, and is not kept; a client that leaves takes it from no other."""
    answers, encode = WholeAnswers(), Encoded()
    log = await log_of([Delta("a")] * 5000)
    encode.error = ValueError()
    failed = await asyncio.gather(*(body_of(answers, encode, log) for _ in range(2)), return_exceptions=True)
    assert [type(each) for each in failed] == [ValueError] * 2
    assert not answers._kept
    encode.error = None
    leaving, staying = [asyncio.create_task(body_of(answers, encode, log)) for _ in range(2)]
    await until(lambda: answers._kept)
    leaving.cancel()
    assert len(await staying) > 5000
    assert not answers._in_use


async def test_sent_in_pieces() -> None:
    """The next piece waits until the server has taken the last one. The answer says how long it is."""
    log = await log_of([Delta("x")])
    response = WholeResponse(WholeAnswers(), "s", log, OfTranscript(Encoded(200_000)), {"X-Stream-Id": "s"})
    sent: list[Message] = []
    taken = asyncio.Semaphore(0)

    async def send(message: Message) -> None:
        await taken.acquire()
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("it reads nothing")

    scope: Scope = {"type": "http", "method": "GET"}
    answering = asyncio.create_task(response(scope, receive, send))
    for number in range(1, 6):
        taken.release()
        await until(lambda number=number: len(sent) == number)  # type: ignore[misc]  # mypy infers no default of a lambda
    await answering
    head, *pieces = sent
    assert (b"content-length", b"200002") in head["headers"]
    assert [piece["more_body"] for piece in pieces] == [True] * 3 + [False]
    assert max(len(piece["body"]) for piece in pieces) == 65536
    assert b"".join(piece["body"] for piece in pieces) == b"sx" + bytes(200_000)
