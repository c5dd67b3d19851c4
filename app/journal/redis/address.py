"""What a URL of Redis may look like, so that a wrong one is a sentence at the start.

redis-py and `limits` quote a URL that they cannot read, and its password with it.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qsl

_CREDENTIALS: Final = r"(?:[^\s/?#]*@)?"
_HOST: Final = re.compile(
    rf"(?P<scheme>rediss?)(?P<cluster>\+cluster)?://{_CREDENTIALS}"
    r"(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?)"
    r":(?P<port>[0-9]{1,5})(?:/(?P<db>[0-9]{0,5}))?(?:\?(?P<query>[^#]*))?",
    re.ASCII,
)
_SOCKET: Final = re.compile(rf"unix://{_CREDENTIALS}/[^\s?#]+(?:\?(?P<query>[^#]*))?", re.ASCII)
# redis-py's options that a URL may have. The service itself decides on times, protocol and connections.
_TLS_OPTIONS: Final = {
    **dict.fromkeys(("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile"), ".+"),
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "true|false",
}
_SOCKET_OPTIONS: Final = {"db": "[0-9]{1,5}"}
_WITH_USER: Final = "with USER:PASSWORD@ before that if needed, and with / # ? in a password as %2F %23 %3F"


def check_address(url: str) -> None:
    """Raise ValueError, with a clause that repeats nothing of *url*, unless it is the address of a Redis."""
    if url.startswith("unix://"):
        at_socket = _SOCKET.fullmatch(url)
        if at_socket is None:
            raise ValueError(f"it takes the form unix:///PATH, {_WITH_USER}")
        _check_options(at_socket["query"], _SOCKET_OPTIONS)
        return
    parts = _HOST.fullmatch(url)
    if parts is None or not 0 < int(parts["port"]) < 1 << 16:
        raise ValueError(f"it takes the form redis://HOST:PORT/DB or redis+cluster://HOST:PORT, {_WITH_USER}")
    if parts["cluster"] and int(parts["db"] or 0):
        raise ValueError("a cluster has no other database than 0")
    _check_options(parts["query"], _TLS_OPTIONS if parts["scheme"] == "rediss" else {})


def _check_options(query: str | None, known: dict[str, str]) -> None:
    for name, value in parse_qsl(query or "", keep_blank_values=True):
        if name not in known:
            raise ValueError(f"after ? it takes {' and '.join(known) or 'nothing'}")
        if not re.fullmatch(known[name], value):
            raise ValueError(f"the value of {name} is not right")
