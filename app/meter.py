"""What the service counts: plain numbers, which `app.telemetry` shows under their public names.

Counting is on the hot path and showing is not, so nothing here locks, allocates or knows a metrics library: an
observation is a bisection and two additions. One event loop writes; whoever reads in the same loop sees whole states.

Labels are bounded: a model or an upstream is named only if the settings name it, a reason only if it is a code of ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

# Seconds: gen_ai.server.request.duration and .time_to_first_token; gen_ai.server.time_per_output_token (GenAI
# conventions); the event loop's own lag, from where it does not matter to where nothing works.
DURATION = tuple(0.01 * 2**n for n in range(14))
GAP = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
LOOP_DELAY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

OTHER = "other"


class Histogram:
    """Counts by bucket. *counts* has one place more than *bounds*: for what is above the last; *total* is their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count *value* in; a bucket holds what is at most its bound."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """How many values were observed."""
        return sum(self.counts)


class Meter:
    """The counts of one process, from its start on.

    *models* are the names that may be labels; *upstreams* are all there are, for showing a zero where nothing happened.
    """

    def __init__(self, models: Iterable[str] = (), upstreams: Iterable[str] = ()) -> None:
        self._models = frozenset(models)
        self.upstreams = tuple(upstreams)
        self.opened = 0  # streams
        self.ended: Counter[tuple[str, str, str]] = Counter()  # streams by model, upstream and reason
        self.answers: Counter[tuple[str, str]] = Counter()  # upstream's, by upstream and status, or code if none came
        self.retries: Counter[str] = Counter()  # attempts after a stream's first at the same upstream, by upstream
        self.fallbacks: Counter[str] = Counter()  # streams that an upstream answered which is not the first choice
        self.input_tokens: Counter[str] = Counter()  # by model
        self.output_tokens: Counter[str] = Counter()  # by model
        self.refused: Counter[str] = Counter()  # requests by code
        self.evicted: Counter[str] = Counter()  # ended streams that are no longer kept, by reason
        self.attached = 0
        self.resumed = 0  # of these, the ones after a position
        self.duration = Histogram(DURATION)
        self.first_token = Histogram(DURATION)
        self.gap = Histogram(GAP)  # between two reads with content
        self.loop_delay = Histogram(LOOP_DELAY)

    def model(self, name: str) -> str:
        """Return *name* as a label."""
        return name if name in self._models else OTHER
