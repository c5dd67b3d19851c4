"""Who may use the service and which models they may ask for, as the settings and the configuration file say."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from app.addresses import is_loopback
from app.composition.config_file import Config, names_of
from app.composition.settings import PREFIX, WORKERS_SECRET, Settings, SettingsError
from app.edge.access.allow_list import ANYTHING, AllowList
from app.edge.access.api_keys import ApiKeys, parse
from app.edge.access.authentication import Credentials, Scheme
from app.edge.access.jwt_keys import JwtKey, KeySet, public_key, secret_key
from app.edge.access.jwts import Jwts
from app.edge.access.models import ModelPolicy, Rule
from app.edge.access.origins import LOOPBACK, Origins
from app.edge.access.tickets import Tickets
from app.request import Allowance

_MIN_SECRET = 32
# Goes before the secret in the key of hashes, so that no signature of a ticket is an account.
_HASHES = b"chat-sse account\0"


class Access(NamedTuple):
    """*open*: the service asks for no credentials. Only a service that asks for some issues *tickets*.

    *key* is what the names of principals are hashed with, wherever others may read them.
    """

    credentials: Credentials
    tickets: Tickets | None
    origins: Origins
    open: bool
    key: bytes


def create_access(settings: Settings, config: Config, log: FilteringBoundLogger) -> Access:
    """Build it from the settings and the keys of the configuration file. Raises SettingsError."""
    usual = usual_allowance(settings)
    schemes = [*_api_keys(settings, config, usual), *_jwts(settings, usual, log)]
    loopback = is_loopback(settings.host)
    if not schemes and not loopback and not settings.allow_anonymous:
        raise SettingsError(
            f"Without credentials the service listens on loopback only, and {PREFIX}HOST is another address: "
            f"set {PREFIX}API_KEYS (`chat-sse key NAME` makes one), or {PREFIX}ALLOW_ANONYMOUS=true if something in "
            "front of it asks for them."
        )
    hosts = settings.allowed_hosts
    if not hosts and not schemes and loopback:
        hosts = (*LOOPBACK, settings.host)
    secret = _secret(settings)
    of_tickets = secret or os.environ.get(WORKERS_SECRET) or secrets.token_urlsafe(_MIN_SECRET)
    tickets = Tickets(of_tickets, settings.ticket_seconds) if schemes else None
    # Without a secret that is in the settings, other processes that share the journal could not know the key.
    key = _HASHES + secret.encode() if secret else b""
    credentials = Credentials(schemes, tickets, usual, key)
    return Access(credentials, tickets, _origins(settings, hosts), open=not schemes, key=key)


def _origins(settings: Settings, hosts: Collection[str]) -> Origins:
    """Return whose pages may use the service.

    In front of the simulator, that is those of every local server: a front-end tool's has a port of its own. A real
    upstream costs money, and any local page could spend it.
    """
    return Origins(settings.allowed_origins, hosts, loopback=settings.simulated and not settings.allowed_origins)


def about_origins(settings: Settings) -> str:
    """Return a sentence for people about whose pages may use the service: a page cannot read why it was refused."""
    if settings.allowed_origins:
        return f"Pages of other origins may use it: {', '.join(settings.allowed_origins)}."
    if settings.simulated:
        return "Pages of other origins may use it: those of loopback, on any port."
    return f"Pages of other origins may not use it: {PREFIX}ALLOWED_ORIGINS is empty."


def create_policy(config: Config, settings: Settings) -> ModelPolicy:
    """Return which models may be asked for. Raises SettingsError if the file and the settings contradict each other."""
    caps = usual_caps(settings, config)
    if config.models and settings.models:
        raise SettingsError(
            f"{PREFIX}MODELS and the [[models]] of {settings.config} both say what is offered: keep one."
        )
    if config.models:
        return ModelPolicy({model.name: model.rule(caps) for model in config.models}, None)
    if settings.models:
        for name in settings.models:
            if name not in config.offered and not config.rest:
                raise SettingsError(f"{PREFIX}MODELS is not right: no upstream has {name[:64]!r}.")
        return ModelPolicy(dict.fromkeys(settings.models, caps), None)
    return ModelPolicy(dict.fromkeys(config.offered, caps), caps if config.rest else None)


def default_model(config: Config, settings: Settings, policy: ModelPolicy) -> str:
    """Return the model for requests that name none. Raises SettingsError if the setting's is not offered."""
    if settings.model:
        if not policy.offers(settings.model):
            raise SettingsError(f"{PREFIX}MODEL is not right: it is not among the models that are offered.")
        return settings.model
    return next(iter(settings.models or config.offered), settings.default_model)


def usual_allowance(settings: Settings) -> Allowance:
    """Return the limits of a principal that has none of its own."""
    return Allowance(
        requests=settings.requests_per_minute,
        streams=settings.streams_per_principal,
        tokens=settings.tokens_per_day,
        readers=settings.readers_per_principal,
    )


def usual_caps(settings: Settings, config: Config) -> Rule:
    """Return the rule of a model that has none of its own."""
    return Rule(
        settings.max_output_tokens,
        settings.max_messages,
        settings.max_prompt_chars,
        allowed=_allowed(settings, config) if _is_limited(settings, config) else ANYTHING,
    )


def _is_limited(settings: Settings, config: Config) -> bool:
    """Whether the operator has said anything about what may be asked, so that only what is allowed passes."""
    caps = (settings.max_output_tokens, settings.max_messages, settings.max_prompt_chars)
    budgets = (settings.tokens_per_day, *(key.tokens for key in config.keys))  # some parameters evade the limit
    listed = settings.models or config.models or not config.rest
    bounds = {"tool_types", "media_types", "max_media", "max_media_bytes", "max_top_logprobs", "stored_files"}
    return bool(
        any(caps)
        or any(budgets)
        or listed
        or bounds & settings.model_fields_set
        or set(settings.extra_parameters) - {"*"}
    )


def _allowed(settings: Settings, config: Config) -> AllowList:
    return AllowList(
        names_of(settings.extra_parameters),
        names_of(settings.tool_types),
        names_of(settings.media_types),
        settings.max_media,
        settings.max_media_bytes,
        settings.stored_files,
        settings.max_top_logprobs,
        frozenset(upstream.base_url.host or "" for upstream in config.upstreams),
    )


def _api_keys(settings: Settings, config: Config, usual: Allowance) -> list[Scheme]:
    try:
        keys = [entry.api_key(usual) for entry in config.keys]
        keys += [parse(text, usual) for text in settings.api_keys]
        return [ApiKeys(keys)] if keys else []
    except ValueError as error:
        raise SettingsError(f"{PREFIX}API_KEYS is not right: {error}.") from None


def _jwts(settings: Settings, usual: Allowance, log: FilteringBoundLogger) -> list[Scheme]:
    secret = settings.jwt_secret
    file = settings.jwt_key_file
    url = settings.jwt_jwks_url
    kinds = {"JWT_SECRET": secret, "JWT_KEY_FILE": file, "JWT_JWKS_URL": url}
    given = [f"{PREFIX}{name}" for name, value in kinds.items() if value]
    if not given:
        return []
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} are set: JWTs have one kind of key.")
    try:
        if secret:
            keys: JwtKey | KeySet = secret_key(secret.get_secret_value())
        elif file:
            keys = public_key(file.read_bytes())
        else:
            keys = KeySet(str(url), log)
        return [Jwts(keys, usual, audience=settings.jwt_audience, issuer=settings.jwt_issuer)]
    except OSError as error:
        raise SettingsError(f"{given[0]} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"{given[0]} is not right: {error}.") from None


def _secret(settings: Settings) -> str:
    """Return the secret that processes share, or "". Raises SettingsError if it is short."""
    if settings.secret is None:
        return ""
    secret = settings.secret.get_secret_value()
    if len(secret.encode()) < _MIN_SECRET:
        raise SettingsError(f"{PREFIX}SECRET is not right: it takes at least {_MIN_SECRET} bytes.")
    return secret
