"""Contenders side by side under one load, in rounds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.counters import unavailable
from tests.benchmarks.plan import Scenario, Seen
from tests.benchmarks.report import Verdict, verdict
from tests.benchmarks.stage import DIRECT, stage

LOADS = {
    "20": Scenario("few", 20, ramp=0.4, window=3.5),
    "200": Scenario("many", 200),
    "1000": Scenario("most", 1000, ramp=5.0, settle=1.0, rounds=3, direct_rounds=1),
    "50x500": Scenario("fast", 50, rate=500, ramp=0.5),
}

_COUNTING = 2.0  # seconds


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario's runs: of each contender's, and of those with nothing in between; and who was not played, and why."""

    scenario: Scenario
    runs: dict[str, list[Seen]]
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def lost(self) -> int:
        """How many streams were lost, by contenders that were not overloaded."""
        return sum(
            run.lost
            for name, runs in self.runs.items()
            if name == DIRECT or verdict(self.scenario, runs, self.runs[DIRECT]) is Verdict.SOUND
            for run in runs
        )


def scenario_of(load: str) -> Scenario:
    """Return the scenario of a load that is written as in `LOADS`: so many streams, or streams x deltas a second.

    One without a name there is after the next larger that has one. Raises ValueError.
    """
    if load in LOADS:
        return LOADS[load]
    streams, _, rate = load.partition("x")
    like = next((each for each in LOADS.values() if int(streams) <= each.streams), LOADS["1000"])
    return replace(like, name=load, streams=int(streams), rate=float(rate or 50))


def compare(scenario: Scenario, names: Sequence[str], excused: dict[str, str] | None = None) -> Played:
    """Play *scenario* via the contenders *names*, in turns, each first as often as last.

    *excused* are those that need not be tried, and why. The first of *names* is what the others' ratios are to.
    Instructions are counted where that is possible.
    """
    scenario = replace(scenario, counting=0.0 if unavailable() else _COUNTING)
    missing = {name: why for name, why in (excused or {}).items() if name in names}
    with stage(*[CONTENDERS[name] for name in names if name not in missing]) as ready:
        runs: dict[str, list[Seen]] = {name: [] for name in [*ready.names, DIRECT]}
        for number in range(scenario.rounds):
            order = ready.names[:: 1 if number % 2 == 0 else -1]
            if number < scenario.direct_rounds:
                order.append(DIRECT)
            for name in order:
                seen = ready.play(scenario, name)
                runs[name].append(seen)
                print(f"{scenario.load}, round {number + 1}: {name}, {seen.deltas:,} deltas", file=sys.stderr)
        return Played(scenario, {name: each for name, each in runs.items() if each}, {**missing, **ready.missing})


def saturated(played: Iterable[Played]) -> dict[str, str]:
    """Return who could not keep up in what was *played*, and at what load: no larger one can tell more of it."""
    return {
        name: f"saturated at {each.scenario.load}"
        for each in played
        for name, runs in each.runs.items()
        if name != DIRECT and verdict(each.scenario, runs, each.runs[DIRECT]) is Verdict.SATURATED
    }
