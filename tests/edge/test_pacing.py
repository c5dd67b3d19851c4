"""Pacing: spread evenly, never too late, nothing dropped, and no dearer the more waits."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.pacing import Pacer
from tests.growth import growth

FRAME = 0.016


class Played:
    """A reader that keeps up, on a clock of its own: what leaves when, if *bursts* come, each a time and a number."""

    def __init__(self, seconds: float, *bursts: tuple[float, int]) -> None:
        self.came: list[float] = []  # when each record came
        self.left: list[float] = []  # and left
        self.steps = 0
        pacer = Pacer(seconds)
        coming = sorted(bursts)
        now = 0.0
        at = math.inf
        while coming or at < math.inf:
            if coming and coming[0][0] <= at:
                now, number = coming.pop(0)
                self.came += [now] * number
                pacer.came(len(self.came), now)
                if at < math.inf:
                    continue  # the reader sleeps
            else:
                now = max(now, at)
            last, at = pacer.step(len(self.left), now)
            assert len(self.left) <= last <= len(self.came)
            self.steps += last > len(self.left)
            self.left += [now] * (last - len(self.left))
        assert len(self.left) == len(self.came)


BURSTS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 300)), min_size=1, max_size=30)


@given(BURSTS, st.floats(0.05, 1))
def test_nothing_is_late(bursts: list[tuple[float, int]], seconds: float) -> None:
    """Each record leaves, in order, within the time after it came, give or take what a display shows at once."""
    played = Played(seconds, *bursts)
    assert played.left == sorted(played.left)
    for came, left in zip(played.came, played.left, strict=True):
        assert came <= left <= came + seconds + FRAME + 1e-6


def test_a_burst_is_spread() -> None:
    """A burst leaves over its time, the first record at once, and about as many in each part of that time."""
    played = Played(1.0, (5.0, 200))
    assert played.left[0] == 5.0
    for part in range(7):
        at = 5 + part / 10
        assert 15 <= sum(at <= left < at + 0.1 for left in played.left) <= 30
    assert 40 < played.steps < 100


def test_nothing_waits_for_nothing() -> None:
    """Records that come one by one, each after the last has left, leave as they come."""
    played = Played(1.0, *((float(number), 1) for number in range(10)))
    assert played.left == played.came


def test_a_late_burst_hurries_what_waits() -> None:
    """What waits leaves faster if so much more comes that that would be late."""
    alone = Played(1.0, (0.0, 20))
    hurried = Played(1.0, (0.0, 20), (0.1, 2000))
    assert hurried.left[19] < alone.left[19]


def test_a_reader_that_is_behind_gets_what_is_overdue() -> None:
    """After a pause of the client's, all that is overdue leaves at once, and the rest is still spread."""
    pacer = Pacer(1.0)
    for number in range(1000):
        pacer.came(number + 1, number / 100)
    last, at = pacer.step(0, 10.0)
    assert 880 <= last <= 905
    assert at == 10.0
    last, at = pacer.step(last, at)
    assert last < 905
    assert at > 10.0


def test_the_cost_of_a_step() -> None:
    """A step costs the same however much waits, and however long the reader has been behind."""

    def waiting(bursts: int) -> Callable[[], object]:
        pacer = Pacer(60)
        for number in range(bursts):
            pacer.came(2 * number + 2, number / 1000)
        assert len(pacer._bursts) <= 130

        def steps() -> None:
            sent = 0
            for number in range(1000):
                sent, _ = pacer.step(sent, (bursts + number) / 1000)

        return steps

    assert growth(waiting, 64_000) < 4


@pytest.mark.parametrize("seconds", [0.001, 60.0])
def test_any_time(seconds: float) -> None:
    """The shortest and the longest time that can be asked for are kept."""
    played = Played(seconds, (0.0, 1000), (seconds / 2, 1000))
    assert played.left[-1] <= 1.5 * seconds + FRAME
