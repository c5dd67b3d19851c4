"""What the signatures of JWTs are checked with: a secret, a public key, or the keys that an issuer publishes.

A key is good for one algorithm, which is decided here, by the key and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import re
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
_LEAST_SECRET = 32
_LEAST_RSA = 2048

# Published keys, in seconds: how long they are good without another look, and how long they serve an issuer that is
# down; the least time between two fetches, so that no flood of made-up key ids becomes one of fetches; and between two
# that fail while there are no keys at all. Issuers publish a key well before they sign with it.
_FRESH = 300.0
_KEPT = 3600.0
_PAUSE = 30.0
_RETRY = 5.0
# Seconds for each step of a fetch, and that a request waits for one, whatever its steps; bytes of an answer.
_TIMEOUT = 5.0
_PATIENCE = 10.0
_MAX_SET = 512 * 1024
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class JwtKey:
    """What a signature is checked with, and the one algorithm that it is good for."""

    algorithm: str
    material: bytes | RSAPublicKey | EllipticCurvePublicKey = field(repr=False)


def secret_key(secret: str) -> JwtKey:
    """Return the key of an HS256 secret. Raises ValueError if it is too short to be one, or a key of another kind."""
    material = secret.encode()
    if len(material) < _LEAST_SECRET:
        raise ValueError(f"a JWT secret takes {_LEAST_SECRET} bytes at least; 'openssl rand -hex 32' makes one")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(material)
    except jwt.InvalidKeyError:
        raise ValueError("the JWT secret is a public or private key: give the public key as a key file") from None
    return JwtKey("HS256", material)


def public_key(pem: bytes) -> JwtKey:
    """Return the key in a PEM file: RSA is for RS256, EC P-256 for ES256. Raises ValueError for any other contents."""
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
        raise ValueError(f"the JWT key file takes an RSA key of {_LEAST_RSA} bits at least, or an EC key on P-256")
    return key


def _public(material: object) -> JwtKey | None:
    """Return the JwtKey of a public key that is of a kind and size we take, else None."""
    if isinstance(material, RSAPublicKey) and material.key_size >= _LEAST_RSA:
        return JwtKey("RS256", material)
    if isinstance(material, EllipticCurvePublicKey) and isinstance(material.curve, SECP256R1):
        return JwtKey("ES256", material)
    return None


class KeySet:
    """The keys that an issuer publishes at *url* (JWKS), fetched when a token asks for one that is not here.

    Raises ValueError for a url that is neither https nor on this machine.
    """

    algorithms = frozenset(("RS256", "ES256"))

    def __init__(self, url: str, log: FilteringBoundLogger) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("the JWKS url takes the form https://HOST/PATH")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise ValueError("the JWKS url has to be https: who can change the keys on their way can be anyone")
        self._client = _Client(url, cache_jwk_set=False, timeout=_TIMEOUT)
        self._log = log
        self._keys: dict[str, JwtKey] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, key_id: str) -> JwtKey | None:
        """Return the key of that id, or None. Raises Overloaded if there are no keys to look among."""
        if key_id not in self._keys or monotonic() - self._fetched_at > _FRESH:
            await self._refresh()
        if monotonic() - self._fetched_at > _KEPT:
            raise Overloaded("The credentials cannot be checked at the moment.", retry_after=_RETRY)
        return self._keys.get(key_id)

    async def _refresh(self) -> None:
        """Wait for a fetch: for the one under way, or a new one if it is time for that."""
        since = monotonic() - self._tried_at
        if self._fetching is None:
            if since < (_PAUSE if self._keys else _RETRY):
                return
            since, self._tried_at = 0.0, monotonic()
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
        # A wait for a task leaves it alone when it is cut short, by a client that went or by an issuer that drips.
        await asyncio.wait((self._fetching,), timeout=max(0.0, _PATIENCE - since))

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._client.fetch_keys)
            self._fetched_at = monotonic()
        except Exception as error:  # whatever an issuer can do wrong, the keys that we have are still the best we know
            self._log.warning("jwks.failed", error=type(error).__name__)
        finally:
            self._fetching = None


class _Client(jwt.PyJWKClient):
    """PyJWT's own follows no redirect either, but takes any number of bytes, however slowly they come."""

    def fetch_keys(self) -> dict[str, JwtKey]:
        """Return the keys by id, those that are fit to check what we take. Raises what urllib and PyJWT raise."""
        keys: dict[str, JwtKey] = {}
        for published in self.get_signing_keys():
            key = _public(published.key)
            # Its own `alg`, if it names one, has the last word: RSA keys are published for RS512 and PS256, too.
            if key and key.algorithm == published.algorithm_name and isinstance(published.key_id, str):
                keys.setdefault(published.key_id, key)
        if not keys:
            raise jwt.PyJWKSetError("no key is for RS256 or ES256")
        return keys

    def fetch_data(self) -> Any:
        """Return the decoded answer."""
        # A plain url is on this machine, and no proxy's business.
        proxy = (ProxyHandler({}),) if self.uri.startswith("http:") else ()
        # Some issuers' front ends turn urllib's own name away.
        headers = {"Accept": "application/json", "User-Agent": f"chat-sse/{__version__}"}
        end, body = monotonic() + self.timeout, bytearray()
        try:
            request = Request(self.uri, headers=headers)  # noqa: S310 - KeySet looked at the scheme
            with build_opener(_NoRedirects, *proxy).open(request, timeout=self.timeout) as response:
                while chunk := response.read1(_CHUNK):
                    body += chunk
                    if len(body) > _MAX_SET or monotonic() > end:
                        raise jwt.PyJWKClientError("the answer is too long, or takes too long")
        except HTTPError as error:
            error.close()
            raise
        return json.loads(body)


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """Leave a redirect the error that it is: the keys come from where the operator said."""
