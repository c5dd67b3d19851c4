"""What waits for the next commit."""

from __future__ import annotations

from app.journal.outbox import Outbox


def test_streams() -> None:
    """A stream with records to send is named once, in the order in which they marked it, and then forgotten."""
    outbox = Outbox()
    for stream_id in "bab":
        outbox.mark(stream_id)
    assert outbox.take_streams() == ["b", "a"]
    assert outbox.take_streams() == []
