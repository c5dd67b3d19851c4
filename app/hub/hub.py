"""The lifetimes of streams: they are opened, attached to, left alone, cancelled and drained.

A stream belongs to the server, not to a connection. The hub runs its producer in a task. Readers are counted here, and
each reads the journal from a position of its own, also the reader whose request opened the stream.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from app.errors import Draining, Overloaded, StreamError, TooManyReaders, TooManyStreams, UnknownStream
from app.events import Failure, is_answer, new_stream_id
from app.hub.outcome import Observer
from app.hub.ownership import IdempotencyKey, alias, is_live, log_of, payer
from app.hub.production import Production
from app.hub.spending import Spending
from app.hub.stream import Stream
from app.hub.subscription import Subscription
from app.journal import Journal, Listing, Log, Orphan, Writer
from app.meter import Meter
from app.relay import Limits
from app.request import ANYONE, Principal, StreamInfo, StreamRequest
from app.upstream import Upstreams

# How many seconds to wait for the end of a stream that was cancelled.
_STOP_WAIT = 1.0
# The same for one that is to be removed. It includes the time that an upstream may take to be told of the stop.
_REMOVE_WAIT = 3.0
# How many seconds a drain waits for producers that were stopped to close their upstream connections.
_CLOSE_WAIT = 5.0


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many streams may be live, and how many readers attached, in one process at once."""

    streams: int = 2000
    readers: int = 10_000


# Counts a request that a limit may refuse, by raising.
Repeated = Callable[[], Awaitable[None]]


class Hub:
    """All streams that this process produces, and all readers that it serves.

    To a principal, the streams of others do not exist. A stream has at least *first_reader* seconds to get its first
    reader, whatever the request's grace is. The journal is given no name, label or idempotency key of a principal's,
    but hashes of them with *key*: all processes that share a journal have the same. *secrets* returns, for a model, the
    texts that the operator adds to its requests.
    """

    def __init__(
        self,
        journal: Journal,
        upstreams: Upstreams,
        limits: Limits,
        capacity: Capacity,
        meter: Meter,
        logger: FilteringBoundLogger,
        observers: Sequence[Observer] = (),
        first_reader: float = 10.0,
        spending: Spending | None = None,
        key: bytes = b"",
        secrets: Callable[[str], Sequence[str]] = lambda model: (),
    ) -> None:
        self._journal = journal
        self._capacity = capacity
        self._meter = meter
        self._logger = logger
        self._first_reader = first_reader
        self._spending = spending or Spending()
        self._key = key
        production = Production(upstreams, limits, meter, observers, self._spending, journal.registry, secrets, key)
        self._production = production
        self._streams: dict[str, Stream] = {}
        self._opening = 0
        self._readers: set[Subscription] = set()
        self._reserved = 0
        self._stopping: set[str] = set()  # the streams that are being cancelled on request
        self._readers_of: Counter[str] = Counter()
        self._accepting = False
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def __repr__(self) -> str:
        return f"<Hub {'draining' if self._draining else 'open'}, {self.live} live, {self.reading} reading>"

    @property
    def ready(self) -> bool:
        """Whether new streams are taken."""
        return not self._draining and self._journal.ready

    @property
    def draining(self) -> bool:
        """Whether the process is shutting down."""
        return self._draining

    @property
    def live(self) -> int:
        """How many producers are running."""
        return len(self._streams)

    @property
    def reading(self) -> int:
        """How many readers are attached, to live streams and to ended ones."""
        return len(self._readers)

    @property
    def records_behind(self) -> int:
        """How many records the slowest reader is behind."""
        return max((reader.records_behind for reader in self._readers), default=0)

    async def open(
        self,
        request: StreamRequest,
        principal: Principal = ANYONE,
        key: IdempotencyKey | None = None,
        logger: FilteringBoundLogger | None = None,
        label: str = "",
    ) -> str:
        """Start a stream and return its id; or return the id of the stream that *key* was used for before.

        Raises Overloaded, Draining, TooManyStreams, BudgetSpent, KeyReused or JournalDown. An upstream that fails
        raises nothing here: its error becomes the stream's terminal record. A stream that no reader attaches to within
        its grace is cancelled. `labelled` finds the principal's newest stream with a *label*.
        """
        stream_id = new_stream_id()
        async with AsyncExitStack() as undo:
            if key is not None:
                registry = self._journal.registry
                name = alias(key.name, "key", principal, self._key)
                known = await registry.claim(principal.owner, name, key.fingerprint, stream_id)
                if known is not None:
                    return known
                undo.push_async_callback(registry.release, stream_id)
            writer, request = await self._create(stream_id, request, principal, label, undo)
            if self._draining:  # since then: the drain has looked already at what is live
                writer.append([Failure.of(Draining())])
                raise Draining
            undo.pop_all()
        logger = (logger or self._logger).bind(stream_id=stream_id)
        self._start(self._production.begin(stream_id, request, principal, writer, logger))
        logger.info("stream.opened", model=request.model, chunk=request.chunk, messages=len(request.messages))
        return stream_id

    async def _create(
        self, stream_id: str, request: StreamRequest, principal: Principal, label: str, undo: AsyncExitStack
    ) -> tuple[Writer, StreamRequest]:
        """Begin the log of a new stream, if there is room for the stream. Raises what `open` does.

        Returns its writer, and the request with the limit on what it may spend.
        """
        allowed = principal.allowance
        self._opening += 1
        try:
            if self._draining:
                raise Draining
            if self.live + self._opening > self._capacity.streams:
                raise Overloaded
            if allowed.streams:
                registry = self._journal.registry
                if not await registry.occupy(principal.counted_as(), stream_id, allowed.streams):
                    raise TooManyStreams
                undo.push_async_callback(registry.vacate, principal.counted_as(), stream_id)
            request = await self._spending.reserve(stream_id, request, principal)
            undo.push_async_callback(self._spending.release, stream_id)
            info = StreamInfo(
                request.chunk,
                principal.owner,
                allowed.readers,
                alias(label, "label", principal, self._key),
                request.include_usage,
                request.asked,
                request.keep,
                request.model,
                time.time_ns() // 1000,
                request.metadata if principal.name else "",  # see `streams_of`
            )
            return await self._journal.create(stream_id, info), request
        finally:
            self._opening -= 1

    async def adopt(self, orphan: Orphan) -> None:
        """Go on with a stream of a process that is gone. It has as long to get its first reader as a new one."""
        stream = await self._production.adopt(orphan, self._logger.bind(stream_id=orphan.stream_id))
        if stream is not None:
            self._start(stream)

    def begin_accepting(self) -> None:
        """Take note that readers can come from now on: streams that were adopted before have waited for none."""
        self._accepting = True
        for stream in self._streams.values():
            stream.await_reader(self._first_reader)

    def _start(self, stream: Stream) -> None:
        """Start a stream's producer, and count the time until its first reader."""
        self._streams[stream.id] = stream
        self._idle.clear()
        stream.task = asyncio.create_task(self._produce(stream), name=f"stream {stream.id}")
        if self._accepting or not stream.adopted:
            stream.await_reader(self._first_reader)

    async def attach(
        self,
        stream_id: str,
        principal: Principal = ANYONE,
        after: int = 0,
        logger: FilteringBoundLogger | None = None,
        *,
        partly: bool = False,
        place: ExitStack | None = None,
    ) -> Subscription:
        """Return a subscription to the records after number *after*. Its coming and going is logged by *logger*.

        A reader that has record number *after* only *partly* is given it again. A *place* from `reserve` is the
        reader's, and is given back as the reader enters; without one, there has to be room for one reader more.
        Raises what `log_of` does, TooManyReaders or Overloaded; while draining, Draining for another process's stream.
        """
        log = await self.log_of(stream_id, principal, after)
        if after > log.last:
            raise UnknownStream  # a record that this stream never had
        principal = payer(principal, log)
        if place is None:
            self.admit(principal)
        stream = self._streams.get(stream_id)
        known = after - partly
        subscription = Subscription(self, stream_id, log, stream, known, principal, logger or self._logger, place)
        if self._draining and subscription.elsewhere:
            raise Draining
        return subscription

    async def keyed(self, key: str, principal: Principal = ANYONE) -> str | None:
        """Return the id of the principal's stream with that idempotency *key*, or None. Raises JournalDown."""
        return await self._journal.registry.keyed(principal.owner, alias(key, "key", principal, self._key))

    async def labelled(self, label: str, principal: Principal = ANYONE) -> str | None:
        """Return the id of the principal's newest stream with that *label*, or None. Raises JournalDown."""
        return await self._journal.registry.labelled(principal.owner, alias(label, "label", principal, self._key))

    def is_labelled(self, log: Log, label: str, principal: Principal = ANYONE) -> bool:
        """Whether a stream of the principal's was opened with that *label*."""
        return log.info.label == alias(label, "label", principal, self._key)

    async def streams_of(
        self, principal: Principal, limit: int, before: int | None = None, *, live: bool = False
    ) -> Listing:
        """Return the principal's own streams, as `Journal.streams_of` does. Raises JournalDown.

        Callers without credentials are one principal, but strangers to each other, who would find streams of which they
        were not given the ids; and a ticket opens one stream. So for both there are none.
        """
        if not principal.name or principal.stream_id:
            return Listing([], None)
        return await self._journal.streams_of(principal.owner, limit, before, live=live)

    def admit(self, principal: Principal) -> None:
        """Raise TooManyReaders or Overloaded unless *principal* may attach one reader more."""
        if len(self._readers) + self._reserved >= self._capacity.readers:
            raise Overloaded
        if 0 < principal.allowance.readers <= self._readers_of[principal.counted_as()]:
            raise TooManyReaders

    def reserve(self, principal: Principal) -> ExitStack:
        """Keep a reader's place for *principal* until what is returned is closed. Raises what `admit` does."""
        self.admit(principal)
        self._reserved += 1
        self._readers_of[principal.counted_as()] += 1
        place = ExitStack()
        place.callback(self._give_back, principal.counted_as())
        return place

    def _give_back(self, account: str) -> None:
        self._reserved -= 1
        _count_out(self._readers_of, account)

    async def cancel(
        self,
        stream_id: str,
        principal: Principal = ANYONE,
        repeated: Repeated | None = None,
        within: float = _STOP_WAIT,
    ) -> Log:
        """End a stream, if it has not ended, and return its log, after *within* seconds even if it has not ended yet.

        *repeated* is awaited first, and may raise, unless this is the first request to end a live stream of the
        *principal*'s. Raises what *repeated* and `log_of` do.
        """
        first = stream_id not in self._stopping
        self._stopping.add(stream_id)
        try:
            if repeated is not None and not (first and await is_live(self._journal, stream_id, principal)):
                await repeated()
            return await self._cancel(stream_id, principal, within)
        finally:
            if first:
                self._stopping.discard(stream_id)

    async def _cancel(self, stream_id: str, principal: Principal, within: float) -> Log:
        log = await self.log_of(stream_id, principal)
        stream = self._streams.get(stream_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                if stream is None:
                    self._journal.stop(stream_id)
                elif stream.task is not None:
                    stream.cancel()
                    await asyncio.wait((stream.task,))
                async with aclosing(log.read(log.last)) as rest:
                    async for _ in rest:
                        pass
        return log

    async def remove(self, stream_id: str, principal: Principal = ANYONE, repeated: Repeated | None = None) -> None:
        """End a stream, and keep it no longer. Raises what `cancel` does, and JournalDown.

        Raises Overloaded if it does not end in time: what its producer wrote after that would be kept.
        """
        log = await self.cancel(stream_id, principal, repeated, _REMOVE_WAIT)
        if not log.ended:
            raise Overloaded
        await self._journal.remove(stream_id)

    async def log_of(self, stream_id: str, principal: Principal = ANYONE, after: int = 0) -> Log:
        """Return a stream's log, up to number *after* at least. Raises what `ownership.log_of` does."""
        return await log_of(self._journal, stream_id, principal, after)

    def presence(self, stream_id: str, change: int) -> None:
        """Take note that another process has begun to read a stream (1), or that its last reader has left (-1)."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        if change > 0:
            stream.is_known = True  # that reader came by the stream's id, or by an idempotency key
            stream.entered()
        else:
            stream.left()

    def stop(self, stream_id: str, error: StreamError | None) -> None:
        """End a stream, because another process asks for it, or with *error*, because this process lost its log."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.cancel() if error is None else stream.relay.stop(error)

    def leave(self, stream_id: str) -> bool:
        """Leave a live stream to another process, and return whether one can go on with it. Its readers are sent there.

        See `Relay.leave`.
        """
        stream = self._streams.get(stream_id)
        if stream is None or not stream.relay.leave():
            return False
        for reader in self._readers:
            if reader.stream_id == stream_id:
                reader.dismiss()
        return True

    def entered(self, reader: Subscription) -> None:
        """Count a reader in."""
        self._readers.add(reader)
        self._readers_of[reader.principal.counted_as()] += 1
        self._meter.attached += 1
        self._meter.resumed += reader.after > 0
        if self._draining and reader.elsewhere and reader.resumable:  # it was let in just before
            reader.dismiss()

    def left(self, reader: Subscription) -> None:
        """Count a reader out."""
        self._readers.discard(reader)
        _count_out(self._readers_of, reader.principal.counted_as())
        if not reader.resumable:
            self._note_idle()

    def evicted(self, stream_id: str, reason: str) -> None:
        """Take note that the journal no longer keeps a stream, because its time was up or there was no room for it."""
        evicted = self._meter.evicted
        evicted[reason] += 1
        # An operator has to do something about a lack of room, but not about the end of a stream's time.
        write = self._logger.debug if reason == "time" else self._logger.warning
        write("journal.evicted", stream_id=stream_id, reason=reason, so_far=evicted[reason])

    async def drain(self, grace: float) -> None:
        """Take no new streams, give the live ones *grace* seconds to finish, and leave the rest to another process.

        What no other process can go on with, or no client comes back to, is ended with Draining. A reader of another
        process's stream is sent away at once, because every other process can serve it for longer. If it cannot come
        back by itself, it has the *grace*, too.
        """
        if not self._draining:
            self._draining = True
            self._journal.drain()
            self._idle.clear()
            self._note_idle()
            away = [reader for reader in self._readers if reader.elsewhere and reader.resumable]
            self._logger.info("hub.draining", live=self.live, dismissed=len(away), grace=grace)
            for reader in away:
                reader.dismiss()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._idle.wait()
        for stream in list(self._streams.values()):
            if not (stream.lasting and self.leave(stream.id)):
                stream.relay.stop(Draining())
        for reader in self._staying():
            reader.dismiss()
        with suppress(TimeoutError):  # a log gets its end once its upstream is told of the stop, or the socket closed
            async with asyncio.timeout(_CLOSE_WAIT):
                await self._idle.wait()

    async def _produce(self, stream: Stream) -> None:
        try:
            await stream.relay.run()
        finally:
            stream.end_grace()
            del self._streams[stream.id]
            async with AsyncExitStack() as last:  # what was pushed last is done first; one that fails stops no other
                last.callback(self._note_idle)
                if not stream.relay.left:  # else its key and its slot are of the process that goes on with it
                    if stream.relay.first_token_ms is None and not (is_answer(stream.relay.ended) or stream.adopted):
                        # Nothing was answered or paid for, so the same key may be used for another try.
                        last.push_async_callback(self._journal.registry.release, stream.id)
                    if stream.principal.allowance.streams:
                        account = stream.principal.counted_as()
                        last.push_async_callback(self._journal.registry.vacate, account, stream.id)
                self._production.conclude(stream, last)

    def _staying(self) -> list[Subscription]:
        """Return the readers of other processes' streams that cannot come back for the rest."""
        return [reader for reader in self._readers if reader.elsewhere and not reader.resumable]

    def _note_idle(self) -> None:
        """Wake the drain if nothing is left to wait for."""
        if not self._streams and not (self._draining and self._staying()):
            self._idle.set()


def _count_out(counts: Counter[str], account: str) -> None:
    """Take one from *account*, and forget one without readers, because clients can make up any number of them."""
    counts[account] -= 1
    if not counts[account]:
        del counts[account]
