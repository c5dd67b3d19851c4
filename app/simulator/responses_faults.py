"""How the simulator misbehaves in the ways that only the Responses API has (research note, section 8)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import cast

from app.simulator.play import Play, begun, closing, normal, opening
from app.simulator.responses import ResponsesVoice
from app.simulator.steps import End, Now, Script

_EVENT = re.compile(rb"event: ([^\n]*)\n(data: [^\n]*)\n\n")
_NUMBER = re.compile(rb'"sequence_number":\d+,')
_ID = re.compile(rb'"((?:resp|msg|rs|fc)_)[0-9a-f]{48}"')


def voice_of(play: Play) -> ResponsesVoice:
    """Return the voice, which speaks Responses: `models` sees to it."""
    return cast(ResponsesVoice, play.voice)


def each_event(change: Callable[[bytes, bytes], bytes]) -> Callable[[Play], Script]:
    """Return a healthy stream with each event changed: *change* gets its type and its data line."""

    def changed(data: bytes) -> bytes:
        return _EVENT.sub(lambda match: change(match[1], match[2]), data)

    def script(play: Play) -> Script:
        for step in normal(play):
            if isinstance(step, bytes):
                if event := changed(step):  # nothing at all would end the body
                    yield event
            else:
                yield Now(changed(step.data)) if isinstance(step, Now) else step

    return script


def _event(kind: bytes, data: bytes) -> bytes:
    return b"event: %b\n%b\n\n" % (kind, data)


def _rotated(kind: bytes, data: bytes) -> bytes:
    """Give every id another value; the first event's, by which a response is fetched, stays."""
    if kind != b"response.created":
        data = _ID.sub(lambda match: b'"%b%b"' % (match[1], secrets.token_hex(24).encode()), data)
    return _event(kind, data)


rotating_ids = each_event(_rotated)  # R6
no_deltas = each_event(lambda kind, data: b"" if kind.endswith(b".delta") else _event(kind, data))  # R7
no_numbers = each_event(lambda kind, data: _event(kind, _NUMBER.sub(b"", data)))  # R8
no_event_lines = each_event(lambda kind, data: data + b"\n\n")  # F12


def extra_done(play: Play) -> Script:
    for step in normal(play):
        if step is End.CLEAN:
            yield Now(b"data: [DONE]\n\n")
        yield step


def error_flat(play: Play) -> Script:  # R3
    yield from begun(play)
    yield voice_of(play).flat_error()
    yield End.CLEAN


def failed(play: Play) -> Script:  # R4
    yield from begun(play)
    yield voice_of(play).failed()
    yield End.CLEAN


def other_events(play: Play) -> Script:
    """Types that nobody knows yet, heartbeats under other names (R2), and an item of an unknown type."""
    voice = voice_of(play)
    early = True
    for step in opening(play):
        if early and isinstance(step, Now):
            early = False
            yield Now(voice.unnumbered())
        yield step
    for at, delta in enumerate(play.deltas()):
        yield delta
        match at % 4:
            case 1:
                yield Now(voice.other("response.keep_alive"))
            case 2:
                yield Now(voice.other("response.telepathy.delta", output_index=0, delta="not text", depth={"of": [1]}))
            case 3:
                yield Now(voice.other("response.output_text.sentiment", output_index=0, content_index=0, delta=0.5))
    item = {"id": "tp_1", "type": "telepathy_call", "status": "completed", "thought": "not text"}
    yield Now(voice.other("response.output_item.added", output_index=9, item=item))
    yield Now(voice.other("response.output_item.done", output_index=9, item=item))
    yield from closing(play)
    yield End.CLEAN
