"""`chat-sse ask`: ask a running service, and print the answer as it comes."""

from __future__ import annotations

import argparse
import json
import os
import sys

import httpx
import httpx_sse

from app.cli.process import Commands, complain
from app.composition.settings import CLIENT_KEY

_URL = "http://127.0.0.1:8000"


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = commands.add_parser("ask", help="ask a running service and print the answer as it comes")
    parser.add_argument("prompt", help="the prompt; - reads it from standard input")
    parser.add_argument("--url", default=_URL, help=f"the service (default: {_URL})")
    parser.add_argument("--model", help="the model (default: the service's)")
    parser.add_argument("--chunk", help="how the text is re-chunked, e.g. word or time:50 (default: the service's)")
    parser.add_argument("--key", help=f"API key or JWT (default: ${CLIENT_KEY}, which no list of processes shows)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    prompt: str = sys.stdin.read() if arguments.prompt == "-" else arguments.prompt
    if not prompt.isascii() and any("\ud800" <= letter <= "\udfff" for letter in prompt):
        return complain("the prompt is not UTF-8")
    fields = {"prompt": prompt, "model": arguments.model, "chunk": arguments.chunk}
    body = {name: value for name, value in fields.items() if value is not None}
    key: str = arguments.key or os.environ.get(CLIENT_KEY, "")
    if not key.isascii() or not key.isprintable():
        return complain("the key is not printable ASCII")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        trust = httpx.create_ssl_context()
    except OSError:
        return complain("SSL_CERT_FILE or SSL_CERT_DIR names certificates that cannot be read")
    try:
        with (
            httpx.Client(base_url=arguments.url, headers=headers, timeout=60, verify=trust) as client,
            httpx_sse.connect_sse(client, "POST", "/v1/chat", json=body) as source,
        ):
            if source.response.status_code != 200:
                return complain(_error_of(source.response.read()))
            for event in source.iter_sse():
                match event.event, event.json():
                    case "delta", {"content": str(text)}:
                        print(text, end="", flush=True)
                    case "done", done:
                        print()
                        return 0 if done["finish_reason"] == "stop" else complain(f"ended by {done['finish_reason']}")
                    case "error", {"error": {"message": message}}:
                        print()
                        return complain(message)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return complain(f"{arguments.url}: {str(error) or type(error).__name__}")
    print()
    return complain("the answer was cut off")


def _error_of(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the service answered with an error"
