"""Tokens and keys for the tests of JWTs, good ones and forged ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET = "a secret of thirty-two bytes or so"
ISSUER = "https://issuer.example"
AUDIENCE = "chat"

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@cache
def private_key(kind: str) -> Private:
    """Return a private key, always the same for a *kind*: `rsa`, `p256` …, or another one of it, as in `other-rsa`."""
    match kind.split("-")[-1]:
        case "rsa":
            return rsa.generate_private_key(65537, 2048)
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "p384":
            return ec.generate_private_key(ec.SECP384R1())
    return ed25519.Ed25519PrivateKey.generate()


def pem(kind: str) -> bytes:
    return private_key(kind).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(kind: str) -> bytes:
    return private_key(kind).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(kind: str, key_id: str, **fields: Any) -> dict[str, Any]:
    algorithm = {"rsa": "RS256", "rsa1024": "RS256", "p256": "ES256", "p384": "ES384"}[kind.split("-")[-1]]
    key: Any = private_key(kind).public_key()
    return {**jwt.get_algorithm_by_name(algorithm).to_jwk(key, as_dict=True), "kid": key_id, "use": "sig", **fields}


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims, with *changes*; None takes a claim away."""
    whole = {"sub": "ada", "aud": AUDIENCE, "iss": ISSUER, "exp": int(time.time()) + 600, **changes}
    return {name: value for name, value in whole.items() if value is not None}


def signed(payload: dict[str, Any], kind: str = "", **header: Any) -> str:
    """Return a token signed with SECRET, or with the private key of that *kind*."""
    if not kind:
        return jwt.encode(payload, SECRET, "HS256", header)
    algorithm = "RS256" if kind.endswith("rsa") else "ES256"
    return jwt.encode(payload, private_pem(kind), algorithm, header)


def encoded(part: bytes | dict[str, Any]) -> str:
    raw = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: dict[str, Any], payload: bytes | dict[str, Any], secret: bytes | None = SECRET.encode()) -> str:
    """Return a token made by hand, with an HMAC for a signature, or none, whatever its header says."""
    signing_input = f"{encoded(header)}.{encoded(payload)}"
    mac = b"" if secret is None else hmac.digest(secret, signing_input.encode(), hashlib.sha256)
    return f"{signing_input}.{encoded(mac)}"
