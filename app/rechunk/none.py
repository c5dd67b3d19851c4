"""`none`: one event for each delta of the upstream."""

from __future__ import annotations

from app.rechunk._grammar import Cut
from app.rechunk._rechunker import Rechunker

CUT = Cut(lambda number, max_delay: Rechunker())
