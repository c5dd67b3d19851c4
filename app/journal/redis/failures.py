"""Why a Redis cannot be used, in words for the operator. A password is in none of them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

_NOTHING_LISTENS = "connection refused: nothing listens there"


def place(url: str) -> str:
    """Return where the Redis of *url* is: host and port, or the path of its socket."""
    parts = urlsplit(url)
    return parts.path if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]


def own_word(error: BaseException) -> str:
    """Return Redis' own word for what is wrong, which operators search for (OOM, READONLY, LOADING, MISCONF), or ""."""
    # redis-py cuts the word off where it has a class for it, and keeps it as an attribute.
    word = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return word if isinstance(error, RedisError) and word.isalpha() and word.isupper() else ""


def why(error: BaseException, url: str) -> str:
    """Return what is wrong with the Redis of *url*, in words that say what to look at."""
    for each in _causes(error):
        match each:
            case AuthenticationError() if "without any password" in str(each):
                return "it takes no password, and the URL has one"
            case AuthenticationError() if own_word(each) == "NOAUTH":
                return "it asks for a password: the URL has none"
            case AuthenticationError():
                return "it does not accept the user or the password of the URL"
            case NoPermissionError():
                return "the URL's user may not do what the service needs"
            case ResponseError() if "cluster support disabled" in str(each):
                return "it is no cluster: its URL begins with redis://"
            case ConnectionRefusedError():
                return _NOTHING_LISTENS
            case socket.gaierror():
                return "the name cannot be looked up: " + (each.strerror or "unknown host")
            case ssl.SSLCertVerificationError():
                return f"its certificate is not trusted: {each.verify_message}"
            case ssl.SSLError():
                return f"TLS failed: {each.reason or type(each).__name__}"
            case TimeoutError():
                tls = ", perhaps because it does not speak TLS" if url.startswith("rediss") else ""
                return f"it did not answer in time{tls}"
            case ConnectionResetError():
                return "the connection broke"
            case OSError(strerror=str(words)):
                return words
    if "Errno 111" in str(error):  # of a name that has several addresses
        return _NOTHING_LISTENS
    return f"it refused a command: {own_word(error)}" if own_word(error) else "the connection broke"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
