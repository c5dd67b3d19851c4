"""Vercel's dialect, part for part. That the real `ai` package takes them all is shown in tests/real/test_ai_sdk.py."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from app.wire.ai_sdk import CONTINUES, AskedEncoder, CountedEncoder, UIMessageEncoder
from app.wire.counting import Finder
from tests.wire import answers
from tests.wire.answers import STREAM_ID, STREAMS
from tests.wire.blocks import blocks

READING = Reading("S")
START = Start("m", 7)
STOP = Done("stop", None, Usage({"total_tokens": 3}), "m-1", 4, 9)
BROKEN = Failure("Broke.", "upstream_error", "upstream_truncated", True, 502, usage=Usage({"total_tokens": 1}, True))
OPENING = [{"type": "start", "messageId": "S"}, {"type": "start-step"}]
CLOSING = [
    {"type": "finish-step"},
    {"type": "finish", "finishReason": "stop", "messageMetadata": {"usage": {"total_tokens": 3}, "model": "m-1"}},
    "[DONE]",
]


def parts(data: bytes) -> list[Any]:
    """Return what the blocks of *data* carry."""
    return [part if part == "[DONE]" else json.loads(part) for part, _ in blocks(data)]


def encoded(*events: Event, **options: Any) -> list[Any]:
    """Return the parts of a stream that is read record by record; read at once, it has the same."""
    encode, at_once = UIMessageEncoder(READING, **options), UIMessageEncoder(READING, **options)
    found = parts(b"".join(encode(Batch(seq, [event])) for seq, event in enumerate(events, 1)))
    assert parts(at_once(Batch(1, events))) == found
    return found


def text(kind: str, number: int, *deltas: str, **metadata: Any) -> list[dict[str, Any]]:
    """Return a text part: its start, its pieces, its end."""
    pieces = [{"type": f"{kind}-delta", "id": str(number), "delta": delta} for delta in deltas]
    return [
        {"type": f"{kind}-start", "id": str(number), **metadata},
        *pieces,
        {"type": f"{kind}-end", "id": str(number)},
    ]


def test_text() -> None:
    """An answer is one text part in one step, in a message that has the stream's id."""
    assert encoded(START, Delta("Hel"), Delta("lo"), STOP) == [*OPENING, *text("text", 1, "Hel", "lo"), *CLOSING]


def test_nothing() -> None:
    """An answer without a text has no text part."""
    assert encoded(START, STOP) == [*OPENING, *CLOSING]


def test_kinds_take_turns() -> None:
    """One part is open at a time, and another kind of text is another part with an id of its own."""
    events = (Reasoning("hm"), Reasoning("m"), Delta("a"), Reasoning("x"), Delta("b"), Refusal("no"))
    refusal = {"providerMetadata": {"chat-sse": {"refusal": True}}}
    assert encoded(START, *events, STOP) == [
        *OPENING,
        *text("reasoning", 1, "hm", "m"),
        *text("text", 2, "a"),
        *text("reasoning", 3, "x"),
        *text("text", 4, "b"),
        *text("text", 5, "no", **refusal),
        *CLOSING,
    ]


def test_log_probabilities_are_left_out() -> None:
    """Log probabilities send nothing, and do not come between a text and its next piece."""
    logprobs = Logprobs(({"token": "a"},))
    events = (START, Delta("a"), logprobs, Delta("b"), logprobs, STOP)
    assert encoded(*events) == [*OPENING, *text("text", 1, "a", "b"), *CLOSING]


def own(**fields: Any) -> dict[str, Any]:
    return {"providerMetadata": {"chat-sse": fields}}


def test_reasoning_keeps_its_name() -> None:
    """A reasoning part says what the upstream calls it, if that is not what this service sends by itself."""
    plain = own(reasoning_field="reasoning")
    assert encoded(START, PlainReasoning("hm"), STOP)[2:-3] == text("reasoning", 1, "hm", **plain)


DETAIL = {"type": "reasoning.text", "index": 0}


def test_what_belongs_to_reasoning() -> None:
    """Signatures and the like are in the metadata of the reasoning that they came with, put together, at its end."""
    events = (
        Extra({}, {}, {"reasoning_details": [DETAIL | {"text": "a"}]}),
        Reasoning("b"),
        Extra({}, {}, {"reasoning_details": [DETAIL | {"text": "b", "signature": "s"}]}),
    )
    details = [DETAIL | {"text": "ab", "signature": "s"}]
    found = encoded(START, Reasoning("a"), *events, Delta("x"), STOP)
    assert found[2:6] == [
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-delta", "id": "1", "delta": "a"},
        {"type": "reasoning-delta", "id": "1", "delta": "b"},
        {"type": "reasoning-end", "id": "1", **own(reasoning_details=details)},
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]},
        {"thought_signature": "x"},
        {"encrypted_content": "x"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_reasoning_without_a_text(fields: dict[str, Any]) -> None:
    """What belongs to reasoning is a part of its own if there is no text, before the page runs a tool."""
    found = encoded(START, ToolCall(0, "c", "f", "{}"), Extra({}, {}, fields), STOP)
    assert found[4:6] == [
        {"type": "reasoning-start", "id": "1"},
        {"type": "reasoning-end", "id": "1", **own(**fields)},
    ]
    assert found[6]["type"] == "tool-input-available"


def test_other_fields() -> None:
    """Other fields of the delta are one part at the end; those of the chunk and the choice are in the metadata."""
    extra = (Extra({"provider": "p"}, {}, {"odd": "a"}), Extra({"provider": "q"}, {"stop_reason": 1}, {"odd": "b"}))
    found = encoded(START, Delta("x"), extra[0], Delta("y"), extra[1], STOP)
    assert found[2:-3] == [*text("text", 1, "x", "y"), {"type": "data-extra", "data": {"odd": "b"}}]
    assert found[-2]["messageMetadata"]["extra"] == {"chunk": {"provider": "q"}, "choice": {"stop_reason": 1}}


def source(number: int, url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "source-url", "sourceId": str(number), "url": url, **fields}


A = {"type": "url_citation", "url_citation": {"url": "https://a.example", "title": "A"}}
B = {"type": "url_citation", "url": "https://b.example"}
FILE = {"type": "file_citation", "file_id": "f", "filename": "a.pdf"}
ODD = {"type": "odd", "x": 1}


def test_sources() -> None:
    """Citations are sources, in either of OpenAI's forms, and a text goes on around them; what is neither is data."""
    found = encoded(START, Delta("a"), Annotation([A, B, FILE, ODD, "odd"]), Delta("b"), STOP)
    document = {"type": "source-document", "sourceId": "3", "mediaType": "application/octet-stream"}
    assert found[2:-3] == [
        *text("text", 1, "a")[:2],
        source(1, "https://a.example", title="A", **own(annotation=A)),
        source(2, "https://b.example", **own(annotation=B)),
        {**document, "title": "a.pdf", "filename": "a.pdf", **own(annotation=FILE)},
        {"type": "data-annotation", "data": ODD},
        {"type": "data-annotation", "data": "odd"},
        *text("text", 1, "b")[1:],
    ]


def test_perplexitys_citations() -> None:
    """Each URL is a source once, with its title if that is among the results."""
    result = {"url": "u2", "title": "Two"}
    found = encoded(START, Annotation([], ["u1", 5]), Annotation([], ["u1", "u2"], [result, {}]), STOP)
    assert found[2:-3] == [source(1, "u1"), source(2, "u2", title="Two", **own(search_result=result))]


def test_files() -> None:
    """An image is a file, and says in which field it stood; a sound is one at the end, whole."""
    picture = "data:image/png;base64,eA=="
    sounds = [Media("audio", "audio/wav", f"data:audio/wav;base64,{piece}", "audio") for piece in ("eA==", "eQ==")]
    found = encoded(START, Delta("a"), Media("image", "image/png", picture, "images"), *sounds, Delta("b"), STOP)
    assert found[2:-3] == [
        *text("text", 1, "a"),
        {"type": "file", "url": picture, "mediaType": "image/png", **own(field="images")},
        *text("text", 2, "b"),
        {"type": "file", "url": "data:audio/wav;base64,eHk=", "mediaType": "audio/wav", **own(field="audio")},
    ]
    assert encoded(START, Media("file", "text/plain", "u"), STOP)[2] == {
        "type": "file",
        "url": "u",
        "mediaType": "text/plain",
    }


def test_a_sound() -> None:
    """A sound has its id and its transcript; a transcript without a sound is in the message's metadata."""
    url = "data:audio/pcm;base64,eA=="
    pieces = (
        Media("audio", "audio/pcm", "", "audio", {"id": "a", "transcript": "x"}),
        Media("audio", "audio/pcm", url, "audio", {"id": "a", "data": "eA=="}),
        Media("audio", "audio/pcm", "", "audio", {"transcript": "y", "expires_at": 1}),
    )
    metadata = own(field="audio", id="a", transcript="xy")
    [*_, sound, _, _, _] = encoded(START, *pieces, STOP)
    assert sound == {"type": "file", "url": url, "mediaType": "audio/pcm", **metadata}
    *_, finish, _ = encoded(START, pieces[0], pieces[2], STOP)
    assert finish["messageMetadata"]["extra"] == {"audio": {"id": "a", "transcript": "xy"}}
    linked = encoded(START, Media("audio", "audio/wav", "https://a.example/a.wav"), STOP)[2]
    assert (linked["type"], linked["url"]) == ("file", "https://a.example/a.wav")


def calls(*pieces: ToolCall) -> list[Any]:
    """Return what *pieces* become, between the start of the step and its end."""
    found = encoded(START, *pieces, STOP)
    assert found[:2] == OPENING
    assert found[-3:] == CLOSING
    return found[2:-3]


def tool(type_: str, call_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": f"tool-input-{type_}", "toolCallId": call_id, **fields}


def test_parallel_calls() -> None:
    """Pieces of parallel calls may take turns. What they call for is available when the answer is whole, in order."""
    pieces = (
        ToolCall(0, "c0", "f", ""),
        ToolCall(1, "c1", "g", "[1"),
        ToolCall(0, "", "", '{"a"'),
        ToolCall(1, "", "", "]"),
        ToolCall(0, "", "", ': "é"}'),
    )
    assert calls(*pieces) == [
        tool("start", "c0", toolName="f"),
        tool("start", "c1", toolName="g"),
        tool("delta", "c1", inputTextDelta="[1"),
        tool("delta", "c0", inputTextDelta='{"a"'),
        tool("delta", "c1", inputTextDelta="]"),
        tool("delta", "c0", inputTextDelta=': "é"}'),
        tool("available", "c0", toolName="f", input={"a": "é"}),
        tool("available", "c1", toolName="g", input=[1]),
    ]


def test_a_call_ends_a_text() -> None:
    """A text before a call and one after it are two parts."""
    found = encoded(START, Delta("a"), ToolCall(0, "c", "f", "{}"), Delta("b"), STOP)
    assert [part["type"] for part in found[2:-3]] == [
        *("text-start", "text-delta", "text-end"),
        *("tool-input-start", "tool-input-delta"),
        *("text-start", "text-delta", "text-end"),
        "tool-input-available",
    ]


def test_a_name_may_come_late() -> None:
    """A call starts once its name is known, with the arguments so far; at the end it starts without a name."""
    assert calls(ToolCall(0, "c", "", '{"a"'), ToolCall(0, "", "f", ":1"), ToolCall(0, "", "", "}")) == [
        tool("start", "c", toolName="f"),
        tool("delta", "c", inputTextDelta='{"a":1'),
        tool("delta", "c", inputTextDelta="}"),
        tool("available", "c", toolName="f", input={"a": 1}),
    ]
    assert calls(ToolCall(0, "c", "", "{}")) == [
        tool("start", "c", toolName=""),
        tool("delta", "c", inputTextDelta="{}"),
        tool("available", "c", toolName="", input={}),
    ]


def test_a_name_in_pieces() -> None:
    """A call starts when its name is complete: when its arguments come, or something else."""
    assert calls(ToolCall(0, "c", "mcp__", ""), ToolCall(0, "", "get", ""), ToolCall(0, "", "", "{}")) == [
        tool("start", "c", toolName="mcp__get"),
        tool("delta", "c", inputTextDelta="{}"),
        tool("available", "c", toolName="mcp__get", input={}),
    ]
    found = encoded(START, ToolCall(0, "c", "mcp__", ""), ToolCall(0, "", "get", ""), Delta("a"), STOP)
    assert found[2] == tool("start", "c", toolName="mcp__get")


def test_what_the_upstream_wants_back_with_a_call() -> None:
    """Other fields of a call are in the metadata of its part, whenever they come."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    more = {"providerMetadata": {"chat-sse": signed}}
    assert calls(ToolCall(0, "c", "f", "{", "function", signed), ToolCall(0, "", "", "}")) == [
        tool("start", "c", toolName="f", **more),
        tool("delta", "c", inputTextDelta="{"),
        tool("delta", "c", inputTextDelta="}"),
        tool("available", "c", toolName="f", **more, input={}),
    ]
    late = calls(ToolCall(0, "c", "f", "{}"), ToolCall(0, "", "", "", "function", signed))
    assert late[0] == tool("start", "c", toolName="f")
    assert late[-1] == tool("available", "c", toolName="f", **more, input={})


def test_a_custom_call() -> None:
    """The input of a custom call is a text, and any text is right."""
    assert calls(ToolCall(0, "c", "run", "print(", "custom"), ToolCall(0, "", "", "1)", "custom")) == [
        tool("start", "c", toolName="run", **own(type="custom"), inputEncoding="text"),
        tool("delta", "c", inputTextDelta="print("),
        tool("delta", "c", inputTextDelta="1)"),
        tool("available", "c", toolName="run", **own(type="custom"), input="print(1)"),
    ]


@pytest.mark.parametrize("end", [Done("length"), Done("content_filter"), Done("cancelled"), BROKEN], ids=repr)
@pytest.mark.parametrize("arguments", ["", "{}", '{"a"'])
def test_a_call_that_was_cut(end: Event, arguments: str) -> None:
    """The calls of an answer that was cut are never available, nor wrong: the page neither runs them nor asks again."""
    found = encoded(START, ToolCall(0, "c", "f", arguments), ToolCall(1, "d", "", ""), end)
    types = [part["type"] for part in found[:-1]]
    assert "tool-input-start" in types
    assert not {"tool-input-available", "tool-input-error"} & set(types)


@pytest.mark.parametrize("odd", [Done("other", "odd"), Done("unknown")], ids=repr)
def test_a_call_of_an_answer_that_ended_oddly(odd: Done) -> None:
    """With a reason that is not understood, a call is available only if its arguments are there."""
    assert encoded(START, ToolCall(0, "c", "f", "{}"), odd)[-4]["type"] == "tool-input-available"
    assert encoded(START, ToolCall(0, "c", "f", ""), odd)[-4]["type"] == "tool-input-error"


def test_a_call_without_an_id() -> None:
    """A call without an id gets one, as in OpenAI's dialect."""
    found = calls(ToolCall(0, "", "f", "{}"), ToolCall(1, "", "f", "{}"))
    assert [part["toolCallId"] for part in found[-2:]] == ["call_S_0", "call_S_1"]


@pytest.mark.parametrize("arguments", ["", " \n"])
def test_a_call_without_arguments(arguments: str) -> None:
    """No arguments are an empty object."""
    assert calls(ToolCall(0, "c", "f", arguments))[-1] == tool("available", "c", toolName="f", input={})


@pytest.mark.parametrize("arguments", ['{"city": "Par', "{}{}", "NaN", "[" * 300 + "]" * 300])
def test_arguments_that_are_no_json(arguments: str) -> None:
    """Such arguments are an error and are shown as they came: the page runs no tool with them."""
    error = "The arguments of this tool call are not valid JSON."
    assert calls(ToolCall(0, "c", "f", arguments))[-1] == tool(
        "error", "c", toolName="f", input=arguments, errorText=error
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *(("stop", "stop"), ("length", "length"), ("content_filter", "content-filter")),
        *(("tool_calls", "tool-calls"), ("unknown", "other"), ("other", "other")),
    ],
)
def test_finish_reasons(reason: str, finish: str) -> None:
    """They are spelt as the SDK spells them."""
    assert encoded(START, Done(reason))[-2] == {
        "type": "finish",
        "finishReason": finish,
        "messageMetadata": {"usage": None},
    }


STOPPED: list[tuple[Event, list[dict[str, Any]]]] = [
    (Done("cancelled", usage=BROKEN.usage), [{"type": "abort"}, {"type": "finish"}]),
    (BROKEN, [{"type": "error", "errorText": "Broke."}, {"type": "finish", "finishReason": "error"}]),
]


@pytest.mark.parametrize(("end", "last"), STOPPED, ids=["cancelled", "failed"])
def test_a_stream_that_breaks_off(end: Event, last: list[dict[str, Any]]) -> None:
    """The open part is closed and the usage told. A call is not available: the page would run the tool."""
    usage = {"type": "message-metadata", "messageMetadata": {"usage": {"total_tokens": 1, "estimated": True}}}
    found = encoded(START, ToolCall(0, "c", "f", "{}"), Delta("a"), end)
    assert found[2:4] == [tool("start", "c", toolName="f"), tool("delta", "c", inputTextDelta="{}")]
    assert found[4:] == [*text("text", 1, "a"), usage, *last, "[DONE]"]


@pytest.mark.parametrize(("end", "last"), STOPPED, ids=["cancelled", "failed"])
def test_a_stream_that_never_began(end: Event, last: list[dict[str, Any]]) -> None:
    """There is no message then, and telling the usage does not make one."""
    assert encoded(end) == [*last, "[DONE]"]


def test_dismissal() -> None:
    """A reader that is sent away is told so: it does not come back by itself."""
    encode = UIMessageEncoder(READING)
    encode(Batch(1, [START, Delta("a")]))
    ending, error, finish, done = parts(encode.dismissal(250).replace(b"\n\n", b"\nid: none\n\n"))
    assert ending == {"type": "text-end", "id": "1"}
    assert error["type"] == "error"
    assert "shutting down" in error["errorText"]
    assert finish["type"] == "finish"
    assert done == "[DONE]"


def test_an_answer_that_goes_on_with_a_message() -> None:
    """Such an answer names no message, so the SDK takes the last one."""
    assert encoded(START, STOP, continues=True)[0] == {"type": "start"}


def test_a_reader_that_is_behind() -> None:
    """For a reader far enough behind, neighbouring texts of a kind are one piece."""
    batch = Batch(1, [START, Reasoning("x"), Reasoning("y"), Delta("a"), Delta("b"), Delta("c"), STOP])
    near, far = (UIMessageEncoder(Reading("S", merge_after=after))(batch) for after in (8, 7))
    assert near == UIMessageEncoder(READING)(batch)
    assert parts(far) == [*OPENING, *text("reasoning", 1, "xy"), *text("text", 2, "abc"), *CLOSING]


@given(STREAMS, st.lists(st.integers(1, 6), max_size=4), st.lists(st.integers(1, 6), max_size=4), st.booleans())
def test_a_number_of_chunks_is_a_cursor(
    events: list[Event], sizes: list[int], later: list[int], continues: bool
) -> None:
    """A client that counts has the same chunks however far behind it is, and after any number gets exactly the rest."""
    asked = Reading(STREAM_ID, merge_after=2, asked=CONTINUES if continues else "")
    whole = answers.encoded(UIMessageEncoder(Reading(STREAM_ID), continues=continues), events)
    assert answers.encoded(AskedEncoder(asked), events, sizes) == whole
    each = [b"%s\n\n" % block for block in whole.split(b"\n\n")[:-1]]
    assert each[-1].startswith(b"data: [DONE]\n")
    for number in range(1, len(each)):
        finder = Finder(STREAM_ID, number, UIMessageEncoder(asked).count)
        position = next(found for batch in answers.batches(events, sizes) if (found := finder.feed(batch)))
        known = position.seq - 1 if position.place else position.seq
        encode = CountedEncoder(asked)
        for batch in answers.batches(events[:known], sizes):
            encode.skip(batch)
        rest = answers.rest(encode, answers.batches(events[known:], later, known + 1), position)
        # Where nothing but `[DONE]` is left, there is nothing to come back for.
        assert rest == b"".join(each[number:] if number < len(each) - 1 else [])
    finder = Finder(STREAM_ID, len(each), UIMessageEncoder(asked).count)
    assert not any(map(finder.feed, answers.batches(events, sizes)))


def test_a_dismissed_client_that_counts() -> None:
    """It is sent nothing that it would count, and comes back by itself."""
    encode = CountedEncoder(READING)
    encode(Batch(1, [START, Delta("a")]))
    assert encode.dismissal(250) == b""


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_survives_any_line_reader(said: str) -> None:
    """Whatever the text, a block is two lines, even for readers that cut at every Unicode line end."""
    encode = UIMessageEncoder(READING)
    opening, piece = encode(Batch(1, [Delta(said)])).decode().splitlines()[::3]
    assert json.loads(opening.removeprefix("data: "))["type"] == "text-start"
    assert json.loads(piece.removeprefix("data: "))["delta"] == said


CONTENT = st.one_of(
    st.builds(Delta, st.just("a")),
    st.builds(Reasoning, st.just("b")),
    st.builds(Refusal, st.just("c")),
    st.just(Logprobs()),
    st.builds(lambda call, name: ToolCall(call, f"c{call}", name, "1"), st.integers(0, 2), st.sampled_from(["", "f"])),
)
ENDS: list[Event] = [Done("stop"), Done("cancelled"), BROKEN]


@given(st.lists(CONTENT), st.sampled_from(ENDS))
def test_parts_are_in_pairs(content: Sequence[Event], end: Event) -> None:
    """Whatever a stream is made of, each part is opened before its first piece, and closed once, however it ends."""
    opened: set[str] = set()
    used: set[str] = set()
    found = encoded(START, *content, end)
    assert found.pop() == "[DONE]"
    for part in found:
        match part["type"].rpartition("-"):
            case ("text" | "reasoning", _, "start"):
                assert part["id"] not in used
                assert not opened
                opened.add(part["id"])
                used.add(part["id"])
            case ("text" | "reasoning", _, "delta"):
                assert part["id"] in opened
            case ("text" | "reasoning", _, "end"):
                opened.remove(part["id"])
            case ("tool-input", _, "start"):
                assert part["toolCallId"] not in used
                used.add(part["toolCallId"])
            case ("tool-input", _, _):
                assert part["toolCallId"] in used
    assert not opened
