"""What is counted: the buckets of a histogram, and the models that may be labels."""

from __future__ import annotations

import pytest

from app.meter import DURATION, GAP, LOOP_DELAY, OTHER, Histogram, Meter


def test_a_histogram() -> None:
    """A value counts in the first bucket whose bound it does not exceed; one above all bounds, in the last bucket."""
    histogram = Histogram([1, 2, 4])
    for value in (0, 1, 1.5, 4, 4.5, 100):
        histogram.observe(value)
    assert histogram.counts == [2, 1, 1, 2]
    assert histogram.count == 6
    assert histogram.total == 111


@pytest.mark.parametrize("bounds", [DURATION, GAP, LOOP_DELAY])
def test_bounds(bounds: tuple[float, ...]) -> None:
    """The bounds rise."""
    assert list(bounds) == sorted(set(bounds))


def test_models() -> None:
    """A model is a label if the settings name it; every other model is `other`."""
    meter = Meter(["m"], ["a", "b"])
    assert [meter.model(name) for name in ("m", "M", "")] == ["m", OTHER, OTHER]
    assert meter.upstreams == ("a", "b")
