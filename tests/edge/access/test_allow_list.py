"""What passes an allow-list and what does not, and how long a prompt is, with the ways around both that are closed."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.chat.completion_create_params import CompletionCreateParamsBase

from app.edge.access import allow_list
from app.edge.access.allow_list import ANYTHING, AllowList, prompt_sizes
from app.errors import BadRequest

USER = {"role": "user", "content": "hello"}
USUAL = AllowList(
    frozenset(), frozenset({"function", "custom"}), frozenset({"image_url", "input_audio", "file"}), 3, 100, False
)
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"file_id": {}}}}}
# Types that no list has; some of them are no types.
HOSTED: list[Any] = ["code_interpreter", "web_search", "image_generation", "mcp", "", None, {}, ["x"]]
OTHERS: list[Any] = ["video_url", "image_file", "input_file", "tool_result", "", None, {}, []]
# What OpenAI's API has, and is not a parameter of an answer: the service sends it itself.
OWN = {"messages", "model", "stream_options"}


def refused(allowed: AllowList, *messages: Any, **parameters: Any) -> tuple[str | None, str]:
    """Return the field and the setting that the error names."""
    with pytest.raises(BadRequest) as raised:
        allowed.check(messages or (USER,), parameters)
    error = raised.value
    assert error.text.startswith(f"'{error.param}': ")
    [setting] = re.findall(r"\(CHAT_SSE_(\w+)\)\.$", error.text)
    return error.param, setting


def content(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": [*parts]}


def picture(url: str, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **more}}


PICTURE = picture("https://a.example/1.png", detail="low")


def file(data: str) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data}}


def sound(size: int) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"format": "mp3", "data": "x" * size}}


def test_every_parameter_of_openai() -> None:
    """Each parameter of OpenAI's API passes, or has a reason in the module why it does not."""
    theirs = get_type_hints(CompletionCreateParamsBase).keys() - OWN
    reasons = Path(allow_list.__file__).read_text().split("Not among them are")[1].split("_ORDINARY")[0]
    withheld = set(re.findall(r"`(\w+)`", reasons.replace("`false`", "")))
    assert withheld == theirs - allow_list._ORDINARY
    assert withheld.isdisjoint(allow_list._ORDINARY)
    for name in withheld:
        assert refused(USUAL, **{name: "x"}) == (name, "EXTRA_PARAMETERS")
    for name in theirs - withheld - {"tools"}:
        USUAL.check([USER], {name: "x"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_predict", -1), ("best_of", 20), ("models", ["a", "b"]), ("api_base", "http://x"), ("extra_body", {})),
        *(("chat_template", "{{ x }}"), ("store", None), ("store", True), ("store", 0), ("", 1)),
    ],
)
def test_parameters(name: str, value: Any) -> None:
    """A parameter that is not listed is refused by its name; one that the operator lists passes, and with None any."""
    assert refused(USUAL, temperature=1, **{name: value}) == (name, "EXTRA_PARAMETERS")
    for parameters in (frozenset({name}), None):
        replace(USUAL, parameters=parameters).check([USER], {"temperature": 1, name: value})


def test_store_false() -> None:
    """`store: false`, which some clients always send, says what its absence says."""
    USUAL.check([USER], {"store": False})


@pytest.mark.parametrize(
    "tool",
    [
        *({"type": kind} for kind in HOSTED),
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"googleSearch": {}},
        {"function": {"name": "f"}},
    ],
)
def test_tools(tool: Any) -> None:
    """Tools that the upstream runs are refused, wherever in the list they stand; those of the operator's pass."""
    assert refused(USUAL, tools=[FUNCTION, tool]) == ("tools[1].type", "TOOL_TYPES")
    replace(USUAL, tool_types=None, stored_files=True).check([USER], {"tools": [tool]})


def test_tools_of_the_client() -> None:
    """Functions and custom tools pass, in either API's words; a further field of one may be the upstream's own tool."""
    flat = {"type": "function", "name": "f", "parameters": {}, "strict": True}
    custom = {"type": "custom", "custom": {"name": "g", "format": {"type": "text"}}}
    USUAL.check([USER], {"tools": [FUNCTION, flat, custom], "tool_choice": "auto"})
    assert refused(USUAL, tools=[FUNCTION | {"googleSearch": {}}]) == ("tools[0].googleSearch", "TOOL_TYPES")
    assert refused(USUAL, tools=[FUNCTION | {"x" * 99: 1}])[0] == f"tools[0].{'x' * 64}"


def test_tool_choice() -> None:
    """A choice of a tool that is not taken is refused."""
    taken: list[Any] = ["required", {"type": "function", "function": {"name": "f"}}, {"type": "allowed_tools"}]
    for choice in taken:
        USUAL.check([USER], {"tool_choice": choice})
    others: list[Any] = [{"type": "web_search"}, {"type": []}, {}]
    for choice in others:
        assert refused(USUAL, tool_choice=choice) == ("tool_choice.type", "TOOL_TYPES")


def test_tools_that_name_files() -> None:
    """A tool of the upstream's that the operator allows may still not name what the account keeps, unless that may."""
    search = replace(USUAL, tool_types=frozenset({"file_search", "code_interpreter", "function"}))
    code = {"type": "code_interpreter", "container": {"type": "auto"}}
    search.check([USER], {"tools": [code, FUNCTION, {"type": "file_search", "note": '"file_id": '}]})
    for tool in (
        {"type": "file_search", "vector_store_ids": ["vs_1"]},
        {"type": "code_interpreter", "container": "cntr_1"},
        code | {"container": {"type": "auto", "file_ids": ["f"]}},
    ):
        assert refused(search, tools=[tool]) == ("tools[0]", "STORED_FILES")
        replace(search, stored_files=True).check([USER], {"tools": [tool]})


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,", "file_id": "file-1"}},
        {"type": "file", "file": {"filename": "x"}, "file_id": "file-1"},
        *({"type": "image_url", "image_url": {"url": f"{it}/x.png"}} for it in ("gs://b", "S3://b", "file://", "x:")),
        {"type": "image_url", "image_url": "gs://b/x.png"},
    ],
)
def test_stored_files(part: Any) -> None:
    """A part may not name a file of the account's, nor a place that only the upstream can reach."""
    assert refused(USUAL, USER, content(part)) == ("messages[1].content[0]", "STORED_FILES")
    replace(USUAL, stored_files=True).check([content(part)], {})


@pytest.mark.parametrize(
    "part",
    [
        *({"type": kind} for kind in OTHERS),
        {"image_url": {"url": "https://a.example/1.png"}},
        {"type": "text", "text": "", "uuid": "x", "image_url": {"url": "https://a.example/1.png"}},
    ],
)
def test_media_types(part: Any) -> None:
    """Parts of other types are refused, and parts of text that have media in them."""
    message = content({"type": "text", "text": "x"}, part)
    assert refused(USUAL, message) == ("messages[0].content[1].type", "MEDIA_TYPES")
    replace(USUAL, media_types=None).check([message], {})


def test_how_many_media() -> None:
    """The count is that of all messages; answers' own pictures, which go back in `images`, count as well."""
    back = {"role": "assistant", "content": None, "images": [PICTURE]}
    USUAL.check([content(PICTURE), back, content(PICTURE)], {})
    assert refused(USUAL, content(PICTURE), back, content(PICTURE, PICTURE)) == ("messages[2].content[1]", "MAX_MEDIA")
    assert refused(USUAL, content(*[PICTURE] * 3), back) == ("messages[1].images[0]", "MAX_MEDIA")
    replace(USUAL, max_media=0, max_media_bytes=0).check([content(*[PICTURE] * 2000)], {})


def test_how_large_media() -> None:
    """The bytes are those of all payloads, as they are sent."""

    USUAL.check([content(sound(50)), content(sound(50))], {})
    assert refused(USUAL, content(sound(50)), content(sound(51))) == ("messages[1].content[0]", "MAX_MEDIA_BYTES")


def test_what_goes_back() -> None:
    """What an answer had in it goes back as it came: signatures, reasoning, citations, sounds, calls."""
    answer = {
        "role": "assistant",
        "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}],
        "annotations": [{"type": "file_citation", "file_citation": {"file_id": "file-1"}}],
        "audio": {"id": "audio_1"},
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "reasoning_content": "hm",
        "reasoning_details": [{"type": "reasoning.encrypted", "data": "c2ln", "id": "r"}],
        "reasoning_items": [{"type": "reasoning", "encrypted_content": "c2ln"}],
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "c2ln"}],
        "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"file_id":"1"}'}}],
    }
    USUAL.check([USER, answer, {"role": "tool", "tool_call_id": "1", "content": "x"}], {})


def test_anything() -> None:
    """Without a list everything passes."""
    ANYTHING.check([content({"type": "x", "file_id": "1"})], {"tools": [{"type": "mcp"}], "tool_choice": {}, "x": 1})


@pytest.mark.parametrize(
    ("message", "counted"),
    [
        (USER, "hello"),
        ({"role": "user", "content": "日本\U0001f600"}, "日本\U0001f600"),
        ({"role": "assistant", "content": None}, ""),
        (content({"type": "text", "text": "ab"}, {"type": "text", "text": "c"}), "abc"),
        (content(picture("data:image/png;base64," * 99)), '{"type":"image_url","image_url":{"url":""}}'),
        (content({"type": "image_url", "image_url": "https://a" + "x" * 99}), '{"type":"image_url","image_url":""}'),
        (content(sound(99)), '{"type":"input_audio","input_audio":{"format":"mp3","data":""}}'),
        (content(file("data:application/pdf;base64," * 99)), '{"type":"file","file":{"file_data":""}}'),
        (
            {"role": "assistant", "content": "", "images": [picture("data:image/x")]},
            '{"type":"image_url","image_url":{"url":""}}',
        ),
        ({"role": "user", "content": "a", "name": "bc", "n": [1.5, True]}, 'a{"name":"bc","n":[1.5,true]}'),
    ],
)
def test_messages(message: Any, counted: str) -> None:
    """A text counts as it is and everything else as its JSON, but for the payload of media."""
    assert prompt_sizes([message, {"role": "user", "content": "."}], {}) == {"messages": len(counted) + 1}


@pytest.mark.parametrize(
    "message",
    [
        content({"type": "x" * 99, "text": ""}),
        content({"type": "text", "text": "", "x" * 99: 1}),
        content({"type": "text", "text": {"x" * 99: 1}}),
        content({"type": "text", "text": "", "more": [0] * 99}),
        content(picture("x" * 99)),
        content(picture("data:text/plain," + "x" * 99)),
        content(picture("https://x", data="x" * 99)),
        content(picture("https://x", detail="x" * 99)),
        content(picture("https://x") | {"text": "x" * 99}),
        content(file("data:text/plain;base64," + "x" * 99)),
        content(file("x" * 99)),
        content({"type": "input_audio", "input_audio": {"format": "x" * 99}}),
        {"role": "user", "content": "", "image_url": {"url": "https://x" + "x" * 99}},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "x" * 99}}]},
        {"role": "assistant", "content": "", "thinking_blocks": [{"thinking": "x" * 99}]},
        {"role": "user", "content": "", "images": ["x" * 99]},
    ],
)
def test_text_hides_nowhere(message: Any) -> None:
    """Text counts wherever in a message it stands, and in a payload that is no picture, sound or PDF."""
    assert prompt_sizes([message], {})["messages"] >= 99


def test_text_in_parameters() -> None:
    """Parameters count, with names and numbers; OpenAI's that are a number do not, since that is bounded."""
    long = "x" * 99
    schema = {"type": "json_schema", "json_schema": {"schema": {"enum": list(range(10_000))}}}
    parameters = {"temperature": 0.5, "seed": 1, "logprobs": True, "stop": long, "top_k": 20, "tools": [{long: {}}]}
    sizes = prompt_sizes([USER], parameters | {"response_format": schema})
    assert sizes.pop("response_format") > 48_000
    assert sizes == {"messages": 5, "stop": 99, "top_k": 7, "tools": len('[{"":{}}]') + 99}


json = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "image_url", "url", "file", "file_id", "function", "x"]), inner, max_size=4
        )
    ),
)
objects = st.dictionaries(st.sampled_from(["type", "text", "image_url", "function", "x"]), json, max_size=4)
bodies = st.fixed_dictionaries(
    {}, optional={"tools": st.lists(objects, max_size=3), "tool_choice": st.text(max_size=3) | objects, "x": json}
)


@given(st.lists(objects, max_size=3), bodies)
def test_any_request_passes_or_is_refused(parts: Any, parameters: Any) -> None:
    """Whatever the JSON is, a check fails in no other way than BadRequest, and every size is a number."""
    message = {"role": "user", "content": parts, **parameters}
    assert all(size >= 0 for size in prompt_sizes([message], parameters).values())
    for allowed in (USUAL, replace(USUAL, tool_types=None, media_types=None)):
        try:
            allowed.check([message], parameters)
        except BadRequest as error:
            assert len(error.text) < 300


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
        ({"context_management": []}, "context_management"),
        ({"reasoning": {"summary": "auto", "mode": "pro"}}, "reasoning.mode"),
    ],
)
def test_what_only_responses_have(fields: dict[str, Any], param: str) -> None:
    """It is refused as parameters are, and may be allowed as they are."""
    with pytest.raises(BadRequest) as raised:
        USUAL.check_responses(fields)
    assert raised.value.param == param
    USUAL.check_responses({"include": [], "metadata": {}, "truncation": "auto", "reasoning": {"summary": "auto"}})
    replace(USUAL, parameters=frozenset({param.partition(".")[0]})).check_responses(fields)
    ANYTHING.check_responses(fields)
