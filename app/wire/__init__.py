"""How records look on the wire. Adding a dialect is adding one file.

Plain synchronous code: batches of records in, bytes out. A dialect never splits a block over two returns, so that a
keep-alive sent between two of them cannot fall into the middle of one.
"""

from __future__ import annotations

from typing import Protocol

from app.model import Batch


class Encoder(Protocol):
    """The state of one response in one dialect."""

    def __call__(self, batch: Batch) -> bytes:
        """Return the bytes that carry *batch*; whole blocks only."""
        ...
