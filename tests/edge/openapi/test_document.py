"""`/openapi.json`, held to what the composed service serves, sends and refuses."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import pytest
import schemathesis
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load
from hypothesis import given
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from pydantic import BaseModel, SecretStr
from starlette.applications import Starlette
from structlog.typing import FilteringBoundLogger

from app import errors, rechunk
from app.composition.service import compose
from app.composition.settings import load
from app.edge.access.api_keys import digest
from app.edge.bodies import MAX_FIELDS, Defaults, Message
from app.edge.dialects.ag_ui import ForwardedProps, RunAgentInput
from app.edge.dialects.agent_messages import AgentContext, AgentFunction, AgentMessage, AgentTool, AgentToolCall
from app.edge.dialects.ai_sdk import UIChatBody
from app.edge.dialects.assistant_ui import CallSettings, ModelConfig, NamedTool
from app.edge.dialects.native import ChatBody, parse_chat
from app.edge.dialects.openai import FIELD, REFUSED, CompletionBody, StreamOptions
from app.edge.dialects.responses import OF_CHATS, ReasoningConfig, ResponseBody, TextConfig
from app.edge.dialects.responses import REFUSED as REFUSED_OF_RESPONSES
from app.edge.dialects.ui_messages import UIMessage, UIPart
from app.edge.json import parse_json
from app.edge.openapi.document import IN_BAND, document, error_schema
from app.errors import BadRequest, StreamError, raised
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
    Reasoning,
    Refusal,
    Start,
    ToolCall,
)
from app.rechunk import cuts
from app.wire import Reading
from app.wire.native import EventEncoder
from tests.wire.dummy import added, dummy_dialect

pytestmark = pytest.mark.anyio

KEY = "csk_test"
METHODS = ("get", "post", "delete")
# The names of a stream's events, and of the schemas of their data.
SCHEMAS = {
    "start": "Start",
    "delta": "Delta",
    "reasoning": "Reasoning",
    "refusal": "Refusal",
    "logprobs": "LogprobsPiece",
    "tool_call": "ToolCall",
    "annotation": "Annotation",
    "media": "Media",
    "extra": "Extra",
    "done": "Done",
    "error": "Failure",
}
DEFAULTS = Defaults(model="m", chunk="auto", grace=0, max_grace=float("inf"))


def operations(description: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in description["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def routes(app: Any) -> set[tuple[str, str]]:
    """Return the paths and methods of the application inside of all that is wrapped around it."""
    while not isinstance(app, Starlette):
        app = vars(app).get("_app") or app.app
    return {
        (route.path.replace(":path", ""), method.lower())  # type: ignore[attr-defined]  # the routes are of no other kind
        for route in app.routes
        for method in route.methods  # type: ignore[attr-defined]  # as above
        if method != "HEAD"
    }


@asynccontextmanager
async def serving(log: FilteringBoundLogger, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, set[Any]]]:
    """Compose a service over the simulator; give a client of it, and its routes."""
    model = {"model": "sim-gpt?tokens=3&rate=0&first=0"}
    async with compose(load(None, **(model | settings)), log) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            yield client, routes(service.app)


def validator(schema: dict[str, Any], description: dict[str, Any]) -> Draft202012Validator:
    """Return a validator that lets no object have a property which is not described, `Usage` apart."""
    components = copy.deepcopy(description["components"]["schemas"])
    for name, component in components.items():
        if name not in ("Usage", "Message"):
            close(component)
    return Draft202012Validator({**schema, "components": {"schemas": components}})


def close(schema: Any) -> None:
    for item in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        close(item)
    if isinstance(schema, dict) and schema.get("type") == "object" and "properties" in schema:
        schema["additionalProperties"] = False


def answer_schema(description: dict[str, Any], path: str, method: str, answer: httpx.Response) -> dict[str, Any]:
    response = description["paths"][path][method]["responses"][str(answer.status_code)]
    schema: dict[str, Any] = response["content"][answer.headers["content-type"].partition(";")[0]]["schema"]
    return schema


def check_events(description: dict[str, Any], text: str) -> list[str]:
    """Check each event of a stream, its data, and return their names."""
    stream = httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text=text)
    found = []
    for event in httpx_sse.EventSource(stream).iter_sse():
        name = SCHEMAS[event.event]
        block = {"event": event.event, "id": event.id, "data": event.data}
        retry = {} if event.retry is None else {"retry": event.retry}
        validator({"$ref": f"#/components/schemas/{name}Event"}, description).validate({**block, **retry})
        validator({"$ref": f"#/components/schemas/{name}"}, description).validate(json.loads(event.data))
        found.append(event.event)
    return found


@pytest.mark.parametrize("credentials", [False, True])
@pytest.mark.parametrize("playground", [False, True])
def test_is_openapi(credentials: bool, playground: bool) -> None:
    """The document is valid OpenAPI 3.1, and each of its references leads somewhere."""
    description = document(credentials, playground)
    schemathesis.openapi.from_dict(copy.deepcopy(description)).validate()
    text = json.dumps(description)
    for place, components in description["components"].items():
        for name in components:
            if place == "schemas":
                validator({"$ref": f"#/components/schemas/{name}"}, description)
    for found in text.split('"$ref": "')[1:]:
        at: Any = description
        for step in found.partition('"')[0].removeprefix("#/").split("/"):
            at = at[step]


@pytest.mark.parametrize("credentials", [False, True])
def test_every_response_is_described(credentials: bool) -> None:
    """Nothing of the file's own keys is left, and each response of each operation has the request's id."""
    for path, _, operation in operations(document(credentials)):
        assert not [key for key in operation if key.startswith("x-")], path
        for response in operation["responses"].values():
            assert "X-Request-Id" in response["headers"], path


def test_the_file_names_errors_that_exist() -> None:
    """A misspelt code in `openapi.yaml` would silently describe nothing."""
    description = yaml.safe_load((resources.files("app.edge.openapi") / "openapi.yaml").read_text())
    named = {
        code
        for _, _, operation in operations(description)
        for code in (*operation.get("x-errors", ()), *operation.get("x-errors-except", ()))
    }
    assert named <= {kind.code for kind in raised(StreamError)}


def test_needs_no_libyaml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML was built without its C library, the document is the same."""
    expected = document(credentials=True)
    monkeypatch.delattr(yaml, "CSafeLoader")
    assert document(credentials=True) == expected


@pytest.mark.parametrize("credentials", [False, True])
@pytest.mark.parametrize("playground", [False, True])
async def test_no_route_is_forgotten(log: FilteringBoundLogger, credentials: bool, playground: bool) -> None:
    """Exactly the routes that exist are described: every path and method, with and without the playground."""
    keys = (f"web:{digest(KEY)}",) if credentials else ()
    async with serving(log, playground=playground, api_keys=keys) as (client, there):
        description = (await client.get("/openapi.json")).json()
    assert {(path, method) for path, method, _ in operations(description)} == there
    assert description == json.loads(json.dumps(document(credentials, playground)))


async def test_says_who_is_asked_for_credentials(log: FilteringBoundLogger) -> None:
    """An operation asks for credentials if and only if it is described to."""
    async with serving(log, api_keys=(f"web:{digest(KEY)}",), metrics_token=SecretStr("m" * 32)) as (client, _):
        description = (await client.get("/openapi.json")).json()
        for path, method, operation in operations(description):
            answer = await client.request(method, path.replace("{stream_id}", "x" * 22))
            assert (answer.status_code == 401) is bool(operation["security"]), path
            if answer.status_code == 401:
                shown = answer.json() if "json" in answer.headers["Content-Type"] else answer.text
                validator(answer_schema(description, path, method, answer), description).validate(shown)
                assert "WWW-Authenticate" in answer.headers
            for scheme in operation["security"]:
                assert set(scheme) <= set(description["components"]["securitySchemes"])
    assert "securitySchemes" not in document(credentials=False)["components"]


def test_every_error_is_described() -> None:
    """Each error is in a response of its own status, and each that can end a stream is in the `error` event.

    Except what a method that is not described is refused with.
    """
    description = document(credentials=True)
    described = {
        (int(status), code)
        for _, _, operation in operations(description)
        for status, response in operation["responses"].items()
        if "properties" in (schema := response.get("content", {}).get("application/json", {}).get("schema", {}))
        for field in schema["properties"]["error"]["properties"].values()
        for code in field["enum"]
    }
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, StreamError)]
    leaves = {(kind.status, kind.code) for kind in kinds if not kind.__subclasses__()}
    undescribed = {(405, errors.MethodNotAllowed.code)}
    assert leaves - described == undescribed
    assert described == {(kind.status, kind.code) for kind in raised(StreamError)} - undescribed
    in_band = {kind.code for kind in kinds if issubclass(kind, IN_BAND)}
    failed = description["components"]["schemas"]["StreamFailure"]
    assert set(failed["properties"]["code"]["enum"]) == in_band


@pytest.mark.parametrize("kind", raised(*IN_BAND), ids=lambda kind: kind.__name__)
def test_error_in_band(kind: type[StreamError]) -> None:
    """The event that an error becomes is as described."""
    error = kind()
    failure = Failure(error.text, error.type, error.code, error.retryable, error.status)
    block = EventEncoder(Reading("x" * 22))(Batch(1, [failure])).decode()
    assert check_events(document(credentials=False), block) == ["error"]


@pytest.mark.parametrize(
    "event",
    [
        Start("m", 1, "b"),
        Delta("x"),
        Reasoning("x"),
        Refusal("x"),
        ToolCall(0, "c", "f", ""),
        ToolCall(1, "", "", "{"),
        ToolCall(1, "c", "f", "x", "custom", {"extra_content": {}}),
        Logprobs([{"token": "x"}]),
        Annotation([{"type": "url_citation"}], ["u"], [{}]),
        Media("audio", "audio/wav", "u", "audio", {"id": "a"}),
        Extra({"a": 1}, {"b": 2}, {"c": 3}),
        Done("other", "STOP"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_every_event_is_described(event: Event) -> None:
    """So is every other event, with all that may be in it."""
    check_events(document(credentials=False), EventEncoder(Reading("x" * 22, url="/v1/x"))(Batch(1, [event])).decode())


@pytest.mark.parametrize("model", ["sim-gpt", "reasoning", "tools", "refusal", "cut-after-finish", "error-in-stream"])
@pytest.mark.parametrize("key", [None, KEY])
async def test_streams_are_as_described(log: FilteringBoundLogger, model: str, key: str | None) -> None:
    """Real streams, 201 answers and snapshots have the described fields and no others."""
    keys = (f"web:{digest(key)}",) if key else ()
    async with serving(log, api_keys=keys, commit_after=0.0, on_disconnect="continue") as (client, _):
        client.headers.update({"Authorization": f"Bearer {key}"} if key else {})
        description = (await client.get("/openapi.json")).json()
        body: dict[str, Any] = {"prompt": "x", "model": f"{model}?tokens=3&rate=0&first=0&after=1"}
        body |= {"tools": [{"type": "function", "function": {"name": "f"}}]} if model == "tools" else {}
        answer = await client.post("/v1/chat", json=body)
        assert answer.status_code == 200
        found = check_events(description, answer.text)
        assert (found[0], found[-1]) == ("start", "error" if model == "error-in-stream" else "done")

        created = await client.post("/v1/chat", json=body, headers={"Accept": "application/json"})
        assert created.status_code == 201
        validator(answer_schema(description, "/v1/chat", "post", created), description).validate(created.json())
        assert ("ticket=" in created.json()["url"]) is bool(key)
        client.headers.pop("Authorization", None)  # the url is enough
        assert check_events(description, (await client.get(created.json()["url"])).text) == found

        snapshot = await client.get(created.json()["url"], headers={"Accept": "application/json"})
        stopped = await client.post(created.json()["cancel_url"])
        for method, answer in (("get", snapshot), ("delete", stopped)):
            schema = answer_schema(description, "/v1/streams/{stream_id}", method, answer)
            validator(schema, description).validate(answer.json())
            assert answer.json()["state"] == ("error" if model == "error-in-stream" else "done")


async def test_errors_are_as_described(log: FilteringBoundLogger) -> None:
    """Real refusals have a body as described, under a status that is described."""
    async with serving(log, retry_attempts=1) as (client, _):
        description = (await client.get("/openapi.json")).json()
        nowhere = "/v1/streams/" + "x" * 22
        reused = {"Idempotency-Key": "k"}
        await client.post("/v1/chat", json={"prompt": "x"}, headers=reused)
        for status, method, path, asked in (
            (400, "post", "/v1/chat", {"json": {"prompt": 1}}),
            (400, "post", "/v1/chat", {"json": {"prompt": "x", "model": "error-400"}}),
            (403, "post", "/v1/chat", {"json": {"prompt": "x"}, "headers": {"Origin": "http://evil.example"}}),
            (404, "get", nowhere, {}),
            (404, "delete", nowhere, {}),
            (413, "post", "/v1/chat", {"content": b" " * (2 << 20)}),
            (415, "post", "/v1/chat", {"content": b"{}", "headers": {"Origin": "http://localhost"}}),
            (422, "post", "/v1/chat", {"json": {"prompt": "y"}, "headers": reused}),
            (429, "post", "/v1/chat", {"json": {"prompt": "x", "model": "error-429"}}),
            (502, "post", "/v1/chat", {"json": {"prompt": "x", "model": "error-401"}}),
        ):
            answer = await client.request(method, path, **asked)
            assert answer.status_code == status
            described = path.replace("x" * 22, "{stream_id}")
            validator(answer_schema(description, described, method, answer), description).validate(answer.json())
        for path, code in (("/nothing", "not_found"), ("/v1/chat", "method_not_allowed")):
            lost = await client.get(path)
            assert lost.json()["error"]["code"] == code
            assert lost.headers.get("Allow") == (None if code == "not_found" else "POST")
            validator({"$ref": "#/components/schemas/Error"}, description).validate(lost.json())


def matching(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern[:-1] + r"\Z")  # Python's $ is before a last line end, too


COMPONENTS = document(credentials=False)["components"]["schemas"]
CHUNK = COMPONENTS["Chunk"]["pattern"]
POLICY = COMPONENTS["OnDisconnect"]["pattern"]


@given(st.fixed_dictionaries({"chunk": matching(CHUNK), "on_disconnect": matching(POLICY)}))
def test_grammars_are_the_parsers(fields: dict[str, str]) -> None:
    """The service accepts every text that the described grammars allow."""
    parse_chat({"prompt": "x", **fields}, DEFAULTS)


def from_pydantic(schema: Any) -> Any:
    """Return pydantic's schema as `openapi.yaml` writes it: without titles, integers in 64 bits, and null as a type."""
    if isinstance(schema, list):
        return [from_pydantic(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    texts = {name for name in ("title", "description") if isinstance(schema.get(name), str)}  # no fields of that name
    schema = {name: from_pydantic(item) for name, item in schema.items() if name not in texts}
    if schema.get("type") == "integer":
        schema = {"minimum": -(2**63), "maximum": 2**63 - 1, **schema}
    if "default" in schema and schema["default"] is None:
        del schema["default"]
    branches = schema.get("anyOf", [])
    if len(branches) == 2 and "type" in branches[0] and branches[1] == {"type": "null"}:
        schema = {**branches[0], "type": [branches[0]["type"], "null"]}
        if "enum" in schema:
            schema["enum"] = [*schema["enum"], None]
    return schema


def undescribed(schema: Any) -> Any:
    """Return a schema without what people read."""
    if isinstance(schema, list):
        return [undescribed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: undescribed(item) for name, item in schema.items() if name != "description" or not isinstance(item, str)
    }


REQUESTS = [ChatBody, Message, CompletionBody, StreamOptions, UIChatBody, UIMessage, UIPart]
RESPONSES = [ResponseBody, TextConfig, ReasoningConfig]
RUNS = [RunAgentInput, ForwardedProps, AgentMessage, AgentToolCall, AgentFunction, AgentTool, AgentContext]


@pytest.mark.parametrize("model", [*REQUESTS, *RESPONSES, *RUNS, NamedTool, CallSettings, ModelConfig])
def test_a_request_is_as_it_is_read(model: type[BaseModel]) -> None:
    """Each field of a request has the type and the bounds that its model has, and the service takes no other."""
    read = from_pydantic(model.model_json_schema(ref_template="#/components/schemas/{model}"))
    read.pop("$defs", None)
    written = undescribed(COMPONENTS[model.__name__])
    if model is ChatBody:  # one of the two has to be given, which `parse_chat` says in code
        assert [given["required"] for given in written.pop("oneOf")] == [["prompt"], ["messages"]]
    refused = {CompletionBody: REFUSED.keys(), ResponseBody: REFUSED_OF_RESPONSES.keys() | OF_CHATS}.get(model)
    if refused is not None:
        assert written.pop("propertyNames") == {"pattern": f"^{FIELD}$"}
        assert written.pop("maxProperties") == MAX_FIELDS
        read["properties"] |= {name: {"type": "null"} for name in refused}
    # Both are a string of at most 512 characters to the model; the grammars are tested below.
    for name, component in (("chunk", "Chunk"), ("on_disconnect", "OnDisconnect")):
        if name in read["properties"]:
            assert read["properties"].pop(name) == {"type": ["string", "null"], "maxLength": 512}
            referred = {"$ref": f"#/components/schemas/{component}"}
            assert written["properties"].pop(name) == {"anyOf": [referred, {"type": "null"}]}
            assert COMPONENTS[component]["maxLength"] == 512
    assert written == read


@pytest.mark.parametrize(
    "field",
    [
        *({"chunk": chunk} for chunk in ("size", "size:0", "size:65537", "time:60001", "time:1,1ms", "word,60001ms")),
        *({"chunk": chunk} for chunk in ("smooth:0", "smooth:10000", "auto,1ms", "none:1", "words", "word,smooth")),
        *({"on_disconnect": policy} for policy in ("", "grace", "grace:-1", "grace:1e3", "grace:1234567", "Cancel")),
        {"seed": 2**64},
        {"messages": [{"role": "user"}]},
        {"prompt": None},
        {"n": 2},
    ],
    ids=str,
)
def test_what_is_not_described_is_refused(field: dict[str, Any]) -> None:
    """Values just outside of the grammars and ranges are neither described nor accepted."""
    schema = validator({"$ref": "#/components/schemas/ChatBody"}, document(credentials=False))
    schema.validate({"prompt": "x"})
    assert not schema.is_valid({"prompt": "x", **field})
    with pytest.raises(BadRequest):
        parse_chat(asyncio.run(parse_json(json.dumps({"prompt": "x", **field}).encode())), DEFAULTS)


def test_every_cut_is_described() -> None:
    """The grammar has each cut."""
    schema = Draft202012Validator({"type": "string", "pattern": CHUNK})
    for name in cuts():
        assert schema.is_valid(name) or schema.is_valid(f"{name}:40"), name


_CUT = """
from app.rechunk import Cut, Rechunker

CUT = Cut(lambda number, max_delay: Rechunker())
"""


@pytest.fixture
def dummies(tmp_path: Path) -> Iterator[None]:
    """Add a cut and a dialect, by one file each."""
    folder = tmp_path / "cuts"
    folder.mkdir()
    cuts.cache_clear()
    with added(rechunk, _CUT, folder), dummy_dialect(tmp_path):
        yield
    cuts.cache_clear()


def test_one_file_is_enough(dummies: None) -> None:
    """A cut or a dialect that is added by one file is described."""
    schemas = document(credentials=False)["components"]["schemas"]
    chunk = Draft202012Validator({"type": "string", "pattern": schemas["Chunk"]["pattern"]})
    assert chunk.is_valid("dummy")
    assert chunk.is_valid("dummy,smooth:50")
    assert not chunk.is_valid("dummy:4")
    assert "dummy" in schemas["Dialect"]["enum"]


def test_error_schema_names_its_codes() -> None:
    """A response's schema lets no error pass that is another status'."""
    described = document(credentials=False)
    schema = validator(error_schema(raised(errors.UnknownStream)), described)
    error = {"message": "", "type": "invalid_request_error", "param": None, "retryable": False, "request_id": "r"}
    assert schema.is_valid({"error": {**error, "code": "unknown_stream"}})
    assert not schema.is_valid({"error": {**error, "code": "bad_request"}})


async def test_is_not_sent_twice(log: FilteringBoundLogger) -> None:
    """A client that has the document gets a 304."""
    async with serving(log) as (client, _):
        first = await client.get("/openapi.json")
        again = await client.get("/openapi.json", headers={"If-None-Match": first.headers["etag"]})
    assert (first.headers["content-type"], again.status_code, again.content) == ("application/json", 304, b"")
