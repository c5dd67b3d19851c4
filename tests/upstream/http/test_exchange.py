"""A response over real sockets: every framing, every fault, and reading on demand."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from app.errors import Disconnected, Malformed
from app.upstream.http.exchange import _Phase
from app.upstream.http.pool import READ
from tests.upstream.direct import LOOPS, Counted, direct
from tests.upstream.raw import Upstream, reply
from tests.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", LOOPS)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
MANY = b"".join(b"N%d: x\r\n" % number for number in range(257))

BODIES = {
    "length": (reply(b"abc"), b"abc"),
    "empty": (reply(b""), b""),
    "chunks": (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
    "trailers": (CHUNKED + b"3\r\nabc\r\n0\r\nX-Late: y\r\n\r\n", b"abc"),
    "two codings": (OK + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
    "to the end": (OK + b"\r\nabc", b"abc"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
    "not chunked": (OK + b"Transfer-Encoding: identity\r\n\r\nabc", b"abc"),
    "interim": (b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Early\r\nX-Early: y\r\n\r\n" + reply(b"abc"), b"abc"),
    "upgrade offered": (reply(b"abc", headers=b"Upgrade: h2c\r\nConnection: Upgrade, Keep-Alive\r\n"), b"abc"),
    "bare line feeds": (reply(b"abc").replace(b"\r\n", b"\n"), b"abc"),
    "blank line first": (b"\r\n" + reply(b"abc"), b"abc"),
    "chunk size with a space": (CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n", b"abc"),
    "equal lengths": (OK + b"Content-Length: 3\r\nX: y\r\ncontent-length:3\r\n\r\nabc", b"abc"),
    "equal lengths in a list": (OK + b"Content-Length: 3, 3\r\n\r\nabc", b"abc"),
    "equal lengths after an interim": (
        b"HTTP/1.1 100 Go\r\n\r\n" + OK + b"Content-Length: 3\nContent-Length: 3\n\nabc",
        b"abc",
    ),
    "no content": (b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", b""),
    "not modified": (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", b""),
}


@pytest.mark.parametrize("pieces", ["whole", "bytes"])
@pytest.mark.parametrize("kind", BODIES)
async def test_bodies(kind: str, pieces: str, counted: Counted) -> None:
    """Each framing is read to its end, whether it comes at once or byte by byte, and leaves no header behind."""
    raw, body = BODIES[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if pieces == "whole":
            writer.write(raw)
        else:
            for number in range(len(raw)):
                writer.write(raw[number : number + 1])
                await counted.arrival(number + 1)
        if kind in ("to the end", "HTTP/1.0", "not chunked"):
            raise ConnectionError

    async with Upstream(serve) as upstream, direct() as client:
        response = await client.get(upstream.url)
        assert response.content == body
        assert not any(name in response.headers for name in ("x-late", "x-early"))
        if pieces == "bytes":
            assert counted.reads == len(raw)


async def test_head() -> None:
    """A response to HEAD has no body, whatever its length says."""
    async with Upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") as upstream, direct() as client:
        response = await client.head(upstream.url)
    assert (response.content, response.headers["content-length"]) == (b"", "5")


async def test_headers() -> None:
    """Headers come as they were sent: in any encoding, folded, empty, repeated; and the reason."""
    fields = b"X-Latin: caf\xe9\r\nX-Folded: one\r\n two\r\nX-Empty:\r\nX-Twice: a\r\nX-Twice: b\r\n"
    async with Upstream(reply(b"", status=b"200 Fine by me", headers=fields)) as upstream, direct() as client:
        response = await client.get(upstream.url)
    assert response.reason_phrase == "Fine by me"
    assert [response.headers[name] for name in ("x-latin", "x-folded", "x-empty")] == ["café", "one two", ""]
    assert response.headers.get_list("x-twice") == ["a", "b"]


NOT_HTTP = {
    "nonsense": b"nonsense\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    "status below 100": b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
    "long header": OK + b"X: " + b"x" * 70_000,
    "long reason": b"HTTP/1.1 200 " + b"x" * 70_000,
    "long head at once": OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
    "many headers": OK + MANY + b"\r\n",
    "endless interim": b"HTTP/1.1 100 Go\r\n\r\n" * 4000,
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "two lengths in a list": OK + b"Content-Length: 1, 2\r\n\r\na",
    "equal lengths that are none": OK + b"Content-Length: a\r\nContent-Length: a\r\n\r\na",
    "equal lengths in an endless head": OK + b"Content-Length: 1\r\n" * 5000,
    "length and chunks": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length beyond numbers": OK + b"Content-Length: %d\r\n\r\n" % 10**30,
    "a zero byte": OK + b"X: a\0b\r\n\r\n",
}


@pytest.mark.parametrize("kind", NOT_HTTP)
async def test_heads_that_are_refused(kind: str) -> None:
    """What is not HTTP, or beyond reason, is an error that says nothing of what was asked; the connection closes."""
    async with Upstream(NOT_HTTP[kind]) as upstream, direct() as client, asyncio.timeout(30):
        with pytest.raises(Malformed) as raised:
            await client.post(upstream.url, content=b"secret", headers={"Authorization": "secret"})
        assert "secret" not in str(raised.value)
        await upstream.idle()


BROKEN = {
    "chunk size": (b"zz\r\n", Malformed),
    "chunk beyond its size": (b"1\r\nabc\r\n", Malformed),
    "endless trailer": (b"0\r\nX: " + b"x" * (1 << 20), Malformed),
    "endless trailers": (b"0\r\n" + b"X: y\r\n" * 70_000, Malformed),
    "endless extension": (b"1;" + b"x" * (1 << 20), Malformed),
    "cut in a chunk": (b"5\r\nab", Disconnected),
    "cut between chunks": (b"", Disconnected),
    "cut before the last line": (b"0\r\n", Disconnected),
}


@pytest.mark.parametrize("kind", BROKEN)
async def test_bodies_that_break(kind: str) -> None:
    """A body that is cut or misframed is an error, and never an end; what came before is read first."""
    rest, error = BROKEN[kind]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"5\r\nwhole\r\n")
        writer.write(rest)
        await writer.drain()
        raise ConnectionError

    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        body = b""
        with pytest.raises(error):
            while True:
                data = await response.extensions[READ]()
                assert data
                body += data
        assert body.startswith(b"whole")


async def test_frames_apart_from_their_chunks(counted: Counted) -> None:
    """Whatever frames the chunks of a long stream may come apart from them: only between two is there a bound."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await counted.arrival(len(CHUNKED))
        for _ in range(3):
            for part in (b"1;" + b"x" * 30_000, b"\r\n", b"a", b"\r\n"):
                here = counted.bytes
                writer.write(part)
                await counted.arrival(here + len(part))
        writer.write(b"0\r\n\r\n")

    async with Upstream(serve) as upstream, direct() as client, asyncio.timeout(30):
        assert (await client.get(upstream.url)).content == b"aaa"


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200", OK + b"Content-Length: 9\r\n\r\nabc"])
async def test_cut(begun: bytes) -> None:
    """A server that closes before the whole response is there has broken the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begun)
        raise ConnectionError

    async with Upstream(serve) as upstream, direct() as client:
        with pytest.raises(Disconnected):
            await client.get(upstream.url)


async def test_reset() -> None:
    """A body without a length that is reset has not ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\nabc")
        await read.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionError

    read = asyncio.Event()
    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        assert await response.extensions[READ]() == b"abc"
        read.set()
        with pytest.raises(Disconnected):
            await response.extensions[READ]()


async def test_read_after_close() -> None:
    """A response that was left before its end is read no further, also where only the connection's end is its end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"\r\n")
        await reader.read()

    async with Upstream(serve) as upstream, direct() as client:
        async with client.stream("GET", upstream.url) as response:
            read = asyncio.create_task(response.extensions[READ]())
            await asyncio.sleep(0)
        await upstream.idle()
        with pytest.raises(Disconnected):
            await read
        with pytest.raises(Disconnected):
            await response.extensions[READ]()


async def test_a_read_until_a_time() -> None:
    """A read that waits until a time raises TimeoutError then; what comes later is for the next one."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await late.wait()
        writer.write(b"1\r\na\r\n0\r\n\r\n")

    late = asyncio.Event()
    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        now, read = asyncio.get_running_loop().time, response.extensions[READ]
        with pytest.raises(TimeoutError):
            await read(until=now() + 0.01)
        late.set()
        assert b"".join([await read(until=now() + 60), await read(until=now() + 60)]) == b"a"


async def test_reads_keep_up(counted: Counted) -> None:
    """While each piece is taken before the next comes, reading is never paused."""
    taken = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for _ in range(100):
            writer.write(b"3\r\nabc\r\n")
            await taken.wait()
            taken.clear()
        writer.write(b"0\r\n\r\n")

    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        pieces = 0
        while data := await response.extensions[READ]():
            assert data == b"abc"
            pieces += 1
            taken.set()
    assert (pieces, counted.pauses) == (100, 0)
    assert counted.reads <= 102


async def test_reading_on_demand(counted: Counted) -> None:
    """While two reads lie untaken the rest waits in the kernel; the next read brings all of it at once."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await head.wait()
        for number in range(1, 21):
            here = counted.bytes
            writer.write(b"3\r\n%03d\r\n" % number)
            if number <= 2:
                await counted.arrival(here + 8)
        sent.set()

    head, sent = asyncio.Event(), asyncio.Event()
    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        before = counted.reads
        head.set()
        await sent.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert (counted.reads - before, counted.pauses) == (2, 1)
        assert await response.extensions[READ]() == b"".join(b"%03d" % number for number in range(1, 21))
        assert counted.reads - before == 3


async def test_a_pause_leaves_all_to_the_kernel(counted: Counted) -> None:
    """Given a pause, a read of the body is one read of the socket, whatever came meanwhile; at the end none is kept."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await until(lambda: counted.pauses)
        for number in range(20):
            writer.write(b"3\r\n%03d\r\n" % number)
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")

    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        read, before = response.extensions[READ], counted.reads
        assert await read(0.5) == b"".join(b"%03d" % number for number in range(20))
        assert counted.reads - before == 1
        began = asyncio.get_running_loop().time()
        assert await read(60) == b""
        assert asyncio.get_running_loop().time() - began < 30


async def test_a_pause_after_the_connection_broke() -> None:
    """What broke between two reads is what the next read raises, also if that was to pause first."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\na\r\n")
        await read_it.wait()
        raise ConnectionError

    read_it = asyncio.Event()
    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        exchange, read = client.only(), response.extensions[READ]
        assert exchange is not None
        assert await read() == b"a"
        read_it.set()
        await until(lambda: exchange._phase is _Phase.BROKEN)
        with pytest.raises(Disconnected):
            await read(0.05)


async def test_complete_while_paused(counted: Counted) -> None:
    """A response whose end came between two reads gives its connection back, and that reads again."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        await head.wait()
        for rest in (b"1\r\na\r\n", b"1\r\nb\r\n0\r\n\r\n"):
            here = counted.bytes
            writer.write(rest)
            await counted.arrival(here + len(rest))
        sent.set()

    head, sent = asyncio.Event(), asyncio.Event()
    async with Upstream(serve, reply(b"ok")) as upstream, direct() as client, asyncio.timeout(30):
        async with client.stream("GET", upstream.url):
            head.set()
            await sent.wait()
        assert counted.pauses == 1
        assert (await client.get(upstream.url)).content == b"ok"
        assert upstream.connections == 1


async def test_sleepy_reader(counted: Counted) -> None:
    """Of a thousand pieces, 2 ms apart, one who looks every 50 ms misses nothing, and causes few reads."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED)
        for number in range(1000):
            writer.write(b"4\r\n%04d\r\n" % number)
            await asyncio.sleep(0.002)
        writer.write(b"0\r\n\r\n")

    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        body = b""
        looks = 0
        while data := await response.extensions[READ]():
            body += data
            looks += 1
            await asyncio.sleep(0.05)
    assert body == b"".join(b"%04d" % number for number in range(1000))
    assert counted.reads < 5 * looks  # there are 25 pieces between two looks, unless the machine is slow


async def test_memory_is_bounded() -> None:
    """However much a server sends to one who does not read, no more than two reads of the socket lie here."""

    large = b"0123456789abcdef" * (1 << 20)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: %d\r\n\r\n" % len(large))
        writer.write(large)

    async with Upstream(serve) as upstream, direct() as client, client.stream("GET", upstream.url) as response:
        exchange = client.only()
        assert exchange is not None
        await until(lambda: exchange._paused)
        read = response.extensions[READ]
        body = bytearray()
        while data := await read():
            assert len(data) <= 3 * 256 * 1024 + 1024
            assert sum(map(len, exchange._pieces)) <= 2 * 256 * 1024
            body += data
            if exchange._paused:
                await asyncio.sleep(0.001)
    assert body == large
