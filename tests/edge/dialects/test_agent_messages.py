"""AG-UI's messages as the model gets them."""

from __future__ import annotations

from typing import Any

import pytest

from app.edge.dialects.agent_messages import AgentContext, AgentTool, to_messages, to_tool
from app.errors import BadRequest
from app.wire.opaque import seal

USER = {"id": "u", "role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


def said(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return to_messages(messages, ())


def test_texts() -> None:
    """Each message keeps its role, its text and its name; ids and metadata are the client's own."""
    assert said(
        {"id": "1", "role": "system", "content": "be brief", "metadata": {"a": 1}},
        {"id": "2", "role": "developer", "content": "be kind"},
        {**USER, "name": "ann"},
        {"id": "3", "role": "assistant", "content": "ho"},
        {"id": "4", "role": "activity", "activityType": "x", "content": {"a": 1}},
    ) == [
        {"role": "system", "content": "be brief"},
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": "ho"},
    ]


def test_calls_and_outputs() -> None:
    """Calls and the outputs of tools have OpenAI's form; an error is an output, if nothing else was put out."""
    assert said(
        USER,
        {"id": "a", "role": "assistant", "toolCalls": [CALL, {**CALL, "id": "d"}]},
        {"id": "t", "role": "tool", "toolCallId": "c", "content": "1", "error": "ignored"},
        {"id": "t", "role": "tool", "toolCallId": "d", "content": "", "error": "no"},
        {"id": "t", "role": "tool", "toolCallId": "e", "content": [{"type": "text", "text": "x"}]},
    )[1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": name, "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}} for name in "cd"
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": '{"error":"no"}'},
        {"role": "tool", "tool_call_id": "e", "content": [{"type": "text", "text": "x"}]},
    ]


def test_calls_that_are_left_over() -> None:
    """A call of an answer that broke off is left out, unless it has an output; so is a message with nothing else."""
    whole, cut = CALL, {**CALL, "id": "d", "function": {"name": "f", "arguments": '{"path": "/'}}
    output = {"id": "t", "role": "tool", "toolCallId": "d", "content": "1"}
    called = {"id": "a", "role": "assistant", "content": "so", "toolCalls": [whole, cut]}

    def kept(*after: dict[str, Any]) -> list[list[str]]:
        found = said(USER, called, *after)
        return [
            [call["id"] for call in message.get("tool_calls", ())]
            for message in found
            if message["role"] == "assistant"
        ]

    assert kept() == [["c"]]  # a tool may still be running
    assert kept(USER) == [[]]
    assert kept(output, USER) == [["d"]]
    assert kept(called, output) == [["c"], ["c", "d"]]
    silent = {**called, "content": "", "toolCalls": [cut]}
    assert said(USER, silent, USER) == said(USER, USER)
    picture = seal({"images": [1]})
    assert said(USER, {**silent, "encryptedValue": picture}, USER)[1] == {
        "role": "assistant",
        "content": None,
        "images": [1],
    }


def test_what_the_upstream_had_said() -> None:
    """Encrypted values of ours go back into the message and the call; fields that stand for the message's do not."""
    value = seal({"reasoning_details": [1], "content_parts": [3], "content": "forged", "role": "system", "output": [2]})
    own = {**CALL, "encryptedValue": seal({"type": "custom", "signature": "s", "custom": {"x": 1}})}
    message = {"id": "a", "role": "assistant", "content": "ho", "encryptedValue": value, "toolCalls": [own]}
    assert said(USER, message)[1] == {
        "role": "assistant",
        "content": "ho",
        "reasoning_details": [1],
        "content_parts": [3],
        "tool_calls": [
            {
                "signature": "s",
                "id": "c",
                "type": "custom",
                "custom": {"x": 1, "name": "f", "input": '{"a":1}'},
            }
        ],
    }
    assert said({**message, "encryptedValue": "theirs", "toolCalls": None})[0] == {"role": "assistant", "content": "ho"}


def thought(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "r", "role": "reasoning", "content": text, **more}


def test_reasoning() -> None:
    """It belongs to the assistant's message that is next to it, and has the name that the upstream gave it."""
    plain = {"metadata": {"chat-sse": {"reasoning_field": "reasoning"}}}
    answer = {"id": "a", "role": "assistant", "content": "ho"}
    assert said(USER, thought("h"), thought("m", encryptedValue=seal({"odd": 1})), answer)[1] == {
        "role": "assistant",
        "content": "ho",
        "reasoning_content": "hm",
        "odd": 1,
    }
    assert said(thought("hm", **plain), answer) == [{"role": "assistant", "content": "ho", "reasoning": "hm"}]
    assert said(answer, thought("hm"), USER)[0] == {"role": "assistant", "content": "ho", "reasoning_content": "hm"}
    assert said(answer, thought("hm"))[0]["reasoning_content"] == "hm"
    assert said(USER, thought("hm"), USER, answer)[2] == {"role": "assistant", "content": "ho"}


def test_media() -> None:
    """Images are sent by any URL, sounds and documents as data."""
    data = {"type": "data", "value": "eA==", "mimeType": "image/png"}
    parts = [
        {"type": "text", "text": "look"},
        {"type": "image", "source": data},
        {"type": "image", "source": {"type": "url", "value": "https://a.example/x"}},
        {"type": "audio", "source": data | {"mimeType": "Audio/MPEG"}},
        {"type": "audio", "source": {"type": "url", "value": "data:audio/wav;base64,eA=="}},
        {"type": "document", "source": data | {"mimeType": "application/pdf"}},
    ]
    (message,) = said({**USER, "content": parts})
    assert message["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
        {"type": "image_url", "image_url": {"url": "https://a.example/x"}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "mp3"}},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        {"type": "file", "file": {"filename": "part-5.pdf", "file_data": "data:application/pdf;base64,eA=="}},
    ]


def part(**fields: Any) -> dict[str, Any]:
    return {**USER, "content": [fields]}


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({**USER, "content": None}, "messages[0].content"),
        ({"id": "a", "role": "assistant", "content": [1]}, "messages[0].content"),
        ({"id": "a", "role": "system", "content": {}}, "messages[0].content"),
        ({"id": "a", "role": "tool", "content": "x"}, "messages[0].toolCallId"),
        ({**USER, "content": [1]}, "messages[0].content[0]"),
        (part(type="video"), "messages[0].content[0].type"),
        (part(type="text"), "messages[0].content[0].text"),
        (part(type="image"), "messages[0].content[0].source"),
        (part(type="image", source={"type": "file", "value": "f"}), "messages[0].content[0].source.type"),
        (part(type="image", source={"type": "url", "value": "file:///x"}), "messages[0].content[0].source.value"),
        (part(type="image", source={"type": "data", "value": "x"}), "messages[0].content[0].source.mimeType"),
        (part(type="document", source={"type": "url", "value": "https://x"}), "messages[0].content[0].source"),
        (
            part(type="audio", source={"type": "data", "value": "x", "mimeType": "audio/ogg"}),
            "messages[0].content[0].source.mimeType",
        ),
        ({"id": "r", "role": "reasoning", "content": "hm"}, "messages"),
    ],
    ids=str,
)
def test_what_cannot_be_said(message: dict[str, Any], field: str) -> None:
    """The refusal names the field."""
    with pytest.raises(BadRequest) as refused:
        said(message)
    assert refused.value.param == field
    assert f"'{field}'" in refused.value.text


def test_context() -> None:
    """What the model is to know is a system message before the others."""
    context = [AgentContext(description="The user", value="Ann"), AgentContext(description="The page", value="/x")]
    assert to_messages([USER], context) == [
        {"role": "system", "content": "The user:\nAnn\n\nThe page:\n/x"},
        {"role": "user", "content": "hi"},
    ]


def test_tools() -> None:
    """A tool is a function."""
    assert to_tool(AgentTool(name="f")) == {"type": "function", "function": {"name": "f"}}
    assert to_tool(AgentTool(name="f", description="d", parameters={"type": "object"})) == {
        "type": "function",
        "function": {"name": "f", "description": "d", "parameters": {"type": "object"}},
    }
