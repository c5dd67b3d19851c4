"""The settings: validated with a sentence, and documented where people look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.composition.settings import PREFIX, Settings, SettingsError, load

ROOT = Path(__file__).parent.parent.parent


def names() -> list[str]:
    return [f"{PREFIX}{name.upper()}" for name in Settings.model_fields if not name.startswith("openai_")]


def test_defaults() -> None:
    """Without any setting, the service listens on loopback and its upstream is the simulator."""
    settings = load()
    assert (settings.host, settings.port, settings.simulated) == ("127.0.0.1", 8000, True)
    assert settings.default_model == "sim-gpt"


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "OPENAI_BASE_URL"])
def test_either_switches_to_a_real_upstream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key or a base URL alone turns the simulator off; the key does not show in reprs."""
    monkeypatch.setenv(name, "http://localhost:1/v1")
    settings = load()
    assert not settings.simulated
    assert settings.default_model == "gpt-4o-mini"
    assert "localhost" not in repr(settings.openai_api_key)


def test_env_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line in .env is a setting; the environment wins over it, and the command line over both."""
    Path(".env").write_text("CHAT_SSE_PORT=1\nCHAT_SSE_HOST=::1\nCHAT_SSE_CHUNK=word\nOPENAI_API_KEY=k\n")
    monkeypatch.setenv("CHAT_SSE_PORT", "2")
    settings = load(host="127.0.0.2")
    assert (settings.port, settings.host, settings.chunk) == (2, "127.0.0.2", "word")
    assert settings.openai_api_key == SecretStr("k")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHAT_SSE_PORT", "eighty"),
        ("CHAT_SSE_PORT", "70000"),
        ("CHAT_SSE_LOG_LEVEL", "loud"),
        ("CHAT_SSE_CHUNK", "paragraph"),
        ("CHAT_SSE_ON_DISCONNECT", "maybe"),
        ("CHAT_SSE_ON_DISCONNECT_MAX", "grace:x"),
        ("CHAT_SSE_ON_DISCONNECT_MAX", "grace:9"),
        ("CHAT_SSE_IDLE_TIMEOUT", "-1"),
        ("CHAT_SSE_IDLE_TIMEOUT", "nan"),
        ("CHAT_SSE_KEEP_ALIVE", "0"),
        ("CHAT_SSE_MAX_BODY", "0"),
        ("CHAT_SSE_MODEL", "a\nb"),
        ("OPENAI_BASE_URL", "not a url"),
        ("CHAT_SSE_PROT", "8000"),
        ("CHAT_SSE_ALLOWED_ORIGINS", "https://app.example.com/"),
        ("CHAT_SSE_ALLOWED_HOSTS", "chat.example.com:443"),
        ("CHAT_SSE_TICKET_SECONDS", "0"),
        ("CHAT_SSE_MAX_OUTPUT_TOKENS", "-1"),
    ],
)
def test_a_wrong_setting_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong or misspelt setting is refused with one sentence that names it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name) as raised:
        load()
    assert "\n" not in str(raised.value)


def test_a_setting_is_named_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's own variables have one name each; the misspelt ones are answered with the name that was meant."""
    monkeypatch.setenv("OPENAI_BASE_URL", "not a url")
    with pytest.raises(SettingsError, match=r"^OPENAI_BASE_URL is not right: "):
        load()
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    monkeypatch.setenv("CHAT_SSE_OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    with pytest.raises(
        SettingsError, match=r"^CHAT_SSE_OPENAI_BASE_URL is not a setting of .* mean 'OPENAI_BASE_URL'\?"
    ):
        load()
    monkeypatch.delenv("CHAT_SSE_OPENAI_BASE_URL")
    monkeypatch.setenv("CHAT_SSE_PROT", "1")
    with pytest.raises(SettingsError, match=r"mean 'CHAT_SSE_PORT'\?"):
        load()


def test_every_setting_is_documented() -> None:
    """deploy/README.md and deploy/env.example have each setting, with its default and description, and no other."""
    _, _, table = (ROOT / "deploy" / "README.md").read_text().partition("\n## Settings\n")
    example = (ROOT / "deploy" / "env.example").read_text()
    for name, field in Settings.model_fields.items():
        variable = name.upper() if name.startswith("openai_") else f"{PREFIX}{name.upper()}"
        default = shown(field.default)
        assert f"\n| `{variable}` | {default and f'`{default}`'} | {field.description} |\n" in table, variable
        assert f"# {plain(field.description)}\n#{variable}={default}\n" in example, variable
    documented = [line.split("=")[0][1:] for line in example.splitlines() if line.startswith(("#CHAT", "#OPENAI"))]
    assert len(documented) == len(Settings.model_fields)


def shown(default: Any) -> str:
    match default:
        case None:
            return ""
        case bool():
            return str(default).lower()
        case tuple():
            return ",".join(default)
        case float():
            return f"{default:g}"
    return str(default)


def plain(description: str | None) -> str:
    return (description or "").replace("`", "")
