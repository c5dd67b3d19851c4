"""The built-in simulator: a stand-in for OpenAI's API, over real HTTP, on loopback.

It is what a user without a key streams from, and what tests and benchmarks measure against. So it must cost next to
nothing itself: no framework, no task and no timer per stream. A request becomes a script, and a player plays it:

    server.Connection → endpoints.Endpoints → models.Model → a script of steps → player.Player → the connection
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Self

from app.simulator.endpoints import Endpoints
from app.simulator.models import MODELS, Model
from app.simulator.player import Clock
from app.simulator.server import Connection


class Simulator:
    """A running simulator; also an async context manager that closes itself. *url* is an OpenAI base URL."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.url = ""
        self.stats = endpoints.stats
        self.shelf = endpoints.shelf
        self.reset = endpoints.reset
        self.connections: set[Connection] = set()
        self._endpoints = endpoints
        self._server: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> None:
        """Listen there; *port* 0 is any free one. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connect, host, port, backlog=4096)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def close(self) -> None:
        """Stop listening, and end all streams and connections."""
        if self._server is not None:
            self._server.close()
        self._endpoints.closed = True
        self.shelf.close()
        # `Server.wait_closed` would wait, since Python 3.12.1, for connections that stay open.
        while self.connections:
            for connection in tuple(self.connections):
                connection.abandon()
            await asyncio.sleep(0)

    def _connect(self) -> Connection:
        return Connection(self._endpoints, self.connections)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    tokens_per_second: float = 50,
    first_token_delay: float = 0.3,
    models: Mapping[str, Model] = MODELS,
) -> Simulator:
    """Start a simulator. Use as `async with await serve() as simulator`. Raises OSError.

    The two settings are the defaults of the knobs `rate` and `first`; see `knobs.Knobs` for all of them.
    """
    defaults = {"rate": tokens_per_second, "first": first_token_delay}
    simulator = Simulator(Endpoints(models, defaults, Clock(asyncio.get_running_loop())))
    await simulator.listen(host, port)
    return simulator
