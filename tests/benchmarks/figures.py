"""What a table of loads does not show: how many streams a core holds, and what leaving, coming back and idling cost."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from tests.benchmarks.compare import LOADS, Played, compare
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.plan import Scenario, Seen, Task
from tests.benchmarks.report import (
    CORES,
    Verdict,
    behind,
    cost,
    fullest,
    grown,
    instructions,
    percent,
    percentile,
    ratios,
    spread,
    table,
)
from tests.benchmarks.stage import DIRECT, Stage, stage

_TARDY = 50.0  # milliseconds, from the upstream's clock to the reader: what p99 may not exceed where streams are "held"
_MOST = 1600  # streams that are tried
_FINE = 0.1  # how finely their number is looked for
_BACKGROUNDS = ("20", "200", "1000")
_AT_ONCE = (20, 200)
_REQUESTS = Scenario("requests", 20, answers=3, ramp=0.0, settle=1.0, window=4.0, probing=0.0)
_IDLE = Scenario("idle", 1000, ramp=5.0, settle=1.0, window=20.0)
_MEMORY = Scenario("memory", 50, rate=200, ramp=0.5, settle=0.5, window=8.0)


@dataclass(frozen=True, slots=True)
class Figure:
    """A table with its title, and what is to be known of it; *played* is what can be kept of it as results."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: str = ""
    played: Sequence[Played] = ()

    def text(self) -> str:
        """The figure in Markdown."""
        return f"### {self.title}\n\n{table(self.columns, self.rows)}\n" + (f"\n{self.notes}\n" if self.notes else "")


def requests(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """What a short answer costs. Those that are *excused* because deltas come late are asked as well."""
    rows, everything = [], []
    for streams in _AT_ONCE:
        played = compare(replace(_REQUESTS, streams=streams), names)
        everything.append(played)
        first = next(iter(played.runs))
        for name, runs in played.runs.items():
            latency = [median(percentile(run.first_token, share) for run in runs) for share in (0.5, 0.99)]
            own = [] if name == DIRECT else runs
            rows.append(
                [
                    name,
                    f"{streams}",
                    f"{median(run.deltas / (run.seconds or 1) for run in runs):,.0f}",
                    spread([cost(run) for run in own], 0),
                    "" if name == first else spread(ratios(own, played.runs[first])),
                    spread([*filter(None, map(instructions, own))], 0),
                    " / ".join(f"{each:.1f}" for each in latency),
                    percent(fullest(runs)[1]),
                    f"{sum(run.lost for run in runs)}",
                ]
            )
        rows += [[name, f"{streams}", *[""] * 6, why] for name, why in played.missing.items()]
    return Figure(
        f"Answers of {_REQUESTS.answers} deltas, {_REQUESTS.rate:g} a second, over a new connection each",
        (
            "via",
            "at once",
            "requests/s",
            "CPU a request, µs",
            "× the first",
            "k instructions a request",
            "first token p50 / p99, ms",
            "fullest process",
            "lost",
        ),
        rows,
        "Each client asks again once it has its answer. Where the fullest process takes a whole core, no more\n"
        "requests a second are possible, and they wait for it; it may be the simulator or the load client.",
        everything,
    )


def hold(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """How many streams of 50 deltas a second one core holds, by doubling and halving."""
    rows = []
    for name in names:
        with stage(CONTENDERS[name]) as ready:
            rows.append([name, _held(ready, name)])
    return Figure(
        f"Streams of 50 deltas a second that a core holds with p99 under {_TARDY:.0f} ms",
        ("via", "streams"),
        rows,
        "The contender has a core to itself; the simulator and the load client have the others. p99 is of the whole\n"
        "way, from upstream's clock to the reader.",
    )


def _held(ready: Stage, name: str) -> str:
    good, bad, streams = 0, 0, 20
    while name in ready.names:
        results = [_holds(ready, name, streams)]
        if results[0] is Verdict.SATURATED:
            results.append(_holds(ready, name, streams))  # once more, as others may have been at work
        print(f"hold: {name}, {streams} streams, {results[-1].value or 'held'}", file=sys.stderr)
        if Verdict.SOUND in results:
            good = streams
        elif Verdict.UNSOUND in results:
            return f"≥ {good} (what measures was full at {streams})"
        else:
            bad = streams
        if not bad:
            if streams >= _MOST:
                return f"≥ {good}"
            streams = min(2 * streams, _MOST)
        elif bad - good <= max(2, _FINE * good):
            return f"{good}" if good else f"fewer than {bad}"
        else:
            streams = (good + bad) // 2
    return ready.missing[name]


def _holds(ready: Stage, name: str, streams: int) -> Verdict:
    if name not in ready.names:
        return Verdict.SATURATED  # it broke
    scenario = Scenario("hold", streams, ramp=max(0.4, streams / 250), settle=0.5, window=3.0, probing=0.2, probes=2)
    with ready.alone_on_a_core(name):
        seen = ready.play(scenario, name)
    on_time = not behind(scenario, [seen]) and percentile(seen.one_way, 0.99) < _TARDY
    if on_time and not seen.lost:
        return Verdict.SOUND
    rest = (seen.cpu.get("simulator", 0.0) + seen.cpu.get("load", 0.0)) / (seen.seconds or 1)
    return Verdict.UNSOUND if rest > 0.93 * max(1, CORES - 1) else Verdict.SATURATED


def abort(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """How long after its reader left a stream is cut upstream."""

    def cell(seen: Seen) -> str:
        if seen.late and not seen.samples:
            return "not within 12 s"
        return _times(seen) + (", then once not within 12 s" if seen.late else "")

    return Figure(
        "From the reader's leaving to upstream's being cut, ms: p50 / most",
        ("via", *[f"beside {LOADS[load].load}" for load in _BACKGROUNDS]),
        _beside(names, excused, "abort", cell),
        "The service runs with `on_disconnect: cancel`; its default is to wait 10 s for the reader to come back.",
    )


def resume(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """How long 10,000 records take who comes back for them; only the service has any to give."""
    able = [name for name in names if CONTENDERS[name].resumes]
    return Figure(
        "To resume a stream of 10,000 records, ms: p50 / most",
        ("via", *[f"beside {LOADS[load].load}" for load in _BACKGROUNDS]),
        _beside(able, excused, "resume", _times),
        "From the request on an open connection to the terminal event. No other contender can.",
    )


def _times(seen: Seen) -> str:
    if seen.lost or not seen.samples:
        return "failed"
    return f"{median(seen.samples):.1f} / {max(seen.samples):.1f}"


def _beside(
    names: Sequence[str], excused: Mapping[str, str], task: Task, cell: Callable[[Seen], str]
) -> list[list[str]]:
    """Do *task* among the streams of each of the loads. Those *excused* are asked at the least only."""
    rows = []
    for name in names:
        row = [name]
        with stage(CONTENDERS[name]) as ready:
            for load in _BACKGROUNDS[: 1 if name in excused else None]:
                if name in ready.names:
                    print(f"{task}: {name} beside {load}", file=sys.stderr)
                    row.append(cell(ready.play(replace(LOADS[load], settle=0.3), name, task)))
                else:
                    row.append(ready.missing[name])
        rows.append(row + [excused.get(name, "")] * (1 + len(_BACKGROUNDS) - len(row)))
    return rows


def idle(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """What 1,000 streams cost that say nothing."""
    rows = []
    for name in names:
        with stage(CONTENDERS[name]) as ready:
            if name not in ready.names:
                rows.append([name, ready.missing[name], ""])
                continue
            print(f"idle: {name}", file=sys.stderr)
            seen = ready.play(_IDLE, name, "idle")
        share = sum(seen.cpu.get(each, 0.0) for each in ("via", "reader")) / (seen.seconds or 1)
        short = "" if seen.streams == _IDLE.streams else f" (only {seen.streams} had begun)"
        rows.append([name, f"{share * 100:.2f} %{short}", f"{grown(seen) / 1000:.0f}"])
    return Figure(f"{_IDLE.streams:,} open streams that say nothing", ("via", "CPU, of one core", "KB a stream"), rows)


def memory(names: Sequence[str], excused: Mapping[str, str]) -> Figure:
    """What a stream takes whose reader reads, and one whose reader does not."""
    rows = []
    tasks: tuple[Task, ...] = ("memory", "paused")
    for name in names:
        row = [name]
        for task in tasks:
            with stage(CONTENDERS[name]) as ready:
                if name not in ready.names:
                    row.append(ready.missing[name])
                    continue
                print(f"{task}: {name}", file=sys.stderr)
                seen = ready.play(_MEMORY, name, task)
                sent = seen.samples[0] if seen.samples else 0
                row.append(f"{grown(seen) / 1000:.0f} after {sent:.0f} deltas" if sent else "failed")
        rows.append(row)
    return Figure(
        f"Memory of a stream, KB ({_MEMORY.load}, {_MEMORY.ramp + _MEMORY.settle + _MEMORY.window:.0f} s)",
        ("via", "its reader reads", "its reader is paused"),
        rows,
        "Resident size over that before, in a fresh process each; deltas are those that upstream got rid of. The\n"
        "service keeps an answer for who comes back; the others keep what they cannot deliver, or stop reading.",
    )


FIGURES: Mapping[str, Callable[[Sequence[str], Mapping[str, str]], Figure]] = {
    "requests": requests,
    "hold": hold,
    "abort": abort,
    "resume": resume,
    "idle": idle,
    "memory": memory,
}
