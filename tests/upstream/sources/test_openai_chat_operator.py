"""What an operator adds to each request, what is passed on with it, and that none of it comes back to the client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import orjson
import pytest

from app.errors import Disconnected, UpstreamError
from app.request import StreamRequest
from app.upstream import Attempt
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import create_client
from app.upstream.router import RetryPolicy
from app.upstream.sources.openai_chat import OpenAIChat
from tests.upstream.raw import CHUNK, FINISH, Handler, Upstream, answer, answers, asked, hang_up, reply, retrying

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def customized(
    base_url: str,
    headers: Mapping[str, str] = MappingProxyType({}),
    extra_body: Mapping[str, Any] = MappingProxyType({}),
) -> AsyncIterator[OpenAIChat]:
    async with create_client(base_url, 5) as client:
        yield OpenAIChat(Endpoint(client, base_url, None, headers, extra_body), 1 << 20)


async def test_headers_and_extra_body() -> None:
    """The operator's headers go with each request, and the extra body's fields replace the client's."""
    headers = {"authorization": "Basic eHl6", "X-Team": "web", "User-Agent": "us"}
    async with (
        Upstream(reply(CHUNK % b"hi" + FINISH)) as upstream,
        customized(upstream.url, headers, {"temperature": 1, "provider": {"order": ["x"]}}) as source,
    ):
        await answer(source)
    head, _, body = upstream.requests[0].partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    for line in (b"authorization: basic ehl6", b"x-team: web", b"user-agent: us"):
        assert lines.count(line) == 1
    assert body.startswith(b'{"model":"m","messages":[{"role":"user","content":"hello"}],"temperature":1,"provider":{')


async def test_what_the_operator_configured_is_not_quoted() -> None:
    """An upstream that quotes its headers, the extra body and the system message quotes none of it to the client."""
    secrets = ["abcd-efgh-plain", "team-of-secrets", "route-of-secrets", "You are a secret agent.\nNever say <so>."]
    system = {"role": "system", "content": secrets[3]}
    hello = {"role": "user", "content": "hello"}

    def quoted(status: bytes) -> Handler:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            message = orjson.dumps(
                {"error": {"message": f"No: {'; '.join(secrets)}. {orjson.dumps(secrets).decode()}"}}
            )
            if status.startswith(b"200"):
                message = CHUNK % b"a" + b"data: %s\n\n" % message
            writer.write(reply(message, status=status))
            await writer.drain()

        return handler

    headers = {"Authorization": f"Custom {secrets[0]}", "X-Team": secrets[1]}
    async with (
        Upstream(*map(quoted, (b"400 Bad", b"500 Bad", b"429 Bad", b"200 OK"))) as upstream,
        customized(upstream.url, headers, {"route": [secrets[2]]}) as source,
    ):
        for _ in range(4):
            with pytest.raises(UpstreamError) as raised:
                await answer(source, StreamRequest("m", (system, hello), secrets=(secrets[3],)))
            assert raised.value.text.startswith("No: [redacted]")
            for piece in (*secrets, "secret agent", "Never say", "Custom"):
                assert piece not in raised.value.text


@pytest.mark.parametrize("status", [b"400 Bad", b"200 OK"])
async def test_own_names_are_quoted(status: bytes) -> None:
    """What only looks like a key is told if the client has sent it, and the operator has not."""
    refused = reply(b'{"error":{"message":"No: org_a_name, org_no_name, org_op_name","code":400}}', status=status)
    own = [{"type": "function", "function": {"name": name}} for name in ("org_a_name", "org_op_name")]
    async with (
        Upstream(refused) as upstream,
        customized(upstream.url, extra_body={"route": "org_op_name"}) as source,
    ):
        with pytest.raises(UpstreamError, match=r"^No: org_a_name, \[redacted\], \[redacted\]$"):
            await answer(source, replace(asked(), parameters={"tools": own}))


async def test_traceparent() -> None:
    """The caller's trace goes to the upstream; without one no header is sent."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    whole = reply(CHUNK % b"hi" + FINISH)
    async with Upstream(whole, whole) as upstream, customized(upstream.url) as source:
        await answer(source, replace(asked(), traceparent=parent))
        await answer(source)
    assert f"\r\ntraceparent: {parent}\r\n".encode() in upstream.requests[0]
    assert b"traceparent" not in upstream.requests[1]


async def test_every_attempt_is_counted() -> None:
    """The trace has each answer's status, or the error's code where no status came, with the upstream's name."""
    attempts: list[Attempt] = []
    limited = reply(b"{}", status=b"429 Slow", headers=b"Retry-After-Ms: 1\r\n")
    unknown = reply(b'{"error":{"message":"stream_options"}}', status=b"400 Bad")
    async with Upstream(limited, unknown, reply(CHUNK % b"a")) as upstream, customized(upstream.url) as source:
        with pytest.raises(UpstreamError):
            await answer(retrying(source, RetryPolicy(attempts=3, initial=0.01, longest=0.2)), attempts=attempts)
    assert answers(attempts) == ["429", "400", "200"]
    async with Upstream(hang_up) as upstream, customized(upstream.url) as source:
        with pytest.raises(Disconnected):
            await answer(source, attempts=attempts)
    assert answers(attempts)[3:] == ["upstream_disconnected"]
