"""Whatever JSON an upstream puts into any field: each dialect makes one stream of it, with one end.

The events of streams that were seen are changed at random, read as an upstream's, and sent in every dialect.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import UpstreamError
from app.events import TERMINAL, Batch, Delta, Done, Event, Failure, Start
from app.journal import encoding
from app.upstream.reading.chat import chat_reader
from app.upstream.reading.reader import AnswerReader
from app.upstream.responses.reader import responses_reader
from app.wire import Reading, dialects, native
from app.wire.openai import completion, failure_of
from app.wire.responses import Response
from app.wire.transcript import Transcript
from tests.upstream.reading.quirks import CASES
from tests.upstream.responses.quirks import RESPONSES

STREAM_ID = "S" * 22
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}


def payloads(raw: bytes) -> list[Any]:
    """Return the JSON values among the data lines of *raw*."""
    found: list[Any] = []
    for line in raw.splitlines():
        if line.startswith(b"data:"):
            try:
                found.append(orjson.loads(line.removeprefix(b"data:")))
            except orjson.JSONDecodeError:
                continue
    return found


def chunk(**delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta}]}


def item(at: int, **fields: Any) -> dict[str, Any]:
    return {"type": "response.output_item.done", "output_index": at, "item": fields}


# What the streams that were seen have little of.
CHATS = [found for case in CASES if (found := payloads(case.raw[:8192]))] + [
    [chunk(images=[PICTURE]), chunk(output=[{"type": "image_generation_call", "status": "completed"}])],
    [chunk(images=[PICTURE], output=[{"type": "x"}], content_parts=[{"type": "x"}])],
    [chunk(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}])],
    [{**chunk(content="x"), "citations": ["u"], "search_results": [{"url": "u", "title": "t"}]}],
]
RESPONSE_EVENTS = [found for case in RESPONSES if (found := payloads(case.raw[:8192]))] + [
    [item(0, type="image_generation_call", id="i", result="eA==", output_format="png")],
    [item(0, type="code_interpreter_call", id="i", outputs=[{"type": "image", "url": "data:image/png;base64,eA=="}])],
    [item(0, type="function_call", call_id="c", name="f", arguments="{}")],
]
NAMES = """type url image_url data output content images annotations url_citation text id index name function arguments
    status summary result"""
WORDS = ("image_generation_call", "message", "reasoning", "function_call", "url_citation", "data:image/png;base64,eA==")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4),
    max_leaves=8,
)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield where there is something in *value*: the list or the object, and the index or the name."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


@st.composite
def changed(draw: st.DrawFn, streams: Sequence[list[Any]]) -> list[Any]:
    """Return the events of one of *streams*, in which a few values are others, or are put into lists or objects."""
    events: list[Any] = copy.deepcopy(draw(st.sampled_from(streams)))
    for _ in range(draw(st.integers(1, 3))):
        whole, key = draw(st.sampled_from([*places(events)]))
        before = whole[key]
        whole[key] = draw(
            JSON
            | st.just([before])
            | st.fixed_dictionaries({"type": JSON, "content": st.just(before)})
            | st.builds(lambda name, value, old=before: {**old, name: value}, st.sampled_from(NAMES.split()), JSON)
            if isinstance(before, dict)
            else JSON | st.just([before])
        )
    return events


def read(reader: AnswerReader[Any], said: Sequence[Any]) -> list[Event]:
    """Return the records of the stream in which an upstream has *said* these events."""
    records: list[Event] = [Start("m", 7)]
    for each in said:
        records += reader.feed(b"data: " + json.dumps(each).encode() + b"\n\n")
    records += reader.end()
    try:
        return [*records, reader.result()]
    except UpstreamError as error:
        return [*records, Failure.of(error)]


DONE = re.compile(rb"(?m)^data: \[DONE\]$")  # a line of its own, because a model may write the same
# How the one end of a stream looks in each dialect.
END: dict[str, Callable[[bytes], int]] = {
    "events": lambda sent: sent.count(b"event: done\n") + sent.count(b"event: error\n"),
    "openai": lambda sent: len(DONE.findall(sent)) or sent.count(b'data: {"error":'),
    "ai-sdk": lambda sent: len(DONE.findall(sent)),
    "responses": lambda sent: sum(
        sent.count(b"event: response.%s\n" % kind) for kind in (b"completed", b"incomplete", b"failed")
    ),
    "ag-ui": lambda sent: sent.count(b'{"type":"RUN_FINISHED"') + sent.count(b'{"type":"RUN_ERROR"'),
}


def check(records: Sequence[Event]) -> None:
    assert [isinstance(event, TERMINAL) for event in records].index(True) == len(records) - 1
    for again in (records, encoding.decode(encoding.encode(records))):
        for name, create in dialects().items():
            encode = create(Reading(STREAM_ID, merge_after=1, include_usage=True))
            assert END[name](encode(Batch(1, again))) == 1
            encode = create(Reading(STREAM_ID))
            sent = [encode(Batch(number, [event])) for number, event in enumerate(again, 1)]
            assert END[name](b"".join(sent)) == 1
            create(Reading(STREAM_ID)).skip(Batch(1, again))
    transcript = Transcript.of(records)
    assert native.snapshot(STREAM_ID, transcript)
    if isinstance(transcript.end, Done) and failure_of(transcript.end) is None:
        assert orjson.dumps(completion(STREAM_ID, transcript))
    response = Response(STREAM_ID)
    for event in records:
        response.take(event)
    assert orjson.dumps(response.resource)


@settings(max_examples=100)
@given(changed(CHATS))
@example([chunk(content="data: [DONE]"), chunk(content="[DONE]"), {"choices": [{"index": 0, "finish_reason": "stop"}]}])
@example([chunk(images=[PICTURE]), chunk(output=5, odd=1)])
@example([chunk(content="x"), chunk(content_parts="x", reasoning_details=[[]])])
def test_chats(said: list[Any]) -> None:
    """Chunks of any shape end in one end."""
    check(read(chat_reader(), said))


@settings(max_examples=100)
@given(changed(RESPONSE_EVENTS))
@example([item(0, type=["function_call"], call_id="c", name="f", arguments="{}")])
@example([{"type": "response.completed", "response": {"output": 5, "status": "completed"}}])
@example([{"type": "response.completed", "response": {"output": [5, None, [{}]], "error": [None]}}])
@example([{"type": "response.output_text.delta", "delta": "x"}, {"type": "response.completed", "response": []}])
def test_responses(said: list[Any]) -> None:
    """Events of Responses of any shape end in one end."""
    check(read(responses_reader(), said))


@pytest.mark.parametrize("name", dialects())
def test_an_end_is_seen(name: str) -> None:
    """The tests above tell an end from none, and two ends from one."""
    encode = dialects()[name](Reading(STREAM_ID))
    begun = encode(Batch(1, [Start("m", 7), Delta("x")]))
    end = encode(Batch(3, [Done("stop")]))
    assert [END[name](sent) for sent in (begun, begun + end, begun + end + end)] == [0, 1, 2]
