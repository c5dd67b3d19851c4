"""The keys that check the signatures of JWTs: a secret, a public key, or the keys that an issuer publishes.

A key is for one algorithm, which the key alone decides.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from structlog.typing import FilteringBoundLogger

from app import __version__
from app.addresses import is_loopback
from app.errors import Overloaded

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
# Bytes of an HS256 secret, https://www.rfc-editor.org/rfc/rfc7518#section-3.2; bits of an RSA key, section 3.3.
_MIN_SECRET = 32
_MIN_RSA = 2048

# Published keys are fresh for so many seconds; after that, the next token has them fetched again. While the issuer is
# down they stay in use for longer.
_FRESH = 300.0
_KEPT = 3600.0
# At least so many seconds pass between two fetches, so that a flood of made-up key ids does not become a flood of
# fetches; issuers publish a key well before they sign with it. Without any keys, the next try comes sooner.
_PAUSE = 30.0
_PAUSE_WITHOUT_KEYS = 5.0
# Seconds for each step of a fetch; bytes of an answer, and of a read.
_TIMEOUT = 5.0
_MAX_SET = 512 * 1024
_READ = 64 * 1024


@dataclass(frozen=True, slots=True)
class JwtKey:
    """What checks a signature, and the one algorithm that it is for."""

    algorithm: str
    material: bytes | RSAPublicKey | EllipticCurvePublicKey = field(repr=False)


def secret_key(secret: str) -> JwtKey:
    """Return the key of an HS256 secret. Raises ValueError if it is too short, or is a key of another kind."""
    material = secret.encode()
    if len(material) < _MIN_SECRET:
        raise ValueError(f"a JWT secret takes at least {_MIN_SECRET} bytes; 'openssl rand -hex 32' makes one")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(material)
    except jwt.InvalidKeyError:
        raise ValueError("the JWT secret is a public or private key: give the public key as a key file") from None
    return JwtKey("HS256", material)


def public_key(pem: bytes) -> JwtKey:
    """Return the key in a PEM file: RSA is for RS256, P-256 for ES256. Raises ValueError for any other contents."""
    labels = _PEM.findall(pem)
    if any(b"PRIVATE KEY" in label for label in labels):
        raise ValueError("the JWT key file has a private key in it: 'openssl pkey -in FILE -pubout' makes a public one")
    if b"CERTIFICATE" in labels:
        raise ValueError("the JWT key file is a certificate: 'openssl x509 -in FILE -noout -pubkey' prints its key")
    if len(labels) != 1:
        raise ValueError("the JWT key file takes one public key, in PEM")
    try:
        key = _public(load_pem_public_key(pem))
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("the JWT key file cannot be read as a public key in PEM") from None
    if key is None:
        raise ValueError(f"the JWT key file takes an RSA key of at least {_MIN_RSA} bits, or an EC key on P-256")
    return key


def _public(material: object) -> JwtKey | None:
    """Return the JwtKey of a public key if its kind and its size are supported, else None."""
    if isinstance(material, RSAPublicKey) and material.key_size >= _MIN_RSA:
        return JwtKey("RS256", material)
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return JwtKey("ES256", material)
    return None


class KeySet:
    """The keys that an issuer publishes at *url* (JWKS), fetched when a token names one that is unknown.

    A request waits for a fetch until that has taken *patience* seconds. *now* is a clock in seconds. Raises ValueError
    for a URL that is neither https nor on this machine.
    """

    algorithms = frozenset(("RS256", "ES256"))

    def __init__(
        self, url: str, log: FilteringBoundLogger, *, patience: float = 10.0, now: Callable[[], float] = monotonic
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("the JWKS url takes the form https://HOST/PATH")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError(
                "the JWKS url has to be https: a stranger who can change the keys on their way can forge any token"
            )
        self._url = url
        self._log = log
        self._patience = patience
        self._now = now
        self._keys: dict[str, JwtKey] = {}
        self._fetched_at = -math.inf  # the last fetch that brought keys ended
        self._started_at = -math.inf  # the last fetch started
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> JwtKey | None:
        """Return the key of that id, or None if there is none. Raises Overloaded if no keys could be fetched."""
        if key_id not in self._keys or self._now() > self._fetched_at + _FRESH:
            await self._refresh()
        if self._now() > self._fetched_at + _KEPT:
            raise Overloaded("The credentials cannot be checked at the moment.", retry_after=_PAUSE_WITHOUT_KEYS)
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        """Wait for the fetch that is under way, or for a new one if it is time for that."""
        if self._fetching is None:
            pause = _PAUSE if self._keys else _PAUSE_WITHOUT_KEYS
            if self._now() < self._started_at + pause:
                return
            self._started_at = self._now()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        # `wait` leaves the task alone when this request is cancelled or has waited for long enough.
        remaining = self._started_at + self._patience - self._now()
        await asyncio.wait((self._fetching,), timeout=max(0.0, remaining))

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(_fetch_keys, self._url, self._now)
            self._fetched_at = self._now()
        except Exception as error:  # an issuer can fail in any way, and the old keys stay in use
            self._log.warning("jwks.failed", error=type(error).__name__)
        finally:
            self._fetching = None


def _fetch_keys(url: str, now: Callable[[], float]) -> dict[str, JwtKey]:
    """Return the usable keys at *url*, by id. Raises what urllib and PyJWT raise."""
    keys: dict[str, JwtKey] = {}
    for published in jwt.PyJWKSet.from_json(_get(url, now)).keys:
        key = _public(published.key)
        signs = published.public_key_use in (None, "sig")
        # A published key may name another algorithm in `alg`: RSA keys are for RS512 and PS256 as well.
        if key and signs and key.algorithm == published.algorithm_name and isinstance(published.key_id, str):
            keys.setdefault(published.key_id, key)
    if not keys:
        raise jwt.PyJWKSetError("no key is for RS256 or ES256")
    return keys


def _get(url: str, now: Callable[[], float]) -> str:
    """Return the body at *url*. PyJWT's own client bounds neither its size nor its time."""
    # An http url is on this machine, where no proxy is asked.
    proxy = (ProxyHandler({}),) if url.startswith("http:") else ()
    # Some issuers refuse urllib's own User-Agent.
    headers = {"Accept": "application/json", "User-Agent": f"chat-sse/{__version__}"}
    request = Request(url, headers=headers)  # noqa: S310 - KeySet has checked the scheme
    end = now() + _TIMEOUT
    body = bytearray()
    try:
        with build_opener(_NoRedirects, *proxy).open(request, timeout=_TIMEOUT) as response:
            while chunk := response.read1(_READ):
                body += chunk
                if len(body) > _MAX_SET or now() > end:
                    raise jwt.PyJWKClientError("the answer is too long, or takes too long")
    except HTTPError as error:
        error.close()
        raise
    return body.decode("utf-8-sig")


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Follow no redirect: the keys come from the operator's URL only."""
