"""`python -m tests.real.jumped`: the service, on a system whose clock was set. `CLOCK_JUMP` is by how many seconds."""

from __future__ import annotations

import os
import sys
import time

_JUMP = float(os.environ["CLOCK_JUMP"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _JUMP
time.time_ns = lambda: _time_ns() + int(_JUMP * 1e9)

if __name__ == "__main__":
    from app.cli import main

    sys.exit(main())
