"""What passes an allow-list and what does not, with the ways around it that are closed."""

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
from app.edge.access.allow_list import ANYTHING, AllowList
from app.edge.access.prompt import prompt_sizes
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
    withheld = set(re.findall(r"`(\w+)`", reasons.replace("`false`", "").replace('`["text"]`', "")))
    assert withheld == theirs - allow_list._ORDINARY
    assert withheld.isdisjoint(allow_list._ORDINARY)
    for name in withheld:
        assert refused(USUAL, **{name: "x"}) == (name, "EXTRA_PARAMETERS")
    for name in theirs - withheld - {"tools", "top_logprobs"}:
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


def test_modalities() -> None:
    """Text alone is what their absence says. An image or a sound costs more, and passes if the operator lists it."""
    USUAL.check([USER], {"modalities": ["text"]})
    asked = {"modalities": ["image", "text"]}
    assert refused(USUAL, **asked) == ("modalities", "EXTRA_PARAMETERS")
    replace(USUAL, parameters=frozenset({"modalities"})).check([USER], asked)


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


@pytest.mark.parametrize(
    ("tool", "field"),
    [
        ({"type": "custom", "custom": {"name": "x", "type": "code_interpreter"}}, "custom.type"),
        ({"type": "function", "function": {"name": "x", "container": {"type": "auto"}}}, "function.container"),
        ({"type": "function", "function": {"name": "x", "googleSearch": {}}}, "function.googleSearch"),
        ({"type": "function", "name": "x", "custom": {"name": "x"}}, "custom"),
        ({"type": "function", "Type": "web_search", "name": "x"}, "Type"),
    ],
)
def test_fields_of_tools(tool: Any, field: str) -> None:
    """What is in a client's tool has a client's fields alone: flattened for Responses, others would make it another."""
    assert refused(USUAL, tools=[tool]) == (f"tools[0].{field}", "TOOL_TYPES")
    replace(USUAL, tool_types=None).check([USER], {"tools": [tool]})


def test_tool_choice() -> None:
    """A choice of a tool that is not taken is refused, also among those to choose from, and so is any other field."""
    function = {"type": "function", "function": {"name": "f"}}
    chosen = {"mode": "auto", "tools": [function, {"type": "custom", "name": "g"}]}
    taken: list[Any] = ["required", function, {"type": "allowed_tools"}]
    for choice in (*taken, {"type": "allowed_tools", **chosen}, {"type": "allowed_tools", "allowed_tools": chosen}):
        USUAL.check([USER], {"tool_choice": choice})
    others: list[tuple[Any, str]] = [
        ({"type": "web_search"}, "type"),
        ({"type": []}, "type"),
        ({}, "type"),
        ({"type": "function", "function": {"name": "f", "type": "mcp"}}, "function.type"),
        ({"type": "function", "name": "f", "server_label": "x"}, "server_label"),
        ({"type": "allowed_tools", "tools": [function, {"type": "mcp"}]}, "tools[1].type"),
        ({"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "mcp"}]}}, "allowed_tools.tools[0].type"),
    ]
    for choice, field in others:
        assert refused(USUAL, tool_choice=choice) == (f"tool_choice.{field}", "TOOL_TYPES")


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
        {"type": "file", "file": {"filename": "gs://x", "file_data": "file:///etc/passwd"}},
        *(
            picture(f"{it}/x.png")
            for it in ("gs://b", "S3://b", "file://", "x:", " gs://b", "\x00\tfile://", "//gs://b")
        ),
        *(picture(f"{it}/x.png") for it in ("https:gs://b", "http:b", "ftp://b")),
        *(
            picture(f"{it}/x.png")
            for it in (" " * 65 + "gs://b", "g\ns://b", "\ng" + "\t" * 65 + "s:\r//b", "ht\ntp://b")
        ),
        {"type": "image_url", "image_url": "gs://b/x.png"},
        {"type": "input_audio", "input_audio": {"data": "gs://b/x.mp3"}},
        # Of types that the operator allows, wherever it stands.
        {"type": "video_url", "video_url": {"url": "https://a.example"}, "fps": {"url": "gs://b/x"}},
        {"type": "input_file", "file_id": "file-1"},
        {"type": "input_file", "File_IDs": ["file-1"]},
        {"type": "input_file", "file_url": "gs://b/x.pdf"},
        {"type": "input_image", "source": {"fileId": "file-1"}},
        {"type": "media", "file_uri": "gs://b/x.pdf", "mime_type": "application/pdf"},
    ],
)
def test_stored_files(part: Any) -> None:
    """A part may not name a file of the account's, nor a place that only the upstream can reach."""
    types = USUAL.media_types or frozenset()
    allowed = replace(USUAL, media_types=types | {"video_url", "input_file", "input_image", "media"})
    assert refused(allowed, USER, content(part)) == ("messages[1].content[0]", "STORED_FILES")
    replace(allowed, stored_files=True).check([content(part)], {})


def test_stored_sounds() -> None:
    """The id of a sound that an upstream has made is that of something that its account keeps; its data is not."""
    answer = {"role": "assistant", "content": None, "audio": {"id": "audio_1"}}
    assert refused(USUAL, USER, answer) == ("messages[1].audio", "STORED_FILES")
    replace(USUAL, stored_files=True).check([answer], {})
    said = {"data": "x" * 90, "transcript": "To do: nothing.", "expires_at": 1}
    USUAL.check([answer | {"audio": said}], {})
    assert refused(USUAL, USER, answer | {"audio": said | {"data": "x" * 101}}) == (
        "messages[1].audio",
        "MAX_MEDIA_BYTES",
    )


@pytest.mark.parametrize(
    ("part", "field"),
    [
        ({"type": "text", "text": "hi", "uuid": "x", "image_embeds": "x"}, "image_embeds"),
        ({"type": "text", "text": "hi", "IMAGE_URL": {"url": "https://x"}}, "IMAGE_URL"),
        ({"type": "text", "text": "hi", "file_id": "file-1"}, "file_id"),
        ({"type": "text", "text": [PICTURE]}, "text[0].type"),
        ({"type": "text", "text": {"type": "file", "file": {}}}, "text.type"),
        ({"type": "thinking", "thinking": [{"type": "text", "text": "x"}, PICTURE]}, "thinking[1].type"),
        ({"type": "reasoning", "summary": [{"type": "summary_text", "text": "x", "url": "y"}]}, "summary[0].url"),
        (PICTURE | {"file": {"file_id": "file-1"}}, "file"),
        (PICTURE | {"source": {"url": "https://x"}}, "source"),
        (PICTURE | {"uuid": "x"}, "uuid"),
        (picture("https://x", data="x"), "image_url.data"),
        (picture("https://x", Detail="x"), "image_url.Detail"),
        ({"type": "file", "file": {"filename": "x"}, "file_id": "file-1"}, "file_id"),
        ({"type": "file", "file": {"file_url": "https://x"}}, "file.file_url"),
        ({"type": "file", "file": {"type": "input_image", "image_url": "https://x"}}, "file.image_url"),
        ({"type": "input_audio", "input_audio": {"data": "x", "id": "audio_1"}}, "input_audio.id"),
        (PICTURE | {"x" * 99: 1}, "x" * 64),
    ],
)
def test_fields_of_parts(part: Any, field: str) -> None:
    """A part has the fields of its type alone. In another one, an upstream may find other media, or a file."""
    assert refused(USUAL, USER, content(part)) == (f"messages[1].content[0].{field}", "MEDIA_TYPES")
    replace(USUAL, media_types=None, stored_files=True).check([content(part)], {})


def test_fields_of_text() -> None:
    """A part of text may say what is of its text, and of the reasoning."""
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "x"}], "closed": True, "signature": "x"}
    noted = {
        "type": "text",
        "text": "x",
        "annotations": [{"file_id": "file-1"}],
        "cache_control": {"type": "ephemeral"},
    }
    sealed = {
        "type": "text",
        "text": "x",
        "thought_signature": "x",
        "encrypted_content": "x",
        "extra_content": {"x": {}},
    }
    USUAL.check([content(thinking, noted, sealed, {"type": "redacted_thinking", "data": "x"})], {})
    USUAL.check([content({"type": "reasoning", "summary": [{"type": "summary_encrypted_text", "data": "x"}]})], {})


@pytest.mark.parametrize("role", ["user", "system", "developer", "tool", "function", "assistant"])
def test_fields_of_messages(role: str) -> None:
    """A message has its own fields alone; an answer that goes back has any, except its own in another spelling."""
    message = {"role": role, "content": "x", "name": "n", "tool_call_id": "1", "cache_control": {"type": "ephemeral"}}
    USUAL.check([message], {})
    for name in ("file_ids", "attachments", "images", "reasoning", "x"):
        given: Any = message | {name: []}
        if role == "assistant":
            USUAL.check([given], {})
        else:
            assert refused(USUAL, USER, given) == (f"messages[1].{name}", "EXTRA_PARAMETERS")
    for name in ("Content", "CONTENT", "Role", "Images", "image\u017f"):
        given = message | {name: [PICTURE] * 99}
        assert refused(USUAL, USER, given) == (f"messages[1].{name}", "EXTRA_PARAMETERS")
        replace(USUAL, parameters=frozenset({name})).check([given], {})


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


def test_log_probabilities() -> None:
    """As many at each token as the bound says pass; with 0 none do, also where a request names no number."""
    three = replace(USUAL, max_top_logprobs=3)
    for parameters in ({"logprobs": True}, {"logprobs": True, "top_logprobs": 3}, {"logprobs": False}):
        three.check([USER], parameters)
    assert refused(three, logprobs=True, top_logprobs=4) == ("top_logprobs", "MAX_TOP_LOGPROBS")
    none = replace(USUAL, max_top_logprobs=0)
    none.check([USER], {"logprobs": False, "top_logprobs": None})
    assert refused(none, logprobs=True) == ("logprobs", "MAX_TOP_LOGPROBS")
    assert refused(none, logprobs=True, top_logprobs=1) == ("top_logprobs", "MAX_TOP_LOGPROBS")
    USUAL.check([USER], {"logprobs": True, "top_logprobs": 20})


@pytest.mark.parametrize("name", ["prompt_logprobs", "n_probs"])
def test_other_log_probabilities(name: str) -> None:
    """Other servers' parameters for log probabilities have the same bound, wherever they pass."""
    anything = replace(USUAL, parameters=None, max_top_logprobs=3)
    for asked in (None, 0, 3):
        anything.check([USER], {name: asked})
    for wrong in (4, -1, "2", 3.5, [1], True):
        assert refused(anything, **{name: wrong}) == (name, "MAX_TOP_LOGPROBS")
    none = replace(anything, max_top_logprobs=0)
    assert refused(none, **{name: 1}) == (name, "MAX_TOP_LOGPROBS")
    if name == "n_probs":
        none.check([USER], {name: 0})
    else:  # to vLLM, 0 is the prompt's tokens without others
        assert refused(none, **{name: 0}) == (name, "MAX_TOP_LOGPROBS")
    assert refused(ANYTHING, **{name: -1}) == (name, "MAX_TOP_LOGPROBS")


FILES = "https://files.example/v1beta/files/abc"


@pytest.mark.parametrize(
    "address",
    [
        FILES,
        *(FILES.replace("files.example", host) for host in ("FILES.example", "files.example:443", "files.example.")),
        *(FILES.replace("files.example", host) for host in ("x:y@files.example", "/files.example", "files%2Eexample")),
        *(FILES.replace("files.example", host) for host in ("fi\tles.example", "ﬁles.example", "files.example\\@b.eu")),
        " " + FILES.replace("https", "HTTP"),
        FILES.replace("files.example", "b.example\\@files.example"),
        FILES.replace("files.example", "\t/\nfiles.example"),
        FILES.replace("files.example", "x" * 2000 + "@files.example"),
        "https://files.example",
    ],
)
def test_an_upstreams_own_address(address: str) -> None:
    """What has an address at an upstream's own host is a file that its account keeps, however that is spelled."""
    allowed = replace(USUAL, hosts=frozenset({"files.example", "[::1]"}), max_media_bytes=0)
    assert refused(allowed, content(picture(address))) == ("messages[0].content[0]", "STORED_FILES")
    replace(allowed, stored_files=True).check([content(picture(address))], {})


@pytest.mark.parametrize(
    "address",
    ["https://b.example/files.example", "https://myfiles.example/1", "https://files.example.b.example/", "data:,x"],
)
def test_another_address(address: str) -> None:
    """An address that only looks like an upstream's own passes."""
    replace(USUAL, hosts=frozenset({"files.example"})).check([content(picture(address))], {})


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
        "audio": {"data": "c291bmQ="},
        "provider_specific_fields": {"citations": []},
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
