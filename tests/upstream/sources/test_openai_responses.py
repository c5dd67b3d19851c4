"""The Responses source over real sockets: what is sent, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import orjson
import pytest

from app.errors import Disconnected, Empty, Malformed, RateLimited, Rejected, Truncated, Unauthorized, UpstreamError
from app.events import Delta, Done
from app.upstream import Attempt
from app.upstream.router import RetryPolicy
from app.usage import Usage
from tests.upstream.raw import Handler, Upstream, answer, answers, asked, hang_up, reply, retrying
from tests.upstream.responses.bytes import AS_CHAT, END, HI, WHOLE, over, said
from tests.upstream.responses.server import PARENT, cut, held, responses

pytestmark = pytest.mark.anyio


async def test_request() -> None:
    """What goes to the upstream: the translated body, streaming and not stored, the key, and the caller's trace."""
    async with Upstream(reply(WHOLE)) as upstream, responses(upstream.url) as source:
        attempts: list[Attempt] = []
        content, done = await answer(source, replace(asked(), traceparent=PARENT), attempts)
    assert content == [Delta("Hello"), Delta(" "), Delta("you")]
    assert done == Done("stop", None, Usage(AS_CHAT), "gpt-5")
    assert (answers(attempts), attempts[-1].status) == (["200"], 200)
    assert (attempts[-1].usage, attempts[-1].model, attempts[-1].cut_after_finish) == (Usage(AS_CHAT), "gpt-5", False)
    head, _, body = upstream.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/responses HTTP/1.1\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert headers[b"authorization"] == b"bearer sk-key"
    assert headers[b"accept"] == b"text/event-stream"
    assert headers[b"traceparent"] == PARENT.encode()
    assert orjson.loads(body) == {
        "model": "m",
        "input": [{"role": "user", "content": "hello"}],
        "store": False,
        "temperature": 0,
        "stream": True,
    }


async def test_operator() -> None:
    """The operator's headers and fields go with each request, and come back in no error; the client's own words may."""
    quoted = reply(
        b'{"error":{"message":"No: abcd-efgh, route-of-secrets, org_a_name, org_no_name"}}', status=b"400 Bad"
    )
    headers, extra = {"X-Team": "abcd-efgh"}, {"reasoning": {"summary": "auto"}, "route": "route-of-secrets"}
    async with (
        Upstream(quoted) as upstream,
        responses(upstream.url, key=None, headers=headers, extra_body=extra) as source,
    ):
        with pytest.raises(Rejected, match=r"^No: \[redacted\], \[redacted\], org_a_name, \[redacted\]$"):
            await answer(source, asked(prompt="org_a_name"))
        # So a process that goes on with an answer can see whether they are what they were.
        assert {"abcd-efgh", "route-of-secrets", "s"} <= {*source.secrets(replace(asked(), secrets=("s",)))}
    assert b"x-team: abcd-efgh" in upstream.requests[0].lower()
    assert b"authorization" not in upstream.requests[0].lower()
    assert b'"reasoning":{"summary":"auto"}' in upstream.requests[0]


async def test_what_cannot_be_said_is_not_sent() -> None:
    """A parameter that Responses does not have is refused before the upstream is asked."""
    async with Upstream() as upstream, responses(upstream.url) as source:
        attempts: list[Attempt] = []
        with pytest.raises(Rejected) as raised:
            await answer(source, replace(asked(), parameters={"seed": 1}), attempts)
    assert raised.value.param == "seed"
    assert (upstream.connections, answers(attempts)) == (0, [])


async def test_batches() -> None:
    """The headers come as an empty batch, then one batch per read; the last is a lone Done."""
    gate = asyncio.Event()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = said("a") + said("b") + END
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        await gate.wait()
        writer.write(body)

    async with Upstream(slowly) as upstream, responses(upstream.url) as source:
        batches = source.stream(asked(), Attempt())
        assert list(await anext(batches)) == []
        gate.set()
        rest = [list(batch) async for batch in batches if batch]
    assert rest == [[Delta("a"), Delta("b")], [Done("stop")]]


async def test_the_end_is_not_waited_for() -> None:
    """A terminal event is the end, whether the body ends or not; a connection that ended is used again."""
    async with Upstream(reply(WHOLE), held(WHOLE)) as upstream, responses(upstream.url) as source:
        async for _ in source.stream(asked(), Attempt()):
            pass
        async with asyncio.timeout(30):
            _, done = await answer(source)
        assert done.finish_reason == "stop"
        assert upstream.connections == 1
        await upstream.idle()


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (hang_up, Disconnected),
        (cut(HI), Disconnected),
        (reply(HI), Truncated),
        (b"nonsense\r\n\r\n", Malformed),
        (reply(b"{}", status=b"401 No"), Unauthorized),
        (reply(b"slow down", status=b"429 Slow", headers=b"Retry-After: 7\r\n"), RateLimited),
        (reply(b"<html>"), Malformed),
        (reply(b'{"error":{"message":"no","code":429}}'), RateLimited),
        (reply(b""), Empty),
        (reply(over("failed", error={"code": "server_error", "message": "no"})), UpstreamError),
        (reply(b"x", headers=b"Content-Encoding: br\r\n"), Malformed),
    ],
    ids=range(11),
)
async def test_faults(handler: Handler | bytes, error: type[UpstreamError], background: bool) -> None:
    """Each way to fail has its own error; without an id there is nothing to resume or to cancel."""
    async with Upstream(handler) as upstream, responses(upstream.url, background=background) as source:
        with pytest.raises(error) as raised:
            await answer(source)
    assert raised.type is error
    assert len(upstream.requests) == 1
    waits = isinstance(handler, bytes) and b"Retry-After: 7" in handler
    assert raised.value.retry_after == (7 if waits else None)


async def test_failures_before_content_are_retried() -> None:
    """`response.failed` before any content is tried again as its status would be."""
    failed = reply(over("failed", error={"code": "server_error", "message": "no"}))
    async with Upstream(failed, reply(WHOLE)) as upstream, responses(upstream.url) as source:
        attempts: list[Attempt] = []
        await answer(retrying(source, RetryPolicy(attempts=3, initial=0.01, longest=0.2)), attempts=attempts)
    assert len(answers(attempts)) == 2


async def test_upstream_that_may_not_stream() -> None:
    """It is asked without, and its answer is one delta; not in the background, where that would be no answer (H29)."""
    no = reply(b'{"error":{"message":"No.","param":"stream","code":"unsupported_value"}}', status=b"400 Bad")
    item = b'{"type":"message","content":[{"type":"output_text","text":"hi"}]}'
    whole = reply(b'{"object":"response","status":"completed","output":[%s]}' % item, status=b"201 Created")
    async with Upstream(no, whole, whole) as upstream, responses(upstream.url) as source:
        for _ in range(2):
            content, done = await answer(source)
            assert (content, done.finish_reason) == ([Delta("hi")], "stop")
    assert [b'"stream"' in request for request in upstream.requests] == [True, False, False]
    async with Upstream(no, no) as upstream, responses(upstream.url) as source:
        with pytest.raises(Rejected):
            await answer(source)
        assert len(upstream.requests) == 2
    async with Upstream(no) as upstream, responses(upstream.url, background=True) as source:
        with pytest.raises(Rejected):
            await answer(source)
        assert len(upstream.requests) == 1
