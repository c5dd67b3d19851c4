"""How the simulator misbehaves, and what it may say besides text: one script for each.

`models` gives them their names. The row ids in the comments are those of the research note on what real
upstreams send.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from app.upstream.simulator.play import (
    Alone,
    End,
    Head,
    Now,
    Play,
    Reply,
    Script,
    Sleep,
    begun,
    closing,
    completion,
    failure,
    healthy,
    message,
    normal,
    opening,
    refused,
)
from app.upstream.simulator.text import DONE, REASONING, REFUSAL, cut, event

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
        yield Now(b": keep-alive\n\n")


def cut_after_finish(play: Play) -> Script:  # H13
    yield from opening(play)
    yield from play.deltas()
    yield play.chunks.finish(play.finish)
    yield End.CUT


def no_done(play: Play) -> Script:  # F19
    yield from (step for step in normal(play) if step != Now(DONE))


def no_usage(play: Play) -> Script:
    yield from opening(play)
    yield from play.deltas()
    yield from closing(play, usage=False)
    yield End.CLEAN


def slow_close(play: Play) -> Script:  # F22
    yield from (End.LINGER if step is End.CLEAN else step for step in normal(play))


def refuses_stream_options(play: Play) -> Script:  # H11
    if "stream_options" not in play.body:
        return normal(play)
    text = "Unrecognized request argument supplied: stream_options"
    return iter((refused(400, text, code="unknown_parameter", param="stream_options"),))


def error_in_stream(play: Play) -> Script:  # E1
    yield from begun(play)
    yield event(failure(500))
    yield Now(DONE)
    yield End.CLEAN


def error_first(play: Play) -> Script:  # H4 under the right content type
    yield Sleep(play.knobs.first)
    yield Head()
    yield Now(event(failure(500)) + DONE)
    yield End.CLEAN


def leaked(play: Play) -> str:
    return f"Incorrect API key provided: {play.credentials}. You asked: {play.prompt}"


def leak(play: Play) -> Script:
    yield refused(play.knobs.status, leaked(play))


def leak_in_stream(play: Play) -> Script:
    yield from begun(play)
    yield event(failure(500, leaked(play)))
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
    yield play.chunks.before + b'"'
    for _ in range(play.knobs.mib * MIB // BLOCK):
        yield b"A" * BLOCK
    yield b'"' + play.chunks.after


def gzip_bomb(play: Play) -> Script:
    deflate = zlib.compressobj(wbits=31)
    yield Sleep(play.knobs.first)
    yield Head(headers=b"content-encoding: gzip\r\n")
    for block in padded(play):
        if data := deflate.compress(block):
            yield Now(data)
    yield Now(deflate.compress(play.chunks.finish("stop") + DONE) + deflate.flush())
    yield End.CLEAN


def giant_line(play: Play) -> Script:  # F26
    yield from opening(play)
    yield from map(Now, padded(play))
    yield from closing(play)
    yield End.CLEAN


def endless_line(play: Play) -> Script:
    yield from opening(play)
    yield Now(play.chunks.before + b'"')
    while True:
        yield Now(b"A" * BLOCK)


def odd(make: Callable[[Play], bytes]) -> Callable[[Play], Script]:
    """Return a script with an odd event in the middle that goes on as if nothing had been."""

    def script(play: Play) -> Script:
        yield from begun(play)
        yield make(play)
        yield from play.deltas()
        yield from closing(play)
        yield End.CLEAN

    return script


def lone_surrogates(play: Play) -> Script:  # C16
    yield from opening(play)
    for piece in (
        rb'"A smile, "',
        rb'"\ud83d"',
        rb'"\ude00"',
        rb'", a half one, "',
        rb'"\ud83d"',
        rb'", and no more."',
    ):
        play.spoken += 1
        yield play.chunks.before + piece + play.chunks.after
    yield from closing(play)
    yield End.CLEAN


def two_per_frame(play: Play) -> Script:  # F6
    yield from opening(play)
    deltas = play.deltas()
    for delta in deltas:
        yield delta[:-1] + next(deltas, b"\n")
    yield from closing(play)
    yield End.CLEAN


# --- other things a model may say


def reasoning(play: Play) -> Script:  # C10
    yield from opening(play)
    for piece in cut(REASONING, play.knobs.size):
        play.thought += 1
        yield play.chunks.delta({"reasoning_content": piece})
    yield from play.deltas()
    yield from closing(play)
    yield End.CLEAN


def reasoning_whole(play: Play) -> Script:
    play.thought = sum(1 for _ in cut(REASONING, play.knobs.size))
    for step in completion(play):
        if isinstance(step, Reply):
            said = orjson.loads(step.body)["choices"][0]["message"]["content"]
            step = message(play, content=said, reasoning_content=REASONING)
        yield step


def calls(play: Play) -> list[dict[str, Any]]:
    """Return the tool calls to make, up to two of the tools offered; none once a tool has answered."""
    if play.messages and isinstance(play.messages[-1], dict) and play.messages[-1].get("role") == "tool":
        return []
    offered = play.body.get("tools")
    tools = [tool.get("function") for tool in offered if isinstance(tool, dict)] if isinstance(offered, list) else []
    names = [str(tool["name"]) for tool in tools if isinstance(tool, dict) and "name" in tool] or ["get_weather"]
    arguments = orjson.dumps({"query": play.prompt[:200], "city": "東京", "unit": "celsius"}).decode()
    return [
        {"id": f"call_{play.chunks.id[9:]}{at}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for at, name in enumerate(names[:2])
    ]


def tools(play: Play) -> Script:
    made = calls(play)
    if not made:
        yield from normal(play)
    yield from opening(play)
    for at, call in enumerate(made):
        arguments = call["function"]["arguments"]
        call["function"]["arguments"] = ""
        yield play.chunks.delta({"tool_calls": [{"index": at} | call]})
        for piece in cut(arguments, play.knobs.size or 6):
            play.spoken += 1
            yield play.chunks.delta({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
    play.finish = "tool_calls"
    yield from closing(play)
    yield End.CLEAN


def tools_whole(play: Play) -> Script:
    made = calls(play)
    if not made:
        yield from completion(play)
    yield Sleep(play.knobs.first)
    play.finish = "tool_calls"
    yield message(play, tool_calls=made)


def refusal(play: Play) -> Script:  # C11
    yield from opening(play)
    for piece in cut(REFUSAL, play.knobs.size):
        play.spoken += 1
        yield play.chunks.delta({"refusal": piece})
    yield from closing(play)
    yield End.CLEAN


def refusal_whole(play: Play) -> Script:
    yield Sleep(play.knobs.first)
    play.spoken = sum(1 for _ in cut(REFUSAL, play.knobs.size))
    yield message(play, refusal=REFUSAL)


def content_filter(play: Play) -> Script:  # E14
    yield from begun(play)
    play.finish = "content_filter"
    yield from closing(play)
    yield End.CLEAN
