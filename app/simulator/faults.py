"""How the simulator misbehaves: one script for each fault, in whichever API it was asked.

`models` gives them their names. The row ids in the comments are those of the research note on what real
upstreams send.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from itertools import islice

from app.simulator.chat import DONE
from app.simulator.play import Play, begun, closing, healthy, normal, opening
from app.simulator.refusals import refused
from app.simulator.steps import Alone, End, Head, Now, Reply, Script, Sleep

MIB = 1 << 20
BLOCK = 32 << 10


def failing(status: int) -> Callable[[Play], Script]:
    """Return a script that answers with *status* (H1, H9)."""

    def script(play: Play) -> Script:
        yield Sleep(play.knobs.first)
        wait = play.knobs.retry_after
        if wait < 0 and status in (429, 503):
            wait = 1
        hint = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-wait // 1), wait * 1000) if wait >= 0 else b""
        yield refused(status)._replace(headers=hint)

    return script


def flaky(status: int) -> Callable[[Play], Script]:
    """Return a script that fails the first `fail` times."""
    fails = failing(status)

    def script(play: Play) -> Script:
        key = f"{status} {play.knobs.key or play.prompt}"
        if play.failures[key] < play.knobs.fail:
            if len(play.failures) > 10_000:  # a memory with an end
                play.failures.clear()
            play.failures[key] += 1
            return fails(play)
        return healthy(play)

    return script


def slow_headers(play: Play) -> Script:
    yield Sleep(play.knobs.seconds)
    yield from healthy(play)


def slow_content(play: Play) -> Script:
    yield from opening(play)
    yield Sleep(play.knobs.seconds)
    yield from play.deltas()
    yield from closing(play)
    yield End.CLEAN


def broken(end: End) -> Callable[[Play], Script]:
    """Return a script that ends with *end* after `after` deltas, without a finish."""

    def script(play: Play) -> Script:
        yield from begun(play)
        yield end

    return script


def stall_heartbeat(play: Play) -> Script:  # H17
    yield from begun(play)
    while True:
        yield Sleep(play.knobs.seconds)
        yield Now(play.voice.heartbeat())


def cut_after_finish(play: Play) -> Script:  # H13
    yield from opening(play)
    yield from play.deltas()
    yield play.voice.finish(play.finish, play.counts())
    yield End.CUT


def no_done(play: Play) -> Script:  # F19
    yield from (step for step in normal(play) if step != Now(DONE))


def no_usage(play: Play) -> Script:
    yield from opening(play)
    yield from play.deltas()
    yield from closing(play, usage=False)
    yield End.CLEAN


def content_filter(play: Play) -> Script:  # E14, R5
    yield from begun(play)
    play.finish = "content_filter"
    yield from closing(play)
    yield End.CLEAN


def slow_close(play: Play) -> Script:  # F22
    yield from (End.LINGER if step is End.CLEAN else step for step in normal(play))


def refuses_stream_options(play: Play) -> Script:  # H11
    if "stream_options" not in play.asked.body:
        return normal(play)
    text = "Unrecognized request argument supplied: stream_options"
    return iter((refused(400, text, code="unknown_parameter", param="stream_options"),))


def error_in_stream(play: Play) -> Script:  # E1
    yield from begun(play)
    yield play.voice.error()
    yield Now(play.voice.after_error())
    yield End.CLEAN


def error_first(play: Play) -> Script:  # H4 under the right content type
    yield Sleep(play.knobs.first)
    yield Head()
    yield Now(play.voice.error() + play.voice.after_error())
    yield End.CLEAN


def leaked(play: Play) -> str:
    return f"Incorrect API key provided: {play.credentials}. You asked: {play.prompt}"


def leak(play: Play) -> Script:
    yield refused(play.knobs.status, leaked(play))


def leak_in_stream(play: Play) -> Script:
    yield from begun(play)
    yield play.voice.error(leaked(play))
    yield End.CLEAN


def reply(status: int, body: bytes, content_type: bytes) -> Callable[[Play], Script]:
    """Return a script that says *body*, whatever it was asked (H4, H7, H8)."""

    def script(play: Play) -> Script:
        yield Sleep(play.knobs.first)
        yield Reply(status, body, content_type=content_type)

    return script


def close_before_headers(play: Play) -> Script:
    yield Sleep(play.knobs.first)
    yield End.CUT


# --- bytes that are not what they should be


def recast(play: Play, change: Callable[[bytes], bytes]) -> Script:
    """A healthy stream with each event changed."""
    for step in normal(play):
        if isinstance(step, bytes):
            yield change(step)
        else:
            yield Now(change(step.data)) if isinstance(step, Now) else step


def crlf(play: Play) -> Script:  # F2
    return recast(play, lambda data: data.replace(b"\n", b"\r\n"))


def split_utf8(play: Play) -> Script:  # F24
    for step in normal(play):
        data = step if isinstance(step, bytes) else step.data if isinstance(step, Now) else b""
        if data:
            yield from (Alone(data[at : at + 1]) for at in range(len(data)))
        else:
            yield step


def squeezed(play: Play) -> Script:  # H16
    deflate = zlib.compressobj(wbits=31)
    for step in recast(play, lambda data: deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)):
        if step is End.CLEAN:
            yield Now(deflate.flush())
        yield Head(headers=b"content-encoding: gzip\r\n") if isinstance(step, Head) else step


def padded(play: Play) -> Iterator[bytes]:
    """One event of `mib` MiB, a block at a time."""
    before, after = play.voice.frame()
    yield before + b'"'
    for _ in range(play.knobs.mib * MIB // BLOCK):
        yield b"A" * BLOCK
    yield b'"' + after


def gzip_bomb(play: Play) -> Script:
    deflate = zlib.compressobj(wbits=31)
    yield Sleep(play.knobs.first)
    yield Head(headers=b"content-encoding: gzip\r\n")
    for block in padded(play):
        if data := deflate.compress(block):
            yield Now(data)
    end = play.voice.finish("stop", None) + b"".join(play.voice.after(None))
    yield Now(deflate.compress(end) + deflate.flush())
    yield End.CLEAN


def giant_line(play: Play) -> Script:  # F26
    yield from opening(play)
    yield from map(Now, padded(play))
    yield from closing(play)
    yield End.CLEAN


def endless_line(play: Play) -> Script:
    yield from opening(play)
    yield Now(play.voice.frame()[0] + b'"')
    while True:
        yield Now(b"A" * BLOCK)


def framed(play: Play, piece: bytes) -> bytes:
    """Return *piece*, which may not be JSON, where a delta's text should be."""
    before, after = play.voice.frame()
    return before + piece + after


def no_number(play: Play) -> bytes:
    """Return a delta with a NaN among its log probabilities (C14)."""
    weights = (b'"logprobs":null', b'"logprobs":{"content":[{"logprob":NaN}]}')
    return framed(play, b'"?"').replace(*weights).replace(b'"logprobs":[]', b'"logprobs":[{"logprob":NaN}]')


def odd(make: Callable[[Play], bytes]) -> Callable[[Play], Script]:
    """Return a script with an odd event in the middle that goes on as if nothing had been."""

    def script(play: Play) -> Script:
        yield from begun(play)
        yield make(play)
        yield from play.deltas()
        yield from closing(play)
        yield End.CLEAN

    return script


def two_per_frame(play: Play) -> Script:  # F6
    yield from opening(play)
    deltas = play.deltas()
    for delta in deltas:
        yield delta[:-1] + next(deltas, b"\n")
    yield from closing(play)
    yield End.CLEAN


def bursts(play: Play) -> Script:
    """`after` deltas at a time, `seconds` between."""
    yield from opening(play)
    deltas = play.deltas()
    while burst := b"".join(islice(deltas, max(play.knobs.after, 1))):
        yield Now(burst)
        yield Sleep(play.knobs.seconds)
    yield from closing(play)
    yield End.CLEAN


def heartbeats(play: Play) -> Script:
    """One after every delta."""
    yield from opening(play)
    for delta in play.deltas():
        yield delta
        yield Now(play.voice.heartbeat())
    yield from closing(play)
    yield End.CLEAN
