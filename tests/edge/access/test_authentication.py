"""Credentials: one bearer token, or a ticket on the path of its stream, and nothing that only resembles them."""

from __future__ import annotations

import time
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Scope

from app.edge.access.api_keys import ApiKeys, digest, new_key, parse
from app.edge.access.authentication import Credentials
from app.edge.access.jwt_keys import secret_key
from app.edge.access.jwts import Jwts
from app.edge.access.tickets import Tickets
from app.errors import Unauthenticated
from app.request import ANYONE, UNLIMITED, Allowance, Principal, keyed_hash

pytestmark = pytest.mark.anyio

SECRET = "a secret of thirty-two bytes or so"
KEY = new_key()
USUAL = Allowance(requests=7)
STREAM, OTHER = "uW3cN0v7Qm2xT5kZ8rYb1g", "Zk1-Vb9_aQ4tR7yH2sLd0w"
TICKETS = Tickets(SECRET, 60)
CREDENTIALS = Credentials(
    [ApiKeys([parse(f"ada:{digest(KEY)}", UNLIMITED)]), Jwts(secret_key(SECRET), UNLIMITED, audience="chat")],
    TICKETS,
    USUAL,
)
OWNER = Principal("key:web", Allowance(requests=60, readers=3))
OF_TICKET = Principal(f"ticket:{STREAM}", Allowance(requests=60), STREAM, OWNER.counted_as())


def scope(*authorization: str, path: str = "/v1/chat", query: str = "") -> Scope:
    headers = [(b"host", b"h"), *((b"authorization", value.encode("latin-1")) for value in authorization)]
    return {"type": "http", "method": "GET", "path": path, "query_string": query.encode("latin-1"), "headers": headers}


def signed(subject: str, secret: str = SECRET) -> str:
    return jwt.encode({"sub": subject, "aud": "chat", "exp": time.time() + 600}, secret)


def on_stream(ticket: str = "", *authorization: str, path: str = f"/v1/streams/{STREAM}") -> Scope:
    return scope(*authorization, path=path, query=f"ticket={ticket}")


async def refused(asked: Scope, match: str = "asks for credentials", credentials: Credentials = CREDENTIALS) -> None:
    with pytest.raises(Unauthenticated, match=match):
        await credentials.principal(asked)


async def test_no_schemes() -> None:
    """Without schemes, every request has the same principal, with the usual allowance."""
    credentials = Credentials(allowance=USUAL)
    for asked in (scope(), scope("Bearer nonsense"), scope("a", "b"), on_stream("x")):
        assert await credentials.principal(asked) == Principal("", USUAL, account=ANYONE.counted_as())
    assert await Credentials().principal(scope()) == ANYONE._replace(account=ANYONE.counted_as())


async def test_schemes() -> None:
    """Each scheme knows its own tokens, and their principals never share a name."""
    assert (await CREDENTIALS.principal(scope(f"Bearer {KEY}"))).name == "key:ada"
    assert (await CREDENTIALS.principal(scope(f"Bearer {signed('ada')}"))).name == "jwt:ada"
    # A subject that spells another scheme's name is still only a subject.
    assert (await CREDENTIALS.principal(scope(f"Bearer {signed('key:ada')}"))).name == "jwt:key:ada"


async def test_an_account_is_a_keyed_hash() -> None:
    """Processes that share the key count a principal as one; without the key, a guess does not tell the name."""
    scheme = ApiKeys([parse(f"ada:{digest(KEY)}", UNLIMITED)])
    here, there, other = [Credentials([scheme], key=key) for key in (b"k", b"k", b"other")]
    accounts = [(await each.principal(scope(f"Bearer {KEY}"))).counted_as() for each in (here, there, other)]
    assert accounts[0] == accounts[1] != accounts[2]
    assert accounts[0] == keyed_hash("key:ada", b"k") != Principal("key:ada").counted_as()


async def test_unknown() -> None:
    """A token that no scheme knows is refused, and so is one that its scheme finds wrong; neither is quoted."""
    other = new_key()
    with pytest.raises(Unauthenticated, match="not known here") as raised:
        await CREDENTIALS.principal(scope(f"Bearer {other}"))
    assert other not in str(raised.value)
    await refused(scope(f"Bearer {signed('ada', 'x' * 32)}"), "not valid")
    await refused(scope(), "asks for credentials")


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER {}", "Bearer   {}", " Bearer {} \t"])
async def test_bearer(form: str) -> None:
    """The scheme's name has any case, and space around the token is nothing."""
    assert (await CREDENTIALS.principal(scope(form.format(KEY)))).name == "key:ada"


@pytest.mark.parametrize(
    "form",
    [
        "",
        "{}",
        "Bearer",
        "Bearer ",
        "Bearer{}",
        "Bearer\t{}",
        "Bearer {} {}",
        "Bearer {},",
        "Bearer {}, Bearer {}",
        "Basic {}",
        "Token {}",
        'Bearer "{}"',
        "Bearer ={}",
        "Bearer {}\n",
        "Bearer {}\0",
        "Bearer {}\xe9",
        "Bearer\xa0{}",
        "Bearer " + "x" * 8192,
        "Bearer " + "=" * 8000,
        " " * 9000 + "Bearer",
    ],
)
async def test_no_bearer(form: str) -> None:
    """Any other header is refused, with a sentence that says how one looks; a ticket beside it does not help."""
    await refused(scope(form.format(KEY, KEY)), "cannot be read: send one header")
    await refused(on_stream(TICKETS.issue(STREAM, OWNER), form.format(KEY, KEY)), "cannot be read")


async def test_length() -> None:
    """A header of 8 KiB is looked at, one of a byte more is not."""
    await refused(scope(f"Bearer {'x' * (8192 - len('Bearer '))}"), "not known here")
    await refused(scope(f"Bearer {'x' * (8193 - len('Bearer '))}"), "cannot be read")


async def test_two_headers() -> None:
    """Of two Authorization headers neither counts, be they the same."""
    await refused(scope(f"Bearer {KEY}", f"Bearer {KEY}"), "one header")
    await refused(scope(f"Bearer {KEY}", ""), "one header")


@pytest.mark.parametrize("path", [f"/v1/streams/{STREAM}", f"/v1/streams/{STREAM}/cancel"])
async def test_ticket(path: str) -> None:
    """A ticket opens its stream and its stop button, to a principal that may do nothing else."""
    assert await CREDENTIALS.principal(on_stream(TICKETS.issue(STREAM, OWNER), path=path)) == OF_TICKET


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat",
        "/v1/chat/completions",
        "/metrics",
        f"/v1/streams/{OTHER}",
        f"/v1/streams/{STREAM}/",
        f"/v1/streams/{STREAM}\n",
        f"/v1/streams/{STREAM}/cancel/",
        f"/v1/streams/{STREAM}/other",
        f"/v1/streams/{STREAM}/../../chat",
        f"/v1/streams//{STREAM}",
        f"//v1/streams/{STREAM}",
        f"/V1/streams/{STREAM}",
        f"/x/v1/streams/{STREAM}",
        f"/v1/streams/{STREAM[:-1]}",
    ],
)
async def test_ticket_elsewhere(path: str) -> None:
    """A ticket opens nothing else: no other stream, no other endpoint, no other spelling of the path."""
    await refused(on_stream(TICKETS.issue(STREAM, OWNER), path=path), "asks for credentials|not one for this stream")


async def test_ticket_in_the_query() -> None:
    """There is one ticket in the query, of bounded length, among whatever else is there."""
    path, ticket = f"/v1/streams/{STREAM}", TICKETS.issue(STREAM, OWNER)
    assert await CREDENTIALS.principal(scope(path=path, query=f"last_event_id=x&ticket={ticket}&smooth=1")) == OF_TICKET
    await refused(scope(path=path, query=f"ticket={ticket}&ticket={ticket}"), "asks for credentials")
    await refused(scope(path=path, query=f"ticket={ticket}&ticket="), "asks for credentials")
    await refused(scope(path=path, query=f"x={'x' * 2048}&ticket={ticket}"), "asks for credentials")
    await refused(scope(path=path, query=f"Ticket={ticket}"), "asks for credentials")
    await refused(on_stream(), "not one for this stream")
    await refused(on_stream(TICKETS.issue(OTHER, OWNER)), "not one for this stream")
    await refused(on_stream(quote("\ud800", errors="surrogatepass")), "not one for this stream")


async def test_header_before_ticket() -> None:
    """Where an Authorization header came, the ticket is not looked at, good or bad."""
    assert (await CREDENTIALS.principal(on_stream("nonsense", f"Bearer {KEY}"))).name == "key:ada"
    await refused(on_stream(TICKETS.issue(STREAM, OWNER), f"Bearer {new_key()}"), "not known here")


async def test_no_tickets() -> None:
    """Where no tickets are issued, none opens anything."""
    bare = Credentials([ApiKeys([parse(f"ada:{digest(KEY)}", UNLIMITED)])])
    await refused(on_stream(TICKETS.issue(STREAM, OWNER)), "asks for credentials", bare)


@given(st.text(st.characters(max_codepoint=255)), st.text(st.characters(max_codepoint=255)), st.booleans())
async def test_garbage(value: str, query: str, sent: bool) -> None:
    """No header and no query whatever raise anything but the refusal."""
    asked = scope(*([value] if sent else []), path=f"/v1/streams/{STREAM}", query=query)
    await refused(asked, "asks for credentials|cannot be read|not known here|not one for this stream")
