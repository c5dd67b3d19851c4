"""The benchmark runs, and loses nothing; how fast anything is, no test says."""

from __future__ import annotations

import pytest

from tests.benchmarks.__main__ import play
from tests.benchmarks.load import latencies
from tests.benchmarks.plan import Scenario
from tests.benchmarks.report import head, percentile, tables

pytestmark = pytest.mark.real

TINY = Scenario("tiny", 5, ramp=0.1, settle=0.1, window=0.4, probing=0.2, probes=4, rounds=1, direct_rounds=1)


def test_a_small_scenario_yields_its_rows() -> None:
    """nginx, the service and nothing in between each have a line in both tables, and every stream its end."""
    found = play(TINY)
    text = tables(found)
    assert [text.count(f"| tiny | 5 × 50/s | {via} |") for via in ("nginx", "service", "direct")] == [2, 2, 2]
    assert [row.lost for row in found] == [0, 0, 0]
    assert "Python 3." in head()


def test_the_journals_yield_theirs() -> None:
    """Memory, Redis, Redis read on another process and nothing at all: each has its lines, and every stream its end."""
    found = play(TINY, journals=True)
    text = tables(found)
    ways = ("service", "redis", "elsewhere", "direct")
    assert [text.count(f"| tiny | 5 × 50/s | {via} |") for via in ways] == [2, 2, 2, 2]
    assert [row.lost for row in found] == [0, 0, 0, 0]
    beside = tables([]).splitlines()[0].strip("| ").split(" | ").index("redis-server beside it")
    assert [bool(row.cost[beside]) for row in found] == [False, True, True, False]


def test_each_delta_has_one_latency_however_the_network_cuts() -> None:
    """A stamp that is spread over two reads belongs to the second."""
    text = b'data: {"content":"%016d;"}\n\ndata: {"content":"%016d;"}\n\n' % (5_000_000, 7_000_000)
    for cut in range(len(text)):
        first = 4.0 if cut <= text.index(b";") else 3.0
        second = 2.0 if cut <= text.rindex(b";") else 1.0
        assert list(latencies([(8_000_000, text[:cut]), (9_000_000, text[cut:])])) == [first, second]


def test_percentiles_are_values_that_were_measured() -> None:
    """The nearest-rank percentile: the 99th of 100 is the 99th, not something between two."""
    assert [percentile(map(float, range(1, 101)), share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
