"""Tickets: valid for one stream and for a while, if made with the secret; every forgery is refused."""

from __future__ import annotations

import base64
import hashlib
from types import SimpleNamespace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import TimestampSigner

from app.edge.access.tickets import Tickets
from app.errors import Unauthenticated
from app.events import new_stream_id
from app.request import Allowance, Principal
from tests.clock import Clock

SECRET = "a secret of thirty-two bytes or so"
STREAM, OTHER = new_stream_id(), new_stream_id()
NOW = 1_750_000_000
OWNER = Principal("key:web", Allowance(requests=60, streams=2))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock(NOW)
    monkeypatch.setattr("itsdangerous.timed.time", SimpleNamespace(time=clock))
    return clock


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(SECRET, 60)


def refused(tickets: Tickets, ticket: str, stream_id: str = STREAM, match: str = "not one for this stream") -> None:
    with pytest.raises(Unauthenticated, match=match):
        tickets.check(ticket, stream_id)


def test_good(tickets: Tickets) -> None:
    """A ticket opens its stream, in every process that has the secret, and needs no escaping in a url."""
    ticket = tickets.issue(STREAM, OWNER)
    assert tickets.check(ticket, STREAM) == Tickets(SECRET, 60).check(ticket, STREAM)
    assert quote(ticket, safe="") == ticket


def test_account(tickets: Tickets) -> None:
    """Requests with a ticket count towards its owner's limit, and the ticket does not tell the owner's name."""
    ticket = tickets.issue(STREAM, OWNER)
    holder = tickets.check(ticket, STREAM)
    assert holder == Principal(f"ticket:{STREAM}", Allowance(requests=60), STREAM, OWNER.counted_as())
    assert holder.counted_as() == OWNER.counted_as() != Principal("key:other").counted_as()
    assert "web" not in ticket
    account, requests, rest = ticket.split(".", 2)
    refused(tickets, f"{account}.6000.{rest}")
    refused(tickets, f"{'0' * 16}.{requests}.{rest}")


def test_expiry(tickets: Tickets, clock: Clock) -> None:
    """A ticket is good for its seconds and not one more, however often it was good before."""
    ticket = tickets.issue(STREAM, OWNER)
    clock.now = NOW + 60
    tickets.check(ticket, STREAM)
    clock.now = NOW + 61
    refused(tickets, ticket, match="has expired")
    refused(tickets, ticket, match="has expired")


def test_clocks_apart(tickets: Tickets, clock: Clock) -> None:
    """A ticket from a process whose clock is a little ahead is good; one from far in the future is not."""
    ticket = tickets.issue(STREAM, OWNER)
    clock.now = NOW - 10
    tickets.check(ticket, STREAM)
    clock.now = NOW - 11
    refused(tickets, ticket, match="has expired")


def test_another_stream(tickets: Tickets) -> None:
    """A ticket opens no other stream, not even one whose id begins like its own."""
    ticket = tickets.issue(STREAM, OWNER)
    for stream_id in (OTHER, STREAM[:-1], f"{STREAM}A", STREAM.swapcase(), "", f"{STREAM}.{ticket.split('.')[0]}"):
        refused(tickets, ticket, stream_id)


def test_changed_timestamp(tickets: Tickets, clock: Clock) -> None:
    """A later time of issue does not go with the signature, and neither does another ticket's."""
    issued, signature = tickets.issue(STREAM, OWNER).rsplit(".", 1)
    clock.now = NOW + 30
    later, other_signature = tickets.issue(STREAM, OWNER).rsplit(".", 1)
    assert later != issued
    refused(tickets, f"{later}.{signature}")
    refused(tickets, f"{issued}.{other_signature}")
    never = base64.urlsafe_b64encode((2**64 - 1).to_bytes(8, "big")).decode().rstrip("=")
    refused(tickets, f"{issued.rpartition('.')[0]}.{never}.{signature}")


def test_another_secret(tickets: Tickets) -> None:
    """Without the secret there is no ticket; nor does a signature that it made for something else pass for one."""
    refused(tickets, Tickets(f"{SECRET}!", 60).issue(STREAM, OWNER))
    refused(tickets, Tickets("", 60).issue(STREAM, OWNER))
    signer = TimestampSigner(SECRET, salt="another purpose", key_derivation="hmac", digest_method=hashlib.sha256)
    text = f"{STREAM}.{OWNER.counted_as()}.60"
    refused(tickets, signer.sign(text).decode().removeprefix(f"{STREAM}."))
    control = TimestampSigner(
        SECRET, salt="chat-sse stream ticket", key_derivation="hmac", digest_method=hashlib.sha256
    )
    tickets.check(control.sign(text).decode().removeprefix(f"{STREAM}."), STREAM)


def test_one_spelling(tickets: Tickets) -> None:
    """A ticket has one spelling: characters that lax base64 would skip make it invalid."""
    ticket = tickets.issue(STREAM, OWNER)
    issued, signature = ticket.rsplit(".", 1)
    for text in (f"{ticket}=", f"{ticket}\n", f" {ticket}", f"{ticket[:-3]}!{ticket[-3:]}", f"{issued}=.{signature}"):
        refused(tickets, text)
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    tickets.check(ticket, STREAM)
    for digit in set(digits) - {ticket[-1]}:  # the last one has two bits more than the signature
        refused(tickets, ticket[:-1] + digit)
    for text in (f"{STREAM}.{ticket}", f"{issued}.{ticket}", issued, signature, f".{signature}", f"{issued}.", "."):
        refused(tickets, text)


@pytest.mark.parametrize("place", range(3))
def test_every_bit_counts(place: int, tickets: Tickets) -> None:
    """A ticket with one bit of its time or its signature turned is refused."""
    issued, signature = tickets.issue(STREAM, OWNER).rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(f"{signature}="))
    raw[(0, 15, 31)[place]] ^= 1
    refused(tickets, f"{issued}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}")


@given(
    st.text(max_size=100)
    | st.from_regex(r"[0-9a-f]{32}\.[0-9]{1,16}\.[A-Za-z0-9_-]{1,11}\.[A-Za-z0-9_-]{43}", fullmatch=True)
)
def test_garbage(text: str) -> None:
    """No text whatever raises anything but the refusal."""
    refused(Tickets(SECRET, 60), text)
