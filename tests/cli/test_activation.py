"""A listening socket that the parent passes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from app.cli.activation import passed_listener
from app.composition.settings import SettingsError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def passing(monkeypatch: pytest.MonkeyPatch, count: str, process: object = None) -> None:
    monkeypatch.setenv("LISTEN_FDS", count)
    monkeypatch.setenv("LISTEN_PID", str(process or os.getpid()))
    monkeypatch.setenv("LISTEN_FDNAMES", "chat-sse.socket")


def test_a_socket_is_passed(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    """The socket is taken where the parent put it; children inherit neither the variables nor the descriptor."""
    passing(monkeypatch, "1")
    descriptor = os.dup(listener.fileno())
    os.set_inheritable(descriptor, True)
    with passed_listener(descriptor) or pytest.fail("it was not taken") as taken:
        assert (taken.fileno(), taken.getsockname()) == (descriptor, listener.getsockname())
        assert not taken.get_inheritable()
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


def test_no_socket_is_passed(monkeypatch: pytest.MonkeyPatch, listener: socket.socket) -> None:
    """Without the variables, and with those for another process, no socket is taken."""
    assert passed_listener(listener.fileno()) is None
    passing(monkeypatch, "1", os.getppid())
    assert passed_listener(listener.fileno()) is None
    assert not [name for name in os.environ if name.startswith("LISTEN_")]


@pytest.mark.parametrize("count", ["0", "2", "-1", "one"])
def test_another_number(monkeypatch: pytest.MonkeyPatch, listener: socket.socket, count: str) -> None:
    """Any number of sockets but one is refused with a sentence."""
    passing(monkeypatch, count)
    with pytest.raises(SettingsError, match=rf"^LISTEN_FDS is '{count}', and the service takes 1 listening socket\.$"):
        passed_listener(listener.fileno())


@pytest.mark.parametrize("kind", ["closed", "a file", "not listening", "UDP", "Unix"])
def test_another_thing(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """What is no listening TCP socket is refused with a sentence."""
    passing(monkeypatch, "1")
    if kind == "a file":
        descriptor = os.open(os.devnull, os.O_RDONLY)
    else:
        family = socket.AF_UNIX if kind == "Unix" else socket.AF_INET
        other = socket.socket(family, socket.SOCK_DGRAM if kind == "UDP" else socket.SOCK_STREAM)
        if kind == "Unix":
            other.bind("")  # Linux picks an abstract address
            other.listen()
        descriptor = other.detach()
    if kind == "closed":
        os.close(descriptor)
    with pytest.raises(SettingsError, match=rf"^LISTEN_FDS is 1, and descriptor {descriptor} is not a listening TCP"):
        passed_listener(descriptor)
    if kind == "a file":
        os.close(descriptor)
