"""What the service counts: plain numbers, which `app.telemetry` shows under their public names.

Counting is on the hot path, so nothing here locks, allocates or knows a metrics library: an observation is a bisection
and two additions. The event loop that counts is also the one that reads, so it always sees whole states.

Labels are bounded: a model or an upstream is named only if the settings name it, a reason only if it is a code of ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

# Bounds in seconds. The first two are those of the GenAI conventions, for gen_ai.server.request.duration and
# gen_ai.server.time_per_output_token. The last goes from delays that do not matter to those where nothing works.
DURATION = tuple(0.01 * 2**n for n in range(14))
GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
LOOP_DELAY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

OTHER = "other"


class Histogram:
    """Counts by bucket. *counts* has one item more than *bounds*, for values above the last bound.

    *total* is the sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count *value* in the first bucket whose bound it does not exceed."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


class Meter:
    """The counts of one process, from its start on.

    *models* are the names that may be labels. *upstreams* are the names of all upstreams, for which zeros are shown.
    """

    def __init__(self, models: Iterable[str] = (), upstreams: Iterable[str] = ()) -> None:
        self._models = frozenset(models)
        self.upstreams = tuple(upstreams)
        self.opened = 0  # streams
        self.adopted = 0  # streams begun by a process that is gone, which this one goes on with
        self.ended: Counter[tuple[str, str, str]] = Counter()  # streams by model, upstream and reason
        self.answers: Counter[tuple[str, str]] = Counter()  # by upstream, and status or error code
        self.retries: Counter[str] = Counter()  # requests that asked an upstream again, by upstream
        self.fallbacks: Counter[str] = Counter()  # streams by the upstream that was not their first choice
        self.input_tokens: Counter[str] = Counter()  # by model
        self.output_tokens: Counter[str] = Counter()  # by model
        self.refused: Counter[str] = Counter()  # requests by code
        self.evicted: Counter[str] = Counter()  # ended streams that are no longer kept, by reason
        self.attached = 0  # readers
        self.resumed = 0  # of these, the ones that began after a position
        self.duration = Histogram(DURATION)
        self.first_token = Histogram(DURATION)
        self.gap = Histogram(GAP)  # between two reads with content
        self.loop_delay = Histogram(LOOP_DELAY)

    def model(self, name: str) -> str:
        """Return *name* as a label."""
        return name if name in self._models else OTHER
