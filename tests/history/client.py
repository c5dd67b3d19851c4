"""A client of a history: it speaks ASGI, reads slowly, hangs up anywhere, and comes back."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import MutableMapping
from typing import Any, NamedTuple

from starlette.types import ASGIApp

from app.edge.event_stream import WRITE

# More seconds than any request takes: the longest limit on a stream is a minute, and so is a client's patience.
_LONGEST = 600


class Event(NamedTuple):
    """An event as it was read: its *number* in the stream, its *name* and its *data*."""

    stream_id: str
    number: int
    name: str
    data: dict[str, Any]


class Exchange:
    """One request and what came of it, up to *cut* bytes of the body: there the client hangs up.

    *status* is 0 as long as no answer has begun. *seconds* is how long it took.
    """

    def __init__(
        self,
        app: ASGIApp,
        choose: random.Random,
        method: str,
        path: str,
        headers: dict[str, str],
        body: bytes = b"",
        cut: int | None = None,
    ) -> None:
        self.process: Any = None  # which was asked
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.ended = False
        self.seconds = 0.0
        self._choose = choose
        self._cut = cut
        self._request = body
        self._asked = False
        self._gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
            "extensions": {WRITE: self._write},
        }
        self.task = asyncio.ensure_future(app(scope, self._receive, self._send))

    def hang_up(self) -> None:
        """Close the connection. What is sent from now on is lost."""
        if not self._gone.done():
            self._gone.set_result(None)

    def end(self) -> None:
        """Close the connection, because the process is dead that has it."""
        self.hang_up()
        self.task.cancel()

    async def finished(self) -> None:
        """Wait for the service to be done with the request. Raises what the service raised."""
        now = asyncio.get_running_loop().time
        begun = now()
        await asyncio.wait((self.task,), timeout=_LONGEST)
        self.seconds = now() - begun
        assert self.task.done(), "an answer does not end"
        if not self.task.cancelled():
            self.task.result()

    async def _receive(self) -> MutableMapping[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._request, "more_body": False}
        await asyncio.shield(self._gone)
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] != "http.response.start" and self._choose.random() < 0.1:
            # A full buffer: as in uvicorn, a cancelled send has sent nothing.
            await asyncio.wait((self._gone,), timeout=3 * self._choose.random())
        if self._gone.done():
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        self._take(message.get("body", b""))
        if not message.get("more_body", False) and not self._gone.done():
            self.ended = True
            self.hang_up()

    def _write(self, data: bytes) -> bool:
        """See `app.edge.event_stream.WRITE`: at times the buffer is full."""
        if self._gone.done():
            return True
        if self._choose.random() < 0.1:
            return False
        self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self.body += data
        if self._cut is not None and len(self.body) >= self._cut:
            del self.body[self._cut :]
            self.hang_up()


def events_in(body: bytes) -> list[Event]:
    """Return the events of the native dialect in *body*, except one that was cut."""
    events = []
    for block in body.decode(errors="replace").split("\n\n")[:-1]:
        fields = dict(line.partition(": ")[::2] for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            stream_id, _, number = fields["id"].rpartition("-")
            events.append(Event(stream_id, int(number), fields["event"], json.loads(fields["data"])))
    return events
