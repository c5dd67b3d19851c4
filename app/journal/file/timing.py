"""How long the journal on disk waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """All times are in seconds."""

    # From the beginning of one commit to the next, while there is always something to write. A third less makes a delta
    # a tenth dearer under load (`tests/README.md`).
    commit: float = 0.003
    # A commit that takes longer counts as a failure of the disk; it goes on nevertheless.
    slow: float = 5.0
    # How long a stream that is given up waits for a note of that, before its readers are told; and how long the
    # committer waits for the removal of such notes.
    note: float = 1.0
    # The committer's pause between two tries while the disk refuses. It doubles from the first to the last.
    first_pause: float = 0.05
    last_pause: float = 1.0

    # How long an ended stream stays in memory, too: readers that were cut off at its end come back soon.
    ended_nearby: float = 30.0
    # Between two looks for what can be deleted; and half of how long records stay in batches at most, moved or not.
    sweep: float = 1.0
    moved: float = 10.0
    # Between two looks for accounts whose day is over.
    accounts: float = 600.0
    # How soon after a deletion its zeros are in the file.
    erased: float = 8.0

    # How long a process that ends waits for its last records to be written. The next one moves them.
    flush: float = 5.0
    # How long it waits then for the file to be closed, which a disk that hangs does not let it do.
    close: float = 5.0
    # The pause before a loop that crashed begins again.
    restart: float = 0.5


USUAL = Timing()
