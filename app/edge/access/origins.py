"""Whose pages may ask: the `Host` and the `Origin` of a request.

A browser sends its user's requests for any page that asks it to. Without credentials in the way, two checks are all
that keeps a stranger's page from spending the owner's money: its `Origin` is not ours, and a name that it had rebound
to our address (DNS rebinding) is not one of ours.

Nothing here takes a stranger's `Origin` apart: it is compared whole with those that may ask, as RFC 6454 has it. Both
headers are a browser's own; whoever is no browser can send what it likes, and is none the better for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv6Address
from typing import NamedTuple

from starlette.datastructures import Headers

from app.errors import ForeignHost, ForeignOrigin

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# https://www.rfc-editor.org/rfc/rfc9110#section-7.2, but for names that no browser sends: those are in punycode, so
# letters, digits, hyphens, dots, and the underscore of container networks.
_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.ASCII | re.IGNORECASE)
_LONGEST_NAME = 254  # with the final dot
_PORTS = {"http": 80, "https": 443}


class _Host(NamedTuple):
    """A host, lower-cased, as it stands in an origin: an IPv6 address in brackets. *port* is None if none was given."""

    name: str
    port: int | None

    def origin(self, scheme: str) -> str:
        """Return the origin of the pages that *scheme* has here, as a browser sends it: without the usual port."""
        usual = self.port is None or self.port == _PORTS.get(scheme)
        return f"{scheme}://{self.name}" if usual else f"{scheme}://{self.name}:{self.port}"

    @property
    def bare(self) -> str:
        """The name or address alone, without brackets and final dot."""
        return self.name.strip("[]").removesuffix(".")


class Visitors:
    """*origins* are those of other sites whose pages may ask; "*" is any. *hosts* are our names; none is any.

    Both are as `parse_origin` and `parse_host` return them.
    """

    def __init__(self, origins: Collection[str] = (), hosts: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)
        self._hosts = frozenset(hosts)

    def check(self, headers: Headers) -> None:
        """Raise ForeignHost or ForeignOrigin."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) > 1:  # a proxy in front may have looked at the other one
            raise ForeignHost
        host = _read(hosts[0]) if hosts else None
        if self._hosts and (host is None or host.bare not in self._hosts):
            raise ForeignHost
        if origins and "*" not in self._origins and not (len(origins) == 1 and self._known(origins[0], host)):
            raise ForeignOrigin

    def _known(self, origin: str, host: _Host | None) -> bool:
        """Whether *origin* is on the list, or the service's own. TLS may end in front of us: either scheme is ours."""
        return origin in self._origins or (host is not None and origin in map(host.origin, _PORTS))


def parse_origin(text: str) -> str:
    """Return *text*, an origin that may ask, as browsers send it; or "*". Raises ValueError."""
    parts = _ORIGIN.fullmatch(text)
    host = parts and _read(parts[2])
    if parts and host:
        return host.origin(parts[1].lower())
    if text == "*":
        return text
    raise ValueError(
        "must be origins as browsers send them, https://app.example.com or http://localhost:3000, without a path and "
        "with international names in punycode (xn--...); or *"
    )


def parse_host(text: str) -> str:
    """Return *text*, a host name or address without a port, as `Visitors` compares it. Raises ValueError."""
    host = _read(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if host is None or host.port is not None or text.endswith(":"):
        raise ValueError(
            "must be host names or addresses, without scheme, port or path and with international names in punycode "
            "(xn--...)"
        )
    return host.bare


def _read(text: str) -> _Host | None:
    """Read a host with or without a port, as it stands in a `Host` header; None if it is none."""
    parts = _HOST.fullmatch(text)
    if parts is None:
        return None
    name, port = parts[1].lower(), int(parts[2]) if parts[2] else None
    if len(name) > _LONGEST_NAME or port == 0 or (port or 0) > 65_535:
        return None
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1])}]"  # it may be written in many ways
        except ValueError:
            return None
    return _Host(name, port)
