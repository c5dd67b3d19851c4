"""Responses in the background: they are read on after a cut, and cancelled when they are not wanted (row R9)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from app.errors import Disconnected, ProducerLost, StreamError, UpstreamError
from app.events import Delta, Done, Extra, Logprobs
from app.upstream import Attempt
from app.upstream.responses.background import Timing
from app.upstream.router import Router, Target
from app.upstream.sources.openai_responses import OpenAIResponses
from app.usage import Usage
from tests.upstream.raw import Handler, Upstream, answer, answers, asked, hang_up, reply
from tests.upstream.reading.quirks_bytes import event
from tests.upstream.responses.bytes import AS_CHAT, END, WHOLE, function, over, said, sent
from tests.upstream.responses.server import BLOCKS, PARENT, cut, held, responses

pytestmark = pytest.mark.anyio


def lines(upstream: Upstream) -> list[bytes]:
    return [request.split(b" HTTP/1.1\r\n")[0] for request in upstream.requests]


@pytest.mark.parametrize("place", range(1, 13))
@pytest.mark.parametrize("how", ["reset", "eof", "mid-event"])
async def test_resume(place: int, how: str) -> None:
    """Wherever an answer in the background is cut, and however, the reader gets all of it, once."""
    first = b"".join(BLOCKS[:place])
    begun = reply(first) if how == "eof" else cut(first + (BLOCKS[place][:9] if how == "mid-event" else b""))
    # Upstreams that send more than was asked for are read, too.
    rest = reply(b"".join(BLOCKS[place - 1 :]))
    async with Upstream(begun, rest) as upstream, responses(upstream.url, background=True) as source:
        attempts: list[Attempt] = []
        content, done = await answer(source, replace(asked(), traceparent=PARENT), attempts)
    assert content == [Delta("Hello"), Delta(" "), Delta("you")]
    assert done == Done("stop", None, Usage(AS_CHAT), "gpt-5")
    assert lines(upstream)[1:] == [b"GET /v1/responses/resp_1?stream=true&starting_after=%d" % (place - 1)]
    resumed = upstream.requests[1].lower()
    assert b"authorization: bearer sk-key" in resumed
    assert b"traceparent: " + PARENT.encode() in resumed
    assert b'"background":true' in upstream.requests[0]
    assert b'"store":true' in upstream.requests[0]
    # The stream was asked for once, and answered.
    assert (answers(attempts), attempts[-1].status, attempts[-1].cut_after_finish) == (["200"], 200, False)


async def test_resume_time_and_again() -> None:
    """Each cut has its own tries, as long as the answer goes on between them."""
    handlers = [cut(block) for block in BLOCKS[:-1]]
    async with Upstream(*handlers, reply(BLOCKS[-1])) as upstream, responses(upstream.url, background=True) as source:
        content, _ = await answer(source)
    assert content == [Delta("Hello"), Delta(" "), Delta("you")]
    assert len(upstream.requests) == len(BLOCKS)


async def test_resume_when_upstream_is_back() -> None:
    """Tries that fail are made again: refused, cut before the answer, a 503, a stream with nothing in it."""
    begun = cut(b"".join(BLOCKS[:8]))
    away: list[Handler | bytes] = [hang_up, reply(b"{}", status=b"503 Away"), reply(b"")]
    for failures in (away[:2], away[1:]):
        handlers = [begun, *failures, reply(b"".join(BLOCKS[8:]))]
        async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
            content, _ = await answer(source)
            assert content == [Delta("Hello"), Delta(" "), Delta("you")]
            assert not upstream.handlers


@pytest.mark.parametrize(
    ("refusals", "tries"),
    [
        ([reply(b'{"error":{"message":"no longer streamed"}}', status=b"400 Bad")], 1),
        ([reply(b"{}", status=b"404 Gone")], 1),
        ([reply(b"{}", status=b"503 Away")] * 3, 3),
        ([reply(b"")] * 3, 3),
        ([b"nonsense\r\n\r\n"] * 3, 3),
        ([reply(b'{"id":"resp_1","status":"completed","output":[]}')] * 3, 3),
    ],
    ids=range(6),
)
async def test_resume_in_vain(refusals: list[Handler | bytes], tries: int) -> None:
    """If the rest cannot be read, the error is that of the cut, soon, and the upstream is told to stop."""
    handlers: list[Handler | bytes] = [cut(b"".join(BLOCKS[:8])), *refusals, reply(b"{}")]
    async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
        attempts: list[Attempt] = []
        with pytest.raises(Disconnected):
            await answer(source, attempts=attempts)
        assert lines(upstream)[1:] == [
            *[b"GET /v1/responses/resp_1?stream=true&starting_after=7"] * tries,
            b"POST /v1/responses/resp_1/cancel",
        ]
        assert (attempts[-1].status, attempts[-1].model) == (200, "gpt-5")


async def test_resume_of_an_answer_that_fails() -> None:
    """An error that comes after a cut is the end, and is not cancelled."""
    failed = reply(over("failed", error={"code": "server_error", "message": "no"}))
    handlers: list[Handler | bytes] = [cut(b"".join(BLOCKS[:8])), failed]
    async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
        with pytest.raises(UpstreamError, match=r"^no$"):
            await answer(source)
    assert len(upstream.requests) == 2


async def test_resume_asks_for_logprobs() -> None:
    """What the request had included, the rest includes, too."""
    token = {"token": "hi", "logprob": 0, "bytes": None, "top_logprobs": []}
    begun = sent("created", sequence_number=0, response={"id": "resp_1"})
    rest = said("hi", sequence_number=1, logprobs=[token]) + END
    async with Upstream(cut(begun), reply(rest)) as upstream, responses(upstream.url, background=True) as source:
        content, _ = await answer(source, replace(asked(), parameters={"logprobs": True}))
    assert content == [Delta("hi"), Logprobs([token])]
    assert lines(upstream)[1].endswith(b"?stream=true&starting_after=0&include%5B%5D=message.output_text.logprobs")


async def test_a_resumption_that_stalls() -> None:
    """An upstream that does not answer is not waited for beyond what all tries may take together."""
    timing = Timing(resume_waits=(0.0,), resume_within=0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    handlers: list[Handler | bytes] = [cut(b"".join(BLOCKS[:8])), silent, reply(b"{}")]
    async with Upstream(*handlers) as upstream, responses(upstream.url, background=True, timing=timing) as source:
        with pytest.raises(Disconnected):
            async with asyncio.timeout(30):
                await answer(source)
        assert lines(upstream)[2] == b"POST /v1/responses/resp_1/cancel"


async def test_no_resumption_but_in_the_background() -> None:
    """An ordinary answer dies with its connection (R9): nothing is asked for, nor cancelled."""
    async with Upstream(cut(b"".join(BLOCKS[:8]))) as upstream, responses(upstream.url) as source:
        with pytest.raises(Disconnected):
            await answer(source)
        async with aclosing(source.stream(asked(), Attempt())) as batches:
            upstream.handlers = [held(b"".join(BLOCKS[:8]))]
            while not await anext(batches):
                pass
        await upstream.idle()
    assert len(upstream.requests) == 2


async def test_cancel() -> None:
    """Left before its end, an answer in the background is cancelled, for its connection's end does not stop it."""
    handlers: list[Handler | bytes] = [held(b"".join(BLOCKS[:8])), reply(b"{}")]
    async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
        async with aclosing(source.stream(replace(asked(), traceparent=PARENT), Attempt())) as batches:
            while not await anext(batches):
                pass
        assert lines(upstream)[1] == b"POST /v1/responses/resp_1/cancel"
        assert b"authorization: bearer sk-key" in upstream.requests[1].lower()
        assert PARENT.encode() in upstream.requests[1]


async def test_leave() -> None:
    """An answer that is left to another process is not cancelled."""
    async with Upstream(held(b"".join(BLOCKS[:8]))) as upstream, responses(upstream.url, background=True) as source:
        attempt = Attempt()
        async with aclosing(source.stream(asked(), attempt)) as batches:
            while not await anext(batches):
                pass
            assert attempt.kept is not None
            attempt.kept.leave()
        await upstream.idle()
    assert len(upstream.requests) == 1


async def followed(source: OpenAIResponses, seen: asyncio.Event) -> None:
    async with aclosing(source.stream(asked(), Attempt())) as batches:
        async for batch in batches:
            if batch:
                seen.set()


@pytest.mark.parametrize("resuming", [False, True])
async def test_cancel_of_the_task(resuming: bool) -> None:
    """So it is where the task that reads it is cancelled, while it reads and while it asks for the rest."""
    asking, seen = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asking.set()
        await reader.read()

    body = b"".join(BLOCKS[:8])
    begun: list[Handler | bytes] = [cut(body), silent] if resuming else [held(body)]
    async with Upstream(*begun, reply(b"{}")) as upstream, responses(upstream.url, background=True) as source:
        task = asyncio.create_task(followed(source, seen))
        await (asking if resuming else seen).wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert lines(upstream)[-1] == b"POST /v1/responses/resp_1/cancel"
        assert not upstream.handlers


async def test_cancel_is_not_waited_for_long() -> None:
    """An upstream that does not answer the cancellation holds nothing up, nor does one that refuses it."""
    timing = Timing(cancel_within=0.05)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    for unhelpful in (silent, hang_up, reply(b"{}", status=b"404 Gone")):
        handlers: list[Handler | bytes] = [held(b"".join(BLOCKS[:8])), unhelpful]
        async with Upstream(*handlers) as upstream, responses(upstream.url, background=True, timing=timing) as source:
            async with asyncio.timeout(30), aclosing(source.stream(asked(), Attempt())) as batches:
                while not await anext(batches):
                    pass
            assert len(upstream.requests) == 2


async def test_cancel_survives_another_cancellation() -> None:
    """A task that is cancelled while the upstream is being told ends at once, and the upstream is told."""
    seen, telling, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        telling.set()
        await go_on.wait()
        writer.write(reply(b"{}"))

    handlers: list[Handler | bytes] = [held(b"".join(BLOCKS[:8])), slow]
    async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
        task = asyncio.create_task(followed(source, seen))
        await seen.wait()
        task.cancel()
        await telling.wait()
        task.cancel()
        await asyncio.wait([task])
        [told] = source._cancelling
        assert not told.done()
        go_on.set()
        await told
        assert lines(upstream)[1:] == [b"POST /v1/responses/resp_1/cancel"]


async def test_no_cancel_of_what_is_over() -> None:
    """An answer that the upstream ended is not cancelled, even if nothing reads its end."""
    async with Upstream(held(WHOLE), held(WHOLE)) as upstream, responses(upstream.url, background=True) as source:
        await answer(source)
        async with aclosing(source.stream(asked(), Attempt())) as batches:
            while not await anext(batches):
                pass
        await upstream.idle()
    assert lines(upstream) == [b"POST /v1/responses"] * 2


@pytest.mark.parametrize(
    ("body", "usage"),
    [
        (b'{"status":"cancelled","usage":{"input_tokens":3,"output_tokens":900}}', 900),
        (b'{"status":"cancelled","usage":null}', None),
        (b"[]", None),
        (b"{", None),
    ],
)
async def test_usage_of_what_was_cancelled(body: bytes, usage: int | None) -> None:
    """What the upstream counts in its answer to a cancellation is the attempt's usage, and is final."""
    attempt = Attempt()
    handlers: list[Handler | bytes] = [held(b"".join(BLOCKS[:8])), reply(body)]
    async with (
        Upstream(*handlers) as upstream,
        responses(upstream.url, background=True) as source,
        aclosing(source.stream(asked(), attempt)) as batches,
    ):
        while not await anext(batches):
            pass
    assert attempt.complete is (usage is not None)
    assert attempt.costs
    assert (attempt.usage.made_tokens if attempt.usage else None) == usage


NOTE: Mapping[str, Any] = {"response": "resp_1", "include": None, "tools": []}


async def resumed(source: OpenAIResponses, note: Mapping[str, Any] = NOTE) -> list[Any]:
    """Read an answer of another process to its end."""
    async with aclosing(source.resume(note, asked(), Attempt(status=200, sent=True))) as batches:
        return [event async for batch in batches for event in batch]


@pytest.mark.parametrize("place", range(1, 13))
async def test_another_process_reads_it_again(place: int) -> None:
    """From the note that one process left, another reads the answer from its start, over cuts."""
    attempt = Attempt()
    first: list[Handler | bytes] = [held(b"".join(BLOCKS[:8])), reply(b"{}")]
    second: list[Handler | bytes] = [cut(b"".join(BLOCKS[:place])), reply(b"".join(BLOCKS[place:]))]
    async with Upstream(*first, *second) as upstream, responses(upstream.url, background=True) as source:
        async with aclosing(source.stream(asked(), attempt)) as batches:
            before = attempt.note
            while not await anext(batches):
                pass
        assert (before, attempt.note) == (None, NOTE)
        content = await resumed(source)
    assert content == [Delta("Hello"), Delta(" "), Delta("you"), Done("stop", None, Usage(AS_CHAT), "gpt-5")]
    assert lines(upstream)[2:] == [
        b"GET /v1/responses/resp_1?stream=true",
        b"GET /v1/responses/resp_1?stream=true&starting_after=%d" % (place - 1),
    ]


async def test_no_note_but_in_the_background() -> None:
    """Of an answer that dies with its connection nothing can be noted."""
    attempt = Attempt()
    async with (
        Upstream(held(b"".join(BLOCKS[:8]))) as upstream,
        responses(upstream.url) as source,
        aclosing(source.stream(asked(), attempt)) as batches,
    ):
        while not await anext(batches):
            pass
    assert attempt.note is None


async def test_the_note_tells_tools_and_includes() -> None:
    """Whose a call is to run does not change with the process, nor what is included."""
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"secret": 1}}}]
    request = replace(asked(), parameters={"tools": tools, "logprobs": True})
    attempt = Attempt()
    item = function("call_9", "mine", "{}", id="fc_9")
    calls = sent("created", sequence_number=0, response={"id": "resp_1"})
    calls += sent("output_item.done", sequence_number=1, output_index=0, item=item)
    calls += said("x", sequence_number=2, output_index=1) + END
    async with Upstream(reply(calls), reply(calls)) as upstream, responses(upstream.url, background=True) as source:
        notes: list[Any] = []
        first: list[Any] = []
        async with aclosing(source.stream(request, attempt)) as batches:
            async for batch in batches:
                notes.append(attempt.note)
                first += batch
        note = json.loads(json.dumps(next(note for note in notes if note)))
        assert note["tools"] == [{"type": "function", "name": "f"}]
        assert await resumed(source, note) == first
        assert any(isinstance(event, Extra) for event in first)
    assert lines(upstream)[1].endswith(b"?stream=true&include%5B%5D=message.output_text.logprobs")


@pytest.mark.parametrize(
    ("refusals", "tries"),
    [
        ([reply(b"{}", status=b"404 Gone")], 1),
        ([reply(b"{}", status=b"503 Away"), hang_up, reply(b"")], 3),
    ],
)
async def test_an_answer_that_is_gone(refusals: list[Handler | bytes], tries: int) -> None:
    """If the upstream no longer knows an answer, or is away for too long, the process that had it is what is missed."""
    async with (
        Upstream(*refusals, reply(b"{}")) as upstream,
        responses(upstream.url, background=True) as source,
    ):
        with pytest.raises(ProducerLost):
            await resumed(source)
        asked_again = [b"GET /v1/responses/resp_1?stream=true"] * tries
        assert lines(upstream) == [*asked_again, b"POST /v1/responses/resp_1/cancel"]


@pytest.mark.parametrize("begun", [BLOCKS[0][:9], event({"type": "keepalive", "sequence_number": 7}) + BLOCKS[0][:9]])
async def test_cut_within_the_first_event(begun: bytes) -> None:
    """As long as no event has come whole, the answer is asked for from its start, as if nothing had come."""
    async with Upstream(cut(begun), reply(WHOLE)) as upstream, responses(upstream.url, background=True) as source:
        content = await resumed(source)
        assert content == [Delta("Hello"), Delta(" "), Delta("you"), Done("stop", None, Usage(AS_CHAT), "gpt-5")]
        assert lines(upstream) == [b"GET /v1/responses/resp_1?stream=true"] * 2


async def test_an_answer_that_comes_whole() -> None:
    """An upstream that does not stream an answer that is over is read, too, also if it is cut at first."""
    message = {"type": "message", "content": [{"type": "output_text", "text": "Hello you"}]}
    whole = json.dumps({"id": "resp_1", "status": "completed", "model": "gpt-5", "output": [message]}).encode()
    async with Upstream(cut(whole[:9]), reply(whole)) as upstream, responses(upstream.url, background=True) as source:
        assert await resumed(source) == [Delta("Hello you"), Done("stop", None, None, "gpt-5")]
        assert len(upstream.requests) == 2


async def test_an_answer_that_breaks_again() -> None:
    """Once some of it was read, it ends as any other does: with the upstream's error, or with that of the cut."""
    failed = over("failed", error={"code": "server_error", "message": "no"})
    gone = reply(b"{}", status=b"404 Gone")
    cases: list[tuple[list[Handler | bytes], type[StreamError]]] = [
        ([reply(b"".join(BLOCKS[:8]) + failed)], UpstreamError),
        ([cut(b"".join(BLOCKS[:8])), gone, reply(b"{}")], Disconnected),
    ]
    for handlers, error in cases:
        async with Upstream(*handlers) as upstream, responses(upstream.url, background=True) as source:
            with pytest.raises(StreamError) as raised:
                await resumed(source)
            assert type(raised.value) is error


async def test_cancel_in_another_process() -> None:
    """A process that has read nothing of it yet can stop it, too."""
    asking = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asking.set()
        await reader.read()

    async with Upstream(silent, reply(b"{}")) as upstream, responses(upstream.url, background=True) as source:
        task = asyncio.create_task(resumed(source))
        await asking.wait()
        task.cancel()
        await asyncio.wait([task])
        assert lines(upstream)[-1] == b"POST /v1/responses/resp_1/cancel"


async def test_unread_in_another_process() -> None:
    """A process that does not go on with an answer stops it, without asking for it, and knows what it has cost."""
    attempts: list[Attempt] = []
    usage = {"input_tokens": 3, "output_tokens": 9}
    async with (
        Upstream(reply(json.dumps({"status": "cancelled", "usage": usage}).encode())) as upstream,
        responses(upstream.url, background=True) as source,
    ):
        router = Router({}, [Target("up", None, source)])
        await router.resumption({**NOTE, "upstream": "up"}).abandon(asked(), attempts)
        assert lines(upstream) == [b"POST /v1/responses/resp_1/cancel"]
    [[cost]] = [attempt.costs for attempt in attempts]
    assert cost is not None
    assert cost.made_tokens == 9
