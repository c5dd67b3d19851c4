"""JWTs under attack: a good one is told apart from every trick."""

from __future__ import annotations

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.typing import FilteringBoundLogger

from app.edge.access.jwt_keys import KeySet, public_key, secret_key
from app.edge.access.jwts import Jwts
from app.errors import Unauthenticated
from app.request import UNLIMITED, Allowance, Principal
from tests.edge.access.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    claims,
    encoded,
    forged,
    jwk,
    pem,
    private_key,
    private_pem,
    signed,
)

pytestmark = pytest.mark.anyio

LITTLE = Allowance(requests=1)
ADA = Principal("jwt:ada", LITTLE)


def by_secret(**options: str) -> Jwts:
    return Jwts(secret_key(SECRET), LITTLE, **{"audience": AUDIENCE, "issuer": ISSUER, **options})


def by_key(kind: str) -> Jwts:
    return Jwts(public_key(pem(kind)), LITTLE, audience=AUDIENCE, issuer=ISSUER)


async def refused(jwts: Jwts, token: str, sentence: str = "The token is not valid.") -> None:
    """Check that *token* is refused with *sentence* alone, and nothing of it in the chain of causes."""
    with pytest.raises(Unauthenticated) as raised:
        await jwts.principal(token)
    assert raised.value.text == sentence
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


@pytest.mark.parametrize("kind", ["rsa", "p256"])
async def test_public_keys(kind: str) -> None:
    """A token is its subject's if the one key, of either kind, signed it; another key of the kind did not."""
    jwts = by_key(kind)
    assert await jwts.principal(signed(claims(), kind)) == ADA
    assert await jwts.principal(signed(claims(), kind, kid="whatever")) == ADA
    await refused(jwts, signed(claims(), f"other-{kind}"))
    head, payload, signature = signed(claims(), kind).split(".")
    await refused(jwts, f"{head}.{encoded(claims(sub='eve'))}.{signature}")
    await refused(jwts, f"{head}.{payload}.")
    await refused(jwts, f"{head}.{payload}.{encoded(bytes(64))}")


async def test_secret() -> None:
    """A token is its subject's if it was signed with the secret, by hand or by a library."""
    assert await by_secret().principal(signed(claims())) == ADA
    assert await by_secret().principal(forged({"alg": "HS256"}, claims())) == ADA
    await refused(by_secret(), forged({"alg": "HS256"}, claims(), b"x" * 32))
    await refused(by_secret(), forged({"alg": "HS256"}, claims(), b""))


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", None, "HS512", "RS256", ["HS256"], {"HS256": 1}, 7])
@pytest.mark.parametrize("secret", [None, SECRET.encode()])
async def test_algorithm_of_the_token(algorithm: Any, secret: bytes | None) -> None:
    """The algorithm that a token names opens nothing, not `none` in any spelling, a stronger one or nonsense."""
    token = forged({"alg": algorithm, "typ": "JWT"}, claims(), secret)
    for jwts in (by_secret(), by_key("p256")):
        await refused(jwts, token)
    await refused(by_secret(), forged({"typ": "JWT"}, claims(), secret))


@pytest.mark.parametrize("kind", ["rsa", "p256"])
async def test_algorithm_confusion(kind: str) -> None:
    """The public key is no secret: a token signed with its bytes, in any form of them, is refused."""
    jwts, key = by_key(kind), private_key(kind).public_key()
    der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for secret in (pem(kind), pem(kind).strip(), der, json.dumps(jwk(kind, "k")).encode()):
        for algorithm in ("HS256", "RS256", "ES256"):
            await refused(jwts, forged({"alg": algorithm}, claims(), secret))
    await refused(by_secret(), signed(claims(), kind))
    await refused(by_key("p256" if kind == "rsa" else "rsa"), signed(claims(), kind))
    if kind == "rsa":
        for algorithm in ("RS384", "RS512", "PS256"):
            await refused(jwts, jwt.encode(claims(), private_pem(kind), algorithm))


@pytest.mark.parametrize("critical", [["exp"], ["b64"], [], "b64", None, [["x"]]])
async def test_critical_headers(critical: Any) -> None:
    """A header that says it must be understood is refused: there is none that is."""
    await refused(by_secret(), forged({"alg": "HS256", "crit": critical, "exp": 1, "b64": True}, claims()))
    with pytest.raises(jwt.PyJWTError):  # and PyJWT itself takes none but this
        jwt.decode(forged({"alg": "HS256", "crit": ["exp"], "exp": 1}, claims()), SECRET, ["HS256"], audience=AUDIENCE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"exp": -11}, "The token has expired."),
        ({"exp": -(10**9)}, "The token has expired."),
        ({"nbf": 60}, "The token is not valid yet."),
        ({"iat": 60}, "The token is not valid yet."),
    ],
)
async def test_times(changes: dict[str, int], sentence: str) -> None:
    """A token is good from its time to its time, give or take the seconds by which clocks are apart."""
    now = int(time.time())
    await refused(by_secret(), signed(claims(**{name: now + seconds for name, seconds in changes.items()})), sentence)
    assert await by_secret().principal(signed(claims(exp=now - 4, nbf=now + 8, iat=now + 8))) == ADA


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": None},
        {"sub": None},
        {"exp": "soon"},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": {}},
        {"nbf": "never"},
        {"iat": []},
        {"sub": ""},
        {"sub": 7},
        {"sub": ["ada"]},
        {"sub": "x" * 257},
        {"sub": "ada\n"},
        {"sub": "ada\0"},
        {"sub": "a\u202eda"},
        {"sub": "\ud800"},
    ],
)
async def test_claims(changes: dict[str, Any]) -> None:
    """An end and a subject are required, and each claim has its type; a subject is short and can be printed."""
    await refused(by_secret(), signed(claims(**changes)))


async def test_subjects() -> None:
    """A subject has any letters and up to 256 of them."""
    for subject in ("x" * 256, "auth0|5f7", "Ада", "key:ada", " "):
        assert await by_secret().principal(signed(claims(sub=subject))) == Principal(f"jwt:{subject}", LITTLE)


async def test_audience_and_issuer() -> None:
    """A token names our audience, alone or in a list, and our issuer, each as it is spelt."""
    elsewhere = "The token is not for this service."
    assert await by_secret().principal(signed(claims(aud=["other", AUDIENCE]))) == ADA
    others: list[Any] = ["other", "Chat", "chat ", "chatter", ["other"], [AUDIENCE, 7], {AUDIENCE: 1}, 7]
    for audience in others:
        await refused(by_secret(), signed(claims(aud=audience)), elsewhere)
    for nothing in (None, "", list[str]()):
        await refused(by_secret(), signed(claims(aud=nothing)))
    for issuer in ("https://issuer.example/", "https://evil.example", ""):
        await refused(by_secret(), signed(claims(iss=issuer)), elsewhere)
    for issuer_claim in ([ISSUER], 7):
        await refused(by_secret(), forged({"alg": "HS256"}, claims(iss=issuer_claim)), elsewhere)
    await refused(by_secret(), signed(claims(iss=None)))
    assert await by_secret(issuer="").principal(signed(claims(iss=None))) == ADA
    # Without an audience of ours, a token that names one is somebody else's.
    assert await by_secret(audience="").principal(signed(claims(aud=None))) == ADA
    await refused(by_secret(audience=""), signed(claims()), elsewhere)


@pytest.mark.parametrize(
    "token", ["", "csk_key", "a.b", "a.b.c.d", "..", ".b.c", "a=.b.c", "a+.b.c", "ä.b.c", "a.b.c\n"]
)
async def test_no_jwt(token: str) -> None:
    """A token without the shape of a JWT is left to the next scheme."""
    assert await by_secret().principal(token) is None


@pytest.mark.parametrize(
    "token",
    [
        "a.b.c",
        "AAAA.AAAA.AAAA",
        f"{encoded(b'[]')}.e30.",
        f"{encoded(b'[' * 6000)}.e30.",
        f"{encoded(b'7')}.e30.AAAA",
        f"{encoded(b'9' * 6000)}.e30.AAAA",
        f"{encoded(b'{}' + bytes([255]))}.e30.",
        f"{encoded({'alg': 'HS256'})}..",
        f"{encoded({'alg': 'HS256'})}.!.".replace("!", "A" * 8000),
        forged({"alg": "HS256"}, b"[]"),
        forged({"alg": "HS256"}, b"[" * 6000),
        forged({"alg": "HS256"}, b'{"exp":' + b"9" * 5000 + b"}"),
        forged({"alg": "HS256"}, b"\xff"),
        forged({"alg": "HS256", "kid": 7}, {}),
    ],
)
async def test_garbage(token: str) -> None:
    """A token that has only the shape of a JWT is refused, be it huge, deep or broken."""
    await refused(by_secret(), token)
    await refused(by_key("rsa"), token)


JSON = st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)


@given(st.dictionaries(st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti"]), JSON))
@settings(max_examples=200)
async def test_any_claims(changes: dict[str, Any]) -> None:
    """No claims whatever, signed as they should be, raise anything but the refusal."""
    try:
        principal = await by_secret().principal(forged({"alg": "HS256"}, {**claims(), **changes}))
    except Unauthenticated:
        return
    assert principal == Principal(f"jwt:{({**claims(), **changes})['sub']}", LITTLE)


async def test_audience_required(log: FilteringBoundLogger) -> None:
    """An issuer's keys sign for others too, so the audience has to be said."""
    for keys in (public_key(pem("rsa")), KeySet("https://issuer.example/jwks", log)):
        with pytest.raises(ValueError, match="audience"):
            Jwts(keys, UNLIMITED, issuer=ISSUER)
