"""The TOML file of several upstreams, models and keys. `deploy/upstreams.toml` explains it.

The tables below are what a file may hold, and the configuration that the service is built from. A file is read once, at
the start: unless all of it is right, the service does not start. Each error is one sentence that names the file and the
place in it. It never quotes a value, because that may be a key in the wrong place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    PlainValidator,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from app.composition.field_types import Count, Kind, Seconds, bare_url
from app.composition.settings import PREFIX, Settings, SettingsError
from app.edge.access.api_keys import ApiKey
from app.edge.access.models import Rule
from app.edge.bodies import MOST_TOP_LOGPROBS, ModelName, Parameters
from app.edge.field_path import field_path, suggestion
from app.model_name import is_model_name
from app.request import Allowance
from app.upstream.endpoint import OWN_HEADERS
from app.upstream.sources import load_source

_OPENAI = "https://api.openai.com/v1"
_MAX_FILE = 1 << 20


# --- what a file may hold


class Hop(NamedTuple):
    """A place in a route. *model* is the upstream's own name for the model; None is the name that the client uses."""

    upstream: str
    model: str | None = None


def _matches(pattern: str, sentence: str) -> AfterValidator:
    """Return a validator with a sentence of its own, because pydantic's would show people the pattern."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(sentence)
        return text

    return AfterValidator(check)


def _hop(text: object) -> Hop:
    name, _, model = text.partition("/") if isinstance(text, str) else ("", "", "")
    if not is_model_name(model):
        raise ValueError("it is UPSTREAM/MODEL")
    return Hop(name, model)


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    seen = set()
    for name, value in headers.items():
        lower = name.lower()
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", name):
            raise ValueError("one of the names is not a header's")
        if lower in OWN_HEADERS or lower.startswith("proxy-"):
            raise ValueError(f"the service itself sends {name}")
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
    if not same:  # a date, an infinity, NaN, or a number that is too large
        raise ValueError("it holds something that JSON cannot express")
    return value


def _json_parameters(parameters: Parameters) -> Parameters:
    _json(parameters.model_dump(exclude_unset=True))
    return parameters


Name = Annotated[str, _matches("[a-z0-9_-]{1,32}", "it is from 1 to 32 of a-z, 0-9, _ and -")]
KeyName = Annotated[str, _matches("[A-Za-z0-9._-]{1,64}", "it is from 1 to 64 of A-Z, a-z, 0-9, ., _ and -")]
# In capitals, because a key that was put here by mistake rarely is, and errors quote the name of a variable.
Variable = Annotated[str, _matches("[A-Z_][A-Z0-9_]{0,127}", "it is an environment variable's name, in capitals")]
Digest = Annotated[str, _matches("[0-9a-fA-F]{64}", "it is 64 hexadecimal digits: `chat-sse key` makes one")]


Names = Annotated[list[Annotated[str, StringConstraints(min_length=1, max_length=64)]], Field(max_length=128)]


def names_of(names: Sequence[str]) -> frozenset[str] | None:
    """Return *names* as a set, or None, which is any, if `*` is among them."""
    return None if "*" in names else frozenset(names)


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Upstream(_Table):
    """`[[upstreams]]`: a server that answers. *models* are those it may be asked for; none means any.

    The context of its validation is the environment, in which its key is. `repr` shows neither that nor what else may
    be secret. *connect_timeout* is None where the setting holds; 0 is no limit, for *first_token_timeout*, too.
    """

    name: Name
    base_url: Annotated[HttpUrl, bare_url("the variable of key_env")]
    kind: Kind = Field(default="openai-chat", alias="upstream")
    models: Annotated[list[ModelName], Field(max_length=1024)] = []
    connect_timeout: Seconds | None = None
    first_token_timeout: Seconds = 0.0
    headers: Annotated[dict[str, str], AfterValidator(_sendable)] = Field(default={}, repr=False)
    key_env: Variable | None = None
    extra_body: Annotated[dict[str, Any], AfterValidator(_json)] = Field(default={}, repr=False)
    background: bool = False
    _key: str | None = None

    @property
    def key(self) -> str | None:
        """The key that `key_env` stands for."""
        return self._key

    def model_post_init(self, context: Any, /) -> None:
        """Take the key from the environment."""
        self._key = context[self.key_env].strip() if self.key_env else None

    # A field's validator finds the fields above it in `info.data`, if they are right.

    @field_validator("key_env")
    @classmethod
    def _is_set(cls, variable: str | None, info: ValidationInfo) -> str | None:
        if variable is None:
            return None
        if any(name.lower() == "authorization" for name in info.data.get("headers", ())):
            raise ValueError("there is an Authorization header, too: keep one")
        key = (info.context or {}).get(variable, "").strip()
        if not key:
            raise ValueError(f"the environment variable {variable} is missing or empty")
        if not key.isascii() or not key.isprintable():
            raise ValueError(f"the environment variable {variable} is not printable ASCII")
        return variable

    @field_validator("extra_body")
    @classmethod
    def _leaves_own_fields(cls, extra_body: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        kind = info.data.get("kind")
        own = load_source(kind).OWN_FIELDS & extra_body.keys() if kind else None
        if own:
            raise ValueError(f"the service itself sends {min(own)}")
        return extra_body

    @field_validator("background")
    @classmethod
    def _has_background(cls, background: bool, info: ValidationInfo) -> bool:
        kind = info.data.get("kind")
        if background and kind and not load_source(kind).BACKGROUND:
            raise ValueError(f"an upstream of {kind} does not have it")
        return background


class Model(_Table):
    """`[[models]]`: a model that is offered. The settings' cap holds where one is None; `Rule` explains the rest.

    Without a *route*, every upstream that has a model of this *name* is asked for it.
    """

    name: ModelName
    route: Annotated[list[Annotated[Hop, PlainValidator(_hop)]], Field(min_length=1, max_length=32)] | None = None
    max_output_tokens: Count | None = None
    max_messages: Count | None = None
    max_prompt_chars: Count | None = None
    extra_parameters: Names | None = None
    tool_types: Names | None = None
    media_types: Names | None = None
    max_media: Count | None = None
    max_media_bytes: Count | None = None
    max_top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    stored_files: bool | None = None
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Annotated[Parameters, AfterValidator(_json_parameters)] = Parameters()
    system: Annotated[str, StringConstraints(max_length=1 << 18)] = Field(default="", repr=False)

    def rule(self, caps: Rule) -> Rule:
        """Return the rule for this model; the caps that it does not give are those of *caps*."""
        own = self.model_dump(include={"max_output_tokens", "max_messages", "max_prompt_chars"}, exclude_none=True)
        pinned = self.pinned.model_dump(exclude_unset=True)
        allowed = replace(caps.allowed, **self._allowed())
        return replace(
            caps,
            **own,
            allowed=allowed,
            output_tokens_field=self.output_tokens_field,
            pinned=pinned,
            system=self.system,
        )

    def _allowed(self) -> dict[str, Any]:
        """Return the fields of an `AllowList` that this model gives."""
        lists = {"parameters": self.extra_parameters, "tool_types": self.tool_types, "media_types": self.media_types}
        own = {name: names_of(names) for name, names in lists.items() if names is not None}
        bounds = {"max_media", "max_media_bytes", "max_top_logprobs", "stored_files"}
        return own | self.model_dump(include=bounds, exclude_none=True)


class KeyEntry(_Table):
    """`[[keys]]`: the hash of an API key, and its limits, which are those of an `Allowance`.

    The settings' limit holds where one is None.
    """

    name: KeyName
    sha256: Digest
    requests: Count | None = Field(default=None, alias="requests_per_minute")
    streams: Count | None = None
    readers: Count | None = None
    tokens: Count | None = Field(default=None, alias="tokens_per_day")

    def api_key(self, usual: Allowance) -> ApiKey:
        """Return the key; the limits that it does not give are those of *usual*."""
        own = self.model_dump(include=set(Allowance._fields), exclude_none=True)
        return ApiKey(self.name, bytes.fromhex(self.sha256), usual._replace(**own))


class Config(_Table):
    """A whole file: which upstreams to ask for which models, and for whom."""

    upstreams: Annotated[list[Upstream], Field(min_length=1, max_length=64)]
    models: Annotated[list[Model], Field(max_length=1024)] = []
    keys: Annotated[list[KeyEntry], Field(max_length=10_000)] = []

    @property
    def offered(self) -> list[str]:
        """The models that are offered by name, each once."""
        if self.models:
            return [model.name for model in self.models]
        return list(dict.fromkeys(model for upstream in self.upstreams for model in upstream.models))

    @property
    def routes(self) -> dict[str, Sequence[Hop]]:
        """The upstreams to ask for each model that is offered by name, in order."""
        if self.models:
            return {model.name: model.route or self._all_with(model.name) for model in self.models}
        return {name: self._all_with(name) for name in self.offered}

    @property
    def rest(self) -> list[Hop]:
        """The upstreams to ask for any other model, in order. There are none if no other is offered."""
        return [] if self.models else [Hop(upstream.name) for upstream in self.upstreams if not upstream.models]

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong between the tables: each time the place, and a clause that says what it is."""
        for place, values in self._unique():
            seen = set()
            for index, value in enumerate(values):
                if value in seen:
                    yield place.format(index), "it is there twice"
                seen.add(value)
        models_of = {upstream.name: upstream.models for upstream in self.upstreams}
        for index, model in enumerate(self.models):
            if model.route is None and not self._all_with(model.name):
                yield f"models[{index}].route", "no upstream has a model of this name, so it has to be given"
            for at, hop in enumerate(model.route or ()):
                place = f"models[{index}].route[{at}]"
                if hop.upstream not in models_of:
                    yield place, "there is no upstream of this name"
                elif models_of[hop.upstream] and hop.model not in models_of[hop.upstream]:
                    yield place, f"the models of upstream {hop.upstream} are listed, and this is none of them"

    def _unique(self) -> Iterator[tuple[str, Sequence[object]]]:
        """Yield the lists in which nothing may stand twice, after the place of their elements."""
        yield "upstreams[{}].name", [upstream.name for upstream in self.upstreams]
        yield "models[{}].name", [model.name for model in self.models]
        yield "keys[{}].name", [key.name for key in self.keys]
        yield "keys[{}].sha256", [key.sha256.lower() for key in self.keys]
        for index, upstream in enumerate(self.upstreams):
            yield f"upstreams[{index}].models[{{}}]", upstream.models
        for index, model in enumerate(self.models):
            yield f"models[{index}].route[{{}}]", model.route or ()

    def _all_with(self, model: str) -> list[Hop]:
        """Return the route over all upstreams that have *model*, or any, in their order."""
        return [Hop(upstream.name) for upstream in self.upstreams if not upstream.models or model in upstream.models]


_KEYS = tuple(name for table in (Config, Upstream, Model, KeyEntry) for name in table.model_fields)


# --- reading it


def load_config(path: str | Path, environ: Mapping[str, str]) -> Config:
    """Read a file. The keys that it names come from *environ*. Raises SettingsError."""
    data = _read(path)
    try:
        config = Config.model_validate(data, context=environ)
    except ValidationError as error:
        mistakes = error.errors(include_url=False, include_input=False)
        # What is missing may be there under another name, so an unknown name comes first.
        first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
        place = field_path(first, data)
        if first["type"] == "extra_forbidden":
            name = str(first["loc"][-1])
            meant = suggestion(name, _KEYS)
            raise SettingsError(f"{path}: {_printable(place)} is not a key of this file.{meant}") from None
        raise _wrong(path, place, first["msg"].removeprefix("Value error, ")) from None
    for place, clause in config.contradictions():
        raise _wrong(path, place, clause)
    return config


def create_config(settings: Settings, environ: Mapping[str, str], simulator: str = "") -> Config:
    """Return the file's configuration, or else the one upstream that the settings name, called "default".

    *environ* has the keys that the file names. *simulator* is the base URL of the built-in simulator, which is the
    upstream where the settings name none. Raises SettingsError.
    """
    if settings.config is not None:
        return load_config(settings.config, environ)
    if settings.upstream_background and not load_source(settings.upstream).BACKGROUND:
        raise SettingsError(f"{PREFIX}UPSTREAM_BACKGROUND takes {PREFIX}UPSTREAM=openai-responses.")
    default = simulator if settings.simulated else _OPENAI
    upstream: dict[str, Any] = {
        "name": "default",
        "base_url": str(settings.openai_base_url or default),
        "upstream": settings.upstream,
        "background": settings.upstream_background,
    }
    keys = {}
    if settings.openai_api_key is not None:
        upstream["key_env"] = "OPENAI_API_KEY"
        keys["OPENAI_API_KEY"] = settings.openai_api_key.get_secret_value()
    return Config.model_validate({"upstreams": [upstream]}, context=keys)


def _read(path: str | Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_FILE + 1)
    except OSError as error:
        # Without the path, because that may be a secret in the wrong place.
        raise SettingsError(
            f"The file that {PREFIX}CONFIG or the command names cannot be read: {error.strerror}."
        ) from None
    if len(raw) > _MAX_FILE:
        raise SettingsError(f"{path} is larger than {_MAX_FILE} bytes.")
    try:
        return tomllib.loads(raw.decode())
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        reason = str(error)
        if re.search(r"""(['"]).{3,}\1""", reason, re.DOTALL):  # a name or a value that it quotes may be a secret
            reason = reason[reason.rindex("(at ") :]
        raise SettingsError(f"{path} is not TOML: {_printable(reason)}.") from None
    except RecursionError:
        raise SettingsError(f"{path} is not TOML: it is nested too deeply.") from None


def _wrong(path: str | Path, place: str, clause: str) -> SettingsError:
    return SettingsError(f"{path}: {_printable(place)} is not right: {clause}.")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
