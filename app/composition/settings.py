"""Every setting: typed, defaulted, documented and validated.

A setting is an environment variable with the prefix `CHAT_SSE_`, or a line of that name in `.env`; the environment
wins. The description of each is what README's table and `deploy/env.example` say of it; a test keeps the three in step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    Field,
    HttpUrl,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.edge.access.origins import parse_host, parse_origin
from app.hub import parse_policy
from app.rechunk import create as create_rechunker

PREFIX = "CHAT_SSE_"
# What `chat-sse ask` reads: no setting of the service, but it may be set where the service runs.
CLIENT_KEY = f"{PREFIX}KEY"

Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 40)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
# What an upstream speaks: each is a module of `app.upstream`.
Kind = Literal["openai-chat", "openai-responses"]


def _lower(level: object) -> object:
    return level.lower() if isinstance(level, str) else level


def _split(text: object) -> object:
    return [item.strip() for item in text.split(",") if item.strip()] if isinstance(text, str) else text


# Written with commas; not as JSON, which is pydantic-settings' own way.
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[Words, AfterValidator(lambda texts: tuple(map(parse_origin, texts)))]
Hosts = Annotated[Words, AfterValidator(lambda texts: tuple(map(parse_host, texts)))]


class SettingsError(Exception):
    """A setting is wrong; the message is a sentence that names it."""


def bare_url(place: str) -> AfterValidator:
    """Return a validator of base URLs, which hold no secrets and no query. *place* is where a key belongs."""

    def check(url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query is not None or url.fragment is not None:
            raise ValueError(f"it takes no user, password, query or fragment; a key goes into {place}")
        return url

    return AfterValidator(check)


def _is_cut(spec: str) -> str:
    create_rechunker(spec)
    return spec


def _is_journal(where: str) -> str:
    schemes = "redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "unix://"
    if where != "memory" and not where.startswith(schemes):
        raise ValueError(f"is `memory`, or a url that begins with {', '.join(schemes[:-1])} or {schemes[-1]}")
    return where


def _is_policy(policy: str) -> str:
    parse_policy(policy)
    return policy


class Settings(BaseSettings):
    """The whole configuration of one process."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")
    workers: int = Field(
        1,
        ge=1,
        le=256,
        description="Processes that share the port; more than one takes a journal in Redis, and a CPU core each.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="`console` for people, `json` for machines; `auto` looks whether stderr is a terminal."
    )

    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}OPENAI_API_KEY", "OPENAI_API_KEY"),
        description="Upstream's key. With neither this nor a base URL, the built-in simulator is the upstream.",
    )
    openai_base_url: Annotated[HttpUrl, bare_url("OPENAI_API_KEY")] | None = Field(
        None,
        validation_alias=AliasChoices(f"{PREFIX}OPENAI_BASE_URL", "OPENAI_BASE_URL"),
        description="Upstream's base URL, version included; with a key alone it is `https://api.openai.com/v1`.",
    )
    upstream: Kind = Field(
        "openai-chat",
        description="What upstream speaks: `openai-chat` for chat completions, `openai-responses` for Responses.",
    )
    upstream_background: bool = Field(
        False,
        description="With `openai-responses`: have upstream answer in the background and keep the answer, so that a "
        "connection to it that breaks loses nothing.",
    )
    model: str = Field(
        "", max_length=256, description="Model for requests that name none; empty: `gpt-4o-mini`, or `sim-gpt`."
    )

    config: Path | None = Field(
        None,
        description="TOML file with several upstreams, models, caps and keys; then the upstream settings above are not "
        "used. `deploy/upstreams.toml` explains it.",
    )
    models: Words = Field((), description="Models that may be asked for, with commas; empty: any.")
    extra_parameters: Words = Field(
        ("*",),
        description="Parameters beyond OpenAI's that `/v1/chat/completions` passes on, with commas; `*`: any. Some "
        "upstreams have such as get round the caps here.",
    )
    max_output_tokens: Count = Field(
        0, description="Most output tokens that a request may ask for, and gets if it does not say; 0: no cap."
    )
    max_messages: Count = Field(0, description="Most messages in a request; 0: no cap.")
    max_prompt_chars: Count = Field(
        0, description="Most characters of text that the model reads, tools and response format included; 0: no cap."
    )

    allow_anonymous: bool = Field(
        False,
        description="`true`: listen on other addresses than loopback without asking for credentials, because something "
        "in front does.",
    )
    api_keys: Words = Field(
        (), description="API keys that are good, as `NAME:SHA256`, with commas; `chat-sse key NAME` makes one."
    )
    jwt_secret: SecretStr | None = Field(None, description="Secret of JWTs signed with HS256; 32 bytes at least.")
    jwt_key_file: Path | None = Field(None, description="PEM file with the public key of JWTs: RS256 or ES256.")
    jwt_jwks_url: HttpUrl | None = Field(None, description="Where the issuer of JWTs publishes its keys (JWKS).")
    jwt_audience: str = Field(
        "",
        description="Audience that a JWT must name; has to be set with a key file or a JWKS url. Empty: it must name "
        "none.",
    )
    jwt_issuer: str = Field("", description="Issuer that a JWT must name; empty: not looked at.")
    secret: SecretStr | None = Field(
        None,
        description="Signs the tickets in the urls of streams, 32 bytes at least; empty: made anew at each start.",
    )
    ticket_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        2100,
        description="Seconds for which such a url opens its stream; longer than an answer takes, because an "
        "`EventSource` reconnects with it.",
    )
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for `/metrics`, which is closed without it if credentials are asked for."
    )
    metrics_port: int = Field(
        0,
        ge=0,
        le=65_535,
        description="Another port, for `/metrics` of one process: with several workers this is the first one's, and "
        "each of the others has the next. 0: off.",
    )
    allowed_origins: Origins = Field(
        (), description="Origins of other sites whose pages may use the service, with commas; `*`: any."
    )
    allowed_hosts: Hosts = Field(
        (),
        description="Host names that the service answers to, with commas; empty: any, but on loopback without "
        "credentials only loopback's own.",
    )
    playground: bool = Field(True, description="Whether `/` is the playground.")

    requests_per_minute: Count = Field(0, description="Requests a minute for each principal; 0, as below: no limit.")
    streams_per_principal: Count = Field(0, description="Streams live at once for each principal.")
    readers_per_principal: Count = Field(0, description="Readers attached at once for each principal.")
    tokens_per_day: Count = Field(0, description="Output tokens a day for each principal.")
    total_requests_per_minute: Count = Field(0, description="Requests a minute for all together.")

    journal: Annotated[str, AfterValidator(_is_journal)] = Field(
        "memory",
        description="Where streams are kept: `memory`, or `redis://HOST:PORT/DB`, or `redis+cluster://HOST:PORT`, any "
        "node of a cluster (`rediss` for TLS), which any number of processes may share.",
    )
    journal_timeout: Annotated[float, Field(ge=1, le=3600)] = Field(
        30, description="Seconds that live streams wait for Redis while it is away; then they end with an error."
    )

    connect_timeout: Seconds = Field(
        5, description="Seconds to connect to upstream; 0, as for the next four, is no limit."
    )
    first_token_timeout: Seconds = Field(300, description="Seconds to upstream's first content, retries included.")
    idle_timeout: Seconds = Field(120, description="Seconds without a byte from upstream, once the answer has begun.")
    progress_timeout: Seconds = Field(300, description="Seconds of heartbeats without content, likewise.")
    total_timeout: Seconds = Field(1800, description="Seconds a whole stream may take.")
    commit_after: Seconds = Field(
        2, description="Seconds for which an answer's HTTP status waits for upstream's first content; 0: not at all."
    )
    retry_attempts: int = Field(3, ge=1, le=10, description="Tries in all, before the first content.")
    retry_wait: Seconds = Field(0.5, description="Seconds before the second try; doubles from there, with jitter.")
    retry_wait_max: Seconds = Field(
        8, description="Longest wait; an upstream that asks for more is not tried again, what it asks is passed on."
    )

    chunk: Annotated[str, AfterValidator(_is_cut)] = Field(
        "auto", description="How deltas are cut anew where a request does not say."
    )
    on_disconnect: Annotated[str, AfterValidator(_is_policy)] = Field(
        "grace:10",
        description="What happens to a stream whose last reader left: `cancel`, `continue`, or `grace:SECONDS`.",
    )
    on_disconnect_max: Annotated[str, AfterValidator(_is_policy)] = Field(
        "continue", description="The most that a request may ask of that."
    )
    keep_alive: Annotated[float, Field(ge=0.05, le=3600)] = Field(
        15, description="Longest silence on a stream, in seconds, before a comment line is sent."
    )
    reconnect_ms: int = Field(
        2000, ge=0, le=3_600_000, description="`retry:` told to clients, in milliseconds; each is told up to 25 % off."
    )
    reader_timeout: Seconds = Field(
        60, description="Seconds after which a reader that takes nothing, or whose network is gone, is dropped."
    )

    max_body: Bytes = Field(1 << 20, description="Largest request body, in bytes.")
    body_timeout: Seconds = Field(30, description="Seconds for a request's body to arrive; 0: no limit.")
    max_event: Bytes = Field(8 << 20, description="Largest single event from upstream, in bytes.")
    max_stream: Bytes = Field(16 << 20, description="Most memory one stream's log may take, in bytes.")
    max_streams: int = Field(2000, ge=1, description="Most streams live at once.")
    max_readers: int = Field(10_000, ge=1, description="Most readers attached at once.")
    max_connections: int = Field(
        16_384, ge=16, description="Most connections open at once; those that wait for a request longest go first."
    )
    max_total: Bytes = Field(
        1 << 30, description="Most memory all logs together may take, in bytes; the streams that ended first go first."
    )
    max_kept: int = Field(10_000, ge=0, description="Most ended streams that are kept to be read again.")
    keep: Seconds = Field(3600, description="Seconds for which an ended stream is kept; 0: not at all.")
    shutdown_grace: Seconds = Field(
        20, description="Seconds that live streams get to finish after SIGTERM; then what is left ends with an error."
    )
    otlp: bool = Field(
        False,
        description="Export traces and metrics over OTLP, to where the standard `OTEL_` variables say; needs the extra "
        "`otlp`.",
    )

    @field_validator("model")
    @classmethod
    def _printable(cls, model: str) -> str:
        if not model.isprintable():
            raise ValueError("must be printable")
        return model

    @field_validator("openai_api_key")
    @classmethod
    def _sendable(cls, key: SecretStr | None) -> SecretStr | None:
        """A key from a file often has its line end with it; anything else that no header can carry is a mistake."""
        if key is None:
            return None
        bare = key.get_secret_value().strip()
        if not bare or not bare.isascii() or not bare.isprintable():
            raise ValueError("must be printable ASCII")
        return SecretStr(bare)

    @field_validator("on_disconnect_max")
    @classmethod
    def _covers_the_default(cls, policy: str, info: ValidationInfo) -> str:
        if parse_policy(policy) < parse_policy(info.data.get("on_disconnect", "cancel")):
            raise ValueError(f"is less than {PREFIX}ON_DISCONNECT, which holds for requests that do not say")
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
    """Read the settings; *overrides* (the command line) win. Raises SettingsError."""
    try:
        _refuse_unknown(env_file)
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg, arg-type]  # pydantic validates them
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8.") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0])
        name = name if name.isupper() else f"{PREFIX}{name.upper()}"
        raise SettingsError(f"{name} is not right: {first['msg'].removeprefix('Value error, ')}.") from None


def environment(env_file: str | Path | None = ".env") -> dict[str, str]:
    """Return the environment, over what *env_file* adds to it."""
    given = dotenv_values(env_file) if env_file else {}
    return {**{name: value for name, value in given.items() if value is not None}, **os.environ}


def _refuse_unknown(env_file: str | Path | None) -> None:
    """A misspelt setting would silently be a default: refuse it."""
    known = {CLIENT_KEY, *(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)}
    for name in sorted(environment(env_file)):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise SettingsError(f"{name} is not a setting of chat-sse; README lists them.")
