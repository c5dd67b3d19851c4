"""CopilotKit: its runtime before the service, and its core, which its React components use, before the runtime."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.offline import ENVIRONMENT
from tests.clients.packages import package
from tests.real.frameworks import forecasting
from tests.real.node import NODE
from tests.real.processes import Server

pytestmark = pytest.mark.real

SCRIPT = Path(__file__).parent / "copilotkit.cjs"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forecasting(tmp_path_factory.mktemp("service")) as server:
        yield server


def ask(service: Server, agent: str, model: str) -> dict[str, Any]:
    modules = package("@copilotkit/runtime@1.75.0", "@ag-ui/client@1.0.0").parent
    env = {**os.environ, **ENVIRONMENT, "NODE_PATH": str(modules), "COPILOTKIT_TELEMETRY_DISABLED": "true"}
    plan = {"url": service.url, "agent": agent, "model": model, "prompt": "Rome?"}
    command = [NODE, str(SCRIPT), json.dumps(plan)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("agent", ["ag-ui", "openai"])
def test_a_tool(service: Server, agent: str) -> None:
    """The page's tool is called, and its output answered, by an `HttpAgent` and by CopilotKit's own agent."""
    assert ask(service, agent, "m") == {"text": "It is 21 degrees.", "called": ["Rome"], "error": None}


@pytest.mark.parametrize("agent", ["ag-ui", "openai"])
def test_a_failure(impatient: Server, agent: str) -> None:
    """The page is told what the upstream said."""
    error = ask(impatient, agent, "error-429")["error"]
    assert error["code"] == "agent_run_error_event"
    assert "Rate limit reached" in error["message"]
