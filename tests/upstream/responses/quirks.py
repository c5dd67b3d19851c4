"""Responses streams, row by row of the upstream README, and what must be made of them.

Only data: `test_responses_reader.py` plays each. A case's name begins with its row, or with what it is about. Where the
row is not of Responses but of streams (F, H, E), the case is the chat's, said in Responses' words.
"""

from __future__ import annotations

from dataclasses import replace

from tests.upstream.reading import quirks_bytes as chat
from tests.upstream.reading.quirks_bytes import Case
from tests.upstream.reading.quirks_ends import ENDS as CHAT_ENDS
from tests.upstream.reading.quirks_streams import BODIES as CHAT_BODIES
from tests.upstream.reading.quirks_streams import ERRORS as CHAT_ERRORS
from tests.upstream.reading.quirks_streams import FRAMING as CHAT_FRAMING
from tests.upstream.responses.bytes import END, HI
from tests.upstream.responses.ends import BODIES, CALLS, ENDINGS
from tests.upstream.responses.parts import REASONING, TEXTS
from tests.upstream.responses.whole import WHOLE_RESPONSES

KEPT = ("F", "H4", "H5-something-else", "H6", "H7", "H8", "E", "end")


def as_response(case: Case) -> Case | None:
    """Return a chat's case in Responses' words, or None if it is about what only a chat has.

    Such as what follows a finish reason: here, the event that has it is the last.
    """
    raw = case.raw
    for there, here in ((chat.HI, HI), (chat.STOP, END)):
        raw = raw.replace(there[6:-2], here.partition(b"data: ")[2][:-2])
    if not case.name.startswith(KEPT) or "after-finish" in case.name or b'"choices"' in raw:
        return None
    return replace(case, name=f"chat-{case.name}", raw=raw)


SHARED = [
    shared
    for case in (*CHAT_FRAMING, *CHAT_BODIES, *CHAT_ERRORS, *CHAT_ENDS)
    if (shared := as_response(case)) is not None
]
RESPONSES = [*TEXTS, *REASONING, *CALLS, *ENDINGS, *BODIES, *WHOLE_RESPONSES, *SHARED]
