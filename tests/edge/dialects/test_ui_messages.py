"""The AI SDK's messages: what they say to a model in OpenAI's words, and that what cannot be said is refused by name.

That the real `ai` package says the same of them is shown in tests/real/test_ai_sdk.py.
"""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest

from app.edge.dialects.ui_messages import to_openai
from app.errors import BadRequest
from tests.watchdog import watching

HI = {"role": "user", "parts": [{"type": "text", "text": "hi"}]}


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "u", "role": "user", "parts": list(parts)}


def assistant(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"id": "a", "role": "assistant", "parts": list(parts)}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said, "state": "done"}


def file(media_type: str, url: str, **fields: Any) -> dict[str, Any]:
    return {"type": "file", "mediaType": media_type, "url": url, **fields}


def tool(state: str, **fields: Any) -> dict[str, Any]:
    return {"type": "tool-look_up", "toolCallId": "c1", "state": state, "input": {"q": "é"}, **fields}


STEP = {"type": "step-start"}
CALL: dict[str, Any] = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q":"é"}'}}],
}


def output(content: str) -> dict[str, str]:
    return {"role": "tool", "tool_call_id": "c1", "content": content}


def test_texts() -> None:
    """A user's one text is a string; more than one stay apart. The system's and an assistant's are one."""
    assert to_openai(
        [
            {"role": "system", "parts": [text("Be "), text("brief.")]},
            user(text("a")),
            assistant(STEP, text("b"), text("c")),
            user(text("d"), text("")),
        ]
    ) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "bc"},
        {"role": "user", "content": [{"type": "text", "text": "d"}, {"type": "text", "text": ""}]},
    ]


def test_what_is_for_the_page_is_dropped() -> None:
    """Sources, data and files of an assistant never reach the model, nor does metadata."""
    dropped: list[dict[str, Any]] = [
        {"type": "reasoning-file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
        {"type": "source-url", "sourceId": "1", "url": "https://example.com"},
        {"type": "source-document", "sourceId": "1", "mediaType": "text/plain", "title": "t"},
        {"type": "data-weather", "data": {"t": 1}},
        {"type": "custom", "kind": "a.b"},
        file("image/png", "data:image/png;base64,AA=="),
        file("audio/wav", "data:audio/wav;base64,AA==", **own(field="audio")),
    ]
    message = assistant(STEP, *dropped, text("a")) | {"metadata": {"usage": {}}}
    assert to_openai([HI, message]) == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a"}]
    assert to_openai([user({"type": "data-x", "data": 1}, text("hi"))]) == [{"role": "user", "content": "hi"}]


def own(**fields: Any) -> dict[str, Any]:
    return {"providerMetadata": {"chat-sse": fields}}


def reasoning(said: Any, **metadata: Any) -> dict[str, Any]:
    return {"type": "reasoning", "text": said, "state": "done", **metadata}


DETAILS = [{"type": "reasoning.text", "index": 0, "text": "hm", "signature": "c2ln"}]


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        ([reasoning("h"), reasoning("m")], {"reasoning_content": "hm"}),
        ([reasoning("hm", **own(reasoning_field="reasoning"))], {"reasoning": "hm"}),
        ([reasoning("hm", **own(reasoning_field="role"))], {"reasoning_content": "hm"}),
        (
            [reasoning("hm", **own(reasoning_field="reasoning", reasoning_details=DETAILS))],
            {"reasoning": "hm", "reasoning_details": DETAILS},
        ),
        (
            [reasoning("", **own(reasoning_details=DETAILS)), reasoning("", **own(reasoning_details=[{"data": "x"}]))],
            {"reasoning_details": [*DETAILS, {"data": "x"}]},
        ),
        ([reasoning("hm", providerMetadata={"openai": {"itemId": "rs_1"}})], {"reasoning_content": "hm"}),
        ([reasoning("hm", providerMetadata="odd"), reasoning(None), reasoning(1)], {"reasoning_content": "hm"}),
        ([{"type": "data-extra", "data": {"odd": 1, "role": "system", "content": "no"}}], {"odd": 1}),
        ([{"type": "data-extra", "data": "odd"}], {}),
        (
            [{"type": "data-extra", "data": {"output": [{"type": "web_search_call"}], "content_parts": [1]}}],
            {"content_parts": [1]},
        ),
        (
            [file("image/png", "data:image/png;base64,AA==", **own(field="images"))],
            {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
        ),
        ([file("audio/wav", "data:audio/wav;base64,AA==", **own(field="audio", id="a1"))], {"audio": {"id": "a1"}}),
    ],
)
def test_what_goes_back(parts: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    """What this service's answer had beside its text goes back into the fields that it came from."""
    found = to_openai([HI, assistant(STEP, *parts, text("a"))])
    assert found[1] == {"role": "assistant", "content": "a", **fields}


def test_an_image_in_the_content() -> None:
    """An image that was a part of the content is one again, at its place."""
    image = file("image/png", "https://a.example/a.png", **own(field="content"))
    found = to_openai([HI, assistant(STEP, text("a"), image, text("b"))])
    assert found[1]["content"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://a.example/a.png"}},
        {"type": "text", "text": "b"},
    ]


def test_an_answer_that_is_an_image() -> None:
    """An answer without a text is a message if it had an image."""
    image = file("image/png", "https://a.example/a.png", **own(field="images"))
    [_, message] = to_openai([HI, assistant(STEP, image)])
    assert (message["content"], len(message["images"])) == (None, 1)


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


@pytest.mark.parametrize(
    "part",
    [
        tool("output-available", output="42", callProviderMetadata={"chat-sse": SIGNED}),
        tool("output-error", errorText="42", resultProviderMetadata={"chat-sse": SIGNED}),
    ],
)
def test_what_goes_back_with_a_call(part: dict[str, Any]) -> None:
    """Each call has the fields again that its upstream had given it, and the reasoning stands with the calls."""
    found = to_openai([HI, assistant(STEP, reasoning("hm"), part)])
    assert found[1] == {**CALL, "reasoning_content": "hm", "tool_calls": [{**CALL["tool_calls"][0], **SIGNED}]}


def test_a_custom_call_goes_back() -> None:
    """A custom call is one again, and its input is the text that it was; nothing stands for its id or its name."""
    metadata = {"chat-sse": {"type": "custom", "id": "no", "custom": {"name": "no", "odd": 1}}}
    part = tool("output-available", output="42", callProviderMetadata=metadata) | {"input": "print(1)"}
    assert to_openai([HI, assistant(STEP, part)])[1]["tool_calls"] == [
        {"id": "c1", "type": "custom", "custom": {"name": "look_up", "input": "print(1)", "odd": 1}}
    ]


def test_an_answer_that_broke_off_before_it_said_anything() -> None:
    """It is left out, for an empty message says nothing, and some providers refuse it."""
    broken = [assistant(), assistant(STEP), assistant(STEP, {"type": "reasoning", "text": "hm"}), assistant(text(""))]
    assert to_openai([HI, *broken, HI]) == [{"role": "user", "content": "hi"}] * 2


@pytest.mark.parametrize(
    ("part", "content"),
    [
        (
            file("image/png", "https://example.com/a.png"),
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ),
        (
            file("image", "data:image/png;base64,AA=="),
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
        ),
        (
            file("audio/wav", "data:audio/wav;base64,AA=="),
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        ),
        (
            file("audio/mpeg", "data:audio/mpeg;base64,AA=="),
            {"type": "input_audio", "input_audio": {"data": "AA==", "format": "mp3"}},
        ),
        (
            file("application/pdf", "data:application/pdf;base64,AA==", filename="a.pdf"),
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        ),
        (
            file("application/pdf", "data:application/pdf;base64,AA=="),
            {"type": "file", "file": {"filename": "part-0.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        ),
    ],
)
def test_files(part: dict[str, Any], content: dict[str, Any]) -> None:
    """Images go by URL, sound and documents as data, each as OpenAI has it."""
    said = [content, {"type": "text", "text": "What is it?"}]
    assert to_openai([user(part, text("What is it?"))]) == [{"role": "user", "content": said}]


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (tool("output-available", output="42"), "42"),
        (tool("output-available", output={"t": [1, None]}), '{"t":[1,null]}'),
        (tool("output-available"), "null"),
        (tool("output-error", errorText="no"), '{"error":"no"}'),
        (tool("output-denied", approval={"id": "1", "approved": False, "reason": "not now"}), '{"error":"not now"}'),
        (tool("approval-responded", approval={"id": "1", "approved": False}), "Tool call execution denied."),
        (tool("output-available", output="42") | {"type": "dynamic-tool", "toolName": "look_up"}, "42"),
    ],
)
def test_tools(part: dict[str, Any], said: str) -> None:
    """A call and what came of it are a message each."""
    assert to_openai([HI, assistant(STEP, part)]) == [{"role": "user", "content": "hi"}, CALL, output(said)]


@pytest.mark.parametrize("given", ['{"q', None, [1]])
def test_arguments_that_were_no_object(given: object) -> None:
    """None are sent back instead, as no provider takes them."""
    found = to_openai([HI, assistant(tool("output-error", errorText="no") | {"input": given})])
    assert found[1]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_steps() -> None:
    """Each step is a message of its own, followed by the outputs of its tools; a user may have come between them."""
    first = tool("output-available", output="42")
    second = {**first, "toolCallId": "c2"}
    steering = {"type": "steering-message", "id": "s", "parts": [text("wait")]}
    found = to_openai([HI, assistant(STEP, text("a"), first, second, steering, STEP, text("b"))])
    assert found[1:] == [
        {
            "role": "assistant",
            "content": "a",
            "tool_calls": [*CALL["tool_calls"], {**CALL["tool_calls"][0], "id": "c2"}],
        },
        output("42"),
        output("42") | {"tool_call_id": "c2"},
        {"role": "user", "content": "wait"},
        {"role": "assistant", "content": "b"},
    ]


@pytest.mark.parametrize("state", ["input-streaming", "input-available", "approval-requested"])
def test_a_call_that_the_user_passed_over(state: str) -> None:
    """Without an output it is left out once the user has gone on, for no provider takes a call without one."""
    found = to_openai([HI, assistant(STEP, text("a"), tool(state)), HI])
    assert found[1:] == [{"role": "assistant", "content": "a"}, {"role": "user", "content": "hi"}]


APPROVED = {"id": "1", "approved": True}


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([user()], "messages[0].parts"),
        ([user({"type": "reasoning", "text": "a"})], "messages[0].parts"),
        ([assistant()], "messages"),
        ([user(text("a"), {"type": "text"})], "messages[0].parts[1].text"),
        ([{"role": "system", "parts": [text("a"), {"type": "text", "text": 1}]}], "messages[0].parts[1].text"),
        ([user({"type": "thought"})], "messages[0].parts[0].type"),
        ([user(tool("output-available", output=1))], "messages[0].parts[0].type"),
        ([user(file("image/png", "blob:x"))], "messages[0].parts[0].url"),
        ([user(file("image/png", "data:image/svg+xml,<svg/>"))], "messages[0].parts[0].url"),
        ([user(file("audio/ogg", "data:audio/ogg;base64,AA=="))], "messages[0].parts[0].mediaType"),
        ([user(file("video/mp4", "data:video/mp4;base64,AA=="))], "messages[0].parts[0].mediaType"),
        ([user(file("application/pdf", "https://example.com/a.pdf"))], "messages[0].parts[0].url"),
        ([user(file("application/pdf", "data:;base64,AA==", filename=1))], "messages[0].parts[0].filename"),
        ([user({"type": "file", "url": "https://example.com/a.png"})], "messages[0].parts[0].mediaType"),
        ([HI, assistant({"type": "thought"})], "messages[1].parts[0].type"),
        ([HI, assistant(tool("output-maybe"))], "messages[1].parts[0].state"),
        ([HI, assistant(tool("output-error"))], "messages[1].parts[0].errorText"),
        ([HI, assistant(tool("output-available") | {"toolCallId": None})], "messages[1].parts[0].toolCallId"),
        ([HI, assistant(tool("output-available") | {"type": "dynamic-tool"})], "messages[1].parts[0].toolName"),
        ([HI, assistant(STEP, tool("input-available"))], "messages[1].parts[1].state"),
        ([HI, assistant(STEP, tool("approval-responded", approval=APPROVED))], "messages[1].parts[1].state"),
        ([HI, assistant({"type": "steering-message", "parts": 1})], "messages[1].parts[0].parts"),
        ([HI, assistant({"type": "steering-message", "parts": [{"type": 1}]})], "messages[1].parts[0].parts"),
        ([HI, assistant({"type": "steering-message", "parts": [STEP]})], "messages[1].parts[0].parts"),
        (
            [HI, assistant({"type": "steering-message", "parts": [STEP, {"type": "x"}]})],
            "messages[1].parts[0].parts[1].type",
        ),
    ],
)
def test_what_cannot_be_said(messages: list[dict[str, Any]], field: str) -> None:
    """It is refused, and the error names the field."""
    with pytest.raises(BadRequest) as caught:
        to_openai(messages)
    assert caught.value.param == field
    assert f"'{field}'" in caught.value.text


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "reasoning", "text": "x" * 100}, "reasoning_content"),
        ({"type": "data-extra", "data": {"signatures": ["x" * 100]}}, "signatures"),
    ],
)
def test_many_parts(part: dict[str, Any], field: str) -> None:
    """Ten thousand parts become one field without a copy of it for each, and without a change to what was sent."""

    async def convert() -> list[dict[str, Any]]:
        return to_openai([HI, assistant(*[part] * 10_000, text("a"))])

    before = copy.deepcopy(part)
    with watching():
        _, message = asyncio.run(convert())
    assert len("".join(message[field])) == 1_000_000
    assert part == before
