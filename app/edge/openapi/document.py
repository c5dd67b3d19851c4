"""`GET /openapi.json`: the description in `openapi.yaml`, completed by what the code and the settings know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import resources
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load

from app import __version__, errors, rechunk
from app.edge.static import Endpoint, content_type, playground, unchanging
from app.errors import StreamError, raised
from app.wire import dialects

Schema = dict[str, Any]

# Any operation can fail with these.
_ANYWHERE = ("origin_not_allowed", "host_not_allowed", "internal_error")
# Operations fail with these only where the service asks for credentials.
_WITH_CREDENTIALS = ("unauthenticated", "forbidden")
# The errors that can end a stream, as its last event.
IN_BAND = (
    errors.UpstreamError,
    errors.StreamTooLarge,
    errors.Overloaded,
    errors.Draining,
    errors.JournalDown,
    errors.JournalLost,
    errors.ProducerLost,
    errors.InternalError,
)
_LIMITS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset", "RateLimit-Policy")
_SMOOTH = "smooth:[1-9][0-9]{0,3}"
_HEADERS = {401: ("WWW-Authenticate",), 429: ("Retry-After", *_LIMITS), 503: ("Retry-After", *_LIMITS)}


def openapi(description: Schema) -> Endpoint:
    """Return the endpoint of `GET /openapi.json`, which answers with the *description*."""
    return unchanging(orjson.dumps(description), "application/json")


def examples() -> Mapping[str, Schema]:
    """Return the examples of `examples.yaml`, by the operation's id."""
    found: Mapping[str, Schema] = _read("examples.yaml")
    return found


def document(credentials: bool, shows_playground: bool = True) -> Schema:
    """Return the description of a service that asks for *credentials* or not, and *shows_playground* or not.

    Reading the YAML takes about 20 ms: call it at the start, not for each request.
    """
    description: Schema = _read("openapi.yaml")
    shown = examples()
    description["info"]["version"] = __version__
    schemas = description["components"]["schemas"]
    schemas["Chunk"]["pattern"] = f"^(?:{rechunk.pattern()}(?:,{_SMOOTH})?|{_SMOOTH}|)$"
    schemas["Dialect"]["enum"] = list(dialects())
    _fill_in(schemas["Error"]["properties"]["error"]["properties"], raised(StreamError))
    _fill_in(schemas["StreamFailure"]["properties"], raised(*IN_BAND))
    openai_error = schemas["OpenAIError"]["properties"]["error"]["properties"]
    openai_error["service_code"]["enum"] = _distinct(kind.code for kind in raised(StreamError))
    paths = description["paths"]
    part = paths.pop("/playground/{file}")
    if shows_playground:
        paths |= {path: _part_of_playground(part, path) for path in playground() if path not in paths}
    else:
        del paths["/"]
    if not credentials:
        del description["components"]["securitySchemes"]
    for operation in _operations(description):
        _add_examples(operation, shown.get(operation["operationId"], {}))
        if not credentials:
            operation["security"] = []
        responses = operation["responses"] | _failures(operation, credentials)
        # The YAML shares responses between operations, so they are copied, not changed.
        operation["responses"] = {
            status: response | {"headers": {"X-Request-Id": _header("X-Request-Id"), **response.get("headers", {})}}
            for status, response in responses.items()
        }
    return description


def error_schema(kinds: Iterable[type[StreamError]], name: str = "Error", field: str = "code") -> Schema:
    """Return the schema of the body of an error that is one of *kinds*: *name*, with their codes in *field*."""
    return {
        "$ref": f"#/components/schemas/{name}",
        "properties": {"error": {"properties": {field: {"enum": _distinct(kind.code for kind in kinds)}}}},
    }


def _read(name: str) -> Any:
    text = resources.files("app.edge.openapi").joinpath(name).read_text()
    # PyYAML's wheels have libyaml in them. Without it, PyYAML takes 0.2 s.
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - both are safe


def _add_examples(operation: Schema, shown: Schema) -> None:
    """Put the body and the answers of an operation's examples where OpenAPI has them."""
    # The YAML shares bodies and answers between operations, so they are copied, not changed.
    if "body" in shown:
        operation["requestBody"] = _with_examples(operation["requestBody"], {"application/json": shown["body"]})
    for status, by_type in shown.get("answers", {}).items():
        answer = _with_examples(operation["responses"][str(status)], by_type)
        operation["responses"] = operation["responses"] | {str(status): answer}


def _with_examples(message: Schema, by_type: Schema) -> Schema:
    content = message["content"]
    shown = {kind: content[kind] | {"example": example} for kind, example in by_type.items()}
    return message | {"content": content | shown}


def _part_of_playground(part: Schema, path: str) -> Schema:
    """Return the description of one file of the playground, which is that of *part* with its own id and type."""
    name = path.rpartition("/")[2]
    content = {content_type(name).partition(";")[0]: {"schema": {"type": "string"}}}
    get = part["get"]
    responses = get["responses"] | {"200": get["responses"]["200"] | {"content": content}}
    named = {"operationId": f"getPlayground_{name.replace('.', '_')}", "summary": f"The playground's {name}."}
    return part | {"get": get | named | {"responses": responses}}


def _operations(description: Schema) -> Iterator[Schema]:
    for item in description["paths"].values():
        yield from (operation for method, operation in item.items() if method != "parameters")


def _failures(operation: Schema, credentials: bool) -> dict[str, Schema]:
    """Return the failures that the keys `x-errors` and `x-errors-except` stand for, by status; remove the keys."""
    content = _FORMS[operation.pop("x-error-form", "native")]
    kinds = raised(StreamError)
    if "x-errors-except" in operation:
        excluded = operation.pop("x-errors-except")
        kinds = [kind for kind in kinds if kind.code not in excluded]
    else:
        listed = (*operation.pop("x-errors", ()), *_ANYWHERE)
        kinds = [kind for kind in kinds if kind.code in listed]
    if not credentials:
        kinds = [kind for kind in kinds if kind.code not in _WITH_CREDENTIALS]
    by_status = attrgetter("status")
    return {
        str(status): _failure(status, list(same), content)
        for status, same in groupby(sorted(kinds, key=by_status), key=by_status)
    }


def _failure(status: int, kinds: Sequence[type[StreamError]], content: Content) -> Schema:
    messages = {kind.code: kind.message for kind in kinds}
    return {
        "description": "\n".join(f"- `{code}`: {message}" for code, message in messages.items()),
        "headers": {name: _header(name) for name in (*_HEADERS.get(status, ()), "X-Should-Retry")},
        "content": content(kinds),
    }


def _json(kinds: Sequence[type[StreamError]]) -> Schema:
    return {"application/json": {"schema": error_schema(kinds)}}


def _openai_json(kinds: Sequence[type[StreamError]]) -> Schema:
    return {"application/json": {"schema": error_schema(kinds, "OpenAIError", "service_code")}}


def _text(kinds: Sequence[type[StreamError]]) -> Schema:
    return {"text/plain": {"schema": {"type": "string", "description": "A sentence that a page can show."}}}


Content = Callable[[Sequence[type[StreamError]]], Schema]
# How the errors of an operation are described, by its `x-error-form`.
_FORMS: Mapping[str, Content] = {"native": _json, "openai": _openai_json, "text": _text}


def _header(name: str) -> Schema:
    return {"$ref": f"#/components/headers/{name}"}


def _fill_in(properties: Schema, kinds: Sequence[type[StreamError]]) -> None:
    """Give an error's schema the types and codes of *kinds*."""
    properties["type"]["enum"] = _distinct(kind.type for kind in kinds)
    properties["code"]["enum"] = _distinct(kind.code for kind in kinds)


def _distinct(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
