"""The command: `python -m tests.benchmarks`. Plays the scenarios and prints what they showed, as Markdown."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.benchmarks.plan import Scenario, Seen, Via
from tests.benchmarks.report import Row, head, rows, tables
from tests.benchmarks.stage import stage

SCENARIOS = (
    Scenario("few", 20, ramp=0.4, window=3.5),
    Scenario("many", 200),
    Scenario("most", 1000, ramp=5.0, settle=1.0, rounds=2, direct_rounds=1),
)
# Beside them, at 1,000 streams, less of each: two services and Redis want more than the two cores of a small machine.
JOURNALS = (*SCENARIOS[:2], replace(SCENARIOS[2], rate=10))
QUICK: dict[str, Any] = {"settle": 0.4, "window": 1.5, "probing": 0.6, "probes": 15, "rounds": 2, "direct_rounds": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the status is 1 if a stream was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="What the service costs, on this machine, now."
    )
    parser.add_argument("--quick", action="store_true", help="20 and 200 streams, short windows: about a minute")
    parser.add_argument(
        "--journals", action="store_true", help="Redis beside memory, instead of the service beside a bare nginx"
    )
    parser.add_argument(
        "--streams", type=int, nargs="+", metavar="N", help="how many live streams (default: 20 200 1000)"
    )
    parser.add_argument("--rate", type=float, help="deltas a second of each stream (default: 50)")
    arguments = parser.parse_args(argv)
    found = [
        row
        for streams in arguments.streams or ((20, 200) if arguments.quick else (20, 200, 1000))
        for row in play(
            scenario(streams, arguments.rate, arguments.quick, arguments.journals), journals=arguments.journals
        )
    ]
    print(f"{head()}\n\n{tables(found)}")
    return 1 if any(row.lost for row in found) else 0


def scenario(streams: int, rate: float | None = None, quick: bool = False, journals: bool = False) -> Scenario:
    """Return the scenario of so many *streams*: a named one, or one after the next larger that has a name."""
    named = JOURNALS if journals else SCENARIOS
    found = next((each for each in named if streams <= each.streams), named[-1])
    if streams != found.streams:
        found = replace(found, name=f"{streams}", streams=streams)
    if rate:
        found = replace(found, rate=rate)
    return replace(found, **QUICK) if quick else found


def play(chosen: Scenario, *, journals: bool = False) -> list[Row]:
    """Play one scenario, those that are compared in turns and each first as often, and return its rows."""
    compared: list[Via] = ["service", "redis", "elsewhere"] if journals else ["nginx", "service"]
    played: dict[Via, list[Seen]] = {via: [] for via in [*compared, "direct"]}
    with (
        tempfile.TemporaryDirectory(prefix="chat-sse-benchmark-") as directory,
        stage(Path(directory), journals=journals) as ready,
    ):
        ready.warm_up()
        for number in range(chosen.rounds):
            order = compared[:: 1 if number % 2 == 0 else -1]
            if number < chosen.direct_rounds:
                order.append("direct")
            for via in order:
                played[via].append(seen := ready.play(chosen, via))
                print(f"{chosen.name}: {chosen.streams} streams, {via}, {seen.deltas} deltas", file=sys.stderr)
                for complaint in seen.complaints:
                    print(f"  lost: {complaint}", file=sys.stderr)
    return rows(chosen, played)


if __name__ == "__main__":
    sys.exit(main())
