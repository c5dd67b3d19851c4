"""Settings come from the environment, so each test here has a clean one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from app.composition.settings import PREFIX


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Remove the variables of the person who runs the tests, and do not read their `.env`."""
    for name in list(os.environ):
        if name.startswith((PREFIX, "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
