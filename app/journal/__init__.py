"""The log of every stream: written by one producer, read by any number of subscribers, kept for a while after its end.

Invariants, whatever the engine: records are numbered from 1 without a gap. The last record of an ended stream is
terminal. A record that a reader was given can be read again by every process that may resume the stream ("journal
before wire"), for as long as the stream is kept.

An engine is a module of this package. Adding one is adding one file, which exports

- `FORMS`, how a setting names it: a word, or how its urls begin, up to and with `://`;
- `SHARED`, whether several processes can have one such journal together;
- `check`, which takes a url of one of these forms, and raises ValueError if the rest of it is wrong, with a clause that
  repeats nothing of it, because it may hold a password;
- `about`, which takes such a url, and returns what people may read of it: where streams are kept, and no password;
- `create`, with the parameters of `create` below;
- `ask`, if there is something outside of the process that keeps the streams: a coroutine that takes a url, and returns
  whether that can be used, and a clause: where it is and why it cannot be used, or what else is to be said, or "".
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from structlog.typing import FilteringBoundLogger

from app.errors import StreamError
from app.events import Batch, Event
from app.journal.budgets import Budgets
from app.journal.registry import Registry
from app.request import StreamInfo


class JournalRefused(Exception):
    """The journal cannot be used as the settings name it. The message is a clause that says why."""


class JournalInUse(JournalRefused):
    """Another process uses the journal, and only one can."""


Sink = Callable[[Batch | None], None]
"""Takes what was appended, within `append`; may neither raise nor follow or unfollow.

None says that there is more than may be taken within `append`: it is to be read from the log.
"""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be kept: *ended* streams, for *seconds* after their end.

    *stream*, *owner* and *total* are bytes of memory: of one stream, of all streams of an owner, and of all streams.
    """

    stream: int
    total: int
    ended: int
    seconds: float
    owner: int = sys.maxsize


class Writer(Protocol):
    """The one writer of one stream."""

    @property
    def full(self) -> bool:
        """Whether the journal is behind, and `drain` would wait."""

    def append(self, events: Sequence[Event]) -> None:
        """Append *events* as one batch and hand it to the readers that follow.

        Synchronous, so that a timer can release text that was held back. Raises StreamTooLarge or Overloaded, appending
        nothing, if the stream, or all streams together, would outgrow their bounds. A batch that ends in a terminal
        event is always taken.
        """

    async def drain(self) -> None:
        """Wait while the journal is behind: asyncio's write/drain idiom."""

    def note(self, text: str) -> bool:
        """Keep *text* with the stream until its end: what another process needs to go on with it (see `Orphan`).

        It takes the place of an earlier one, and is kept before anything that is appended later can be read. Return
        whether it will be; a journal that does not outlive the process does nothing.
        """


class Log(Protocol):
    """One stream's records, for reading. A log that was opened can be read even if the stream was evicted since."""

    @property
    def info(self) -> StreamInfo:
        """What the stream was created with."""

    @property
    def last(self) -> int:
        """The number of the last record so far; 0 before the first."""

    @property
    def ended(self) -> bool:
        """Whether that record is terminal."""

    def records(self, after: int, last: int) -> Sequence[Event]:
        """Return the records after number *after*, up to *last*."""

    def pending(self, after: int, last: int | None = None) -> Batch | None:
        """Return the next records after number *after*, as many as one batch may have; None if there are none yet.

        With *last*, no record after that number is in it, except what belongs to the one before.
        """

    def follow(self, sink: Sink) -> None:
        """Push each batch to *sink* from now on, from within the append, unless it is large or the readers are many.

        This is the only call for each batch that goes up, from the journal to its readers. A task woken for each reader
        and batch costs half of what a reader costs in all.
        """

    def unfollow(self, sink: Sink) -> None:
        """Undo `follow`."""

    def entered(self) -> None:
        """Count a reader in: until it has left, the log stays in memory."""

    def left(self) -> None:
        """Count a reader out."""

    def read(self, after: int = 0) -> AsyncGenerator[Batch, None]:
        """Return a cursor over the records after number *after*: history first, then live, ending with the terminal.

        Closing the cursor at any point is safe and cheap.
        """


class Listed(NamedTuple):
    """A stream in a list of its owner's: *last* is the number of its last record, *state* what that says of it.

    The state is `live`, `done` or `error`.
    """

    stream_id: str
    info: StreamInfo
    state: str
    last: int


class Listing(NamedTuple):
    """Streams of one owner, newest first. *before* is what asks for the older ones, or None if there are none."""

    streams: list[Listed]
    before: int | None


class Orphan(NamedTuple):
    """A live stream of a process that is gone: its *log* so far, the *writer* that goes on, and its last *note*."""

    stream_id: str
    log: Log
    writer: Writer
    note: str


class Owner(Protocol):
    """The owner of this process's streams, which is told what happens to them elsewhere."""

    def presence(self, stream_id: str, change: int) -> None:
        """Another process has begun to read the stream (1), or none of that process's readers is left (-1)."""

    def stop(self, stream_id: str, error: StreamError | None) -> None:
        """Cancel the stream, as its client wishes; or end it with *error*, because it is this process's no more."""

    def leave(self, stream_id: str) -> bool:
        """Produce the stream no longer: another process goes on with it. Return whether it could."""

    async def adopt(self, orphan: Orphan) -> None:
        """Go on with a stream of a process that is gone, or end it. Raises nothing."""


class Journal(Protocol):
    """Every stream's log, and the registry of what every process that serves streams has to know."""

    @property
    def registry(self) -> Registry:
        """The claims, labels and slots of all streams."""

    @property
    def budgets(self) -> Budgets:
        """What the accounts have spent of their budgets."""

    @property
    def ready(self) -> bool:
        """Whether new streams can be kept."""

    @property
    def size(self) -> int:
        """Bytes that the streams in this process's memory take."""

    def __len__(self) -> int:
        """How many streams are in this process's memory, live ones included."""

    def serving(self, owner: Owner) -> AbstractAsyncContextManager[None]:
        """Return a context manager within which the journal is in use, and tells *owner* what it has to know.

        To enter it raises JournalRefused if that cannot be, and JournalInUse on a folder that another process uses. It
        can be entered again then.
        """

    async def create(self, stream_id: str, info: StreamInfo) -> Writer:
        """Begin the log of a new stream. Raises Overloaded if there is no room for it, or JournalDown."""

    async def open(self, stream_id: str, after: int = 0) -> Log:
        """Return a stream's log, with record number *after* if there is one.

        A reader may have been given that record by another process, and may come here before the record does. Raises
        UnknownStream, also for a log that is no longer kept, JournalDown, JournalLost if records are missing, or
        Overloaded if there is no memory for it.
        """

    async def live(self, stream_id: str) -> StreamInfo | None:
        """Return what a stream was created with, or None if it has ended or there is none. Loads no records.

        Raises JournalDown.
        """

    async def streams_of(self, owner: str, limit: int, before: int | None = None, *, live: bool = False) -> Listing:
        """Return the *owner*'s streams, newest first, only those that are *live* if that is true.

        They are *limit* at most, and were created *before* that time; there may be fewer of them although older ones
        are left. The owner is not "". Raises JournalDown.
        """

    async def remove(self, stream_id: str) -> None:
        """Keep a stream no longer; its readers read on. Raises JournalDown.

        Another process that has read the stream may have it in memory for a short time yet.
        """

    def stop(self, stream_id: str) -> None:
        """Ask for the end of a stream that another process produces."""

    def drain(self) -> None:
        """Treat readers that leave from now on as readers on their way to another process."""


def journals() -> dict[str, Any]:
    """Return the engines by the forms that name them."""
    engines = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return {form: engine for engine in engines for form in getattr(engine, "FORMS", ())}


def engine_of(url: str) -> Any:
    """Return the engine that *url* names. Raises ValueError, with a sentence, if there is none."""
    forms = journals()
    scheme, separator, _ = url.partition("://")
    engine = forms.get(scheme + separator)
    if engine is None:
        known = (f"{form}…" if form.endswith("://") else form for form in forms)
        raise ValueError(f"is one of: {', '.join(known)}")
    return engine


def check(url: str) -> None:
    """Raise ValueError, with a clause that repeats nothing of *url*, unless an engine takes it."""
    engine_of(url).check(url)


def about(url: str) -> str:
    """Return where the journal that *url* names keeps its streams, for people: no password is in it."""
    text: str = engine_of(url).about(url)
    return text


def create(
    url: str, bounds: Bounds, patience: float, on_evict: Callable[[str, str], None], log: FilteringBoundLogger
) -> Journal:
    """Return the journal that *url* names: `memory`, or the address of what keeps the streams.

    While that cannot be reached, live streams wait for *patience* seconds. *on_evict* is told the id of each stream
    that is dropped, and why: `time`, `count` or `memory`. Raises ValueError for an unknown url, or ModuleNotFoundError
    if an extra is missing.
    """
    journal: Journal = engine_of(url).create(url, bounds, patience, on_evict, log)
    return journal
