"""OpenAI's official SDKs, each told the same and saying what it saw; and an upstream that says what it is told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

import openai

from tests.real.node import lines
from tests.waiting import wait_until


@dataclass(slots=True)
class Seen:
    """What a client saw: what it was given, as JSON, and the error that it raised."""

    stream_id: str = ""
    chunks: list[Any] = field(default_factory=list)
    completion: Any = None
    final: Any = None
    models: list[Any] = field(default_factory=list)
    model: Any = None
    error: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The content of all chunks."""
        return "".join(delta.get("content") or "" for delta in self.deltas)

    @property
    def deltas(self) -> list[Any]:
        return [choice["delta"] for chunk in self.chunks for choice in chunk["choices"]]

    @property
    def finish_reasons(self) -> list[str]:
        found = [choice["finish_reason"] for chunk in self.chunks for choice in chunk["choices"]]
        return [reason for reason in found if reason]


class Client(Protocol):
    """One SDK. *action* is `create`, `stream` (its helper), `parse` or `models`; with *abort*, it leaves early.

    *url* is the service's; *headers* are the request's, *options* are the SDK's own. Nothing is tried again unless
    those say so.
    """

    def __call__(
        self,
        url: str,
        action: str,
        body: dict[str, Any],
        *,
        headers: dict[str, str] | None = None,
        abort: int = 0,
        **options: Any,
    ) -> Seen: ...


def python(
    url: str,
    action: str,
    body: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    abort: int = 0,
    **options: Any,
) -> Seen:
    """Ask with the synchronous Python SDK."""
    seen = Seen()
    settings = {"base_url": f"{url}/v1", "api_key": "csk_test", "max_retries": 0, **options}
    with openai.OpenAI(**settings) as client:
        completions: Any = client.chat.completions
        body = {**body, "extra_headers": headers}
        try:
            match action:
                case "create":
                    response = completions.with_raw_response.create(**body)
                    seen.stream_id = response.headers["x-stream-id"]
                    answer = response.parse()
                    if body.get("stream"):
                        for chunk in answer:
                            seen.chunks.append(_dumped(chunk))
                            if len(seen.chunks) == abort:
                                answer.close()
                                break
                    else:
                        seen.completion = _dumped(answer)
                case "stream":
                    with completions.stream(**body) as stream:
                        seen.chunks.extend(_dumped(event.chunk) for event in stream if event.type == "chunk")
                        seen.final = _dumped(stream.get_final_completion())
                case "parse":
                    seen.completion = _dumped(completions.parse(**body))
                case "models":
                    seen.models = [_dumped(model) for model in client.models.list()]
                    seen.model = _dumped(client.models.retrieve(body["model"]))
        except openai.APIError as error:
            seen.error = _said(error)
    return seen


def python_async(
    url: str,
    action: str,
    body: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    abort: int = 0,
    **options: Any,
) -> Seen:
    """Ask with the asynchronous Python SDK."""
    return asyncio.run(_python_async(url, action, {**body, "extra_headers": headers}, abort, options))


async def _python_async(url: str, action: str, body: dict[str, Any], abort: int, options: dict[str, Any]) -> Seen:
    seen = Seen()
    settings = {"base_url": f"{url}/v1", "api_key": "csk_test", "max_retries": 0, **options}
    async with openai.AsyncOpenAI(**settings) as client:
        completions: Any = client.chat.completions
        try:
            match action:
                case "create":
                    response = await completions.with_raw_response.create(**body)
                    seen.stream_id = response.headers["x-stream-id"]
                    answer = response.parse()
                    if body.get("stream"):
                        async for chunk in answer:
                            seen.chunks.append(_dumped(chunk))
                            if len(seen.chunks) == abort:
                                await answer.close()
                                break
                    else:
                        seen.completion = _dumped(answer)
                case "stream":
                    async with completions.stream(**body) as stream:
                        seen.chunks.extend([_dumped(event.chunk) async for event in stream if event.type == "chunk"])
                        seen.final = _dumped(await stream.get_final_completion())
                case "parse":
                    seen.completion = _dumped(await completions.parse(**body))
                case "models":
                    seen.models = [_dumped(model) async for model in client.models.list()]
                    seen.model = _dumped(await client.models.retrieve(body["model"]))
        except openai.APIError as error:
            seen.error = _said(error)
    return seen


def node(
    url: str,
    action: str,
    body: dict[str, Any],
    *,
    headers: dict[str, str] | None = None,
    abort: int = 0,
    **options: Any,
) -> Seen:
    """Ask with the Node SDK, whose options are spelt as the Python SDK's are."""
    spelt = {"max_retries": "maxRetries", "api_key": "apiKey"}
    told = {spelt[name]: value for name, value in options.items()}
    printed = lines("openai", url=url, action=action, body=body, headers=headers or {}, abort=abort, options=told)
    return asyncio.run(_collected(printed))


async def _collected(printed: AsyncIterator[dict[str, Any]]) -> Seen:
    seen = Seen()
    async for line in printed:
        for name, value in line.items():
            match name:
                case "chunk":
                    seen.chunks.append(value)
                case "id":
                    seen.stream_id = value
                case _:
                    setattr(seen, name, value)
    return seen


CLIENTS: dict[str, Client] = {"python": python, "python-async": python_async, "node": node}


def _dumped(model: Any) -> Any:
    return model.to_dict(mode="json", warnings=False)


def _said(error: openai.APIError) -> dict[str, Any]:
    return {
        "name": type(error).__name__,
        "status": getattr(error, "status_code", None),
        "code": error.code,
        "type": error.type,
        "message": error.message,
    }


def _always() -> bool:
    return True


class Upstream:
    """A chat-completions upstream on a thread, which streams the same to every client, and keeps what it was asked."""

    def __init__(self) -> None:
        self.choices: Sequence[dict[str, Any]] = ()
        self.once: Callable[[], object] = _always
        self.asked: list[Any] = []
        self.url = ""

    def says(self, *choices: dict[str, Any], once: Callable[[], object] = _always) -> None:
        """Have it say *choices* from now on: each is what a chunk's choice has besides its index.

        It answers a request once *once* returns something true.
        """
        self.choices = choices
        self.once = once
        self.asked.clear()


@contextmanager
def saying() -> Iterator[Upstream]:
    """Give such an upstream."""
    upstream = Upstream()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            upstream.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            chunks = [{"model": "canned", "choices": [{"index": 0, **choice}]} for choice in upstream.choices]
            body = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks).encode() + b"data: [DONE]\n\n"
            wait_until(upstream.once)
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing of it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    serving: Callable[[], None] = server.serve_forever
    thread = threading.Thread(target=serving, kwargs={"poll_interval": 0.01})
    thread.start()
    upstream.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield upstream
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
