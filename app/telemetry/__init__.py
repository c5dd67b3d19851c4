"""What the service says of itself: logs, metrics, traces. Nothing in here is on the hot path."""

from __future__ import annotations

from app.telemetry.logs import configure, shows_colors

__all__ = ["configure", "shows_colors"]
