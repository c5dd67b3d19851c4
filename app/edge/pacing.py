"""Pacing for one reader: bursts are spread evenly, and no record leaves later than a given time after it came.

It slows down neither the upstream nor other readers. Strategy: the records stay in the log. What is kept here is by
when the log's last record has to leave, once for each burst, and the bursts that came within a small part of that time
count as one. So neither memory nor the time of a step grows with what waits. Whole records are spread: a piece of one
would have no id to resume after.
"""

from __future__ import annotations

import math
from collections import deque

# The least number of seconds between two steps: no display refreshes faster.
_STEP = 0.016
# Into how many parts the time is divided by which records may be late, and so how many bursts are told apart.
_PARTS = 64


class Pacer:
    """Says when the records of a log leave that come from now on, so that each leaves within *seconds*."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._bursts: deque[tuple[int, float]] = deque()  # the last record of each, and the time by which that leaves
        self._leave_at = 0.0

    def came(self, last: int, now: float) -> None:
        """Take note that the log has records up to number *last* *now*."""
        bursts = self._bursts
        due = now + self._seconds
        if bursts and due - bursts[-1][1] < self._seconds / _PARTS:
            bursts[-1] = last, bursts[-1][1]
        else:
            bursts.append((last, due))
        if len(bursts) > 2 * _PARTS:  # the reader is behind, and the oldest are overdue
            _, due = bursts.popleft()
            bursts[0] = bursts[0][0], due

    def step(self, sent: int, now: float) -> tuple[int, float]:
        """Return the number of the last record that leaves *now*, after number *sent*, and when the next step is.

        The number is *sent* if none leaves. The time is infinite if none waits, until more have come. A record that
        comes while none waits leaves at once; those that wait leave at the largest distance that lets all leave in
        time.
        """
        bursts = self._bursts
        while bursts and bursts[0][0] <= sent:
            bursts.popleft()
        if not bursts:
            return sent, math.inf
        if now < self._leave_at:
            return sent, self._leave_at
        distance = min(((due - now) / (last - sent - 1) for last, due in bursts if last > sent + 1), default=math.inf)
        if distance == math.inf:  # nothing waits behind this one: what comes next may leave as it comes
            self._leave_at = now
            return sent + 1, now
        if distance <= 0:
            self._leave_at = now
            return max(last for last, due in bursts if due <= now), now
        self._leave_at = now + max(distance, _STEP)
        count = 1 if distance >= _STEP else math.ceil(_STEP / distance)
        return min(sent + count, bursts[-1][0]), self._leave_at
