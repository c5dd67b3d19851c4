"""Each way in which a log in Redis can differ from what its producer believes, and what that is taken for."""

from __future__ import annotations

import pytest

from app.errors import JournalDown, ProducerLost
from app.events import Delta, Done, Event, Failure, Logprobs
from app.journal.redis.entries import Tail
from app.journal.redis.reconcile import Adopted, Agreed, Arrived, Behind, Ours, TakenOver, Verdict, reconcile
from app.usage import Usage

X, Y, Z = map(Delta, "xyz")
DONE = Done("stop")
LOST = Failure.of(ProducerLost())
GIVEN_UP = Failure.of(JournalDown())

TABLE: dict[str, tuple[Ours, Tail | None, Verdict]] = {
    "nothing yet": (Ours(0, []), Tail(0, []), Agreed(0)),
    "all there": (Ours(2, []), Tail(2, []), Agreed(2)),
    "more to be sent": (Ours(2, [X]), Tail(2, []), Agreed(2)),
    "the answer was lost": (Ours(2, [X, Y]), Tail(4, [X, Y]), Arrived([X, Y])),
    "the answer was lost, and more has come": (Ours(2, [X, Y]), Tail(3, [X]), Arrived([X])),
    "the answer to the end was lost": (Ours(2, [X, DONE]), Tail(4, [X, DONE], DONE), Arrived([X, DONE])),
    "the log is gone": (Ours(2, [X]), None, Behind(None)),
    "a log without records is gone": (Ours(0, []), None, Behind(None)),
    "records are gone": (Ours(5, [X]), Tail(3, []), Behind(3)),
    "all records are gone": (Ours(5, [X]), Tail(0, []), Behind(0)),
    "another process ended it": (Ours(2, []), Tail(3, [LOST], LOST), TakenOver([LOST])),
    "another process ended it instead": (Ours(2, [X]), Tail(3, [LOST], LOST), TakenOver([LOST])),
    "another process ended it after our last": (Ours(2, [X, Y]), Tail(4, [X, LOST], LOST), TakenOver([X, LOST])),
    "another process ended it earlier": (Ours(4, [X]), Tail(3, [], LOST), TakenOver([LOST])),
    "another process ended it where we are": (Ours(3, [X]), Tail(3, [], LOST), TakenOver([LOST])),
    "somebody wrote": (Ours(2, [X]), Tail(3, [Y]), TakenOver([Y])),
    "somebody wrote, and records are missing": (Ours(2, [X]), Tail(9, [], gap=True), TakenOver([])),
    "adopted": (Ours(2, [X]), Tail(2, [], entry=b"3-1"), Adopted()),
    "adopted, and gone on": (Ours(2, [X]), Tail(3, [X], entry=b"3-2"), Adopted()),
    "adopted, and ended": (Ours(2, [X]), Tail(3, [DONE], DONE, entry=b"3-2"), Adopted()),
    "adopted, what was under way arrived": (Ours(2, [X]), Tail(3, [X], entry=b"4-1"), Adopted()),
    "adopted by us": (Ours(2, [X], epoch=2, claimed=3), Tail(2, [], entry=b"3-1"), Agreed(2)),
    "adopted from us": (Ours(3, [X], epoch=2, claimed=3), Tail(3, [], entry=b"4-3"), Adopted()),
    "our claim is lost": (Ours(4, [X], epoch=2, claimed=3), Tail(2, [], entry=b"2-0"), Behind(2)),
    "our claim is lost, with nothing after it": (Ours(2, [X], epoch=2, claimed=3), Tail(2, []), Behind(2)),
    "our claim is lost, and somebody wrote": (
        Ours(4, [X], epoch=2, claimed=3),
        Tail(3, [], entry=b"3-0"),
        TakenOver([]),
    ),
    "our claim is lost, and somebody ended it": (
        Ours(2, [X], epoch=2, claimed=3),
        Tail(3, [LOST], LOST, entry=b"3-0"),
        TakenOver([LOST]),
    ),
    "given up, nothing under way": (Ours(2, [GIVEN_UP], True), Tail(2, []), Agreed(2)),
    "given up, what was under way arrived": (Ours(2, [X, GIVEN_UP], True), Tail(3, [X]), Arrived([X])),
    "given up, what was forgotten arrived": (Ours(2, [GIVEN_UP], True), Tail(4, [X, Y]), Agreed(4)),
    "given up, its end arrived": (
        Ours(2, [GIVEN_UP], True),
        Tail(3, [GIVEN_UP], GIVEN_UP),
        Arrived([GIVEN_UP]),
    ),
    "given up, another process ended it": (Ours(2, [GIVEN_UP], True), Tail(3, [LOST], LOST), TakenOver([LOST])),
    "given up, records are gone": (Ours(2, [GIVEN_UP], True), Tail(1, []), Behind(1)),
}


@pytest.mark.parametrize(("ours", "theirs", "verdict"), TABLE.values(), ids=TABLE)
def test_verdicts(ours: Ours, theirs: Tail | None, verdict: Verdict) -> None:
    """The verdict says what is to be done, whatever was sent in which batch."""
    assert reconcile(ours, theirs) == verdict


def test_a_tuple_comes_back_as_a_list() -> None:
    """Redis has lists where an event had a tuple: it is the same event."""
    sent: list[Event] = [Logprobs(({"token": "x"},), ())]
    found: list[Event] = [Logprobs([{"token": "x"}], [])]
    assert reconcile(Ours(0, sent), Tail(1, found)) == Arrived(found)


def test_what_cannot_be_written_has_not_arrived() -> None:
    """An event that JSON cannot hold was never written, whatever Redis has in its place."""
    odd: list[Event] = [Done("stop", usage=Usage({"n": 1 << 70}))]
    assert reconcile(Ours(0, odd), Tail(1, [X])) == TakenOver([X])
