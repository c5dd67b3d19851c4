"""The TOML file: what it means, and that each mistake in it becomes a sentence without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import HttpUrl, SecretStr

from app.composition.config_file import Config, Hop, KeyEntry, Model, Upstream, create_config, load_config
from app.composition.settings import Settings, SettingsError
from app.edge.access.api_keys import ApiKey
from app.edge.access.models import Rule
from app.request import Allowance

ROOT = Path(__file__).parent.parent.parent
SECRET = "hunter2-hunter2-hunter2"
ENVIRON = {"A_KEY": f" {SECRET}\n", "EMPTY": " ", "ODD": "caf\u00e9", "TWO_LINES": "a\nb"}
A = '[[upstreams]]\nname = "a"\nbase_url = "https://a.example/v1"\n'
B = '[[upstreams]]\nname = "b"\nbase_url = "https://b.example/v1"\nmodels = ["m", "n"]\n'
HASH = "ab" * 32


def read(tmp_path: Path, text: str | bytes) -> Config:
    path = tmp_path / "up.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_config(path, ENVIRON)


def given(**changes: Any) -> Settings:
    """Settings of no environment and no file."""
    return Settings.model_construct(**changes)


def test_the_example() -> None:
    """deploy/upstreams.toml is right as it stands, and names every field that there is."""
    path = ROOT / "deploy" / "upstreams.toml"
    config = load_config(path, {"OPENAI_API_KEY": "k", "AZURE_OPENAI_API_KEY": "l"})
    assert [upstream.name for upstream in config.upstreams] == ["openai", "azure", "local"]
    assert config.offered == ["fast", "gpt-4.1-mini", "support"]
    assert config.routes["fast"] == [Hop("openai", "gpt-4o-mini"), Hop("azure", "prod-mini")]
    assert config.routes["gpt-4.1-mini"] == [Hop("openai"), Hop("local")]
    assert config.rest == []
    text = path.read_text()
    for table in (Upstream, Model, KeyEntry):
        for field, described in table.model_fields.items():
            name = described.alias or field
            assert f"{name} =" in text or f".{name}]" in text, name


def test_an_upstream(tmp_path: Path) -> None:
    """Every field of an upstream arrives; a key loses its line end, and shows in no repr."""
    text = """
        [[upstreams]]
        name = "a-1_x"
        base_url = "http://127.0.0.1:8001/v1"
        key_env = "A_KEY"
        models = ["m"]
        connect_timeout = 1
        first_token_timeout = 2.5
        headers = { X-Team = "web, hunter2-team" }
        extra_body = { provider = { order = ["x"] }, top_k = 3 }
    """
    [upstream] = read(tmp_path, text).upstreams
    assert (upstream.name, str(upstream.base_url)) == ("a-1_x", "http://127.0.0.1:8001/v1")
    assert (upstream.key, upstream.key_env) == (SECRET, "A_KEY")
    assert upstream.models == ["m"]
    assert (upstream.connect_timeout, upstream.first_token_timeout) == (1, 2.5)
    assert upstream.headers == {"X-Team": "web, hunter2-team"}
    assert upstream.extra_body == {"provider": {"order": ["x"]}, "top_k": 3}
    assert (upstream.kind, upstream.background) == ("openai-chat", False)
    assert "hunter2" not in repr(upstream)


def test_routes_without_models(tmp_path: Path) -> None:
    """Without [[models]], a model's route is all upstreams that list it or have any, in file order."""
    config = read(tmp_path, A + B)
    assert config.routes == {"m": [Hop("a"), Hop("b")], "n": [Hop("a"), Hop("b")]}
    assert config.rest == [Hop("a")]
    assert read(tmp_path, B).rest == []


def test_a_model(tmp_path: Path) -> None:
    """A route is split at the first slash; a cap of the model's own wins over the settings', be it none."""
    text = """
        [[models]]
        name = "fast"
        route = ["a/org/model:free", "b/m"]
        max_output_tokens = 0
        max_messages = 9
        output_tokens_field = "max_tokens"
        pinned = { temperature = 1, stop = ["x"], logit_bias = { "50256" = -100 } }
        system = "Be brief."
    """
    [model] = read(tmp_path, A + B + text).models
    assert model.route == [Hop("a", "org/model:free"), Hop("b", "m")]
    pinned = {"temperature": 1, "stop": ["x"], "logit_bias": {"50256": -100}}
    assert model.rule(Rule(5, 6, 7)) == Rule(0, 9, 7, "max_tokens", pinned, "Be brief.")


def test_keys(tmp_path: Path) -> None:
    """A key's limits are its own where it gives them, none included, and the settings' where not."""
    text = f'{A}[[keys]]\nname = "web"\nsha256 = "{HASH}"\nrequests_per_minute = 0\nstreams = 5\n'
    [key] = read(tmp_path, text).keys
    assert key.api_key(Allowance(1, 2, 3, 4)) == ApiKey("web", bytes.fromhex(HASH), Allowance(0, 5, 3, 4))


WRONG = [
    ("", "upstreams"),
    ("upstreams = []", "upstreams"),
    ("upstreams = 1", "upstreams"),
    (A + "surprise = 1", "upstreams[0].surprise"),
    ("surprise = 1\n" + A, "surprise"),
    (A + A, "upstreams[1].name"),
    (A.replace('"a"', '"A"'), "upstreams[0].name"),
    (A.replace('"a"', '"a\\n"'), "upstreams[0].name"),
    (A.replace('"a"', '"' + "a" * 33 + '"'), "upstreams[0].name"),
    ('[[upstreams]]\nname = "a"', "upstreams[0].base_url"),
    *[
        (A.replace("https://a.example/v1", url), "upstreams[0].base_url")
        for url in (
            f"https://u:{SECRET}@a.example/v1",
            f"https://{SECRET}@a.example/v1",
            f"https://a.example/v1?key={SECRET}",
            f"https://a.example/v1#{SECRET}",
            "https://a.example/v1?",
            f"{SECRET} is no url",
            "file:///etc/passwd",
        )
    ],
    *[(A + f'key_env = "{name}"', "upstreams[0].key_env") for name in ("UNSET", "EMPTY", "ODD", "TWO_LINES", SECRET)],
    (A + 'key_env = "A_KEY"\nheaders = { authorization = "x" }', "upstreams[0].key_env"),
    (A + 'models = "m"', "upstreams[0].models"),
    (A + 'models = ["m", ""]', "upstreams[0].models[1]"),
    (A + 'models = ["m", "m"]', "upstreams[0].models[1]"),
    (A + 'models = ["a\\nb"]', "upstreams[0].models[0]"),
    (A + "connect_timeout = -1", "upstreams[0].connect_timeout"),
    (A + "connect_timeout = true", "upstreams[0].connect_timeout"),
    (A + "first_token_timeout = nan", "upstreams[0].first_token_timeout"),
    (A + 'first_token_timeout = "20"', "upstreams[0].first_token_timeout"),
    *[
        (A + f'headers = {{ "{name}" = "{SECRET}" }}', "upstreams[0].headers")
        for name in ("Host", "content-length", "Content-Type", "Transfer-Encoding", "CONNECTION", "traceparent")
    ],
    *[(A + f'headers = {{ "{name}" = "x" }}', "upstreams[0].headers") for name in ("", "a b", "a:", "a\\r\\nX", "é")],
    *[
        (A + f'headers = {{ X-A = "{SECRET}{end}" }}', "upstreams[0].headers")
        for end in ("\\r\\nX-B: 1", "\\n", "\\u0000", "é")
    ],
    (A + 'headers = { X-A = "" }', "upstreams[0].headers"),
    (A + 'headers = { X-A = "1", x-a = "2" }', "upstreams[0].headers"),
    (A + "headers = { X-A = 1 }", "upstreams[0].headers.X-A"),
    *[
        (A + f"extra_body = {{ {name} = 1 }}", "upstreams[0].extra_body")
        for name in ("model", "messages", "stream", "stream_options")
    ],
    *[
        (A + f"extra_body = {{ x = [{value}] }}", "upstreams[0].extra_body")
        for value in ("1979-05-27", "nan", "-inf", "99999999999999999999")
    ],
    (A + "[[models]]", "models[0].name"),
    (A + '[[models]]\nname = "m"\n[[models]]\nname = "m"', "models[1].name"),
    (B + '[[models]]\nname = "other"', "models[0].route"),
    (A + '[[models]]\nname = "m"\nroute = []', "models[0].route"),
    *[
        (A + B + f'[[models]]\nname = "m"\nroute = ["a/x", "{hop}"]', "models[0].route[1]")
        for hop in ("a", "a/", "/x", "c/x", "b/other", "a/x", "a/x\\n")
    ],
    (A + '[[models]]\nname = "m"\nmax_messages = -1', "models[0].max_messages"),
    (A + '[[models]]\nname = "m"\noutput_tokens_field = "tokens"', "models[0].output_tokens_field"),
    (A + '[[models]]\nname = "m"\npinned = { temperature = 3 }', "models[0].pinned.temperature"),
    (A + '[[models]]\nname = "m"\npinned = { stream = false }', "models[0].pinned.stream"),
    (A + '[[models]]\nname = "m"\npinned = { stop = [1] }', "models[0].pinned.stop"),
    (A + '[[models]]\nname = "m"\npinned = { tools = [{ x = 1979-05-27 }] }', "models[0].pinned"),
    (A + f'[[keys]]\nname = "web"\nsha256 = "{SECRET}"', "keys[0].sha256"),
    (A + f'[[keys]]\nname = "a b"\nsha256 = "{HASH}"', "keys[0].name"),
    (A + f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\n[[keys]]\nname = "a"\nsha256 = "{"cd" * 32}"', "keys[1].name"),
    (A + f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\n[[keys]]\nname = "b"\nsha256 = "{HASH.upper()}"', "keys[1].sha256"),
    (A + f'[[keys]]\nname = "a"\nsha256 = "{HASH}"\nstreams = 1.5', "keys[0].streams"),
    (A + f"name = {SECRET}", ""),
    (A + f'"{SECRET}" = 1\n"{SECRET}" = 1', ""),
    (b"\xff", ""),
    (b"#" * ((1 << 20) + 1), ""),
    ("x = " + "[" * 100_000, ""),
]


@pytest.mark.parametrize(("text", "place"), WRONG)
def test_what_is_wrong_is_named(text: str | bytes, place: str, tmp_path: Path) -> None:
    """Each mistake is one sentence with the file and the place in it, and without any value."""
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    sentence = str(raised.value)
    assert sentence.startswith(f"{tmp_path / 'up.toml'}: {place} is not " if place else str(tmp_path))
    assert sentence.endswith((".", "?"))
    assert sentence.isprintable()
    assert SECRET not in sentence
    assert len(sentence) < 400


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[model]]\nname = "m"\n', "model is not a key of this file. Did you mean 'models'?"),
        (
            '[[upstreams]]\nname = "a"\nbaseurl = "https://a.example"\n',
            "upstreams[0].baseurl is not a key of this file. Did you mean 'base_url'?",
        ),
    ],
)
def test_a_misspelt_key(text: str, sentence: str, tmp_path: Path) -> None:
    """The key that was probably meant is named."""
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert str(raised.value).endswith(sentence)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[upstreams]\n", "is not TOML: Expected ']]' at the end of an array declaration (at line 1, column 12)."),
        ("name\n", "is not TOML: Expected '=' after a key in a key/value pair (at line 1, column 5)."),
        ("a = \n", "is not TOML: Invalid value (at line 1, column 5)."),
        (f'a = {{"{SECRET}" = 1, "{SECRET}" = 2}}', "is not TOML: (at line 1, column "),
    ],
)
def test_what_is_no_toml(text: str, reason: str, tmp_path: Path) -> None:
    """The parser's reason is told, unless it quotes what may be a secret."""
    with pytest.raises(SettingsError) as raised:
        read(tmp_path, text)
    assert reason in str(raised.value)
    assert SECRET not in str(raised.value)


def test_a_missing_variable_is_named(tmp_path: Path) -> None:
    """A key that is not in the environment is said by the variable's name."""
    with pytest.raises(SettingsError, match="environment variable UNSET is missing or empty"):
        read(tmp_path, A + 'key_env = "UNSET"')


def test_a_missing_file(tmp_path: Path) -> None:
    """A file that cannot be read is a sentence, too."""
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(SettingsError, match=r"cannot be read: .*\.$"):
            load_config(path, {})


def test_without_a_file() -> None:
    """The settings alone make one upstream for any model: OpenAI's own, another one, or the simulator."""

    def only(config: Config) -> tuple[str, str, str | None]:
        assert (config.routes, config.rest) == ({}, [Hop("default")])
        [upstream] = config.upstreams
        return upstream.name, str(upstream.base_url), upstream.key

    assert only(create_config(given(openai_api_key=SecretStr("k")), {})) == (
        "default",
        "https://api.openai.com/v1",
        "k",
    )
    there = given(openai_base_url=HttpUrl("http://127.0.0.1:1/v1"))
    assert only(create_config(there, {})) == ("default", "http://127.0.0.1:1/v1", None)
    config = create_config(given(), {}, "http://127.0.0.1:2/v1")
    assert only(config) == ("default", "http://127.0.0.1:2/v1", None)


def test_background_takes_responses() -> None:
    """Only an upstream of Responses can answer in the background, in the settings as in a file."""
    url = HttpUrl("http://127.0.0.1:1/v1")
    asked = {"openai_base_url": url, "upstream_background": True}
    assert create_config(given(**asked, upstream="openai-responses"), {}).upstreams[0].background
    with pytest.raises(SettingsError, match="CHAT_SSE_UPSTREAM_BACKGROUND"):
        create_config(given(**asked), {})
