"""The TOML file: several upstreams, what is offered of them and to whom. `deploy/upstreams.toml` explains it.

A file is read once, at the start, and either all of it is right or the service does not start: each error is one
sentence that names the file and the place in it, and never holds a value, which may be a key in the wrong place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, StringConstraints, ValidationError

from app.composition.parts import Config, Hop, Key, Model, Upstream, all_with
from app.composition.settings import Count, Kind, Seconds, SettingsError
from app.edge.bodies import Parameters
from app.upstream import openai_chat
from app.upstream.endpoint import OWN_HEADERS
from app.upstream.responses import source as openai_responses

_MAX_FILE = 1 << 20
_OWN_FIELDS: Mapping[Kind, frozenset[str]] = {
    "openai-chat": openai_chat.OWN_FIELDS,
    "openai-responses": openai_responses.OWN_FIELDS,
}


def load_config(path: str | Path, environ: Mapping[str, str]) -> Config:
    """Read a file; the keys that it names come from *environ*. Raises SettingsError."""
    data = _read(path)
    try:
        file = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise _wrong(path, _place(first["loc"], data), first["msg"].removeprefix("Value error, ")) from None
    upstreams = tuple(_upstream(path, index, given, environ) for index, given in enumerate(file.upstreams))
    _distinct(path, "upstreams[{}].name", [upstream.name for upstream in upstreams])
    models = tuple(_model(path, index, given, upstreams) for index, given in enumerate(file.models))
    _distinct(path, "models[{}].name", [model.name for model in models])
    keys = tuple(
        Key(
            key.name,
            bytes.fromhex(key.sha256),
            key.requests_per_minute,
            key.streams,
            key.readers,
            key.tokens_per_day,
        )
        for key in file.keys
    )
    _distinct(path, "keys[{}].name", [key.name for key in keys])
    _distinct(path, "keys[{}].sha256", [key.sha256 for key in keys])
    return Config(upstreams, models, keys, str(path))


# --- what a file may hold


def _names_any(pattern: str, sentence: str) -> AfterValidator:
    """Return a validator with a sentence of its own, since pydantic's would show people the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _bare(url: HttpUrl) -> HttpUrl:
    if url.username or url.password or url.query is not None or url.fragment is not None:
        raise ValueError("it takes no user, password, query or fragment; a key goes into the variable of key_env")
    return url


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    seen = set()
    for name, value in headers.items():
        lower = name.lower()
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", name):
            raise ValueError("one of the names is not a header's")
        if lower in OWN_HEADERS or lower.startswith("proxy-"):
            raise ValueError(f"{name} is the service's own to send")
        if lower in seen:
            raise ValueError(f"{name} is there twice")
        if not value.strip() or not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name} must be printable ASCII")
        seen.add(lower)
    return {name: value.strip() for name, value in headers.items()}


def _json(value: dict[str, Any]) -> dict[str, Any]:
    try:
        same = orjson.loads(orjson.dumps(value, option=orjson.OPT_PASSTHROUGH_DATETIME)) == value
    except TypeError:
        same = False
    if not same:  # a date, a number that is none, or one that is too large
        raise ValueError("it holds something that JSON cannot say")
    return value


Name = Annotated[str, _names_any("[a-z0-9_-]{1,32}", "it is from 1 to 32 of a-z, 0-9, _ and -")]
ModelName = Annotated[str, _names_any("[ -~]{1,256}", "it is from 1 to 256 printable ASCII characters")]
KeyName = Annotated[str, _names_any("[A-Za-z0-9._-]{1,64}", "it is from 1 to 64 of A-Z, a-z, 0-9, ., _ and -")]
# In capitals: a key that was put here by mistake is not, and must not be shown as a name.
Variable = Annotated[str, _names_any("[A-Z_][A-Z0-9_]{0,127}", "it is an environment variable's name, in capitals")]
Digest = Annotated[str, _names_any("[0-9a-fA-F]{64}", "it is 64 hexadecimal digits: `chat-sse key` makes one")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Upstream(_Table):
    name: Name
    base_url: Annotated[HttpUrl, AfterValidator(_bare)]
    key_env: Variable | None = None
    models: Annotated[list[ModelName], Field(max_length=1024)] = []
    connect_timeout: Seconds | None = None
    first_token_timeout: Seconds = 0.0
    headers: Annotated[dict[str, str], AfterValidator(_sendable)] = {}
    extra_body: Annotated[dict[str, Any], AfterValidator(_json)] = {}
    upstream: Kind = "openai-chat"
    background: bool = False


class _Model(_Table):
    name: ModelName
    route: Annotated[list[str], Field(min_length=1, max_length=32)] | None = None
    max_output_tokens: Count | None = None
    max_messages: Count | None = None
    max_prompt_chars: Count | None = None
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Parameters = Parameters()
    system: Annotated[str, StringConstraints(max_length=1 << 18)] = ""


class _Key(_Table):
    name: KeyName
    sha256: Digest
    requests_per_minute: Count | None = None
    streams: Count | None = None
    readers: Count | None = None
    tokens_per_day: Count | None = None


class _File(_Table):
    upstreams: Annotated[list[_Upstream], Field(min_length=1, max_length=64)]
    models: Annotated[list[_Model], Field(max_length=1024)] = []
    keys: Annotated[list[_Key], Field(max_length=10_000)] = []


# --- from there to here


def _read(path: str | Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}.") from None
    if len(raw) > _MAX_FILE:
        raise SettingsError(f"{path} is larger than {_MAX_FILE} bytes.")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8.") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        # Only where: what is there may be a key.
        where = re.search(r"\(at [a-z0-9, ]+\)$", str(error))
        raise SettingsError(f"{path} is not TOML{' ' + where[0] if where else ''}.") from None


def _upstream(path: str | Path, index: int, given: _Upstream, environ: Mapping[str, str]) -> Upstream:
    key = None
    if given.key_env is not None:
        place = f"upstreams[{index}].key_env"
        if any(name.lower() == "authorization" for name in given.headers):
            raise _wrong(path, place, "there is an Authorization header, too: keep one")
        key = environ.get(given.key_env, "").strip()
        if not key:
            raise _wrong(path, place, f"the environment variable {given.key_env} is missing or empty")
        if not key.isascii() or not key.isprintable():
            raise _wrong(path, place, f"the environment variable {given.key_env} is not printable ASCII")
    if taken := _OWN_FIELDS[given.upstream] & set(given.extra_body):
        raise _wrong(path, f"upstreams[{index}].extra_body", f"{min(taken)} is the service's own to send")
    if given.background and given.upstream != "openai-responses":
        raise _wrong(path, f"upstreams[{index}].background", "only an upstream of openai-responses has it")
    _distinct(path, f"upstreams[{index}].models[{{}}]", given.models)
    return Upstream(
        given.name,
        str(given.base_url),
        key,
        given.key_env or "",
        tuple(given.models),
        given.headers,
        given.extra_body,
        given.connect_timeout,
        given.first_token_timeout,
        given.upstream,
        given.background,
    )


def _model(path: str | Path, index: int, given: _Model, upstreams: Sequence[Upstream]) -> Model:
    place = f"models[{index}].route"
    if given.route is None:
        route = all_with(given.name, upstreams)
        if not route:
            raise _wrong(path, place, "no upstream has a model of this name, so it has to be given")
    else:
        _distinct(path, f"{place}[{{}}]", given.route)
        route = tuple(_hop(path, f"{place}[{at}]", hop, upstreams) for at, hop in enumerate(given.route))
    return Model(
        given.name,
        route,
        given.max_output_tokens,
        given.max_messages,
        given.max_prompt_chars,
        given.output_tokens_field,
        _pinned(path, f"models[{index}].pinned", given.pinned),
        given.system,
    )


def _hop(path: str | Path, place: str, text: str, upstreams: Sequence[Upstream]) -> Hop:
    name, _, model = text.partition("/")
    if not re.fullmatch("[ -~]{1,256}", model):
        raise _wrong(path, place, "it is UPSTREAM/MODEL")
    upstream = next((upstream for upstream in upstreams if upstream.name == name), None)
    if upstream is None:
        raise _wrong(path, place, "there is no upstream of this name")
    if upstream.models and model not in upstream.models:
        raise _wrong(path, place, f"the models of upstream {name} are listed, and this is none of them")
    return Hop(name, model)


def _pinned(path: str | Path, place: str, given: Parameters) -> dict[str, Any]:
    pinned = given.model_dump(exclude_unset=True)
    try:
        return _json(pinned)
    except ValueError as error:
        raise _wrong(path, place, str(error)) from None


def _distinct(path: str | Path, place: str, values: Sequence[object]) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise _wrong(path, place.format(index), "it is there twice")


def _place(loc: tuple[int | str, ...], data: Any) -> str:
    """Return where pydantic's *loc* is, as people write it: `upstreams[1].base_url`."""
    place, value = "", data
    for step in loc:
        # A union's branch and a key's own mark are in it, too; only steps that exist are the file's, or one is missing.
        if isinstance(step, int) and isinstance(value, list) and step < len(value):
            place, value = f"{place}[{step}]", value[step]
        elif isinstance(step, str) and isinstance(value, dict) and (step in value or step == loc[-1]):
            name = step[:64] if step.isprintable() else "?"
            place, value = f"{place}.{name}" if place else name, value.get(step)
    return place


def _wrong(path: str | Path, place: str, why: str) -> SettingsError:
    return SettingsError(f"{path}: {place} is not right: {why}.")
