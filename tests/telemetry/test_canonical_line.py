"""The one line that the log has of each stream."""

from __future__ import annotations

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.errors import Disconnected, Unreachable
from app.events import Delta, Done
from app.request import ANYONE, Principal, StreamRequest
from app.telemetry.canonical_line import CanonicalLine
from app.usage import Usage
from tests.house import House

pytestmark = pytest.mark.anyio


async def test_a_finished_stream(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """The line has all that is known of a stream, and none of its content."""
    usage = Usage({"prompt_tokens": 7, "completion_tokens": 11})
    house = House(log, (Delta("the secret"),), (Done("stop", usage=usage),))
    stream_id = await house.read(StreamRequest("m", ({"role": "user", "content": "a secret"},)))
    await house.settled()
    [line] = [entry for entry in logs.entries if entry["event"] == "stream.finished"]
    assert 0 <= line.pop("first_token_ms") <= line.pop("duration_ms")
    assert line == {
        "event": "stream.finished",
        "log_level": "info",
        "stream_id": stream_id,
        "principal": ANYONE.counted_as(),
        "reason": "stop",
        "prompt_tokens": 7,
        "completion_tokens": 11,
        "usage_estimated": False,
        "deltas": 1,
        "output_bytes": 10,
        "upstream": "",
        "upstream_fallback": False,
        "upstream_answers": [" 200"],
        "upstream_status": 200,
        "upstream_attempts": 1,
        "upstream_request_id": None,
        "upstream_model": "",
        "cut_after_finish": False,
        "replaced_bytes": 0,
        "subscribers_peak": 1,
        "subscribers_total": 1,
    }


@pytest.mark.parametrize("names", [False, True])
async def test_whose_it_was(log: FilteringBoundLogger, logs: LogCapture, names: bool) -> None:
    """The line names the stream's owner by a hash, or, if that is wished, by the name."""
    house = House(log, Disconnected(), observers=[CanonicalLine(names=names)])
    await house.hub.open(StreamRequest("m", ()), Principal("key:web", account="a1b2"))
    await house.settled()
    line = [entry for entry in logs.entries if entry["event"] == "stream.failed"][-1]
    assert line["principal"] == ("key:web" if names else "a1b2")
    assert names or "key:web" not in repr(logs.entries)


async def test_a_failed_stream(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """A failure is a warning with the error's code."""
    house = House(log, (Delta("a"),), Disconnected())
    await house.read(StreamRequest("m", ()))
    await house.settled()
    [line] = [entry for entry in logs.entries if entry["event"] == "stream.failed"]
    assert (line["log_level"], line["reason"]) == ("warning", "upstream_disconnected")
    assert "upstream_causes" not in line


async def test_an_upstream_that_cannot_be_reached(log: FilteringBoundLogger, logs: LogCapture) -> None:
    """The line says why, each upstream's reason once."""
    house = House(log, Unreachable(cause="127.0.0.1:9: connection refused"))
    await house.read(StreamRequest("m", ()))
    await house.settled()
    [line] = [entry for entry in logs.entries if entry["event"] == "stream.failed"]
    assert line["upstream_causes"] == [": 127.0.0.1:9: connection refused"]
