"""Attacks on HTTP itself: who says how long a body is, and what a connection may be used for."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.real.processes import Server, launch
from tests.real.wire import CHAT, QUICK, answers, ask, connect, next_answer, read_answer, received, request

pytestmark = pytest.mark.real

BODY = json.dumps(QUICK).encode()
CHUNKED = b"Transfer-Encoding: chunked"
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
SMUGGLED = request(b"GET /smuggled HTTP/1.1", b"X-Request-Id: smuggled", b"Connection: close")
MAX_BODY = 64 * 1024


def chunks(*bodies: bytes, extension: bytes = b"") -> bytes:
    return b"".join(b"%x%s\r\n%s\r\n" % (len(body), extension, body) for body in (*bodies, b""))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), body_timeout=0.5, on_disconnect="cancel", max_body=MAX_BODY)
    yield server
    assert httpx.get(f"{server.url}/healthz").is_success
    for trace in ("crashed", "Traceback", "Exception"):
        assert trace not in server.text()
    server.stop()


AMBIGUOUS = {
    "CL.TE": [b"Content-Length: 5", CHUNKED],
    "TE.CL": [CHUNKED, b"Content-Length: 5"],
    "two lengths": [b"Content-Length: 5", b"Content-Length: 6"],
    "the same length twice": [b"Content-Length: 5", b"Content-Length: 5"],
    "a list of lengths": [b"Content-Length: 5, 5"],
    "a signed length": [b"Content-Length: +5"],
    "a negative length": [b"Content-Length: -5"],
    "a hex length": [b"Content-Length: 0x5"],
    "an endless length": [b"Content-Length: 99999999999999999999999"],
    "identity": [b"Transfer-Encoding: identity"],
    "chunked is not last": [b"Transfer-Encoding: chunked, identity"],
    "chunked twice": [CHUNKED, CHUNKED],
    "nearly chunked": [b"Transfer-Encoding: xchunked"],
    "chunked behind a control": [b"Transfer-Encoding: \x0bchunked"],
    "a blank before the colon": [b"Transfer-Encoding : chunked"],
    "a folded header": [b"Transfer-Encoding:\r\n chunked"],
    "a header in a bare LF": [b"X: y\nTransfer-Encoding: chunked"],
    "a header in a bare CR": [b"X: y\rTransfer-Encoding: chunked"],
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_ambiguous_length(service: Server, kind: str) -> None:
    """A body of which two readers might see another end is refused, and the request hidden in it never answered."""
    (answer,) = answers(service, request(CHAT, *AMBIGUOUS[kind]) + b"0\r\n\r\n" + SMUGGLED)
    assert (answer.status, answer.headers["connection"]) == (400, "close")


BAD_CHUNKS = {
    "no number": b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative": b"-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "prefixed": b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    "larger than a number": b"f" * 17 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    "too short": b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare LF": b"%x\n%s\n0\n\n" % (len(BODY), BODY),
    "a control in the extension": chunks(BODY, extension=b";a=\0"),
}


@pytest.mark.parametrize("kind", BAD_CHUNKS)
def test_bad_chunks(service: Server, kind: str) -> None:
    """A body in chunks that are none is refused, and nothing after it is read."""
    (answer,) = answers(service, request(CHAT, CHUNKED) + BAD_CHUNKS[kind] + SMUGGLED)
    assert (answer.status, answer.headers["connection"]) == (400, "close")


def test_chunks(service: Server) -> None:
    """An honest chunked body is read, also byte by byte, with extensions, and with `Expect: 100-continue`."""
    pieces = [bytes([byte]) for byte in BODY]
    for body in (chunks(BODY), chunks(*pieces), chunks(BODY, extension=b";name=value")):
        assert ask(service, request(CHAT, CHUNKED) + body).events[-1].event == "done"
    goes_on, answer = answers(service, request(CHAT, b"Expect: 100-continue", b"Connection: close", body=BODY))
    assert (goes_on.status, answer.events[-1].event) == (100, "done")


ENDLESS = {
    "trailers": (chunks(BODY)[:-2], b"X: y\r\n"),
    "trailer": (chunks(BODY)[:-2] + b"X: ", b"y" * 1000),
    "extension": (b"5;x=", b"y" * 1000),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_endless_framing(service: Server, kind: str) -> None:
    """What frames a body is bounded as the head is: trailers fill no memory."""
    begin, more = ENDLESS[kind]
    sent = 0
    with connect(service) as sock:
        sock.sendall(request(CHAT, CHUNKED) + begin)
        with suppress(ConnectionError):
            while sent < 64 << 20:
                sock.sendall(more * 100)
                sent += len(more) * 100
    # Nearly all of that is what the kernel takes before the service looks at it.
    assert sent < 16 << 20


def test_trailers_are_no_headers(service: Server) -> None:
    """A trailer does not count as a header: not as a request id, and not as another client's name."""
    trailed = chunks(BODY)[:-2] + b"X-Request-Id: trailed\r\nLast-Event-ID: nonsense\r\n\r\n"
    answer = ask(service, request(CHAT, CHUNKED) + trailed)
    assert answer.events[-1].event == "done"
    assert answer.headers["x-request-id"] != "trailed"


def test_body_over_the_bound(service: Server) -> None:
    """A body is read up to the bound and not further, whether its length was declared or not."""
    assert ask(service, request(CHAT, b"Content-Length: %d" % (MAX_BODY + 1))).status == 413
    with connect(service) as sock:
        sock.sendall(request(CHAT, CHUNKED))
        with suppress(ConnectionError):
            for _ in range(10_000):
                sock.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            pytest.fail("ten megabytes were taken")
    # What is just within it is read.
    assert ask(service, request(CHAT, body=BODY.ljust(MAX_BODY))).events[-1].event == "done"


def test_length_that_is_too_short(service: Server) -> None:
    """What comes beyond the length that was declared is no part of the body, and no second request beside a stream."""
    found = answers(service, request(CHAT, b"Content-Length: %d" % len(BODY)) + BODY + SMUGGLED)
    assert found == []


@pytest.mark.parametrize("together", [True, False])
def test_upgrade_hides_no_request(service: Server, together: bool) -> None:
    """The body of a request that offers another protocol stays its body: it is not read as the next request."""
    head = (CHAT, *UPGRADE, b"Content-Length: %d" % len(SMUGGLED))
    with connect(service) as sock:
        if together:
            sock.sendall(request(*head) + SMUGGLED)
        else:
            sock.sendall(request(*head, b"Expect: 100-continue"))
            assert next_answer(sock).status == 100
            sock.sendall(SMUGGLED)
        answer = next_answer(sock)
        sock.sendall(request(b"GET /healthz HTTP/1.1", b"X-Request-Id: mine", b"Connection: close"))
        after, nothing = read_answer(received(sock))
    assert (answer.status, answer.code) == (400, "bad_request")
    assert (after.status, after.headers["x-request-id"], nothing) == (200, "mine", b"")


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_offered_upgrade_is_ignored(service: Server, framing: str) -> None:
    """Java's HttpClient and `curl --http2` offer h2c with every request; they get their answer over HTTP/1.1."""
    sent = request(CHAT, *UPGRADE, body=BODY)
    if framing == "chunked":
        sent = request(CHAT, *UPGRADE, CHUNKED) + chunks(BODY)
    with connect(service) as sock:
        sock.sendall(sent)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += sock.recv(65536)
    answer, _ = read_answer(data)
    assert (answer.status, answer.events[-1].event) == (200, "done")
    websocket = request(b"GET /healthz HTTP/1.1", b"Upgrade: websocket", b"Connection: upgrade, close")
    (plain,) = answers(service, websocket)
    assert (plain.status, plain.body) == (200, b"ok\n")
    assert "Unsupported upgrade" not in service.text()


REFUSED = {
    "CONNECT": (b"CONNECT 127.0.0.1:80 HTTP/1.1", 400),
    "TRACE": (b"TRACE /healthz HTTP/1.1", 405),
    "TRACK": (b"TRACK / HTTP/1.1", 400),
    "a version to come": (b"GET /healthz HTTP/1.2", 400),
    "HTTP/2 at once": (b"PRI * HTTP/2.0", 400),
    "no method": (b" /healthz HTTP/1.1", 400),
    "a path of bytes": (b"GET /\xff\xfe HTTP/1.1", 400),
    "NUL in the path": (b"GET /\0 HTTP/1.1", 400),
    "a blank in the path": (b"GET /v1/ chat HTTP/1.1", 400),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_odd_requests(service: Server, kind: str) -> None:
    """What is no request for this service is refused, and nothing is echoed."""
    line, status = REFUSED[kind]
    answer = ask(service, request(line, b"X-Canary: canary"))
    assert answer.status == status
    assert b"canary" not in answer.body


def test_absolute_form(service: Server) -> None:
    """A target with another host in it, as for a proxy, is answered here: this is no proxy."""
    answer = ask(service, request(b"GET http://127.0.0.1:1/healthz HTTP/1.1"))
    assert (answer.status, answer.body) == (200, b"ok\n")


def test_old_versions(service: Server) -> None:
    """HTTP/1.0 is answered, and closed after the answer; what has no version at all gets no answer to be misread."""
    (answer,) = answers(service, request(b"GET /healthz HTTP/1.0"))
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    with connect(service, timeout=0.5) as sock:
        sock.sendall(b"GET /healthz\r\n")
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_tls_at_a_plain_port(service: Server) -> None:
    """A TLS handshake is refused at once, and not waited on."""
    (answer,) = answers(service, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500))
    assert answer.status == 400


def test_noise_in_a_stream(service: Server) -> None:
    """What a client says into its own stream ends it, but puts no other answer into the middle of it."""
    with connect(service) as sock:
        sock.sendall(request(CHAT, body=b'{"prompt":"x","model":"never-ends?first=0"}'))
        data = sock.recv(65536)
        sock.sendall(b"\r\n\x16\x03 noise\r\n\r\n")
        data += received(sock)
    assert data.startswith(b"HTTP/1.1 200")
    assert data.count(b"HTTP/1.1") == 1


JSON = {
    "invalid UTF-8": b'{"prompt":"\xff\xfe"}',
    "an overlong slash": b'{"prompt":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"prompt":"\xed\xa0\x80"}',
    "two byte-order marks": b"\xef\xbb\xbf" * 2 + BODY,
    "a byte-order mark inside": b"{\xef\xbb\xbf" + BODY[1:],
    "UTF-16": json.dumps(QUICK).encode("utf-16"),
    "a number without end": b'{"prompt":"x","temperature":1e999}',
    "a number of 10,000 digits": b'{"prompt":"x","seed":1%s}' % (b"0" * 10_000),
    "NaN": b'{"prompt":"x","temperature":NaN}',
    "minus Infinity": b'{"prompt":"x","temperature":-Infinity}',
    "a raw line end": b'{"prompt":"a\nb"}',
    "a raw NUL": b'{"prompt":"a\0b"}',
    "two values": BODY + BODY,
    "a comment": b'{"prompt":"x"/**/}',
    "nothing": b"",
    "a list": b"[]",
    "a string": b'"prompt"',
    "compressed": gzip.compress(BODY),
}


@pytest.mark.parametrize("kind", JSON)
def test_bad_json(service: Server, kind: str) -> None:
    """A body that is not an object in strict JSON is a 400, whatever a lenient reader would make of it."""
    answer = ask(service, request(CHAT, body=JSON[kind]))
    assert (answer.status, answer.code) == (400, "bad_request")
    assert b"\\u0000" not in answer.body


def test_json_of_careless_clients(service: Server) -> None:
    """A byte-order mark before the body is ignored, and half an emoji becomes U+FFFD: nothing else is lenient."""
    half = b'{"prompt":"cut \\ud83d","model":"sim-echo?rate=0&first=0"}'
    events = ask(service, request(CHAT, body=b"\xef\xbb\xbf" + half)).events
    assert "".join(event.json()["content"] for event in events if event.event == "delta") == "cut \ufffd"
    compressed = ask(service, request(CHAT, b"Content-Encoding: gzip", body=b"\xef\xbb\xbf" + gzip.compress(BODY)))
    assert (compressed.status, compressed.code) == (415, "unsupported_media_type")


def test_compressed_bodies(service: Server) -> None:
    """A body is taken as it is; one that is said to be compressed is refused, and not misread."""
    for body in (gzip.compress(BODY), BODY):
        answer = ask(service, request(CHAT, b"Content-Encoding: gzip", body=body))
        assert (answer.status, answer.code) == (415, "unsupported_media_type")


def test_odd_json(service: Server) -> None:
    """Of a key given twice the last counts, for checks as for the upstream; ten thousand keys are one refusal."""
    twice = b'{"prompt":"first","prompt":"second","model":"unknown","model":"sim-echo?rate=0&first=0"}'
    events = ask(service, request(CHAT, body=twice)).events
    assert "".join(event.json()["content"] for event in events if event.event == "delta") == "second"
    many = ask(service, request(CHAT, body=json.dumps({str(number): 1 for number in range(5000)}).encode()))
    assert (many.status, len(many.body) < 1000) == (400, True)
