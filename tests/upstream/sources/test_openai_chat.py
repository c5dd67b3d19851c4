"""The chat-completions source over real sockets: what is sent, when it is sent again, and how each fault is named."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from app import __version__, simulator
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
from app.upstream import Attempt, Source
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import create_client
from app.upstream.router import RetryPolicy
from app.upstream.sources.openai_chat import OpenAIChat
from tests.upstream.raw import CHUNK, FINISH, Upstream, answer, answers, asked, hang_up, reply, retrying

pytestmark = pytest.mark.anyio

QUICK = RetryPolicy(attempts=3, initial=0.01, longest=0.2)


@asynccontextmanager
async def chat(base_url: str, *, key: str | None = "sk-key", connect: float = 5) -> AsyncIterator[OpenAIChat]:
    async with create_client(base_url, connect) as client:
        yield OpenAIChat(Endpoint(client, base_url, key), max_event=1 << 20)


async def test_request() -> None:
    """What goes upstream: the body as asked, usage asked for, the key, and truthful headers; no compression."""
    async with Upstream(reply(CHUNK % b"hi" + FINISH)) as upstream, chat(upstream.url) as source:
        content, done = await answer(source)
    assert (content, done.finish_reason) == ([Delta("hi")], "stop")
    head, _, body = upstream.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers[b"user-agent"] == f"chat-sse/{__version__}".encode()
    assert headers[b"accept-encoding"] == b"identity"
    assert headers[b"authorization"] == b"bearer sk-key"
    assert headers[b"content-type"] == b"application/json"
    assert body == (
        b'{"model":"m","messages":[{"role":"user","content":"hello"}],"temperature":0,'
        b'"stream":true,"stream_options":{"include_usage":true}}'
    )


async def test_no_key() -> None:
    """Without a key, no Authorization header is sent."""
    async with Upstream(reply(CHUNK % b"hi" + FINISH)) as upstream, chat(upstream.url, key=None) as source:
        await answer(source)
    assert b"authorization" not in upstream.requests[0].lower()


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


async def _exhaust(source: Source) -> None:
    async for _ in source.stream(asked(), Attempt()):
        pass


@pytest.mark.parametrize("body", [CHUNK % b"hi", b""])
async def test_abort(body: bytes) -> None:
    """Leaving a stream, in the middle or before its first byte of content, closes the connection to upstream."""

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
    """Cancelling while upstream has not answered closes the connection."""
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
    """Each way in which upstream can fail has its own error."""

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


async def test_nobody_there() -> None:
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


@pytest.fixture
async def simulated() -> AsyncIterator[simulator.Simulator]:
    async with await simulator.serve(tokens_per_second=0, first_token_delay=0) as running:
        yield running


async def test_usage_refused(simulated: simulator.Simulator) -> None:
    """An upstream that refuses stream_options is asked again without, and that is remembered."""
    async with chat(simulated.url) as source:
        attempts: list[Attempt] = []
        content, done = await answer(source, asked("refuses-stream-options"), attempts)
        assert content
        assert done.usage is None
        assert (len(answers(attempts)), simulated.stats.requests) == (2, 2)
        await answer(source, asked("refuses-stream-options"))
        assert simulated.stats.requests == 3


async def test_usage_refused_by_a_quotation() -> None:
    """An upstream that refuses for another reason, and quotes the request, is asked for usage the next time."""
    quoting = reply(b'{"error":{"message":"bad: stream_options, model"}}', status=b"400 Bad")
    async with Upstream(*[quoting] * 4) as upstream, chat(upstream.url) as source:
        for _ in range(2):
            with pytest.raises(Rejected):
                await answer(source)
    assert [b"stream_options" in request for request in upstream.requests] == [True, False, True, False]


async def test_a_stalled_error_keeps_its_status() -> None:
    """An error whose body does not come is reported by its status all the same, soon."""

    async def stalling(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{")
        await reader.read()

    async with Upstream(stalling) as upstream, chat(upstream.url) as source:
        with pytest.raises(RateLimited) as raised:
            async with asyncio.timeout(10):
                await answer(source)
    assert raised.value.retry_after == 7


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
async def test_retry(simulated: simulator.Simulator, status: int) -> None:
    """Statuses that time may heal are tried again, before the first content."""
    async with chat(simulated.url) as source:
        attempts: list[Attempt] = []
        request = asked(f"flaky-{status}?fail=2&retry_after=0.01", prompt=str(status))
        content, _ = await answer(retrying(source, QUICK), request, attempts)
    assert content
    assert len(answers(attempts)) == 3


@pytest.mark.parametrize("model", ["error-first", "json-error-200", "empty-200"])
async def test_retry_of_failures_with_status_200(simulated: simulator.Simulator, model: str) -> None:
    """An error that upstream puts into a 200, before any content, is tried again as its status would be."""
    async with chat(simulated.url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(UpstreamError):
            await answer(retrying(source, QUICK), asked(model), attempts)
    assert len(answers(attempts)) == 3


@pytest.mark.parametrize("model", ["error-400", "error-401", "error-403", "error-404", "error-422", "html-200"])
async def test_no_retry(simulated: simulator.Simulator, model: str) -> None:
    """What would fail again is not tried again."""
    async with chat(simulated.url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(UpstreamError):
            await answer(retrying(source, QUICK), asked(model), attempts)
    assert len(answers(attempts)) == 1


async def test_no_retry_where_it_could_be_paid_twice(simulated: simulator.Simulator) -> None:
    """A connection that broke after the request was sent, or an error after content, is not tried again."""
    async with chat(simulated.url) as source:
        for model in ("close-before-headers", "cut-before-finish?after=2", "error-in-stream?after=2"):
            attempts: list[Attempt] = []
            with pytest.raises(UpstreamError):
                await answer(retrying(source, QUICK), asked(model), attempts)
            assert len(answers(attempts)) == 1, model


async def test_retry_after_is_honoured_within_its_cap(simulated: simulator.Simulator) -> None:
    """A wait that upstream asks for is kept to the moment; one above the cap is passed on instead."""
    async with chat(simulated.url) as source:
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


async def test_cancel_while_waiting_to_retry(simulated: simulator.Simulator) -> None:
    """A cancellation during the wait between two tries ends it at once."""
    async with chat(simulated.url) as source:
        patient = retrying(source, RetryPolicy(attempts=3, initial=60, longest=60))
        task = asyncio.create_task(answer(patient, asked("error-500")))
        while not simulated.stats.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        async with asyncio.timeout(30):
            await asyncio.wait([task])
        assert task.cancelled()


async def test_the_end_is_not_waited_for_long(simulated: simulator.Simulator) -> None:
    """A socket that stays open after [DONE] does not delay done; one that is cut after the finish is done, too."""
    async with chat(simulated.url) as source:
        async with asyncio.timeout(2):
            _, done = await answer(source, asked("slow-close"))
        assert done.finish_reason == "stop"
        attempt = Attempt()
        batches = [batch async for batch in source.stream(asked("cut-after-finish"), attempt)]
        assert isinstance(batches[-1][0], Done)
        assert attempt.cut_after_finish
