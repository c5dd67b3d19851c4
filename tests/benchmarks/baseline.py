"""The three minutes for CI: what the service takes relative to bare nginx in the same run, against what was recorded.

Only ratios: they hold on any machine, near enough. Where the processor's instructions can be counted, they decide: cold
caches do not change how many there are, so three rounds are enough, and CPU time is only remarked upon. (Where others
take whole cores, reads merge, and `auto` makes fewer events of them: that lowered the ratio, once by a quarter, so it
may hide a regression. The verdict says so.)

Where they cannot, CPU time decides, and asks for more: rounds that others were at work in do not count, if enough are
left, and of those that do the lower quartile, as what disturbs a round makes it dearer. Either way rounds alternate,
and what regressed is played a second time before it is believed.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from tests.benchmarks.compare import compare
from tests.benchmarks.counters import unavailable
from tests.benchmarks.machine import machine
from tests.benchmarks.plan import Scenario
from tests.benchmarks.report import instructions, others, ratios, spread, table

RECORDED = Path(__file__).parent / "baseline.toml"
TOLERANCE = 1.3

_QUIET = 0.15  # of one core: what others may take
_ENOUGH = 3  # quiet rounds, or rounds with instructions counted
_SHORT = Scenario("quick", 200, ramp=0.6, settle=0.4, window=2.5, probing=0.2, probes=3, rounds=5, direct_rounds=0)
_COLUMNS = ("relative to bare nginx", "instructions", "recorded", "CPU", "recorded", "verdict")


class Pair(NamedTuple):
    """A contender that is compared with nginx. It may take *tolerance* times what is recorded."""

    name: str
    scenario: Scenario
    tolerance: float = TOLERANCE


PAIRS = (
    Pair("service", _SHORT),
    Pair("service time:50", replace(_SHORT, streams=50, rate=500, rounds=4)),
    # Beside others at work a request takes more time than a delta does: more code that it needs leaves the caches.
    Pair("service", replace(_SHORT, streams=20, answers=3, ramp=0.0, window=2.0, probing=0.0, rounds=4), 1.5),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """What *name* took relative to nginx: CPU time in each round that counts, *instructions* in each, if counted.

    *lost* are streams that were. If not *quiet*, others were at work in nearly all rounds, and so the CPU time of all
    counts, for what it is worth.
    """

    name: str
    load: str
    cpu: list[float] = field(default_factory=list)
    instructions: list[float] = field(default_factory=list)
    lost: int = 0
    quiet: bool = True
    trouble: str = ""
    tolerance: float = TOLERANCE

    @property
    def key(self) -> str:
        """What it is recorded under."""
        return f"{self.name}, {self.load}"


@dataclass(frozen=True, slots=True)
class Record:
    """The ratios that are recorded, by `Ratio.key`."""

    cpu: Mapping[str, float] = field(default_factory=dict)
    instructions: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls) -> Record:
        """Read baseline.toml; without one, nothing is recorded."""
        found = tomllib.loads(RECORDED.read_text()) if RECORDED.exists() else {}
        return cls(found.get("ratio", {}), found.get("instructions", {}))


def play(pair: Pair, rounds: int | None = None) -> Ratio:
    """Play a pair, in its rounds or so many."""
    name, scenario, tolerance = pair
    played = compare(replace(scenario, rounds=rounds or scenario.rounds), ["nginx", name])
    mine, other = (played.runs.get(each, []) for each in (name, "nginx"))
    calm = [both for both in zip(mine, other, strict=False) if all(others(run) < _QUIET for run in both)]
    quiet = len(calm) >= _ENOUGH
    return Ratio(
        name,
        scenario.load,
        ratios([run for run, _ in calm], [run for _, run in calm]) if quiet else ratios(mine, other),
        ratios(mine, other, instructions),
        sum(run.lost for run in (*mine, *other)),
        quiet,
        "; ".join(played.missing.values()),
        tolerance,
    )


def judge(found: Ratio, recorded: Record) -> tuple[bool, str]:
    """Say whether all is well, and what is to be said of it in few words."""
    wrong = found.trouble or (f"{found.lost} streams lost" if found.lost else "")
    cpu, counted = recorded.cpu.get(found.key), recorded.instructions.get(found.key)
    if wrong or not found.cpu or cpu is None:
        return False, wrong or ("nothing was measured" if cpu else "not recorded: see --record")
    busy = "" if found.quiet else "; the machine was busy"
    if counted is None or not found.instructions:
        what, now, kept = "CPU", _undisturbed(found.cpu), cpu
    else:
        what, now, kept = "instructions", median(found.instructions), counted
    most = found.tolerance
    if now > kept * most:
        return False, f"**regressed**: {what} above {kept * most:.2f}{busy if what == 'CPU' else ''}"
    if median(found.cpu) > cpu * most:
        return True, "fine, by instructions; slower, and not by them: the machine"
    better = "; better: record it with --record" if now < kept / most else ""
    return True, f"fine, by {what}{busy or better}"


def _undisturbed(rounds: list[float]) -> float:
    """Return the lower quartile."""
    return quantiles(rounds, method="inclusive")[0] if len(rounds) > 1 else rounds[0]


def check() -> bool:
    """Play all pairs, print what came of it, and say whether all are well."""
    recorded, why = Record.read(), unavailable()
    if why:
        print(f"Instructions cannot be counted here ({why}): CPU time decides.", file=sys.stderr)
    rows, well = [], True
    for pair in PAIRS:
        counted = not why and Ratio(pair.name, pair.scenario.load).key in recorded.instructions
        rounds = _ENOUGH if counted else pair.scenario.rounds
        found = play(pair, rounds)
        fine, words = judge(found, recorded)
        if not fine:
            print(f"{found.key}: {words}; once more", file=sys.stderr)
            found = play(pair, rounds)
            fine, words = judge(found, recorded)
        well &= fine
        kept = [f"{each[found.key]:.2f}" if found.key in each else "" for each in (recorded.instructions, recorded.cpu)]
        rows.append([found.key, spread(found.instructions, 2), kept[0], spread(found.cpu, 2), kept[1], words])
    print(table(_COLUMNS, rows))
    return well


def record() -> bool:
    """Play all pairs and keep their ratios, if the machine was quiet; say whether it was and nothing else was wrong."""
    found = [play(pair) for pair in PAIRS]
    if any(each.lost or each.trouble or not each.quiet for each in found):
        for each in found:
            busy = "" if each.quiet else "The machine was busy: not recorded. "
            print(f"{each.key}: {spread(each.cpu, 2)}. {each.lost} streams lost. {busy}{each.trouble}", file=sys.stderr)
        return False
    sections = {"ratio": {each.key: each.cpu for each in found}}
    if all(each.instructions for each in found):
        sections["instructions"] = {each.key: each.instructions for each in found}
    lines = [
        f"\n[{title}]\n"
        + "".join(f'"{key}" = {median(each):.2f} # {spread(each, 2)}\n' for key, each in values.items())
        for title, values in sections.items()
    ]
    RECORDED.write_text(
        "# A delta, and a request, relative to bare nginx in the same run, medians of alternating rounds: CPU time\n"
        "# (ratio) and instructions, where they could be counted. Written by `python -m tests.benchmarks --record`;\n"
        "# `--quick` fails above the pair's tolerance times the instructions, or, without counters, the CPU time.\n"
        f'date = {datetime.now(UTC):%Y-%m-%d}\nmachine = "{machine()}"\n{"".join(lines)}'
    )
    print(RECORDED.read_text())
    return True
