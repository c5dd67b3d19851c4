"""The chat-completions source over real sockets: what is sent, when it is sent again, and how each fault is named."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from app import __version__
from app.errors import Empty, Misaddressed, Rejected, Unreachable, UpstreamError
from app.events import Delta
from app.simulator import Simulator
from app.upstream import Attempt
from app.upstream.endpoint import Unstreamed
from app.upstream.router import Router, Target
from tests.ports import free_port
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


async def test_usage_refused(simulator: Simulator) -> None:
    """An upstream that refuses stream_options is asked again without, and that is remembered."""
    async with chat(simulator.url) as source:
        attempts: list[Attempt] = []
        content, done = await answer(source, asked("refuses-stream-options"), attempts)
        assert content
        assert done.usage is None
        assert (len(answers(attempts)), simulator.stats.requests) == (2, 2)
        await answer(source, asked("refuses-stream-options"))
        assert simulator.stats.requests == 3


async def test_usage_refused_by_a_quotation() -> None:
    """An upstream that refuses for another reason, and quotes the request, is asked for usage the next time."""
    quoting = reply(b'{"error":{"message":"bad: stream_options, model"}}', status=b"400 Bad")
    async with Upstream(*[quoting] * 4) as upstream, chat(upstream.url) as source:
        for _ in range(2):
            with pytest.raises(Rejected):
                await answer(source)
    assert [b"stream_options" in request for request in upstream.requests] == [True, False, True, False]


WHOLE = reply(b'{"object":"chat.completion","choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}')
REFUSALS = {
    "status": reply(b'{"error":{"message":"stream_options?"}}', status=b"400 Bad"),
    "event": reply(b'data: {"error":{"message":"stream_options?","code":400}}\n\n'),
    "JSON": reply(b'{"error":{"message":"Unknown field in request: include_usage"}}'),
    "500": reply(b'{"error":{"message":"include_usage"}}', status=b"500 Bad"),
}


@pytest.mark.parametrize("kind", REFUSALS)
async def test_usage_refused_in_any_form(kind: str) -> None:
    """The refusal of stream_options may be a status, or be inside a 200; what is remembered is what worked (H11)."""
    whole = reply(CHUNK % b"hi" + FINISH)
    async with Upstream(REFUSALS[kind], whole, whole) as upstream, chat(upstream.url) as source:
        for _ in range(2):
            content, _ = await answer(source)
            assert content == [Delta("hi")]
    assert [b"stream_options" in request for request in upstream.requests] == [True, False, False]


async def test_no_other_way_once_there_is_content() -> None:
    """An answer that has begun is not asked for again, whatever its error says."""
    late = reply(CHUNK % b"hi" + b'data: {"error":{"message":"stream_options","code":400}}\n\n')
    async with Upstream(late) as upstream, chat(upstream.url) as source:
        with pytest.raises(Rejected):
            await answer(source)
    assert len(upstream.requests) == 1


def unstreamable(said: str = '"param":"stream","code":"unsupported_value"', status: bytes = b"400 Bad") -> bytes:
    return reply(b'{"error":{"message":"Verify.",%s}}' % said.encode(), status=status)


@pytest.mark.parametrize("status", [b"400 Bad", b"403 No", b"200 OK", b"500 Bad"])
async def test_upstream_that_may_not_stream(status: bytes) -> None:
    """It is asked without, its answer is one delta, and that is remembered for this model, for a while (row H29)."""
    replies = [unstreamable(status=status), WHOLE, WHOLE, reply(CHUNK % b"hi" + FINISH), reply(CHUNK % b"hi" + FINISH)]
    async with Upstream(*replies) as upstream, chat(upstream.url) as source:
        for model in ("m", "m", "n"):
            content, done = await answer(source, asked(model))
            assert (content, done.finish_reason) == ([Delta("hi")], "stop")
        source._unstreamed = Unstreamed(0)
        await answer(source)
    heads = [request.partition(b"\r\n\r\n")[0] for request in upstream.requests]
    assert [b'"stream"' in request for request in upstream.requests] == [True, False, False, True, True]
    assert [b"stream_options" in request for request in upstream.requests] == [True, False, False, True, True]
    assert [b"Accept: application/json" in head for head in heads] == [False, True, True, False, False]


async def test_upstream_that_refuses_both() -> None:
    """What is said of the request as it was asked is told, unless the other one fails for a reason of its own."""
    must = unstreamable('"param":"stream","code":"must_stream"')
    other = unstreamable('"param":"n","code":"x"')
    for second, code in ((must, "unsupported_value"), (other, "x")):
        async with Upstream(unstreamable(), second) as upstream, chat(upstream.url) as source:
            with pytest.raises(Rejected) as raised:
                await answer(source)
        assert raised.value.told is not None
        assert (raised.value.told["code"], len(upstream.requests)) == (code, 2)


@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"202 Accepted", b"203 Other", b"206 Partial", b"299 X"])
async def test_any_2xx_is_an_answer(status: bytes) -> None:
    """The body is the answer, whichever status of success it has (row H30)."""
    async with Upstream(reply(CHUNK % b"hi" + FINISH, status=status)) as upstream, chat(upstream.url) as source:
        content, _ = await answer(source)
    assert content == [Delta("hi")]


async def test_success_without_a_body() -> None:
    """A 204 is an empty answer."""
    async with Upstream(b"HTTP/1.1 204 No\r\n\r\n") as upstream, chat(upstream.url) as source:
        with pytest.raises(Empty):
            await answer(source)


async def test_wrong_base_url() -> None:
    """A 404 that is about no model is our base URL: the log has it, and the client does not (row H27)."""
    async with Upstream(reply(b"404 page not found", status=b"404 No")) as upstream, chat(upstream.url) as source:
        with pytest.raises(Misaddressed) as raised:
            await answer(source)
    assert upstream.url not in raised.value.text
    assert raised.value.cause.startswith(f"{upstream.url}/chat/completions answered with status 404: the base URL")


USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n'
STOPPED = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    ("said", "complete", "cost"),
    [
        (reply(CHUNK % b"hi" + STOPPED + USAGE % 7 + b"data: [DONE]\n\n"), True, True),
        (reply(CHUNK % b"hi" + USAGE % 1 + STOPPED + USAGE % 7), True, True),
        (reply(CHUNK % b"hi" + USAGE % 1), False, True),
        (reply(b'{"error":{"message":"busy","code":503}}'), True, False),
        (reply(b'{"error":{"message":"busy"}}', status=b"503 Busy"), False, False),
        (reply(b"data: {\n\n"), False, True),
        (reply(b""), False, False),
        (b"nonsense", False, False),
    ],
)
async def test_what_an_attempt_cost(said: bytes, complete: bool, cost: bool) -> None:
    """An attempt's usage is final once the upstream has ended the answer; what it refused has cost nothing."""
    attempts: list[Attempt] = []
    async with Upstream(said) as upstream, chat(upstream.url) as source:
        with suppress(UpstreamError):
            await answer(Router({}, (Target("", None, source),)), None, attempts)
    [attempt] = attempts
    assert (attempt.sent, bool(attempt.costs)) == (True, cost)
    if cost:
        assert attempt.complete is complete


async def test_nothing_was_sent() -> None:
    """An upstream that could not be reached has not been sent anything, and one that says nothing has."""
    attempts: list[Attempt] = []
    async with chat(f"http://127.0.0.1:{free_port()}/v1") as source:
        with pytest.raises(Unreachable):
            await answer(Router({}, (Target("", None, source),)), None, attempts)
    assert not attempts[0].sent
    held = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.set()
        await reader.read()

    attempt = Attempt()
    async with Upstream(silent) as upstream, chat(upstream.url) as source:
        task = asyncio.ensure_future(anext(source.stream(asked(), attempt)))
        await held.wait()
        task.cancel()
        await asyncio.wait([task])
    assert (attempt.sent, attempt.status, attempt.costs) == (True, None, (None,))
