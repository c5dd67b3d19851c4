"""The scripts of answers, step by step: what is sent, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from app.simulator import scripts
from app.simulator.answer import Answer
from app.simulator.chat import DONE, ChatEncoder
from app.simulator.knobs import tune
from app.simulator.request import LONGEST, chat_request
from app.simulator.script import STREAM, End, Now, Reply, Script, Sleep, Step


def answer(knobs: str = "", *, stream: bool = True, failures: Counter[str] | None = None, **fields: Any) -> Answer:
    """Return an answer of three deltas, "abc", "def" and "g", that comes at once unless the *knobs* say otherwise."""
    body = {"model": "sim-echo", "messages": [{"role": "user", "content": "abcdefg"}], "stream": stream, **fields}
    request = chat_request(orjson.dumps(body))
    tuned = tune({"rate": 0, "first": 0, "size": 3, "after": 2, "seconds": 9}, knobs)
    return Answer(request, ChatEncoder(request), tuned, "", Counter() if failures is None else failures)


def said(step: Step) -> str:
    """Return a step in short: the text or the finish of a delta on the beat, in bars one that does not wait for it."""
    match step:
        case bytes():
            return short(step)
        case Now(data):
            return f"|{short(data)}|"
        case Sleep(seconds):
            return f"sleep {seconds:g}"
        case Reply(status=status):
            return "head" if step is STREAM else f"reply {status}"
        case End():
            return step.name
    raise AssertionError(step)


def short(data: bytes) -> str:
    found = []
    for block in data.split(b"\n\n")[:-1]:
        chunk = block.removeprefix(b"data: ")
        if chunk == b"[DONE]":
            found.append("DONE")
            continue
        event = orjson.loads(chunk)
        if "error" in event:
            found.append("error")
        elif not event["choices"]:
            found.append("usage")
        else:
            (choice,) = event["choices"]
            delta = choice["delta"]
            found.append(choice["finish_reason"] or ("role" if "role" in delta else delta["content"]))
    return " ".join(found)


OPENING = ["sleep 0", "head", "|role|"]
DELTAS = ["abc", "def", "g"]
CLOSING = ["stop", "|DONE|"]


@pytest.mark.parametrize(
    ("script", "steps"),
    [
        (scripts.opening, OPENING),
        (scripts.closing, CLOSING),
        (scripts.stream, [*OPENING, *DELTAS, *CLOSING]),
        (scripts.healthy, [*OPENING, *DELTAS, *CLOSING]),
        (scripts.begun, [*OPENING, "abc", "def"]),
        (scripts.rest, [*DELTAS, *CLOSING]),
        (scripts.slow_content, [*OPENING, "sleep 9", *DELTAS, *CLOSING]),
        (scripts.cut_after_finish, [*OPENING, *DELTAS, "stop", "CUT"]),
        (scripts.content_filter, [*OPENING, "abc", "def", "content_filter", "|DONE|"]),
        (scripts.error_in_stream, [*OPENING, "abc", "def", "error", "|DONE|"]),
        (scripts.no_done, [*OPENING, *DELTAS, "stop", "||"]),
        (lambda it: scripts.breaks(it, End.RESET), [*OPENING, "abc", "def", "RESET", "g", *CLOSING]),
        (lambda it: scripts.odd(it, lambda _: b"data: [DONE]\n\n"), [*OPENING, "abc", "def", "DONE", "g", *CLOSING]),
    ],
)
def test_steps(script: Callable[[Answer], Script], steps: list[str]) -> None:
    """Each script has its steps in this order."""
    assert list(map(said, script(answer()))) == steps


def test_delays() -> None:
    """`first` comes before the headers, and `head` between them and the text."""
    assert list(map(said, scripts.opening(answer("first=2&head=3")))) == ["sleep 2", "head", "|role|", "sleep 3"]


def test_usage() -> None:
    """Usage comes to those who asked, after the finish, unless the script leaves it out."""
    asked: dict[str, Any] = {"stream_options": {"include_usage": True}}
    assert list(map(said, scripts.closing(answer(**asked)))) == ["stop", "|usage DONE|"]
    assert list(map(said, scripts.closing(answer(**asked), usage=False))) == ["stop", "|DONE|"]


def test_whole() -> None:
    """A reply that is not streamed takes as long as its stream would."""
    steps = list(scripts.healthy(answer("first=1&head=2&rate=2", stream=False)))
    assert [said(step) for step in steps] == ["sleep 3", "sleep 1.5", "reply 200"]
    assert isinstance(steps[-1], Reply)
    assert orjson.loads(steps[-1].body or b"")["choices"][0]["message"]["content"] == "abcdefg"
    assert [said(step) for step in scripts.whole(answer(stream=False))] == ["sleep 0", "reply 200"]


def test_a_whole_reply_ends() -> None:
    """An answer that never ends is cut, as it is held as a whole."""
    endless = answer("tokens=0", stream=False)
    *_, reply = scripts.whole(endless)
    assert (endless.finish_reason, endless.spoken) == ("length", LONGEST)
    assert isinstance(reply, Reply)


@pytest.mark.parametrize(
    ("status", "knobs", "headers"),
    [
        (500, "", b""),
        (429, "", b"retry-after: 1\r\nretry-after-ms: 1000\r\n"),
        (503, "", b"retry-after: 1\r\nretry-after-ms: 1000\r\n"),
        (500, "retry_after=1.5", b"retry-after: 2\r\nretry-after-ms: 1500\r\n"),
        (429, "retry_after=0", b"retry-after: 0\r\nretry-after-ms: 0\r\n"),
    ],
)
def test_fails(status: int, knobs: str, headers: bytes) -> None:
    """A status has OpenAI's error with it, and says how long to wait if it should: seconds are rounded up."""
    wait, reply = scripts.fails(answer(knobs), status)
    assert (wait, isinstance(reply, Reply)) == (Sleep(0), True)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers) == (status, headers)
    assert b'"error"' in (reply.body or b"")


def test_flaky() -> None:
    """It fails as often as it is to, for each prompt or key and status, and works then."""
    failures: Counter[str] = Counter()

    def works(knobs: str, status: int = 500) -> bool:
        return said(list(scripts.flaky(answer(knobs, failures=failures), status))[-1]) == "|DONE|"

    assert [works("fail=2") for _ in range(4)] == [False, False, True, True]
    assert [works("key=other") for _ in range(2)] == [False, True]
    assert not works("key=other", 503)


def test_flaky_forgets() -> None:
    """What has failed is not counted without end."""
    failures = Counter({str(number): 1 for number in range(10_001)})
    scripts.flaky(answer(failures=failures), 500)
    assert len(failures) == 1


def test_says() -> None:
    """Anything can be said with a 200."""
    wait, reply = scripts.says(answer(), b"<html>", b"text/html")
    assert (wait, reply) == (Sleep(0), Reply(b"<html>", content_type=b"text/html"))


def test_recast() -> None:
    """All bytes are changed, on the beat and off it, and the steps stay."""
    steps = list(scripts.recast(answer(), lambda data: b"x"))
    assert steps == [Sleep(0), STREAM, Now(b"x"), *[b"x"] * 4, Now(b"x")]


def test_split_utf8() -> None:
    """Each byte is a write of its own, and together they are the stream."""
    steps = list(scripts.split_utf8(answer()))
    written = [step.data for step in steps if isinstance(step, Now)]
    assert {len(data) for data in written} == {1}
    assert b"".join(written).endswith(DONE)
    assert steps.count(Sleep(0)) == len(written) + 1
