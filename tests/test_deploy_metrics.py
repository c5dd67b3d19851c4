"""The dashboard and the alert rules in deploy/: they parse, and ask for nothing that the service does not say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from structlog.typing import FilteringBoundLogger

from app import errors
from app.composition.service import compose
from app.composition.settings import load
from app.telemetry.instruments import INSTRUMENTS

pytestmark = pytest.mark.anyio

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
ALERTS = DEPLOY / "alerts.yaml"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
]
# Series in which each of them fires, for `promtool test rules`.
CASES = Path(__file__).parent / "alerts.test.yaml"
FINISH_REASONS = {"stop", "length", "content_filter", "tool_calls", "cancelled", "unknown", "other"}

_NAME = re.compile(r"\b(?:chat_sse|gen_ai|process|python)_\w+")
_MATCHER = re.compile(r'(\w+)(?:=|!=|=~|!~)"([^"]*)"')
_GROUPING = re.compile(r"\b(?:by|on) \(([^)]*)\)")


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def expressions() -> list[str]:
    asked = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    asked += [variable["definition"] for variable in DASHBOARD["templating"]["list"] if "definition" in variable]
    return asked + [rule["expr"] for rule in RULES]


@pytest.fixture
async def families(log: FilteringBoundLogger) -> list[Metric]:
    """What the composed service's `/metrics` shows before it has done anything."""
    async with (
        compose(load(None), log) as service,
        httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://localhost") as client,
    ):
        answer = await client.get("/metrics")
        assert answer.status_code == 200
        return list(text_string_to_metric_families(answer.text))


@pytest.fixture
async def shown(families: list[Metric]) -> dict[str, set[str]]:
    """The names there, each with its label names as far as there are samples."""
    names: dict[str, set[str]] = {}
    for family in families:
        suffixes = {"counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"]}.get(family.type, [""])
        names |= {family.name + suffix: set() for suffix in suffixes}
        for sample in family.samples:
            names[sample.name] |= set(sample.labels)
    for instrument in INSTRUMENTS:
        if instrument.kind != "histogram":
            names[instrument.name] |= set(instrument.labels)
    return names


async def test_names(shown: dict[str, set[str]]) -> None:
    """Every metric that is asked for is in a real scrape, with every label that is asked for."""
    for expression in expressions():
        names = _NAME.findall(expression.replace("$__", ""))
        assert names, expression
        assert set(names) <= set(shown), expression
        labels = {name for name, _ in _MATCHER.findall(expression)}
        labels |= {name.strip() for names in _GROUPING.findall(expression) for name in names.split(",")}
        assert labels <= {"instance"}.union(*(shown[name] for name in names)), expression


async def test_everything_is_on_the_dashboard() -> None:
    """Every metric of the service is shown somewhere: one that is not shown need not be measured."""
    text = json.dumps(DASHBOARD)
    assert [it.name for it in INSTRUMENTS if it.name not in text] == []


def codes(error: type[errors.StreamError]) -> set[str]:
    return {error.code}.union(*map(codes, error.__subclasses__()))


async def test_reasons() -> None:
    """A reason that is asked for is one that there is."""
    known = FINISH_REASONS | codes(errors.StreamError) | {"time", "count", "memory"}
    for expression in expressions():
        for label, value in _MATCHER.findall(expression):
            if label == "reason":
                assert set(value.split("|")) <= known


async def test_rules() -> None:
    """Each rule has a name of its own, a severity, and says what is wrong and what to do."""
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names) >= 8
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert len(rule["annotations"]["summary"]) > 20
        assert len(rule["annotations"]["description"]) > 60
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


async def test_first_times(families: list[Metric]) -> None:
    """What an alert fires for when it happens once is shown as zero before: an increase needs a value to begin with."""
    samples = [sample for family in families for sample in family.samples]
    asked = [
        (name, label, value)
        for rule in RULES
        for name, label, values in re.findall(r'increase\((\w+)\{(\w+)=~?"([^"]*)"\}\[\w+\]\)\) > 0', rule["expr"])
        for value in values.split("|")
    ]
    assert len(asked) >= 8
    missing = [
        it for it in asked if not any(it[0] == sample.name and sample.labels.get(it[1]) == it[2] for sample in samples)
    ]
    assert missing == []


@pytest.mark.real
def test_promtool() -> None:
    """Prometheus' own tool takes the rules; each fires in the series that `CASES` has for it, and in no others."""
    assert shutil.which("promtool"), "apt-get install --no-install-recommends prometheus"
    for command in (("check", "rules", "--lint=all", "--lint-fatal", ALERTS), ("test", "rules", CASES)):
        ran = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr
    tested = re.findall(r'alertname="(\w+)"', CASES.read_text())
    assert {rule["alert"] for rule in RULES} - set(tested) == set()


async def test_settings_in_rules(log: FilteringBoundLogger) -> None:
    """A setting that an alert tells to change exists."""
    fields = {f"CHAT_SSE_{name.upper()}" for name in type(load(None)).model_fields}
    text = (DEPLOY / "alerts.yaml").read_text()
    assert set(re.findall(r"CHAT_SSE_[A-Z_]+", text)) <= fields


async def test_dashboard() -> None:
    """It can be imported: a known schema, a data source to choose, panels with ids and places of their own."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    squares: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in covered) < 24
        assert not squares & covered, panel["title"]
        squares |= covered
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["targets"]
