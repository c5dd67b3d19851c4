"""Which proxy a request goes through, by HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, and how it is addressed.

The variables are read as httpx and curl read them, in capitals or in small letters.
"""

from __future__ import annotations

import base64
import re
from typing import NamedTuple
from urllib.request import getproxies

import httpx

from app.addresses import is_loopback
from app.errors import Unreachable

_PORTS = {"http": 80, "https": 443}

_ANSWER = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")


class Origin(NamedTuple):
    """Where a connection leads. *host* is in ASCII, and without brackets where it is an IPv6 address."""

    scheme: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """The host and the port, as a URL has them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def origin_of(url: httpx.URL) -> Origin:
    """Return the origin of *url*. Raises Unreachable for a scheme other than http and https."""
    if url.scheme not in _PORTS:
        raise Unreachable
    return Origin(url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme])


def find_proxy(target: Origin) -> httpx.Proxy | None:
    """Return the proxy that the environment names for *target*, or None. A loopback address never has one.

    Raises Unreachable if the environment names something that is no http or https proxy.
    """
    environment = getproxies()
    address = environment.get(target.scheme) or environment.get("all")
    if not address or is_loopback(target.host) or _is_exempt(target, environment.get("no", "")):
        return None
    try:
        proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
        if origin_of(proxy.url).host:
            return proxy
    except (ValueError, httpx.InvalidURL, Unreachable):
        pass
    # The address is not repeated here, because it may hold a password.
    raise Unreachable(
        f"{target.scheme.upper()}_PROXY or ALL_PROXY names a proxy that is not supported. "
        "It must be http://HOST:PORT or https://HOST:PORT; SOCKS is not supported."
    )


def authorization(proxy: httpx.Proxy) -> list[bytes]:
    """Return the header line with the proxy's credentials, if it has any."""
    if proxy.raw_auth is None:
        return []
    return [b"Proxy-Authorization: Basic " + base64.b64encode(b":".join(proxy.raw_auth))]


def connect_request(proxy: httpx.Proxy, target: Origin) -> bytes:
    """Return the request for a tunnel to *target* (RFC 9110, 9.3.6)."""
    address = target.address.encode("ascii")
    lines = [b"CONNECT %b HTTP/1.1" % address, b"Host: " + address, *authorization(proxy)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def check_tunnel(head: bytes) -> None:
    """Raise Unreachable unless *head*, the head of the answer to `connect_request`, says that the tunnel is open."""
    answer = _ANSWER.match(head)
    if answer is None:
        raise Unreachable(cause="the proxy's answer is not HTTP")
    status = int(answer[1])
    if not 200 <= status < 300:
        raise refusal(status)


def refusal(status: int) -> Unreachable:
    """Return the error for a proxy that answered with *status* itself."""
    return Unreachable(cause=f"the proxy refused to pass the request on: it answered with status {status}")


def _is_exempt(target: Origin, no_proxy: str) -> bool:
    """Whether *no_proxy* lists the host, or a domain that it is in, either of them with or without the port; or `*`."""
    host = f".{target.host.rstrip('.')}"
    names = [entry.strip(" .[]") for entry in no_proxy.lower().split(",")]
    return "*" in names or any(
        name and (host.endswith(f".{name}") or f"{host}:{target.port}".endswith(f".{name}")) for name in names
    )
