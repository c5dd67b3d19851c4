"""Attacks on who may do what: without credentials, with another's, with forged ones."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from itsdangerous import TimestampSigner

from tests.real.conftest import Start
from tests.real.processes import Server, launch, stats
from tests.real.wire import CHAT, QUICK, ask, request
from tests.waiting import wait_until

pytestmark = pytest.mark.real

ALICE, BOB = "csk_alice_" + secrets.token_hex(16), "csk_bob_" + secrets.token_hex(16)
KEYS = ",".join(f"{name}:{hashlib.sha256(key.encode()).hexdigest()}" for name, key in (("a", ALICE), ("b", BOB)))
EVENTS = {"Accept": "text/event-stream"}
JSON = {"Accept": "application/json"}
UNKNOWN = "A" * 22


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, api_keys=KEYS, shutdown_grace=0)
    yield server
    assert "crashed" not in server.text()
    server.stop()


def client(service: Server, key: str = "") -> httpx.Client:
    return httpx.Client(base_url=service.url, headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=60)


def start(owner: httpx.Client, **body: Any) -> dict[str, str]:
    """Start a stream without reading it."""
    answer = owner.post("/v1/chat", json={**QUICK, **body}, headers=JSON)
    assert answer.status_code == 201, answer.text
    made: dict[str, str] = answer.json()
    return made


def same_but_id(one: httpx.Response, other: httpx.Response) -> bool:
    """Whether nothing but the request's own id tells two answers apart."""

    def bare(answer: httpx.Response) -> tuple[Any, ...]:
        headers = {name: value for name, value in answer.headers.items() if name not in ("date", "x-request-id")}
        return answer.status_code, headers, answer.text.replace(answer.headers["x-request-id"], "")

    return bare(one) == bare(other)


def reach(visitor: httpx.Client, stream_id: str) -> Iterator[httpx.Response]:
    """Try every way to a stream that there is."""
    url = f"/v1/streams/{stream_id}"
    yield visitor.get(url, headers=EVENTS)
    yield visitor.get(url, headers=JSON)
    yield visitor.get(url, params={"last_event_id": f"{stream_id}-1"})
    yield visitor.get(url, headers={"Last-Event-ID": f"{stream_id}-1"})
    yield visitor.get(url, headers={"Last-Event-ID": f"{stream_id}-999999999999"})
    yield visitor.get(url, params={"smooth": "100"})
    yield visitor.head(url)
    yield visitor.delete(url)
    yield visitor.post(f"{url}/cancel")
    yield visitor.post("/v1/chat", json=QUICK, headers={"Last-Event-ID": f"{stream_id}-1"})


@pytest.mark.parametrize("state", ["live", "ended"])
def test_another_s_stream(service: Server, state: str) -> None:
    """Another's stream is 404 on every way to it, live or ended, to the byte as one that never was; and lives on."""
    with client(service, ALICE) as alice, client(service, BOB) as bob:
        made = start(alice, model="never-ends?first=0" if state == "live" else QUICK["model"])
        stream_id = made["stream_id"]
        if state == "ended":
            assert alice.get(made["url"]).text.count("event: done") == 1
        for theirs, nobodys in zip(reach(bob, stream_id), reach(bob, UNKNOWN), strict=True):
            assert theirs.status_code == 404
            assert same_but_id(theirs, nobodys)
        snapshot = alice.get(f"/v1/streams/{stream_id}", headers=JSON)
        assert snapshot.json()["state"] == ("live" if state == "live" else "done")
        assert alice.delete(f"/v1/streams/{stream_id}").status_code == 200


def test_another_s_idempotency_key(service: Server, simulator: Server) -> None:
    """An idempotency key is its owner's: the same one from another principal is another stream, and no oracle."""
    with client(service, ALICE) as alice, client(service, BOB) as bob:
        once = {**QUICK, "prompt": "alice's"}
        key = {"Idempotency-Key": "the-same"}
        before = stats(simulator)["requests"]
        first = alice.post("/v1/chat", json=once, headers=key)
        other = bob.post("/v1/chat", json=once, headers=key)
        assert first.headers["x-stream-id"] != other.headers["x-stream-id"]
        assert alice.post("/v1/chat", json=once, headers=key).text.count(first.headers["x-stream-id"]) > 1
        assert bob.post("/v1/chat", json=once, headers=key).headers["x-stream-id"] == other.headers["x-stream-id"]
        assert stats(simulator)["requests"] == before + 2
        alice.post("/v1/chat", json=once, headers={"Idempotency-Key": "alice-only"})
        fresh = bob.post("/v1/chat", json={**once, "prompt": "bob's"}, headers={"Idempotency-Key": "alice-only"})
        assert fresh.status_code == 200


def test_guessed_ids(service: Server) -> None:
    """An id that is nearly one's own, or none at all, leads nowhere."""
    with client(service, ALICE) as alice:
        stream_id = start(alice)["stream_id"]
        last = "B" if stream_id[-1] != "B" else "C"
        odd = [
            stream_id[:-1] + last,
            stream_id.swapcase(),
            stream_id[:-1],
            f"{stream_id}A",
            "*",
            "%2e%2e",
            f"{stream_id}%00",
        ]
        odd += [f"{stream_id}%2F", f"{stream_id};x", f"%20{stream_id}", "..%2F..%2Fetc%2Fpasswd"]
        for guess in odd:
            assert alice.get(f"/v1/streams/{guess}", headers=JSON).status_code == 404, guess
            assert alice.delete(f"/v1/streams/{guess}").status_code == 404, guess


CLOSED = [
    *("/v1/chat", "/v1/streams/" + UNKNOWN, f"/v1/streams/{UNKNOWN}/cancel", "/nothing", "/v1", "/admin"),
    *(
        "//v1/chat",
        "/v1//chat",
        "/v1/chat/",
        "/V1/CHAT",
        "/v1/streams/../chat",
        "/v1/%63hat",
        "/v1%2Fchat",
        "/./v1/chat",
    ),
    *("/healthz/", "/healthz/../v1/chat", "/healthz%2f..%2fv1%2fchat", "//healthz", "/HEALTHZ", "/healthz;/v1/chat"),
    *(
        "/client.js/../v1/chat",
        "/%2e%2e/v1/chat",
        "/v1/chat?x=/healthz",
        "/openapi.json/",
    ),
]


def test_control_characters_in_a_path(service: Server) -> None:
    """What Starlette would take for a public path, or a proxy in front for another than it is, is no path at all."""
    for path in ("/healthz%00", "/healthz%0a", "/metrics%0a", "/v1/chat%0a", "/v1/chat%1b", "/v1/chat%C2%85"):
        assert ask(service, request(f"GET {path} HTTP/1.1".encode())).code == "not_found"


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"])
def test_without_credentials(service: Server, simulator: Server, method: str) -> None:
    """Every path that is not public is 401 without credentials, however it is written; upstream never hears of it."""
    before = stats(simulator)["requests"]
    for path in CLOSED:
        answer = ask(service, request(f"{method} {path} HTTP/1.1".encode(), body=json.dumps(QUICK).encode()))
        assert answer.status == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer"), path
        assert method == "HEAD" or answer.code == "unauthenticated"
    assert stats(simulator)["requests"] == before


def test_metrics_are_closed(service: Server) -> None:
    """Where credentials are asked for, no client reads the metrics without the token for them: none is set here."""
    with client(service, ALICE) as alice, client(service) as stranger:
        ticket = start(alice)["url"].partition("?")[2]
        for answer in (alice.get("/metrics"), stranger.get("/metrics"), stranger.get(f"/metrics?{ticket}")):
            assert answer.status_code in (401, 403)
            assert "chat_sse" not in answer.text


def wrong(key: str) -> Iterator[list[bytes]]:
    """Credentials that are nearly right."""
    good = f"Authorization: Bearer {key}".encode()
    texts = ["", "Bearer", "Bearer ", key, f"Basic {key}", f"Bearer{key}", f"Bearer {key}x", f"Bearer {key[:-1]}"]
    texts += [f"Bearer {key.upper()}", f"Bearer {key} {key}", f'Bearer "{key}"', f"Bearer {key},x", f"Token {key}"]
    texts += [
        f"Bearer {hashlib.sha256(key.encode()).hexdigest()}",
        "Bearer a",
        f"Bearer {key}%00",
        "Bearer " + "x" * 9000,
    ]
    yield from ([f"Authorization: {text}".encode()] for text in texts)
    yield [f"Authorization: Bearer {key}".encode() + b"\xff"]
    yield [good, b"Authorization: Bearer x"]
    yield [b"Authorization: Bearer x", good]
    yield [good, good]
    yield [b"Proxy-" + good]
    yield [b"X-" + good]
    yield [f"Cookie: authorization=Bearer {key}".encode()]
    yield [f"X-Api-Key: {key}".encode()]
    yield [b"X-Forwarded-User: a"]


def test_wrong_credentials(service: Server, simulator: Server) -> None:
    """Credentials that are nearly right are none, and the answer does not say how near."""
    before = stats(simulator)["requests"]
    bodies = set()
    for headers in wrong(ALICE):
        answer = ask(service, request(CHAT, *headers, body=json.dumps(QUICK).encode()))
        assert (answer.status, answer.code) == (401, "unauthenticated"), headers
        assert answer.headers["www-authenticate"].startswith("Bearer")
        bodies.add(answer.body.replace(answer.headers["x-request-id"].encode(), b""))
    assert len(bodies) <= 3  # there were none; they cannot be read; they are not known
    assert stats(simulator)["requests"] == before
    for query in ("access_token", "key", "api_key", "token", "authorization", "ticket"):
        assert ask(service, request(f"POST /v1/chat?{query}={ALICE} HTTP/1.1".encode())).status == 401


def ticket_of(url: str) -> str:
    match = re.fullmatch(r"/v1/streams/[\w-]{22}(?:/cancel)?\?ticket=([\w.-]+)", url, re.ASCII)
    assert match is not None, url
    return match[1]


def test_ticket_opens_its_stream_only(service: Server) -> None:
    """A ticket reads and stops its own stream; it is worth nothing on any other path, nor in any other place."""
    with client(service, ALICE) as alice, client(service) as stranger:
        first, second = start(alice, model="never-ends?first=0"), start(alice)
        ticket, url = ticket_of(first["url"]), first["url"].partition("?")[0]
        query = {"ticket": ticket}
        for path in (url, f"{url}/", f"/{url}"):
            assert stranger.get(f"{service.url}{path}", params=query, headers=JSON).json()["state"] == "live"
        closed: list[httpx.Response] = [
            stranger.get(second["url"].partition("?")[0], params=query),
            stranger.get(f"/v1/streams/{UNKNOWN}", params=query),
            stranger.post("/v1/chat", params=query, json=QUICK),
            stranger.get("/v1/streams", params=query),
            stranger.get(f"{url}%2F", params=query),
            stranger.get(f"{url}/more", params=query),
            stranger.get(f"/%2F{url.removeprefix('/')}", params=query),
            stranger.get(url, headers={"Authorization": f"Bearer {ticket}"}),
            stranger.get(url, headers={"Cookie": f"ticket={ticket}"}),
            stranger.get(url, headers={"Ticket": ticket}),
            stranger.get(f"{url}?ticket=x&ticket={ticket}"),
            stranger.get(f"{url}?ticket={ticket}&ticket={ticket}"),
            stranger.get(f"{url}?Ticket={ticket}"),
            stranger.get(url, params=query, headers={"Authorization": "Bearer x"}),
            stranger.post("/v1/chat", params=query, json=QUICK, headers={"Last-Event-ID": f"{first['stream_id']}-1"}),
        ]
        assert [answer.status_code for answer in closed] == [401] * len(closed)
        # With the ticket, another stream's position is still no way there.
        lured = stranger.get(url, params=query, headers={"Last-Event-ID": f"{second['stream_id']}-1"})
        assert lured.status_code == 400
        assert stranger.post(first["cancel_url"]).status_code == 200
        assert alice.get(url, headers=JSON).json()["finish_reason"] == "cancelled"


def test_forged_tickets(service: Server) -> None:
    """A ticket that was not issued here is none: changed anywhere, cut, moved, or signed with another secret."""
    with client(service, ALICE) as alice, client(service) as stranger:
        made = start(alice)
        stream_id, url, ticket = made["stream_id"], made["url"].partition("?")[0], ticket_of(made["url"])
        assert stranger.get(url, params={"ticket": ticket}).status_code == 200
        issued, _, signature = ticket.partition(".")
        forged = [
            *(ticket[:at] + ("B" if ticket[at] == "A" else "A") + ticket[at + 1 :] for at in range(len(ticket) - 1)),
            *("", ".", issued, signature, f".{signature}", f"{issued}.", ticket[:-1], f"{ticket}A", f"{ticket}."),
            *(f"{ticket}=", f" {ticket}", f"{ticket}\n", f"{ticket}\0", f"{stream_id}.{ticket}", "A" * 5000, "é"),
        ]
        for secret in ("", "secret", "x" * 32, ALICE, stream_id):
            for salt in ("chat-sse stream ticket", "itsdangerous.Signer"):
                for digest in (hashlib.sha256, hashlib.sha1):
                    signer = TimestampSigner(secret or b"", salt=salt, key_derivation="hmac", digest_method=digest)
                    forged.append(signer.sign(stream_id).decode().removeprefix(f"{stream_id}."))
        for value in forged:
            answer = stranger.get(url, params={"ticket": value})
            assert answer.status_code == 401, value
            assert value not in answer.text or len(value) < 3


def test_ticket_ends(start_service: Start) -> None:
    """A ticket is good until it says, and gets no other one meanwhile; to who was reading, nothing happens then."""
    service = start_service(api_keys=KEYS, ticket_seconds=5, secret="s" * 32, shutdown_grace=0)
    with client(service, ALICE) as alice, client(service) as stranger:
        made = start(alice, model="never-ends?first=0")
        with stranger.stream("GET", made["url"], headers=EVENTS) as answer:
            blocks = answer.iter_text()
            told = next(blocks)
            while "\n\n" not in told:
                told += next(blocks)
            assert answer.status_code == 200
            data = json.loads(told.partition("data: ")[2].partition("\n")[0])
            assert "url" not in data
            assert "ticket" not in told + json.dumps(dict(answer.headers))
            with client(service) as late:
                wait_until(lambda: late.get(made["url"], headers=JSON).status_code == 401)
                expired = late.get(made["url"], headers=EVENTS)
                assert (expired.status_code, expired.json()["error"]["code"]) == (401, "unauthenticated")
                assert late.post(made["cancel_url"]).status_code == 401
            assert next(blocks)
            # Its owner may still, and is given a new one.
            again = alice.get(
                made["url"].partition("?")[0], headers={"Last-Event-ID": f"{made['stream_id']}-1", **JSON}
            )
            assert again.json()["state"] == "live"
            assert alice.delete(made["url"].partition("?")[0]).status_code == 200
