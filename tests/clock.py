"""A clock that a test sets."""

from __future__ import annotations


class Clock:
    """Stands for `time.time` or `time.monotonic`: calling it returns *now*, in seconds."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
