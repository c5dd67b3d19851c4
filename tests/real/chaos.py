"""Load for a service of many processes in which everything breaks, and what is held against each transcript.

All clients go through one load balancer; `chaos_reader` is what they do there.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import aiohttp

from app.events import EventId
from tests.real.chaos_reader import CUT, SILENCE, Reader
from tests.real.clients.sse import text

# How the reading of a stream ends whose log was lost.
LOST = "journal_lost"
DELTA = 4  # code points in a delta from the upstream
RATE = 25  # deltas a second of a stream
CHUNKS = ["auto", "auto", "auto", "none", "word", "sentence", "size:5", "time:30", "word,50ms"]
WORDS = [
    "a",
    "stream",
    "你好，世界。",
    "สวัสดี",
    "مرحبا",
    "👩\u200d👩\u200d👧",
    "e\u0301",
    "\u2028",
    "\r\n",
    "data:",
    "end.",
]


class Stream:
    """What one client wanted, who read it, and what came of it."""

    def __init__(self, number: int, chance: random.Random) -> None:
        self.number = number
        self.lasts = chance.uniform(2, 8)
        count = round(self.lasts * RATE * DELTA)
        pieces, length = [f"{number}:"], 0
        while length < count:  # numbered, so that no part is like another
            pieces.append(f"{len(pieces)}{chance.choice(WORDS)}")
            length += len(pieces[-1]) + 1
        self.prompt = " ".join(pieces)
        self.readers: list[Reader] = []
        self.cancelled = False

    @property
    def id(self) -> str:
        return self.readers[0].address[-22:]

    @property
    def best(self) -> Reader:
        """A reader that has read it to the end, if there is one: to its own end rather than to that of the log."""
        ended = sorted((reader.ending == LOST, at) for at, reader in enumerate(self.readers) if reader.ended)
        return self.readers[ended[0][1] if ended else 0]

    @property
    def ending(self) -> str:
        return self.best.ending

    def check(self, lose: Callable[[str], None], double: Callable[[str], None], *, forgets: bool = False) -> None:
        """Hold every transcript against the truth, and all of them against each other.

        *forgets*: Redis has lost everything, perhaps the end of this before everybody was told.
        """
        best = self.best
        whole = self.prompt if self.ending == "stop" else text(best.before + best.events)
        for reader in self.readers:
            where = f"{self.number} {reader.address}"
            events = reader.before + reader.events
            numbers = [EventId.parse(event.id).seq for event in events]
            if numbers != sorted(set(numbers)) or {EventId.parse(event.id).stream_id for event in events} - {self.id}:
                double(f"{where}: ids {numbers}")
            kinds = [event.event for event in events]
            body = kinds[:-1] if reader.ended else kinds
            if body != ["start", *["delta"] * (len(body) - 1)][: len(body)]:
                lose(f"{where}: events {kinds}")
            said = text(events)
            to_the_end = reader.ended and not (forgets and reader.ending == LOST)
            if not self.prompt.startswith(said) or (to_the_end and said != whole):
                lose(f"{where}: {reader.ending}, {said!r} of {self.prompt!r}")
            if to_the_end and events[-1] != best.events[-1]:
                lose(f"{where}: two ends: {events[-1]} and {best.events[-1]}")
            if not reader.ended and not reader.refused:
                lose(f"{where}: no end after {reader.position}")


class Load:
    """Clients behind *url* that keep *live* streams going until told to stop, and what came of it."""

    def __init__(self, url: str, chance: random.Random, live: int, *, node_readers: int = 0) -> None:
        self.url = url
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        self.streams: list[Stream] = []
        self.running: set[asyncio.Task[None]] = set()
        self.ended = 0
        self.session: aiohttp.ClientSession
        self.live = live
        self._node = asyncio.Semaphore(node_readers)
        self._ended = asyncio.Condition()
        self._stopping = False

    def lose(self, what: str) -> None:
        self.counts["lost"] += 1
        self.faults.append(what)

    def double(self, what: str) -> None:
        self.counts["duplicated"] += 1
        self.faults.append(what)

    async def run(self) -> None:
        """Start streams, as many as are wanted, until `finish`."""
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(None)) as self.session:
            while not self._stopping:
                if len(self.running) < self.live:
                    self.streams.append(Stream(len(self.streams), self.chance))
                    task = asyncio.create_task(self._play(self.streams[-1]))
                    self.running.add(task)
                    task.add_done_callback(self.running.discard)
                await asyncio.sleep(8 / self.live)  # else all would end together
            await self.settled()

    def finish(self) -> None:
        """Start no more streams."""
        self._stopping = True

    async def progress(self, count: int) -> None:
        """Wait until *count* more streams have ended."""
        async with self._ended:
            goal = self.ended + count
            await self._ended.wait_for(lambda: self.ended >= goal)

    async def settled(self) -> None:
        """Wait until every stream that is live now has ended for all its readers."""
        await asyncio.gather(*self.running)

    async def _play(self, stream: Stream) -> None:
        try:
            await self._act(stream)
        finally:
            async with self._ended:
                self.ended += 1
                self._ended.notify_all()

    async def _act(self, stream: Stream) -> None:
        """Start one stream, and let its readers and perhaps a stop button at it."""
        chance, number = self.chance, stream.number
        body = {
            "prompt": stream.prompt,
            "model": f"sim-echo?first=0.1&size={DELTA}&rate={RATE}",
            "chunk": chance.choice(CHUNKS),
            "on_disconnect": chance.choice(["continue", "grace:30"]),
        }
        headers = {"Idempotency-Key": f"{id(self)} {number}"}
        leaves = [chance.uniform(0.01, stream.lasts) for _ in range(chance.choice((0, 0, 1, 2)))]
        if chance.random() < 0.25:
            leaves.insert(0, chance.uniform(0.001, 0.1))  # perhaps before the answer has begun
        later = chance.random() < 0.4
        if later:
            headers["Accept"] = "application/json"
        main = Reader(self)
        stream.readers.append(main)
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(main.follow(leaves, json=body, headers=headers))
            await self._until(lambda: bool(main.address) or reading.done())
            if not main.address:
                return
            if not self._node.locked():
                group.create_task(self._watched(stream))
            for _ in range(chance.choice((0, 0, 1, 2))):
                after, gone = chance.uniform(0, stream.lasts), [chance.uniform(0.01, stream.lasts)]
                group.create_task(self._joined(stream, after, chance.choice(([], gone))))
            if chance.random() < 0.1:
                group.create_task(self._cancelled(stream, chance.uniform(0, stream.lasts)))

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await asyncio.sleep(0.01)

    async def _watched(self, stream: Stream) -> None:
        async with self._node:
            stream.readers.append(Reader(self, stream.readers[0].address))
            self.counts["EventSources in Node"] += 1
            await stream.readers[-1].watch()

    async def _joined(self, stream: Stream, after: float, leaves: list[float]) -> None:
        """Read it, too, from the start or from where the first reader is; nothing, if that has read it all."""
        await asyncio.sleep(after)
        main = stream.readers[0]
        before = self.chance.choice(([], main.events[:]))
        if not main.ended:
            reader = Reader(self, main.address, before=before)
            stream.readers.append(reader)
            await reader.follow(leaves)

    async def _cancelled(self, stream: Stream, after: float) -> None:
        """Press stop, until that is answered."""
        await asyncio.sleep(after)
        stream.cancelled = True
        async with asyncio.timeout(SILENCE):
            while True:
                try:
                    async with self.session.delete(stream.readers[0].address) as answer:
                        if answer.status == 200:
                            return
                        if answer.status != 503:
                            self.lose(f"{stream.readers[0].address}: cancel answered {answer.status}")
                            return
                except CUT:
                    self.counts["cuts"] += 1
                await asyncio.sleep(0.5)
