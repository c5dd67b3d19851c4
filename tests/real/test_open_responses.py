"""Open Responses: what its compliance suite asks is answered as its specification says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.frameworks import forecasting, run
from tests.real.processes import Server

pytestmark = pytest.mark.real

CALL = "response.function_call_arguments"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forecasting(tmp_path_factory.mktemp("service")) as server:
        yield server


@pytest.fixture(scope="module")
def answers(service: Server) -> dict[str, dict[str, Any]]:
    return run("frameworks", "open_responses", url=f"{service.url}/v1")


def test_the_specification(answers: dict[str, dict[str, Any]]) -> None:
    """Each response and each event has the form that the specification gives it, and each response is completed."""
    assert len(answers) == 7
    for request, answer in answers.items():
        assert answer["errors"] == [], json.dumps([request, answer])
        assert answer["status"] == "completed", request


def test_what_is_answered(answers: dict[str, dict[str, Any]]) -> None:
    """Text is a message; a tool is called, with its arguments in pieces if they are streamed."""
    for request, answer in answers.items():
        assert answer["output"] == (["function_call"] if "tool" in request else ["message"]), request
    events = answers["tool, streaming"]["events"]
    assert events[0] == "response.created"
    assert [event for event in dict.fromkeys(events) if event.startswith(CALL)] == [f"{CALL}.delta", f"{CALL}.done"]
