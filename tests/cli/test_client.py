"""The client of `chat-sse ask`: it resumes what broke, and gives up on what is final."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from app.cli.client import CutOff, Refused, StreamEvent, answer

BODY = {"prompt": "hi"}
Handler = Callable[[httpx.Request], httpx.Response]


def block(number: int, name: str, data: str) -> bytes:
    return f"id: s-{number}\nevent: {name}\ndata: {data}\n\n".encode()


START = block(1, "start", '{"stream_id":"s"}')
HELLO = block(2, "delta", '{"content":"Hello"}')
WORLD = block(3, "delta", '{"content":" world"}')
DONE = block(4, "done", '{"finish_reason":"stop"}')


class Broken(httpx.SyncByteStream):
    """A body that breaks off with an error of the connection."""

    def __init__(self, *blocks: bytes) -> None:
        self._blocks = blocks

    def __iter__(self) -> Iterator[bytes]:
        yield from self._blocks
        raise httpx.ReadError("the connection was reset")


def stream(*blocks: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, content=b"".join(blocks))


def broken(*blocks: bytes) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Broken(*blocks))


def refusal(status: int, message: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, headers=named, json={"error": {"message": message}})


class Service:
    """Answers request after request with *answers*; an exception among them is raised. The last one stays."""

    def __init__(self, *answers: httpx.Response | httpx.TransportError) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer

    def events(self) -> Iterator[StreamEvent]:
        client = httpx.Client(transport=httpx.MockTransport(self), base_url="http://service.test")
        return answer(client, BODY, sleep=self.waits.append)

    def headers(self, name: str) -> list[str | None]:
        return [request.headers.get(name) for request in self.requests]


def names(events: Iterator[StreamEvent]) -> list[str]:
    return [event.name for event in events]


def test_whole() -> None:
    """An answer's events come with their ids and their data, and nothing is asked after the terminal event."""
    service = Service(stream(START, HELLO, DONE))
    assert list(service.events()) == [
        ("s-1", "start", {"stream_id": "s"}),
        ("s-2", "delta", {"content": "Hello"}),
        ("s-4", "done", {"finish_reason": "stop"}),
    ]
    assert len(service.requests) == 1


@pytest.mark.parametrize("cut", [stream, broken])
def test_a_cut_is_resumed(cut: Callable[..., httpx.Response]) -> None:
    """After a cut, the same request brings the rest: it says the last event, under the same idempotency key."""
    service = Service(cut(START, HELLO), stream(WORLD, DONE))
    assert names(service.events()) == ["start", "delta", "delta", "done"]
    assert service.headers("last-event-id") == [None, "s-2"]
    assert len(set(service.headers("idempotency-key"))) == 1
    assert service.waits == [1]


def test_what_was_lost_before_its_first_event_is_asked_for_again() -> None:
    """The idempotency key keeps the second request from starting a second stream."""
    service = Service(httpx.ReadError("reset"), stream(START, DONE))
    assert names(service.events()) == ["start", "done"]
    first, second = service.headers("idempotency-key")
    assert first == second
    assert first


def test_the_service_says_how_long_to_wait() -> None:
    """`retry:` is in milliseconds, `Retry-After` in seconds; the longer one holds."""
    service = Service(
        broken(b"retry: 250\n" + START),
        refusal(503, "Draining.", Retry_After="2"),
        stream(DONE),
    )
    assert names(service.events()) == ["start", "done"]
    assert service.waits == [0.25, 2]


def test_no_wait_is_endless() -> None:
    """A `Retry-After` of an hour is not waited for."""
    service = Service(broken(START), refusal(429, "Later.", Retry_After="3600"), stream(DONE))
    assert names(service.events()) == ["start", "done"]
    assert service.waits == [1, 30]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 503])
def test_a_refusal_is_final(status: int) -> None:
    """A request that is refused before its answer has begun is not made again."""
    service = Service(refusal(status, "No."))
    with pytest.raises(Refused) as raised:
        list(service.events())
    assert (raised.value.status, raised.value.message) == (status, "No.")
    assert len(service.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_a_rest_that_is_refused(status: int) -> None:
    """A stream that cannot be found any more was cut off."""
    service = Service(broken(START, HELLO), refusal(status, "The stream is unknown."))
    events = service.events()
    assert [next(events).name, next(events).name] == ["start", "delta"]
    with pytest.raises(CutOff, match="refused the rest: The stream is unknown"):
        next(events)
    assert len(service.requests) == 2


def test_a_service_that_stays_away() -> None:
    """It is asked a few times, and not for ever."""
    service = Service(broken(START), httpx.ConnectError("refused"))
    with pytest.raises(CutOff, match="the answer was cut off: refused"):
        list(service.events())
    assert len(service.requests) == 6


def test_a_service_that_is_not_there() -> None:
    """What cannot be reached is told at once."""
    service = Service(httpx.ConnectError("refused"))
    with pytest.raises(httpx.ConnectError):
        list(service.events())
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        stream(b"data: no JSON\n\n"),
    ],
)
def test_another_service(answer: httpx.Response) -> None:
    """What does not speak this protocol is told apart from an answer."""
    with pytest.raises(Refused, match="no chat-sse"):
        list(Service(answer).events())
