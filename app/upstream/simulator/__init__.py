"""The built-in simulator: a stand-in for OpenAI's API, over real HTTP, on loopback.

What a user without a key streams from, and what tests and benchmarks measure against; so it must cost next to nothing
itself: a bare `asyncio.Protocol` under a C parser, no framework, no task per stream. Here are the socket and the
endpoints; `exchange` keeps the time, `models` lists the models, `text` has the words.

Besides OpenAI's `POST /v1/chat/completions` and `GET /v1/models`, `GET /stats` gives the counters to tests in other
processes and `POST /stats/reset` sets them to zero.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections import Counter
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Self, cast

import httptools
import orjson

from app.upstream.simulator.exchange import Exchange, Stats, Wheel
from app.upstream.simulator.models import MODELS
from app.upstream.simulator.play import BadKnob, Knobs, Play, Reply, refused, tune

BODY_LIMIT = 32 << 20
CREATED = 1750000000
# Whatever OpenAI may call a model is played by sim-gpt, so a client needs no reconfiguring to try the simulator.
FAMILIES = ("gpt-", "chatgpt-", "o1", "o3", "o4")


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
        path = self.url.partition(b"?")[0]
        match method, path:
            case b"POST", b"/v1/chat/completions":
                self.sim.stats.requests += 1
                try:
                    self.play(b"".join(self.body))
                except Refused as error:
                    self.send(error.reply)
            case b"GET", b"/v1/models":
                self.send(Reply(200, orjson.dumps({"object": "list", "data": [card(name) for name in MODELS]})))
            case b"GET", b"/stats":
                self.send(Reply(200, orjson.dumps(self.sim.stats)))
            case b"POST", b"/stats/reset":
                self.sim.reset()
                self.send(Reply(200, orjson.dumps(self.sim.stats)))
            case _ if path.startswith(b"/v1/models/") and path[11:].decode("latin-1") in MODELS and method == b"GET":
                self.send(Reply(200, orjson.dumps(card(path[11:].decode("latin-1")))))
            case _:
                where = f"{method.decode('latin-1')} {path[:100].decode('latin-1')}"
                self.send(refused(404, f"Invalid URL ({where})", code="unknown_url"))

    def play(self, body: bytes) -> None:
        """Start answering the request *body*. Raises Refused."""
        request = checked(body)
        name, _, query = request["model"].partition("?")
        model = MODELS.get("sim-gpt" if name.startswith(FAMILIES) else name)
        if model is None:
            text = f"The model {name[:100]!r} does not exist or you do not have access to it."
            raise Refused(404, text, code="model_not_found", param="model")
        try:
            knobs = tune(replace(self.sim.knobs, **model.knobs), query)
        except BadKnob as error:
            raise Refused(400, str(error), param="model") from None
        played = Play(name, knobs, request, self.credentials, self.sim.failures)
        script = (model.stream if request.get("stream") else model.whole)(played)
        self.sim.stats.live += 1
        self.exchange = Exchange(self, script, knobs.rate)
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


class Refused(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, text: str, *, code: str | None = None, param: str | None = None) -> None:
        self.reply = refused(status, text, code=code, param=param)


def phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Unknown"


def card(name: str) -> dict[str, Any]:
    """Return what `/v1/models` says of the model *name*."""
    text = MODELS[name].description
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "simulator", "description": text}


def checked(body: bytes) -> dict[str, Any]:
    """Return the request *body*. Raises Refused, as OpenAI would."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "We could not parse the JSON body of your request.") from None
    if not isinstance(request, dict) or not isinstance(request.get("model"), str):
        raise Refused(400, "You must provide a model parameter.", param="model")
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(each, dict) for each in messages):
        raise Refused(400, "'messages' must be a list of messages, not empty.", param="messages")
    if request.get("n") not in (None, 1):
        raise Refused(400, "The simulator gives one choice: 'n' must be 1.", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        limit = request.get(name)
        if limit is not None and (type(limit) is not int or limit < 1):
            raise Refused(400, f"'{name}' must be an integer of at least 1.", param=name)
    stop = request.get("stop")
    if not (
        stop is None or isinstance(stop, str) or (isinstance(stop, list) and all(isinstance(s, str) for s in stop))
    ):
        raise Refused(400, "'stop' must be a string or a list of strings.", param="stop")
    return request


class Simulator:
    """A running simulator; also an async context manager that closes itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop, knobs: Knobs) -> None:
        self.loop = loop
        self.knobs = knobs
        self.stats = Stats()
        self.wheel = Wheel(loop)
        self.connections: set[Connection] = set()
        self.failures: Counter[str] = Counter()
        self.url = ""
        self._server: asyncio.Server | None = None
        self._drained = asyncio.Event()
        self._closed = asyncio.Event()

    async def listen(self, host: str, port: int) -> None:
        self._server = await self.loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)
        self.stats.connections += 1

    def lost(self, connection: Connection) -> None:
        self.connections.discard(connection)
        self.stats.connections -= 1
        if not self.connections and self._server is not None and not self._server.is_serving():
            self._drained.set()

    def reset(self) -> None:
        """Set the counters to zero and forget what flaky models remember."""
        self.stats.reset()
        self.failures.clear()

    async def wait_closed(self) -> None:
        """Return when `close()` was called."""
        await self._closed.wait()

    async def close(self) -> None:
        """End all streams, timers and sockets."""
        if self._server is not None:
            self._server.close()
        for connection in tuple(self.connections):
            connection.abandon()
        if self.connections:
            await self._drained.wait()
        if self._server is not None:
            await self._server.wait_closed()
        self.wheel.close()
        self._closed.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve(
    host: str = "127.0.0.1", port: int = 0, *, tokens_per_second: float = 50, first_token_delay: float = 0.3
) -> Simulator:
    """Start a simulator; its `url` is an OpenAI base URL. Use as `async with await serve() as simulator`.

    The two settings are the defaults of the knobs `rate` and `first`; see `play.Knobs` for all of them.
    """
    simulator = Simulator(asyncio.get_running_loop(), Knobs(rate=tokens_per_second, first=first_token_delay))
    await simulator.listen(host, port)
    return simulator
