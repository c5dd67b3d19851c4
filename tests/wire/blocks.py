"""The blocks of the dialects whose events have no names."""

from __future__ import annotations

import re

_BLOCK = re.compile(r"data: ([^\n]+)\nid: ([^\n]+)")


def blocks(data: bytes) -> list[tuple[str, str]]:
    """Return the data and the id of each block, which are all that is in it."""
    *found, end = data.decode().split("\n\n")
    assert end == ""
    matches = [_BLOCK.fullmatch(block) for block in found]
    assert all(matches), data
    return [(match[1], match[2]) for match in matches if match]
