"""What every cut does for the relay, and the joining that all cuts but `none` begin with."""

from __future__ import annotations

from collections.abc import Sequence

from app.events import Event, merged


class Rechunker:
    """Re-chunks the texts of one stream. This class leaves them as they are; subclasses do more.

    *held* is true while text is held back. The caller has to call `flush` within *max_delay* seconds then, or, if that
    is None, when the stream ends. After content the upstream is not read for *pause* seconds, because what comes
    meanwhile is to leave together.
    """

    __slots__ = ()

    held: bool = False
    max_delay: float | None = None
    pause: float | None = None

    def feed(self, events: Sequence[Event], *, more: bool = False) -> Sequence[Event]:
        """Take what came with one network read, and return what may leave now, in order.

        If *more* is to follow of what that read brought, these are a slice of it.
        """
        return events

    def flush(self) -> Sequence[Event]:
        """Return the text that was held back, as one event, or nothing if there is none."""
        return ()

    def finish(self) -> None:
        """Take note that the upstream has ended its answer, after the last `flush`.

        Raises ProducerLost if the log of a stream that is gone on with has more of the answer than has come.
        """


class Merging(Rechunker):
    """Joins the neighbours within a batch."""

    __slots__ = ()

    def feed(self, events: Sequence[Event], *, more: bool = False) -> Sequence[Event]:
        # Nearly every batch is a single delta; it pays for this comparison (0.1 µs) and nothing else.
        return events if len(events) < 2 else merge(events)


def merge(events: Sequence[Event]) -> Sequence[Event]:
    """Join neighbours that are text of the same kind; keep everything else, and the order."""
    return [event for _, event in merged(events)]
