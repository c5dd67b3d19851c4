"""JWTs: tokens that an issuer signed. PyJWT checks them.

The algorithm comes from the key and never from the token; a token that names another one is refused
(https://www.rfc-editor.org/rfc/rfc8725#section-3.1). Headers that bring or point to a key (`jwk`, `jku`, `x5u`) are
ignored. Every error is a fixed sentence, which quotes neither the token nor PyJWT.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from typing import Any

import jwt

from app.edge.access.jwt_keys import JwtKey, KeySet
from app.errors import Unauthenticated
from app.request import Allowance, Principal

_SHAPE = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]*\.[A-Za-z0-9_-]*", re.ASCII)
_MAX_SUBJECT = 256
# By how many seconds the issuer's clock may differ.
_LEEWAY = 10


class Jwts:
    """Bearer tokens that are JWTs. The principals are the tokens' subjects, and each has the *allowance*.

    Tokens must name the *audience* and the *issuer*, if these are given. Without an *audience*, a token that names one
    is meant for another service (https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3) and is refused. Raises
    ValueError for public keys without an audience, because their issuer signs tokens for other services, too.
    """

    def __init__(self, keys: JwtKey | KeySet, allowance: Allowance, *, audience: str = "", issuer: str = "") -> None:
        secret = isinstance(keys, JwtKey) and keys.algorithm == "HS256"
        if not secret and not audience:
            raise ValueError(
                "JWTs of an issuer's need an audience: else the tokens of its other services are good here"
            )
        self._keys = keys
        self._algorithms = frozenset((keys.algorithm,)) if isinstance(keys, JwtKey) else keys.algorithms
        self._allowance = allowance
        self._audience = audience or None
        self._issuer = issuer or None

    async def principal(self, token: str) -> Principal | None:
        """Return the principal of *token*, or None if it is no JWT.

        Raises Unauthenticated for a token that is not valid, and Overloaded if there are no keys to check it with.
        """
        match = _SHAPE.fullmatch(token)
        if match is None:
            return None
        # The cheap checks come first: nonsense costs no check of a signature and no fetch of keys.
        header = _header(match[1])
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms or "crit" in header:
            raise _invalid()
        key: JwtKey | None
        if isinstance(self._keys, JwtKey):
            key = self._keys
        else:
            key_id = header.get("kid")
            key = await self._keys.find(key_id) if isinstance(key_id, str) else None
        if key is None:
            raise _invalid()
        return Principal(f"jwt:{self._subject(token, key)}", self._allowance)

    def _subject(self, token: str, key: JwtKey) -> str:
        """Check the signature and the claims, and return the subject. Raises Unauthenticated."""
        try:
            claims = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": ["exp", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("The token has expired.") from None
        except jwt.ImmatureSignatureError:
            raise Unauthenticated("The token is not valid yet.") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise Unauthenticated("The token is not for this service.") from None
        except jwt.PyJWTError:
            raise _invalid() from None
        subject = claims["sub"]
        if not (isinstance(subject, str) and 1 <= len(subject) <= _MAX_SUBJECT and subject.isprintable()):
            raise _invalid()
        return subject


def _invalid() -> Unauthenticated:
    return Unauthenticated("The token is not valid.")


def _header(part: str) -> Mapping[str, Any]:
    """Return the JOSE header, unverified, or {} if *part* is not one."""
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}
