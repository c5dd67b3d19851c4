"""Who may come in, as the settings have it: credentials, tickets, host names and origins."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Sequence
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from app.composition.config import Key
from app.composition.settings import PREFIX, Settings, SettingsError
from app.edge.access import jwts
from app.edge.access.api_keys import ApiKey, ApiKeys, parse
from app.edge.access.authentication import Credentials, Scheme
from app.edge.access.origins import LOOPBACK, Visitors
from app.edge.access.tickets import Tickets
from app.request import Allowance

_LEAST_SECRET = 32


class Access(NamedTuple):
    """*open* says that no credentials are asked for; there are *tickets* only where some are."""

    credentials: Credentials
    tickets: Tickets | None
    visitors: Visitors
    open: bool


def allowance(settings: Settings) -> Allowance:
    """Return how much a principal may have that nothing else is said of."""
    return Allowance(
        requests=settings.requests_per_minute,
        streams=settings.streams_per_principal,
        tokens=settings.tokens_per_day,
        readers=settings.readers_per_principal,
    )


def create_access(settings: Settings, keys: Sequence[Key], log: FilteringBoundLogger) -> Access:
    """Build it; *keys* are those of the configuration file. Raises SettingsError."""
    usual = allowance(settings)
    schemes = [*_api_keys(settings, keys, usual), *_jwts(settings, usual, log)]
    tickets = Tickets(_secret(settings), settings.ticket_seconds) if schemes else None
    loopback = is_loopback(settings.host)
    if not schemes and not loopback and not settings.allow_anonymous:
        raise SettingsError(
            f"Without credentials the service listens on loopback only, and {PREFIX}HOST is {settings.host}: "
            f"set {PREFIX}API_KEYS (`chat-sse key NAME` makes one), or {PREFIX}ALLOW_ANONYMOUS=true if something in "
            "front of it asks for them."
        )
    hosts = settings.allowed_hosts or ((*LOOPBACK, settings.host) if loopback and not schemes else ())
    return Access(
        Credentials(schemes, tickets, usual), tickets, Visitors(settings.allowed_origins, hosts), open=not schemes
    )


def is_loopback(host: str) -> bool:
    """Whether *host*, a name or an address, is this machine's own and nobody else's."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _api_keys(settings: Settings, keys: Sequence[Key], usual: Allowance) -> list[Scheme]:
    try:
        known = [ApiKey(key.name, key.sha256, key.allowance(usual)) for key in keys]
        known += [parse(text, usual) for text in settings.api_keys]
        return [ApiKeys(known)] if known else []
    except ValueError as error:
        raise SettingsError(f"{PREFIX}API_KEYS is not right: {error}.") from None


def _jwts(settings: Settings, usual: Allowance, log: FilteringBoundLogger) -> list[Scheme]:
    secret, file, url = settings.jwt_secret, settings.jwt_key_file, settings.jwt_jwks_url
    kinds = {"JWT_SECRET": secret, "JWT_KEY_FILE": file, "JWT_JWKS_URL": url}
    given = [f"{PREFIX}{name}" for name, value in kinds.items() if value]
    if not given:
        return []
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} are set: JWTs have one kind of key.")
    try:
        if secret:
            keys: jwts.Key | jwts.KeySet = jwts.secret_key(secret.get_secret_value())
        elif file:
            keys = jwts.public_key(file.read_bytes())
        else:
            keys = jwts.KeySet(str(url), log)
        return [jwts.Jwts(keys, usual, audience=settings.jwt_audience, issuer=settings.jwt_issuer)]
    except OSError as error:
        raise SettingsError(f"{given[0]} cannot be read: {error.strerror}.") from None
    except ValueError as error:
        raise SettingsError(f"{given[0]} is not right: {error}.") from None


def _secret(settings: Settings) -> str:
    if settings.secret is None:
        return secrets.token_urlsafe(_LEAST_SECRET)
    secret = settings.secret.get_secret_value()
    if len(secret.encode()) < _LEAST_SECRET:
        raise SettingsError(f"{PREFIX}SECRET is not right: it takes {_LEAST_SECRET} bytes at least.")
    return secret
