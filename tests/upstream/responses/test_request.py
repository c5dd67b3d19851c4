"""What becomes of a chat request on its way to a Responses upstream."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from app.errors import Rejected
from app.request import StreamRequest
from app.upstream.responses.request import responses_fields

USER = {"role": "user", "content": "hello"}


def fields(
    parameters: Mapping[str, Any] | None = None,
    messages: tuple[Mapping[str, Any], ...] = (USER,),
    extra: Mapping[str, Any] | None = None,
    background: bool = False,
) -> dict[str, Any]:
    body = responses_fields(StreamRequest("m", messages, parameters or {}), extra or {}, background)
    assert orjson.dumps(body)
    return body


def items(*messages: Mapping[str, Any]) -> list[dict[str, Any]]:
    given: list[dict[str, Any]] = fields(messages=messages)["input"]
    return given


def test_plain() -> None:
    """A request without parameters is the model, the input, and that nothing is to be kept."""
    assert fields() == {"model": "m", "input": [USER], "store": False, "stream": True}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_tokens": 5, "max_completion_tokens": 4, "max_output_tokens": 9}, {"max_output_tokens": 4}),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "strict": True}}},
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {}, "strict": True}}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        (
            {"verbosity": "low", "response_format": {"type": "text"}},
            {"text": {"format": {"type": "text"}, "verbosity": "low"}},
        ),
        ({"reasoning_effort": "high"}, {"reasoning": {"effort": "high"}}),
        ({"logprobs": True, "top_logprobs": 2}, {"include": ["message.output_text.logprobs"], "top_logprobs": 2}),
        ({"logprobs": False}, {}),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "f"}}},
            {"tool_choice": {"type": "custom", "name": "f"}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
                }
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}],
                }
            },
        ),
        ({"tool_choice": {"type": "web_search"}}, {"tool_choice": {"type": "web_search"}}),
        ({"store": True}, {"store": True}),
        ({"unheard_of": {"a": [1]}, "temperature": None}, {"unheard_of": {"a": [1]}}),
        ({"stream_options": {"include_usage": True}, "messages": 1, "input": 1, "background": True}, {}),
        ({"model": "other", "stream": False}, {}),
    ],
    ids=range(19),
)
def test_parameters(asked: dict[str, Any], said: dict[str, Any]) -> None:
    """What is called otherwise, or is elsewhere, is said so; what is unknown passes."""
    assert fields(asked) == fields() | said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.5),
        ("top_p", 0.5),
        ("user", "u"),
        ("safety_identifier", "u"),
        ("prompt_cache_key", "k"),
        ("metadata", {"a": "b"}),
        ("service_tier", "flex"),
        ("parallel_tool_calls", False),
        ("top_logprobs", 0),
    ],
)
def test_parameters_that_both_have(name: str, value: object) -> None:
    """What both call the same passes as it is."""
    assert fields({name: value}) == fields() | {name: value}


@pytest.mark.parametrize(
    ("name", "value", "nothing"),
    [
        ("stop", "x", []),
        ("seed", 0, None),
        ("presence_penalty", 0.5, 0.0),
        ("frequency_penalty", -1, 0),
        ("logit_bias", {"1": 2}, {}),
        ("prediction", {"type": "content", "content": "x"}, None),
        ("web_search_options", {}, None),
        ("modalities", ["text", "audio"], ["text"]),
        ("audio", {"voice": "alloy"}, None),
        ("functions", [{"name": "f"}], []),
        ("function_call", {"name": "f"}, "auto"),
        ("n", 2, 1),
    ],
)
def test_parameters_that_cannot_be_said(name: str, value: object, nothing: object) -> None:
    """They are refused by name, and not left out; but what means the same as nothing is."""
    with pytest.raises(Rejected) as raised:
        fields({name: value})
    assert (raised.value.status, raised.value.param) == (400, name)
    assert name in raised.value.text
    assert fields({name: nothing}) == fields()


def test_words_of_responses_alone() -> None:
    """It is sent as it came, and replaces nothing that chat completions have a word for."""
    own = {"reasoning": {"summary": "auto", "effort": "high"}, "truncation": "auto", "metadata": {"a": "b"}}
    request = StreamRequest("m", (USER,), {"reasoning_effort": "low"}, responses=own)
    body = responses_fields(request, {}, background=False)
    assert body["reasoning"] == {"summary": "auto", "effort": "low"}
    assert (body["truncation"], body["metadata"]) == ("auto", {"a": "b"})


def test_tools() -> None:
    """Functions are flattened, and stay lax where the chat's are; the upstream's own tools pass."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    grammar = {"type": "grammar", "grammar": {"definition": "x", "syntax": "lark"}}
    tools = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": schema, "strict": True}},
        {"type": "function", "function": {"name": "g"}},
        {"type": "function", "function": {"name": "h", "parameters": None, "strict": None}},
        {"type": "custom", "custom": {"name": "c", "format": grammar}},
        {"type": "custom", "custom": {"name": "d", "format": {"type": "text"}}},
        {"type": "custom", "custom": {"name": "e"}},
        {"type": "web_search"},
    ]
    nothing = {"type": "object", "properties": {}}
    assert fields({"tools": tools})["tools"] == [
        {"type": "function", "name": "f", "description": "d", "parameters": schema, "strict": True},
        {"type": "function", "name": "g", "parameters": nothing, "strict": False},
        {"type": "function", "name": "h", "parameters": nothing, "strict": False},
        {"type": "custom", "name": "c", "format": {"type": "grammar", "definition": "x", "syntax": "lark"}},
        {"type": "custom", "name": "d", "format": {"type": "text"}},
        {"type": "custom", "name": "e"},
        {"type": "web_search"},
    ]


def test_what_is_inside_is_of_no_other_type() -> None:
    """A type within what is flattened does not stand for the type of the whole."""
    other = {"name": "f", "type": "code_interpreter", "container": {"type": "auto"}}
    for kind in ("function", "custom"):
        sent = fields({"tools": [{"type": kind, kind: other}], "tool_choice": {"type": kind, kind: other}})
        assert (sent["tools"][0]["type"], sent["tool_choice"]["type"]) == (kind, kind)
    inside = {"type": "file", "file": {"type": "input_image", "file_data": "data:x"}}
    [item] = items({"role": "user", "content": [inside]})
    assert item["content"] == [{"type": "input_file", "file_data": "data:x"}]


def test_messages() -> None:
    """A conversation becomes items: messages, and calls and their answers beside them."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    refused = {"type": "refusal", "refusal": "no"}
    custom = {"id": "c2", "type": "custom", "custom": {"name": "sql", "input": "SELECT"}}
    assert items(
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "text", "text": "d"}]},
        USER,
        {"role": "assistant", "content": "well", "tool_calls": [call, custom], "refusal": None, "annotations": []},
        {"role": "tool", "tool_call_id": "c1", "content": "1", "name": "f"},
        {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "content": "", "tool_calls": [call | {"type": None}]},
        {"role": "assistant", "content": None, "refusal": "no"},
        {"role": "assistant", "content": "but", "refusal": "no", "audio": None, "function_call": None},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}, refused]},
        {"role": "user", "content": None},
    ) == [
        {"role": "system", "content": "s"},
        {"role": "developer", "content": [{"type": "input_text", "text": "d"}]},
        USER,
        {"role": "assistant", "content": "well"},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"type": "custom_tool_call", "call_id": "c2", "name": "sql", "input": "SELECT"},
        {"type": "function_call_output", "call_id": "c1", "output": "1"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a":1}'},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "but"}, {"type": "refusal", "refusal": "no"}],
        },
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, refused]},
        {"role": "user", "content": ""},
    ]


def test_parts() -> None:
    """Each part of a message is called what it is called there; what already is passes."""
    cached = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    parts = [
        {"type": "text", "text": "a", **cached},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}, **cached},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
        {"type": "image_url", "image_url": "https://x/y.png"},
        {"type": "file", "file": {"file_data": "AA", "filename": "a.pdf"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "input_image", "file_id": "file-2"},
    ]
    assert items({"role": "user", "content": parts})[0]["content"] == [
        {"type": "input_text", "text": "a", **cached},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low", **cached},
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "auto"},
        {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        {"type": "input_file", "file_data": "AA", "filename": "a.pdf"},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "input_image", "file_id": "file-2"},
    ]


ASKED = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "a", "name": "Ann"}, "messages[1].name"),
        ({"role": "function", "content": "a"}, "messages[1].role"),
        ({"role": "assistant", "content": "a", "audio": {"id": "x"}}, "messages[1].audio"),
        ({"role": "assistant", "function_call": {"name": "f", "arguments": ""}}, "messages[1].function_call"),
        ({"role": "tool", "content": "a"}, "messages[1].tool_call_id"),
        ({"role": "user", "content": 7}, "messages[1].content"),
        ({"role": "user", "content": ["secret"]}, "messages[1].content[0]"),
        ({"role": "user", "content": [{"type": "image_url"}]}, "messages[1].content[0].image_url"),
        ({"role": "user", "content": [{"type": "file", "file": "secret"}]}, "messages[1].content[0].file"),
        ({"role": "user", "content": [{"type": "refusal", "refusal": "secret"}]}, "messages[1].content[0]"),
        ({"role": "assistant", "refusal": ["secret"]}, "messages[1].refusal"),
        ({"role": "assistant", "tool_calls": {"a": 1}}, "messages[1].tool_calls"),
        ({"role": "assistant", "tool_calls": ["secret"]}, "messages[1].tool_calls[0]"),
        ({"role": "assistant", "tool_calls": [{"type": "function"}]}, "messages[1].tool_calls[0].id"),
        ({"role": "assistant", "tool_calls": [{"id": "secret"}]}, "messages[1].tool_calls[0].function"),
        (ASKED, "messages[1].tool_calls[0].function.arguments"),
    ],
    ids=range(16),
)
def test_messages_that_cannot_be_said(message: Mapping[str, Any], param: str) -> None:
    """What has no place there, or is not what it should be, is refused by its place and without a word of it."""
    with pytest.raises(Rejected) as raised:
        items(USER, message)
    assert raised.value.param == param
    assert "secret" not in raised.value.text


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"tools": "f"}, "tools"),
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"response_format": "json"}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice.allowed_tools.tools"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
    ids=range(8),
)
def test_parameters_that_are_not_what_they_should_be(parameters: Mapping[str, Any], param: str) -> None:
    """A parameter of another shape than OpenAI's is the client's mistake, and no crash."""
    with pytest.raises(Rejected) as raised:
        fields(parameters)
    assert (raised.value.status, raised.value.param) == (400, param)


def test_operator_has_the_last_word() -> None:
    """What the operator adds replaces what the client says, but not what it says beside it in the same object."""
    asked = {"reasoning_effort": "low", "verbosity": "low", "logprobs": True, "temperature": 0}
    extra = {
        "reasoning": {"summary": "auto"},
        "text": {"verbosity": "high"},
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "temperature": 1,
        "store": True,
    }
    body = fields(asked, extra=extra)
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["text"] == {"verbosity": "high"}
    assert body["include"] == ["message.output_text.logprobs", "reasoning.encrypted_content"]
    assert (body["temperature"], body["store"]) == (1, True)


def test_no_way_around_what_is_pinned() -> None:
    """What a parameter says cannot be said otherwise in Responses' own words: the operator may have pinned it."""
    pinned = {"reasoning_effort": "low", "max_tokens": 10, "response_format": {"type": "text"}}
    around = {
        "reasoning": {"effort": "high", "summary": "auto"},
        "max_output_tokens": 99,
        "text": {"format": 1, "x": 2},
    }
    body = fields(pinned | around)
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["max_output_tokens"] == 10
    assert body["text"] == {"format": {"type": "text"}, "x": 2}


def test_background() -> None:
    """In the background, the answer is stored, because OpenAI does not do the one without the other."""
    assert fields(background=True) == fields() | {"background": True, "store": True}
    assert fields({"store": True}, extra={"store": False, "background": False}, background=True)["store"] is True
    with pytest.raises(Rejected) as raised:
        fields({"store": False}, background=True)
    assert raised.value.param == "store"


def test_a_choice_of_unknown_tools_is_not_quoted() -> None:
    """The kinds of tools in a choice are passed as they are unless they are known; none comes back in an error."""
    tools = [{"type": "web_search"}, {"type": "function", "function": {"name": "f"}}, {"type": "S" * 5000}]
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": tools}}
    request = StreamRequest("m", ({"role": "user", "content": "x"},), {"tool_choice": choice})
    found = responses_fields(request, {}, False)["tool_choice"]["tools"]
    assert found == [{"type": "web_search"}, {"type": "function", "name": "f"}, {"type": "S" * 5000}]


@pytest.mark.parametrize("name", ["conversation", "instructions", "previous_response_id", "prompt"])
def test_what_only_responses_have(name: str) -> None:
    """What would get round the operator's system message, or reach what is stored under the one key, is refused."""
    request = StreamRequest("m", ({"role": "user", "content": "x"},), {name: "x"})
    with pytest.raises(Rejected) as caught:
        responses_fields(request, {}, False)
    assert caught.value.param == name
    assert responses_fields(replace(request, parameters={}), {name: "y"}, False)[name] == "y"


ITEM = {
    "type": "reasoning",
    "id": "rs_1",
    "summary": [{"type": "summary_text", "text": "hm"}],
    "encrypted_content": "x",
}
ITEM_OF_CIPHERTEXT = {"type": "reasoning", "summary": [], "encrypted_content": "x"}
DETAILS = [
    {"type": "reasoning.summary", "summary": "hm", "id": "rs_1", "index": 0},
    {"type": "reasoning.encrypted", "data": "x", "id": "rs_1", "index": 0},
    {"type": "reasoning.encrypted", "data": "y", "index": 1},
    {"type": "reasoning.text", "text": "hm"},
    "odd",
]


@pytest.mark.parametrize(
    ("more", "reasoning"),
    [
        ({"reasoning_items": [ITEM]}, [ITEM]),
        ({"reasoning_items": [{"encrypted_content": "x"}, {"id": "rs_2"}, "odd"]}, [ITEM_OF_CIPHERTEXT]),
        ({"reasoning_items": [ITEM], "reasoning_details": DETAILS}, [ITEM]),
        ({"reasoning_details": DETAILS}, [ITEM, {**ITEM_OF_CIPHERTEXT, "encrypted_content": "y"}]),
        ({"reasoning_content": "hm", "reasoning": "hm", "reasoning_details": [], "reasoning_items": None}, []),
        ({"annotations": [{}], "images": [{}], "thinking_blocks": [{}]}, []),
    ],
)
def test_reasoning_goes_back(more: dict[str, Any], reasoning: list[dict[str, Any]]) -> None:
    """Ciphertext of reasoning is an item before what followed from it. What Responses do not take back is left out."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": "a", "tool_calls": [call], **more}
    assert items(USER, said)[1:] == [
        *reasoning,
        {"role": "assistant", "content": "a"},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    ]


def test_reasoning_in_parts_is_left_out() -> None:
    """Parts of reasoning are another upstream's: Responses take no such part."""
    said = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]}
    assert items(USER, said)[1:] == [{"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]
    assert items(USER, {"role": "assistant", "content": [{"type": "reasoning", "summary": []}]})[1:] == []


def test_one_summary_for_one_item() -> None:
    """Items that claim the same summary do not each get a copy of it: a small request would become a huge one."""
    summary = {"type": "reasoning.summary", "summary": "hm", "id": "rs_1"}
    ciphertext = {"type": "reasoning.encrypted", "data": "x", "id": "rs_1"}
    said = {"role": "assistant", "content": "a", "reasoning_details": [summary, summary, ciphertext, ciphertext]}
    first, second, _ = items(USER, said)[1:]
    assert (len(first["summary"]), len(second["summary"])) == (2, 0)
