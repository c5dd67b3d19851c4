"""The items of a response, as records make them. `test_responses` has the events of a whole stream."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import Disconnected
from app.events import (
    CONTENT_PARTS,
    Annotation,
    Delta,
    Done,
    Event,
    Extra,
    Failure,
    Logprobs,
    Media,
    Reasoning,
    Refusal,
    ToolCall,
)
from app.wire.opaque import unseal
from app.wire.response_output import ITEM_ID, REASONING_FIELD, Output

ID = "S" * 22
DONE = Done("stop")
IMAGE = Media("image", "image/png", "data:image/png;base64,eA==")
LINK = "https://images.example/a.png"


def output(*events: Event) -> Output:
    found = Output(ID)
    for event in events:
        found.take(event)
    return found


def items(*events: Event) -> list[dict[str, Any]]:
    return output(*events).items


def types(*events: Event) -> list[str]:
    return [item["type"] for item in items(*events)]


@pytest.mark.parametrize(
    ("events", "kinds"),
    [
        ([Delta("a"), Delta("b")], ["message"]),
        ([Delta("a"), Refusal("b"), Delta("c")], ["message"]),
        ([Reasoning("a"), Delta("b"), Reasoning("c")], ["reasoning", "message", "reasoning"]),
        ([Delta("a"), ToolCall(0, "c", "f", "{}"), Delta("b")], ["message", "function_call", "message"]),
        ([ToolCall(0, "c", "f", "{"), ToolCall(1, "d", "g", "x", "custom")], ["function_call", "custom_tool_call"]),
        ([Delta("a"), IMAGE, Delta("b")], ["message", "image_generation_call", "message"]),
        ([Media("image", "image/png", LINK)], ["message"]),
        ([Annotation(citations=["u"])], ["message"]),
        ([Extra(delta={"output": [{"type": "web_search_call"}]}), Delta("a")], ["web_search_call", "message"]),
        ([], []),
    ],
)
def test_what_is_an_item(events: list[Event], kinds: list[str]) -> None:
    """An item goes on while its kind of content does; calls, images and the upstream's items stand alone."""
    assert types(*events, DONE) == kinds


def test_ids() -> None:
    """An item's id has the stream and the item's place in it."""
    found = items(Reasoning("a"), Delta("b"), ToolCall(0, "c", "f", "{}"), IMAGE, DONE)
    matches = [ITEM_ID.fullmatch(item["id"]) for item in found]
    assert [match and match.groups() for match in matches] == [(ID, str(at)) for at in range(4)]


def test_so_far() -> None:
    """Items that are open are shown as far as they have come."""
    found = output(Delta("a"), Delta("b"))
    (message,) = found.items
    assert (message["status"], message["content"][0]["text"]) == ("in_progress", "ab")
    found.take(ToolCall(0, "c", "f", '{"a"'))
    found.take(ToolCall(0, "", "", ":1"))
    message, call = found.items
    assert (message["status"], call["status"], call["arguments"]) == ("completed", "in_progress", '{"a":1')


def test_a_piece_is_an_event() -> None:
    """A piece of an open text is one event, and can be added by `write` alone."""
    found = output(Delta("a"))
    events = found.take(Delta("b"))
    assert events == [{**found.place, "delta": "b"}]
    assert found.kind is Delta
    found.write("c")
    assert found.items[0]["content"][0]["text"] == "abc"


def test_a_text_after_an_image() -> None:
    """An image ends the text before it at once, since nothing else looks at a text that goes on with an open part."""
    assert output(Delta("a"), IMAGE).kind is None


def test_a_name_in_pieces() -> None:
    """A call starts when its arguments begin, or something else follows: its name may grow until then."""
    found = output(ToolCall(0, "c", "mcp__", ""))
    assert found.items == []
    (added, delta) = found.take(ToolCall(0, "", "get", "{}"))
    assert (added["item"]["name"], added["item"]["arguments"], delta["delta"]) == ("mcp__get", "", "{}")


@pytest.mark.parametrize(
    ("end", "statuses"),
    [
        (DONE, ["completed", "completed", "completed", "completed"]),
        (Done("tool_calls"), ["completed", "completed", "completed", "completed"]),
        (Done("unknown"), ["completed", "completed", "incomplete", "incomplete"]),
        (Done("other", "odd"), ["completed", "completed", "incomplete", "incomplete"]),
        (Done("length"), ["completed", "incomplete", "incomplete", "incomplete"]),
        (Done("content_filter"), ["completed", "incomplete", "incomplete", "incomplete"]),
        (Done("cancelled"), ["completed", "incomplete", "incomplete", "incomplete"]),
        (Failure.of(Disconnected()), ["completed", "incomplete", "incomplete", "incomplete"]),
    ],
    ids=repr,
)
def test_a_call_that_may_lack_its_end(end: Event, statuses: list[str]) -> None:
    """A client runs a call that is done, so one that was cut is not, and arguments are not made up for it."""
    found = output(Delta("a"), ToolCall(0, "c", "f", "{}"), ToolCall(1, "d", "g", "{"), ToolCall(2, "e", "h", ""))
    events = found.take(end)
    items = found.items
    assert [item["status"] for item in items] == statuses
    done = [event["output_index"] for event in events if event["type"] == "response.output_item.done"]
    assert done == [at for at, status in enumerate(statuses) if at and status == "completed"]
    assert items[3]["arguments"] == ("{}" if statuses[3] == "completed" else "")
    assert found.lacks_calls is ("incomplete" in statuses)


def test_a_text_that_was_cut() -> None:
    """So is a text."""
    assert items(Delta("a"), Done("length"))[0]["status"] == "incomplete"


def test_the_arguments_are_one_text() -> None:
    """The end of a call and the whole response have the same text, which is encoded once for both if it is long."""
    found = output(ToolCall(0, "c", "f", '{"a": '))
    found.take(ToolCall(0, "", "", "1}"))
    done, item_done = found.take(DONE)[-2:]
    assert done["arguments"] == '{"a": 1}'
    assert done["arguments"] is item_done["item"]["arguments"] is found.items[0]["arguments"]


def test_calls_without_arguments() -> None:
    """A function's arguments are an empty object then, as clients parse them. A custom tool's input stays empty."""
    function, custom = items(ToolCall(0, "c", "f", ""), ToolCall(1, "d", "g", "", "custom"), DONE)
    assert (function["arguments"], custom["input"]) == ("{}", "")


def test_notes_and_log_probabilities() -> None:
    """They belong to the text that they follow, and not to the next one."""
    found = items(Delta("a"), Annotation([{"n": 1}]), Logprobs([{"token": "a"}]), Refusal("b"), Delta("c"), DONE)
    first, refusal, last = found[0]["content"]
    assert (first["annotations"], first["logprobs"]) == ([{"n": 1}], [{"token": "a"}])
    assert refusal == {"type": "refusal", "refusal": "b"}
    assert (last["annotations"], last["logprobs"]) == ([], [])


def test_citations() -> None:
    """Perplexity's lists belong to the whole response; each of their URLs is a note once, with its title."""
    results = [{"url": "v", "title": "V"}, {"title": "none"}]
    found = output(Delta("a"), Annotation([], ["u", 3], results), Annotation([], ["u", "v"]), DONE)
    assert found.rest == {"citations": ["u", "v"], "search_results": results}
    notes = found.items[0]["content"][0]["annotations"]
    assert [(note["url"], note["title"]) for note in notes] == [("u", ""), ("v", "V")]


def test_an_image_and_the_upstreams_item() -> None:
    """The upstream's own item for an image comes right after it, and is said with it."""
    item = {"type": "image_generation_call", "id": "i", "revised_prompt": "p"}
    (image,) = items(IMAGE, Extra(delta={"output": [item]}), DONE)
    assert (image["result"], image["output_format"], image["revised_prompt"]) == ("eA==", "png", "p")
    assert image["id"] == f"ig_{ID}_0"


def test_several_images_and_the_upstreams_items() -> None:
    """One record may have the items of all images before it, in their order. What it has more is an item of its own."""
    second = Media("image", "image/png", "data:image/png;base64,eQ==")
    told = [{"type": "image_generation_call", "revised_prompt": prompt} for prompt in ("a", "b", "c")]
    found = items(IMAGE, second, Extra(delta={"output": told}), DONE)
    assert [(item.get("result"), item["revised_prompt"]) for item in found] == [
        ("eA==", "a"),
        ("eQ==", "b"),
        (None, "c"),
    ]
    known, unknown = items(IMAGE, second, Extra(delta={"output": told[:1]}), DONE)
    assert (known["revised_prompt"], "revised_prompt" in unknown) == ("a", False)
    assert items(IMAGE, Extra(delta={"output": 5}), DONE)[0]["result"] == "eA=="


def test_other_media() -> None:
    """They are fields of the message, as in chat completions."""
    (message,) = items(Media("image", "image/png", LINK), Delta("a"), DONE)
    assert message["images"] == [{"type": "image_url", "image_url": {"url": LINK}}]


def test_other_fields() -> None:
    """Fields of the chunk and the choice belong to the response, those of the delta to the message or the reasoning."""
    extra = Extra({"provider": "x"}, {"stop_reason": 1}, {"odd": 2, "reasoning_details": [{"data": "d"}], "id": "no"})
    found = output(Delta("a"), extra, DONE)
    message, reasoning = found.items
    assert found.rest == {"provider": "x", "stop_reason": 1}
    assert (message["odd"], message["id"]) == (2, f"msg_{ID}_0")
    assert unseal(reasoning["encrypted_content"]) == {"reasoning_details": [{"data": "d"}]}


def test_reasoning_keeps_the_upstreams_name() -> None:
    """What the upstream wants back with the next request goes with the reasoning that it came with."""
    (reasoning,) = items(Reasoning("a"), Extra(delta={"signature": "s"}), DONE)
    assert reasoning["summary"] == [{"type": "summary_text", "text": "a"}]
    assert unseal(reasoning["encrypted_content"]) == {REASONING_FIELD: Reasoning.FIELD, "signature": "s"}


@pytest.mark.parametrize(
    ("text", "kind", "field"), [(Delta("a"), "output_text", "text"), (Refusal("a"), "refusal", "refusal")]
)
def test_other_fields_of_a_text(text: Event, kind: str, field: str) -> None:
    """They stand beside the text that came before them, which is there once, and not beside the next one."""
    found = output(text, Extra(delta={"content_parts": [{"type": kind, "sig": "s"}]}))
    (message,) = found.items
    found.take(Reasoning("b"))
    found.take(text)
    found.take(DONE)
    first, _, last = found.items
    assert [message["content"], first["content"], last["content"]] == [
        [{**last["content"][0], "sig": "s"}],
        [{**last["content"][0], "sig": "s"}],
        last["content"],
    ]
    assert (last["content"][0][field], "sig" in last["content"][0]) == ("a", False)


def test_fields_of_a_text_that_is_not_open() -> None:
    """They begin a text, so that they arrive."""
    (message,) = items(Refusal("a"), Extra(delta={"content_parts": [{"type": "output_text", "sig": "s"}]}), DONE)
    assert [(part["type"], part.get("sig")) for part in message["content"]] == [("refusal", None), ("output_text", "s")]


def test_parts_and_messages_of_the_upstream() -> None:
    """A part of no known type stands where it came; the other fields of a message are those of ours."""
    part = {"type": "new", "data": 1}
    end = Extra(delta={"output": [{"type": "message", "id": "m", "phase": "final"}]})
    (message,) = items(Delta("a"), Extra(delta={"content_parts": [part]}), Delta("b"), end, DONE)
    assert [each["type"] for each in message["content"]] == ["output_text", "new", "output_text"]
    assert message["content"][1] == part
    assert message["phase"] == "final"


def test_messages_with_a_phase() -> None:
    """A message ends with the fields that its upstream's item had, and what follows is another message."""
    ends = [
        Extra(delta={"output": [{"type": "message", "id": "m", "phase": phase}]}) for phase in ("commentary", "final")
    ]
    found = output(Delta("I will look."))
    *_, done = found.take(ends[0])
    assert (done["type"], done["item"]["phase"]) == ("response.output_item.done", "commentary")
    for event in (Delta("Done."), ends[1], DONE):
        found.take(event)
    assert [(item["id"], item["phase"], item["content"][0]["text"]) for item in found.items] == [
        (f"msg_{ID}_0", "commentary", "I will look."),
        (f"msg_{ID}_1", "final", "Done."),
    ]


def test_a_phase_after_a_call() -> None:
    """The call has ended its message already, so the fields are those of the next one."""
    end = Extra(delta={"output": [{"type": "message", "phase": "final"}]})
    found = items(Delta("a"), ToolCall(0, "c", "f", ""), end, ToolCall(0, "", "", "{}"), Delta("b"), DONE)
    assert [(item["type"], item.get("phase")) for item in found] == [
        ("message", None),
        ("function_call", None),
        ("message", "final"),
    ]


def test_reasoning_in_parts() -> None:
    """Reasoning that came as parts is one item, which has the parts for the upstream; a part of text is in no other."""
    thought, signed = {"type": "thinking", "thinking": "a", "index": 0}, {"type": "text", "text": "b", "signature": "s"}
    parts = [Extra(delta={CONTENT_PARTS: [thought]}), Extra(delta={CONTENT_PARTS: [{**thought, "index": 1}]})]
    reasoning, message = items(
        Reasoning("a"), parts[0], Reasoning("a"), parts[1], Delta("b"), Extra(delta={CONTENT_PARTS: [signed]}), DONE
    )
    assert unseal(reasoning["encrypted_content"]) == {
        REASONING_FIELD: Reasoning.FIELD,
        CONTENT_PARTS: [thought, {**thought, "index": 1}],
    }
    assert [part["text"] for part in message["content"]] == ["b"]
    assert message[CONTENT_PARTS] == [signed]
