"""The built-in simulator: a stand-in for OpenAI's API, over real HTTP, on loopback.

What a user without a key streams from, and what tests and benchmarks measure against; so it must cost next to nothing
itself: a bare `asyncio.Protocol` under a C parser, no framework, no task per stream. `connection` has the endpoints,
`exchange` keeps the time, `models` lists the models, `text` has the words, `chat` and `responses` the forms that they
travel in, `background` what outlives its connection.

It has OpenAI's `POST /v1/chat/completions`, `POST /v1/responses`, `GET /v1/responses/{id}` and
`POST /v1/responses/{id}/cancel` for background ones, and `GET /v1/models`. Besides, `GET /stats` gives the counters to
tests in other processes and `POST /stats/reset` sets them to zero.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Self

from app.simulator.background import Shelf
from app.simulator.connection import Connection
from app.simulator.exchange import Stats, Wheel
from app.simulator.knobs import BadKnob, Knobs, tune
from app.simulator.models import MODELS, Model
from app.simulator.refusals import Refused
from app.simulator.request import Asked

# Whatever OpenAI may call a model is played by sim-gpt, so a client needs no reconfiguring to try the simulator.
FAMILIES = ("gpt-", "chatgpt-", "o1", "o3", "o4")


class Simulator:
    """A running simulator; also an async context manager that closes itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop, knobs: Knobs) -> None:
        self.loop = loop
        self.knobs = knobs
        self.stats = Stats()
        self.wheel = Wheel(loop)
        self.shelf = Shelf(self)
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

    def chosen(self, asked: Asked, api: str) -> tuple[Model, Knobs]:
        """Return the model that is *asked* for, and its knobs. Raises Refused if *api* has none like it."""
        name, _, query = asked.model.partition("?")
        asked.model = name
        model = MODELS.get("sim-gpt" if name.startswith(FAMILIES) else name)
        if model is None:
            text = f"The model {name[:100]!r} does not exist or you do not have access to it."
            raise Refused(404, text, code="model_not_found", param="model")
        if model.only not in ("", api):
            raise Refused(404, f"This model is only supported for {model.only}, not for {api}.", param="model")
        try:
            return model, tune(replace(self.knobs, **model.knobs), query)
        except BadKnob as error:
            raise Refused(400, str(error), param="model") from None

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
        self.shelf.close()
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

    The two settings are the defaults of the knobs `rate` and `first`; see `knobs.Knobs` for all of them.
    """
    simulator = Simulator(asyncio.get_running_loop(), Knobs(rate=tokens_per_second, first=first_token_delay))
    await simulator.listen(host, port)
    return simulator
