"""The benchmark runs, and loses nothing; how fast anything is, no test says."""

from __future__ import annotations

import platform
import re
import sys
import sysconfig
from dataclasses import replace

import pytest

from tests.benchmarks import figures
from tests.benchmarks.__main__ import text
from tests.benchmarks.baseline import PAIRS, Ratio, Record
from tests.benchmarks.client import latencies
from tests.benchmarks.compare import LOADS, compare, scenario_of
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.counters import unavailable
from tests.benchmarks.machine import build, head, machine
from tests.benchmarks.plan import Scenario, Seen
from tests.benchmarks.report import Verdict, instructions, percentile, verdict
from tests.benchmarks.stage import DIRECT, stage

TINY = Scenario("tiny", 5, ramp=0.1, settle=0.1, window=0.4, probing=0.2, probes=4, rounds=1, direct_rounds=1)


@pytest.mark.real
def test_a_small_load_yields_its_rows() -> None:
    """nginx, a bare pipe, the service and nothing in between each have a line in both tables, and no stream is lost."""
    played = compare(TINY, ["nginx", "service", "service × 3", "node pipe"], {"node pipe": "saturated at 3 × 50/s"})
    lines = text(played).splitlines()
    assert [sum(line.startswith(f"| {name} |") for line in lines) for name in ("nginx", "service", "direct")] == [2] * 3
    assert "| node pipe |  |  |  |  |  |  |  | saturated at 3 × 50/s |" in lines
    assert {name: [run.lost for run in runs] for name, runs in played.runs.items()} == {
        name: [0] for name in ("nginx", "service", "service × 3", DIRECT)
    }
    deltas = {name: runs[0].deltas for name, runs in played.runs.items()}
    assert deltas["service × 3"] < 1.5 * deltas["service"], "three readers' deltas count once"
    assert "Python 3." in head()
    if not unavailable():
        counted = {name: set(runs[0].instructions) for name, runs in played.runs.items()}
        assert counted["service"] == {"via", "simulator", "load"}
        assert instructions(played.runs["service"][0]) > instructions(played.runs["nginx"][0]) > 1


@pytest.mark.real
def test_requests_yield_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short answers have a row for each contender and number of clients, and none is lost."""
    monkeypatch.setattr(figures, "_AT_ONCE", (2, 3))
    monkeypatch.setattr(figures, "_REQUESTS", replace(TINY, answers=3, ramp=0.0, probing=0.0))
    figure = figures.requests(["nginx", "service"], {})
    assert [row[:2] for row in figure.rows] == [
        [name, clients] for clients in ("2", "3") for name in ("nginx", "service", DIRECT)
    ]
    cells = [dict(zip(figure.columns, row, strict=True)) for row in figure.rows]
    assert {row["lost"] for row in cells} == {"0"}
    assert all(float(row["requests/s"]) > 0 for row in cells)
    assert [bool(row["× the first"]) for row in cells] == [False, True, False] * 2
    assert all(re.fullmatch(r"\d+\.\d / \d+\.\d", row["first token p50 / p99, ms"]) for row in cells)


@pytest.mark.real
def test_the_journals_yield_theirs() -> None:
    """The processor time of Redis, and of another process that a stream is read on, is accounted for."""
    played = compare(TINY, ["service", "file", "redis", "elsewhere"])
    assert {name: set(runs[0].cpu) - {"simulator", "load"} for name, runs in played.runs.items()} == {
        "service": {"via"},
        "file": {"via"},
        "redis": {"via", "redis"},
        "elsewhere": {"via", "reader", "redis"},
        DIRECT: set(),
    }
    assert played.lost == 0


@pytest.mark.real
def test_the_figures_have_their_samples() -> None:
    """Leaving, coming back, idling and not reading each yield what they are to, of the service."""
    with stage(CONTENDERS["service"]) as ready:
        left = ready.play(TINY, "service", "abort")
        resumed = ready.play(TINY, "service", "resume")
        idle = ready.play(TINY, "service", "idle")
        paused = ready.play(replace(TINY, rate=500), "service", "paused")
    assert (len(left.samples), left.late, left.lost) == (20, 0, 0)
    assert (len(resumed.samples), resumed.lost) == (15, 0)
    assert (idle.streams, idle.deltas) == (5, 0)
    assert paused.samples[0] > 50, "upstream goes on while the reader does not"
    assert paused.deltas < 20


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


def test_a_load_without_a_name_is_like_the_next_larger() -> None:
    """`N` and `NxRATE` are loads; the windows are those of one that has a name."""
    assert scenario_of("200") is LOADS["200"]
    assert scenario_of("50x500") is LOADS["50x500"]
    few, most = scenario_of("5"), scenario_of("1000x10")
    assert (few.streams, few.rate, few.ramp) == (5, 50, LOADS["20"].ramp)
    assert (most.streams, most.rate, most.ramp) == (1000, 10, LOADS["1000"].ramp)


@pytest.mark.parametrize(
    ("seen", "found"),
    [
        (Seen(1.0, deltas=250, cpu={"via": 0.5, "load": 0.5}, idle=1.0), Verdict.SOUND),
        (Seen(1.0, deltas=250, cpu={"via": 0.96, "load": 0.5}, idle=0.5), Verdict.SATURATED),
        (Seen(1.0, deltas=200, cpu={"via": 0.5, "load": 0.5}, idle=1.0), Verdict.SATURATED),
        (Seen(1.0, deltas=200, cpu={"via": 0.5, "load": 0.97}, idle=0.5), Verdict.UNSOUND),
        (Seen(1.0, deltas=250, cpu={"via": 0.5, "load": 0.5}, idle=0.0), Verdict.UNSOUND),
    ],
)
def test_who_could_not_keep_up_is_told_from_what_measures(seen: Seen, found: Verdict) -> None:
    """A contender that is full or behind is saturated; a load client that is, or a full machine, proves nothing."""
    assert verdict(TINY, [seen]) is found


def test_the_recorded_ratios_are_those_that_are_checked() -> None:
    """`--quick` finds each of its pairs in baseline.toml."""
    keys = {Ratio(pair.name, pair.scenario.load).key for pair in PAIRS}
    recorded = Record.read()
    assert recorded.cpu.keys() == keys
    assert recorded.instructions.keys() <= keys, "they are not recorded where they cannot be counted"


@pytest.mark.parametrize(
    ("arguments", "prefix", "found"),
    [
        ("'--enable-optimizations' '--prefix=/x'", "/x", ""),
        ("'--prefix=/x'", "/x", " (built without PGO)"),
        ("'--prefix=/usr'", "/usr", ""),
    ],
)
def test_a_python_without_pgo_is_told(monkeypatch: pytest.MonkeyPatch, arguments: str, prefix: str, found: str) -> None:
    """The machine's words name a Python that was built without optimizations, but not a distribution's own."""
    monkeypatch.setattr(sysconfig, "get_config_var", {"CONFIG_ARGS": arguments}.get)
    monkeypatch.setattr(sys, "base_prefix", prefix)
    assert build() == found
    assert machine().endswith(f"Python {platform.python_version()}{found}")
