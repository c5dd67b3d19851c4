"""What the items, tools and formats of a response become for an upstream that speaks chat completions."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.dialects.response_input import to_choice, to_messages, to_response_format, to_tool
from app.errors import BadRequest
from app.events import Done, Event
from app.request import StreamRequest
from app.upstream.responses.request import responses_fields
from app.wire.opaque import seal
from app.wire.responses import Response
from tests.wire.answers import EVERYTHING, PICTURE, STREAM_ID

USER = {"role": "user", "content": "hi"}
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}", "status": "completed"}
CALLED = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_string() -> None:
    """A string is what the user says; instructions come before it."""
    assert to_messages("hi", None) == [USER]
    assert to_messages("hi", "Be brief.") == [{"role": "system", "content": "Be brief."}, USER]


@pytest.mark.parametrize("role", ["user", "system", "developer"])
@pytest.mark.parametrize("kind", [{}, {"type": "message"}])
def test_messages(role: str, kind: dict[str, str]) -> None:
    """A message keeps its role; content that is only text is a string, which every upstream takes."""
    for content in ("hi", [{"type": "input_text", "text": "hi"}]):
        assert to_messages([{**kind, "role": role, "content": content}], None) == [{"role": role, "content": "hi"}]


def test_parts() -> None:
    """Images and files have another form, and what chat completions lack stays as it is."""
    parts = [
        {"type": "input_text", "text": "see"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "low"},
        {"type": "input_image", "image_url": "data:image/png;base64,eA=="},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="},
        {"type": "input_audio", "input_audio": {"data": "eA==", "format": "wav"}},
        {"type": "input_file", "file_url": "https://a.example/b.pdf"},
        {"type": "input_image", "file_id": "file_1"},
    ]
    [message] = to_messages([{"role": "user", "content": parts}], None)
    assert message["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://a.example/b.png", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,eA=="}},
        *parts[4:],
    ]


def test_a_tool_loop() -> None:
    """Reasoning, text and calls are one message of the assistant's; each output is one of a tool's."""
    items: list[dict[str, Any]] = [
        USER,
        {
            "type": "reasoning",
            "id": "rs_1",
            "summary": [{"type": "summary_text", "text": "hm"}],
            "encrypted_content": seal({"field": "reasoning", "reasoning_details": [1]}),
        },
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]},
        {**CALL, "extra_content": {"google": {"thought_signature": "c2ln"}}},
        {"type": "custom_tool_call", "call_id": "d", "name": "g", "input": "x"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "d", "output": [{"type": "input_text", "text": "2"}]},
        {"role": "user", "content": "and?"},
    ]
    assert to_messages(items, None) == [
        USER,
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "hm",
            "reasoning_details": [1],
            "tool_calls": [
                {**CALLED, "extra_content": {"google": {"thought_signature": "c2ln"}}},
                {"id": "d", "type": "custom", "custom": {"name": "g", "input": "x"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "tool", "tool_call_id": "d", "content": "2"},
        {"role": "user", "content": "and?"},
    ]


def test_two_calls_one_after_the_other() -> None:
    """A call whose output comes before the next call is a message of its own."""
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}
    messages = to_messages([CALL, output, CALL, output], None)
    assert [message["role"] for message in messages] == ["assistant", "tool", "assistant", "tool"]


def test_two_messages_of_the_assistant() -> None:
    """They stay two, unless a call keeps them together."""
    said = [{"role": "assistant", "content": text} for text in ("a", "b")]
    assert to_messages(said, None) == said
    assert to_messages([CALL, said[0]], None) == [{"role": "assistant", "content": "a", "tool_calls": [CALLED]}]


def test_what_belongs_to_the_reasoning_of_a_text() -> None:
    """It goes back in the part that it came with. Notes, log probabilities and what an SDK has made of it do not."""
    signed = {"type": "output_text", "text": "a", "thought_signature": "c2ln"}
    item = {"role": "assistant", "content": [{**signed, "annotations": [{}], "logprobs": [{}], "parsed": {"a": 1}}]}
    messages = to_messages([item], None)
    sent = responses_fields(StreamRequest("m", tuple(messages)), {}, background=False)["input"]
    assert sent == [{"role": "assistant", "content": [signed]}]


def test_phases() -> None:
    """A message keeps its phase on the way to an upstream that speaks Responses."""
    items = [
        {"type": "message", "role": "assistant", "phase": phase, "content": [{"type": "output_text", "text": phase}]}
        for phase in ("commentary", "final_answer")
    ]
    messages = to_messages(items, None)
    assert messages == [
        {"role": "assistant", "content": phase, "phase": phase} for phase in ("commentary", "final_answer")
    ]
    assert responses_fields(StreamRequest("m", tuple(messages)), {}, background=False)["input"] == messages


def test_what_is_left_out() -> None:
    """Tools that ran upstream are, and reasoning with nothing after it; a refusal and an image are not."""
    items: list[dict[str, Any]] = [
        {"type": "web_search_call", "id": "ws_1", "status": "completed"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {"type": "image_generation_call", "result": "eA==", "output_format": "webp"},
        USER,
        {"type": "reasoning", "summary": []},
    ]
    image = {"type": "image_url", "image_url": {"url": "data:image/webp;base64,eA=="}}
    assert to_messages(items, None) == [
        {"role": "assistant", "content": None, "refusal": "no", "images": [image]},
        USER,
    ]


def test_reasoning_of_another_service() -> None:
    """Its ciphertext goes as it came to an upstream that speaks Responses."""
    item = {"type": "reasoning", "id": "rs_x", "summary": [], "encrypted_content": "gAAAA"}
    messages = to_messages([item, {"role": "assistant", "content": "a"}], None)
    sent = responses_fields(StreamRequest("m", tuple(messages)), {}, background=False)["input"]
    assert sent == [item, {"role": "assistant", "content": "a"}]


def test_several_items_of_reasoning() -> None:
    """The texts of several items are one text, and the lists in their opaque texts one list."""
    items = [
        {"type": "reasoning", "summary": [{"text": text}], "encrypted_content": seal({"details": [text], "same": text})}
        for text in "abc"
    ]
    [message] = to_messages([*items, CALL], None)
    assert (message["reasoning_content"], message["details"], message["same"]) == ("abc", ["a", "b", "c"], "c")


class Counted(str):
    """A text that counts the characters which are copied to add it to another one."""

    __slots__ = ()
    copied: ClassVar[int] = 0

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> Counted:
        Counted.copied += len(self) + len(other)
        return Counted(super().__add__(other))

    def __radd__(self, other: str) -> Counted:
        return Counted(other) + self


def test_many_pieces_of_a_text() -> None:
    """To put a text together costs by its length, and not by its length for each of its pieces."""
    Counted.copied = 0
    refused = [{"type": "refusal", "refusal": Counted("0123456789")} for _ in range(1000)]
    [message] = to_messages([{"role": "assistant", "content": refused}], None)
    assert message["refusal"] == "0123456789" * 1000
    assert Counted.copied <= 10_000


@pytest.mark.parametrize("field", ["reasoning_content", "refusal"])
def test_an_opaque_text_that_somebody_else_made(field: str) -> None:
    """Whatever it says of a field that is a text here, the other items are read."""
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "encrypted_content": seal({field: 5})},
        {"type": "reasoning", "summary": [{"text": "I think"}]},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        CALL,
    ]
    [message] = to_messages(items, None)
    assert message[field] == 5
    assert message["tool_calls"] == [CALLED]


TYPES = ("message", "reasoning", "function_call", "custom_tool_call", "function_call_output", "image_generation_call")
FIELDS = (
    "role",
    "content",
    "summary",
    "encrypted_content",
    "call_id",
    "name",
    "arguments",
    "input",
    "output",
    "result",
)
PART = st.sampled_from(("input_text", "input_image", "input_file", "refusal", "text"))
VALUE = st.recursive(
    st.none() | st.integers(0, 2) | st.sampled_from(("", "x", "assistant", "user", seal({"refusal": [1]}))),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.fixed_dictionaries({"type": PART | inner}, optional=dict.fromkeys(("text", "refusal", "image_url"), inner))
    ),
    max_leaves=4,
)


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"type": st.sampled_from(TYPES) | VALUE, **dict.fromkeys(FIELDS, VALUE)}),
        min_size=1,
        max_size=4,
    )
)
def test_any_items(items: list[dict[str, Any]]) -> None:
    """Whatever the items are, they become messages or are refused by the name of a field."""
    try:
        messages = to_messages(items, None)
    except BadRequest as error:
        assert error.param
        assert error.param.startswith("input[")
    else:
        assert all(isinstance(message["role"], str) for message in messages)


def test_our_own_answer_comes_back() -> None:
    """What an upstream wants back is in the message and in the calls, where it had been."""
    response = Response(STREAM_ID)
    events: list[Event] = [*EVERYTHING, Done("tool_calls")]
    for event in events:
        response.take(event)
    said, called = to_messages(response.resource["output"], None)
    assert (said["reasoning"], said["content"]) == ("I think", "Hello, world")
    [details] = said["reasoning_details"]
    assert (details["text"], details["signature"]) == ("I think", "c2ln")
    assert said["images"] == [{"type": "image_url", "image_url": {"url": PICTURE}}]
    assert called["thinking_blocks"] == [{"type": "thinking"}]
    assert (called["refusal"], called["audio"]["id"]) == ("no", "a")
    function, custom = called["tool_calls"]
    assert function["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert function["function"] == {"name": "mcp__get", "arguments": '{"a":1}'}
    assert custom["custom"] == {"name": "run", "input": "print(1)"}


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"type": "odd"}, "input[0].type"),
        ({}, "input[0].type"),
        ({"type": "local_shell_call"}, "input[0].type"),
        ({"role": "tool", "content": "x"}, "input[0].role"),
        ({"role": "user", "content": 1}, "input[0].content"),
        ({"role": "user"}, "input[0].content"),
        ({"role": "user", "content": [1]}, "input[0].content"),
        ({"role": "user", "content": [{"text": "x"}]}, "input[0].content[0].type"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
        ({"type": "function_call", "name": "f", "arguments": "{}"}, "input[0].call_id"),
        ({"type": "function_call", "call_id": "c", "arguments": "{}"}, "input[0].name"),
        ({"type": "function_call", "call_id": "c", "name": "f", "arguments": {}}, "input[0].arguments"),
        ({"type": "function_call_output", "output": "x"}, "input[0].call_id"),
        ({"type": "function_call_output", "call_id": "c"}, "input[0].output"),
    ],
)
def test_what_is_refused(item: dict[str, Any], param: str) -> None:
    """What cannot be said is refused by the name of its field."""
    with pytest.raises(BadRequest) as refused:
        to_messages([item], None)
    assert refused.value.param == param


def test_tools() -> None:
    """Functions and custom tools are nested in chat completions; the upstream's own tools stay as they are."""
    function: dict[str, Any] = {"type": "function", "name": "f", "parameters": {}, "strict": None}
    assert to_tool(function) == {"type": "function", "function": {"name": "f", "parameters": {}}}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "x"}
    assert to_tool({"type": "custom", "name": "g", "format": grammar}) == {
        "type": "custom",
        "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}},
    }
    assert to_tool({"type": "web_search"}) == {"type": "web_search"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("auto", "auto"),
        (None, None),
        ({"type": "function", "name": "f"}, {"type": "function", "function": {"name": "f"}}),
        ({"type": "web_search"}, {"type": "web_search"}),
        (
            {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
            },
        ),
    ],
)
def test_choices(given: Any, expected: Any) -> None:
    """A choice of a tool is nested, too."""
    assert to_choice(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, None),
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {}, "strict": True, "description": None},
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {}, "strict": True}},
        ),
    ],
)
def test_formats(given: Any, expected: Any) -> None:
    """A format of the text is a response format."""
    assert to_response_format(given) == expected


def test_there_and_back() -> None:
    """An upstream that speaks Responses gets the items that the client sent."""
    items = [
        {"role": "user", "content": "hi"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "1"},
    ]
    sent = responses_fields(StreamRequest("m", tuple(to_messages(items, None))), {}, background=False)
    assert sent["input"] == items
