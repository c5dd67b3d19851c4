"""The chat-completions source over real sockets: what is sent, when it is sent again, and how each fault is named."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app import __version__, simulator
from app.errors import (
    Rejected,
)
from app.events import Delta
from app.upstream import Attempt
from tests.simulator.faults import MODELS
from tests.upstream.raw import CHUNK, FINISH, Upstream, answer, answers, asked, chat, reply

pytestmark = pytest.mark.anyio


async def test_request() -> None:
    """What goes to the upstream: the body as asked, usage asked for, the key, and truthful headers; no compression."""
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


@pytest.fixture
async def simulated() -> AsyncIterator[simulator.Simulator]:
    async with await simulator.serve(tokens_per_second=0, first_token_delay=0, models=MODELS) as running:
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
