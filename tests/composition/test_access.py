"""Who may come in, as the settings have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import HttpUrl, SecretStr
from starlette.datastructures import Headers
from structlog.typing import FilteringBoundLogger

from app.composition.access import create_access
from app.composition.config import Key
from app.composition.settings import Settings, SettingsError
from app.edge.access.api_keys import digest
from app.errors import ForeignHost
from app.request import Allowance, Principal

pytestmark = pytest.mark.anyio

KEY = "csk_of-the-web"


def scope(key: str) -> dict[str, Any]:
    return {"type": "http", "path": "/v1/chat", "headers": [(b"authorization", b"Bearer " + key.encode())]}


def settings(**given: Any) -> Settings:
    return Settings.model_construct(**given)


async def test_everybody(log: FilteringBoundLogger) -> None:
    """Without credentials everybody is one principal, which has the settings' limits, and there are no tickets."""
    access = create_access(settings(requests_per_minute=7), (), log)
    assert access.open
    assert access.tickets is None
    principal = await access.credentials.principal(scope("whatever"))
    assert (principal.name, principal.allowance) == ("", Allowance(requests=7))


async def test_keys(log: FilteringBoundLogger) -> None:
    """Keys of the settings and of the file are both good; a limit that a key does not give is the settings'."""
    filed = Key("file", bytes.fromhex(digest("csk_filed")), streams=3)
    access = create_access(settings(api_keys=(f"web:{digest(KEY)}",), streams_per_principal=9), (filed,), log)
    assert not access.open
    assert access.tickets is not None
    assert await access.credentials.principal(scope(KEY)) == Principal("key:web", Allowance(streams=9))
    assert await access.credentials.principal(scope("csk_filed")) == Principal("key:file", Allowance(streams=3))


def public_key_file(directory: Path) -> Path:
    path = directory / "key.pem"
    public = generate_private_key(SECP256R1()).public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def test_jwts(log: FilteringBoundLogger, tmp_path: Path) -> None:
    """Each kind of key for JWTs asks for credentials."""
    for given in (
        {"jwt_secret": SecretStr("s" * 32)},
        {"jwt_key_file": public_key_file(tmp_path), "jwt_audience": "a"},
        {"jwt_jwks_url": HttpUrl("https://issuer.example/jwks"), "jwt_audience": "a"},
    ):
        assert not create_access(settings(**given, host="0.0.0.0"), (), log).open


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"host": "0.0.0.0"}, "loopback only.*CHAT_SSE_HOST is 0.0.0.0.*API_KEYS.*ALLOW_ANONYMOUS"),
        ({"host": "::"}, "loopback only"),
        ({"host": "chat.example.com"}, "loopback only"),
        ({"api_keys": ("web",)}, "CHAT_SSE_API_KEYS is not right"),
        ({"api_keys": (f"a:{digest(KEY)}", f"b:{digest(KEY)}")}, "CHAT_SSE_API_KEYS is not right"),
        ({"jwt_secret": SecretStr("short")}, "CHAT_SSE_JWT_SECRET is not right"),
        ({"jwt_secret": SecretStr("s" * 32), "jwt_key_file": Path("k")}, "JWT_SECRET and CHAT_SSE_JWT_KEY_FILE"),
        ({"jwt_key_file": Path("nowhere")}, "CHAT_SSE_JWT_KEY_FILE cannot be read: No such file"),
        ({"jwt_jwks_url": HttpUrl("https://issuer.example/jwks")}, "CHAT_SSE_JWT_JWKS_URL is not right.*audience"),
        ({"jwt_jwks_url": HttpUrl("http://issuer.example/"), "jwt_audience": "a"}, "has to be https"),
        ({"api_keys": (f"a:{digest(KEY)}",), "secret": SecretStr("short")}, "CHAT_SSE_SECRET is not right"),
    ],
)
def test_what_is_refused(given: dict[str, Any], sentence: str, log: FilteringBoundLogger) -> None:
    """What would leave the service open, or shut, by mistake stops the start with a sentence."""
    with pytest.raises(SettingsError, match=sentence) as raised:
        create_access(settings(**given), (), log)
    assert "short" not in str(raised.value)


def test_hosts(log: FilteringBoundLogger) -> None:
    """On loopback without credentials only loopback's own names are good; elsewhere those that are set, or any."""
    rebound, named = Headers({"host": "evil.example"}), Headers({"host": "chat.example"})
    with pytest.raises(ForeignHost):
        create_access(settings(), (), log).visitors.check(rebound)
    create_access(settings(), (), log).visitors.check(Headers({"host": "localhost:8000"}))
    chosen = create_access(settings(allowed_hosts=("chat.example",)), (), log).visitors
    chosen.check(named)
    with pytest.raises(ForeignHost):
        chosen.check(rebound)
    create_access(settings(api_keys=(f"a:{digest(KEY)}",)), (), log).visitors.check(rebound)
    create_access(settings(host="0.0.0.0", allow_anonymous=True), (), log).visitors.check(rebound)
