"""The two minutes for CI: what the service costs relative to bare nginx in the same run, against what was recorded.

Only ratios: they hold on any machine, near enough, as long as it is quiet: where others are at work, reads merge and
`auto` makes fewer events of them. So rounds that others were at work in do not count, if enough are left. Rounds
alternate, medians count, and what regressed is played a second time before it is believed.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from tests.benchmarks.compare import compare
from tests.benchmarks.machine import machine
from tests.benchmarks.plan import Scenario
from tests.benchmarks.report import others, ratios, spread, table

RECORDED = Path(__file__).parent / "baseline.toml"
TOLERANCE = 1.3

_QUIET = 0.15  # of one core: what others may take
_ENOUGH = 3  # quiet rounds
_SHORT = Scenario("quick", 200, ramp=0.6, settle=0.4, window=2.5, probing=0.2, probes=3, rounds=7, direct_rounds=1)
PAIRS = {
    "service": _SHORT,
    "service time:50": replace(_SHORT, streams=50, rate=500, rounds=5),
}


@dataclass(frozen=True, slots=True)
class Ratio:
    """What *name* cost relative to nginx, in each round that counts; *lost* are streams that were.

    If not *quiet*, others were at work in nearly all rounds, and so all of them count, for what they are worth.
    """

    name: str
    load: str
    rounds: list[float]
    lost: int
    quiet: bool = True
    trouble: str = ""

    @property
    def key(self) -> str:
        """What it is recorded under."""
        return f"{self.name}, {self.load}"

    @property
    def value(self) -> float:
        """The ratio; infinite if there is none."""
        return median(self.rounds) if self.rounds else float("inf")


def play(name: str) -> Ratio:
    """Play a pair, in rounds."""
    scenario = PAIRS[name]
    played = compare(scenario, ["nginx", name])
    found = [played.runs.get(each, []) for each in (name, "nginx")]
    lost = sum(run.lost for each in found for run in each)
    rounds = ratios(*found)
    quiet = [ratio for ratio, *both in zip(rounds, *found, strict=False) if all(others(run) < _QUIET for run in both)]
    enough = len(quiet) >= _ENOUGH
    trouble = "; ".join(played.missing.values())
    return Ratio(name, scenario.load, quiet if enough else rounds, lost, enough, trouble)


def check() -> bool:
    """Play all pairs, print what came of it, and say whether all are well."""
    recorded: dict[str, float] = tomllib.loads(RECORDED.read_text())["ratio"] if RECORDED.exists() else {}
    rows, well = [], True
    for found, limit, fine in _checked(recorded):
        well &= fine
        kept = f"{recorded[found.key]:.2f}" if found.key in recorded else "none"
        remark = found.trouble or (f"{found.lost} streams lost" if found.lost else "" if fine else "**regressed**")
        if not found.quiet:
            remark += " the machine was busy"
        elif fine and found.value < recorded[found.key] / TOLERANCE:
            remark = "better: record it anew with --record"
        rows.append([found.key, spread(found.rounds), kept, f"{limit:.2f}", remark])
    print(table(("CPU a delta, relative to bare nginx", "now", "recorded", "at most", "remark"), rows))
    return well


def _checked(recorded: dict[str, float]) -> Iterator[tuple[Ratio, float, bool]]:
    for name in PAIRS:
        found = play(name)
        limit = recorded.get(found.key, 0.0) * TOLERANCE
        if found.value > limit or found.lost:
            print(f"{found.key}: {found.value:.2f}, at most {limit:.2f}; once more", file=sys.stderr)
            found = play(name)
        yield found, limit, found.value <= limit and not found.lost


def record() -> bool:
    """Play all pairs and keep their ratios, if the machine was quiet; say whether it was and nothing else was wrong."""
    found = [play(name) for name in PAIRS]
    if any(each.lost or each.trouble or not each.quiet for each in found):
        for each in found:
            busy = "" if each.quiet else "The machine was busy: not recorded. "
            print(f"{each.key}: {spread(each.rounds)}. {each.lost} streams lost. {busy}{each.trouble}", file=sys.stderr)
        return False
    lines = "\n".join(f'"{each.key}" = {each.value:.2f} # {spread(each.rounds)}' for each in found)
    RECORDED.write_text(
        "# CPU a delta relative to bare nginx in the same run, medians of alternating rounds: written by\n"
        f"# `python -m tests.benchmarks --record`; `--quick` fails above {TOLERANCE} times it.\n"
        f'date = {datetime.now(UTC):%Y-%m-%d}\nmachine = "{machine()}"\n\n[ratio]\n{lines}\n'
    )
    print(RECORDED.read_text())
    return True
