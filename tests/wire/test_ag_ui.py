"""AG-UI's events, one for one. That the real `@ag-ui/client` takes them all is shown in tests/real/test_ag_ui.py."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.errors import Draining
from app.events import (
    Annotation,
    Batch,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    PlainReasoning,
    Reasoning,
    Refusal,
    Start,
    ToolCall,
)
from app.usage import Usage
from app.wire import Reading
from app.wire.ag_ui import ReturningRunEncoder, RunEncoder, asked_of
from app.wire.opaque import unseal
from app.wire.responses import ResponsesEncoder
from tests.wire.answers import blocks_of

READING = Reading("S", asked=asked_of("t", "r"))
RUN = {"threadId": "t", "runId": "r"}
START = Start("m", 7)
STOP = Done("stop", None, Usage({"prompt_tokens": 2, "completion_tokens": 1}), "m-1", 4, 9)
STARTED = {
    "type": "RUN_STARTED",
    **RUN,
    "protocolVersion": "1.0",
    "metadata": {"chat-sse": {"stream_id": "S", "model": "m", "created": 7}},
}
FINISHED = {
    "type": "RUN_FINISHED",
    **RUN,
    "outcome": {"type": "success"},
    "usage": [{"model": "m-1", "inputTokens": 2, "outputTokens": 1, "totalTokens": 3}],
    "metadata": {
        "chat-sse": {
            "finish_reason": "stop",
            "usage": {"prompt_tokens": 2, "completion_tokens": 1},
            "model": "m-1",
            "first_token_ms": 4,
            "duration_ms": 9,
        }
    },
}
BROKEN = Failure("Broke.", "upstream_error", "upstream_truncated", True, 502, usage=Usage({"completion_tokens": 1}))


def encoded(*events: Event) -> list[Any]:
    """Return the events of a stream that is read record by record; read at once, it has the same."""
    encode, at_once = RunEncoder(READING), RunEncoder(READING)
    found = read(b"".join(encode(Batch(seq, [event])) for seq, event in enumerate(events, 1)))
    assert read(at_once(Batch(1, events))) == found
    return found


def read(data: bytes) -> list[Any]:
    return [json.loads(block["data"]) for block in blocks_of(data)]


def message(*deltas: str, id_: str = "S", **metadata: Any) -> list[dict[str, Any]]:
    """Return a text of a message: its start, its pieces, its end."""
    place = {"messageId": id_}
    return [
        {"type": "TEXT_MESSAGE_START", **place, "role": "assistant", **metadata},
        *({"type": "TEXT_MESSAGE_CONTENT", **place, "delta": delta} for delta in deltas),
        {"type": "TEXT_MESSAGE_END", **place},
    ]


def reasoning(number: int, *deltas: str, **metadata: Any) -> list[dict[str, Any]]:
    place = {"messageId": f"S-reasoning-{number}"}
    return [
        {"type": "REASONING_START", **place},
        {"type": "REASONING_MESSAGE_START", **place, "role": "reasoning", **metadata},
        *({"type": "REASONING_MESSAGE_CONTENT", **place, "delta": delta} for delta in deltas),
        {"type": "REASONING_MESSAGE_END", **place},
        {"type": "REASONING_END", **place},
    ]


def start(call: str, name: str) -> dict[str, Any]:
    return {"type": "TOOL_CALL_START", "toolCallId": call, "toolCallName": name, "parentMessageId": "S"}


def arguments(call: str, delta: str) -> dict[str, Any]:
    return {"type": "TOOL_CALL_ARGS", "toolCallId": call, "delta": delta}


def end(call: str) -> dict[str, Any]:
    return {"type": "TOOL_CALL_END", "toolCallId": call}


def test_text() -> None:
    """An answer is one text in one message, which has the stream's id, in a run that has the client's names."""
    assert encoded(START, Delta("Hel"), Delta("lo"), STOP) == [STARTED, *message("Hel", "lo"), FINISHED]


def test_a_block() -> None:
    """The id comes before the data, since TanStack's client takes it for that of the data line after it."""
    encode = RunEncoder(READING)
    encode(Batch(1, [START]))
    opened = encode(Batch(2, [Delta("a")]))
    assert opened == (
        b'id: S-2.1\ndata: {"type":"TEXT_MESSAGE_START","messageId":"S","role":"assistant"}\n\n'
        b'id: S-2\ndata: {"type":"TEXT_MESSAGE_CONTENT","messageId":"S","delta":"a"}\n\n'
    )
    assert encode(Batch(3, [Delta("\u2028")])) == (
        b'id: S-3\ndata: {"type":"TEXT_MESSAGE_CONTENT","messageId":"S","delta":"\\u2028"}\n\n'
    )


def test_kinds_take_turns() -> None:
    """One text is open at a time. The answer's goes on in the same message; each piece of reasoning has its own."""
    events = (Reasoning("hm"), Reasoning("m"), Delta("a"), PlainReasoning("x"), Delta("b"), Refusal("no"))
    assert encoded(START, *events, STOP) == [
        STARTED,
        *reasoning(1, "hm", "m"),
        *message("a"),
        *reasoning(2, "x", metadata={"chat-sse": {"reasoning_field": "reasoning"}}),
        *message("b"),
        *message("no", id_="S-refusal", metadata={"chat-sse": {"refusal": True}}),
        FINISHED,
    ]


def test_what_the_protocol_has_no_word_for() -> None:
    """It is a custom event with the name and the data of the native one, and ends no text."""
    others = (
        Annotation([{"type": "url_citation"}], ["u"]),
        Media("image", "image/png", "data:image/png;base64,eA==", "images"),
        Logprobs([{"token": "a"}]),
        Extra({"fingerprint": "f"}, {"c": 1}),
    )
    found = encoded(START, Delta("a"), *others, Delta("b"), STOP)
    whole = message("a", "b")
    assert found == [
        STARTED,
        *whole[:2],
        {
            "type": "CUSTOM",
            "name": "annotation",
            "value": {"annotations": [{"type": "url_citation"}], "citations": ["u"]},
        },
        {
            "type": "CUSTOM",
            "name": "media",
            "value": {
                "type": "image",
                "media_type": "image/png",
                "url": "data:image/png;base64,eA==",
                "field": "images",
            },
        },
        {"type": "CUSTOM", "name": "logprobs", "value": {"content": [{"token": "a"}]}},
        {"type": "CUSTOM", "name": "extra", "value": {"chunk": {"fingerprint": "f"}, "choice": {"c": 1}}},
        *whole[2:],
        FINISHED,
    ]


def test_what_the_upstream_wants_back() -> None:
    """Fields of the message are one encrypted value of it, put together, before the run ends in whatever way."""
    detail = {"type": "reasoning.text", "index": 0}
    events = (
        Delta("a"),
        Extra({}, {}, {"reasoning_details": [{**detail, "text": "a"}]}),
        Extra({}, {}, {"reasoning_details": [{**detail, "text": "b", "signature": "s"}], "odd": 1}),
    )
    for last in (STOP, BROKEN):
        value = encoded(START, *events, last)[-2]
        assert (value["type"], value["subtype"], value["entityId"]) == ("REASONING_ENCRYPTED_VALUE", "message", "S")
        assert unseal(value["encryptedValue"]) == {
            "reasoning_details": [{**detail, "text": "ab", "signature": "s"}],
            "odd": 1,
        }


CALLS = (
    ToolCall(0, "c0", "mcp__", ""),
    ToolCall(0, "", "get", ""),
    ToolCall(1, "c1", "run", "print(", "custom", {"signature": "s"}),
    ToolCall(0, "", "", '{"a"'),
    ToolCall(1, "", "", "1)", "custom"),
    ToolCall(0, "", "", ":1}"),
    ToolCall(2, "", "now", ""),
)


def test_calls() -> None:
    """A call starts when its name is complete, and all calls end with the answer, because they may take turns."""
    found = encoded(START, Delta("a"), *CALLS, STOP)
    (value,) = [event for event in found if event["type"] == "REASONING_ENCRYPTED_VALUE"]
    assert unseal(value.pop("encryptedValue")) == {"signature": "s", "type": "custom"}
    assert found == [
        STARTED,
        *message("a"),
        start("c0", "mcp__get"),
        start("c1", "run"),
        arguments("c1", "print("),
        arguments("c0", '{"a"'),
        arguments("c1", "1)"),
        arguments("c0", ":1}"),
        start("call_S_2", "now"),
        end("c0"),
        {"type": "REASONING_ENCRYPTED_VALUE", "subtype": "tool-call", "entityId": "c1"},
        end("c1"),
        arguments("call_S_2", "{}"),
        end("call_S_2"),
        {**FINISHED, "outcome": {"type": "success", "pendingToolCallIds": ["c0", "c1", "call_S_2"]}},
    ]


@pytest.mark.parametrize("reason", ["length", "content_filter", "cancelled"])
def test_an_answer_that_was_cut(reason: str) -> None:
    """Its calls end as they are, and none is named as pending."""
    last = encoded(START, ToolCall(0, "c", "f", '{"a'), ToolCall(1, "d", "", ""), Done(reason))
    assert [event["type"] for event in last] == [
        "RUN_STARTED",
        "TOOL_CALL_START",
        "TOOL_CALL_ARGS",
        "TOOL_CALL_END",
        "RUN_FINISHED",
    ]
    assert last[-1]["outcome"] == {"type": "cancelled" if reason == "cancelled" else "success"}
    assert last[-1]["metadata"]["chat-sse"]["finish_reason"] == reason
    assert "usage" not in last[-1]


@pytest.mark.parametrize(
    ("end", "pending"), [(STOP, ["c", "d", "e"]), (Done("other", "odd"), ["c"]), (Done("unknown"), ["c"])]
)
def test_a_call_that_may_have_been_cut(end: Done, pending: list[str]) -> None:
    """It is not named as pending; arguments that did not come are made up only if the answer is surely whole."""
    calls = (ToolCall(0, "c", "f", "{}"), ToolCall(1, "d", "g", '{"a'), ToolCall(2, "e", "h", ""))
    found = encoded(START, *calls, end)
    assert found[-1]["outcome"] == {"type": "success", "pendingToolCallIds": pending}
    assert (arguments("e", "{}") in found) is ("e" in pending)


def test_a_call_without_a_name() -> None:
    """A call that never got a name is a call all the same."""
    assert encoded(START, ToolCall(0, "c", "", "1"), STOP)[1:-1] == [start("c", ""), arguments("c", "1"), end("c")]


def test_a_failure() -> None:
    """It is an error of the run, after the text that is open; calls stay open, since no tool is to run."""
    error = {
        "type": "RUN_ERROR",
        "message": "Broke.",
        "code": "upstream_truncated",
        "usage": [{"model": "m", "outputTokens": 1, "totalTokens": 1}],
        "metadata": {
            "chat-sse": {
                "error": {
                    "message": "Broke.",
                    "type": "upstream_error",
                    "code": "upstream_truncated",
                    "retryable": True,
                },
                "usage": {"completion_tokens": 1},
            }
        },
    }
    assert encoded(START, Delta("a"), BROKEN) == [STARTED, *message("a"), error]
    assert encoded(START, ToolCall(0, "c", "f", "{"), BROKEN)[1:] == [start("c", "f"), arguments("c", "{"), error]


def test_a_stream_that_failed_early() -> None:
    """An error may be a run's first event. Any other end needs a start before it."""
    assert [event["type"] for event in encoded(BROKEN)] == ["RUN_ERROR"]
    assert [event["type"] for event in encoded(Done("cancelled"))] == ["RUN_STARTED", "RUN_FINISHED"]


def test_usage() -> None:
    """The counts have the protocol's names; what clients would refuse is left out."""
    fields = {
        "prompt_tokens": 9,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 1 << 60},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    assert encoded(START, Delta("a"), Done("stop", usage=Usage(fields)))[-1]["usage"] == [
        {
            "model": "m",
            "inputTokens": 9,
            "outputTokens": 4,
            "totalTokens": 13,
            "reasoningTokens": 2,
            "cachedInputTokens": 3,
        }
    ]


def test_a_stream_of_another_dialect() -> None:
    """A stream that was asked for elsewhere is a run whose names are its id; and a run's names are no one else's."""
    for asked in ("", '{"model":"m","created_at":1,"instructions":"x"}'):
        (started,) = read(RunEncoder(Reading("S", asked=asked))(Batch(1, [START])))
        assert (started["threadId"], started["runId"]) == ("S", "S")
    (created, _) = read(ResponsesEncoder(READING)(Batch(1, [START])))
    assert created["response"].keys().isdisjoint(RUN)


def test_a_dismissal() -> None:
    """A client that comes back is told when, and no more. Any other would take a cut for the end."""
    encode, returning = RunEncoder(READING), ReturningRunEncoder(READING)
    for each in (encode, returning):
        each(Batch(1, [START, Delta("a")]))
    *closed, error = [
        json.loads(line.removeprefix("data: ")) for line in encode.dismissal(5).decode().split("\n\n")[:-1]
    ]
    assert [event["type"] for event in closed] == ["TEXT_MESSAGE_END"]
    assert (error["type"], error["code"]) == ("RUN_ERROR", Draining.code)
    assert returning.dismissal(5) == b"retry: 5\n"
    assert (encode.resumable, returning.resumable) == (False, True)
