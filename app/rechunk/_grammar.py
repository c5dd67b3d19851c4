"""Parts of the patterns by which the description of the API says how a request writes a cut (ECMA 262)."""

from __future__ import annotations

MS = "(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|60000)"
BOUND = f"(?:,{MS}ms)?"
