"""The errors that the simulator answers with."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from app.simulator.errors import ERRORS, Refused, error, require


@pytest.mark.parametrize("status", ERRORS)
def test_usual(status: int) -> None:
    """Each status has OpenAI's type, code and message, and names no parameter."""
    kind, code, message = ERRORS[status]
    assert error(status) == {"error": {"message": message, "type": kind, "param": None, "code": code}}


def test_what_is_given() -> None:
    """What is given takes the place of what is usual."""
    expected = {"message": "No.", "type": "invalid_request_error", "param": "n", "code": "c"}
    assert error(400, "No.", code="c", param="n") == {"error": expected}


@pytest.mark.parametrize(("status", "like"), [(418, 400), (451, 400), (504, 500), (599, 500)])
def test_other_statuses(status: int, like: int) -> None:
    """A status without an error of its own has that of its class."""
    assert error(status) == error(like)


def test_refused() -> None:
    """A refusal has the whole reply with it."""
    reply = Refused(429, "Slow.", param="n").reply
    body: dict[str, Any] = orjson.loads(reply.body or b"")
    assert (reply.status, reply.content_type) == (429, b"application/json")
    assert body == error(429, "Slow.", param="n")


def test_require() -> None:
    """What is not as required is refused with a 400 that names the parameter."""
    require([1], "n", "No.")
    with pytest.raises(Refused) as refused:
        require([], "n", "No.")
    assert (refused.value.reply.status, orjson.loads(refused.value.reply.body or b"")["error"]["param"]) == (400, "n")
