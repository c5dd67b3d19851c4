"""The command: `python -m tests.benchmarks`. Plays the loads and figures and prints what they showed, as Markdown."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tests.benchmarks import baseline, picture
from tests.benchmarks.compare import LOADS, Played, compare, saturated, scenario_of
from tests.benchmarks.contenders import ABSENT, CONTENDERS
from tests.benchmarks.figures import FIGURES
from tests.benchmarks.machine import allow_many_files, head
from tests.benchmarks.report import BESIDE, COST, beside_row, cost_row, table
from tests.benchmarks.results import KEPT, Session
from tests.benchmarks.stage import DIRECT, stage

# The disk and Redis beside memory; at 1,000 streams less of each, as two services and Redis want more than two cores.
JOURNALS = ("service", "file", "redis", "elsewhere")
JOURNALS_LOADS = ("20", "200", "1000x10")

_LEGEND = """\
Medians [lowest–highest of the rounds]. CPU and instructions are the whole process tree's; a ratio is taken between runs
of one round. **saturated**: it could not keep up with the deltas, or its one core was full, so its cost (merged deltas)
is in parentheses and its latency left out; larger loads are not tried. **unsound**: what measures was full.
What ran beside it, in percent of one core:"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the status is 1 if a stream was lost, or, with --quick, a ratio regressed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What the service and its peers cost, on this machine, now."
    )
    parser.add_argument(
        "--quick", action="store_true", help="three minutes: the recorded ratios to nginx; 1 if one is much worse"
    )
    parser.add_argument("--record", action="store_true", help="measure those ratios and keep them in baseline.toml")
    parser.add_argument(
        "--install", action="store_true", help="install all packages, start each contender once, and say who is missing"
    )
    parser.add_argument(
        "--journals", action="store_true", help="the disk and Redis beside memory, instead of all beside bare nginx"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        choices=CONTENDERS,
        help="of the contenders, beside nginx: " + ", ".join(CONTENDERS),
    )
    parser.add_argument(
        "--loads", nargs="*", metavar="N[xRATE]", help=f"live streams x deltas a second (default: {' '.join(LOADS)})"
    )
    parser.add_argument(
        "--figures",
        nargs="*",
        choices=FIGURES,
        help="besides the loads (default: all of them, or none with --journals)",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help=f"keep the results of loads and requests in {KEPT.name}, beside those of earlier runs of the same session",
    )
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="print and draw (as SVG) what is kept, and play nothing"
    )
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each load is played (default: 3)")
    arguments = parser.parse_args(argv)
    if arguments.picture:
        kept = Session.read(KEPT)
        arguments.picture.write_text(picture.draw(kept))
        print(kept.text())
        return 0
    try:
        session = Session.resumed(KEPT) if arguments.keep else None
    except ValueError as error:
        parser.error(str(error))
    allow_many_files()
    if arguments.record or arguments.quick:
        return 0 if (baseline.record() if arguments.record else baseline.check()) else 1
    names = list(JOURNALS if arguments.journals else CONTENDERS)
    if arguments.only:
        names = [name for name in names if name in (*arguments.only, *names[:1])]
    if arguments.install:
        return _install(names)
    loads = (JOURNALS_LOADS if arguments.journals else tuple(LOADS)) if arguments.loads is None else arguments.loads
    figures = (() if arguments.journals else tuple(FIGURES)) if arguments.figures is None else arguments.figures
    return _everything(names, loads, figures, arguments.rounds, session)


def _everything(
    names: list[str], loads: Sequence[str], figures: Sequence[str], rounds: int | None, session: Session | None
) -> int:
    began = time.monotonic()
    print(f"{head()}\n", flush=True)
    played: list[Played] = []
    for load in loads:
        scenario = scenario_of(load)
        smaller = [each for each in played if each.scenario.rate == scenario.rate]
        scenario = replace(scenario, rounds=rounds or scenario.rounds)
        played.append(compare(scenario, names, saturated(smaller)))
        print(text(played[-1]), flush=True)
        if session:
            session.keep(played[-1:], KEPT)
    missing = {name: why for each in played for name, why in each.missing.items() if name not in saturated(played)}
    able = [name for name in names if name not in missing]
    for name in figures:
        figure = FIGURES[name](able, saturated(played))
        print(figure.text(), flush=True)
        if session:
            session.keep(figure.played, KEPT)
    for name, why in {**missing, **ABSENT}.items():
        print(f"Not measured: {name}: {why}.")
    print(f"\nTook {(time.monotonic() - began) / 60:.0f} minutes.")
    return 1 if any(each.lost for each in played) else 0


def text(played: Played) -> str:
    """Return what was played, in Markdown."""
    cost = [cost_row(played.scenario, name, played.runs, DIRECT) for name in played.runs]
    cost += [[name, *[""] * (len(COST) - 2), why] for name, why in played.missing.items()]
    beside = [beside_row(name, runs) for name, runs in played.runs.items()]
    return f"## {played.scenario.load}\n\n{table(COST, cost)}\n\n{_LEGEND}\n\n{table(BESIDE, beside)}\n"


def _install(names: Sequence[str]) -> int:
    with stage(*[CONTENDERS[name] for name in names]) as ready:
        rows = [[name, CONTENDERS[name].about, ready.missing.get(name, "streams")] for name in names]
    print(table(("contender", "what it is", "here"), [*rows, *[[name, "", why] for name, why in ABSENT.items()]]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
