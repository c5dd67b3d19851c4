"""One client of the simulator: HTTP/1.1 by a C parser, written as raw bytes."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from http import HTTPStatus
from typing import Any, cast

import httptools

from app.simulator.endpoints import Endpoints
from app.simulator.errors import Refused
from app.simulator.player import Player
from app.simulator.script import End, Reply, Script

BODY_LIMIT = 32 << 20  # bytes

_PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}


class Connection(asyncio.Protocol):
    """One client, and the `Output` of the scripts that answer it, one after the other.

    A client that sends a request before the last one is answered is closed: no real client does so.
    """

    def __init__(self, endpoints: Endpoints, connections: set[Connection]) -> None:
        self.transport: asyncio.Transport
        self.player: Player | None = None  # of the request that is being answered
        self._endpoints = endpoints
        self._stats = endpoints.stats
        self._connections = connections  # all that are open
        self._parser = httptools.HttpRequestParser(self)
        self._keep_alive = True
        self.writable = True
        self._streaming = False  # the headers of a stream were sent
        self._chunked = False

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # of TCP; asyncio declares the base
        self._connections.add(self)
        self._stats.connections += 1
        if self._endpoints.closed:  # accepted before the listener closed, reported after
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._stats.connections -= 1
        self._settle("streams_aborted" if self._streaming else "aborted_before_headers")

    def eof_received(self) -> None:
        # A client that will send no more is gone. Sending it the rest first would only delay the counters.
        self.transport.abort()

    def pause_writing(self) -> None:
        self.writable = False
        if self.player is not None:
            self.player.pause()

    def resume_writing(self) -> None:
        self.writable = True
        if self.player is not None:
            self.player.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # the request is answered, and the offer ignored
        except httptools.HttpParserCallbackError:
            raise  # ours, not the client's
        except httptools.HttpParserError:
            self._refuse(400, "This is not an HTTP/1.1 request.")

    # --- what the parser calls

    def on_message_begin(self) -> None:
        if self.player is not None:
            self.transport.abort()
        self._target = b""
        self._credentials = ""
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"authorization":
            self._credentials = value.decode("latin-1").removeprefix("Bearer ")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_LIMIT:
            self._refuse(413, "The request is too large.")

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        self._keep_alive = self._parser.should_keep_alive()
        method = self._parser.get_method().decode("latin-1")
        try:
            target = self._target.decode("latin-1")
            self._play(*self._endpoints.answer(method, target, bytes(self._body), self._credentials))
        except Refused as refused:
            self._play(iter((refused.reply,)))

    # --- answering

    def _refuse(self, status: int, message: str) -> None:
        if self.player is not None:
            self.transport.abort()
        elif not self.transport.is_closing():
            self._keep_alive = False
            self._play(iter((Refused(status, message).reply,)))

    def _play(self, script: Script, rate: float = 0) -> None:
        self._stats.live += 1
        self._streaming = False
        self._chunked = False
        self.player = Player(self, script, rate, self._endpoints.clock, self._stats)
        if not self.writable:
            self.player.pause()
        self.player.step()

    def begin(self, reply: Reply) -> None:
        """Send the headers, and the body if it is whole."""
        if reply.body is not None:
            framing = b"content-length: %d\r\n" % len(reply.body)
        elif self._parser.get_http_version() == "1.0":
            self._keep_alive = False
            framing = b""
        else:
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        if reply.body is None:
            self._streaming = True
            self._stats.streams_started += 1
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\nx-request-id: req_%b\r\nopenai-processing-ms: 7\r\n"
            b"openai-version: 2020-10-01\r\nserver: simulator\r\n%b%b%b\r\n%b"
            % (
                *(reply.status, _PHRASES.get(reply.status, b"Unknown"), reply.content_type),
                *(secrets.token_hex(16).encode(), reply.headers, framing),
                *(b"" if self._keep_alive else b"connection: close\r\n", reply.body or b""),
            )
        )

    def write(self, events: list[bytes]) -> None:
        """Send *events*, each as one HTTP chunk, all in one write. This is the hot path."""
        if self._chunked:
            events = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
        self.transport.write(events[0] if len(events) == 1 else b"".join(events))

    def end(self, end: End) -> None:
        """Do what the script's last step says."""
        if end is End.CLEAN:
            self.finish()
        elif end is End.LINGER:
            self._settle("streams_finished")
        elif end is End.HANG:
            if self.player is not None:
                self.player.stop()
        else:
            self._settle("streams_cut")
            if end is End.RESET:
                raw: Any = self.transport.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # abort() would drop what uvloop has not written yet.
            self.transport.close()

    def finish(self) -> None:
        """End the body properly, and be ready for the next request."""
        if self._chunked:
            self.transport.write(b"0\r\n\r\n")
        self._settle("streams_finished" if self._streaming else "")
        if not self._keep_alive:
            self.transport.close()

    def abandon(self) -> None:
        """Close, by the simulator's own wish."""
        self._settle("streams_cut")
        self.transport.abort()

    def _settle(self, counter: str) -> None:
        """Stop answering, if a request is being answered, and count it under *counter*, if that is not empty."""
        if self.player is None:
            return
        self.player.stop()
        self.player = None
        self._stats.live -= 1
        if counter:
            setattr(self._stats, counter, getattr(self._stats, counter) + 1)
