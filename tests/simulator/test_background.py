"""The simulator's background responses: they outlive connections, are streamed again, cancelled, and forgotten."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from app.simulator import Simulator, serve
from app.simulator.request import LONGEST
from app.simulator.text import ANSWERS, choose
from tests.waiting import until

pytestmark = pytest.mark.anyio

PROMPT = "Tell me about 漢字"
ANSWER = ANSWERS[choose(PROMPT)]


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=simulator.url, timeout=10) as opened:
        yield opened


def asked(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "input": PROMPT, "stream": True, "background": True} | fields


async def read(
    http: httpx.AsyncClient, method: str, url: str, *, most: int = 1 << 30, **fields: Any
) -> list[dict[str, Any]]:
    """Return the events of one connection, at most *most*, up to its end or its break."""
    found: list[dict[str, Any]] = []
    try:
        async with http.stream(method, url, **fields) as response:
            assert response.status_code == 200
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    found.append(json.loads(line[5:]))
                    if len(found) == most:
                        break
    except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ReadTimeout):
        pass
    return found


async def start(http: httpx.AsyncClient, model: str, **fields: Any) -> list[dict[str, Any]]:
    return await read(http, "POST", "/responses", json=asked(model), **fields)


async def resume(http: httpx.AsyncClient, found: list[dict[str, Any]], **fields: Any) -> list[dict[str, Any]]:
    """Return what comes after the last event of *found*, whose first event tells the response."""
    url = f"/responses/{found[0]['response']['id']}"
    return await read(http, "GET", url, params={"stream": "true", "starting_after": number(found[-1])}, **fields)


def number(event: dict[str, Any]) -> int:
    found: int = event["sequence_number"]
    return found


def whole(found: list[dict[str, Any]]) -> bool:
    """Every event once, in order, with the answer in its deltas and a completed end."""
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    return (
        [number(event) for event in found] == list(range(len(found)))
        and found[-1]["type"] == "response.completed"
        and text == ANSWER
    )


async def test_a_background_stream_is_like_any_other(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """It is queued first, and the rest is as usual; a GET says the same again."""
    found = await start(http, "sim-gpt")
    kinds = [event["type"] for event in found[:3]]
    assert kinds == ["response.created", "response.queued", "response.in_progress"]
    assert whole(found)
    assert found[0]["response"]["background"] is True
    again = await read(http, "GET", f"/responses/{found[0]['response']['id']}", params={"stream": "true"})
    assert again == found
    kept = (await http.get(f"/responses/{found[0]['response']['id']}")).json()
    assert kept == found[-1]["response"]
    stats = simulator.stats
    assert (stats.background_started, stats.background_finished, stats.background_live) == (1, 1, 0)
    assert stats.background_resumed == 1


async def test_it_goes_on_when_its_client_is_gone(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A client that leaves does not end it; coming back, it misses nothing and goes on live."""
    found = await start(http, "sim-gpt?rate=400", most=9)
    await until(lambda: simulator.stats.live == 0)
    assert simulator.stats.streams_aborted == 1
    assert simulator.stats.background_live == 1
    state = (await http.get(f"/responses/{found[0]['response']['id']}")).json()
    assert state["status"] == "in_progress"
    assert whole(found + await resume(http, found))
    assert simulator.stats.background_finished == 1


async def test_an_ordinary_stream_dies_with_its_connection(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """Without `background` a later GET is 404 (R9)."""
    found = await read(http, "POST", "/responses", json=asked("sim-gpt?rate=400", background=False), most=9)
    assert (await http.get(f"/responses/{found[0]['response']['id']}")).status_code == 404
    assert simulator.stats.background_started == 0


async def test_events_without_numbers_all_come_to_the_first(http: httpx.AsyncClient) -> None:
    """The first connection is sent everything, numbered or not, and what was told before it listened."""
    found = await start(http, "no-sequence-numbers?rate=2000")
    assert "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta") == ANSWER
    again = await read(http, "GET", f"/responses/{found[0]['response']['id']}", params={"stream": "true"})
    assert again == found


@pytest.mark.parametrize(
    "model", ["cut-before-finish", "cut-reset", "cut-clean-before-finish", "cut-after-finish", "stall"]
)
async def test_a_broken_connection_is_resumed(http: httpx.AsyncClient, model: str) -> None:
    """What breaks a connection breaks only that: after one resume everything has come, once."""
    found = await start(http, f"{model}?after=6", timeout=2)
    if model != "cut-after-finish":
        assert sum(event["type"].endswith(".delta") for event in found) == 6
        found += await resume(http, found)
    assert whole(found)


@pytest.mark.parametrize("rate", [0, 500])
async def test_as_many_connections_break_as_asked(simulator: Simulator, http: httpx.AsyncClient, rate: int) -> None:
    """`fail` counts the connections that break, each after `after` more."""
    found = await start(http, f"cut-reset?after=5&fail=4&rate={rate}")
    for _ in range(3):
        more = await resume(http, found)
        assert len(more) == 5
        found += more
    assert whole(found + await resume(http, found))
    assert simulator.stats.background_resumed == 4
    assert simulator.stats.streams_cut == 4


async def test_many_may_read_at_once(http: httpx.AsyncClient) -> None:
    """Connections that read the same response hinder each other in nothing."""
    found = await start(http, "sim-gpt?rate=400", most=5)
    more = await asyncio.gather(*(resume(http, found) for _ in range(5)))
    assert all(whole(found + each) for each in more)


async def test_one_that_starts_after_the_end_gets_nothing(http: httpx.AsyncClient) -> None:
    """A stream after the last number is empty, and ends properly."""
    found = await start(http, "sim-gpt?tokens=3")
    assert await resume(http, found) == []


async def test_resuming_may_be_refused(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """`resume` is the status that a GET's stream is refused with."""
    found = await start(http, "cut-before-finish?resume=404")
    url = f"/responses/{found[0]['response']['id']}"
    assert (await http.get(url, params={"stream": "true", "starting_after": "3"})).status_code == 404
    assert (await http.get(url)).status_code == 200
    assert simulator.stats.background_resumed == 0


async def test_cancelling_ends_it(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A cancel is told to those who read, answered with the response, and may be repeated."""
    reading = asyncio.create_task(start(http, "never-ends?rate=100"))
    await until(lambda: simulator.stats.deltas > 3)
    (response_id,) = simulator.shelf.kept
    for _ in range(2):
        answer = (await http.post(f"/responses/{response_id}/cancel")).json()
        assert (answer["id"], answer["status"]) == (response_id, "cancelled")
    found = await reading
    assert found[-1]["type"] == "response.cancelled"
    assert found[-1]["response"]["status"] == "cancelled"
    assert [number(event) for event in found] == list(range(len(found)))
    stats = simulator.stats
    assert (stats.background_cancelled, stats.background_finished, stats.background_live) == (1, 0, 0)
    deltas = stats.deltas
    assert (await http.get(f"/responses/{response_id}")).json()["status"] == "cancelled"
    assert stats.deltas == deltas


async def test_cancelling_what_ended_changes_nothing(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A completed response stays completed."""
    found = await start(http, "sim-gpt?tokens=2")
    answer = await http.post(f"/responses/{found[0]['response']['id']}/cancel")
    assert answer.json() == found[-1]["response"]
    assert simulator.stats.background_cancelled == 0


async def test_without_stream_it_is_polled(simulator: Simulator) -> None:
    """`stream: false` is answered at once; openai-python polls until it is completed, and cannot stream it."""
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
        response = await client.responses.create(model="sim-gpt?rate=500", input=PROMPT, background=True)
        assert response.status == "in_progress"
        with pytest.raises(openai.BadRequestError):
            await client.responses.retrieve(response.id, stream=True)
        await until(lambda: simulator.stats.background_live == 0)
        done = await client.responses.retrieve(response.id)
        assert (done.status, done.output_text) == ("completed", ANSWER)


async def test_the_official_client_resumes(simulator: Simulator) -> None:
    """openai-python cuts a background stream and goes on after the number it saw."""
    async with openai.AsyncOpenAI(base_url=simulator.url, api_key="k", max_retries=0) as client:
        stream = await client.responses.create(model="sim-gpt?rate=400", input=PROMPT, background=True, stream=True)
        text, last, response_id = "", -1, ""
        async for event in stream:
            last = event.sequence_number
            if event.type == "response.created":
                response_id = event.response.id
            if event.type == "response.output_text.delta":
                text += event.delta
            if last == 12:
                break
        await stream.close()
        async for event in await client.responses.retrieve(response_id, stream=True, starting_after=last):
            assert event.sequence_number == last + 1
            last += 1
            if event.type == "response.output_text.delta":
                text += event.delta
        assert text == ANSWER


@pytest.mark.parametrize(("model", "status"), [("error-429", 429), ("error-500", 500), ("html-200", 200)])
@pytest.mark.parametrize("stream", [True, False])
async def test_errors_before_the_stream_are_statuses(
    simulator: Simulator, http: httpx.AsyncClient, model: str, status: int, *, stream: bool
) -> None:
    """A background request that fails at once is answered so, and nothing goes on."""
    answer = await http.post("/responses", json=asked(model, stream=stream))
    assert answer.status_code == status
    assert b"response.created" not in answer.content
    assert (await http.get("/models")).status_code == 200  # nothing was left on the connection
    assert simulator.stats.background_live == 0


async def test_closing_before_headers(http: httpx.AsyncClient) -> None:
    """close-before-headers closes, in the background, too."""
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/responses", json=asked("close-before-headers"))


@pytest.mark.parametrize("model", ["failed", "error-flat", "error-in-stream"])
async def test_failures_are_kept(http: httpx.AsyncClient, model: str) -> None:
    """A response that failed says so to a client that asks later."""
    found = await start(http, model)
    kept = (await http.get(f"/responses/{found[0]['response']['id']}")).json()
    assert (kept["status"], kept["error"]["code"]) == ("failed", "server_error")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/responses/resp_none", 404),
        ("GET", "/responses/resp_none?stream=true&starting_after=3", 404),
        ("POST", "/responses/resp_none/cancel", 404),
        ("DELETE", "/responses/resp_none", 404),
        ("GET", "/responses", 404),
    ],
)
async def test_what_is_not_there_is_not_found(http: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    """An unknown response or method is a 404 with OpenAI's body."""
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("after", ["x", "", "1e3", "9" * 40])
async def test_wrong_numbers_are_refused(http: httpx.AsyncClient, after: str) -> None:
    """`starting_after` is an integer."""
    found = await start(http, "sim-gpt?tokens=1")
    url = f"/responses/{found[0]['response']['id']}"
    answer = await http.get(url, params={"stream": "true", "starting_after": after})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "starting_after")


async def test_only_so_many_are_kept(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """The oldest that ended makes room for the next; where none has ended the next is refused."""
    simulator.shelf.capacity = 2
    first, *_ = [await start(http, "sim-gpt?tokens=1") for _ in range(3)]
    assert (await http.get(f"/responses/{first[0]['response']['id']}")).status_code == 404
    for _ in range(2):
        await start(http, "never-ends?rate=10", most=2)
    refused = await http.post("/responses", json=asked("sim-gpt"))
    assert refused.status_code == 429
    assert simulator.stats.background_live == 2


async def test_they_are_kept_only_so_long(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A response is forgotten some time after its end."""
    found = await start(http, "sim-gpt?tokens=1")
    simulator.shelf.seconds = 0
    assert (await http.get(f"/responses/{found[0]['response']['id']}")).status_code == 404


async def test_none_takes_more_than_so_much(simulator: Simulator, http: httpx.AsyncClient) -> None:
    """A response that would go on for ever is incomplete in the end."""
    found = await start(http, "never-ends")
    assert found[-1]["type"] == "response.incomplete"
    assert sum(event["type"].endswith("text.delta") for event in found) == LONGEST
    assert (simulator.stats.background_finished, simulator.stats.background_live) == (1, 0)


async def test_closing_ends_those_that_go_on() -> None:
    """close() leaves no response behind."""
    async with await serve(first_token_delay=0) as simulator, httpx.AsyncClient(base_url=simulator.url) as http:
        await start(http, "never-ends", most=2)
        assert simulator.stats.background_live == 1
    assert (simulator.stats.background_live, simulator.stats.live, len(simulator.shelf.kept)) == (0, 0, 0)
