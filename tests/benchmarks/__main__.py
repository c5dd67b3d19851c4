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
QUICK: dict[str, Any] = {"settle": 0.4, "window": 1.5, "probing": 0.6, "probes": 15, "rounds": 2, "direct_rounds": 1}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; the status is 1 if a stream was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description="The service beside a bare nginx, on this machine, now."
    )
    parser.add_argument("--quick", action="store_true", help="20 and 200 streams, short windows: under 45 seconds")
    parser.add_argument(
        "--streams", type=int, nargs="+", metavar="N", help="how many live streams (default: 20 200 1000)"
    )
    parser.add_argument("--rate", type=float, help="deltas a second of each stream (default: 50)")
    arguments = parser.parse_args(argv)
    found = [
        row
        for streams in arguments.streams or ((20, 200) if arguments.quick else (20, 200, 1000))
        for row in play(scenario(streams, arguments.rate, arguments.quick))
    ]
    print(f"{head()}\n\n{tables(found)}")
    return 1 if any(row.lost for row in found) else 0


def scenario(streams: int, rate: float | None = None, quick: bool = False) -> Scenario:
    """Return the scenario of so many *streams*: a named one, or one after the next larger that has a name."""
    found = next((each for each in SCENARIOS if streams <= each.streams), SCENARIOS[-1])
    if streams != found.streams:
        found = replace(found, name=f"{streams}", streams=streams)
    if rate:
        found = replace(found, rate=rate)
    return replace(found, **QUICK) if quick else found


def play(chosen: Scenario) -> list[Row]:
    """Play one scenario, nginx and the service in turns and each first as often, and return its rows."""
    played: dict[Via, list[Seen]] = {"direct": [], "nginx": [], "service": []}
    with tempfile.TemporaryDirectory(prefix="chat-sse-benchmark-") as directory, stage(Path(directory)) as ready:
        ready.warm_up()
        for number in range(chosen.rounds):
            order: list[Via] = ["nginx", "service"] if number % 2 == 0 else ["service", "nginx"]
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
