"""Who may use the service, and which models they may ask for, as the settings and the file say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import HttpUrl, SecretStr
from starlette.datastructures import Headers
from structlog.typing import FilteringBoundLogger

from app.composition.access import create_access, create_policy, default_model
from app.composition.config_file import Config, KeyEntry, Upstream, load_config
from app.composition.settings import Settings, SettingsError
from app.edge.access.api_keys import digest
from app.errors import BadRequest, ForeignHost, ForeignOrigin, ModelNotAllowed
from app.request import Allowance, Principal, StreamRequest

pytestmark = pytest.mark.anyio

KEY = "csk_of-the-web"
UPSTREAMS = [Upstream(name="a", base_url=HttpUrl("https://a.example/v1"))]
CONFIG = Config(upstreams=UPSTREAMS)


def scope(key: str) -> dict[str, Any]:
    return {"type": "http", "path": "/v1/chat", "headers": [(b"authorization", b"Bearer " + key.encode())]}


def settings(**given: Any) -> Settings:
    return Settings.model_construct(**given)


async def test_everybody(log: FilteringBoundLogger) -> None:
    """Without credentials there is one principal, which has the settings' limits, and there are no tickets."""
    access = create_access(settings(requests_per_minute=7), CONFIG, log)
    assert access.open
    assert access.tickets is None
    principal = await access.credentials.principal(scope("whatever"))
    assert (principal.name, principal.allowance) == ("", Allowance(requests=7))


async def test_keys(log: FilteringBoundLogger) -> None:
    """Keys of the settings and of the file are both good; a limit that a key does not give is the settings'."""
    config = Config(upstreams=UPSTREAMS, keys=[KeyEntry(name="file", sha256=digest("csk_filed"), streams=3)])
    access = create_access(settings(api_keys=(f"web:{digest(KEY)}",), streams_per_principal=9), config, log)
    assert not access.open
    assert access.tickets is not None
    web, file = [await access.credentials.principal(scope(key)) for key in (KEY, "csk_filed")]
    assert (web.name, web.allowance) == ("key:web", Allowance(streams=9))
    assert (file.name, file.allowance) == ("key:file", Allowance(streams=3))


async def test_accounts(log: FilteringBoundLogger) -> None:
    """With a secret, accounts are hashes that take it; without one, those that every process makes of a name."""
    key = (f"web:{digest(KEY)}",)
    secrets = [None, None, SecretStr("s" * 32), SecretStr("s" * 32), SecretStr("t" * 32)]
    accounts = []
    for secret in secrets:
        access = create_access(settings(api_keys=key, secret=secret), CONFIG, log)
        accounts.append((await access.credentials.principal(scope(KEY))).counted_as())
    assert accounts[0] == accounts[1] == Principal("key:web").counted_as()
    assert accounts[2] == accounts[3]
    assert len(set(accounts)) == 3


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
        assert not create_access(settings(**given, host="0.0.0.0"), CONFIG, log).open


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"host": "0.0.0.0"}, "loopback only.*CHAT_SSE_HOST is another address.*API_KEYS.*ALLOW_ANONYMOUS"),
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
    """A mistake that would leave the service open or shut stops the start with a sentence."""
    with pytest.raises(SettingsError, match=sentence) as raised:
        create_access(settings(**given), CONFIG, log)
    assert "short" not in str(raised.value)


def test_hosts(log: FilteringBoundLogger) -> None:
    """On loopback without credentials only loopback's own names are good; elsewhere those that are set, or any."""
    rebound, named = Headers({"host": "evil.example"}), Headers({"host": "chat.example"})
    with pytest.raises(ForeignHost):
        create_access(settings(), CONFIG, log).origins.check(rebound)
    create_access(settings(), CONFIG, log).origins.check(Headers({"host": "localhost:8000"}))
    chosen = create_access(settings(allowed_hosts=("chat.example",)), CONFIG, log).origins
    chosen.check(named)
    with pytest.raises(ForeignHost):
        chosen.check(rebound)
    create_access(settings(api_keys=(f"a:{digest(KEY)}",)), CONFIG, log).origins.check(rebound)
    create_access(settings(host="0.0.0.0", allow_anonymous=True), CONFIG, log).origins.check(rebound)


def test_pages_of_this_machine(log: FilteringBoundLogger) -> None:
    """A page of any local port may ask in front of the simulator alone: elsewhere it would spend the key's money."""
    page = Headers({"host": "localhost:8000", "origin": "http://localhost:5173"})
    create_access(settings(), CONFIG, log).origins.check(page)
    for given in (
        {"openai_api_key": "sk-x"},
        {"openai_base_url": "http://localhost:11434/v1"},
        {"allowed_origins": ("https://app.example",)},
    ):
        with pytest.raises(ForeignOrigin):
            create_access(settings(**given), CONFIG, log).origins.check(page)


A = '[[upstreams]]\nname = "a"\nbase_url = "https://a.example/v1"\n'
B = '[[upstreams]]\nname = "b"\nbase_url = "https://b.example/v1"\nmodels = ["m", "n"]\n'


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "up.toml"
    path.write_text(text)
    return load_config(path, {})


def offered(config: Config, configured: Settings, *models: str) -> list[str]:
    policy = create_policy(config, configured)

    def taken(model: str) -> bool:
        try:
            policy.admit(StreamRequest(model, ({"role": "user", "content": "x"},)))
        except ModelNotAllowed:
            return False
        return True

    return [model for model in models if taken(model)]


def test_what_is_offered(tmp_path: Path) -> None:
    """The models of the file, else those of the setting, else those that the upstreams have."""
    fast = '[[models]]\nname = "fast"\nroute = ["a/x"]\n'
    assert offered(read(tmp_path, A), settings(), "m", "x") == ["m", "x"]
    assert offered(read(tmp_path, B), settings(), "m", "n", "x") == ["m", "n"]
    assert offered(read(tmp_path, A + fast), settings(), "fast", "x", "m") == ["fast"]
    assert offered(read(tmp_path, A), settings(models=("m",)), "m", "x") == ["m"]
    assert offered(read(tmp_path, B), settings(models=("n",)), "m", "n") == ["n"]
    with pytest.raises(SettingsError, match="CHAT_SSE_MODELS"):
        create_policy(read(tmp_path, A + fast), settings(models=("fast",)))
    with pytest.raises(SettingsError, match="CHAT_SSE_MODELS"):
        create_policy(read(tmp_path, B), settings(models=("x",)))


def test_the_settings_caps_hold(tmp_path: Path) -> None:
    """The caps of the settings go for every model that has none of its own."""
    one = settings(max_messages=1)
    text = B + '[[models]]\nname = "m"\n[[models]]\nname = "n"\nmax_messages = 2\n'
    policies = [create_policy(read(tmp_path, file), one) for file in (A, B, text)]
    two = ({"role": "user", "content": "x"},) * 2
    for policy in policies:
        with pytest.raises(Exception, match="at most 1 "):
            policy.admit(StreamRequest("m", two))
    assert policies[2].admit(StreamRequest("n", two)).messages == two


@pytest.mark.parametrize("asked", [{"logprobs": True, "top_logprobs": 3}, {"n_probs": 20}])
def test_a_bound_on_log_probabilities_is_a_cap(tmp_path: Path, asked: dict[str, Any]) -> None:
    """It holds for every model that has none of its own, and with it no parameter passes that may evade it."""
    two = Settings(_env_file=None, max_top_logprobs=2)  # type: ignore[call-arg]  # pydantic-settings takes it besides the fields
    more = B + '[[models]]\nname = "m"\n[[models]]\nname = "n"\nmax_top_logprobs = 3\n'
    request = StreamRequest("m", ({"role": "user", "content": "x"},), asked)
    for text in (A, B, more):
        with pytest.raises(BadRequest, match=r"MAX_TOP_LOGPROBS|EXTRA_PARAMETERS"):
            create_policy(read(tmp_path, text), two).admit(request)
    if "logprobs" in asked:
        assert create_policy(read(tmp_path, more), two).admit(replace(request, model="n")).parameters == asked
    assert create_policy(read(tmp_path, A), settings()).admit(request).parameters == asked


def test_files_at_an_upstreams_own_host(tmp_path: Path) -> None:
    """Where stored files are not taken, neither are addresses at the host of any upstream."""
    policy = create_policy(read(tmp_path, A + B), settings(max_output_tokens=9))
    for url, passes in (("https://files.example/1.png", True), ("https://b.example/v1/files/1", False)):
        content = [{"type": "image_url", "image_url": {"url": url}}]
        request = StreamRequest("m", ({"role": "user", "content": content},))
        if passes:
            policy.admit(request)
        else:
            with pytest.raises(BadRequest, match="STORED_FILES"):
                policy.admit(request)


@pytest.mark.parametrize("place", ["settings", "file", "nowhere"])
def test_a_budget_is_a_cap(tmp_path: Path, place: str) -> None:
    """With a budget of tokens, in the settings or of a key in the file, no parameter passes that may evade it."""
    key = f'[[keys]]\nname = "web"\nsha256 = "{digest(KEY)}"\ntokens_per_day = 1000\n'
    config = read(tmp_path, A + (key if place == "file" else ""))
    policy = create_policy(config, settings(tokens_per_day=1000 if place == "settings" else 0))
    request = StreamRequest("m", ({"role": "user", "content": "x"},), {"num_predict": -1})
    if place == "nowhere":
        assert policy.admit(request).parameters == {"num_predict": -1}
    else:
        with pytest.raises(BadRequest, match="num_predict"):
            policy.admit(request)


def test_the_model_for_requests_that_name_none(tmp_path: Path) -> None:
    """It is the one that is set, else the first that is known; one that is not offered is refused at the start."""

    def chosen(text: str, **changes: Any) -> str:
        config = read(tmp_path, text)
        chosen = settings(**changes)
        return default_model(config, chosen, create_policy(config, chosen))

    assert chosen(B) == "m"
    assert chosen(A + '[[models]]\nname = "z"') == "z"
    assert chosen(B, model="n") == "n"
    assert chosen(A, models=("q", "r")) == "q"
    assert chosen(A, model="anything") == "anything"
    with pytest.raises(SettingsError, match="CHAT_SSE_MODEL is not right"):
        chosen(B, model="x")
