"""What the batches of a journal on disk hold: an array of entries, each of one stream.

An entry is an array: the stream's id, the number of the first record, and the records. In place of the number may stand
`CREATED`, with what the stream was created with, `REMOVED`, `RELEASED`: the stream has no idempotency key any more, or
`NOTED`, with the stream's note (see `Writer.note`).
An entry whose number is not the next one replaces what was written from that number on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

import orjson

from app.errors import InternalError, JournalDown
from app.events import TERMINAL, Event, Failure, Start, is_answer
from app.journal.encoding import pack, unpack
from app.journal.file.database import CREATED, NOTED, RELEASED, REMOVED
from app.request import StreamInfo

RECORDS_PER_ROW = 512
"""How many records are read and decoded at once."""


class Identity(NamedTuple):
    """What is known of a stream besides its records.

    It is *info* as `pack_info` returns it, digests of the stream's names, and its *note* (see `Writer.note`).
    """

    info: str
    label: bytes | None = None
    claim: bytes | None = None
    fingerprint: bytes | None = None
    note: str | None = None

    def of_ended(self, events: Sequence[Event]) -> Identity:
        """Return what is kept of a stream that has ended. *events* are all that it had, or more than two of them.

        A stream that failed before anything was answered keeps no idempotency key, so that the key may be used again.
        The hub releases the key, too, but the process may be killed before that is on disk. A stream that has a note,
        or that the journal itself has ended, keeps its key: there may have been an answer that was not written.
        """
        end = events[-1]
        unanswered = len(events) <= 2 and all(isinstance(event, (Start, *TERMINAL)) for event in events)
        if self.note is not None or not unanswered or is_answer(end):
            return self
        if isinstance(end, Failure) and end.code in (JournalDown.code, InternalError.code):
            return self
        return self._replace(claim=None, fingerprint=None)

    def entry(self, stream_id: str) -> list[Any]:
        """Return the entry with which the stream begins."""
        return [
            stream_id,
            CREATED,
            self.info,
            *(None if it is None else it.hex() for it in (self.label, self.claim, self.fingerprint)),
        ]

    @classmethod
    def of(cls, info: str, *digests: str | None) -> Self:
        """Return what an entry says after the number. Raises ValueError or TypeError."""
        label, claim, fingerprint = (None if it is None else bytes.fromhex(it) for it in digests)
        return cls(info, label, claim, fingerprint)


def pack_info(info: StreamInfo) -> str:
    """Return *info* as a text: JSON in ASCII."""
    return json.dumps(info)


def unpack_info(text: str) -> StreamInfo:
    """Return what `pack_info` was given. A version that knew less of streams wrote fewer fields."""
    return StreamInfo(*json.loads(text))


def digest(owner: str, name: str) -> bytes:
    """Return what stands for an idempotency key or a label of an *owner*: it is short, whatever the client chose."""
    return hashlib.sha256(f"{len(owner)}:{owner}{name}".encode(errors="surrogatepass")).digest()


@dataclass(slots=True)
class Tail:
    """What the batches have of one stream: *items*, as JSON, after record *moved*.

    With a *gap*, records are missing.
    """

    identity: Identity
    moved: int = 0
    items: list[Any] = field(default_factory=list)
    gap: bool = False

    def take(self, first: int, items: list[Any]) -> None:
        """Take in the records of an entry."""
        known = self.moved + len(self.items)
        self.gap = self.gap or first > known + 1
        self.items[max(0, first - 1 - self.moved) :] = items[max(0, self.moved + 1 - first) :]

    def end_at(self, number: int, ending: Event) -> None:
        """Have *ending* be the record of this number, which readers were told, and the last one."""
        if self.moved < number <= self.last + 1:
            self.items[number - 1 - self.moved :] = pack([ending])
        else:
            self.gap = True

    @property
    def last(self) -> int:
        """The number of the last record."""
        return self.moved + len(self.items)

    @property
    def ending(self) -> Event | None:
        """The last record, if it is terminal."""
        last = unpack(self.items[-1:])
        return last[0] if last and isinstance(last[0], TERMINAL) else None

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield the records as they are kept: the number of the first one, and a batch."""
        for start in range(0, len(self.items), RECORDS_PER_ROW):
            yield self.moved + start + 1, orjson.dumps(self.items[start : start + RECORDS_PER_ROW])


def fold(batch: bytes, tails: dict[str, Tail], removed: set[str]) -> None:
    """Bring *tails*, by stream, up to what *batch* says. Raises ValueError for what is no batch."""
    try:
        for stream_id, number, *rest in orjson.loads(batch):
            tail = tails.get(stream_id)
            if number == CREATED:
                if tail is None and stream_id not in removed:
                    tails[stream_id] = Tail(Identity.of(*rest))
            elif number == REMOVED:
                removed.add(stream_id)
                tails.pop(stream_id, None)
            elif tail is None:
                continue  # it was removed, or all of it was moved
            elif number == RELEASED:
                tail.identity = tail.identity._replace(claim=None, fingerprint=None)
            elif number == NOTED:
                [note] = rest
                tail.identity = tail.identity._replace(note=note)
            else:
                [items] = rest
                tail.take(number, items)
    except TypeError as error:
        raise ValueError("not a batch") from error
