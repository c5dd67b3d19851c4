"""The scripts of healthy answers, and of those faults that the playground shows.

The rows in the comments are those of the upstream README: what real upstreams send.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from app.simulator.answer import Answer, Content, text
from app.simulator.chat import DONE
from app.simulator.errors import Refused
from app.simulator.request import LONGEST
from app.simulator.script import STREAM, End, Now, Reply, Script, Sleep


def opening(answer: Answer) -> Script:
    """Yield the headers and what comes before the text, after the delays that were asked for."""
    yield Sleep(answer.knobs.first)
    yield STREAM
    yield Now(answer.encoder.opening())
    if answer.knobs.head:
        yield Sleep(answer.knobs.head)


def closing(answer: Answer, *, usage: bool = True) -> Script:
    """Yield the finish, on the beat, and what comes after it."""
    used = answer.usage() if usage else None
    yield answer.encoder.finish(answer.finish_reason, used)
    yield Now(answer.encoder.after_finish(used))


def stream(answer: Answer, content: Content = text) -> Script:
    """Play a stream as it should be."""
    yield from opening(answer)
    for part in content(answer):
        yield from answer.encoder.deltas(part)
    yield from closing(answer)


def whole(answer: Answer, content: Content = text) -> Script:
    """Play a reply that is not streamed. It takes as long as the stream would."""
    yield Sleep(answer.knobs.first + answer.knobs.head)
    answer.limit = min(answer.limit, LONGEST)
    for part in content(answer):
        answer.encoder.collect(part)
    if answer.knobs.rate:
        yield Sleep((answer.spoken + answer.thought) / answer.knobs.rate)
    yield Reply(answer.encoder.reply(answer.finish_reason, answer.usage()))


def healthy(answer: Answer) -> Script:
    """Play the text, streamed if that was asked for."""
    return stream(answer) if answer.request.stream else whole(answer)


def begun(answer: Answer) -> Script:
    """Yield what comes before a fault mid-stream."""
    yield from opening(answer)
    yield from islice(answer.deltas(), answer.knobs.after)


def rest(answer: Answer) -> Script:
    """Yield what comes after it, if the stream goes on."""
    yield from answer.deltas()
    yield from closing(answer)


def fails(answer: Answer, status: int) -> Script:
    """Answer with *status* (rows H1, H9)."""
    yield Sleep(answer.knobs.first)
    wait = answer.knobs.retry_after
    if wait < 0 and status in (429, 503):
        wait = 1
    hint = b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (-(-wait // 1), wait * 1000) if wait >= 0 else b""
    yield Refused(status).reply._replace(headers=hint)


def flaky(answer: Answer, status: int) -> Script:
    """Answer with *status* the first `fail` times, then as one should."""
    key = f"{status} {answer.knobs.key or answer.request.prompt}"
    if answer.failures[key] >= answer.knobs.fail:
        return healthy(answer)
    if len(answer.failures) > 10_000:  # or this would grow without end
        answer.failures.clear()
    answer.failures[key] += 1
    return fails(answer, status)


def says(answer: Answer, body: bytes, content_type: bytes) -> Script:
    """Answer 200 with *body* to whatever was asked (rows H4, H7, H8)."""
    yield Sleep(answer.knobs.first)
    yield Reply(body, content_type=content_type)


def breaks(answer: Answer, end: End) -> Script:
    """End the connection after `after` deltas, without a finish."""
    yield from begun(answer)
    yield end
    yield from rest(answer)


def odd(answer: Answer, make: Callable[[Answer], bytes]) -> Script:
    """Play a stream with an odd event in the middle, as if nothing had happened."""
    yield from begun(answer)
    yield make(answer)
    yield from rest(answer)


def slow_content(answer: Answer) -> Script:
    """Play the headers at once, and the text `seconds` later."""
    yield from opening(answer)
    yield Sleep(answer.knobs.seconds)
    yield from rest(answer)


def cut_after_finish(answer: Answer) -> Script:
    """Cut the connection after the finish, before what follows it (row H13)."""
    yield from opening(answer)
    yield from answer.deltas()
    yield answer.encoder.finish(answer.finish_reason, answer.usage())
    yield End.CUT


def content_filter(answer: Answer) -> Script:
    """Finish early, because of the content (rows E14, R5)."""
    yield from begun(answer)
    answer.finish_reason = "content_filter"
    yield from closing(answer)


def error_in_stream(answer: Answer) -> Script:
    """Fail mid-stream (row E1)."""
    yield from begun(answer)
    yield answer.encoder.error()
    yield Now(answer.encoder.after_error())


def recast(answer: Answer, change: Callable[[bytes], bytes]) -> Script:
    """Play a healthy stream with *change* made to all its bytes."""
    for step in stream(answer):
        if isinstance(step, bytes):
            yield change(step)
        else:
            yield Now(change(step.data)) if isinstance(step, Now) else step


def no_done(answer: Answer) -> Script:
    """Leave out the last event (row F19)."""
    return recast(answer, lambda data: data.removesuffix(DONE))


def split_utf8(answer: Answer) -> Script:
    """Send each byte in a write of its own (row F24)."""
    for step in stream(answer):
        data = step if isinstance(step, bytes) else step.data if isinstance(step, Now) else None
        if data is None:
            yield step
            continue
        for at in range(len(data)):
            yield Now(data[at : at + 1])
            yield Sleep(0)
