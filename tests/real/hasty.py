"""`python -m tests.real.hasty`: the service, to which a process in Redis counts as gone after 4 seconds, not 14."""

from __future__ import annotations

import sys
from dataclasses import replace

from app.journal.redis import timing

# Before the journal, which is imported once it is asked for, has taken the usual times.
timing.USUAL = replace(timing.USUAL, lease=3.0, renewal=0.5)

if __name__ == "__main__":
    from app.cli import main

    sys.exit(main())
