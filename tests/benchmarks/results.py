"""What the runs of a session showed, kept in a file, so that runs of a few contenders each can be put together.

The README's tables and its picture (`tests.benchmarks.picture`) are made of what is kept, and so of one session.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Self

from tests.benchmarks.compare import Played
from tests.benchmarks.machine import machine
from tests.benchmarks.plan import Seen
from tests.benchmarks.report import BUSY, cost, fullest, instructions, percentile, ratios, spread, table, verdict
from tests.benchmarks.stage import DIRECT

KEPT = Path(__file__).parent / "results.jsonl"

_COLUMNS = ("via", "a second", "× nginx", "k instructions each", "CPU each, µs", "p50 / p99, ms", "remark")


@dataclass(frozen=True, slots=True)
class Result:
    """What a contender showed under one load. The lists have a value for each round.

    The unit is a delta, or, where a load has *answers*, an answer. *rate* is how many came in a second, *cost* the
    microseconds of CPU time for each, *ratios* that cost relative to nginx's in the same round, *instructions*
    thousands for each. *p50* and *p99* are milliseconds: what was added to each delta, or an answer's time to its first
    token.
    """

    load: str
    via: str
    answers: bool
    rate: float
    cost: list[float]
    ratios: list[float] = field(default_factory=list)
    instructions: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    remark: str = ""

    @property
    def ratio(self) -> float:
        """The cost relative to nginx's; 1 for nginx itself."""
        return median(self.ratios) if self.ratios else 1.0


@dataclass(frozen=True, slots=True)
class Session:
    """The results of one *machine* on one *day*, which alone may be compared."""

    day: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%d}")
    machine: str = field(default_factory=machine)
    results: list[Result] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `keep` wrote: a line of JSON for the session, and one for each result."""
        head, *lines = map(json.loads, path.read_text().splitlines())
        return cls(**head, results=[Result(**line) for line in lines])

    @classmethod
    def resumed(cls, path: Path) -> Self:
        """Return the session to which a run of today belongs. Raises ValueError if *path* has another one."""
        today = cls()
        if not path.exists():
            return today
        kept = cls.read(path)
        if (kept.day, kept.machine) != (today.day, today.machine):
            raise ValueError(f"{path} is of {kept.day}, {kept.machine}: remove it to begin another session")
        return kept

    def keep(self, played: Iterable[Played], path: Path) -> None:
        """Add what was *played* to the file, in place of earlier results of the same contenders and loads."""
        new = [result for each in played for result in results(each)]
        found = {(each.load, each.via): each for each in [*self.results, *new]}
        self.results[:] = found.values()
        lines = [{"day": self.day, "machine": self.machine}, *map(asdict, self.results)]
        path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))

    def text(self) -> str:
        """Return a table for each load, in Markdown."""
        loads: dict[str, list[Result]] = {}
        for each in self.results:
            loads.setdefault(each.load, []).append(each)
        return "\n".join(
            f"## {load}\n\n{table(_COLUMNS, [_row(each) for each in found])}\n" for load, found in loads.items()
        )


def results(played: Played) -> list[Result]:
    """Return the results of what was *played*, of all but the runs with nothing in between."""
    scenario, direct = played.scenario, played.runs.get(DIRECT, [])
    first = next(iter(played.runs.values()))
    found = []
    for name, runs in played.runs.items():
        if name == DIRECT:
            continue
        if scenario.answers:
            busy, share = fullest(runs)
            remark = f"full: {busy}" if share > BUSY else ""
        else:
            remark = verdict(scenario, runs, direct).value
        found.append(
            Result(
                scenario.load,
                name,
                bool(scenario.answers),
                round(median(run.deltas / (run.seconds or 1) for run in runs), 1),
                _rounded(map(cost, runs)),
                [] if runs is first else _rounded(ratios(runs, first)),
                _rounded(filter(None, map(instructions, runs))),
                _latencies(runs, direct, 0.5, answers=bool(scenario.answers)),
                _latencies(runs, direct, 0.99, answers=bool(scenario.answers)),
                remark,
            )
        )
    return found


def _latencies(runs: Sequence[Seen], direct: Sequence[Seen], share: float, *, answers: bool) -> list[float]:
    if answers:
        return _rounded(percentile(run.first_token, share) for run in runs)
    without = median(percentile(run.one_way, share) for run in direct)
    return _rounded(percentile(run.one_way, share) - without for run in runs)


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 3) for value in values]


def _row(result: Result) -> list[str]:
    behind = not result.answers and result.remark  # its queues would make the latency
    return [
        result.via,
        f"{result.rate:,.0f}",
        spread(result.ratios),
        spread(result.instructions),
        spread(result.cost),
        "–" if behind else f"{spread(result.p50)} / {spread(result.p99)}",
        result.remark,
    ]
