"""HTTP by hand, for what no client library would send, and a strict look at what comes back."""

from __future__ import annotations

import json
import re
import socket
from typing import NamedTuple

from tests.real.clients.sse import Event, check, parse
from tests.real.processes import Server

CHAT = b"POST /v1/chat HTTP/1.1"
QUICK = {"prompt": "x", "model": "sim-echo?rate=0&first=0"}

# Every line of a head that the service sends: nothing but printable ASCII.
_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*")
_FIELD = re.compile(rb"([a-z-]+): ([ -~]*)")


class Answer(NamedTuple):
    """One answer; the names of *headers* are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The error's code."""
        code: str = json.loads(self.body)["error"]["code"]
        return code

    @property
    def events(self) -> list[Event]:
        """The whole stream's events; it is an error if it is not one, to the byte."""
        assert b"\r" not in self.body
        events = parse(self.body)
        check(events, dense=False)
        return events


def connect(service: Server, timeout: float = 60) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=timeout)


def request(line: bytes, *headers: bytes, body: bytes | None = None, host: bytes = b"Host: localhost") -> bytes:
    """Put a request together; its length is only given if there is a *body*."""
    length = () if body is None else (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([line, host, *headers, *length, b"", body or b""])


def received(sock: socket.socket) -> bytes:
    """Read until the service closes, or breaks off."""
    data = b""
    try:
        while piece := sock.recv(65536):
            data += piece
    except ConnectionError:
        pass
    return data


def read_answer(data: bytes, *, to_head: bool = False) -> tuple[Answer, bytes]:
    """Take one whole answer off the front of *data*; return it, and the rest. One *to_head* has no body."""
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    assert status, first
    fields = [_FIELD.fullmatch(line) for line in lines]
    assert all(fields), lines
    pairs = [(field[1].decode(), field[2].decode()) for field in fields if field]
    headers = dict(pairs)
    names = [name for name, _ in pairs]
    assert len(names) == len(set(names)), "a header came twice"
    if to_head:
        return Answer(int(status[1]), headers, b""), rest
    if "transfer-encoding" in headers:
        body = bytearray()
        size = -1
        while size:
            digits, _, rest = rest.partition(b"\r\n")
            size = int(digits, 16)
            body += rest[:size]
            assert rest[size : size + 2] == b"\r\n"
            rest = rest[size + 2 :]
        return Answer(int(status[1]), headers, bytes(body)), rest
    length = int(headers.get("content-length", 0))
    assert len(rest) >= length
    return Answer(int(status[1]), headers, rest[:length]), rest[length:]


def next_answer(sock: socket.socket) -> Answer:
    """Read one answer off a connection that stays open. Its length has to be given, unless it has no body."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: ([0-9]+)", head)
    while length and len(body) < int(length[1]):
        body += sock.recv(65536)
    answer, rest = read_answer(head + b"\r\n\r\n" + body)
    assert not rest
    return answer


def answers(service: Server, *sent: bytes) -> list[Answer]:
    """Send it, and return all that is answered until the service closes, which is the last request's to ask for."""
    with connect(service) as sock:
        for data in sent:
            try:
                sock.sendall(data)
            except ConnectionError:
                break  # refused while it was still being sent
        data = received(sock)
    found = []
    while data:
        answer, data = read_answer(data, to_head=sent[0].startswith(b"HEAD "))
        found.append(answer)
    return found


def ask(service: Server, sent: bytes) -> Answer:
    """Send one request and return its answer, which has to be the only one. The connection closes after it."""
    head, _, rest = sent.partition(b"\r\n\r\n")
    (answer,) = answers(service, head + b"\r\nConnection: close\r\n\r\n" + rest)
    return answer
