"""A client raises through this service what it raises against the upstream itself, our own 502s apart.

Three SDKs ask a server that refuses, once directly and once through the service.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.real.processes import Server, launch
from tests.servers.environments import environment

pytestmark = pytest.mark.real

LITELLM = Path(__file__).parent / "clients" / "ask_litellm.py"

# What the upstream says about a request: a status, and the members of its error.
ABOUT_THE_REQUEST: dict[str, tuple[int, dict[str, Any]]] = {
    "context": (
        400,
        {
            "message": "This model's maximum context length is 8192 tokens.",
            "type": "invalid_request_error",
            "param": "messages",
            "code": "context_length_exceeded",
        },
    ),
    "filter": (
        400,
        {
            "message": "The response was filtered due to the prompt triggering our content management policy.",
            "type": None,
            "param": "prompt",
            "code": "content_filter",
        },
    ),
    "policy": (400, {"message": "No.", "type": "invalid_request_error", "code": "content_policy_violation"}),
    "moderated": (403, {"message": "Your input was flagged.", "code": 403, "metadata": {"reasons": ["violence"]}}),
    "model": (
        404,
        {"message": "The model `x` does not exist.", "type": "invalid_request_error", "code": "model_not_found"},
    ),
    "model-403": (
        403,
        {"message": "Project has no access to model `x`.", "type": "invalid_request_error", "code": "model_not_found"},
    ),
    "parameter": (400, {"message": "Bad.", "type": "invalid_request_error", "param": "n", "code": None}),
    "conflict": (409, {"message": "Two at once.", "type": "conflict", "code": None}),
    "large": (413, {"message": "Too large.", "type": "tokens", "code": "rate_limit_exceeded"}),
    "unprocessable": (422, {"message": "Not so.", "type": "unprocessable", "code": "x"}),
    "rate": (429, {"message": "Slow down.", "type": "requests", "code": "rate_limit_exceeded"}),
    "legal": (451, {"message": "Not here.", "type": "legal", "code": "x"}),
}
# What fails there; its class is that of our status.
FAILURES: dict[str, tuple[int, dict[str, Any]]] = {
    "broken": (500, {"message": "Oops."}),
    "full": (503, {"message": "Later."}),
    "overloaded": (529, {"message": "Later.", "type": "overloaded_error"}),
}
# What only the operator can mend: our code and status.
OURS: dict[str, tuple[int, dict[str, Any], str]] = {
    "key": (401, {"message": "Incorrect API key.", "code": "invalid_api_key"}, "upstream_auth"),
    "forbidden": (403, {"message": "No."}, "upstream_auth"),
    "credit": (402, {"message": "Pay."}, "upstream_quota"),
    "quota": (429, {"message": "Pay.", "type": "insufficient_quota", "code": "insufficient_quota"}, "upstream_quota"),
    "url": (404, {"message": "Not Found"}, "upstream_base_url"),
    "method": (405, {"message": "Method Not Allowed"}, "upstream_base_url"),
}
ANSWERS = ABOUT_THE_REQUEST | FAILURES | {name: row[:2] for name, row in OURS.items()}


class Refusing:
    """A server that refuses each model in its own way, and counts the requests."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests = 0


@contextmanager
def serving() -> Iterator[Refusing]:
    """Give such a server."""
    refusing = Refusing("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            refusing.requests += 1
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, error = ANSWERS[asked["model"]]
            body = json.dumps({"error": error}).encode()
            self.send_response(status, "Refused")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing of it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    refusing.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield refusing
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def upstream() -> Iterator[Refusing]:
    with serving() as refusing:
        yield refusing


@pytest.fixture(scope="module")
def service(upstream: Refusing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("refused"), f"{upstream.url}/v1", retry_wait=0.01)
    yield server
    server.stop()


def raised(url: str, model: str, stream: bool, retries: int = 0) -> openai.APIStatusError:
    """Return what openai-python raises."""
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=retries) as client,
        pytest.raises(openai.APIStatusError) as error,
    ):
        client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hi"}], stream=stream)
    return error.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ABOUT_THE_REQUEST)
def test_openai(upstream: Refusing, service: Server, model: str, stream: bool) -> None:
    """What concerns the request has the upstream's class, status, code, type, parameter and message."""
    direct, through = (raised(url, model, stream) for url in (upstream.url, service.url))
    assert type(through) is type(direct)
    assert through.status_code == direct.status_code
    said: Any = direct.body
    ours: Any = through.body
    assert {name: ours[name] for name in said} == said
    assert ours["service_code"]


@pytest.mark.parametrize("model", FAILURES)
def test_openai_failures(upstream: Refusing, service: Server, model: str) -> None:
    """A failure has the class that it has directly."""
    assert type(raised(service.url, model, False)) is type(raised(upstream.url, model, False))


@pytest.mark.parametrize("model", OURS)
def test_openai_ours(service: Server, model: str) -> None:
    """Our key, credit and base URL are a 502 of ours, which no SDK repeats and which quotes nothing."""
    error = raised(service.url, model, False)
    assert (error.status_code, error.code) == (502, OURS[model][2])
    assert error.response.headers["x-should-retry"] == "false"
    assert OURS[model][1]["message"] not in error.message


@pytest.mark.parametrize("stream", [False, True])
def test_retries_are_not_multiplied(upstream: Refusing, service: Server, stream: bool) -> None:
    """With the SDK's own retries on, what the service has asked three times is asked three times, and is a status."""
    before = upstream.requests
    error = raised(service.url, "rate", stream, retries=2)
    assert (type(error), upstream.requests - before) == (openai.RateLimitError, 3)


@pytest.mark.parametrize("model", ABOUT_THE_REQUEST | FAILURES)
def test_langchain(upstream: Refusing, service: Server, model: str) -> None:
    """LangChain raises the same, of its own classes too, such as that for a prompt that is too long."""
    seen = []
    for url in (upstream.url, service.url):
        chat = ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=SecretStr("none"), max_retries=0)
        with pytest.raises(openai.APIStatusError) as error:
            chat.invoke("hi")
        seen.append(error.type)
    assert seen[0] is seen[1]


def test_litellm(upstream: Refusing, service: Server) -> None:
    """LiteLLM tells a prompt that is too long, and one that was filtered, from other bad requests."""
    models = list(ABOUT_THE_REQUEST)
    plans = [
        {
            "url": url,
            "model": model,
            "stream": False,
            "leave": None,
            "request": {"messages": [{"role": "user", "content": "hi"}]},
        }
        for model in models
        for url in (upstream.url, service.url)
    ]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
    done = subprocess.run(
        [environment("litellm") / "python", LITELLM],
        input="".join(json.dumps(plan) + "\n" for plan in plans),
        env=env | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    names = [line["error"] for line in map(json.loads, done.stdout.splitlines()) if "error" in line]
    assert dict(zip(models, names[1::2], strict=True)) == dict(zip(models, names[::2], strict=True))
    assert names[0] == "ContextWindowExceededError"
    assert names[2 * models.index("policy")] == "ContentPolicyViolationError"
