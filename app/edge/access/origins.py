"""Which web pages may use the service: the checks of a request's `Origin` and `Host`.

A browser sends requests for any page that its user visits. Where the service asks for no credentials, two checks keep
the page of another site from spending the owner's money: that page has another `Origin`; and if it has made its own
name resolve to the service's address (DNS rebinding), the request has that name as its `Host`.

An `Origin` is never parsed: it is compared as a whole with the allowed ones, as RFC 6454 section 5 says. Pages cannot
forge either header. A client that is no browser can, but gains nothing that it could not do without them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import IPv6Address
from typing import NamedTuple

from starlette.datastructures import Headers

from app.errors import ForeignHost, ForeignOrigin

LOOPBACK = ("localhost", "127.0.0.1", "::1")

# https://www.rfc-editor.org/rfc/rfc9110#section-7.2, without names that no browser sends: browsers send punycode, so
# letters, digits, hyphens and dots. The underscore is for names in container networks.
_HOST = re.compile(r"([a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?|\[[0-9a-f:.]+\])(?::([0-9]{0,5}))?", re.ASCII | re.IGNORECASE)
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.ASCII | re.IGNORECASE)
_MAX_NAME = 254  # with the final dot
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Any port of this machine, as the servers of front-end tools choose them.
_LOOPBACK_ORIGIN = r"https?://(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]{1,5})?"
_MAX_SHOWN = 100


class _Host(NamedTuple):
    """A host as an origin has it: in lower case, an IPv6 address in brackets. *port* is None if none was given."""

    name: str
    port: int | None

    def origin(self, scheme: str) -> str:
        """Return the origin of this host's pages, as a browser sends it: without the default port of the *scheme*."""
        if self.port is None or self.port == _DEFAULT_PORTS.get(scheme):
            return f"{scheme}://{self.name}"
        return f"{scheme}://{self.name}:{self.port}"

    @property
    def bare(self) -> str:
        """The name or address alone, without brackets and the final dot."""
        return self.name.strip("[]").removesuffix(".")


class Origins:
    """Knows the origins and the hosts that are allowed.

    *origins* are those of other sites whose pages may use the service; "*" is any. *hosts* are the service's own names;
    with none, it answers to any name. Both are as `parse_origin` and `parse_host` return them. With *loopback*, pages
    that this machine serves may use it too, whatever their port.
    """

    def __init__(self, origins: Collection[str] = (), hosts: Collection[str] = (), *, loopback: bool = False) -> None:
        self.listed = frozenset(origins)
        self.pattern = _LOOPBACK_ORIGIN if loopback else None
        self.hosts = frozenset(hosts)

    def check(self, headers: Headers) -> bool:
        """Raise ForeignHost or ForeignOrigin unless a request with these *headers* is allowed.

        Returns whether its origin is allowed by itself, and not only because any is.
        """
        hosts = headers.getlist("host")
        if len(hosts) > 1:  # a proxy in front may have checked the other one
            raise ForeignHost
        host = _parse(hosts[0]) if hosts else None
        if self.hosts and (host is None or host.bare not in self.hosts):
            raise ForeignHost(_about_host(hosts[0]) if hosts else None)
        origins = headers.getlist("origin")
        by_name = len(origins) == 1 and self._allows(origins[0], host)
        if origins and "*" not in self.listed and not by_name:
            raise ForeignOrigin(_about_origin(origins[0]))
        return by_name

    def _allows(self, origin: str, host: _Host | None) -> bool:
        """Return whether *origin* is listed, or the service's own.

        The service's own origin has either scheme, because TLS may end in a proxy.
        """
        if origin in self.listed or (host is not None and origin in map(host.origin, _DEFAULT_PORTS)):
            return True
        return self.pattern is not None and re.fullmatch(self.pattern, origin, re.ASCII) is not None


def _about_origin(origin: str) -> str:
    return f"Pages of {_shown(origin)} may not use this service: CHAT_SSE_ALLOWED_ORIGINS does not list that origin."


def _about_host(host: str) -> str:
    return f"This service does not answer to the host name {_shown(host)}: CHAT_SSE_ALLOWED_HOSTS does not list it."


def _shown(value: str) -> str:
    """Return a header's value as an error and the log may show it."""
    return repr(value[:_MAX_SHOWN])


def parse_origin(text: str) -> str:
    """Return the origin *text* as browsers send it, or "*". Raises ValueError."""
    parts = _ORIGIN.fullmatch(text)
    host = parts and _parse(parts[2])
    if parts and host:
        return host.origin(parts[1].lower())
    if text == "*":
        return text
    raise ValueError(
        "must be origins as browsers send them, https://app.example.com or http://localhost:3000, without a path and "
        "with international names in punycode (xn--...); or *"
    )


def parse_host(text: str) -> str:
    """Return *text*, a host name or address without a port, as `Origins` compares it. Raises ValueError."""
    host = _parse(f"[{text}]" if text.count(":") > 1 and not text.startswith("[") else text)
    if host is None or host.port is not None or text.endswith(":"):
        raise ValueError(
            "must be host names or addresses, without scheme, port or path and with international names in punycode "
            "(xn--...)"
        )
    return host.bare


def _parse(text: str) -> _Host | None:
    """Parse the value of a `Host` header: a host with or without a port. Return None if it is not one."""
    parts = _HOST.fullmatch(text)
    if parts is None:
        return None
    name = parts[1].lower()
    port = int(parts[2]) if parts[2] else None
    if len(name) > _MAX_NAME or port == 0 or (port or 0) > 65_535:
        return None
    if name.startswith("["):
        try:
            name = f"[{IPv6Address(name[1:-1])}]"  # one address can be written in several ways
        except ValueError:
            return None
    return _Host(name, port)
