"""What the comments of deploy/nginx.conf offer: the real nginx takes it, and TLS and HTTP/2 stream as the rest does."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.real.clients.sse import check, parse, text
from tests.real.conftest import Start
from tests.real.processes import NGINX, Server, check_nginx, nginx_program
from tests.upstream.http.conftest import Certificate, certificate
from tests.waiting import wait_until

pytestmark = pytest.mark.real

# Fixtures that pytest finds here.
__all__ = ["certificate"]

TLS = (
    "listen 443",
    "listen [::]:443",
    "ssl_certificate ",
    "ssl_certificate_key ",
    "ssl_protocols ",
    "add_header Strict",
)
REDIRECT = ("server {", "listen 80 default", "listen [::]:80 default", "return 301 ", "}")
# Each may be there or not, but the redirect goes with TLS.
OFFERS = {"tls": (*TLS, *REDIRECT), "processes": ("server 127.0.0.1:8010;",), "limits": ("limit_req ", "limit_conn ")}
STREAMS = 20  # three times what a browser has of HTTP/1.1 connections


def http2_on() -> bool:
    """Return whether this nginx has `http2 on`, as the comments say."""
    said = subprocess.run([nginx_program(), "-v"], capture_output=True, text=True, check=True).stderr
    return tuple(int(part) for part in re.findall(r"\d+", said)[:3]) >= (1, 25, 1)


def variant(*offers: str) -> str:
    """Return the file with the lines of *offers*, without the comment sign."""
    config = NGINX.read_text()
    for start in itertools.chain.from_iterable(OFFERS[offer] for offer in offers):
        config, count = re.subn(rf"^( *)# +({re.escape(start)})", r"\1\2", config, flags=re.MULTILINE)
        assert count == 1, start
    if "tls" in offers:
        config = re.sub(r"^ *listen \S*80;\n", "", config, flags=re.MULTILINE)
        if http2_on():
            config = config.replace(" ssl http2;", " ssl; http2 on;", 1).replace(" ssl http2;", " ssl;", 1)
    return config


def with_certificate(config: str, certificate: Certificate) -> str:
    return re.sub(r"/etc/ssl/chat-sse/\w+\.pem", str(certificate.file), config)


@pytest.mark.parametrize("count", range(len(OFFERS) + 1))
def test_nginx_takes_them(count: int, certificate: Certificate, tmp_path: Path) -> None:
    """nginx takes the file with whatever its comments offer, in any combination, and has nothing to say about it."""
    for offers in itertools.combinations(OFFERS, count):
        check_nginx(tmp_path, with_certificate(variant(*offers), certificate))


def test_they_are_all() -> None:
    """These tests know every line that a comment has ready."""
    left = re.findall(r"^ *# .*[;{}]$", variant(*OFFERS), re.MULTILINE)
    assert left == []


@pytest.fixture
def service(start_service: Start, simulator: Server) -> Server:
    return start_service(simulator, on_disconnect="grace:60")


@pytest.fixture
def nginx(start_nginx: Start, service: Server, certificate: Certificate) -> Server:
    """nginx with TLS, HTTP/2 and the redirect."""
    return start_nginx(service, config=with_certificate(variant("tls"), certificate))


def curl(certificate: Certificate, *arguments: str) -> list[str]:
    # It says which HTTP was agreed on.
    return ["curl", "-sSN", "--http2", "--cacert", str(certificate.file), "-w", "%{stderr}%{http_version}", *arguments]


@contextmanager
def running(command: list[str], stdout: IO[bytes] | int) -> Iterator[subprocess.Popen[bytes]]:
    """Let it run, and end it with the block."""
    process = subprocess.Popen(command, stdout=stdout, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def asking(url: str, **body: object) -> tuple[str, ...]:
    return f"{url}/v1/chat", "-d", json.dumps({"prompt": "hi", **body})


def test_a_stream_and_its_rest(nginx: Server, certificate: Certificate, tmp_path: Path) -> None:
    """Over HTTP/2 deltas come while the upstream goes on, and a reader that comes back gets the rest, byte for byte."""
    prompt = "Ünïcödé 你好 👩‍👧 " * 20
    out = tmp_path / "out"
    asked = asking(nginx.url, prompt=prompt, model="sim-echo?rate=50&first=0")
    with out.open("wb") as stdout, running(curl(certificate, *asked), stdout):
        wait_until(lambda: len(parse(out.read_bytes())) > 5)
    before = parse(out.read_bytes())
    assert before[-1].event == "delta", "it came at once"
    path = f"{nginx.url}/v1/streams/{before[-1].id.rpartition('-')[0]}"
    command = curl(certificate, path, "-H", f"Last-Event-ID: {before[-1].id}")
    rest = subprocess.run(command, capture_output=True, check=True)
    assert rest.stderr == b"2"
    events = before + parse(rest.stdout)
    check(events, dense=False)
    assert (text(events), events[-1].event) == (prompt, "done")


def test_many_streams_on_one_connection(
    nginx: Server, service: Server, certificate: Certificate, tmp_path: Path
) -> None:
    """A browser's tabs share one connection, with as many streams as they like at once."""
    files = [tmp_path / f"{number}.sse" for number in range(STREAMS)]
    each = [part for file in files for part in ("-o", str(file), f"{nginx.url}/v1/chat")]
    body = asking(nginx.url, model="never-ends")[1:]
    command = curl(certificate, "-Z", "--parallel-max", str(STREAMS), "-w", "%{num_connects}\n", *body, *each)
    with running(command, subprocess.PIPE) as process:
        wait_until(lambda: all(file.exists() and b"event: delta" in file.read_bytes() for file in files))
        for file in files:
            stream_id, _, _ = parse(file.read_bytes())[0].id.rpartition("-")
            httpx.delete(f"{service.url}/v1/streams/{stream_id}").raise_for_status()
        connects, _ = process.communicate(timeout=30)
    assert sorted(connects.split()) == [b"0"] * (STREAMS - 1) + [b"1"]
    endings = [parse(file.read_bytes())[-1].json()["finish_reason"] for file in files]
    assert endings == ["cancelled"] * STREAMS


def test_a_cut_is_a_cut(nginx: Server, service: Server, certificate: Certificate, tmp_path: Path) -> None:
    """Over HTTP/2, too, a service that dies is seen as a stream that broke (curl 92), not as one that ended."""
    out = tmp_path / "out"
    asked = asking(nginx.url, model="never-ends")
    with out.open("wb") as stdout, running(curl(certificate, *asked), stdout) as process:
        wait_until(lambda: b"event: delta" in out.read_bytes())
        service.send(signal.SIGKILL)
        assert process.wait(60) == 92
    assert not {"done", "error"} & {event.event for event in parse(out.read_bytes())}


def test_plain_http_is_sent_to_https(nginx: Server, certificate: Certificate, tmp_path: Path) -> None:
    """Plain http gets the redirect alone; https says that browsers are to come by https from now on."""
    [address] = re.findall(r"listen (\S+) default_server", (tmp_path / "nginx.conf").read_text())
    plain = httpx.get(f"http://{address}/v1/models?a=b")
    assert (plain.status_code, plain.headers["location"]) == (301, "https://chat.example.com/v1/models?a=b")
    tls = httpx.get(f"{nginx.url}/healthz", verify=certificate.client())
    assert tls.headers["strict-transport-security"] == "max-age=31536000"
