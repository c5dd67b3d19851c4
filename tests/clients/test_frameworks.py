"""Python's frameworks that are large, or that want openai 2: the same as those of tests/real/test_frameworks.py."""

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
    ("home", "script", "actions", "error"),
    [
        ("frameworks-openai-2", "llama_index", 4, "RateLimitError"),
        ("frameworks-openai-2", "mirascope", 8, "RateLimitError"),
        ("frameworks-large", "semantic_kernel", 4, "ServiceResponseException"),
        ("frameworks-large", "dspy", 3, "LMRateLimitError"),
    ],
)
def test_framework(service: Server, impatient: Server, home: str, script: str, actions: int, error: str) -> None:
    """It streams, counts tokens, runs a tool and goes on, has its structured output, and raises its class of error."""
    found = ask(home, script, service, impatient)
    assert len(found) == actions
    check(found, error)
