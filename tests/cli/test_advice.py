"""What `chat-sse check` warns of. `test_check` has the warnings about upstreams."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.cli.advice import about_examples, about_the_internet, about_upstreams
from app.composition.config_file import Config, create_config
from app.composition.settings import PREFIX, Settings

README = Path(__file__).parent.parent.parent / "deploy" / "README.md"
KEYS = {"openai_api_key": SecretStr("sk-real"), "api_keys": ("web:abc",)}


def internet(**given: Any) -> list[str]:
    settings = Settings.model_construct(**given)
    return list(about_the_internet(create_config(settings, {}, "http://localhost"), settings))


def test_what_the_internet_needs() -> None:
    """Each setting that "Put it on the internet" sets is missed; one that is set is not."""
    found = internet(**KEYS)
    named = {match[0] for line in found if (match := re.match(rf"{PREFIX}\w+", line))}
    section = README.read_text().partition("## Put it on the internet")[2].partition("\n### ")[0]
    wanted = set(re.findall(rf"{PREFIX}\w+", section))
    # These are set already, or one may do without them.
    wanted -= {"CHAT_SSE_API_KEYS", "CHAT_SSE_KEY", "CHAT_SSE_ALLOWED_ORIGINS"}
    assert named == {name for name in wanted if "JWT" not in name}
    some = internet(**KEYS, secret=SecretStr("s" * 32), requests_per_minute=30, playground=False)
    assert len(some) == len(found) - 3


def test_a_service_for_oneself() -> None:
    """On loopback and without credentials, no other machine can reach it, and nothing is missed."""
    assert internet(openai_api_key=SecretStr("sk-real")) == []
    assert internet() == []


def test_behind_a_proxy() -> None:
    """Where something in front asks for credentials, limits are missed all the same; what belongs to tickets is not."""
    found = internet(openai_api_key=SecretStr("sk-real"), host="0.0.0.0", allow_anonymous=True)
    assert any(line.startswith("CHAT_SSE_TOKENS_PER_DAY") for line in found)
    assert not any(line.startswith(("CHAT_SSE_SECRET", "CHAT_SSE_METRICS_TOKEN")) for line in found)


def test_credentials_before_the_simulator() -> None:
    """An operator who sets credentials probably meant to set an upstream."""
    [sentence] = internet(api_keys=("web:abc",))
    assert "simulator" in sentence


@pytest.mark.parametrize(
    ("key", "warned"),
    [
        ("sk-...", True),
        ("your-api-key", True),
        ("<key>", True),
        ("sk-xxxxxxxx", True),
        ("CHANGEME", True),
        ("sk-proj-Abc123", False),
        ("unused", False),
    ],
)
def test_placeholders(key: str, warned: bool) -> None:
    """A key that an example has in place of one is pointed out, without being shown."""
    settings = Settings.model_construct(openai_api_key=SecretStr(key))
    config: Config = create_config(settings, {})
    found = list(about_upstreams(config, settings))
    assert bool(found) == warned
    assert key not in str(found)


def test_examples() -> None:
    """What README's page has as an example is pointed out where it was left as it is; a secret is not shown."""
    token = "your-metrics-token"
    settings = Settings.model_construct(
        metrics_token=SecretStr(token),
        secret=SecretStr("u1Yx" * 12),
        allowed_origins=("https://app.example.com", "https://app.acme.dev"),
        allowed_hosts=("chat.example.com", "exampleton.com"),
    )
    found = list(about_examples(settings))
    assert [line.partition(":")[0] for line in found] == [
        "CHAT_SSE_METRICS_TOKEN",
        "CHAT_SSE_ALLOWED_ORIGINS",
        "CHAT_SSE_ALLOWED_HOSTS",
    ]
    assert token not in str(found)
    assert list(about_examples(Settings.model_construct())) == []
