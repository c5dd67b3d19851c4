"""What the runs of a scenario come to: medians with their spread, ratios of paired runs, a warning where it is due.

- *CPU a delta*: processor time of the process tree in the window, over the deltas that came in it, each counted once
  however many read it; of two services, both. Its ratio to what is first in the table is taken between runs of the same
  round, because the machine's speed drifts.
- *k instructions a delta*: thousands, user and kernel, that the same processes retired, likewise; counted in a window
  of its own, because counting costs time. What others do to the caches of a shared machine moves CPU time by a third
  and more, and this by a percent, unless another process takes whole cores and reads merge (at 500 deltas a second
  they merge as it happens: ten percent); but it leaves out what a cache miss or a slow instruction costs. Empty where
  the kernel or the virtual machine has no counters for us.
- *added one-way*: percentile of the time from the simulator's stamp to the client's read, less the same percentile with
  nothing in between. *Added to the first token*: likewise, from request to first delta on an open connection, with
  no delay upstream, while the other streams run.
- *memory*: the resident size at the window's end less that before the scenario's first request, per live stream. From
  the first round only: what was once touched stays resident. It grows with the answer, which a stream keeps to its end.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import ceil
from statistics import median

from tests.benchmarks.plan import Scenario, Seen

CORES = os.cpu_count() or 1
BUSY = 0.93  # of one core: what a process of one thread cannot exceed for long
_BEHIND = 0.97  # of the deltas asked for
_OURS = ("via", "reader")  # what is measured; the rest is beside it
_BESIDE = ("reader", "redis", "simulator", "load")

COST = (
    "via",
    "deltas/s",
    "CPU a delta, µs",
    "× the first",
    "k instructions a delta",
    "added one-way p50 / p99, ms",
    "added to first token p50 / p99, ms",
    "KB a stream",
    "remark",
)
BESIDE = (
    "via",
    "CPU of it",
    "of that, where it is read",
    "redis-server",
    "simulator",
    "load client",
    "others",
    "lost",
    "late",
    "cut",
)


class Verdict(enum.Enum):
    """What to make of a contender's runs."""

    SOUND = ""
    SATURATED = "saturated"  # it could not keep up; its queues make its latencies, and merged deltas its cost
    UNSOUND = "unsound"  # what measures could not keep up, so the figure is unknown


def verdict(scenario: Scenario, runs: Sequence[Seen], direct: Sequence[Seen] = ()) -> Verdict:
    """Judge the *runs* of a contender; *direct* are those with nothing in between."""
    itself = behind(scenario, runs) or _share(runs, "via") > BUSY or _share(runs, "reader") > BUSY
    if any(_share(runs, name) > BUSY for name in ("simulator", "load")) or any(
        behind(scenario, [run]) for run in direct
    ):
        return Verdict.UNSOUND
    if itself:
        return Verdict.SATURATED
    return Verdict.UNSOUND if _share(runs, "idle") < 0.05 * CORES else Verdict.SOUND


def behind(scenario: Scenario, runs: Sequence[Seen]) -> bool:
    """Whether fewer deltas came than were asked for."""
    return _rate(runs) < _BEHIND * scenario.streams * scenario.rate


def _rate(runs: Sequence[Seen]) -> float:
    return median(run.deltas / (run.seconds or 1) for run in runs)


def _share(runs: Sequence[Seen], name: str) -> float:
    """Of one core: what *name* took, or, under `idle`, what was unused."""
    return median((run.idle if name == "idle" else run.cpu.get(name, 0.0)) / (run.seconds or 1) for run in runs)


def fullest(runs: Sequence[Seen]) -> tuple[str, float]:
    """Return which process was the busiest, and what it took of one core."""
    names = {name for run in runs for name in run.cpu}
    return max(((name, _share(runs, name)) for name in sorted(names)), key=lambda each: each[1], default=("", 0.0))


def cost(run: Seen) -> float:
    """Microseconds of processor time a delta, of all that is measured."""
    return sum(run.cpu.get(name, 0.0) for name in _OURS) / max(run.deltas, 1) * 1e6


def instructions(run: Seen) -> float:
    """Thousands of instructions a delta, of all that is measured; 0 if they were not counted."""
    return sum(run.instructions.get(name, 0.0) for name in _OURS) / max(run.counted, 1) / 1e3


def ratios(runs: Sequence[Seen], first: Sequence[Seen], measure: Callable[[Seen], float] = cost) -> list[float]:
    """Return what *runs* took, relative to *first*'s of the same rounds, except where nothing was measured."""
    pairs = [(measure(mine), measure(other)) for mine, other in zip(runs, first, strict=False)]
    return [mine / other for mine, other in pairs if mine and other]


def cost_row(scenario: Scenario, via: str, played: dict[str, list[Seen]], direct: str) -> list[str]:
    """Return the cells of `COST`; *direct* is the name of the runs with nothing in between."""
    runs, first = played[via], next(iter(played))
    found = verdict(scenario, runs, played[direct])
    sound = found is Verdict.SOUND
    row = [via, f"{_rate(runs):,.0f}"]
    if via == direct:
        row += ["", "", ""]
    else:
        cells = [spread([cost(run) for run in runs]), "" if via == first else spread(ratios(runs, played[first]))]
        cells.append(spread([*filter(None, map(instructions, runs))]))
        row += cells if sound else [f"({cell})" if cell else "" for cell in cells]
    for samples in (_one_way, _first_token):
        row.append(_latency(samples, runs, played[direct], via == direct) if sound or via == direct else "–")
    row.append("" if via == direct else _memory(runs[0]))
    return [*row, ", ".join(_remarks(scenario, runs, found))]


def _one_way(run: Seen) -> list[float]:
    return run.one_way


def _first_token(run: Seen) -> list[float]:
    return run.first_token


def _latency(samples: Callable[[Seen], list[float]], runs: Sequence[Seen], direct: Sequence[Seen], alone: bool) -> str:
    """Median over the rounds of p50 and of p99; for first tokens, of which there are few, all rounds are one."""
    cells = []
    for share in (0.5, 0.99):
        through, without = (
            [percentile(chain.from_iterable(map(samples, each)), share)]
            if samples is _first_token
            else [percentile(samples(run), share) for run in each]
            for each in (runs, direct)
        )
        cells.append(f"{median(through):.1f}" if alone else spread([each - median(without) for each in through]))
    return " / ".join(cells) + (" in all" if alone else "")


def grown(run: Seen) -> float:
    """Return the bytes that a stream took of what is measured."""
    more = sum(run.rss[name] - run.idle_rss[name] for name in _OURS if name in run.rss)
    return more / max(run.streams, 1)


def _memory(run: Seen) -> str:
    return f"{grown(run) / 1000:.0f} after {run.age:.0f} deltas"


def others(run: Seen) -> float:
    """Return what all else on the machine took, of one core."""
    return CORES - (run.idle + sum(run.cpu.values())) / (run.seconds or 1)


def beside_row(via: str, runs: Sequence[Seen]) -> list[str]:
    """Return the cells of `BESIDE`: the percent of one core that everyone took."""
    busy = [percent(sum(_share(runs, name) for name in _OURS)), *[percent(_share(runs, name)) for name in _BESIDE]]
    sums = [f"{sum(each)}" for each in zip(*[(run.lost, run.late, run.cut) for run in runs], strict=True)]
    return [via, *busy, percent(median(map(others, runs))), *sums]


def _remarks(scenario: Scenario, runs: Sequence[Seen], found: Verdict) -> list[str]:
    remarks = [f"**{found.value}**"] if found.value else []
    remarks += [f"{name} full" for name in ("simulator", "load") if _share(runs, name) > BUSY]
    if found is not Verdict.SOUND and _share(runs, "idle") < 0.05 * CORES:
        remarks.append("machine full")
    if unready := scenario.streams - min(run.streams for run in runs):
        remarks.append(f"{unready} streams had not begun")
    if lost := sum(run.lost for run in runs):
        remarks.append(f"{lost} streams lost")
    return remarks


def percentile(samples: Iterable[float], share: float) -> float:
    """Return the value that *share* of *samples* do not exceed; nan if there are none."""
    ordered = sorted(samples)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else float("nan")


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the median, and from where to where they go."""
    if not values:
        return ""
    text = f"{median(values):.{digits}f}"
    return f"{text} [{min(values):.{digits}f}–{max(values):.{digits}f}]" if len(values) > 1 else text


def percent(share: float) -> str:
    """Return a share of one core in words."""
    return f"{max(0.0, share) * 100:.0f} %"


def table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    cells = [list(names), ["---"] * len(names), *map(list, lines)]
    return "\n".join(f"| {' | '.join(each)} |" for each in cells)
