"""Answers that are not streamed: snapshots, and answers to clients that wait for the whole.

They may be large, and there may be many of them that no client reads. So each is built in slices, between which the
event loop goes on, and is built once for all who ask for it. It goes to the socket piece by piece, as the client reads.
The memory that these answers take is bounded, for all principals and for each.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.edge.transcripts import transcript_of
from app.errors import Overloaded
from app.events import TERMINAL, Terminal
from app.journal import Log
from app.wire.transcript import Transcript

# Builds an answer out of a stream's log, the stream being named by its id.
Build = Callable[[str, Log], Awaitable[bytes]]

# Bytes of one write: the server's own buffer, above which it waits until the client has read.
_PIECE = 64 * 1024
# How many answers are built at once.
_AT_ONCE = 4
# The share of the memory that one principal's answers may take.
_SHARE = 4
# About how many bytes an answer takes besides its body: its task, and its place among the others.
_ENTRY = 1024


@dataclass(frozen=True, slots=True)
class OfTranscript:
    """Builds an answer by encoding the stream's transcript."""

    encode: Callable[[str, Transcript], bytes]

    async def __call__(self, stream_id: str, log: Log) -> bytes:
        return self.encode(stream_id, await transcript_of(log))


class _Key(NamedTuple):
    stream_id: str
    last: int
    build: Build


@dataclass(slots=True, eq=False)
class _Kept:
    """An answer of *size* bytes, without its body until that is built, which *users* wait for or are being sent.

    It is of a stream of *owner*'s.
    """

    owner: str
    users: int = 0
    size: int = _ENTRY
    body: asyncio.Task[bytes] = field(init=False)


class WholeAnswers:
    """Builds answers, and keeps the latest ones, of *most* bytes together.

    An answer is kept by the stream, the number of its last record and its form. It is not built if no client waits for
    it any more.
    """

    def __init__(self, most: int = 64 << 20) -> None:
        self._most = most
        self._kept: dict[_Key, _Kept] = {}  # the one that was used last is the last
        self._size = 0
        self._in_use: Counter[str] = Counter()  # bytes, by owner
        self._shared = 0  # those of all owners, of each no more than its share
        self._building = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"<WholeAnswers {len(self._kept)} kept, {self._size} bytes, {self._in_use.total()} in use>"

    @asynccontextmanager
    async def built(self, stream_id: str, log: Log, build: Build) -> AsyncGenerator[bytes, None]:
        """Give the answer so far, and keep it while the block runs.

        Raises Overloaded if clients have yet to read too much that was built for the log's owner, or for all.
        """
        key = _Key(stream_id, log.last, build)
        kept = self._kept.pop(key, None)
        if kept is None:
            kept = _Kept(log.info.owner)
            self.check_room(kept.owner)
            kept.body = asyncio.create_task(self._build(key, kept, log), name=f"answer of {stream_id}")
            self._size += kept.size
        self._kept[key] = kept
        if not kept.users:
            self._use(kept.owner, kept.size)
        kept.users += 1
        try:
            yield await asyncio.shield(kept.body)  # another request may wait for it, too
        finally:
            kept.users -= 1
            if not kept.users:
                self._use(kept.owner, -kept.size)
                if not kept.body.done():
                    kept.body.cancel()
                    self._forget(key, kept)
                self._make_room()

    async def _build(self, key: _Key, kept: _Kept, log: Log) -> bytes:
        try:
            async with self._building:
                self.check_room(kept.owner, kept.size)  # again, because many may have waited for their turn
                body = await key.build(key.stream_id, log)
                self._check_size(kept, len(body))
        except BaseException:
            self._forget(key, kept)
            raise
        kept.size += len(body)
        self._size += len(body)
        self._use(kept.owner, len(body))
        self._make_room()
        return body

    def check_room(self, owner: str, own: int = 0) -> None:
        """Raise Overloaded if the answers that are in use, the *owner*'s or all, take all that they may.

        *own* bytes of them are the asking answer's. However large an owner's answers are, they take no more than its
        share from the others.
        """
        share = self._most // _SHARE
        use = self._in_use[owner]
        others = self._shared - min(use, share)
        if use - own >= share or others + min(use - own, share) >= self._most:
            raise Overloaded

    def _check_size(self, kept: _Kept, size: int) -> None:
        """Raise Overloaded if an owner's answers, each of which had room when it was begun, are too much together.

        One that is larger than all others of its owner is let through, because there would never be room for it.
        """
        others = self._in_use[kept.owner] - kept.size
        if others >= size and others + size > 2 * self._most // _SHARE:
            raise Overloaded

    def _use(self, owner: str, size: int) -> None:
        share = self._most // _SHARE
        use = self._in_use[owner]
        self._shared += min(use + size, share) - min(use, share)
        self._in_use[owner] += size
        if not self._in_use[owner]:
            del self._in_use[owner]  # there may be any number of owners

    def _make_room(self) -> None:
        """Forget the answers that were used longest ago and that no client is being sent."""
        for key, kept in list(self._kept.items()) if self._size > self._most else ():
            if self._size <= self._most:
                return
            if not kept.users:
                self._forget(key, kept)

    def _forget(self, key: _Key, kept: _Kept) -> None:
        if self._kept.get(key) is kept:
            del self._kept[key]
            self._size -= kept.size


class WholeResponse(Response):
    """Sends the answer so far of the stream *stream_id*, whose *log* it is, as *build* has it.

    Raises what `WholeAnswers.built` does.
    """

    media_type = "application/json"

    def __init__(
        self,
        answers: WholeAnswers,
        stream_id: str,
        log: Log,
        build: Build,
        headers: Mapping[str, str],
    ) -> None:
        self._answers = answers
        self._stream_id = stream_id
        self._log = log
        self._build = build
        super().__init__(headers=headers)
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._answers.built(self._stream_id, self._log, self._build) as body:
            self.headers["content-length"] = str(len(body))
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            for start in range(0, len(body), _PIECE):
                piece = body[start : start + _PIECE]
                await send({"type": "http.response.body", "body": piece, "more_body": start + _PIECE < len(body)})


def ending(log: Log) -> Terminal | None:
    """Return the terminal record of *log*, or None while its stream is live."""
    if not log.ended:
        return None
    [end] = log.records(log.last - 1, log.last)
    assert isinstance(end, TERMINAL)  # noqa: S101 - see `Log.ended`
    return end
