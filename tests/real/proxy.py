"""A TCP proxy in the test's own process that breaks connections where a test says: at a byte, at an event, now."""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_HEAD = re.compile(rb"(?:GET|POST|DELETE) \S+ HTTP/1\.1\r\n(?:[^\r\n]+\r\n)*\r\n")
_METHODS = (b"GET ", b"POST ", b"DELETE ")
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(frozen=True, slots=True)
class Cut:
    """Where one connection breaks: after so many bytes from the server, head included, or after so many SSE blocks.

    With *reset* the client sees RST, without it FIN.
    """

    octets: int | None = None
    blocks: int | None = None
    reset: bool = False

    def within(self, seen: bytes, data: bytes) -> int | None:
        """Return how much of *data*, which came after *seen*, still passes; None: all, and it goes on."""
        if self.octets is not None and len(seen) + len(data) >= self.octets:
            return self.octets - len(seen)
        if self.blocks is not None:
            whole = seen + data
            ends = [match.end() for match in re.finditer(rb"\n\n", whole)]
            if len(ends) >= self.blocks:
                return ends[self.blocks - 1] - len(seen)
        return None


@dataclass(eq=False)
class Link:
    """One proxied connection, and all that passed through it."""

    client: asyncio.StreamWriter
    cut: Cut | None = None
    server: asyncio.StreamWriter | None = None
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    closed: bool = False
    dead: bool = False

    def close(self, *, reset: bool) -> None:
        """Break both halves."""
        self.closed = True
        if reset and not self.client.is_closing():
            sock: socket.socket = self.client.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.client.close()
        if self.server is not None:
            self.server.close()

    def abort(self) -> None:
        """Break both halves, whatever is still to be sent."""
        self.closed = True
        self.client.transport.abort()
        if self.server is not None:
            self.server.transport.abort()


class Proxy:
    """Forwards to the port of *url*. Each connection takes the next of *cuts* with its first request; those that find
    none are not cut."""

    def __init__(self, url: str, cuts: Iterable[Cut | None] = ()) -> None:
        self._port = urlsplit(url).port
        self._cuts = deque(cuts)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.links: list[Link] = []
        self.cuts = 0  # how many connections were cut where it was said
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(30)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @property
    def heads(self) -> list[str]:
        """The request heads that passed, in order, with LF line ends."""
        matches = (match for link in self.links for match in _HEAD.finditer(bytes(link.sent)))
        return [match[0].decode("latin-1").replace("\r", "") for match in matches]

    def header(self, name: str) -> list[str | None]:
        """Return what each request's header *name* said."""
        found = [re.search(rf"(?im)^{name}: *(.*)$", head) for head in self.heads]
        return [match and match[1] for match in found]

    @property
    def received(self) -> bytes:
        """All that the server sent."""
        return b"".join(bytes(link.received) for link in self.links)

    def plan(self, cuts: Iterable[Cut | None]) -> None:
        """Break every connection there is, and let those to come be cut as *cuts* say.

        A browser may have opened one that it has not used yet, which would be of neither kind if this were two steps.
        """

        def plan() -> None:
            self._cuts = deque(cuts)
            self._close(reset=False)

        self._call(plan)

    def asked(self, link: Link, head: bytes) -> None:
        """Take note that a request comes over *link*, which begins with *head*. A subclass may say where to cut it."""

    def move(self, url: str) -> None:
        """Forward the connections to come to the port of *url*."""
        self._port = urlsplit(url).port

    def cut(self, *, reset: bool = False) -> None:
        """Break every connection there is, now."""
        self._call(lambda: self._close(reset=reset))

    def lose(self) -> None:
        """Let nothing more through on the connections there are, and tell neither side: their network is gone."""

        def lose() -> None:
            for link in self.links:
                link.dead = True

        self._call(lose)

    def pause(self) -> None:
        """Take nothing more from the server: the reader has stalled."""
        self._call(self._flowing.clear)

    def resume(self) -> None:
        self._call(self._flowing.set)

    def _call(self, function: Callable[[], object]) -> None:
        async def call() -> None:
            function()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(30)

    def _close(self, *, reset: bool) -> None:
        for link in self.links:
            if not link.closed:
                link.close(reset=reset)

    async def _shut(self) -> None:
        self._server.close()
        await asyncio.sleep(0)  # what was accepted just now begins, and is cancelled with the others
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self.links:
            link.abort()
        await asyncio.sleep(0)  # the sockets are closed in the next turn

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        link = Link(writer)
        self.links.append(link)
        try:
            # A small buffer, so that a stalled reader is soon one for the server as well.
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
            try:
                await self._loop.sock_connect(sock, ("127.0.0.1", self._port))
            except BaseException:  # a cancellation, too
                sock.close()
                raise
            from_server, link.server = await asyncio.open_connection(sock=sock, limit=32 * 1024)
            await asyncio.gather(self._up(reader, link.server, link), self._down(from_server, link))
        except OSError:
            link.close(reset=True)
        finally:
            link.close(reset=False)

    async def _up(self, reader: asyncio.StreamReader, server: asyncio.StreamWriter, link: Link) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if link.dead:
                    continue
                if not link.sent and self._cuts:
                    link.cut = self._cuts.popleft()
                if data.startswith(_METHODS):
                    self.asked(link, data)
                link.sent += data
                server.write(data)
                await server.drain()
        server.close()  # the client has left: so has the proxy

    async def _down(self, reader: asyncio.StreamReader, link: Link) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                await self._flowing.wait()
                if link.dead:
                    continue
                stop = None if link.cut is None else link.cut.within(bytes(link.received), data)
                data = data[:stop]
                link.received += data
                link.client.write(data)
                await link.client.drain()
                if stop is not None:
                    assert link.cut is not None
                    self.cuts += 1
                    link.close(reset=link.cut.reset)
                    return
        link.client.close()
