"""Keys of JWTs: what can be one, and how rarely an issuer is asked for its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.edge.access import jwt_keys
from app.edge.access.jwt_keys import KeySet, public_key, secret_key
from app.edge.access.jwts import Jwts
from app.errors import Overloaded, Unauthenticated
from app.request import UNLIMITED, Principal
from tests.clock import Clock
from tests.edge.access.issuer import Issuer
from tests.edge.access.tokens import AUDIENCE, SECRET, claims, forged, jwk, pem, private_key, private_pem, signed

pytestmark = pytest.mark.anyio

ADA = Principal("jwt:ada")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    issuer.keys = [jwk("rsa", "one"), jwk("p256", "two")]
    yield issuer
    issuer.close()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000)


@pytest.fixture
def jwts(issuer: Issuer, clock: Clock, log: FilteringBoundLogger) -> Jwts:
    return Jwts(KeySet(issuer.url, log, now=clock), UNLIMITED, audience=AUDIENCE)


def fetches() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "jwks"]


async def refused(jwts: Jwts, token: str) -> None:
    with pytest.raises(Unauthenticated, match=r"^The token is not valid\.$"):
        await jwts.principal(token)


async def unchecked(jwts: Jwts, token: str) -> None:
    with pytest.raises(Overloaded, match="cannot be checked at the moment") as raised:
        await jwts.principal(token)
    assert raised.value.retry_after == 5


ONE = signed(claims(), "rsa", kid="one")
TWO = signed(claims(), "p256", kid="two")


async def test_published_keys(jwts: Jwts, issuer: Issuer) -> None:
    """Keys are found by their id and fetched once for all of them, by name; nothing is asked before a token comes."""
    assert issuer.requests == []
    assert await jwts.principal(ONE) == ADA
    assert await jwts.principal(TWO) == ADA
    ((path, agent),) = issuer.requests
    assert path == "/jwks"
    assert agent.startswith("chat-sse/")


async def test_the_right_key(jwts: Jwts, issuer: Issuer) -> None:
    """A token has to say which key, and that one has to have signed it, by its own algorithm."""
    await refused(jwts, signed(claims(), "rsa"))
    assert issuer.requests == []
    for token in (
        signed(claims(), "other-rsa", kid="one"),
        signed(claims(), "rsa", kid="two"),
        signed(claims(), "p256", kid="one"),
        forged({"alg": "RS256", "kid": "one"}, claims(), pem("rsa")),
        forged({"alg": "RS256", "kid": "one"}, claims(), None),
    ):
        await refused(jwts, token)
    assert len(issuer.requests) == 1


async def test_cheap_refusals(jwts: Jwts, issuer: Issuer) -> None:
    """A token that no key could make good asks the issuer nothing."""
    for header in ({"alg": "HS256", "kid": "x"}, {"alg": "none", "kid": "x"}, {"alg": "RS256"}, {"alg": "PS256"}):
        await refused(jwts, forged(header, claims()))
    odd: list[Any] = [None, 7, ["one"], {}]
    for key_id in odd:
        await refused(jwts, forged({"alg": "RS256", "kid": key_id}, claims()))
    assert await jwts.principal("x" * 8000) is None
    assert issuer.requests == []


async def test_unknown_keys(jwts: Jwts, issuer: Issuer, clock: Clock) -> None:
    """A flood of made-up key ids is one fetch in 30 seconds, and known keys go on."""
    assert await jwts.principal(ONE) == ADA
    for seconds in range(60):
        clock.now = 1000.0 + seconds
        for n in range(5):
            await refused(jwts, signed(claims(), "p256", kid=f"made-up-{seconds}-{n}"))
    assert len(issuer.requests) == 2
    clock.now = 1060.0
    await asyncio.gather(*(refused(jwts, signed(claims(), "p256", kid=f"{n}")) for n in range(20)))
    assert len(issuer.requests) == 3
    assert await jwts.principal(ONE) == ADA


async def test_rotation(jwts: Jwts, issuer: Issuer, clock: Clock) -> None:
    """A new key is found when a token first names it; one that is no longer published is good for 300 seconds more."""
    assert await jwts.principal(ONE) == ADA
    issuer.keys = [jwk("new-rsa", "three")]
    clock.now += 30
    assert await jwts.principal(signed(claims(), "new-rsa", kid="three")) == ADA
    await refused(jwts, ONE)
    issuer.keys = [jwk("p256", "two")]
    clock.now += 300
    assert await jwts.principal(signed(claims(), "new-rsa", kid="three")) == ADA
    clock.now += 1
    await refused(jwts, signed(claims(), "new-rsa", kid="three"))
    assert len(issuer.requests) == 3


async def test_one_fetch_at_a_time(jwts: Jwts, issuer: Issuer, log: FilteringBoundLogger) -> None:
    """Requests that come during a fetch wait for it, and one that is cancelled does not cancel the fetch."""
    issuer.open.clear()
    first = asyncio.create_task(jwts.principal(ONE))
    others = [asyncio.create_task(jwts.principal(TWO)) for _ in range(20)]
    assert await asyncio.to_thread(issuer.asked.wait, 30)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not any(task.done() for task in others)
    issuer.open.set()
    assert await asyncio.gather(*others) == [ADA] * 20
    assert len(issuer.requests) == 1


async def test_issuer_that_hangs(issuer: Issuer, clock: Clock, log: FilteringBoundLogger) -> None:
    """A request waits for a fetch until that has taken so long, and no other fetch starts meanwhile."""
    jwts = Jwts(KeySet(issuer.url, log, patience=60, now=clock), UNLIMITED, audience=AUDIENCE)
    issuer.open.clear()
    first = asyncio.create_task(jwts.principal(ONE))
    assert await asyncio.to_thread(issuer.asked.wait, 30)
    clock.now += 60
    async with asyncio.timeout(30):
        await unchecked(jwts, ONE)
    clock.now -= 60  # so that the fetch itself is in time
    first.cancel()
    (task,) = fetches()
    issuer.open.set()
    await asyncio.wait_for(task, 30)
    assert await jwts.principal(ONE) == ADA
    assert len(issuer.requests) == 1


async def test_issuer_that_is_down(jwts: Jwts, issuer: Issuer, clock: Clock, logs: LogCapture) -> None:
    """An issuer that fails is asked again in 30 seconds; its keys serve for an hour, then all are refused."""
    assert await jwts.principal(ONE) == ADA
    issuer.status = 500
    clock.now = 1301
    for _ in range(3):
        assert await jwts.principal(ONE) == ADA
    assert len(issuer.requests) == 2
    assert logs.entries == [{"event": "jwks.failed", "error": "HTTPError", "log_level": "warning"}]
    clock.now = 1000 + 3600
    assert await jwts.principal(ONE) == ADA
    await refused(jwts, signed(claims(), "rsa", kid="unknown"))
    clock.now += 1
    await unchecked(jwts, ONE)
    await unchecked(jwts, signed(claims(), "rsa", kid="unknown"))
    assert len(issuer.requests) == 3
    issuer.status = 200
    clock.now += 30
    assert await jwts.principal(ONE) == ADA


async def test_issuer_that_comes_up(clock: Clock, log: FilteringBoundLogger, logs: LogCapture) -> None:
    """Without keys, no request is admitted, and the issuer is asked every five seconds until it answers."""
    issuer = Issuer()
    issuer.close()
    jwts = Jwts(KeySet(issuer.url, log, now=clock), UNLIMITED, audience=AUDIENCE)
    for _ in range(5):
        await unchecked(jwts, ONE)
    assert len(logs.entries) == 1
    clock.now += 4
    issuer = Issuer(issuer.port)
    try:
        issuer.keys = [jwk("rsa", "one")]
        await unchecked(jwts, ONE)
        clock.now += 1
        assert await jwts.principal(ONE) == ADA
    finally:
        issuer.close()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys":7}',
        b'{"keys":[]}',
        b'{"keys":[{"kty":"RSA"}]}',
        b'{"keys":[{"kty":[],"kid":"one"}]}',
        b'{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"one"}]}',
        b'{"keys":' + b"[" * 100_000,
        json.dumps({"keys": [jwk("rsa", "one")]}).encode() + b" " * jwt_keys._MAX_SET,
        b"\xff\xfe",
    ],
    ids=range(12),
)
async def test_nonsense(body: bytes, jwts: Jwts, issuer: Issuer, clock: Clock, logs: LogCapture) -> None:
    """An issuer that answers nonsense, or too much, has failed; its answer is not logged."""
    issuer.body = body
    await unchecked(jwts, ONE)
    (entry,) = logs.entries
    assert entry.keys() == {"event", "error", "log_level"}
    issuer.body = None
    clock.now += 5
    assert await jwts.principal(ONE) == ADA


async def until_checked(jwts: Jwts, clock: Clock) -> None:
    """Have Ada's token checked as often as it takes: a fetch may need more than its patience on a busy machine."""
    async with asyncio.timeout(30):
        while True:
            try:
                assert await jwts.principal(ONE) == ADA
            except Overloaded:
                clock.now += 5.1
            else:
                return


async def test_slow_answers(issuer: Issuer, clock: Clock, log: FilteringBoundLogger, logs: LogCapture) -> None:
    """An answer that is still coming when its time is over is no answer, so that no fetch goes on for ever."""
    jwts = Jwts(KeySet(issuer.url, log, patience=0.05, now=clock), UNLIMITED, audience=AUDIENCE)
    issuer.open.clear()
    await unchecked(jwts, ONE)
    assert await asyncio.to_thread(issuer.asked.wait, 30)
    clock.now += 5.1
    (task,) = fetches()
    issuer.open.set()
    await asyncio.wait_for(task, 30)
    assert [entry["error"] for entry in logs.entries] == ["PyJWKClientError"]
    await until_checked(jwts, clock)


async def test_redirects(jwts: Jwts, issuer: Issuer) -> None:
    """A redirect is not followed: keys come from where the operator said."""
    other = Issuer()
    other.keys = issuer.keys
    try:
        issuer.headers = {"Location": other.url}
        for issuer.status in (302, 307):
            await unchecked(jwts, ONE)
        assert other.requests == []
    finally:
        other.close()


async def test_unfit_keys(jwts: Jwts, issuer: Issuer) -> None:
    """Of the published keys, only public ones for signatures, of the two algorithms and with an id, are used."""
    private = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(private_key("x-rsa"))) | {"kid": "private"}
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        short = jwt.encode(claims(), private_pem("rsa1024"), "RS256", {"kid": "short"})
    issuer.keys = [
        "no key",
        {"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"},
        jwk("rsa", "other use", use="enc"),
        jwk("rsa", "other algorithm", alg="RS512"),
        jwk("rsa", "pss", alg="PS256"),
        jwk("rsa1024", "short"),
        jwk("p384", "curve"),
        jwk("rsa", "mismatch", alg="ES256"),
        {name: value for name, value in jwk("rsa", "").items() if name != "kid"},
        private,
        jwk("rsa", "one"),
        jwk("other-rsa", "one"),
    ]
    assert await jwts.principal(ONE) == ADA
    await refused(jwts, signed(claims(), "other-rsa", kid="one"))
    for key_id in ("other use", "other algorithm", "pss", "mismatch", ""):
        await refused(jwts, signed(claims(), "rsa", kid=key_id))
    await refused(jwts, short)
    await refused(jwts, signed(claims(), "x-rsa", kid="private"))
    await refused(jwts, forged({"alg": "HS256", "kid": "oct"}, claims(), b"secret"))
    assert len(issuer.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "",
        "issuer.example/jwks",
        "file:///etc/passwd",
        "ftp://issuer.example/jwks",
        "data:application/json,{}",
        "https://",
        "https:///jwks",
        "https://user:word@issuer.example/jwks",
        "http://issuer.example/jwks",
        "http://127.0.0.1.evil.example/jwks",
        "http://127.0.0.1@evil.example/jwks",
        "http://localhost.evil.example/",
        "http://[::2]/jwks",
        "https://[/jwks",
    ],
)
async def test_urls_that_are_none(url: str, log: FilteringBoundLogger) -> None:
    """The url is https, or on this machine."""
    with pytest.raises(ValueError):
        KeySet(url, log)


@pytest.mark.parametrize("url", ["https://issuer.example/jwks", "http://localhost:1/", "http://[::1]:8/x"])
async def test_urls(url: str, log: FilteringBoundLogger) -> None:
    """Making a set asks nothing of its issuer."""
    assert KeySet(url, log).algorithms == {"RS256", "ES256"}


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": "KEY"},
        {"jku": "URL"},
        {"x5u": "URL"},
        {"jku": "URL", "kid": "own"},
        {"x5c": ["MIIB"]},
    ],
)
async def test_key_of_the_token(header: dict[str, Any], issuer: Issuer, log: FilteringBoundLogger) -> None:
    """A key that a token brings or points to is neither used nor fetched."""
    issuer.keys = [jwk("own-rsa", "own")]
    places = {"KEY": jwk("own-rsa", "own"), "URL": issuer.url}
    token = signed(claims(), "own-rsa", **{name: places.get(str(value), value) for name, value in header.items()})
    await refused(Jwts(public_key(pem("rsa")), UNLIMITED, audience=AUDIENCE), token)
    assert issuer.requests == []
    assert await Jwts(KeySet(issuer.url, log), UNLIMITED, audience=AUDIENCE).principal(
        signed(claims(), "own-rsa", kid="own")
    )


async def test_secrets_that_are_none() -> None:
    """A secret is long enough, and not a public key that was put in the wrong place; neither is quoted."""
    for secret in ("", "x" * 31):
        with pytest.raises(ValueError, match="at least 32 bytes"):
            secret_key(secret)
    with pytest.raises(ValueError, match="as a key file"):
        secret_key(pem("rsa").decode())
    assert SECRET not in repr(secret_key(SECRET))


@pytest.mark.parametrize(
    ("contents", "match"),
    [
        (private_pem("rsa"), "openssl pkey"),
        (private_pem("p256") + pem("p256"), "openssl pkey"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "openssl x509"),
        (b"", "takes one public key"),
        (SECRET.encode(), "takes one public key"),
        (pem("rsa") + pem("p256"), "takes one public key"),
        (b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", "cannot be read"),
        (pem("rsa1024"), "2048 bits"),
        (pem("p384"), "P-256"),
        (pem("ed25519"), "P-256"),
    ],
    ids=["private", "both", "certificate", "empty", "secret", "two", "broken", "rsa1024", "p384", "ed25519"],
)
async def test_key_files_that_are_none(contents: bytes, match: str) -> None:
    """A key file that cannot be meant is refused with a sentence that helps."""
    with pytest.raises(ValueError, match=match):
        public_key(contents)
