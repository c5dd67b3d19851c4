"""What upstreams have been seen to send, row by row of the upstream README, and what must be made of it.

Only data: `test_chat.py` plays each case whole, byte by byte and at random cuts. A case's name begins with its row.
"""

from __future__ import annotations

from tests.upstream.reading.quirks_chunks import CHUNKS, TOOLS
from tests.upstream.reading.quirks_ends import ENDS, FINISHES, TIMED_OUT, USAGE
from tests.upstream.reading.quirks_streams import BODIES, ERRORS, FRAMING
from tests.upstream.reading.quirks_whole import WHOLE_ANSWERS

CASES = [*FRAMING, *BODIES, *ERRORS, *CHUNKS, *TOOLS, *FINISHES, *USAGE, *ENDS, TIMED_OUT, *WHOLE_ANSWERS]
