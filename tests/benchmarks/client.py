"""The load client's streams: asking a contender for one, and counting what comes.

Strategy: it must cost little beside what it measures. So no HTTP library: every delta of the simulator's model `clock`
is a number and a semicolon, and a read is one `bytes.count`. Sampled streams keep their reads with the time of arrival,
to be parsed when the run is over.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from time import monotonic_ns
from typing import Any, cast

from tests.benchmarks.plan import MODEL, Ask

_STAMP = re.compile(rb"(\d{16});")
_STREAM_ID = re.compile(rb"\r\nx-stream-id: ([\w-]+)\r\n", re.IGNORECASE)
_END = b"0\r\n\r\n"


def clock(rate: float, wanted: int) -> str:
    """Return the model whose deltas are the time, *wanted* of them, *rate* a second."""
    return f"clock?first=0&rate={rate:g}&tokens={wanted}"


def request(ask: Ask, model: str, accept: str = "*/*", more: Mapping[str, Any] | None = None) -> bytes:
    """Return a whole HTTP request for *model*, with *more* in its body."""
    content = json.dumps({**ask.body, **(more or {})}).replace(MODEL, model).encode()
    headers = {"host": "localhost", "accept": accept, "content-type": "application/json", **ask.headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {ask.path} HTTP/1.1\r\n{head}content-length: {len(content)}\r\n\r\n".encode() + content


def attachment(stream_id: bytes, after: int = 0) -> bytes:
    """Return the HTTP request that reads a stream of the service, from the start or after a position."""
    position = b"last-event-id: %b-%d\r\n" % (stream_id, after) if after else b""
    return b"GET /v1/streams/%b HTTP/1.1\r\nhost: localhost\r\n%b\r\n" % (stream_id, position)


async def start(port: int, ask: Ask, model: str) -> bytes:
    """Start a stream on *port* without reading it there, and return its id."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request(ask, model, "application/json"))
        head = await reader.readuntil(b"\r\n\r\n")
        if found := _STREAM_ID.search(head):
            return found[1]
        raise ConnectionError(head.partition(b"\r\n")[0].decode("latin-1"))
    finally:
        writer.close()


class Stream(asyncio.Protocol):
    """One stream of *wanted* deltas, over a connection of its own, whose last words hold *end*."""

    transport: asyncio.Transport

    def __init__(self, wanted: int, end: str) -> None:
        self._head: bytes | None = b""
        self._ending = b""
        self._end_mark = end.encode()
        self.wanted = wanted
        self.seen = 0
        self.asked = self.first = 0  # monotonic nanoseconds
        self.reads: list[tuple[int, bytes]] | None = None  # kept where it is sampled
        self.stream_id: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()  # the service's answers'
        self.ready = asyncio.Event()  # to be asked
        self.over = asyncio.Event()
        self.ended = False
        self.complaint = ""
        self.pausing = False  # read no further than the first delta

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # of TCP; asyncio declares the base
        self.ready.set()

    def ask(self, content: bytes) -> None:
        """Send a request."""
        self.asked = self.asked or monotonic_ns()
        self.transport.write(content)

    def data_received(self, data: bytes) -> None:
        if self.reads is not None:
            self.reads.append((monotonic_ns(), data))
        if self._head is not None:
            data = self._body_of(self._head + data)
        if new := data.count(b";"):
            if not self.seen:
                self.first = monotonic_ns()
                if self.pausing:
                    self.transport.pause_reading()
            self.seen += new
        if self.seen >= self.wanted or not new:
            self._ending = (self._ending + data)[-4096:]
            if self._whole():
                self.end()

    def _whole(self) -> bool:
        """Whether the answer has ended, going by what came last."""
        return self._ending.endswith(_END)

    def _body_of(self, data: bytes) -> bytes:
        head, blank, body = data.partition(b"\r\n\r\n")
        self._head = None if blank else data
        if blank:
            if not head.startswith(b"HTTP/1.1 200 "):
                status = head.partition(b"\r\n")[0].decode("latin-1")
                self.end(f"{status}, {body[:120]!r}")
            elif (found := _STREAM_ID.search(head + b"\r\n")) and not self.stream_id.done():
                self.stream_id.set_result(found[1])
        return body if blank else b""

    def end(self, complaint: str = "") -> None:
        """Be done, with a *complaint* or, if what came is not whole, with one about that."""
        if not self.ended:
            self.ended = True
            if self.seen != self.wanted or self._end_mark not in self._ending:
                complaint = complaint or f"{self.seen} of {self.wanted} deltas, then {self._ending[-200:]!r}"
            else:
                complaint = ""  # said to the end, however it was closed
            self.complaint = complaint
            self.transport.close()
            self.ready.set()
            self.over.set()
            self.stream_id.cancel()

    def leave(self) -> None:
        """Close the connection in the middle; nothing is wrong with that."""
        self.ended = True
        self.transport.abort()
        self.over.set()
        self.stream_id.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"connection lost: {exc}")


class SocketIoStream(Stream):
    """The same over socket.io: a WebSocket that carries Engine.IO's packets as text, and those socket.io's."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # of TCP; asyncio declares the base
        self.transport.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n"
            b"connection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )

    def ask(self, content: bytes) -> None:
        self.asked = monotonic_ns()
        self._say(b"42" + content)

    def _body_of(self, data: bytes) -> bytes:
        """Shake hands: the upgrade's answer, then Engine.IO's `open`, which `connect` answers, which is answered."""
        self._head = data
        if b"40{" in data:
            self._head = None
            self.ready.set()
        elif data.endswith(b"}") and b"0{" in data:
            self._say(b"40")
        return b""

    def _whole(self) -> bool:
        if self._ending.endswith(b"\x81\x012"):  # a ping, which always comes alone
            self._say(b"3")
        return self._end_mark in self._ending or b'42["error"' in self._ending

    def _say(self, text: bytes) -> None:
        """Send a text frame, masked with zeros."""
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self.transport.write(b"\x81" + size + bytes(4) + text)


def content_of(ask: Ask, model: str, more: Mapping[str, Any] | None = None) -> bytes:
    """Return what `Stream.ask` is to send for *model*."""
    if ask.socket_io:
        return json.dumps(["prompt", ask.body]).replace(MODEL, model).encode()
    return request(ask, model, more=more)


async def connect(ask: Ask, port: int, wanted: int, *, receive: int = 0) -> Stream:
    """Return a stream that can be asked; *receive* is the size of the kernel's buffer for it, 0 its default."""
    sock = socket.socket()
    sock.setblocking(False)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    loop = asyncio.get_running_loop()
    kind = SocketIoStream if ask.socket_io else Stream
    try:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        _, stream = await loop.create_connection(lambda: kind(wanted, ask.end), sock=sock)
    except BaseException:
        sock.close()
        raise
    await stream.ready.wait()
    return stream


def latencies(reads: Iterable[tuple[int, bytes]]) -> Iterator[float]:
    """Yield the milliseconds that each delta took from the simulator's clock to the read it came with."""
    rest = b""
    for now, data in reads:
        data = rest + data
        for stamp in _STAMP.findall(data):
            if 0 <= (late := now - int(stamp)) < 60_000_000_000:  # else a number that chunk framing fell into
                yield late / 1e6
        rest = data[data.rfind(b";") + 1 :][-64:]
