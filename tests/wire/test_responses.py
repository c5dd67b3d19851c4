"""OpenAI's Responses: every event and every response is one to the letter, and numbered the same for each reader."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import BudgetSpent, ContextTooLong, Disconnected, RateLimited
from app.events import Batch, Delta, Done, Event, EventId, Extra, Failure, Logprobs, Reasoning, Refusal, Start, ToolCall
from app.usage import Usage
from app.wire import Later, Reading, dialects
from app.wire.counting import Finder
from app.wire.long import LONG
from app.wire.responses import MAX_ECHO, Response, ResponsesEncoder, echo
from tests.wire import strict
from tests.wire.answers import ENDS, EVERYTHING, STREAM_ID, STREAMS, batches, blocks_of, encoded, responses, rest

START = Start("m", 7)
ASKED = echo({"metadata": {"a": "b"}, "temperature": 0.5, "instructions": "Be brief."}, "m", 7)
USAGE = Usage({"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5, "cost": 0.1})
TEXT_DELTA = "response.output_text.delta"


def reading(merge_after: int = 1000, asked: str = "") -> Reading:
    return Reading(STREAM_ID, merge_after=merge_after, asked=asked)


def said(*events: Event, asked: str = "", merge_after: int = 1000, sizes: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Return the events that *events* become."""
    encode = ResponsesEncoder(reading(merge_after, asked))
    return [json.loads(block["data"]) for block in blocks_of(encoded(encode, events, sizes))]


def types(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text() -> None:
    """A text is a message of one part, in the order that OpenAI's specification has."""
    events = said(START, Delta("Hel"), Delta("lo"), Done("stop", None, USAGE, "m-1", 1, 2500))
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    for event in events[:-1]:
        strict.response_event(event)
    last = events[-1]["response"]
    assert last.pop("usage") == {
        "total_tokens": 5,
        "cost": 0.1,
        "input_tokens": 2,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    response = strict.response(last)
    assert (response.id, response.status, response.model, response.output_text) == (
        f"resp_{STREAM_ID}",
        "completed",
        "m-1",
        "Hello",
    )
    assert (response.created_at, response.completed_at) == (7, 9)
    assert last["output"] == [events[-2]["item"]]


@pytest.mark.parametrize("end", ENDS, ids=repr)
def test_all_kinds_of_records(end: Event) -> None:
    """Ids, types and places stay from an item's beginning to the response; the last event has the whole output."""
    events = said(*EVERYTHING, end, asked=ASKED)
    assert types(events)[:2] == ["created", "in_progress"]
    last = events[-1]["response"]
    assert last["metadata"] == {"a": "b"}
    output = last["output"]
    assert [item["id"].rpartition("_")[2] for item in output] == [str(at) for at in range(len(output))]
    added = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.added")}
    done = {event["output_index"]: event["item"] for event in events if event["type"].endswith("item.done")}
    assert list(added) == list(range(len(output)))
    for at, item in enumerate(output):
        assert (added[at]["id"], added[at]["type"]) == (item["id"], item["type"])
        if at in done:
            assert done[at] == item
    cut = last["status"] != "completed"
    assert {
        item["status"] for item in output if "call" in item["type"] and item["type"] != "image_generation_call"
    } == {"incomplete" if cut else "completed"}
    assert (len(done) < len(output)) is cut
    places = [event["sequence_number"] for event in events]
    assert places == list(range(len(places)))


def test_what_the_items_are() -> None:
    """Each kind of content has its own form, and nothing that came is lost."""
    events = said(*EVERYTHING, ENDS[0])
    output = events[-1]["response"]["output"]
    kinds = [item["type"] for item in output]
    assert kinds == [
        "reasoning",
        "message",
        "image_generation_call",
        "message",
        "function_call",
        "custom_tool_call",
        "reasoning",
    ]
    thought, text, image, rest, call, custom, more = output
    assert thought["summary"] == [{"type": "summary_text", "text": "I think"}]
    [part] = text["content"]
    assert part["text"] == "Hello, world"
    assert [note["url"] for note in part["annotations"]] == ["https://a.example", "https://b.example"]
    assert part["annotations"][1] == {
        "type": "url_citation",
        "url": "https://b.example",
        "title": "B",
        "start_index": 0,
        "end_index": 0,
    }
    assert part["logprobs"] == [{"token": "a"}]
    assert (image["result"], image["output_format"]) == ("eA==", "png")
    assert rest["content"] == [{"type": "refusal", "refusal": "no"}]
    assert rest["audio"] == {"id": "a", "data": "eHg=", "transcript": "xy"}
    assert (call["call_id"], call["name"], call["arguments"]) == ("c0", "mcp__get", '{"a":1}')
    assert call["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert (custom["call_id"], custom["input"]) == ("c1", "print(1)")
    assert more["summary"] == []
    assert more["encrypted_content"].startswith("chat-sse:")
    response = events[-1]["response"]
    assert (response["provider"], response["stop_reason"], response["odd"]) == ("x", 1, "o")
    assert response["citations"] == ["https://b.example"]


@pytest.mark.parametrize(
    "content",
    [
        [Delta("a")],
        [Refusal("a")],
        [Reasoning("a"), Delta("b"), Reasoning("c")],
        [ToolCall(0, "c", "f", "{}")],
        [ToolCall(0, "c", "f", "x", "custom")],
        [ToolCall(0, "c", "f", ""), ToolCall(1, "d", "g", "")],
        [Delta("a"), Logprobs([{"token": "a", "logprob": -1.0, "bytes": [97], "top_logprobs": []}]), Delta("b")],
    ],
    ids=repr,
)
@pytest.mark.parametrize("end", [Done("stop"), Done("length"), Failure.of(Disconnected())], ids=repr)
def test_to_the_letter(content: list[Event], end: Event) -> None:
    """Each event is OpenAI's, with every field that it requires, and no field that it does not have."""
    for event in said(START, *content, end, asked=ASKED):
        strict.response_event(event)


def test_a_call_without_arguments() -> None:
    """Its arguments are an empty object, because clients parse them."""
    events = said(START, ToolCall(0, "c", "f", ""), Done("tool_calls"))
    assert types(events)[2:] == [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert (events[3]["delta"], events[4]["arguments"], events[5]["item"]["arguments"]) == ("{}",) * 3


@pytest.mark.parametrize(
    ("end", "kind", "status", "reason"),
    [
        (Done("stop"), "completed", "completed", None),
        (Done("tool_calls"), "completed", "completed", None),
        (Done("unknown"), "completed", "completed", None),
        (Done("other", "odd"), "completed", "completed", None),
        (Done("length"), "incomplete", "incomplete", "max_output_tokens"),
        (Done("content_filter"), "incomplete", "incomplete", "content_filter"),
        (Done("cancelled"), "incomplete", "cancelled", "cancelled"),
    ],
    ids=repr,
)
def test_ends(end: Done, kind: str, status: str, reason: str | None) -> None:
    """What becomes of each finish reason."""
    *_, item, last = said(START, Delta("a"), end)
    response = last["response"]
    assert (types([last]), response["status"]) == ([kind], status)
    assert response["incomplete_details"] == ({"reason": reason} if reason else None)
    assert response.get("native_finish_reason") == end.raw_reason
    assert item["item"]["status"] == ("incomplete" if reason else "completed")


@pytest.mark.parametrize(("arguments", "status"), [("{}", "completed"), ("", "incomplete"), ('{"a', "incomplete")])
@pytest.mark.parametrize("end", [Done("unknown"), Done("other", "odd")], ids=repr)
def test_a_call_of_an_answer_that_ended_oddly(end: Done, arguments: str, status: str) -> None:
    """With a reason that is not understood, a response with a call that may have been cut is not completed."""
    events = said(START, ToolCall(0, "c", "f", arguments), end, asked=ASKED)
    response = events[-1]["response"]
    assert (types(events)[-1], response["status"], response["incomplete_details"]) == (status, status, None)
    assert [(item["status"], item["arguments"]) for item in response["output"]] == [(status, arguments)]
    response.pop("native_finish_reason", None)  # this service's own
    strict.response_event(events[-1])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Disconnected(), "server_error"),
        (RateLimited(), "rate_limit_exceeded"),
        (BudgetSpent(), "rate_limit_exceeded"),
        (ContextTooLong(), "invalid_prompt"),
    ],
)
def test_failures(error: Any, code: str) -> None:
    """A failure is in the response, with OpenAI's code and with this service's."""
    last = said(START, Delta("a"), Failure.of(error))[-1]
    assert last["type"] == "response.failed"
    found = last["response"]["error"]
    assert (found["code"], found["service_code"], found["message"]) == (code, error.code, error.text)
    assert last["response"]["output"][0]["content"][0]["text"] == "a"


def test_the_upstreams_own_code() -> None:
    """What the upstream called the failure is its code."""
    error = ContextTooLong()
    error.told = {"status": 400, "code": "context_length_exceeded", "type": "invalid_request_error"}
    assert said(Failure.of(error))[-1]["response"]["error"]["code"] == "context_length_exceeded"


def test_a_failure_before_the_start() -> None:
    """A stream that failed early begins as any other, since the SDKs expect `response.created`."""
    events = said(Failure.of(Disconnected()), asked=ASKED)
    assert types(events) == ["created", "in_progress", "failed"]
    assert (events[0]["response"]["model"], events[0]["response"]["created_at"]) == ("m", 7)


def test_the_response_so_far() -> None:
    """It is what the events have said, whatever is open, and queued before its first record."""
    response = Response(STREAM_ID, ASKED)
    assert response.resource["status"] == "queued"
    strict.response(response.resource)
    seen: list[Event] = [START, Delta("Hel"), Delta("lo"), Reasoning("hm"), ToolCall(0, "c", "f", '{"a"')]
    for event in seen:
        response.take(event)
    found = strict.response(response.resource)
    assert (found.status, found.output_text) == ("in_progress", "Hello")
    assert [item["status"] for item in response.resource["output"]] == ["completed", "completed", "in_progress"]
    assert response.resource["output"][-1]["arguments"] == '{"a"'
    assert response.resource["temperature"] == 0.5
    part = Response(STREAM_ID)
    for event in (START, Reasoning("h"), Reasoning("m")):
        part.take(event)
    assert part.resource["output"][0]["summary"] == [{"type": "summary_text", "text": "hm"}]


def test_what_is_echoed() -> None:
    """A response says its request again, as far as that is short, and the smallest fields first."""
    large = {"tools": [{"type": "function", "name": "x" * MAX_ECHO}], "user": "u", "input": "secret", "unknown": 1}
    found = Response(STREAM_ID, echo(large, "m", 7)).resource
    assert (found["user"], found["tools"], "input" in found, "unknown" in found) == ("u", [], False, False)


def test_a_dismissal_has_the_number_of_the_last_event() -> None:
    """A client that comes back with it misses nothing."""
    encode = ResponsesEncoder(reading())
    before = blocks_of(encoded(encode, [START, Delta("a")]))
    last = json.loads(before[-1]["data"])["sequence_number"]
    [block] = encode.dismissal(250).decode().split("\n\n")[:-1]
    event = json.loads(block.partition("data: ")[2])
    assert (event["type"], event["code"], event["sequence_number"]) == ("error", "shutting_down", last)
    strict.response_event(event)


@given(STREAMS, st.lists(st.integers(1, 6), max_size=4), st.sampled_from([2, 3, 1000]))
def test_a_number_is_a_cursor(events: list[Event], sizes: list[int], merge_after: int) -> None:
    """After the event with any number, however the records came together, comes exactly the rest."""
    whole = blocks_of(encoded(ResponsesEncoder(reading()), events))
    merged = blocks_of(encoded(ResponsesEncoder(reading(merge_after)), events, sizes))
    assert responses(merged) == responses(whole)
    numbers = [json.loads(block["data"])["sequence_number"] for block in merged]
    assert numbers == sorted(set(numbers))
    for number in range(len(whole)):
        finder = Finder(STREAM_ID, number + 1, ResponsesEncoder(reading()).count)
        found = [position for batch in batches(events, sizes) if (position := finder.feed(batch)) is not None]
        position = found[0]
        known = position.seq - 1 if position.place else position.seq
        encode = dialects()["responses"](reading(merge_after))
        for batch in batches(events[:known], sizes):
            encode.skip(batch)
        sent = rest(encode, batches(events[known:], sizes, known + 1), position)
        assert responses([*whole[: number + 1], *blocks_of(sent)]) == responses(whole)


@given(STREAMS, st.lists(st.integers(1, 6), max_size=4))
def test_in_pieces(events: list[Event], sizes: list[int]) -> None:
    """What may close a long text is refused as a whole, without any change, and is the same in pieces."""
    whole = encoded(ResponsesEncoder(reading()), events, sizes)
    with patch("app.wire.responses.LONG", 2), patch("app.wire.long.LONG", 2):
        encode, sent = ResponsesEncoder(reading()), b""
        for batch in batches(events, sizes):
            try:
                sent += encode(batch)
            except Later:
                *pieces, (last, more) = encode.pieces(batch)
                assert not more
                assert all(more for _, more in pieces)
                sent += b"".join(data for data, _ in pieces) + last
        assert sent == whole
        assert rest(ResponsesEncoder(reading()), batches(events, sizes), EventId(STREAM_ID, 0)) == whole


@pytest.mark.parametrize("after", [ToolCall(0, "c", "f", "{}"), Reasoning("Why?"), Extra(delta={"a": 1}), Done("stop")])
def test_a_long_text_is_closed_in_pieces(after: Event) -> None:
    """Whatever follows a long text is left to the pieces, each of which has one block at most."""
    encode = ResponsesEncoder(reading())
    encode(Batch(1, (START, Delta("a" * (LONG + 1)))))
    with pytest.raises(Later):
        encode(Batch(3, (after,)))
    assert encode(Batch(3, (Delta("b"),))).count(b"\n\n") == 1
    pieces = [*encode.pieces(Batch(4, (Delta("c"), after, Delta("d"))))]
    assert all(data.count(b"\n\n") <= 1 for data, _ in pieces[:-1])
    assert [more for _, more in pieces] == [True] * (len(pieces) - 1) + [False]


def test_a_number_that_is_not_there() -> None:
    """Past the last event there is no position; the last one's is that of the last record."""
    events: list[Event] = [START, Delta("a"), Done("stop")]
    count = len(said(*events))
    for number, position in ((count - 1, EventId(STREAM_ID, 3)), (count, None), (0, EventId(STREAM_ID, 1, 1))):
        finder = Finder(STREAM_ID, number + 1, ResponsesEncoder(reading()).count)
        found = [finder.feed(batch) for batch in batches(events, [1])]
        assert next((each for each in found if each), None) == position


def test_a_text_after_an_image() -> None:
    """It is another item, also if it is in a batch of its own."""
    image = EVERYTHING[11]
    output = said(START, Delta("a"), image, Delta("b"), Done("stop"))[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["message", "image_generation_call", "message"]


def test_a_text_after_notes_in_a_batch_of_its_own() -> None:
    """A part that a note has opened goes on with the text that comes next."""
    notes = said(START, EVERYTHING[9], Delta("a"), Delta("b"), Done("stop"))
    deltas = [event for event in notes if event["type"] == TEXT_DELTA]
    assert [(event["delta"], event["item_id"]) for event in deltas] == [
        ("a", f"msg_{STREAM_ID}_0"),
        ("b", f"msg_{STREAM_ID}_0"),
    ]
