"""Which proxy the environment names for an upstream, and what a proxy is told."""

from __future__ import annotations

import base64

import httpx
import pytest

from app.errors import Unreachable
from app.upstream.http.proxies import check_tunnel, connect_request, find_proxy, origin_of

PROXY = "http://proxy.test:3128"


def found(url: str) -> str | None:
    proxy = find_proxy(origin_of(httpx.URL(url)))
    return None if proxy is None else str(proxy.url)


@pytest.mark.parametrize(
    ("variables", "url", "proxied"),
    [
        ({}, "https://api.test/v1", False),
        ({"https_proxy": PROXY}, "https://api.test/v1", True),
        ({"HTTPS_PROXY": PROXY}, "https://api.test/v1", True),
        ({"http_proxy": PROXY}, "http://api.test/v1", True),
        ({"http_proxy": PROXY}, "https://api.test/v1", False),
        ({"all_proxy": PROXY}, "https://api.test/v1", True),
        ({"ALL_PROXY": PROXY}, "http://api.test/v1", True),
        ({"all_proxy": "http://other.test", "https_proxy": PROXY}, "https://api.test/v1", True),
        ({"https_proxy": "proxy.test:3128"}, "https://api.test/v1", True),
        ({"https_proxy": "http://user:word@proxy.test:3128"}, "https://api.test/v1", True),
        ({"https_proxy": ""}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "api.test"}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "NO_PROXY": "API.test"}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "test"}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "no_proxy": ".test"}, "https://api.test:8443/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "api.test:8443"}, "https://api.test:8443/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "api.test:8443"}, "https://api.test/v1", True),
        ({"https_proxy": PROXY, "no_proxy": "pi.test"}, "https://api.test/v1", True),
        ({"https_proxy": PROXY, "no_proxy": "*"}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "a.test, *"}, "https://api.test/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "a.test, ,other.test"}, "https://api.test/v1", True),
        ({"https_proxy": PROXY, "no_proxy": "fd00::1"}, "https://[fd00::1]/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "[fd00::1]"}, "https://[fd00::1]/v1", False),
        ({"https_proxy": PROXY, "no_proxy": "fd00::2"}, "https://[fd00::1]/v1", True),
        ({"all_proxy": PROXY}, "http://localhost:8000/v1", False),
        ({"all_proxy": PROXY}, "http://127.0.0.9:8000/v1", False),
        ({"all_proxy": PROXY}, "http://[::1]:8000/v1", False),
        ({"all_proxy": "socks5://proxy.test"}, "http://localhost/v1", False),
    ],
)
def test_choice(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], url: str, proxied: bool) -> None:
    """A variable holds for its scheme, in either case, unless NO_PROXY exempts the host; loopback never has a proxy."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert found(url) == (PROXY if proxied else None)


@pytest.mark.parametrize(
    "address",
    [
        *("socks5://user:word@proxy.test", "socks5h://user:word@proxy.test", "ftp://user:word@proxy.test"),
        *("http://", "http://user:word@proxy.test:port", "http://user:word@:80"),
    ],
)
def test_unsupported(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """What is no http or https proxy is an error that names the variable, and repeats nothing of the address."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    with pytest.raises(Unreachable, match=r"HTTPS_PROXY .* SOCKS is not supported") as raised:
        found("https://api.test/v1")
    assert "word" not in f"{raised.value}{raised.value.__cause__}"


def test_connect_request() -> None:
    """A tunnel is asked for by host and port, with the credentials that the proxy's URL has, decoded."""
    proxy = httpx.Proxy("http://us%40er:w%3Ard@proxy.test")
    credentials = base64.b64encode(b"us@er:w:rd")
    assert connect_request(proxy, origin_of(httpx.URL("https://api.test/v1"))) == (
        b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic "
        + credentials
        + b"\r\n\r\n"
    )
    plain = connect_request(httpx.Proxy(PROXY), origin_of(httpx.URL("https://[fd00::1]:8443/v1")))
    assert plain == b"CONNECT [fd00::1]:8443 HTTP/1.1\r\nHost: [fd00::1]:8443\r\n\r\n"


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 Yes\r\nX: y\r\n\r\n", b"HTTP/1.1 204\r\n\r\n"]
)
def test_tunnel_is_open(head: bytes) -> None:
    """Any status of success opens a tunnel."""
    check_tunnel(head)


@pytest.mark.parametrize("status", [101, 302, 403, 407, 502])
def test_tunnel_is_refused(status: int) -> None:
    """Any other status is told to the operator; the client learns what it always learns."""
    with pytest.raises(Unreachable, match=f"^{Unreachable.message}$") as raised:
        check_tunnel(b"HTTP/1.1 %d Go away, word\r\nX: word\r\n\r\n" % status)
    assert raised.value.cause == f"the proxy refused to pass the request on: it answered with status {status}"


@pytest.mark.parametrize("head", [b"SSH-2.0-OpenSSH\r\n", b"HTTP/2 200\r\n", b"HTTP/1.1 2000 OK\r\n", b"\r\n"])
def test_tunnel_answer_is_not_http(head: bytes) -> None:
    """What does not speak HTTP is no proxy."""
    with pytest.raises(Unreachable):
        check_tunnel(head)
