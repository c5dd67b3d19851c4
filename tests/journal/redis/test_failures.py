"""What is said of a Redis that cannot be used. The failures are real ones, where a socket can make them."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError, NoPermissionError, OutOfMemoryError, ResponseError
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.journal import create
from app.journal.redis import ask
from app.journal.redis.failures import own_word, place, why
from app.journal.redis.timing import Timing
from tests.journal.processes import ROOMY, Owner
from tests.ports import free_port
from tests.real.redis import RedisServer, launch_redis
from tests.waiting import until

pytestmark = pytest.mark.anyio

SECRET = "hunter2-hunter2"
QUICK = Timing(connect=0.5, pipeline=1.0)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://127.0.0.1:6379/0", "127.0.0.1:6379"),
        (f"rediss://bob:{SECRET}@[::1]:7000", "[::1]:7000"),
        (f"redis+cluster://:{SECRET}%2F%40@node-1:7000", "node-1:7000"),
        (f"unix://:{SECRET}@/run/redis.sock?db=1", "/run/redis.sock"),
    ],
)
def test_place(url: str, expected: str) -> None:
    """A Redis is named by its host and port, or by its socket, and never by its password."""
    assert place(url) == expected


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (OutOfMemoryError("command not allowed", status_code="OOM"), "OOM"),
        (ResponseError("MISCONF cannot save"), "MISCONF"),
        (ConnectionError("Connection closed by server."), ""),
        (OSError("OOM"), ""),
    ],
)
def test_own_word(error: Exception, word: str) -> None:
    """Only Redis says such a word."""
    assert own_word(error) == word


def tls_error(kind: type[ssl.SSLError], **said: str) -> ssl.SSLError:
    error = kind(1, "no")
    vars(error).update(said)
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NoPermissionError("NOPERM this user has no permissions"), "the URL's user may not"),
        (tls_error(ssl.SSLCertVerificationError, verify_message="self-signed"), "not trusted: self-signed"),
        (tls_error(ssl.SSLError, reason="NO_CIPHERS"), "TLS failed: NO_CIPHERS"),
        (ResponseError("LOADING Redis is loading"), "it refused a command: LOADING"),
        (OSError("Multiple exceptions: [Errno 111] Connect call failed, [Errno 111] Connect call failed"), "refused"),
        (ConnectionResetError(), "the connection broke"),
        (ConnectionError("Connection closed by server."), "the connection broke"),
        (OSError(113, "No route to host"), "No route to host"),
    ],
)
def test_why(error: Exception, words: str) -> None:
    """Each failure is said in words, with what the operating system says where that is the best there is."""
    assert words in why(error, "redis://127.0.0.1:6379")


@pytest.mark.real
async def test_asking(server: RedisServer) -> None:
    """A Redis that answers is fine; of any other, what is wrong is said, and its password is not."""
    at = server.url.partition("//")[2]
    assert await ask(server.url, QUICK) == (True, "")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for url, words in [
            (f"redis://:{SECRET}@127.0.0.1:{free_port()}/0", "connection refused"),
            (f"redis+cluster://:{SECRET}@127.0.0.1:{free_port()}", "connection refused"),
            (f"redis://:{SECRET}@no-such-host.invalid:6379/0", "the name cannot be looked up"),
            (f"redis://:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/0", "it did not answer in time"),
            (f"rediss://:{SECRET}@{at}", "does not speak TLS"),
            (f"redis://bob:{SECRET}@{at}", "does not accept the user or the password"),
            (f"redis://:{SECRET}@{at}", "it takes no password"),
            ("unix:///nowhere/redis.sock", "No such file"),
        ]:
            usable, said = await ask(url, QUICK)
            assert not usable
            assert words in said
            assert said.startswith(place(url) + ": ")
            assert SECRET not in said


@pytest.mark.real
async def test_a_password_is_missing(tmp_path: Path) -> None:
    """A Redis that asks for a password says so, and what is wrong with the one that it got."""
    server = launch_redis(tmp_path)
    try:
        with server.client() as client:
            client.config_set("requirepass", "right")
            assert "it asks for a password" in (await ask(server.url, QUICK))[1]
            wrong = server.url.replace("//", f"//:{SECRET}@")
            assert "does not accept the user or the password" in (await ask(wrong, QUICK))[1]
    finally:
        server.stop()


async def test_the_log(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """The log says where the Redis is that cannot be reached, and why, without its password."""
    port = free_port()
    url = f"redis://:{SECRET}@127.0.0.1:{port}/0"
    journal = create(url, ROOMY, 1, lambda *_: None, log)
    async with journal.serving(Owner()):
        await until(lambda: bool(logs.entries))
    entry = next(entry for entry in logs.entries if entry["event"] == "journal.away")
    assert (entry["redis"], entry["cause"]) == (f"127.0.0.1:{port}", "connection refused: nothing listens there")
    assert SECRET not in str(logs.entries)
