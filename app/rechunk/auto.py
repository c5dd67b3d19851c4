"""`auto`: texts that arrived together leave together. Nothing waits. The busier the service, the larger the events."""

from __future__ import annotations

from app.rechunk._grammar import Cut
from app.rechunk._rechunker import Merging

CUT = Cut(lambda number, max_delay: Merging(), merge_after=2)
