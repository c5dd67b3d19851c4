"""The fixtures of the tests with real processes."""

from __future__ import annotations

from tests.real.conftest import processes, start_service

__all__ = ["processes", "start_service"]
