"""What `app/serving` uses of uvicorn although uvicorn does not document it: each part is still as it was."""

from __future__ import annotations

import asyncio
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from app.serving.protocol import HeadWithBody, Protocol, ServerConfig

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Transport(asyncio.Transport):
    """Stands for a client's connection."""

    def write(self, data: Any) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def changed(name: str) -> str:
    """Return what to say about a part of uvicorn that is no longer there."""
    return (
        f"uvicorn {uvicorn.__version__} has no `{name}` any more. Adapt app/serving/protocol.py and server.py to it, "
        "or lower uvicorn's upper bound in pyproject.toml."
    )


async def test_what_the_protocol_uses() -> None:
    """A request in progress has the attributes that the protocol reads and sets, each of its old type."""
    protocol = Protocol(ServerConfig(application, 10), ServerState(), {}, asyncio.get_running_loop())
    protocol.connection_made(Transport())
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    cycle = protocol.cycle
    expected: list[tuple[object, str, type]] = [
        (protocol, "config", ServerConfig),
        (protocol, "connections", set),
        (protocol, "headers", list),
        (protocol, "loop", asyncio.AbstractEventLoop),
        (protocol, "parser", object),
        (protocol, "scope", dict),
        (protocol, "tasks", set),
        (protocol, "transport", asyncio.Transport),
        (cycle, "chunked_encoding", type(None)),
        (cycle, "disconnected", bool),
        (cycle, "expected_content_length", int),
        (cycle, "flow", object),
        (cycle, "keep_alive", bool),
        (cycle, "message_event", asyncio.Event),
        (cycle, "response_complete", bool),
        (cycle, "response_started", bool),
        (cycle, "send", object),
        (cycle, "transport", HeadWithBody),
        (cycle, "waiting_for_100_continue", bool),
        (cycle.flow, "write_paused", bool),
    ]
    for owner, name, kind in expected:
        assert isinstance(getattr(owner, name, None), kind), changed(f"{type(owner).__name__}.{name}")
    protocol.connection_lost(ConnectionResetError())
    await asyncio.gather(*protocol.tasks)


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        (
            "uvicorn.protocols.http.httptools_impl.HttpToolsProtocol",
            "connection_made connection_lost data_received on_message_begin on_url on_header on_headers_complete "
            "on_body on_message_complete on_response_complete shutdown _unset_keepalive_if_required",
        ),
        ("uvicorn.Server", "serve startup handle_exit"),
    ],
)
def test_what_is_overridden(owner: str, names: str) -> None:
    """The methods that ours override or call are methods of uvicorn's classes."""
    module, _, name = owner.rpartition(".")
    for method in names.split():
        assert callable(getattr(getattr(importlib.import_module(module), name), method, None)), changed(
            f"{name}.{method}"
        )


def test_the_bound() -> None:
    """pyproject.toml allows only the versions of uvicorn that have been looked at: the next minor one may differ."""
    (bound,) = re.findall(r'"uvicorn>=[\d.]+,<0\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert int(uvicorn.__version__.split(".")[1]) == int(bound) - 1


def test_one_module_holds_it() -> None:
    """No other module imports from within uvicorn."""
    importing = [
        file.relative_to(ROOT).as_posix()
        for file in (ROOT / "app").rglob("*.py")
        if re.search(r"^ *(from|import) uvicorn\.", file.read_text(), re.MULTILINE)
    ]
    assert importing == ["app/serving/protocol.py"]
