"""Results are kept in a file, run by run, and only those of one session together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main
from tests.benchmarks.compare import Played
from tests.benchmarks.plan import Scenario, Seen
from tests.benchmarks.results import Session, results
from tests.benchmarks.stage import DIRECT

LOAD = Scenario("many", 200)
ANSWERS = Scenario("requests", 20, answers=3)


def seen(cpu: float, latency: float, *, deltas: int = 10_000, client: float = 0.2) -> Seen:
    """Return a run of a second in which a contender took *cpu* seconds, and its load client took *client*."""
    shares = {"via": cpu, "load": client}
    return Seen(1.0, deltas, 200, cpu=shares, idle=1.0, one_way=[latency], first_token=[latency])


def played(scenario: Scenario, **runs: Seen) -> Played:
    return Played(scenario, {name: [run] for name, run in runs.items()} | {DIRECT: [seen(0.0, 0.5)]})


def test_a_delta() -> None:
    """A delta's cost is relative to nginx's, and its latency is what was added to that with nothing in between."""
    nginx, service = results(played(LOAD, nginx=seen(0.2, 0.7), service=seen(0.5, 1.5)))
    assert (nginx.via, nginx.cost, nginx.ratios, nginx.ratio) == ("nginx", [20.0], [], 1.0)
    assert (service.cost, service.ratios, service.p50, service.remark) == ([50.0], [2.5], [1.0], "")


def test_an_answer() -> None:
    """An answer's latency is the whole time to its first token. Who was full, if anything was, is said."""
    runs = {"nginx": seen(0.4, 0.7, deltas=4000, client=0.97), "service": seen(0.99, 1.5, deltas=2000)}
    nginx, service = results(played(ANSWERS, **runs))
    assert (nginx.rate, nginx.cost, nginx.p50, nginx.remark) == (4000, [100.0], [0.7], "full: load")
    assert (service.rate, service.cost, service.ratios, service.remark) == (2000, [495.0], [4.95], "full: via")


def test_runs_of_a_session_are_put_together(tmp_path: Path) -> None:
    """A later run adds its contenders to the file, and replaces those that were kept for the same load."""
    path = tmp_path / "results.jsonl"
    Session.resumed(path).keep([played(LOAD, nginx=seen(0.2, 0.7), service=seen(0.6, 1.5))], path)
    Session.resumed(path).keep([played(LOAD, nginx=seen(0.1, 0.7), redis=seen(0.3, 1.5))], path)
    Session.resumed(path).keep([played(ANSWERS, nginx=seen(0.2, 0.7))], path)
    kept = Session.read(path)
    assert [(each.load, each.via, each.ratio) for each in kept.results] == [
        ("200 × 50/s", "nginx", 1.0),
        ("200 × 50/s", "service", 3.0),
        ("200 × 50/s", "redis", 3.0),
        ("20 at once, 3 deltas each", "nginx", 1.0),
    ]
    assert kept.results[0].cost == [10.0]
    assert "| service | 10,000 | 3.0 |  | 60.0 | 1.0 / 1.0 |  |" in kept.text().splitlines()


def test_sessions_are_not_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Results of another day or machine are in the way of new ones, which is said before anything is played."""
    path = tmp_path / "results.jsonl"
    replace(Session(), machine="another").keep([], path)
    monkeypatch.setattr("tests.benchmarks.__main__.KEPT", path)
    with pytest.raises(SystemExit):
        main(["--keep", "--only", "service"])
    assert "another: remove it to begin another session" in capsys.readouterr().err
