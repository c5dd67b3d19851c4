"""A folder on disk for each test."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.typing import FilteringBoundLogger

from tests.journal.file.disk import Disk


@pytest.fixture
def disk(tmp_path: Path, log: FilteringBoundLogger) -> Disk:
    return Disk(tmp_path / "streams", log)
