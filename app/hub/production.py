"""How streams are made: new ones, and those that are adopted, because the process that began them is gone.

Of a stream whose upstream keeps its answer, a note is left in the journal: what another process needs to go on with it.
That process reads the upstream's answer from its start, through the same reader and the same cut, and appends what the
log lacks (see `app.rechunk.Resumed`). The upstream is asked for no other answer, and the stream is charged once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from structlog.typing import FilteringBoundLogger

from app.errors import ProducerLost
from app.events import Failure
from app.hub.outcome import Observer, Outcome
from app.hub.spending import Spending
from app.hub.stream import Stream
from app.journal import Orphan, Writer
from app.journal.registry import Registry
from app.meter import Meter
from app.rechunk import Rechunker, Resumed
from app.rechunk import create as create_rechunker
from app.relay import NO_PAST, Keep, Limits, Past, Relay
from app.request import Allowance, Principal, StreamRequest, keyed_hash
from app.turns import turn
from app.upstream import Attempt, Opener, Upstreams
from app.usage import estimate_prompt_tokens

# The most characters of a note: room for the names of a few hundred tools. A stream that needs more cannot be adopted.
_MOST_NOTE = 16 * 1024


class Note(NamedTuple):
    """What is kept of a live stream besides its log and its `StreamInfo`. It holds no name, key, prompt or answer.

    *upstream* is what `Upstreams.resumption` takes, *spending* what `Spending.resume` does. *account* is the owner's,
    and *streams* how many of its streams may be live. *grace* and *unknown_grace* are those of the request. The prompt
    was estimated at *prompt_tokens*. *secrets* is a keyed hash of the operator's texts in the request as the upstream
    got it.
    """

    upstream: dict[str, Any]
    spending: dict[str, Any]
    account: str
    streams: int
    grace: float
    unknown_grace: float
    prompt_tokens: int
    secrets: str

    @classmethod
    def read(cls, text: str) -> Note:
        """Return what was written. Raises ValueError if that is no note of this version."""
        note = json.loads(text)
        if not isinstance(note, list) or len(note) != len(_TYPES) or not all(map(isinstance, note, _TYPES)):
            raise ValueError("no note of this version")
        return cls(*note)


# What JSON makes of a note's items.
_NUMBER = (int, float)
_TYPES: tuple[type | tuple[type, ...], ...] = (dict, dict, str, int, _NUMBER, _NUMBER, int, str)


class Production:
    """Makes the streams of this process.

    *secrets* returns the operator's texts in a request for a model; *key* is the one of all hashes.
    """

    def __init__(
        self,
        upstreams: Upstreams,
        limits: Limits,
        meter: Meter,
        observers: Sequence[Observer],
        spending: Spending,
        registry: Registry,
        secrets: Callable[[str], Sequence[str]],
        key: bytes,
    ) -> None:
        self._upstreams = upstreams
        self._limits = limits
        self._meter = meter
        self._observers = observers
        self._spending = spending
        self._registry = registry
        self._secrets = secrets
        self._key = key

    def begin(
        self,
        stream_id: str,
        request: StreamRequest,
        principal: Principal,
        writer: Writer,
        logger: FilteringBoundLogger,
    ) -> Stream:
        """Return a new stream."""
        request = self._observed(stream_id, request)
        rechunker = create_rechunker(request.chunk)
        if rechunker.pause is not None:
            request = replace(request, pause=rechunker.pause)
        keep = partial(self._keep, stream_id, request, principal, writer)
        relay = self._relay(stream_id, self._upstreams, request, rechunker, writer, logger, keep)
        return Stream(stream_id, principal, request, relay, logger)

    async def adopt(self, orphan: Orphan, logger: FilteringBoundLogger) -> Stream | None:
        """Return a stream that goes on with *orphan*; None if that cannot be, and has an end now. Raises nothing.

        Its note stays as it is, for the process after this one. A stream that this process may not go on with is
        returned, too: it is stopped already, so that its producer gives up the answer, and its owner pays for that.
        """
        last = orphan.log.last
        try:
            note = Note.read(orphan.note)
            stream = await self._adopted(orphan, note, logger)
        except Exception as error:  # the boundary: what one process has left does not keep the next one from starting
            logger.warning("stream.producer_lost", records=last, reason=type(error).__name__)
            orphan.writer.append([Failure.of(ProducerLost())])
            return None
        if self._hash(str(note.upstream.get("upstream")), stream.request) == note.secrets:
            logger.info("stream.adopted", model=stream.request.model, records=last)
        else:  # the upstream may quote what this process would not know for the operator's
            logger.warning("stream.producer_lost", records=last, reason="settings_changed")
            stream.relay.stop(ProducerLost())
        return stream

    async def _adopted(self, orphan: Orphan, note: Note, logger: FilteringBoundLogger) -> Stream:
        """Return a stream that goes on with *orphan*. Raises JournalDown, or ValueError for a cut there is no more.

        If it raises, what it had done is undone, and the upstream is told that the answer is not wanted.
        """
        stream_id, log, writer, _ = orphan
        info = log.info
        opener = self._upstreams.resumption(note.upstream)
        request = StreamRequest(
            info.model,
            (),
            chunk=info.chunk,
            grace=note.grace if log.last else note.unknown_grace,
            include_usage=info.include_usage,
            secrets=tuple(self._secrets(info.model)),
            asked=info.asked,
            keep=info.keep,
            metadata=info.metadata,
        )
        async with AsyncExitStack() as undo:
            undo.push_async_callback(opener.abandon, request, [])
            rechunker = Resumed(create_rechunker(info.chunk))
            at = 0
            while (batch := log.pending(at)) is not None:
                await turn(len(batch.events))
                rechunker.known(batch.events)
                at = batch.last
            if note.streams:
                await self._registry.occupy(note.account, stream_id, sys.maxsize)  # it was counted before
                undo.push_async_callback(self._registry.vacate, note.account, stream_id)
            await self._spending.resume(stream_id, note.account, note.spending)
            undo.push_async_callback(self._spending.release, stream_id)
            request = self._observed(stream_id, replace(request, pause=rechunker.pause), adopted=True)
            past = Past(max(0.0, time.time() - info.created / 1e6), log.last, rechunker.answered, note.prompt_tokens)
            relay = self._relay(stream_id, opener, request, rechunker, writer, logger, lambda attempts: True, past)
            undo.pop_all()
        principal = Principal(allowance=Allowance(streams=note.streams), account=note.account)
        return Stream(stream_id, principal, request, relay, logger, is_known=True, adopted=True)

    def conclude(self, stream: Stream, last: AsyncExitStack) -> None:
        """Have *last* tell the observers what has become of a stream that was begun or adopted here."""
        if stream.relay.left:
            stream.logger.info("stream.left", deltas=stream.relay.deltas)
            for observer in reversed(self._observers):
                last.callback(observer.left, stream.id)
        else:
            outcome = Outcome.of(stream)
            for observer in reversed(self._observers):
                last.push_async_callback(observer.ended, outcome, stream.logger)

    def _observed(self, stream_id: str, request: StreamRequest, *, adopted: bool = False) -> StreamRequest:
        """Tell the observers of a stream that begins here, and return its request with the traceparent they give."""
        for observer in self._observers:
            observe = observer.adopted if adopted else observer.opened
            if traceparent := observe(stream_id, request):
                request = replace(request, traceparent=traceparent)
        return request

    def _relay(
        self,
        stream_id: str,
        opener: Opener,
        request: StreamRequest,
        rechunker: Rechunker,
        writer: Writer,
        logger: FilteringBoundLogger,
        keep: Keep,
        past: Past = NO_PAST,
    ) -> Relay:
        afford = partial(self._spending.extend, stream_id)
        return Relay(opener, request, rechunker, writer, self._limits, self._meter, logger, afford, keep, past)

    def _keep(
        self,
        stream_id: str,
        request: StreamRequest,
        principal: Principal,
        writer: Writer,
        attempts: Sequence[Attempt],
    ) -> bool:
        """Leave a note of a stream whose upstream keeps the answer, and return whether it is kept."""
        attempt = attempts[-1]
        note = Note(
            {"upstream": attempt.upstream, "fallback": attempt.fallback, **(attempt.note or {})},
            {**self._spending.note(stream_id, attempts)},
            principal.counted_as(),
            principal.allowance.streams,
            request.grace,
            request.unknown_grace,
            estimate_prompt_tokens(request.messages),
            self._hash(attempt.upstream, request),
        )
        text = json.dumps(note)
        return len(text) <= _MOST_NOTE and writer.note(text)

    def _hash(self, upstream: str, request: StreamRequest) -> str:
        return keyed_hash(json.dumps(sorted(self._upstreams.secrets_at(upstream, request))), self._key)
