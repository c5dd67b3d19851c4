"""A secret in the wrong place: whichever setting is wrong, one sentence names it, and has nothing of its value."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import app.telemetry.otlp
from app.cli import main
from app.composition.service import compose
from app.composition.settings import PREFIX, Settings, SettingsError, load
from app.telemetry import configure

CANARY = "hunter2-canary"
# Each is wrong for all settings but those below.
VALUES = [
    f"redis://:{CANARY}/x@127.0.0.1:6379/0",
    f"https://user:{CANARY}#@example.com/v1",
    f"https://example.com:{CANARY}/v1?key={CANARY}",
    f"//{CANARY}\n[::1",
]
# Settings that may have any text.
ANY = {"openai_api_key", "model", "models", "jwt_audience", "jwt_issuer", "secret", "metrics_token", "jwt_secret"}
ANY |= {"extra_parameters", "tool_types", "media_types"}
UPSTREAM = {"OPENAI_BASE_URL": "https://example.com/v1"}
# What a setting is taken into account with.
WITH = {
    "CHAT_SSE_JWT_JWKS_URL": {"CHAT_SSE_JWT_AUDIENCE": "a"},
    "CHAT_SSE_JWT_KEY_FILE": {"CHAT_SSE_JWT_AUDIENCE": "a"},
    "CHAT_SSE_SECRET": {"CHAT_SSE_API_KEYS": f"web:{'0' * 64}"},
    "HTTPS_PROXY": UPSTREAM,
    "ALL_PROXY": UPSTREAM,
    "SSL_CERT_FILE": UPSTREAM,
    "HTTP_PROXY": {"OPENAI_BASE_URL": "http://example.com/v1"},
}
OTEL = ("ENDPOINT", "TRACES_ENDPOINT", "METRICS_ENDPOINT")
OTHERS = [*(name for name in WITH if not name.startswith(PREFIX)), *(f"OTEL_EXPORTER_OTLP_{name}" for name in OTEL)]


def variable(name: str) -> str:
    return name.upper() if name.startswith("openai_") else f"{PREFIX}{name.upper()}"


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last export waits for no collector, since there is none."""
    monkeypatch.setattr(app.telemetry.otlp, "_LAST_EXPORT", 0.01)


async def composed() -> None:
    async with asyncio.timeout(30), compose(load(), configure("error", "json")):
        pass


def said(capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[int, str]]:
    """Yield the exit status of `check` and what it says, and then those of what `serve` builds."""
    status = main(["check"])
    yield status, "".join(capsys.readouterr())
    try:
        asyncio.run(composed())
        yield 0, "".join(capsys.readouterr())
    except SettingsError as error:  # which `main` prints after "chat-sse: "
        yield 2, f"{''.join(capsys.readouterr())}chat-sse: {error}\n"


@pytest.mark.parametrize("name", [*map(variable, Settings.model_fields), *OTHERS])
def test_a_secret_in_the_wrong_place(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`check` and `serve` refuse the same values, in one sentence that names the setting and has no value in it."""
    for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.lower(), raising=False)
    for other, text in WITH.get(name, {"CHAT_SSE_OTLP": "true"} if name.startswith("OTEL") else {}).items():
        monkeypatch.setenv(other, text)
    for value in VALUES:
        monkeypatch.setenv(name, value)
        for status, text in said(capsys):
            assert CANARY not in text, value
            if name.removeprefix(PREFIX).lower() in ANY:
                continue
            assert status in (1, 2), (value, text)
            assert text.startswith("chat-sse: "), text
            assert text.count("\n") == 1, text
            assert name in text, text


@pytest.mark.parametrize("text", ["short", "-----BEGIN PUBLIC KEY-----\nx"])
def test_secrets_that_are_too_short(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Secrets of which only the length is checked are not shown either."""
    for name in ("CHAT_SSE_SECRET", "CHAT_SSE_JWT_SECRET"):
        for other, value in WITH.get(name, {}).items():
            monkeypatch.setenv(other, value)
        monkeypatch.setenv(name, text)
        for status, sentence in said(capsys):
            assert status in (1, 2)
            assert name in sentence
            assert text not in sentence
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("name", "value"),
    [("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", CANARY), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")],
)
def test_opentelemetry(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What OpenTelemetry itself does not take is a sentence, too."""
    monkeypatch.setenv("CHAT_SSE_OTLP", "true")
    monkeypatch.setenv(name, value)
    for status, text in said(capsys):
        assert status in (1, 2)
        assert "OTEL_" in text
        assert CANARY not in text


def test_workers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`check` refuses several processes without a journal that they can share, as `serve` does."""
    monkeypatch.setenv("CHAT_SSE_WORKERS", "2")
    assert main(["check"]) == 1
    assert "CHAT_SSE_WORKERS is 2, and processes share neither memory nor a file" in capsys.readouterr().err
