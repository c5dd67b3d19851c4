"""What `--quick` makes of what was measured: instructions decide where there are any, and CPU time elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.benchmarks import baseline
from tests.benchmarks.compare import Played
from tests.benchmarks.plan import Scenario, Seen
from tests.benchmarks.report import CORES

_CPU_ONLY = """
[ratio]
"service, 200 × 50/s" = 2.0
"service time:50, 50 × 500/s" = 2.0
"""
_BOTH = f"""{_CPU_ONLY}
[instructions]
"service, 200 × 50/s" = 3.0
"service time:50, 50 × 500/s" = 3.0
"""


def run(cpu: float, instructions: float, *, busy: bool = False, lost: int = 0) -> Seen:
    """A second of 1,000 deltas that took *cpu* and *instructions* as many as nginx; 0 instructions: not counted."""
    seen = Seen(1.0, deltas=1000, cpu={"via": cpu * 0.01}, lost=lost, idle=CORES - cpu * 0.01 - (0.5 if busy else 0.0))
    if instructions:
        seen.instructions, seen.counted = {"via": instructions * 2e7, "simulator": 1e9}, 500
    return seen


class Bench:
    """Plays *runs*, one list after another and the last one for ever, and notes how many rounds were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, recorded: str, *runs: Seen, why: str = "") -> None:
        self.rounds: list[int] = []
        self._runs = list(runs)
        self._counted = not why
        (path / "baseline.toml").write_text(recorded)
        monkeypatch.setattr(baseline, "RECORDED", path / "baseline.toml")
        monkeypatch.setattr(baseline, "unavailable", lambda: why)
        monkeypatch.setattr(baseline, "compare", self._compare)
        monkeypatch.setattr(baseline, "PAIRS", baseline.PAIRS[:2])

    def _compare(self, scenario: Scenario, names: Sequence[str]) -> Played:
        self.rounds.append(scenario.rounds)
        seen = self._runs.pop(0) if len(self._runs) > 1 else self._runs[0]
        first, second = names
        nginx = run(1, float(self._counted))
        return Played(scenario, {first: [nginx] * scenario.rounds, second: [seen] * scenario.rounds})


def verdicts(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The last column of the printed table."""
    return [line.split(" | ")[-1].removesuffix(" |") for line in capsys.readouterr().out.splitlines()[2:]]


@pytest.mark.parametrize(
    ("seen", "well", "verdict", "rounds"),
    [
        (run(2.0, 3.0), True, "fine, by instructions", [3, 3]),
        (run(2.7, 3.8), True, "fine, by instructions; slower, and not by them: the machine", [3, 3]),
        (run(2.0, 2.2, busy=True), True, "fine, by instructions; the machine was busy", [3, 3]),
        (run(2.0, 4.0, busy=True), False, "**regressed**: instructions above 3.90", [3, 3, 3, 3]),
        (run(2.0, 4.0), False, "**regressed**: instructions above 3.90", [3, 3, 3, 3]),
        (run(2.0, 2.2), True, "fine, by instructions; better: record it with --record", [3, 3]),
        (run(1.5, 3.0, lost=2), False, "6 streams lost", [3, 3, 3, 3]),
    ],
)
def test_instructions_decide_where_they_are_counted(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    seen: Seen,
    well: bool,
    verdict: str,
    rounds: list[int],
) -> None:
    """Above 1.3 times the recorded ones it fails, after a second try; more CPU time alone is remarked upon."""
    bench = Bench(monkeypatch, tmp_path, _BOTH, seen)
    assert baseline.check() is well
    assert verdicts(capsys) == [verdict, verdict]
    assert bench.rounds == rounds


@pytest.mark.parametrize(("recorded", "why"), [(_BOTH, "not permitted"), (_CPU_ONLY, "")])
@pytest.mark.parametrize(
    ("cpu", "busy", "well", "verdict"),
    [
        (2.5, False, True, "fine, by CPU"),
        (2.5, True, True, "fine, by CPU; the machine was busy"),
        (2.7, False, False, "**regressed**: CPU above 2.60"),
        (2.7, True, False, "**regressed**: CPU above 2.60; the machine was busy"),
    ],
)
def test_cpu_time_decides_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recorded: str,
    why: str,
    cpu: float,
    busy: bool,
    well: bool,
    verdict: str,
) -> None:
    """Without counters here, or instructions in the record, CPU time decides, over all rounds."""
    bench = Bench(monkeypatch, tmp_path, recorded, run(cpu, 0.0 if why else 3.0, busy=busy), why=why)
    assert baseline.check() is well
    assert verdicts(capsys) == [verdict, verdict]
    assert bench.rounds == ([5, 4] if well else [5, 5, 4, 4])


def test_what_regressed_once_only_has_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pair is played a second time before a regression is believed."""
    bench = Bench(monkeypatch, tmp_path, _BOTH, run(2.0, 9.0), run(2.0, 3.0))
    assert baseline.check()
    assert verdicts(capsys) == ["fine, by instructions"] * 2
    assert bench.rounds == [3, 3, 3]


def test_what_is_not_recorded_is_not_fine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty record fails, and says how to fill it."""
    Bench(monkeypatch, tmp_path, "", run(2.0, 3.0))
    assert not baseline.check()
    assert verdicts(capsys) == ["not recorded: see --record"] * 2


@pytest.mark.parametrize("why", ["", "not permitted"])
def test_what_is_recorded_is_what_is_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str) -> None:
    """A record keeps the CPU time, over all rounds, and the instructions, if they are counted; and then all is fine."""
    bench = Bench(monkeypatch, tmp_path, "", run(2.345, 0.0 if why else 3.456), why=why)
    assert baseline.record()
    assert bench.rounds == [5, 4]
    keys = ("service, 200 × 50/s", "service time:50, 50 × 500/s")
    recorded = baseline.Record.read()
    assert recorded.cpu == {key: pytest.approx(2.345, abs=0.01) for key in keys}
    assert recorded.instructions == ({} if why else {key: pytest.approx(3.456, abs=0.01) for key in keys})
    assert baseline.check()


def test_a_busy_machine_is_not_recorded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What others disturbed leaves the record as it is."""
    Bench(monkeypatch, tmp_path, _BOTH, run(2.0, 3.0, busy=True))
    assert not baseline.record()
    assert (tmp_path / "baseline.toml").read_text() == _BOTH


@pytest.mark.parametrize(
    ("cpu", "well"), [([2.0, 2.1, 3.0, 3.0, 3.0], True), ([2.7, 2.7, 3.0, 3.0, 3.0], False), ([2.5], True)]
)
def test_disturbed_rounds_do_not_decide(cpu: list[float], well: bool) -> None:
    """Without counters, what disturbs some rounds makes those dearer; what is wrong with the code makes all so."""
    found = baseline.Ratio("service", "200 × 50/s", cpu)
    assert baseline.judge(found, baseline.Record({found.key: 2.0}))[0] is well


@pytest.mark.parametrize(("cpu", "well"), [(14.0, True), (16.0, False)])
def test_a_request_has_a_tolerance_of_its_own(cpu: float, well: bool) -> None:
    """What a request costs is checked, too, more generously: it moves more with what else the machine does."""
    [pair] = [pair for pair in baseline.PAIRS if pair.scenario.answers]
    found = baseline.Ratio(pair.name, pair.scenario.load, [cpu], tolerance=pair.tolerance)
    assert found.key == "service, 20 at once, 3 deltas each"
    assert baseline.judge(found, baseline.Record({found.key: 10.0}))[0] is well
