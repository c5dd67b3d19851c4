"""Python's frameworks before the service: nothing is set but the base URL.

Each has a script in clients/, which asks for a stream, has a tool called, asks for a structured output, and for a model
that fails. They run with a Python of their own, because they ask for many packages, and for another version of openai.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.real.frameworks import ask, check, forecasting
from tests.real.processes import Server

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with forecasting(tmp_path_factory.mktemp("service")) as server:
        yield server


@pytest.mark.parametrize(
    ("script", "actions", "error"),
    [
        ("pydantic_ai", 10, "ModelHTTPError"),
        ("instructor", 4, "InstructorRetryException"),
        ("llm", 4, "RateLimitError"),
        ("smolagents", 4, "RateLimitError"),
        ("haystack", 7, "RateLimitError"),
    ],
)
def test_framework(service: Server, impatient: Server, script: str, actions: int, error: str) -> None:
    """It streams, counts tokens, runs a tool and goes on, has its structured output, and raises its class of error."""
    found = ask("frameworks", script, service, impatient)
    assert len(found) == actions
    check(found, error)
