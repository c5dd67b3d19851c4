"""How long the journal in Redis waits, and for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timing:
    """All times are in seconds."""

    # A connection to Redis; and a pipeline: commands there, and all of their replies back.
    connect: float = 2.0
    pipeline: float = 5.0
    # The committer's pause between two tries while Redis is away. It doubles from the first to the last.
    first_pause: float = 0.05
    last_pause: float = 1.0
    # What every process has, once Redis is back, to notice that and to write again what Redis has lost.
    settling: float = 10.0

    # Between two renewals of a process's lease, and between two tries while Redis is away.
    renewal: float = 2.0
    renewal_retry: float = 0.5
    # A lease's life. A process counts as gone when its lease is missing at two renewals in a row.
    lease: float = 10.0

    # A live log's life in Redis; its producer prolongs it four times as often. Without a limit the logs of a process
    # that died would stay for ever.
    live: int = 3600
    # How long an ended log stays in this process's memory too: readers that were cut off at its end come back soon.
    ended_nearby: float = 30.0

    # The life of a slot and of a reservation: those of a process that died are given back after this time.
    slot: int = 30
    # How long a charge that was stored is known, so that it is not charged again if its reply was lost.
    settled: int = 300
    # How long a stream may take to appear after its idempotency key was claimed, and the pause between two looks.
    appearing: float = 2.0
    appearing_pause: float = 0.05
    # How long after a stream's end its claim can still be released.
    release: float = 60.0
    # A label's life, if its process dies before it deletes the label: longer than any stream is live.
    label: int = 86_400

    # How long a process that ends waits for its last records to be in Redis.
    flush: float = 5.0
    # The pause before a loop that crashed begins again.
    restart: float = 0.5


USUAL = Timing()
