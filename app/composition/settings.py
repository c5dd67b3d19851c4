"""Every setting: typed, defaulted, documented and validated.

A setting is an environment variable with the prefix `CHAT_SSE_`, or a line of that name in `.env`; the environment
wins. `deploy/README.md` and `deploy/env.example` have the same descriptions, and a test keeps them in step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import (
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.composition.field_types import (
    Bytes,
    Count,
    DisconnectPolicy,
    Hosts,
    Kind,
    Origins,
    Seconds,
    Words,
    bare_url,
    lower,
    read_by,
)
from app.edge.bodies import MOST_TOP_LOGPROBS
from app.edge.field_path import suggestion
from app.hub import parse_disconnect_policy
from app.journal import check as check_journal
from app.model_name import is_model_name
from app.rechunk import create as create_rechunker

PREFIX = "CHAT_SSE_"
# `chat-sse ask` reads it. It is no setting of the service, but it may be set where the service runs.
CLIENT_KEY = f"{PREFIX}KEY"
# The supervisor of workers that have no secret gives them one, for tickets only: it is another with each start.
WORKERS_SECRET = f"{PREFIX}WORKERS_SECRET"


class SettingsError(Exception):
    """A setting is wrong; the message is a sentence that names it."""


class Settings(BaseSettings):
    """The whole configuration of one process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="The port to listen on; 0 picks a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="The number of processes that share the port. More than one needs a journal in Redis, and a "
        "CPU core each.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(lower)] = Field(
        "info", description="The lowest level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto` picks `console` if stderr is a terminal."
    )
    log_principals: bool = Field(
        False, description="`true` logs the names of principals. By default, a keyed hash stands for each."
    )

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias="OPENAI_API_KEY",
        description="The upstream's API key. Without this and without a base URL, the built-in simulator is the "
        "upstream.",
    )
    openai_base_url: Annotated[HttpUrl, bare_url("OPENAI_API_KEY")] | None = Field(
        None,
        validation_alias="OPENAI_BASE_URL",
        description="The upstream's base URL, with the version. If only a key is set, it is "
        "`https://api.openai.com/v1`.",
    )
    upstream: Kind = Field(
        "openai-chat",
        description="The API that the upstream speaks: `openai-chat` for chat completions, `openai-responses` for "
        "Responses.",
    )
    upstream_background: bool = Field(
        False,
        description="With `openai-responses`: let the upstream answer in the background and keep the answer, so "
        "that nothing is lost when the connection to it breaks or, with a journal on disk or in Redis, this process "
        "is killed.",
    )
    upstream_keep_idle: Seconds = Field(
        4,
        description="How many seconds an idle connection to an upstream is kept for the next request, if the upstream "
        "does not say. If it does (`Keep-Alive: timeout=`), the connection is kept for a second less.",
    )
    model: str = Field(
        "",
        max_length=256,
        description="The model for requests that name none. If empty, it is `gpt-4o-mini`, or `sim-gpt` with the "
        "simulator.",
    )

    config: Path | None = Field(
        None,
        description="A TOML file with several upstreams, models, caps and keys; the upstream settings above do not "
        "apply then. `deploy/upstreams.toml` explains it.",
    )
    models: Words = Field(
        (), description="The models that clients may ask for, separated by commas. If empty, they may ask for any."
    )
    max_output_tokens: Count = Field(
        0,
        description="The most output tokens that a request may ask for. A request that does not say gets as many. "
        "0 is no cap.",
    )
    max_messages: Count = Field(0, description="The most messages in a request. 0 is no cap.")
    max_prompt_chars: Count = Field(
        0,
        description="The most characters in the messages and parameters of a request, names and numbers included, "
        "except the data of media. 0 is no cap.",
    )
    extra_parameters: Words = Field(
        (),
        description="The parameters that pass besides OpenAI's ordinary ones, separated by commas; `*` is any. If "
        "empty, any passes, unless models are listed or a cap, a budget or one of the next six is set: then only the "
        "ordinary ones do. Some parameters evade a cap or a budget.",
    )
    tool_types: Words = Field(
        ("function", "custom"),
        description="The types of tools that requests may have, separated by commas; `*` is any. This and the next "
        "five hold once any of them or an extra parameter is set, models are listed, or a cap or a budget is set.",
    )
    media_types: Words = Field(
        ("image_url", "input_audio", "file"),
        description="The types of the parts of messages that are no text, separated by commas; `*` is any.",
    )
    max_media: Count = Field(20, description="The most such parts in a request. 0 is no limit.")
    max_media_bytes: Count = Field(
        8 << 20, description="The most bytes of such parts in a request, as they are sent. 0 is no limit."
    )
    max_top_logprobs: int = Field(
        MOST_TOP_LOGPROBS,
        ge=0,
        le=MOST_TOP_LOGPROBS,
        description="The most log probabilities at each token (`top_logprobs`) that a request may ask for; what comes "
        "is kept with the answer. 0 refuses log probabilities at all.",
    )
    stored_files: bool = Field(
        False,
        description="Whether requests may name files and vector stores that the upstream's account keeps. All "
        "principals share that account.",
    )

    allow_anonymous: bool = Field(
        False,
        description="`true` lets the service listen on addresses other than loopback without asking for "
        "credentials, because a proxy in front of it does.",
    )
    api_keys: Words = Field(
        (),
        description="The API keys that are accepted, as `NAME:SHA256`, separated by commas. `chat-sse key NAME` "
        "makes one.",
    )
    jwt_secret: SecretStr | None = Field(
        None, description="The secret of JWTs that are signed with HS256, at least 32 bytes."
    )
    jwt_key_file: Path | None = Field(
        None, description="A PEM file with the public key of JWTs that are signed with RS256 or ES256."
    )
    jwt_jwks_url: HttpUrl | None = Field(
        None, description="The URL at which the issuer of JWTs publishes its keys (JWKS)."
    )
    jwt_audience: str = Field(
        "",
        description="The audience that a JWT must name. It is required with a key file or a JWKS URL. If empty, a "
        "JWT must name none.",
    )
    jwt_issuer: str = Field("", description="The issuer that a JWT must name. If empty, the issuer is not checked.")
    secret: SecretStr | None = Field(
        None,
        description="The secret that signs the tickets in the URLs of streams, and hashes the names of principals, at "
        "least 32 bytes. If empty, each start makes a new one for tickets, and names are hashed without one. With "
        "another secret, principals no longer find the streams of before.",
    )
    ticket_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        2100,
        description="How many seconds such a URL is valid. An `EventSource` reconnects with it, so this is longer "
        "than an answer takes.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        description="The bearer token for `/metrics`. Without one, `/metrics` is closed if the service asks for "
        "credentials.",
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Another port, which serves the `/metrics` of one process and nothing else. With several workers "
        "it is the port of the first one, and each of the others has the next. 0 is off.",
    )
    allowed_origins: Origins = Field(
        (),
        description="The origins of other sites whose pages may use the service, separated by commas; `*` is any. If "
        "empty, in front of the simulator, those of loopback.",
    )
    allowed_hosts: Hosts = Field(
        (),
        description="The host names that the service answers to, separated by commas. If empty, it answers to any; "
        "on loopback and without credentials, to the names of loopback only.",
    )
    playground: bool = Field(True, description="Whether `/` serves the playground.")

    requests_per_minute: Count = Field(
        0, description="Requests per minute for each principal. 0, here and in the next four, is no limit."
    )
    streams_per_principal: Count = Field(0, description="Streams that a principal may have live at once.")
    readers_per_principal: Count = Field(0, description="Readers that a principal may have attached at once.")
    tokens_per_day: Count = Field(
        0,
        description="Output tokens per day for each principal. They are reserved before an answer is asked for, and "
        "the upstream is told the number as its limit.",
    )
    total_requests_per_minute: Count = Field(0, description="Requests per minute for all principals together.")
    reserve_tokens: int = Field(
        4096,
        ge=16,
        le=1 << 31,
        description="How many tokens of a day are reserved for a request that has no limit of its own and no cap.",
    )
    count_input_tokens: bool = Field(
        False, description="Whether the tokens of prompts count towards the tokens per day, too."
    )

    journal: Annotated[str, read_by(check_journal)] = Field(
        "memory",
        description="Where streams are kept: `memory`; on disk, for one process, `file:///FOLDER` (`{port}` in it is "
        "the port); or, shared by any number of processes, `redis://HOST:PORT/DB`, or `redis+cluster://HOST:PORT` "
        "with any node of a cluster. `rediss` is for TLS. What is on disk survives that the process is killed; with "
        "`?survives=power-loss` after the folder, a power loss, too, and each write waits for the disk.",
    )
    journal_timeout: Annotated[float, Field(ge=1, le=3600)] = Field(
        30,
        description="How many seconds live streams wait while Redis is away, or the disk is full, before they end with "
        "an error.",
    )

    connect_timeout: Seconds = Field(
        5,
        description="The time limit for connecting to the upstream, in seconds. 0, here and in the next four, is "
        "no limit.",
    )
    first_token_timeout: Seconds = Field(
        300, description="The time limit for the upstream's first content, including retries, in seconds."
    )
    idle_timeout: Seconds = Field(
        120, description="The longest silence from the upstream once the answer has begun, in seconds."
    )
    progress_timeout: Seconds = Field(
        300,
        description="The longest time in which the upstream sends heartbeats but no content, once the answer has "
        "begun, in seconds.",
    )
    total_timeout: Seconds = Field(1800, description="The time limit for a whole stream, in seconds.")
    commit_after: Seconds = Field(
        2,
        description="How many seconds the HTTP status of an answer waits for the upstream's first content. 0 is no "
        "wait.",
    )
    retry_hold: Annotated[float, Field(ge=0, le=3600)] = Field(
        20,
        description="How many seconds the HTTP status waits while the service asks again after a failure. It must be "
        "less than what proxies in front of the service wait for a status.",
    )
    retry_attempts: int = Field(
        3, ge=1, le=10, description="The number of attempts before the first content, including the first attempt."
    )
    retry_wait: Seconds = Field(
        0.5,
        description="How many seconds to wait before the second attempt. The wait doubles with each further "
        "attempt, with jitter.",
    )
    retry_wait_max: Seconds = Field(
        8,
        description="The longest wait, in seconds. An upstream that asks for a longer one is not tried again, and "
        "the client is told to wait as long.",
    )

    chunk: Annotated[str, read_by(create_rechunker)] = Field(
        "auto", description="How the text is re-chunked if a request does not say."
    )
    on_disconnect: DisconnectPolicy = Field(
        "grace:10",
        description="What happens to a stream when its last reader has left: `cancel`, `continue`, or `grace:SECONDS`. "
        "If it is set, it also applies to streams to which no client can come back; by default, these are cancelled.",
    )
    on_disconnect_max: DisconnectPolicy = Field(
        "continue", description="The most that a request may ask for in its `on_disconnect`."
    )
    keep_alive: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        15, description="The longest silence on a stream, in seconds, before a comment line is sent."
    )
    reconnect_ms: int = Field(
        2000,
        ge=0,
        le=3_600_000,
        description="How many milliseconds clients wait before they reconnect (`retry:`). Each client is told up "
        "to 25 % more or less.",
    )
    reader_timeout: Seconds = Field(
        60, description="How many seconds a reader may accept no data, or be without a network, before it is dropped."
    )

    max_body: Bytes = Field(
        1 << 20,
        description="The largest request body, in bytes. Other clients wait for a body of more than 8 MiB while it is "
        "read.",
    )
    body_timeout: Seconds = Field(
        30, description="The time limit for a request's body to arrive, in seconds. 0 is no limit."
    )
    max_event: Bytes = Field(8 << 20, description="The largest event from the upstream, in bytes.")
    max_stream: Bytes = Field(16 << 20, description="The most memory that the log of one stream may take, in bytes.")
    max_streams: int = Field(2000, ge=1, description="The most streams live at once.")
    max_readers: int = Field(10_000, ge=1, description="The most readers attached at once.")
    max_connections: int = Field(
        16_384,
        ge=16,
        description="The most connections open at once. Above that, those that have waited longest for a request "
        "are closed.",
    )
    max_total: Bytes = Field(
        1 << 30,
        description="The most memory that all logs together may take, in bytes; and as much on disk, with a journal "
        "there. Above that, the principal that has most loses its streams that ended first.",
    )
    max_per_principal: Bytes = Field(
        256 << 20,
        description="The most memory that the logs of one principal may take, in bytes, in a process, on disk and in "
        "Redis. Above that, its streams that ended first are dropped. Callers without credentials have no such bound.",
    )
    max_kept: int = Field(10_000, ge=0, description="The most ended streams that are kept for reading.")
    keep: Seconds = Field(3600, description="How many seconds an ended stream is kept. 0 is not at all.")
    shutdown_grace: Seconds = Field(
        20,
        description="How many seconds live streams get to finish after SIGTERM. Those that are live then are left to "
        "the next process if it can adopt them; the others end with an error.",
    )
    otlp: bool = Field(
        False,
        description="Export traces and metrics over OTLP to the address in the standard `OTEL_` variables. Needs "
        "the extra `otlp`.",
    )

    @field_validator("model")
    @classmethod
    def _printable(cls, model: str) -> str:
        if model and not is_model_name(model):
            raise ValueError("must be printable")
        return model

    @field_validator("openai_api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        """Strip the line end that a key from a file often has. A key that no header can carry is a mistake."""
        if key is None:
            return None
        bare = key.get_secret_value().strip()
        if not bare or not bare.isascii() or not bare.isprintable():
            raise ValueError("must be printable ASCII")
        return SecretStr(bare)

    @field_validator("on_disconnect_max")
    @classmethod
    def _covers_the_default(cls, policy: str, info: ValidationInfo) -> str:
        if parse_disconnect_policy(policy) < parse_disconnect_policy(info.data.get("on_disconnect", "cancel")):
            raise ValueError(f"it is less than {PREFIX}ON_DISCONNECT, which holds for requests that do not say")
        return policy

    @property
    def simulated(self) -> bool:
        """Whether the built-in simulator is the upstream."""
        return self.config is None and self.openai_api_key is None and self.openai_base_url is None

    @property
    def default_model(self) -> str:
        """The model for requests that name none."""
        return self.model or ("sim-gpt" if self.simulated else "gpt-4o-mini")


def load(env_file: str | Path | None = ".env", **overrides: object) -> Settings:
    """Read the settings. *overrides*, which the command line gives, win. Raises SettingsError."""
    try:
        _refuse_unknown(env_file)
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg, arg-type]  # pydantic validates them
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else f"{PREFIX}{name.upper()}"  # an alias is the variable's name itself
        raise SettingsError(f"{name} is not right: {first['msg'].removeprefix('Value error, ')}.") from None


def environment(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Return the environment's variables, and those that only *env_file* has."""
    given = dotenv_values(env_file) if env_file else {}
    return {**{name: value for name, value in given.items() if value is not None}, **os.environ}


def _refuse_unknown(env_file: str | Path | None) -> None:
    """Refuse a misspelt setting, which would otherwise leave the default in place without a word."""
    known = {CLIENT_KEY, WORKERS_SECRET}
    for field, about in Settings.model_fields.items():
        known.add(about.validation_alias if isinstance(about.validation_alias, str) else f"{PREFIX}{field.upper()}")
    for name in sorted(environment(env_file)):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            meant = suggestion(name.upper(), known) or suggestion(name.upper().removeprefix(PREFIX), known)
            raise SettingsError(f"{name} is not a setting of chat-sse; deploy/README.md lists them.{meant}")
