"""JWTs: tokens that an issuer signed, checked by PyJWT.

The algorithm comes from the key and never from the token, which only chooses between refused and looked at
(https://www.rfc-editor.org/rfc/rfc8725#section-3.1). Headers that bring or point to a key (`jwk`, `jku`, `x5u`) are
nothing to us. No error tells more than a fixed sentence: not the token, nor what is in it, nor what PyJWT said.
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
# Seconds by which the issuer's clock may be off.
_LEEWAY = 10


class Jwts:
    """The scheme of JWTs. Principals are the tokens' subjects, and each may have *allowance*.

    Tokens must name *audience* and *issuer*, where these are given; without *audience*, a token that names one is for
    somebody else (https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3). Raises ValueError without an audience for keys
    of an issuer's, who signs tokens for others than us.
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
        """Return whose *token* is, or None if it is no JWT. Raises Unauthenticated, or Overloaded without keys."""
        match = _SHAPE.fullmatch(token)
        if match is None:
            return None
        # What costs little comes first: who sends nonsense is not worth a signature, let alone a fetch.
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
        """Check the signature and the claims, and return who it is. Raises Unauthenticated."""
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
    """Return the JOSE header, unverified; {} for anything that is none. Raises nothing."""
    try:
        header = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}
