"""What commands have in common: listening sockets, and addresses as people write them."""

from __future__ import annotations

import socket

import pytest

from app.cli.process import allow_many_sockets, listen, url
from app.composition.settings import SettingsError


def test_listen() -> None:
    """Connections inherit the times after which the kernel drops a peer, and a small send buffer."""
    with listen("127.0.0.1", 0, reader_timeout=60) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 20
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * 128 * 1024  # Linux doubles it


def test_listen_where_it_cannot() -> None:
    """An address that is not this machine's becomes a sentence that names it."""
    with pytest.raises(SettingsError, match=r"^cannot listen on http://192\.0\.2\.1:0: .*\.$"):
        listen("192.0.2.1", 0)


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", "http://127.0.0.1:80"), ("::1", "http://[::1]:80")])
def test_url(host: str, expected: str) -> None:
    """An IPv6 address stands in brackets."""
    assert url(host, 80) == expected


def test_many_sockets() -> None:
    """At least the usual limit of open files is allowed."""
    assert allow_many_sockets() >= 1024
