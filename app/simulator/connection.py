"""One client of the simulator: HTTP/1.1 under a C parser, and the endpoints."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import httptools
import orjson

from app.simulator.chat import ChatVoice
from app.simulator.exchange import Exchange
from app.simulator.models import MODELS
from app.simulator.play import Play
from app.simulator.refusals import Refused, refused
from app.simulator.request import chat_request, responses_request
from app.simulator.responses import ResponsesVoice
from app.simulator.steps import Reply, Script

if TYPE_CHECKING:
    from app.simulator import Simulator

BODY_LIMIT = 32 << 20
CREATED = 1750000000


class Connection(asyncio.Protocol):
    """One client: HTTP/1.1 with keep-alive. A request sent before the last one is answered closes it."""

    transport: asyncio.Transport

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        self.parser = httptools.HttpRequestParser(self)
        self.exchange: Exchange | None = None
        self.keep_alive = True
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sim.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sim.lost(self)
        if self.exchange is not None:
            self.exchange.lost()

    def eof_received(self) -> None:
        # A client that says it will send no more is gone; flushing to it first would only delay the news.
        self.transport.abort()

    def pause_writing(self) -> None:
        self.writable = False
        if self.exchange is not None:
            self.exchange.pause()

    def resume_writing(self) -> None:
        self.writable = True
        if self.exchange is not None:
            self.exchange.resume()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # answered as if it had not asked
        except httptools.HttpParserCallbackError:
            raise  # ours, not the client's
        except httptools.HttpParserError:
            if not self.transport.is_closing():
                self.keep_alive = False
                self.send(refused(400, "This is not an HTTP/1.1 request."))

    def on_message_begin(self) -> None:
        if self.exchange is not None:
            self.transport.abort()
        self.url = b""
        self.credentials = ""
        self.body: list[bytes] = []
        self.size = 0
        self.expects = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"authorization":
            self.credentials = value.decode("latin-1").removeprefix("Bearer ")
        elif name == b"expect":
            self.expects = True

    def on_headers_complete(self) -> None:
        if self.expects:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self.size += len(body)
        if self.size <= BODY_LIMIT:
            self.body.append(body)
        elif not self.transport.is_closing():
            self.keep_alive = False
            self.send(refused(413, "The request is too large."))

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        self.keep_alive = self.parser.should_keep_alive()
        method = self.parser.get_method()
        path, _, query = self.url.partition(b"?")
        try:
            self.answer(method.decode("latin-1"), path.decode("latin-1"), query.decode("latin-1"))
        except Refused as error:
            self.send(error.reply)

    def answer(self, method: str, path: str, query: str) -> None:
        """Answer the request that came, or begin to. Raises Refused."""
        match method, path[1:].split("/"):
            case "POST", ["v1", "chat", "completions"]:
                self.sim.stats.requests += 1
                self.chat(b"".join(self.body))
            case "POST", ["v1", "responses"]:
                self.sim.stats.requests += 1
                self.sim.stats.responses += 1
                self.respond(b"".join(self.body))
            case "GET", ["v1", "responses", response_id]:
                self.retrieve(response_id, query)
            case "POST", ["v1", "responses", response_id, "cancel"]:
                kept = self.sim.shelf.find(response_id)
                kept.cancel()
                self.send(kept.voice.snapshot())
            case "GET", ["v1", "models"]:
                self.send(Reply(200, orjson.dumps({"object": "list", "data": [card(name) for name in MODELS]})))
            case "GET", ["v1", "models", name] if name in MODELS:
                self.send(Reply(200, orjson.dumps(card(name))))
            case "GET", ["stats"]:
                self.send(Reply(200, orjson.dumps(self.sim.stats)))
            case "POST", ["stats", "reset"]:
                self.sim.reset()
                self.send(Reply(200, orjson.dumps(self.sim.stats)))
            case _:
                raise Refused(404, f"Invalid URL ({method} {path[:100]})", code="unknown_url")

    def chat(self, body: bytes) -> None:
        """Start a chat completion. Raises Refused."""
        asked = chat_request(body)
        model, knobs = self.sim.chosen(asked, "chat")
        play = Play(asked, ChatVoice(asked), knobs, self.credentials, self.sim.failures)
        self.play((model.stream if asked.stream else model.whole)(play), knobs.rate)

    def respond(self, body: bytes) -> None:
        """Start a response. Raises Refused."""
        asked = responses_request(body)
        model, knobs = self.sim.chosen(asked, "responses")
        play = Play(asked, ResponsesVoice(asked), knobs, self.credentials, self.sim.failures)
        if not asked.body.get("background"):
            self.play((model.stream if asked.stream else model.whole)(play), knobs.rate)
            return
        if not model.background:
            raise Refused(400, "This model cannot run in the background.", param="background")
        begun = self.sim.shelf.begin(play, model.stream)
        self.play(begun.stream() if begun.streamed else begun.reply())

    def retrieve(self, response_id: str, query: str) -> None:
        """Answer with a background response, or stream it from the number it was read to. Raises Refused."""
        kept = self.sim.shelf.find(response_id)
        wanted = parse_qs(query, keep_blank_values=True)
        if wanted.get("stream", ["false"])[0] != "true":
            self.send(kept.voice.snapshot())
            return
        if not kept.streamed:
            raise Refused(400, "This response was not created with stream=true.", param="stream")
        after = wanted.get("starting_after", ["-1"])[0]
        if not after.removeprefix("-").isdecimal() or len(after) > 18:
            raise Refused(400, "'starting_after' must be an integer.", param="starting_after")
        if status := kept.play.knobs.resume:
            raise Refused(status)
        self.sim.stats.background_resumed += 1
        self.play(kept.stream(int(after)))

    def play(self, script: Script, rate: float = 0) -> None:
        """Start answering with *script*, so many events a second."""
        self.sim.stats.live += 1
        self.exchange = Exchange(self, script, rate)
        if self.writable:
            self.exchange.step()
        else:
            self.exchange.pause()

    def encode(self, reply: Reply) -> bytes:
        length = b"content-length: %d\r\n" % len(reply.body)
        return self.encode_head(reply.status, reply.content_type, reply.headers + length) + reply.body

    def encode_head(self, status: int, content_type: bytes, headers: bytes) -> bytes:
        close = b"" if self.keep_alive else b"connection: close\r\n"
        return (
            b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\nx-request-id: req_%b\r\nopenai-processing-ms: 7\r\n"
            b"openai-version: 2020-10-01\r\nserver: simulator\r\n%b%b\r\n"
        ) % (status, phrase(status), content_type, secrets.token_hex(16).encode(), headers, close)

    def send(self, reply: Reply) -> None:
        """Answer at once."""
        self.transport.write(self.encode(reply))
        self.finished()

    def finished(self) -> None:
        self.exchange = None
        if not self.keep_alive:
            self.transport.close()

    def abandon(self) -> None:
        """Close, by the simulator's own wish."""
        if self.exchange is not None:
            self.exchange.over("streams_cut")
        self.transport.abort()

    def reset_on_close(self) -> None:
        raw: socket.socket = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def card(name: str) -> dict[str, Any]:
    """Return what `/v1/models` says of the model *name*."""
    text = MODELS[name].description
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator", "description": text}
