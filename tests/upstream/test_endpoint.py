"""How an answer is asked for and streamed, over real sockets: batches, faults, and when the connection goes."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

import app.upstream.endpoint
from app.errors import (
    ConnectTimeout,
    Disconnected,
    Empty,
    Malformed,
    RateLimited,
    Rejected,
    Unauthorized,
    Unreachable,
    UpstreamError,
)
from app.events import Delta, Done
from app.simulator import Simulator
from app.turns import ROOM
from app.upstream import Attempt, Source
from app.upstream.endpoint import stream_answer
from app.upstream.http.client import Read, pausing
from app.upstream.reading.chat import chat_reader
from tests.clock import LoopClock
from tests.upstream.raw import CHUNK, FINISH, Upstream, answer, asked, chat, hang_up, reply

pytestmark = pytest.mark.anyio


async def test_batches() -> None:
    """The headers come as an empty batch, then one batch per read; the last is a lone Done."""
    gate = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = CHUNK % b"a" + CHUNK % b"b"
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body + FINISH))
        await gate.wait()
        writer.write(body + FINISH)

    async with Upstream(slowly) as upstream, chat(upstream.url) as source:
        batches = source.stream(asked(), Attempt())
        assert list(await anext(batches)) == []
        gate.set()
        rest = [list(batch) async for batch in batches if batch]
    assert rest[0] == [Delta("a"), Delta("b")]
    assert len(rest) == 2
    assert isinstance(rest[1][0], Done)


async def test_connection_is_used_again() -> None:
    """After a stream that ended properly, the next request takes the same connection."""
    whole = reply(CHUNK % b"hi" + FINISH)
    async with Upstream(whole, whole) as upstream, chat(upstream.url) as source:
        await _exhaust(source)
        await _exhaust(source)
        assert upstream.connections == 1


async def test_a_whole_answer_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes as one JSON object is looked at, parsed and read in turns of the loop of their own."""
    turns: list[int] = []

    async def taking(work: int) -> None:
        turns.append(work)

    monkeypatch.setattr(app.upstream.endpoint, "turn", taking)
    body = b'{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}'
    async with Upstream(reply(body)) as upstream, chat(upstream.url) as source:
        batches = [list(batch) async for batch in source.stream(asked(), Attempt()) if batch]
    assert batches[0] == [Delta("hi")]
    assert turns == [ROOM] * 3


async def _exhaust(source: Source) -> None:
    async for _ in source.stream(asked(), Attempt()):
        pass


@pytest.mark.parametrize("body", [CHUNK % b"hi", b""])
async def test_abort(body: bytes) -> None:
    """Leaving a stream, in the middle or before its first byte of content, closes the connection."""

    async def hanging(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n" + body)
        await reader.read()

    async with Upstream(hanging) as upstream, chat(upstream.url) as source:
        async with aclosing(source.stream(asked(), Attempt())) as batches:
            await anext(batches)
            if body:
                await anext(batches)
            assert upstream.open == 1
        await upstream.idle()


async def test_abort_before_headers() -> None:
    """Cancelling while the upstream has not answered closes the connection."""
    asking = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asking.set()
        await reader.read()

    async with Upstream(silent) as upstream, chat(upstream.url) as source:
        task = asyncio.create_task(answer(source))
        await asking.wait()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await upstream.idle()


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (hang_up, Disconnected),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + CHUNK % b"a", None),
        (b"nonsense\r\n\r\n", Malformed),
        (reply(b"{}", status=b"401 No", headers=b""), Unauthorized),
        (reply(b'{"error":{"message":"bad"}}', status=b"400 Bad"), Rejected),
        (reply(b"slow down", status=b"429 Slow", headers=b"Retry-After: 7\r\n"), RateLimited),
        (reply(b"<html>", status=b"502 Bad"), UpstreamError),
        (reply(b"x", headers=b"Content-Encoding: br\r\n"), Malformed),
        (reply(b"not gzip at all", headers=b"Content-Encoding: gzip\r\n"), Malformed),
        (reply(b""), Empty),
    ],
)
async def test_faults(handler: bytes, error: type[UpstreamError] | None) -> None:
    """Each way in which an upstream can fail has its own error."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(handler)
        await writer.drain()
        await hang_up(reader, writer)

    async with Upstream(handler if error else cut) as upstream, chat(upstream.url) as source:
        with pytest.raises(error or Disconnected) as raised:
            await answer(source)
    assert raised.type is (error or Disconnected)
    if error is RateLimited:
        assert raised.value.retry_after == 7


async def test_unreachable_hosts() -> None:
    """A refused connection and a host that does not exist are unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/v1", "http://no-such-host.invalid/v1"):
        async with chat(url) as source:
            with pytest.raises(Unreachable):
                await answer(source)


async def test_connect_timeout() -> None:
    """A host that does not answer the handshake is a connect timeout, and not a server that hung up."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        queue = [socket.socket() for _ in range(3)]
        for client in queue:  # fill its backlog, so that the kernel drops what comes after
            client.setblocking(False)
            client.connect_ex(deaf.getsockname())
        async with chat(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", connect=0.2) as source:
            with pytest.raises(ConnectTimeout):
                await answer(source)
        for client in queue:
            client.close()


async def test_gzip() -> None:
    """A compressed stream is read although none was asked for; a bomb is stopped by the bound on one event."""
    squeezed = gzip.compress(CHUNK % b"hi" + FINISH)
    bomb = gzip.compress(b"data: " + b"x" * (8 << 20))
    headers = b"Content-Encoding: gzip\r\n"
    replies = [reply(squeezed, headers=headers), reply(bomb, headers=headers)]
    async with Upstream(*replies) as upstream, chat(upstream.url) as source:
        assert (await answer(source))[0] == [Delta("hi")]
        with pytest.raises(Malformed):
            await answer(source)


async def test_redirect() -> None:
    """A redirect that keeps the method is followed, with the body."""
    moved = b"HTTP/1.1 307 Moved\r\nLocation: /v1/elsewhere\r\nContent-Length: 0\r\n\r\n"
    async with Upstream(moved, reply(CHUNK % b"hi" + FINISH)) as upstream, chat(upstream.url) as source:
        assert (await answer(source))[0] == [Delta("hi")]
    assert upstream.requests[1].startswith(b"POST /v1/elsewhere")
    assert upstream.requests[1].endswith(upstream.requests[0].partition(b"\r\n\r\n")[2])


async def test_a_stalled_error_keeps_its_status() -> None:
    """An error whose body does not come is reported by its status all the same, soon."""

    async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{")
        await reader.read()

    async with Upstream(stalling) as upstream, chat(upstream.url) as source:
        with pytest.raises(RateLimited) as raised:
            async with asyncio.timeout(30):
                await answer(source)
    assert raised.value.retry_after == 7


async def test_the_end_is_not_waited_for_long(simulator: Simulator) -> None:
    """A socket that stays open after [DONE] does not delay done; one that is cut after the finish is done, too."""
    async with chat(simulator.url) as source:
        async with asyncio.timeout(30):
            _, done = await answer(source, asked("slow-close"))
        assert done.finish_reason == "stop"
        attempt = Attempt()
        batches = [batch async for batch in source.stream(asked("cut-after-finish"), attempt)]
        assert isinstance(batches[-1][0], Done)
        assert attempt.cut_after_finish


@pytest.mark.parametrize("pause", [0.25, None])
async def test_a_pause_follows_content_alone(pause: float | None) -> None:
    """Before the first content, and after bytes without content, the next read does not wait."""
    arriving = [b": hello\n\n", CHUNK % b"a", CHUNK % b"b", b":\n\n", CHUNK % b"c", FINISH]
    waits: list[float | None] = []

    @asynccontextmanager
    async def asked() -> AsyncIterator[Read]:
        async def read(pause: float | None = None, until: float | None = None) -> bytes:
            waits.append(pause)
            return arriving.pop(0) if arriving else b""

        yield read

    stream = stream_answer((chat_reader(1 << 20, ()), asked()), lambda _: None, Attempt(), pause)
    batches = [batch async for batch in stream]
    assert [event.text for batch in batches for event in batch if isinstance(event, Delta)] == ["a", "b", "c"]
    assert isinstance(batches[-1][0], Done)
    assert waits[:6] == [None, None, pause, pause, None, pause]


async def test_what_never_stops_after_a_finish_reason(loop_clock: LoopClock) -> None:
    """What has no content and never stops is read no longer than is waited for what may follow a finish reason."""
    read_later = 0

    @asynccontextmanager
    async def asked() -> AsyncIterator[Read]:
        async def read(pause: float | None = None, until: float | None = None) -> bytes:
            nonlocal read_later
            loop_clock.now += 0.1
            read_later += until is not None
            assert read_later < 100
            return b":\n\n" if until else CHUNK % b"a" + FINISH.partition(b"data: [DONE]")[0]

        yield read

    stream = stream_answer((chat_reader(), asked()), lambda _: None, Attempt(), None, after_finish=0.35)
    batches = [batch async for batch in stream]
    assert batches[-1] == (Done("stop"),)
    assert 3 <= read_later <= 6


async def test_content_after_a_finish_reason_is_waited_for_anew(loop_clock: LoopClock) -> None:
    """Where each chunk has a finish reason, all of them come, in longer than what one is waited for (row C19)."""
    finished = b'data: {"choices":[{"index":0,"delta":{"content":"%d"},"finish_reason":"stop"}]}\n\n'
    arriving = [finished % number for number in range(8)]

    @asynccontextmanager
    async def asked() -> AsyncIterator[Read]:
        async def read() -> bytes:
            await loop_clock.let_pass(0.06 if arriving else 60)
            return arriving.pop(0)

        yield pausing(read)

    stream = stream_answer((chat_reader(), asked()), lambda _: None, Attempt(), None, after_finish=0.3)
    batches = [batch async for batch in stream]
    assert [event.text for batch in batches for event in batch if isinstance(event, Delta)] == list("01234567")
    assert batches[-1] == (Done("stop"),)
