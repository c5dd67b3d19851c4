"""The simulator and the service of tests/real/."""

from tests.real.conftest import impatient, simulator

__all__ = ["impatient", "simulator"]
