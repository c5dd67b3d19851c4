"""What the runs of a scenario come to: medians with their spread, ratios of paired runs, a warning where it is due.

- *CPU a delta*: processor time of the process tree in the window, over the deltas the client got in it; of two
  services, both. Its ratio to what is first in the table is taken between runs of the same round, because the
  machine's speed drifts.
- *added one-way*: percentile of the time from the simulator's stamp to the client's read, less the same percentile with
  nothing in between. *Added to the first token*: likewise, from request to first delta on an open connection, with
  no delay upstream, while the other streams run.
- *memory*: the resident size at the window's end less that before the scenario's first request, per live stream. From
  the first round only: what was once touched stays resident. It grows with the answer, which a stream keeps to its end.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain
from math import ceil
from pathlib import Path
from statistics import median

from tests.benchmarks.plan import Scenario, Seen, Via

_CORES = os.cpu_count() or 1
_BUSY = 0.93  # of one core: what a process of one thread cannot exceed for long
_BEHIND = 0.97  # of the deltas asked for
_WATCHED = ("via", "reader", "redis", "simulator", "load")


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario via one way, in cells."""

    cost: Sequence[str]
    beside: Sequence[str]
    lost: int


def rows(scenario: Scenario, played: dict[Via, list[Seen]]) -> list[Row]:
    """Return a row for each way that was *played*: the one all are compared with first, nothing in between last."""
    return [_row(scenario, via, played) for via, runs in played.items() if runs]


def _row(scenario: Scenario, via: Via, played: dict[Via, list[Seen]]) -> Row:
    runs = played[via]
    remark = _remark(scenario, via, runs)
    remarks = [remark, *(_remark(scenario, "direct", [run]) for run in played["direct"])]
    sound = not any("saturated" in each or "behind" in each for each in remarks)
    cost = [scenario.name, f"{scenario.streams} × {scenario.rate:g}/s", via]
    first = next(iter(played))
    if via == "direct":
        cost += ["", "", "", ""]
    else:
        costs = [_cost(run) for run in runs]
        cost += [_spread(costs), ""]
        if via != first:
            cost[-1] = _spread([mine / _cost(other) for mine, other in zip(costs, played[first], strict=False)])
        cost += [_spread([_cost(run, name) for run in runs if name in run.cpu]) for name in ("reader", "redis")]
        if not sound:
            cost[3:] = [f"({cell})" if cell else "" for cell in cost[3:]]
    for samples in (_one_way, _first_token):
        cost.append(_latency(samples, via, played) if sound else "–")
    cost.append(_memory(runs[0]) if via != "direct" else "")
    return Row(cost, [*cost[:3], *_beside(scenario, runs), remark], sum(run.lost for run in runs))


def _cost(run: Seen, *names: str) -> float:
    """Microseconds of processor time a delta, of the service or proxy, or of the processes called *names*."""
    return sum(run.cpu.get(name, 0.0) for name in names or ("via", "reader")) / max(run.deltas, 1) * 1e6


def _one_way(run: Seen) -> list[float]:
    return run.one_way


def _first_token(run: Seen) -> list[float]:
    return run.first_token


def _latency(samples: Callable[[Seen], list[float]], via: Via, played: dict[Via, list[Seen]]) -> str:
    """Median over the rounds of p50 and of p99; for first tokens, of which there are few, all rounds are one."""
    cells = []
    for share in (0.5, 0.99):
        through, direct = (
            [percentile(list(chain.from_iterable(map(samples, played[each]))), share)]
            if samples is _first_token
            else [percentile(samples(run), share) for run in played[each]]
            for each in (via, "direct")
        )
        if via == "direct":
            cells.append(f"{median(through):.1f}")
        else:
            cells.append(_spread([each - median(direct) for each in through]))
    return " / ".join(cells) + (" in all" if via == "direct" else "")


def _memory(run: Seen) -> str:
    grown = sum(run.rss[name] - run.idle_rss[name] for name in ("via", "reader") if name in run.rss)
    return f"{grown / max(run.streams, 1) / 1000:.0f} after {run.age:.0f} deltas"


def _beside(scenario: Scenario, runs: Sequence[Seen]) -> list[str]:
    """Return what came of what was asked for, and the percent of one core that everyone took."""
    rate = median(run.deltas / run.seconds for run in runs)
    busy = [_percent([run.cpu.get(name, 0.0) / run.seconds for run in runs]) for name in _WATCHED]
    others = _percent([_CORES - (run.idle + sum(run.cpu.values())) / run.seconds for run in runs])
    lost, late = sum(run.lost for run in runs), sum(run.late for run in runs)
    return [f"{rate:,.0f} of {scenario.streams * scenario.rate:,.0f}", *busy, others, f"{lost}", f"{late}"]


def _remark(scenario: Scenario, via: Via, runs: Sequence[Seen]) -> str:
    remarks = [
        f"{via if name == 'via' else name} saturated"
        for name in _WATCHED
        if median(run.cpu.get(name, 0.0) / run.seconds for run in runs) > _BUSY
    ]
    if median(run.idle / run.seconds for run in runs) < 0.05 * _CORES:
        remarks.append("machine saturated")
    if median(run.deltas / run.seconds for run in runs) < _BEHIND * scenario.streams * scenario.rate:
        remarks.append("behind")
    if unready := scenario.streams - min(run.streams for run in runs):
        remarks.append(f"{unready} streams had not begun")
    return ", ".join(remarks)


def percentile(samples: Iterable[float], share: float) -> float:
    """Return the value that *share* of *samples* do not exceed; nan if there are none."""
    ordered = sorted(samples)
    return ordered[max(0, ceil(share * len(ordered)) - 1)] if ordered else float("nan")


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    text = f"{median(values):.1f}"
    return f"{text} [{min(values):.1f}–{max(values):.1f}]" if len(values) > 1 else text


def _percent(shares: Iterable[float]) -> str:
    return f"{max(0.0, median(shares)) * 100:.0f} %"


def head() -> str:
    """Return when, where and with what this was measured."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?"
    )
    nginx = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr
    parts = ("chat-sse", "uvicorn", "uvloop", "sse-starlette", "starlette", "httpx", "aiohttp", "orjson")
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {_CORES} × {model}, Linux {platform.release()},"
        f" Python {platform.python_version()}, nginx {nginx.strip().rpartition('/')[2]},"
        f" {', '.join(f'{name} {version(name)}' for name in parts)}"
    )


def tables(found: Sequence[Row]) -> str:
    """Return the Markdown."""
    way = ["scenario", "streams", "via"]
    cost = [
        "CPU a delta, µs",
        "× the first",
        "of that, where it is read",
        "redis-server beside it",
        "added one-way p50 / p99, ms",
        "added to first token p50 / p99, ms",
        "KB a stream",
    ]
    beside = ["deltas/s", "CPU of it", "where it is read", "redis-server", "simulator", "load client", "others", "lost"]
    beside += ["late", "remark"]
    return (
        f"{_table([*way, *cost], [row.cost for row in found])}\n\n"
        "Medians [lowest–highest of the rounds]. In parentheses, or left out: not to be trusted, as something was\n"
        "saturated or behind, which merges deltas and makes queues. What ran beside it, in percent of one core:\n\n"
        f"{_table([*way, *beside], [row.beside for row in found])}"
    )


def _table(names: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    cells = [list(names), ["---"] * len(names), *map(list, lines)]
    return "\n".join(f"| {' | '.join(each)} |" for each in cells)
