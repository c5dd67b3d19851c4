"""The protocol's bounds, on real sockets: how long a connection may wait, how much may be no body, who goes first."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from unittest import mock

import pytest
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.edge.event_stream import WRITE
from app.serving.protocol import Protocol, ServerConfig
from tests.waiting import until

pytestmark = pytest.mark.anyio

GET = b"GET /quick HTTP/1.1\r\nHost: x\r\n\r\n"
LATER = b"GET /late HTTP/1.1\r\nHost: x\r\n\r\n"
Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server around an application that echoes: `/late` when it is told to, `/early` begins before it has read."""

    def __init__(self, max_connections: int = 100, **bounds: Any) -> None:
        self.config = ServerConfig(self, max_connections, **bounds)
        self.state = ServerState()
        self.go = asyncio.Event()
        self.scopes: list[Scope] = []
        self.gone = 0
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        if scope["path"] == "/early":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] == "/late":
            await self.go.wait()
        more = scope["path"] != "/quick"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            more = message["more_body"]
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def connect(self, sent: bytes = b"") -> Opened:
        """Open a connection that the server has noticed, and send *sent* on it."""
        known = len(self.state.connections)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        await until(lambda: len(self.state.connections) > known or reader.at_eof() or self.full)
        writer.write(sent)
        return reader, writer

    @property
    def full(self) -> bool:
        return len(self.state.connections) >= self.config.max_connections

    @property
    def idle(self) -> int:
        return len(self.config.idle)


@asynccontextmanager
async def echoing(*arguments: Any, **options: Any) -> AsyncIterator[Echo]:
    """Run a server; in the end, when its connections are gone, it knows of none."""
    opened = Echo(*arguments, **options)
    opened.config.load()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Protocol(opened.config, opened.state, {}, loop), "127.0.0.1", 0)
    opened.port = listening.sockets[0].getsockname()[1]
    try:
        async with asyncio.timeout(30):
            yield opened
    finally:
        opened.go.set()
        for writer in opened.writers:
            writer.transport.abort()
        listening.close()
        await until(lambda: not (opened.state.connections or opened.config.idle or opened.state.tasks))


async def answer(reader: asyncio.StreamReader) -> bytes:
    """Read one answer; "" if the connection was closed, or broken off, without one."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return head + await reader.readexactly(length)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """Read until the server closes or breaks off; what came before a break counts."""
    said = b""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            said += data
    return said


@pytest.mark.parametrize("begun", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nX: y\r\n"])
async def test_slow_head(begun: bytes) -> None:
    """A head that is not there in time is given up with 408, however little of it came, and whenever."""
    async with echoing(head_timeout=0.05) as at:
        reader, _ = await at.connect(begun)
        assert (await rest(reader)).startswith(b"HTTP/1.1 408")


async def test_dripping_head() -> None:
    """A byte now and then does not put the deadline off, neither in the first request nor in a later one."""
    async with echoing(head_timeout=0.3) as at:
        for first in (b"", GET):
            reader, writer = await at.connect(first)
            if first:
                await answer(reader)
            writer.write(b"GET /")
            said = asyncio.create_task(rest(reader))
            while not said.done():
                writer.write(b"x")
                await asyncio.sleep(0.02)
            assert said.result().startswith(b"HTTP/1.1 408")
            assert not at.idle


@pytest.mark.parametrize("drip", [b"\r\n", b"b"])
async def test_dripping_beyond_an_answer(drip: bytes) -> None:
    """An answered connection ends when its time is up, also if blank lines, or what is left of a body, still come."""
    first = GET if drip == b"\r\n" else GET[:-2] + b"Content-Length: 10000000\r\n\r\n"
    async with echoing(keep_alive=0.3) as at:
        reader, writer = await at.connect(first)
        assert await answer(reader)
        assert at.idle == 1
        # Its end is a reset if a byte crosses it.
        while not reader.at_eof() and reader.exception() is None:
            writer.write(drip)
            await asyncio.sleep(0.02)
        assert not at.idle


async def test_slow_body_is_the_application_s_to_bound() -> None:
    """Once the head is there, its deadline is off; a connection is idle until all of the request has come."""
    async with echoing(head_timeout=0.5) as at:
        reader, writer = await at.connect(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
        await until(lambda: at.scopes)
        await asyncio.sleep(0.8)
        assert at.idle == 1
        writer.write(b"cd")
        assert (await answer(reader)).endswith(b"\r\n\r\nabcd")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"x" * 5000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 5000,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000,
        b"GET / HTTP/1.1\r\nX: " + b"y" * 5000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 5000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + b"X: y\r\n" * 1000,
        b"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: " + b"y" * 5000,
    ],
)
@pytest.mark.parametrize("piece", [1 << 20, 500])
async def test_too_much_that_is_no_body(data: bytes, piece: int) -> None:
    """Head, chunk extensions and trailers together are bounded, in one read or in many."""
    async with echoing(head_bytes=4000) as at:
        reader, writer = await at.connect()
        for start in range(0, len(data), piece):
            writer.write(data[start : start + piece])
            await asyncio.sleep(0)
        said = await rest(reader)  # nothing, if the rest was still being sent when the server hung up
        assert said.startswith(b"HTTP/1.1 431") or (not said and piece < len(data))
        await until(lambda: at.gone == len(at.scopes))


@pytest.mark.parametrize("piece", [1 << 20, 500])
async def test_too_many_fields(piece: int) -> None:
    """The fields of a head are bounded in number: 100 are read, and one more is a 431 that reaches no application."""
    async with echoing() as at:
        for more, status in ((0, b"200"), (1, b"431")):
            fields = b"".join(b"X-%d: y\r\n" % number for number in range(99 + more))
            data = b"GET / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"
            reader, writer = await at.connect()
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await asyncio.sleep(0)
            said = await rest(reader) if more else await answer(reader)
            assert said.startswith(b"HTTP/1.1 " + status)
        assert len(at.scopes) == 1


async def test_a_body_is_no_overhead() -> None:
    """Honest bodies of any size and in chunks of any size pass, one after another on one connection."""
    async with echoing(head_bytes=200) as at:
        reader, writer = await at.connect()
        for size in (1, 10, 3000):
            body = b"x" * 3000
            pieces = [body[start : start + size] for start in range(0, len(body), size)]
            framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*pieces, b""))
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + framed)
            assert (await answer(reader)).endswith(body)
            writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + body)
            assert (await answer(reader)).endswith(body)
        for _ in range(20):
            writer.write(GET)
            assert await answer(reader)


async def test_trailers_are_dropped() -> None:
    """Trailers are not among the headers, though they may be there before the application starts."""
    async with echoing() as at:
        reader, _ = await at.connect(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: forged\r\n\r\n"
        )
        await answer(reader)
        assert [name for name, _ in at.scopes[0]["headers"]] == [b"host", b"transfer-encoding"]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket", b"anything"])
@pytest.mark.parametrize("framing", [b"Content-Length: 40", b"Transfer-Encoding: chunked"])
async def test_upgrades(offer: bytes, framing: bytes) -> None:
    """An offered protocol is ignored, and the body is the request's: none of it is read as the next one."""
    body = GET.ljust(40)
    sent = body if b"Length" in framing else b"28\r\n%s\r\n0\r\n\r\n" % body
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: %s\r\n%s\r\n\r\n" % (offer, framing)
    async with echoing() as at:
        reader, writer = await at.connect()
        for parts in ([head + sent], [head, sent], [head + sent[:3], sent[3:]]):
            for part in parts:
                before = len(at.scopes)
                writer.write(part)
                if part.startswith(head):
                    await until(lambda before=before: len(at.scopes) > before)  # type: ignore[misc]  # mypy infers no default of a lambda
            assert (await answer(reader)).endswith(body)
        assert [scope["path"] for scope in at.scopes] == ["/echo"] * 3


async def test_upgrade_without_a_body() -> None:
    """Likewise without a body; and the connection goes on."""
    async with echoing() as at:
        reader, writer = await at.connect(GET[:-2] + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.write(GET)
        assert (await answer(reader)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("more", [LATER, GET, b"\x16\x03\x01", b"nonsense\r\n\r\n"])
async def test_more_while_answering(more: bytes) -> None:
    """A second request, or noise, before the answer is done ends the connection, and the first request knows."""
    async with echoing() as at:
        reader, writer = await at.connect(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await until(lambda: at.scopes)
        writer.write(more)
        assert await rest(reader) == b""
        at.go.set()
        await until(lambda: at.gone)
        assert len(at.scopes) == 1


@pytest.mark.parametrize("more", [b"zz\r\n", b"0\r\nX: " + b"y" * 50_000])
async def test_bad_body_while_answering(more: bytes) -> None:
    """A body that goes wrong once the answer has begun breaks the answer off; no other one is put into it."""
    async with echoing() as at:
        reader, writer = await at.connect(b"POST /early HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        said = await reader.readuntil(b"begun")
        writer.write(more)
        said += await rest(reader)
        assert said.count(b"HTTP/1.1") == 1
        await until(lambda: at.gone == 1)


async def test_the_longest_idle_goes_first() -> None:
    """Over the bound, the connection that has been idle longest is closed, and an answered one counts from then."""
    async with echoing(max_connections=3) as at:
        first, second, third = [await at.connect() for _ in range(3)]
        first[1].write(GET)
        await answer(first[0])
        fourth = await at.connect(GET)
        assert await answer(fourth[0])
        assert await rest(second[0]) == b""
        fifth = await at.connect(GET)
        assert await answer(fifth[0])
        assert await rest(third[0]) == b""
        first[1].write(GET)
        assert await answer(first[0])
        assert len(at.state.connections) == at.idle == 3


async def test_half_a_body_is_idle() -> None:
    """A request whose body is still to come makes room, too, and learns that its client is gone."""
    async with echoing(max_connections=1) as at:
        half, _ = await at.connect(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        await until(lambda: at.scopes)
        reader, _ = await at.connect(GET)
        assert await answer(reader)
        assert await rest(half) == b""
        await until(lambda: at.gone)


async def test_nobody_is_idle() -> None:
    """Where every connection is being answered, the new one is refused, with 503; the others are not disturbed."""
    async with echoing(max_connections=2) as at:
        busy = [await at.connect(LATER) for _ in range(2)]
        await until(lambda: len(at.scopes) == 2)
        refused, _ = await at.connect(GET)
        assert (await rest(refused)).startswith(b"HTTP/1.1 503")
        at.go.set()
        for reader, _ in busy:
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")


async def test_half_closed() -> None:
    """A client that shuts down its sending side is gone: what it asked for is told so."""
    async with echoing() as at:
        _, writer = await at.connect(b"POST /late HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx")
        await until(lambda: at.scopes)
        writer.write_eof()
        await until(lambda: not at.state.connections)
        at.go.set()
        await until(lambda: at.gone)


async def test_claims_of_proxies() -> None:
    """Where a request came from is what the socket says, whatever its headers claim."""
    async with echoing() as at:
        claims = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n\r\n"
        reader, _ = await at.connect(GET[:-2] + claims)
        assert await answer(reader)
        assert (at.scopes[0]["client"][0], at.scopes[0]["scheme"]) == ("127.0.0.1", "http")


async def test_frames_written_at_once() -> None:
    """A frame goes out as one chunk; an empty one is none, for it would end the body; a client that left takes none."""
    wrote: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        write = scope["extensions"][WRITE]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        wrote.extend([write(b"one"), write(b""), write(b"two")])
        while (await receive())["type"] != "http.disconnect":
            pass
        wrote.append(write(b"three"))

    async with echoing() as at:
        at.config.loaded_app = app
        reader, writer = await at.connect(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head
        assert await reader.readexactly(16) == b"3\r\none\r\n3\r\ntwo\r\n"
        writer.close()
        await until(lambda: len(wrote) == 4)
        assert wrote == [True, True, True, False]


@pytest.mark.parametrize(
    ("pieces", "writes"),
    [((b"one", b"two"), 2), ((b"", b"one", b"two"), 3), ((), 1)],
)
async def test_the_head_goes_with_the_body(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...], writes: int
) -> None:
    """A head is written with the body's first piece, even if that is empty; and alone if the answer breaks off."""
    written: list[bytes] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": piece != b"two"})

    def connected(protocol: Protocol, transport: asyncio.Transport) -> None:
        def write(data: bytes) -> None:
            written.append(data)
            transport.write(data)

        connection_made(protocol, mock.Mock(wraps=transport, write=write))

    connection_made = Protocol.connection_made
    monkeypatch.setattr(Protocol, "connection_made", connected)
    async with echoing() as at:
        at.config.loaded_app = app
        reader, writer = await at.connect(GET)
        if pieces:
            head = await reader.readuntil(b"\r\n\r\n")
            assert await reader.readuntil(b"0\r\n\r\n") == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
            assert written[0] == head + (b"3\r\none\r\n" if pieces[0] else b"")
        else:
            assert await reader.read() == written[0]
            assert written[0].startswith(b"HTTP/1.1 200")
        writer.close()
    assert len(written) == writes


OLD = b"POST /echo HTTP/1.0\r\nHost: x\r\nContent-Length: 2\r\n%s\r\nhi"


@pytest.mark.parametrize("header", [b"", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"])
async def test_http_1_0(header: bytes) -> None:
    """A client of HTTP/1.0 gets frames as they are, until its connection is closed, and no interim answer."""
    extensions: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        extensions.append(scope.get("extensions"))
        assert (await receive())["body"] == b"hi"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for body in (b"one", b"", b"t" * 100_000):
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"last"})

    async with echoing() as at:
        at.config.loaded_app = app
        reader, _ = await at.connect(OLD % header)
        head, _, body = (await rest(reader)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert body == b"one" + b"t" * 100_000 + b"last"
    assert extensions == [None]


async def test_a_length_over_http_1_0() -> None:
    """An answer that says how long it is does so over HTTP/1.0, too, and is held to it; a HEAD has no body."""
    async with echoing() as at:
        reader, _ = await at.connect(OLD % b"")
        assert (await rest(reader)).endswith(b"content-length: 2\r\nconnection: close\r\n\r\nhi")
        reader, _ = await at.connect(OLD.replace(b"POST", b"HEAD") % b"")
        assert (await rest(reader)).endswith(b"content-length: 2\r\nconnection: close\r\n\r\n")


@pytest.mark.parametrize(("status", "method"), [(204, b"POST"), (200, b"HEAD")])
async def test_no_body_over_http_1_0(status: int, method: bytes) -> None:
    """An answer without a body has none, and no length either."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body"})

    async with echoing() as at:
        at.config.loaded_app = app
        reader, _ = await at.connect(OLD.replace(b"POST", method) % b"")
        said = await rest(reader)
    assert said.startswith(b"HTTP/1.1 %d" % status)
    assert said.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in said


async def test_clients_that_do_not_read() -> None:
    """Bytes that wait for clients are bounded: the connection that has not been read for longest is closed."""
    body = bytes(8 << 20)  # more than the kernel keeps for a client
    sent = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    loop = asyncio.get_running_loop()
    async with echoing(unread=64 << 20) as echo:
        sockets = [socket.socket() for _ in range(12)]
        try:
            for sock in sockets:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                await loop.sock_connect(sock, ("127.0.0.1", echo.port))
                await loop.sock_sendall(sock, sent + body)
                assert await loop.sock_recv(sock, 12) == b"HTTP/1.1 200"
                assert echo.config.unread.size <= 16 << 20
            await until(lambda: 1 <= len(echo.state.connections) < 12)
            assert await loop.sock_recv(sockets[-1], 100)
            came = 0
            with suppress(ConnectionError):
                while piece := await loop.sock_recv(sockets[0], 1 << 20):
                    came += len(piece)
            assert came < len(body)
        finally:
            for sock in sockets:
                sock.close()
        await until(lambda: echo.config.unread.size == 0)
