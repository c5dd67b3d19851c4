"""How an upstream is asked, directly and through a proxy, and how faults are named."""

from __future__ import annotations

import asyncio
import gzip
import random
import socket
from pathlib import Path

import httpx
import pytest

from app.errors import Disconnected, Malformed, Unreachable, UpstreamError
from app.upstream.http import client as transport
from app.upstream.http.client import create_client
from tests.upstream.direct import LOOPS
from tests.upstream.raw import Handler, Upstream, hang_up, reply

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]

OK = reply(b"ok")


async def ask(url: str, connect: float = 5, headers: dict[str, str] | None = None) -> bytes:
    async with create_client(url, connect) as client:
        sent = transport.headers_of(headers or {})
        response = await transport.response_to(client, "POST", f"{url}/chat", sent, b"secret")
        try:
            return b"".join([data async for data in transport.body(response)])
        finally:
            await response.aclose()


async def test_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the environment has a proxy for an upstream, it is the proxy that is asked."""
    async with Upstream(OK) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert await ask("http://upstream.invalid/v1") == b"ok"
    assert proxy.requests[0].startswith(b"POST http://upstream.invalid/v1/chat HTTP/1.1\r\n")
    assert proxy.requests[0].endswith(b"\r\n\r\nsecret")


async def test_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback, and what NO_PROXY names, is asked directly."""
    async with Upstream() as proxy, Upstream(OK) as upstream:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        assert await ask(upstream.url) == b"ok"
        monkeypatch.setenv("no_proxy", "elsewhere.invalid,upstream.invalid")
        with pytest.raises(Unreachable):
            await ask("http://upstream.invalid/v1")
    assert proxy.connections == 0


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (hang_up, Disconnected),
        (b"nonsense\r\n\r\n", Malformed),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000 + b"\r\n", Malformed),
    ],
)
async def test_faults(
    monkeypatch: pytest.MonkeyPatch, answer: Handler, error: type[UpstreamError], proxied: bool
) -> None:
    """A fault after the request was sent is never one of connecting, and it tells nothing of the request."""
    async with Upstream(answer) as upstream:
        url = upstream.url
        if proxied:
            monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
            url = "http://upstream.invalid/v1"
        with pytest.raises(error) as raised:
            await ask(url)
    assert raised.type is error
    if error is Malformed:
        assert raised.value.text == "The upstream service did not speak HTTP."
    assert "secret" not in f"{raised.value}{raised.value.__cause__}"


async def test_nothing_sent() -> None:
    """A request that cannot be sent, or a scheme that is not spoken, is unreachable: trying it again pays nothing."""
    async with Upstream() as upstream:
        with pytest.raises(Unreachable):
            await ask(upstream.url, headers={"X": "a\nb"})
    assert upstream.connections == 0
    with pytest.raises(Unreachable):
        await ask("ftp://127.0.0.1/v1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable):
        await ask(f"http://127.0.0.1:{port}/v1")


async def test_redirects() -> None:
    """A redirect that keeps the method is followed on the same host only; any other is the answer."""
    moved = b"HTTP/1.1 308 Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
    async with Upstream(moved % b"/v2", OK) as upstream:
        assert await ask(upstream.url) == b"ok"
        assert upstream.requests[1].startswith(b"POST /v2 HTTP/1.1\r\n")
        assert upstream.requests[1].endswith(b"\r\n\r\nsecret")
    for location, error in ((b"http://127.0.0.2/v1", Unreachable), (b"http://a:x/", Malformed)):
        async with Upstream(moved % location) as upstream:
            with pytest.raises(error):
                await ask(upstream.url)
    async with Upstream(*[moved % b"/v2"] * 4) as upstream:
        assert await ask(upstream.url) == b""
        assert len(upstream.requests) == 4
    async with Upstream(reply(b"no", status=b"302 Found", headers=b"Location: /v2\r\n")) as upstream:
        assert await ask(upstream.url) == b"no"


async def test_dense_compression() -> None:
    """A compressed body that is all alike, as streams of events nearly are, is no bomb however it arrives."""
    pick = random.Random(1).randrange
    body = b"".join(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % pick(10) for _ in range(500_000))
    squeezed = gzip.compress(body)
    assert len(squeezed) * 40 < len(body)
    async with Upstream(reply(squeezed, headers=b"Content-Encoding: gzip\r\n")) as upstream:
        assert await ask(upstream.url) == body


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize(
    ("coding", "times"),
    [
        *((word, 0) for word in ("", "none", "None", "UTF-8", "identity, identity", "text/event-stream", '"none"')),
        *((word, 1) for word in ("gzip", "x-gzip", "gzip, identity", "none, GZIP", "gzip,utf-8", "identity,gzip,none")),
        ("gzip, gzip", 2),
        ("gzip", 0),  # a proxy that decompressed the body and left the header
        ("deflate", 0),
        ("gzip, gzip", 1),
        (",".join(["gzip"] * 99), 1),
    ],
)
async def test_encodings(monkeypatch: pytest.MonkeyPatch, coding: str, times: int, pieces: str, proxied: bool) -> None:
    """What is no encoding is ignored, and a body that is not compressed is read whatever its header says (row H23)."""
    body = b"data: x\n\n" * 99
    squeezed = body
    for _ in range(times):
        squeezed = gzip.compress(squeezed)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = len(squeezed)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), size))
        step = size if pieces == "whole" else 1
        for at in range(0, size, step):
            writer.write(squeezed[at : at + step])
            if at < 4:
                await asyncio.sleep(0.01)

    async with Upstream(serve) as upstream:
        url = upstream.url
        if proxied:
            monkeypatch.setenv("http_proxy", url.removesuffix("/v1"))
            url = "http://upstream.invalid/v1"
        assert await ask(url) == body


@pytest.mark.parametrize("coding", ["br", "gzip, br", "zstd", "compress"])
async def test_encodings_that_cannot_be_read(coding: str) -> None:
    """An encoding that was not asked for, and that nothing here can undo, is malformed."""
    async with Upstream(reply(b"x", headers=f"Content-Encoding: {coding}\r\n".encode())) as upstream:
        with pytest.raises(Malformed):
            await ask(upstream.url)


@pytest.mark.parametrize("body", [b"", b"x", b"\x1f", b"{}"])
async def test_short_bodies_that_claim_to_be_compressed(body: bytes) -> None:
    """A body of less than the two bytes by which a compressed one is known is passed on, too."""
    async with Upstream(reply(body, headers=b"Content-Encoding: gzip\r\n")) as upstream:
        assert await ask(upstream.url) == body


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_certificates_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    """A file of certificates that is missing, or none, is a sentence that names the variable."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(Unreachable, match="SSL_CERT_FILE names certificates that cannot be read"):
        create_client("https://upstream.invalid/v1", 5)


async def test_connect_limit() -> None:
    """The limit on connecting reaches the transport; 0 is none."""
    limits = []

    def answer(request: httpx.Request) -> httpx.Response:
        limits.append(request.extensions["timeout"])
        return httpx.Response(200, request=request)

    for seconds in (7, 0):
        client = transport.Client(httpx.MockTransport(answer), seconds)
        async with client, transport.send(client, "GET", "http://127.0.0.1/v1", transport.headers_of()):
            pass
    assert limits == [{"connect": 7}, {"connect": None}]
