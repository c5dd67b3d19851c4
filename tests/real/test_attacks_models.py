"""Attacks on what is spent: with the settings of step 4 of deploy/README.md, no request gets more than they allow."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.wire.opaque import seal
from tests.real.conftest import Start
from tests.real.processes import Server, launch
from tests.real.proxy import Proxy

pytestmark = pytest.mark.real

README = Path(__file__).parent.parent.parent / "deploy" / "README.md"
MODEL = "sim-echo?rate=0&first=0"
PATHS = ("/v1/chat", "/v1/chat/completions", "/v1/ai-sdk/chat")
PICTURE = {"type": "image_url", "image_url": {"url": "https://a.example/1.png"}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


def step_4() -> dict[str, str]:
    """The settings that step 4 names, except the model."""
    step = README.read_text().partition("4. **Models and caps.**")[2].partition("5. **")[0]
    named = dict(re.findall(r"`CHAT_SSE_(\w+)=(\S+)`", step))
    assert named.keys() == {"MODELS", "MAX_OUTPUT_TOKENS", "MAX_PROMPT_CHARS"}
    return {name.lower(): value for name, value in named.items()} | {"models": MODEL}


class Recorded:
    """A service, and a proxy before the simulator that keeps what was sent upstream."""

    def __init__(self, service: Server, proxy: Proxy) -> None:
        self.url = service.url
        self.proxy = proxy

    @property
    def sent(self) -> bytes:
        return b"".join(bytes(link.sent) for link in self.proxy.links)


@pytest.fixture(scope="module", params=["openai-chat", "openai-responses"])
def recorded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, simulator: Server
) -> Iterator[Recorded]:
    with Proxy(simulator.url) as proxy:
        directory = tmp_path_factory.mktemp("service")
        service = launch(directory, f"{proxy.url}/v1", upstream=request.param, **step_4())
        yield Recorded(service, proxy)
        assert "crashed" not in service.text()
        service.stop()


def user(*parts: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, *parts]}]}


PARAMETERS: list[tuple[dict[str, Any], str]] = [
    ({"service_tier": "priority"}, "service_tier"),
    ({"web_search_options": {"search_context_size": "high"}}, "web_search_options"),
    ({"modalities": ["image", "text"]}, "modalities"),
    ({"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}, "audio"),
    ({"store": True}, "store"),
    ({"user": "somebody-else"}, "user"),
    ({"safety_identifier": "somebody-else"}, "safety_identifier"),
    ({"prediction": {"type": "content", "content": "x" * 1000}}, "prediction"),
]
# No dialect but OpenAI's takes any of these at all.
UNKNOWN: list[dict[str, Any]] = [
    *({"num_predict": -1}, {"best_of": 20}, {"n_predict": -1}, {"max_output_tokens": 100_000}, {"min_tokens": 5000}),
    *({"models": ["o1-pro"]}, {"route": "fallback"}, {"plugins": [{"id": "web"}]}, {"provider": {"only": ["x"]}}),
    *(
        {"api_base": "http://x"},
        {"base_url": "http://x"},
        {"api_key": "k"},
        {"extra_body": {"n": 9}},
        {"fallbacks": []},
    ),
    *({"chat_template": "{{ x }}"}, {"chat_template_kwargs": {}}, {"previous_response_id": "resp_1"}, {"include": []}),
    *({"conversation": "conv_1"}, {"prompt": {"id": "pmpt_1"}}, {"instructions": "x"}, {"background": True}),
    *({"moderation": {"model": "m"}}, {"container": "cntr_1"}, {"options": {"num_predict": -1}}),
]
TOOLS: list[dict[str, Any]] = [
    {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}},
    {"type": "web_search"},
    {"type": "web_search_preview"},
    {"type": "image_generation"},
    {"type": "file_search", "vector_store_ids": ["vs_of-somebody-else"]},
    {"type": "mcp", "server_label": "x", "server_url": "https://evil.example"},
    {"type": "computer_use_preview"},
    {"googleSearch": {}},
]
NUMBERS = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"enum": [10**14] * 5_000}}}
TEXT_FILE = "data:text/plain;base64," + "eHh4" * 10_001
MESSAGES: list[tuple[dict[str, Any], str, str]] = [
    (user({"type": "file", "file": {"file_id": "file-1"}}), "messages[0].content[1]", "STORED_FILES"),
    (user({"type": "input_file", "file_id": "file-1"}), "messages[0].content[1].type", "MEDIA_TYPES"),
    (user({"type": "video_url", "video_url": {"url": "https://x"}}), "messages[0].content[1].type", "MEDIA_TYPES"),
    (user({"type": "item_reference", "id": "msg_1"}), "messages[0].content[1].type", "MEDIA_TYPES"),
    (user(*[PICTURE] * 2000), "messages[0].content[21]", "MAX_MEDIA"),
    (user() | {"response_format": NUMBERS}, "response_format", "MAX_PROMPT_CHARS"),
    (user() | {"tools": [FUNCTION | {"function": {"name": "x" * 40_001}}]}, "tools", "MAX_PROMPT_CHARS"),
    (user({"type": "text", "text": "x" * 40_001}), "messages", "MAX_PROMPT_CHARS"),
    (
        user({"type": "image_url", "image_url": {"url": "https://x", "detail": "x" * 40_001}}),
        "messages",
        "MAX_PROMPT_CHARS",
    ),
    (user({"type": "file", "file": {"file_data": TEXT_FILE}}), "messages", "MAX_PROMPT_CHARS"),
    ({"messages": [{"role": "user", "content": "", "name": "x" * 40_001}]}, "messages", "MAX_PROMPT_CHARS"),
    (user() | {"stop": "x" * 400, "metadata": {"x": "y"}, "max_tokens": 2001}, "max_tokens", "MAX_OUTPUT_TOKENS"),
]


def asked(path: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The body that asks for *fields* in the dialect of *path*."""
    parts = [{"type": "text", "text": "hi"}]
    said = {"id": "1", "role": "user", "content": "hi"}
    usual: dict[str, dict[str, Any]] = {
        "/v1/responses": {"input": "hi"},
        "/v1/ag-ui": {"threadId": "t", "runId": "r", "messages": [said]},
        "/v1/chat": {} if "messages" in fields else {"prompt": "hi"},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}]},
        "/v1/ai-sdk/chat": {"id": "c" * 16, "messages": [{"id": "m", "role": "user", "parts": parts}]},
    }
    if path == "/v1/ag-ui":
        fields = {**fields, "forwardedProps": {"model": MODEL, **fields.get("forwardedProps", {})}}
        return {**usual[path], **fields}
    return {"model": MODEL, **usual[path], **fields}


def refused(recorded: Recorded, path: str, fields: dict[str, Any], field: str, setting: str = "") -> None:
    """The service refuses *fields* with an error that names the field and the setting, and sends nothing upstream."""
    before = len(recorded.sent)
    answer = httpx.post(f"{recorded.url}{path}", json=asked(path, fields), timeout=30)
    assert answer.status_code == 400, (fields, answer.text)
    for_a_page = path == "/v1/ai-sdk/chat"  # where the body of an error is a sentence
    message = answer.text if for_a_page else answer.json()["error"]["message"]
    assert message.startswith(f"'{field}'"), message
    assert f"CHAT_SSE_{setting}" in message or not setting, message
    assert for_a_page or answer.json()["error"]["param"] == field
    assert recorded.sent[before:] == b"", fields


def taken(recorded: Recorded, path: str, fields: dict[str, Any]) -> Any:
    """The service takes *fields*. Return what it sends upstream for them."""
    before = len(recorded.sent)
    answer = httpx.post(f"{recorded.url}{path}", json=asked(path, fields), timeout=30)
    assert answer.status_code == 200, answer.text
    return json.loads(recorded.sent[before:].partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("path", PATHS)
def test_parameters(recorded: Recorded, path: str) -> None:
    """What costs more, keeps the answer or names another person is refused in every dialect."""
    for fields, field in PARAMETERS:
        refused(recorded, path, fields, field, "EXTRA_PARAMETERS")


@pytest.mark.parametrize("path", PATHS)
def test_unknown_parameters(recorded: Recorded, path: str) -> None:
    """What only some upstreams know is refused: by the list in OpenAI's dialect, and as no field in the others."""
    for fields in UNKNOWN:
        [field] = fields
        if path == "/v1/chat/completions":
            refused(recorded, path, fields, field, "EXTRA_PARAMETERS")
        elif field != "prompt":  # the native dialect's own
            refused(recorded, path, fields, field)


@pytest.mark.parametrize("upstream", ["openai-chat", "openai-responses"])
def test_another_spelling(start_service: Start, simulator: Server, upstream: str) -> None:
    """A field that differs from a known one by case is refused where any may pass: it may be read as the known one."""
    with Proxy(simulator.url) as proxy:
        service = start_service(f"{proxy.url}/v1", upstream=upstream, models=MODEL, extra_parameters="*")
        recorded = Recorded(service, proxy)
        for path, fields in (
            ("/v1/chat/completions", ("Model", "MESSAGES", "Max_Tokens", "Tools", "Functions", "Stream")),
            (
                "/v1/responses",
                ("Model", "Input", "Messages", "Max_Tokens", "Max_Output_Tokens", "Prompt"),
            ),
        ):
            for field in fields:
                refused(recorded, path, {field: "o1-pro"}, field)


@pytest.mark.parametrize("path", PATHS)
def test_tools(recorded: Recorded, path: str) -> None:
    """Tools that the upstream would run are refused, behind a function or alone."""
    for tool in TOOLS:
        refused(recorded, path, {"tools": [FUNCTION, tool]}, "tools[1].type", "TOOL_TYPES")
    further = FUNCTION | {"googleSearch": {}}
    refused(recorded, path, {"tools": [further]}, "tools[0].googleSearch", "TOOL_TYPES")
    refused(recorded, path, {"tool_choice": {"type": "web_search"}}, "tool_choice.type", "TOOL_TYPES")


# Ways around the list, by dialect: what is asked, and the field that the error names. Were one to pass, "evil" would.
EVIL = "https://evil.example"
ID = "file-evil"
CODE = {"type": "code_interpreter", "container": {"type": "auto", "file_ids": [ID]}}
SMUGGLED: list[tuple[dict[str, Any], str]] = [
    ({"tools": [{"type": "custom", "custom": {"name": "evil", **CODE}}]}, "tools[0].custom.container"),
    ({"tools": [{"type": "function", "function": {"name": "f", "evil": {}}}]}, "tools[0].function.evil"),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"type": "mcp", "server_url": EVIL}}},
        "tool_choice.function.server_url",
    ),
    (
        {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "evil"}]}}},
        "tool_choice.allowed_tools.tools[0].type",
    ),
]
IN_MESSAGES: list[tuple[dict[str, Any], str]] = [
    (user(PICTURE | {"file": {"file_id": ID}}), "messages[0].content[1].file"),
    (user({"type": "image_url", "image_url": {"url": f" gs://{ID}"}}), "messages[0].content[1]"),
    (user({"type": "file", "file": {"file_url": EVIL}}), "messages[0].content[1].file.file_url"),
    (user({"type": "file", "file": {"type": "input_image", "file_id": ID}}), "messages[0].content[1].file.type"),
    (user({"type": "text", "text": "x", "file_id": ID}), "messages[0].content[1].file_id"),
    (user({"type": "text", "text": "x", "uuid": "1", "audio_embeds": "evil"}), "messages[0].content[1].audio_embeds"),
    (user({"type": "text", "text": [{"type": "image_url", "url": EVIL}]}), "messages[0].content[1].text[0].type"),
    ({"messages": [{"role": "user", "content": "x", "file_ids": [ID]}]}, "messages[0].file_ids"),
    ({"messages": [{"role": "user", "content": "x", "Content": EVIL}]}, "messages[0].Content"),
    ({"messages": [{"role": "assistant", "content": "x", "Images": [EVIL]}]}, "messages[0].Images"),
    ({"messages": [{"role": "assistant", "content": None, "audio": {"id": ID}}]}, "messages[0].audio"),
    (
        {"messages": [{"role": "assistant", "content": None, "images": [PICTURE] * 20, "image": EVIL}]},
        "messages[0].image",
    ),
]


def page(role: str, *parts: Any) -> dict[str, Any]:
    said = [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}] if role == "assistant" else []
    return {"messages": [*said, {"role": role, "parts": [*parts]}]}


def items(*given: Any) -> dict[str, Any]:
    return {"input": [*given]}


def run(**message: Any) -> dict[str, Any]:
    return {"messages": [{"id": "1", "role": "user", "content": "hi"}, {"id": "2", **message}]}


IN_DIALECTS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "/v1/ai-sdk/chat": [
        (page("assistant", {"type": "data-extra", "data": {"audio": {"id": ID}, "Content": 1}}), "messages[1].Content"),
        (
            page(
                "assistant",
                {"type": "file", "url": EVIL, "providerMetadata": {"chat-sse": {"field": "audio", "id": ID}}},
            ),
            "messages[1].audio",
        ),
        (
            page("assistant", *[{"type": "data-extra", "data": {"images": [PICTURE]}}] * 21),
            "messages[1].images[20]",
        ),
    ],
    "/v1/responses": [
        (items({"role": "user", "content": [{"type": "input_file", "file_id": ID}]}), "messages[0].content[0]"),
        (items({"role": "user", "content": [{"type": "input_file", "file_url": EVIL}]}), "messages[0].content[0].type"),
        (items({"role": "user", "content": [{"type": "input_image", "file_id": ID}]}), "messages[0].content[0].type"),
        (items({"role": "user", "content": [{"type": "evil"}]}), "messages[0].content[0].type"),
        (items({"role": "assistant", "content": "x", "audio": {"id": ID}}), "messages[0].audio"),
        (
            items(
                {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "1", "output": [{"type": "input_image", "file_id": ID}]},
            ),
            "messages[1].content[0].type",
        ),
        (
            items(*[{"type": "image_generation_call", "result": "evil"}] * 21),
            "messages[0].images[20]",
        ),
        *(
            (items({"type": kind, "id": ID, "server_label": EVIL}), "input[0].type")
            for kind in ("computer_call", "evil")
        ),
        *(({name: ID}, name) for name in ("previous_response_id", "conversation", "prompt")),
        ({"context_management": [{"type": "evil"}]}, "context_management"),
        ({"reasoning": {"mode": "evil"}}, "reasoning.mode"),
        ({"tools": [{"type": "function", "name": "f", "evil": {}}]}, "tools[0].function.evil"),
        ({"tools": [{"type": "mcp", "server_label": "x", "server_url": EVIL}]}, "tools[0].type"),
        (
            {"tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "mcp", "server_label": "evil"}},
            "tool_choice.type",
        ),
    ],
    "/v1/ag-ui": [
        (run(role="assistant", content="x", encryptedValue=seal({"audio": {"id": ID}})), "messages[1].audio"),
        (run(role="assistant", content="x", encryptedValue=seal({"Role": "evil"})), "messages[1].Role"),
        (
            run(role="user", content=[{"type": "image", "source": {"type": "url", "value": EVIL}}] * 21),
            "messages[1].content[20]",
        ),
        ({"forwardedProps": {"service_tier": "evil"}}, "service_tier"),
        ({"forwardedProps": {"tool_choice": {"type": "mcp", "server_url": EVIL}}}, "tool_choice.type"),
    ],
}


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/completions", *IN_DIALECTS])
def test_ways_around(recorded: Recorded, path: str) -> None:
    """No field at any level is taken for another by the upstream: it is refused by its name, in every dialect."""
    ways = IN_DIALECTS.get(path, IN_MESSAGES)
    for fields, field in ways + (SMUGGLED if path in PATHS else []):
        refused(recorded, path, fields, field)


# What a dialect ignores, or makes a text of.
DROPPED: list[tuple[str, dict[str, Any]]] = [
    ("/v1/ag-ui", {"forwardedProps": {"models": ["evil"], "tools": [CODE], "Model": "evil"}, "state": EVIL}),
    ("/v1/ai-sdk/chat", {"config": {"modelName": "x", "apiKey": "evil", "baseUrl": EVIL}, "metadata": {"x": EVIL}}),
    ("/v1/chat", {"stream_options": {"include_usage": True, "x": EVIL}, "metadata": {"x": EVIL}}),
    ("/v1/chat/completions", {"stream_options": {"x": EVIL}}),
    ("/v1/responses", {"stream_options": {"x": EVIL}, "text": {"x": EVIL}}),
    ("/v1/responses", items({"role": "user", "content": "x", "x": EVIL}, {"type": "mcp_call", "server_label": EVIL})),
    ("/v1/responses", {"tool_choice": {"type": "mcp", "server_label": "evil"}}),
]


def test_what_is_dropped(recorded: Recorded) -> None:
    """What a dialect has no use for does not reach the upstream."""
    for path, fields in DROPPED:
        assert "evil" not in json.dumps(taken(recorded, path, fields)), fields


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/chat/completions"])
def test_messages(recorded: Recorded, path: str) -> None:
    """Stored files, other media, pictures by the thousand, and text past the cap, wherever it hides."""
    for fields, field, setting in MESSAGES:
        refused(recorded, path, fields, field, setting)


def test_messages_of_a_page(recorded: Recorded) -> None:
    """The caps hold for what the AI SDK's messages become: files, tools' outputs, and what comes back as metadata."""
    long = "x" * 40_001
    picture = {"type": "file", "mediaType": "image/png", "url": "https://a.example/1.png"}
    notes = {"type": "file", "mediaType": "text/plain", "url": f"data:text/plain;base64,{long}"}
    output = {"type": "tool-f", "toolCallId": "1", "state": "output-available", "input": {}, "output": long}
    signed = {"type": "text", "text": "hm"}, {"type": "data-extra", "data": {"x": long}}
    for parts, field, setting in (
        ([picture] * 21, "messages[1].content[20]", "MAX_MEDIA"),
        ([notes], "messages", "MAX_PROMPT_CHARS"),
        ([output], "messages", "MAX_PROMPT_CHARS"),
        (signed, "messages", "MAX_PROMPT_CHARS"),
    ):
        role = "assistant" if parts is signed or parts == [output] else "user"
        messages = [{"role": "user", "parts": [{"type": "text", "text": "hi"}]}, {"role": role, "parts": [*parts]}]
        refused(recorded, "/v1/ai-sdk/chat", {"messages": messages}, field, setting)


def test_models(recorded: Recorded) -> None:
    """A model that is not listed is a 403 in every dialect."""
    for path in PATHS:
        before = len(recorded.sent)
        answer = httpx.post(f"{recorded.url}{path}", json=asked(path, {"model": "o1-pro"}))
        assert (answer.status_code, recorded.sent[before:]) == (403, b"")


@pytest.mark.parametrize("path", PATHS)
def test_what_passes(recorded: Recorded, path: str) -> None:
    """Ordinary parameters, `store: false` and functions pass, and the cap on output goes with them."""
    ordinary = {"temperature": 0.5, "top_p": 0.9, "reasoning_effort": "low", "parallel_tool_calls": False}
    offered = {"tools": [FUNCTION], "tool_choice": "none", "response_format": {"type": "text"}, "store": False}
    sent = taken(recorded, path, ordinary | offered | {"metadata": {"chat": "1"}, "prompt_cache_key": "k"})
    assert sent.get("max_completion_tokens", sent.get("max_output_tokens")) == 2000
    assert (sent["temperature"], sent["tools"][0]["type"], sent["store"]) == (0.5, "function", False)


def test_a_prompt_at_the_cap(recorded: Recorded) -> None:
    """A prompt of as many characters as the cap says passes, and one of one more does not."""
    taken(recorded, "/v1/chat", {"prompt": "日" * 40_000, "max_tokens": 16})
    refused(recorded, "/v1/chat", {"prompt": "日" * 40_001}, "messages", "MAX_PROMPT_CHARS")


def test_pictures(recorded: Recorded) -> None:
    """Twenty pictures pass, whatever is in them, since what they are does not count as text."""
    pictures = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}] * 20
    sent = json.dumps(taken(recorded, "/v1/chat/completions", user(*pictures)))
    assert sent.count("data:image/png") == 20


def test_what_goes_back(recorded: Recorded) -> None:
    """Signatures and reasoning go back to the upstream, in the fields in which it takes them."""
    details = [{"type": "reasoning.encrypted", "data": "c2lnbmVk", "id": "rs_1"}]
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answer = {
        "role": "assistant",
        "content": "hm",
        "tool_calls": [call],
        "reasoning_details": details,
        "extra_content": {"google": {"thought_signature": "c2ln"}},
        "thinking_blocks": [{"signature": "c2ln"}],
    }
    said = {"role": "tool", "tool_call_id": "1", "content": "x"}
    messages = [{"role": "user", "content": "hi"}, answer, said, {"role": "user", "content": "go on"}]
    sent = taken(recorded, "/v1/chat/completions", {"messages": messages})
    if "input" in sent:
        assert {"c2lnbmVk"} == {item["encrypted_content"] for item in sent["input"] if item.get("type") == "reasoning"}
    else:
        assert sent["messages"] == messages
