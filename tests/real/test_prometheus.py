"""A real Prometheus scrapes two processes under load, as deploy/alerts.yaml says: all rules work, no panel is empty."""

from __future__ import annotations

import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load

from tests.ports import free_port
from tests.real.conftest import Start
from tests.real.processes import Process, Server, log_file
from tests.test_deploy_metrics import ALERTS, DASHBOARD, RULES, panels
from tests.waiting import wait_until

pytestmark = pytest.mark.real

MODELS = """
[[models]]
name = "quick"
route = ["first/sim-gpt?rate=0&first=0"]

[[models]]
name = "flaky"
route = ["first/flaky-503?fail=1&first=0&rate=0&retry_after=0"]

[[models]]
name = "elsewhere"
route = ["away/sim-gpt", "first/sim-gpt?rate=0&first=0"]

[[models]]
name = "endless"
route = ["first/never-ends?rate=50&first=0"]
"""


@pytest.fixture
def services(start_service: Start, start_simulator: Start, tmp_path: Path) -> list[Server]:
    """Two processes with two upstreams, one of which is not there; they keep next to nothing."""
    upstreams = {"first": start_simulator().url, "away": f"http://127.0.0.1:{free_port()}/v1"}
    tables = (f'[[upstreams]]\nname = "{name}"\nbase_url = "{url}"\n' for name, url in upstreams.items())
    config = tmp_path / "upstreams.toml"
    config.write_text("".join(tables) + MODELS)
    settings = {"config": config, "retry_wait": 0.01, "max_kept": 1, "metrics_token": "t" * 32}
    return [start_service(**settings) for _ in range(2)]


@pytest.fixture
def load(services: list[Server]) -> Iterator[None]:
    """Until the test ends, each of *services* answers, asks again, falls back, is resumed, refuses and forgets."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not ended.is_set():
                for service in services:
                    for model in ("quick", "flaky", "elsewhere"):
                        stream_id = _chat(client, service, model).headers["x-stream-id"]
                    position = {"Last-Event-ID": f"{stream_id}-1"}
                    client.get(f"{service.url}/v1/streams/{stream_id}", headers=position)
                    assert _chat(client, service, "none").is_error

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    ended.set()
    thread.join(60)


def _chat(client: httpx.Client, service: Server, model: str) -> httpx.Response:
    return client.post(f"{service.url}/v1/chat", json={"prompt": "hi", "model": model})


class Prometheus(Server):
    """The real one, with the configuration that the head of alerts.yaml shows."""

    def __init__(self, directory: Path, services: list[Server]) -> None:
        binary = shutil.which("prometheus")
        assert binary is not None, "apt-get install --no-install-recommends prometheus"
        said = re.sub(r"^# ?", "", "".join(re.findall(r"^#.*\n", ALERTS.read_text(), re.MULTILINE)), flags=re.MULTILINE)
        config: dict[str, Any] = yaml.safe_load(said[said.index("  scrape_configs:") :])
        [job] = config["scrape_configs"]
        token = directory / "token"
        token.write_text("t" * 32)
        job["authorization"]["credentials_file"] = str(token)
        job["static_configs"][0]["targets"] = [service.url.removeprefix("http://") for service in services]
        config |= {"rule_files": [str(ALERTS)], "global": {"scrape_interval": "500ms", "evaluation_interval": "1s"}}
        path = directory / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        address = self.url.removeprefix("http://")
        options = [f"--config.file={path}", f"--storage.tsdb.path={directory / 'data'}", "--log.level=warn"]
        super().__init__([binary, *options, f"--web.listen-address={address}"], log_file(directory, "prometheus"))
        self._client = httpx.Client(base_url=self.url)

    def ready(self) -> bool:
        assert self.popen.poll() is None, self.text()
        with suppress(httpx.TransportError):
            return self._client.get("/-/ready").status_code == 200
        return False

    def get(self, path: str, **query: str) -> Any:
        answer = self._client.get(f"/api/v1/{path}", params=query).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def values(self, expression: str) -> list[float]:
        """Return what a panel that asks this shows now."""
        asked = expression.replace("$instance", ".*").replace("$__rate_interval", "10s")
        shown = [float(sample["value"][1]) for sample in self.get("query", query=asked)["result"]]
        return [value for value in shown if value == value]  # not a number: a quantile of nothing

    def stop(self) -> None:
        self._client.close()
        super().stop()


@pytest.fixture
def prometheus(services: list[Server], tmp_path: Path, processes: list[Process]) -> Prometheus:
    server = Prometheus(tmp_path, services)
    processes.append(server)
    wait_until(server.ready)
    return server


def test_it_works(prometheus: Prometheus, services: list[Server], load: None) -> None:
    """Every panel shows something, and every rule can be evaluated."""
    instances = {service.url.removeprefix("http://") for service in services}
    choice = re.fullmatch(r"label_values\((\w+), (\w+)\)", _variable("instance")["definition"])
    assert choice is not None
    wait_until(lambda: set(prometheus.get(f"label/{choice[2]}/values", **{"match[]": choice[1]})) == instances)
    silent = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    assert len(silent) > 30

    def all_shown() -> bool:
        silent[:] = [expression for expression in silent if not prometheus.values(expression)]
        return not silent

    _within_a_minute(all_shown, silent)
    assert prometheus.values(f"max({_panel('Ends by reason')})")[0] > 0

    def evaluated() -> bool:
        [group] = prometheus.get("rules")["groups"]
        assert [rule["lastError"] for rule in group["rules"] if rule.get("lastError")] == []
        healthy = [rule["name"] for rule in group["rules"] if rule["health"] == "ok"]
        return healthy == [rule["alert"] for rule in RULES]

    wait_until(evaluated)


def test_a_drain_is_seen(prometheus: Prometheus, services: list[Server]) -> None:
    """A process that drains is still scraped, and the dashboard marks it."""
    [drains] = (it for it in DASHBOARD["annotations"]["list"] if it["name"] == "Draining")
    wait_until(lambda: prometheus.values(f"sum({_panel('Processes')})") == [2])
    assert prometheus.values(drains["expr"]) == []
    answer = httpx.post(
        f"{services[0].url}/v1/chat", json={"prompt": "hi", "model": "endless"}, headers={"Accept": "application/json"}
    )
    assert answer.status_code == 201
    services[0].send(signal.SIGTERM)
    wait_until(lambda: prometheus.values(drains["expr"]) == [1])


def _variable(name: str) -> dict[str, Any]:
    [found] = (it for it in DASHBOARD["templating"]["list"] if it["name"] == name)
    return dict(found)


def _panel(title: str) -> str:
    [found] = (target["expr"] for panel in panels() if panel["title"] == title for target in panel["targets"])
    return str(found)


def _within_a_minute(condition: Callable[[], bool], left: list[str]) -> None:
    try:
        wait_until(condition, timeout=60)
    except AssertionError:
        pytest.fail("\n".join(["These show nothing:", *left]))
