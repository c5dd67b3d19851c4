"""The bytes that `test_fuzz` feeds to the readers, and what has to hold for any of them.

Streams that were seen are mutated at random; `standard` is a second parser, written down from the standard's words.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import httpx
import orjson
from hypothesis import strategies as st

from app.errors import Disconnected, Malformed, UpstreamError
from app.events import Content, Done, ToolCall, values
from app.upstream.http.client import body
from app.upstream.http.pool import READ
from app.upstream.reading.answer import MAX_USAGE
from app.upstream.reading.body import MAX_BLANK
from app.upstream.reading.chat import chat_reader
from app.upstream.reading.reader import AnswerReader
from app.upstream.reading.redaction import MAX_MESSAGE
from app.upstream.reading.sse import BOM, MAX_STRAY, Splitter
from app.upstream.responses.reader import responses_reader
from app.usage import Usage
from tests.upstream.play import cut_at
from tests.upstream.reading.quirks import CASES
from tests.upstream.reading.quirks_bytes import DONE, END, HI, STOP, call, chunk, event, merged, text, tool
from tests.upstream.responses.quirks import RESPONSES

MAX_EVENT = 4096
# Bytes after which it is looked again at what a reader holds. To look after each of them took nearly all of the time.
LOOK = 64


def escaped(delta: object, **more: object) -> bytes:
    """Return a chunk in ASCII: half a character has no other form."""
    return event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}], **more}).encode())


NAMED = chunk({"content": "hi"}, model="m")  # what follows a model's name may take a short cut
HALF, REST = escaped({"content": "a\ud83d"}), escaped({"content": "\ude00"})
SEEDS = [case.raw for case in CASES if len(case.raw) <= 2 * MAX_EVENT] + [
    NAMED + HALF + text("b") + REST + HI + END,
    NAMED + HALF + REST + HI + HALF + END,
    NAMED + escaped({"tool_calls": [call(0, "c", "f", "\ud83d")]}) + HI + END,
    escaped({"content": "hi"}, model="m\ud83d") + END,
    b"event: a\r\ndata: [\r\ndata: 1]\r\n\r\n" + HI.replace(b"\n", b"\r\n") + END,
]
RESPONSE_SEEDS = [case.raw for case in RESPONSES if len(case.raw) <= 2 * MAX_EVENT]
TOKENS = [
    *(
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b"\r\r",
        b"data:",
        b"data: ",
        b"event: error\n",
        b"id: 1\n",
        b":",
        b" ",
        BOM,
        b"\0",
    ),
    *(b"[DONE]", b"null", b"NaN", b"true", b'"', b"\\", b"\\ud83d", b"\\ude00", b"\xff", b"\xe2\x80\xa8", b"\xf0\x9f"),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b"[" * 3000,
        b"9" * 5000,
        b"-1",
        b"1e999",
        b"<html>",
        b"x" * MAX_EVENT,
        b" " * 4200,
    ),
    *(b'"error":', b'"message":', b'"code":429', b'"usage":{"n":1}', b'"finish_reason":"stop"', b'"index":7'),
    *(HI, STOP, DONE, b'{"error":"no"}\n', tool(call(0, "c", "f", "{}")), HALF, REST, NAMED),
]

CUTS = st.lists(st.integers(0, 1 << 16), max_size=12)
ENDS = st.sampled_from(["eof", "cut"])


@st.composite
def mutated(draw: st.DrawFn, seeds: Sequence[bytes] = SEEDS) -> bytes:
    """Draw a stream that was real once."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at, length = (draw(st.integers(0, len(raw))) for _ in range(2))
        match draw(st.integers(0, 4)):
            case 0:
                raw[at:at] = draw(st.sampled_from(TOKENS))
            case 1:
                raw[at : at + 1] = draw(st.binary(max_size=3))
            case 2:
                del raw[at : at + length % 64]
            case 3:
                raw[at:at] = raw[at : at + length]
            case _:
                raw[at:] = draw(st.sampled_from(seeds))[length:]
    return bytes(raw[: 8 * MAX_EVENT])


def held(value: Any, seen: set[int] | None = None) -> int:
    """Return how many characters, bytes and items *value* holds on to, each object counted once."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, (bytes, bytearray, str)):
        return len(value)
    inside: Iterable[Any] = vars(value).values() if hasattr(value, "__dict__") else ()
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif isinstance(value, (list, tuple, set)):
        inside = value
    return sum(1 + held(item, seen) for item in inside)


class Outcome(NamedTuple):
    """All that came of one body. *verdict* is how it ended."""

    events: list[Content]
    verdict: Done | tuple[type[UpstreamError], str, str | None]
    usage: Usage | None
    model: str
    replaced_bytes: int
    cut_after_finish: bool


def read(pieces: Iterable[bytes], ends: str, make: Callable[[int], AnswerReader[Any]]) -> Outcome:
    """Read one body to its end. What is said and held on the way has to be bounded."""
    reader = make(MAX_EVENT)
    events: list[Content] = []
    unseen = 0
    for piece in pieces:
        events += reader.feed(piece)
        unseen += len(piece)
        if unseen < LOOK:
            continue
        unseen = 0
        handed_out = sum(len(call.id) + len(call.name) for call in events if isinstance(call, ToolCall))
        # Five of an event's size: the line, the data and the name of one; usage; the body that is none.
        assert held(reader) <= 5 * MAX_EVENT + MAX_BLANK + 2 * MAX_STRAY + 2 * handed_out + 2000
    events += reader.end() if ends == "eof" else reader.end(Disconnected())
    assert not reader.feed(HI) and not reader.end(), "the end is the end"
    verdict: Done | tuple[type[UpstreamError], str, str | None]
    try:
        verdict = reader.result()
    except UpstreamError as error:
        assert len(error.text) <= MAX_MESSAGE and error.text.isprintable()
        verdict = type(error), error.text, error.param
    answer = reader.answer
    return Outcome(events, verdict, answer.usage, answer.model, reader.replaced_bytes, answer.cut_after_finish)


def check_reader(raw: bytes, cuts: Sequence[int], ends: str) -> None:
    """What holds for any reader holds for the chat's."""
    _check(chat_reader, raw, cuts, ends)


def check_responses_reader(raw: bytes, cuts: Sequence[int], ends: str) -> None:
    """So it does for that of Responses."""
    _check(responses_reader, raw, cuts, ends)


def _check(make: Callable[[int], AnswerReader[Any]], raw: bytes, cuts: Sequence[int], ends: str) -> None:
    """No exception, nothing that cannot be sent on, and the same whatever the reads."""
    whole = read([raw], ends, make)
    assert read(cut_at(raw, cuts), ends, make) == whole
    if len(raw) < 1500:
        assert read((raw[at : at + 1] for at in range(len(raw))), ends, make) == whole
    assert orjson.dumps([*whole.events, whole.model])
    assert whole.usage is None or len(orjson.dumps(whole.usage.fields)) <= 8 * MAX_USAGE
    merged([piece for piece in whole.events if isinstance(piece, ToolCall)])
    assert all(any(values(piece)[isinstance(piece, ToolCall) :]) for piece in whole.events)


def standard(raw: bytes) -> list[tuple[str, str]]:
    """Parse an event stream as https://html.spec.whatwg.org/#event-stream-interpretation says it, word for word."""
    stream = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = stream.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]  # an unfinished line is none
    found, data, kind = [], "", ""
    for line in lines:
        if line == "":
            if data:
                found.append((kind, data.removesuffix("\n")))
            data = kind = ""
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                kind = value
            elif field == "data":
                data += value + "\n"
    return found


def check_splitter(raw: bytes, cuts: Sequence[int]) -> None:
    """The events are the standard's, as long as none outgrows the bound."""
    for pieces in cut_at(raw, cuts), [raw[at : at + 1] for at in range(min(len(raw), 2000))] + [raw[2000:]]:
        check_pieces(raw, pieces)


def check_pieces(raw: bytes, pieces: Iterable[bytes]) -> None:
    splitter = Splitter(max_event=len(raw) + 1)
    events = [found for piece in pieces for found in splitter.feed(piece)]
    decoded = [
        (name.decode("utf-8", "replace"), data.decode("utf-8", "replace")) for name, data in events if name is not None
    ]
    assert decoded == standard(raw)
    assert splitter.error is None


def drained(stream: AsyncGenerator[bytes, None]) -> Iterator[bytes]:
    """Run an asynchronous generator that never waits."""
    while True:
        try:
            stream.__anext__().send(None)
        except StopIteration as given:
            yield given.value
        except StopAsyncIteration:
            return


def inflated(pieces: Iterable[bytes], encoding: str = "gzip") -> tuple[bytes, bool]:
    """Return what the transport makes of a compressed body, and whether it was whole as far as that can be told."""
    rest = iter(pieces)

    async def read(pause: float | None = None, until: float | None = None) -> bytes:
        return next(rest, b"")

    response = httpx.Response(200, headers={"Content-Encoding": encoding}, extensions={READ: read})
    out = bytearray()
    try:
        for data in drained(body(response)):
            out += data
    except Malformed:
        return bytes(out), False
    return bytes(out), True


def check_gzip(raw: bytes, cuts: Sequence[int], harm: Sequence[int]) -> None:
    """Whole, it is what was compressed; harmed, it breaks by name, and so it does however it was cut."""
    squeezed = bytearray(gzip.compress(raw, mtime=0))
    assert inflated(cut_at(bytes(squeezed), cuts)) == (raw, True)
    for at in harm:
        squeezed[at % len(squeezed)] ^= 1 + at % 255
    one, several = inflated([bytes(squeezed)]), inflated(cut_at(bytes(squeezed), cuts))
    assert one[1] is several[1]
    assert several[0].startswith(one[0])
