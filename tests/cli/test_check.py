"""`chat-sse check`: what it says about a file, what it warns about, and what asking for a token finds out."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from app.cli.check import check
from app.composition.settings import Settings
from tests.ports import free_port
from tests.real.processes import Server, launch_simulator, stats
from tests.upstream.raw import CHUNK, FINISH

SECRET = "hunter2-hunter2-hunter2"
ENVIRON = {"A_KEY": SECRET, "BEARER": f"Bearer {SECRET}", "LOWER": f"bearer {SECRET}", "QUOTED": f'"{SECRET}"'}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch_simulator(tmp_path_factory.mktemp("simulator"))
    yield server
    server.stop()


def run(tmp_path: Path, text: str, *, ask: bool = False, seconds: float = 30, **settings: Any) -> int:
    path = tmp_path / "up.toml"
    path.write_text(text)
    return check(Settings.model_construct(**settings), ENVIRON, path, ask=ask, seconds=seconds)


def upstream(name: str, url: str, more: str = "") -> str:
    return f'[[upstreams]]\nname = "{name}"\nbase_url = "{url}"\n{more}\n'


def test_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each upstream, model and key, with names and limits; no key, header value, or system message."""
    text = (
        upstream("a", "https://a.example/v1", f'key_env = "A_KEY"\nheaders = {{ X-Team = "{SECRET}" }}')
        + upstream("b", "https://b.example/v1", f'models = ["n"]\nextra_body = {{ token = "{SECRET}" }}')
        + f'[[models]]\nname = "fast"\nroute = ["a/m", "b/n"]\nmax_output_tokens = 9\nsystem = "{SECRET}"\n'
        + f'pinned = {{ user = "{SECRET}" }}\n[[models]]\nname = "n"\n'
        + 'extra_parameters = ["top_k"]\ntool_types = ["*"]\nmedia_types = []\nmax_media = 2\nmax_top_logprobs = 3\n'
        + "max_media_bytes = 0\nstored_files = true\n"
        + f'[[keys]]\nname = "web"\nsha256 = "{"ab" * 32}"\nstreams = 5\n'
    )
    assert run(tmp_path, text, max_messages=7, requests_per_minute=60) == 0
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith("warning: ")] == [
        "credentials: asked for",
        "Pages of other origins may not use it: CHAT_SSE_ALLOWED_ORIGINS is empty.",
        "hosts: any",
        "journal: memory",
        "each principal: 60 requests a minute, any number of live streams, any number of readers, "
        "any number of output tokens a day",
        "upstream a: https://a.example/v1; key from A_KEY; models: any; headers: X-Team",
        "upstream b: https://b.example/v1; no key; models: n; extra body: token",
        "requests may have: parameters: the ordinary ones; tools: custom, function; "
        "media: file, image_url, input_audio; at most 20 media; at most 8388608 bytes of media",
        "model fast (default): a/m, then b/n; at most 9 output tokens; at most 7 messages; pinned: user; "
        "a system message of its own",
        "model n: a/n, then b/n; at most 7 messages; requests may have: parameters: the ordinary ones, top_k, "
        "tools: any, media: none, at most 2 media, top_logprobs: at most 3, files that the upstream keeps",
        "key web: 60 requests a minute, 5 live streams, any number of readers, any number of output tokens a day",
    ]
    assert SECRET not in out


def test_other_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If clients may ask for any model, it says so, and which upstreams get the request."""
    assert run(tmp_path, upstream("a", "https://a.example/v1") + upstream("b", "https://b.example/v1")) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == ["requests may have: anything", "any other model: a, then b"]


def test_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake that would stop the start is told on stderr, and the status is 1."""
    assert run(tmp_path, upstream("A", "https://a.example/v1")) == 1
    said = capsys.readouterr()
    assert (said.out, "upstreams[0].name" in said.err) == ("", True)
    assert run(tmp_path, upstream("a", "https://a.example/v1", 'models = ["m"]'), model="x") == 1
    assert "CHAT_SSE_MODEL is not right" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (upstream("a", "http://a.example/v1"), "plain http"),
        (upstream("a", "http://10.0.0.1/v1"), "plain http"),
        (upstream("a", "http://127.0.0.1:1/v1"), None),
        (upstream("a", "http://[::1]:1/v1"), None),
        (upstream("a", "http://localhost/v1"), None),
        (upstream("a", "https://a/v1/chat/completions"), "ends in /chat/completions"),
        (upstream("a", "https://a/v1/chat/completions/"), "ends in /chat/completions"),
        (upstream("a", "https://a/chat/completions"), "ends in /chat/completions"),
        (upstream("a", "https://a/v1/responses"), "ends in /responses"),
        (upstream("a", "https://a"), "no /v1"),
        (upstream("a", "https://a/"), "no /v1"),
        (upstream("a", "https://v1.example/api"), "no /v1"),
        (upstream("a", "https://a/openai/v1/"), None),
        (upstream("a", "https://a/v1beta/openai"), None),
        (upstream("a", "https://a/api/paas/v4"), None),
        (upstream("a", "https://a/v1", 'key_env = "BEARER"'), "begins with 'Bearer'"),
        (upstream("a", "https://a/v1", 'key_env = "LOWER"'), "begins with 'Bearer'"),
        (upstream("a", "https://a/v1", 'key_env = "QUOTED"'), "quotation marks"),
        (upstream("a", "https://a/v1", 'key_env = "A_KEY"'), None),
        (upstream("a", "https://a/v1") + upstream("b", "https://b/v1"), None),
        (
            upstream("a", "https://a/v1") + upstream("b", "https://b/v1") + '[[models]]\nname = "m"\nroute = ["a/m"]',
            "upstream b: no model's route",
        ),
        (upstream("a", "https://a/v1", "first_token_timeout = 300"), "CHAT_SSE_FIRST_TOKEN_TIMEOUT"),
        (upstream("a", "https://a/v1", "first_token_timeout = 299"), None),
        (
            upstream("a", "https://a/v1")
            + '[[models]]\nname = "m"\nmax_output_tokens = 5\npinned = { max_tokens = 6 }',
            "pinned max_tokens",
        ),
    ],
)
def test_warnings(text: str, warning: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Likely mistakes are pointed out, and nothing else is."""
    assert run(tmp_path, text) == 0
    out = capsys.readouterr().out
    assert SECRET not in out
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert len(warnings) == (warning is not None)
    assert all(warning and warning in line for line in warnings)


def test_a_proxy_that_is_not_supported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment says about connections is checked, too: it would stop the start."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    assert run(tmp_path, upstream("a", "https://a.example/v1")) == 1
    assert "proxy" in capsys.readouterr().err


def test_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a file and without a key, it tells of the simulator and of the credentials."""
    assert check(Settings.model_construct(), {}) == 0
    assert capsys.readouterr().out.splitlines() == [
        "credentials: none are asked for",
        "Pages of other origins may use it: those of loopback, on any port.",
        "hosts: 127.0.0.1, ::1, localhost",
        "journal: memory",
        "each principal: any number of requests a minute, any number of live streams, any number of readers, "
        "any number of output tokens a day",
        "upstream: the built-in simulator",
    ]


def test_who_may_come_in(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that would be refused at the start is refused here, too, and so are keys that are none."""
    assert check(Settings.model_construct(host="0.0.0.0"), {}) == 1
    assert "ALLOW_ANONYMOUS" in capsys.readouterr().err
    assert check(Settings.model_construct(api_keys=("web:short",)), {}) == 1
    assert "CHAT_SSE_API_KEYS is not right" in capsys.readouterr().err


@pytest.mark.real
def test_asking(simulator: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each upstream that answers is ok, with the time it took; one that does not has its error, and the status is 1."""
    quick = 'models = ["sim-gpt?first=0"]'
    assert run(tmp_path, upstream("a", simulator.url, quick) + upstream("b", simulator.url, quick), ask=True) == 0
    assert len(re.findall(r"^[ab]/sim-gpt\?first=0: ok \d+ ms$", capsys.readouterr().out, re.MULTILINE)) == 2
    text = (
        upstream("good", simulator.url, quick)
        + upstream("gone", f"http://127.0.0.1:{free_port()}/v1", 'models = ["m"]')
        + upstream("leak", simulator.url, 'key_env = "A_KEY"\nmodels = ["leak?status=500&first=0"]')
        + upstream("auth", simulator.url, 'models = ["error-401?first=0"]')
    )
    assert run(tmp_path, text, ask=True) == 1
    out = capsys.readouterr().out
    assert re.search(r"^good/sim-gpt\?first=0: ok \d+ ms$", out, re.MULTILINE)
    assert "gone/m: upstream_unreachable: The upstream service cannot be reached." in out
    assert "leak/leak?status=500&first=0: upstream_error: " in out
    assert "auth/error-401?first=0: upstream_auth: " in out
    assert SECRET not in out


@pytest.mark.real
def test_asking_for_what_is_offered(simulator: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An upstream without a list is asked for the first model that a route leads to it for, else for the default."""
    a = upstream("a", simulator.url)
    assert run(tmp_path, f'{a}[[models]]\nname = "m"\nroute = ["a/sim-echo?first=0"]', ask=True) == 0
    assert run(tmp_path, a, ask=True, model="sim-gpt?first=0") == 0
    out = capsys.readouterr().out
    assert "a/sim-echo?first=0: ok" in out
    assert "a/sim-gpt?first=0: ok" in out


@pytest.mark.real
def test_asking_costs_a_token(simulator: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One request each, and no stream is left running, not even one that would never end."""
    before = stats(simulator)["requests"]
    assert run(tmp_path, upstream("a", simulator.url, 'models = ["never-ends?first=0"]'), ask=True) == 0
    assert stats(simulator)["requests"] == before + 1


def test_asking_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Redis that cannot be reached is a failure that says where and why, and without its password."""
    port = free_port()
    settings = Settings.model_construct(journal=f"redis://:{SECRET}@127.0.0.1:{port}/0")
    assert check(settings, ENVIRON) == 0
    assert check(settings, ENVIRON, ask=True) == 1
    out = capsys.readouterr().out
    assert f"journal: 127.0.0.1:{port}: connection refused: nothing listens there" in out
    assert SECRET not in out


def test_asking_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the folder for the streams cannot be used, it says why, and of a usable one how much room there is."""
    settings = Settings.model_construct(journal=f"file://{tmp_path}/{{port}}", port=1234)
    assert check(settings, ENVIRON, ask=True) == 0
    assert re.search(rf"journal: ok \d+ ms; {tmp_path}/1234 will be made; .* are free", capsys.readouterr().out)
    (tmp_path / "1234").write_text("x")
    assert check(settings, ENVIRON, ask=True) == 1
    assert f"journal: {tmp_path}/1234 is not a folder" in capsys.readouterr().out


@pytest.mark.real
def test_asking_does_not_wait_for_ever(simulator: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An upstream that stays silent is given up, and the others are not held up by it."""
    text = upstream("slow", simulator.url, 'models = ["slow-headers?seconds=60"]')
    text += upstream("a", simulator.url, 'models = ["sim-gpt?first=0"]')
    assert run(tmp_path, text, ask=True, seconds=5) == 1
    out = capsys.readouterr().out
    assert "first_token_timeout: no answer within 5 s" in out
    assert "a/sim-gpt?first=0: ok" in out


class _Particular(BaseHTTPRequestHandler):
    """An upstream that knows no `max_completion_tokens`."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        refused = "max_completion_tokens" in body
        said = b'{"error":{"message":"no such field"}}' if refused else CHUNK % b"hi" + FINISH
        self.send_response(400 if refused else 200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        """Be silent."""


def test_asking_one_that_refuses_the_cap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An upstream that refuses to be told to say one token only is asked without; it is its health that counts."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Particular) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            text = upstream("a", f"http://127.0.0.1:{server.server_port}/v1", 'models = ["m"]')
            assert run(tmp_path, text, ask=True) == 0
        finally:
            server.shutdown()
            thread.join()
    assert "a/m: ok" in capsys.readouterr().out
