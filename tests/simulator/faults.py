"""Models that only tests and benchmarks ask for, beside those of the simulator itself.

Pass `MODELS` to `serve`; `python -m tests.simulator` is a simulator with them. The rows in the comments are those of
the upstream README: what real upstreams send.
"""

from __future__ import annotations

import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import cast

import orjson

from app.simulator import models
from app.simulator.answer import Answer, calls, reasoning, text
from app.simulator.chat import ChatEncoder
from app.simulator.errors import Refused, error
from app.simulator.models import Model, always, saying_it
from app.simulator.parts import Kind, Part
from app.simulator.responses import ResponsesEncoder
from app.simulator.script import STREAM, End, Now, Reply, Script, Sleep
from app.simulator.scripts import begun, closing, healthy, odd, opening, recast, says, stream, whole

MIB = 1 << 20
BLOCK = 32 << 10

# Row C15.
NESTED = b'data: {"type":"response.in_progress","choices":[],"x":%b}\n\n' % (b"[" * 100_000 + b"]" * 100_000)


# --- odd answers that are whole


def clock(answer: Answer) -> Iterator[Part]:
    """Say the time with each delta: sixteen digits and a semicolon."""
    answer.source = (b'"%016d;"' % time.monotonic_ns() for _ in answer.source)
    yield from text(answer)


def clock_script(answer: Answer) -> Script:
    return (stream if answer.request.stream else whole)(answer, clock)


def text_and_calls(answer: Answer) -> Iterator[Part]:
    yield from text(answer)
    if answer.finish_reason == "stop" and not answer.request.answered:
        yield from calls(answer)


def bursts(answer: Answer) -> Script:
    """Send `after` deltas at a time, `seconds` apart."""
    yield from opening(answer)
    deltas = answer.deltas()
    while burst := b"".join(islice(deltas, max(answer.knobs.after, 1))):
        yield Now(burst)
        yield Sleep(answer.knobs.seconds)
    yield from closing(answer)


def heartbeat(answer: Answer) -> bytes:
    """Return a comment; on /v1/responses, an event of its own type (row R1)."""
    return b": keep-alive\n\n" if isinstance(answer.encoder, ChatEncoder) else answer.encoder.event("keepalive")


def heartbeats(answer: Answer) -> Script:
    """Send a heartbeat after every delta."""
    yield from opening(answer)
    for delta in answer.deltas():
        yield delta
        yield Now(heartbeat(answer))
    yield from closing(answer)


def no_usage(answer: Answer) -> Script:
    yield from opening(answer)
    yield from answer.deltas()
    yield from closing(answer, usage=False)


def two_per_frame(answer: Answer) -> Script:  # row F6
    yield from opening(answer)
    deltas = answer.deltas()
    for delta in deltas:
        yield delta[:-1] + next(deltas, b"\n")
    yield from closing(answer)


# --- late, or never


def slow_headers(answer: Answer) -> Script:
    yield Sleep(answer.knobs.seconds)
    yield from healthy(answer)


def slow_close(answer: Answer) -> Script:  # row F22
    yield from stream(answer)
    yield End.LINGER


def stall_heartbeat(answer: Answer) -> Script:  # row H17
    yield from begun(answer)
    while True:
        yield Sleep(answer.knobs.seconds)
        yield Now(heartbeat(answer))


def close_before_headers(answer: Answer) -> Script:
    yield Sleep(answer.knobs.first)
    yield End.CUT


# --- errors


def refuses_stream_options(answer: Answer) -> Script:  # row H11
    if "stream_options" not in answer.request.body:
        return stream(answer)
    message = "Unrecognized request argument supplied: stream_options"
    return iter((Refused(400, message, code="unknown_parameter", param="stream_options").reply,))


def error_first(answer: Answer) -> Script:  # row H4 under the right content type
    yield Sleep(answer.knobs.first)
    yield STREAM
    yield Now(answer.encoder.error() + answer.encoder.after_error())


def leaked(answer: Answer) -> str:
    return f"Incorrect API key provided: {answer.credentials}. You asked: {answer.request.prompt}"


def leak(answer: Answer) -> Script:
    yield Refused(answer.knobs.status, leaked(answer)).reply


def leak_in_stream(answer: Answer) -> Script:
    yield from begun(answer)
    yield answer.encoder.error(leaked(answer))


# --- bytes that are not what they should be


def crlf(answer: Answer) -> Script:  # row F2
    return recast(answer, lambda data: data.replace(b"\n", b"\r\n"))


def compressed(answer: Answer) -> Script:  # row H16
    deflate = zlib.compressobj(wbits=31)
    for step in recast(answer, lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)):
        yield step._replace(headers=b"content-encoding: gzip\r\n") if isinstance(step, Reply) else step
    yield Now(deflate.flush())


def around_delta(answer: Answer) -> tuple[bytes, bytes]:
    """Return what comes before and after the JSON of a delta's text."""
    before, _, after = b"".join(answer.encoder.deltas(Part(Kind.TEXT, iter((b'"@"',))))).partition(b'"@"')
    return before, after


def bad_utf8(answer: Answer) -> bytes:  # row F25
    before, after = around_delta(answer)
    return before + b'" \xff\xfe\xc3( "' + after


def padded(answer: Answer, mib: int | None) -> Iterator[bytes]:
    """Yield one delta of *mib* MiB, a block at a time; one that never ends, if that is None."""
    before, after = around_delta(answer)
    yield before + b'"'
    while mib is None:
        yield b"A" * BLOCK
    for _ in range(mib * MIB // BLOCK):
        yield b"A" * BLOCK
    yield b'"' + after


def gzip_bomb(answer: Answer) -> Script:
    deflate = zlib.compressobj(wbits=31)
    yield Sleep(answer.knobs.first)
    yield STREAM._replace(headers=b"content-encoding: gzip\r\n")
    for block in padded(answer, answer.knobs.mib):
        yield Now(deflate.compress(block))
    end = answer.encoder.finish("stop", None) + answer.encoder.after_finish(None)
    yield Now(deflate.compress(end) + deflate.flush())


def giant_line(answer: Answer) -> Script:  # row F26
    yield from opening(answer)
    yield from map(Now, padded(answer, answer.knobs.mib))
    yield from closing(answer)


def giant(answer: Answer, field: bytes, before: bytes, item: bytes, after: bytes) -> Script:
    """Play an event of `mib` MiB whose delta has a *field* of as many times *item* as fit, between two other parts."""
    yield from opening(answer)
    yield from islice(answer.deltas(), 1)
    yield Now(b'data: {"choices":[{"index":0,"delta":{"%b":%b' % (field, before))
    for _ in range(answer.knobs.mib * MIB // BLOCK):
        yield Now(item * (BLOCK // len(item)))
    yield Now(after + b"}}]}\n\n")
    yield from closing(answer)


def giant_error(answer: Answer) -> Script:
    yield from opening(answer)
    yield from islice(answer.deltas(), 1)
    yield Now(b'data: {"error":{"message":"')
    for _ in range(answer.knobs.mib * MIB // BLOCK):
        yield Now(b"A" * BLOCK)
    yield Now(b'"}}\n\n')


def endless_line(answer: Answer) -> Script:
    yield from opening(answer)
    yield from map(Now, padded(answer, None))


def no_number(answer: Answer) -> bytes:
    """Return a delta with a NaN among its log probabilities (row C14)."""
    event = b'"?"'.join(around_delta(answer))
    if answer.request.logprobs is not None:
        return re.sub(rb'"logprob":[-.0-9]+', b'"logprob":NaN', event)
    weights = (b'"logprobs":null', b'"logprobs":{"content":[{"logprob":NaN}]}')
    return event.replace(*weights).replace(b'"logprobs":[]', b'"logprobs":[{"logprob":NaN}]')


# --- what only the Responses API can do wrong

_EVENT = re.compile(rb"event: ([^\n]*)\n(data: [^\n]*)\n\n")
_NUMBER = re.compile(rb'"sequence_number":\d+,')
_ID = re.compile(rb'"((?:resp|msg|rs|fc)_)[0-9a-f]{48}"')


def responses_encoder(answer: Answer) -> ResponsesEncoder:
    return cast(ResponsesEncoder, answer.encoder)  # `only="responses"` sees to it


def each_event(answer: Answer, change: Callable[[bytes, bytes], bytes]) -> Script:
    """Play a healthy stream with each event changed: *change* gets its type and its data line."""
    for step in recast(answer, lambda data: _EVENT.sub(lambda match: change(match[1], match[2]), data)):
        if step != b"":
            yield step


def _event(kind: bytes, data: bytes) -> bytes:
    return b"event: %b\n%b\n\n" % (kind, data)


def _rotated(kind: bytes, data: bytes) -> bytes:
    """Give every id another value; the first event's, by which a response is fetched, stays."""
    if kind != b"response.created":
        data = _ID.sub(lambda match: b'"%b%b"' % (match[1], secrets.token_hex(24).encode()), data)
    return _event(kind, data)


def extra_done(answer: Answer) -> Script:
    yield from stream(answer)
    yield Now(b"data: [DONE]\n\n")


def error_flat(answer: Answer) -> Script:  # row R3
    yield from begun(answer)
    encoder = responses_encoder(answer)
    fields = encoder.fail()
    yield encoder.event("error", code=fields["code"], message=fields["message"], param=fields["param"])


def failed(answer: Answer) -> Script:  # row R4
    yield from begun(answer)
    yield responses_encoder(answer).failed()


def other_events(answer: Answer) -> Script:
    """Send unknown types, heartbeats under other names (row R2), and an item of an unknown type."""
    event = responses_encoder(answer).event
    start = opening(answer)
    yield from islice(start, 2)
    yield Now(b'event: response.in_progress\ndata: {"type":"response.in_progress"}\n\n')
    yield from start
    for at, piece in enumerate(answer.deltas()):
        yield piece
        match at % 4:
            case 1:
                yield Now(event("response.keep_alive"))
            case 2:
                yield Now(event("response.telepathy.delta", output_index=0, delta="not text", depth={"of": [1]}))
            case 3:
                yield Now(event("response.output_text.sentiment", output_index=0, content_index=0, delta=0.5))
    item = {"id": "tp_1", "type": "telepathy_call", "status": "completed", "thought": "not text"}
    yield Now(event("response.output_item.added", output_index=9, item=item))
    yield Now(event("response.output_item.done", output_index=9, item=item))
    yield from closing(answer)


def on_responses(description: str, script: Callable[[Answer], Script]) -> Model:
    return Model(description, script, only="responses")


FAULTS: dict[str, Model] = {
    "clock": always("Each delta is the time it was sent, in nanoseconds of the monotonic clock.", clock_script),
    "reasoning-text": saying_it("Reasoning first, as open models name it.", partial(reasoning, kind=Kind.REASONING)),
    "text-and-tools": saying_it("An answer first, then the calls.", text_and_calls),
    "bursts": Model("`after` deltas at once, then nothing for `seconds`.", bursts, knobs={"seconds": 0.2}),
    "heartbeats": Model("A comment, or a keepalive event, after every delta.", heartbeats),
    "slow-first-token": always("Headers and first token come together, `seconds` late.", slow_headers),
    "slow-headers": always("Headers come `seconds` late.", slow_headers),
    "slow-close": Model("The socket stays open after the end.", slow_close),
    "stall-heartbeat": Model(
        "After `after` deltas only a heartbeat every `seconds`, for ever.",
        stall_heartbeat,
        knobs={"seconds": 1},
        background=False,
    ),
    "no-usage": Model("Never sends usage, asked or not.", no_usage),
    "refuses-stream-options": Model("400 if stream_options is present.", refuses_stream_options),
    "close-before-headers": always("Reads the request and closes.", close_before_headers),
    "error-first": Model("200, and an error as the very first event.", error_first),
    "leak": always("An error (`status`) whose message holds the API key and the prompt.", leak),
    "leak-in-stream": Model("The same as an event, after `after` deltas.", leak_in_stream),
    "json-instead-of-sse": Model("200 with a whole JSON answer, though a stream was asked for.", whole),
    "json-error-200": always(
        "200 with a JSON error.",
        partial(says, body=orjson.dumps(error(429, "Quota exceeded.")), content_type=b"application/json"),
    ),
    "empty-200": always("200, event-stream, zero bytes.", partial(says, body=b"", content_type=STREAM.content_type)),
    "crlf": Model("CRLF line ends.", crlf, background=False),
    "giant-line": Model("One event of `mib` MiB.", giant_line, background=False),
    "giant-escapes": Model(
        "A text of `mib` MiB, nearly all of it escapes and commas.",
        partial(giant, field=b"content", before=b'"', item=rb"\",", after=b'"'),
        only="chat",
    ),
    "giant-call": Model(
        "A tool call with `mib` MiB of arguments.",
        partial(
            giant,
            field=b"tool_calls",
            before=b'[{"index":0,"id":"c","type":"function","function":{"name":"f","arguments":"[',
            item=rb"{\"a\":1},",
            after=b'0]"}}]',
        ),
        only="chat",
    ),
    "giant-image": Model(
        "An image of `mib` MiB.",
        partial(
            giant,
            field=b"images",
            before=b'[{"type":"image_url","image_url":{"url":"data:image/png;base64,',
            item=b"AAAA",
            after=b'"}}]',
        ),
        only="chat",
    ),
    "giant-notes": Model(
        "Annotations of `mib` MiB.",
        partial(giant, field=b"annotations", before=b"[", item=b'{"a":1},', after=b"0]"),
        only="chat",
    ),
    "giant-fields": Model(
        "`mib` MiB of nested lists in a field without a meaning.",
        partial(giant, field=b"zz", before=b"[", item=b"[[[[]]]],", after=b"0]"),
        only="chat",
    ),
    "giant-error": Model("An error of `mib` MiB, after a delta.", giant_error, only="chat"),
    "endless-line": Model("A data line that never ends.", endless_line, background=False),
    "gzip": Model("A compressed stream that was not asked for.", compressed, background=False),
    "gzip-bomb": Model(
        "One event of `mib` MiB, compressed to nearly nothing.", gzip_bomb, knobs={"mib": 64}, background=False
    ),
    "bad-utf8": Model(
        "Bytes that are not UTF-8, after `after` deltas.",
        partial(odd, make=bad_utf8),
    ),
    "nan": Model("A NaN among the logprobs, after `after` deltas.", partial(odd, make=no_number)),
    "deep-json": Model(
        "A chunk nested 100,000 deep, after `after` deltas.",
        partial(
            odd, make=lambda _: b'data: {"type":"response.in_progress","choices":[],"x":%b}\n\n' % NESTED
        ),  # row C15
    ),
    "two-per-frame": Model("Two chunks in one frame, a single LF between them.", two_per_frame, only="chat"),
    "error-flat": on_responses("After `after` deltas an error as documented, not nested.", error_flat),
    "failed": on_responses("After `after` deltas response.failed, no error event.", failed),
    "rotating-ids": on_responses("Other ids in every event.", partial(each_event, change=_rotated)),  # row R6
    "no-deltas": on_responses(  # row R7
        "Only the whole texts, no deltas.",
        partial(each_event, change=lambda kind, data: b"" if kind.endswith(b".delta") else _event(kind, data)),
    ),
    "no-sequence-numbers": on_responses(  # row R8
        "No sequence_number anywhere.",
        partial(each_event, change=lambda kind, data: _event(kind, _NUMBER.sub(b"", data))),
    ),
    "no-event-lines": on_responses(  # row F12
        "Data lines alone, no event lines.", partial(each_event, change=lambda _, data: data + b"\n\n")
    ),
    "other-events": on_responses("Unknown types of events and items.", other_events),
    "extra-done": on_responses("[DONE] after the end, which is chat's.", extra_done),
}
MODELS: Mapping[str, Model] = models.MODELS | FAULTS
