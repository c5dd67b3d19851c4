"""From bytes to Server-Sent Events: the framing of the upstream's stream, and nothing of its meaning.

Invariant: the events do not depend on how the network cut the bytes, no input raises, and no more than one event of
bounded size is ever kept.

Strategy: all line ends become LF first, which costs one search if they are LF already. Then `bytes.split` does the
work, so Python runs per line and never per byte: 0.5 µs per event and 0.8 µs per read, for chunks of 330 bytes on a
machine whose orjson takes 1.1 µs to parse one. Cutting at blank lines first is slower, because a search for two bytes
costs more than it saves. An unfinished line grows one bytearray (prefix + read would be quadratic), and only what is
new is searched.
"""

from __future__ import annotations

from app.errors import Malformed

BOM = b"\xef\xbb\xbf"
MAX_EVENT = 8 * 1024 * 1024  # row F26: a tool call or an image in one event; the SDKs' own tests go to 64 MiB
MAX_STRAY = 8 * 1024  # of all lines of a stream that are not fields
_MOST_LINES = 1024  # of an event, that wait to be joined

SSEEvent = tuple[bytes | None, bytes]
"""The name and the data of one event. The name is b"" if the upstream gave none; data lines are joined with LF.

A name of None marks a line that is not a known field. Some upstreams put their errors there (rows F16, F17), so these
lines keep their places among the events. It is a plain pair, because a NamedTuple takes 0.25 µs more, a tenth of what
an ordinary delta costs.
"""


class Splitter:
    """WHATWG's event stream parser, without ids and retry times, for which a relay has no use.

    *error* is set when a line or an event outgrows *max_event* bytes. The events before it are still returned, and all
    after it are ignored.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self.error: Malformed | None = None
        self._max_event = max_event
        self._opening: bytes | None = b""  # what may yet become a byte order mark; None once that is certain
        self._after_cr = False
        self._tail = bytearray()  # the line that has not ended yet
        self._name = b""
        self._data: list[bytes] = []
        self._room = max_event  # how many bytes may yet join self._data
        self._stray_room = MAX_STRAY

    @property
    def between(self) -> bool:
        """Whether the last event has ended and nothing of another one has come."""
        begun = self._tail or self._data or self._name or self._after_cr
        return not begun and self._opening is None and self.error is None

    def feed(self, data: bytes) -> list[SSEEvent]:
        """Take one network read and return the events that it completes."""
        events: list[SSEEvent] = []
        if self.error is not None:
            return events
        if self._opening is not None:
            data = self._without_bom(data)
        if self._after_cr and data:
            self._after_cr = False
            data = data.removeprefix(b"\n")  # row F2: the second half of a CRLF whose CR has ended the line already
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._tail:
            lines[0] = bytes(self._tail + lines[0])
            self._tail.clear()
        fields = self._data
        name = self._name
        room = self._room
        for line in lines:
            if not line:
                if fields:
                    events.append((name, fields[0] if len(fields) == 1 else b"\n".join(fields)))
                    fields.clear()
                    room = self._max_event
                if name:
                    name = b""
                continue
            if len(line) > room:
                self._overflow()
                return events
            if line[:6] == b"data: ":  # what nearly every line begins with
                fields.append(line[6:])
                room -= len(line)
                continue
            field, _, value = line.partition(b":")
            if field == b"data":  # rows F1, F12: neither the space nor the colon is a must
                fields.append(value)
                room -= len(line)
            elif field == b"event":
                name = value.removeprefix(b" ")
            elif field not in (b"", b"id", b"retry") and self._stray_room > 0:
                events.append((None, line[: self._stray_room]))
                self._stray_room -= len(line) + 1
        if len(fields) > _MOST_LINES:  # joined now: at the event's end there might be a million
            self._data = [b"\n".join(fields)]
        self._name = name
        self._room = room
        if rest:
            self._tail += rest
            if len(self._tail) > self._max_event:
                self._overflow()
        return events

    def eof(self) -> list[SSEEvent]:
        """Return what the end of the body left unfinished: a line without its end, an event without its blank line.

        A browser drops both. Real servers end like that after a whole answer (rows F20, F23), so the caller decides by
        what the data looks like.
        """
        return self.feed(b"\n\n")

    def _without_bom(self, data: bytes) -> bytes:
        # Row F3: exactly one, and perhaps a byte at a time.
        data = (self._opening or b"") + data
        if len(data) < len(BOM) and BOM.startswith(data):
            self._opening = data
            return b""
        self._opening = None
        return data.removeprefix(BOM)

    def _overflow(self) -> None:
        self.error = Malformed(f"The upstream service sent an event of more than {self._max_event} bytes.")
        self._tail.clear()
        self._data = []
