"""Chromium, the simulator and the service of tests/real/."""

from tests.real.conftest import browser, impatient, simulator

__all__ = ["browser", "impatient", "simulator"]
