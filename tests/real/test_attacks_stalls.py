"""Attacks on the event loop: whatever a body within the limits is made of, no other client waits for it."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.real.conftest import Start
from tests.real.hostile_bodies import LARGE, QUICK, QUOTES, REFUSED, REFUSES, TAKEN, Hostile
from tests.real.neighbour import BODY as HONEST
from tests.real.neighbour import neighbour
from tests.real.processes import Server

pytestmark = pytest.mark.real

BODIES = REFUSED | TAKEN
# Seconds that a status may wait for the upstream, so that its refusal is one on a slow machine, too.
PATIENT = 60
# With a cap, each request is also compared with what is allowed, and all of its characters and tokens are counted.
CAPPED = {
    "max_prompt_chars": 100_000_000,
    "tokens_per_day": 1 << 40,
    "count_input_tokens": True,
    **dict.fromkeys(("extra_parameters", "tool_types", "media_types"), "*"),
}
# With lists, each field at each level is compared with them.
LISTED = {name: value for name, value in CAPPED.items() if value != "*"} | {"max_media": 0}
UNLISTED = dict.fromkeys(
    (
        *("an unknown parameter", "empty objects", "fields of a message", "nested parts", "texts deep in a part"),
        "fields of a message that is quoted",
    ),
    400,
)
# What has no words in the Responses API, or is no part there.
UNSUPPORTED = dict.fromkeys(("biases", "an unknown parameter", "empty objects", "parts of a thought"), 400)


def config(honest: Server, hostile: Server) -> str:
    """Return a configuration by which the honest client's upstream has no part in the attack."""
    upstreams = {"honest": honest.url, "hostile": hostile.url}
    models = {HONEST["model"]: "honest", **dict.fromkeys((QUICK, REFUSES, QUOTES), "hostile")}
    return "\n".join(
        (
            *(f'[[upstreams]]\nname = "{name}"\nbase_url = "{url}"' for name, url in upstreams.items()),
            *(f'[[models]]\nname = "{model}"\nroute = ["{name}/{model}"]' for model, name in models.items()),
        )
    )


async def ask(client: httpx.AsyncClient, body: Hostile) -> int:
    """Send a body with an idempotency key, so that its fingerprint is taken, and read the answer to its end."""
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    async with client.stream("POST", body.path, content=body.content, headers=headers) as answer:
        await answer.aread()
        return answer.status_code


@pytest.mark.parametrize(
    ("settings", "others"),
    [
        ({}, {}),
        (CAPPED, dict.fromkeys(("empty objects", "pictures", "pictures of an answer"), 400)),
        (LISTED, UNLISTED),
        ({"upstream": "openai-responses"}, UNSUPPORTED),
    ],
    ids=["as it is", "with a cap", "with lists", "to a Responses upstream"],
)
def test_each_body(start_watched: Start, simulator: Server, settings: dict[str, Any], others: dict[str, int]) -> None:
    """No body within the limits holds the loop for long: counted, decoded, validated, converted, sent or refused."""
    service = start_watched(simulator, commit_after=PATIENT, **settings)

    async def attack() -> tuple[dict[str, int], dict[str, float]]:
        statuses = {}
        longest = {}
        async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
            for name, body in BODIES.items():
                service.watchdog.restart()
                statuses[name] = await ask(client, body)
                longest[name] = service.watchdog.longest()
        return statuses, longest

    assert max(len(body.content) for body in BODIES.values()) <= 1 << 20
    statuses, longest = asyncio.run(attack())
    for name, seconds in sorted(longest.items(), key=lambda item: -item[1]):
        print(f"{seconds * 1000:4.0f} ms  {name}")
    assert statuses == {name: body.status for name, body in BODIES.items()} | others


def test_eight_times_as_large(start_watched: Start, simulator: Server) -> None:
    """With `CHAT_SSE_MAX_BODY` at 8 MiB, texts of that size hold the loop no longer."""
    service = start_watched(simulator, commit_after=PATIENT, max_body=8 << 20)

    async def attack() -> dict[str, int]:
        async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
            return {name: await ask(client, body) for name, body in LARGE.items()}

    assert asyncio.run(attack()) == {name: body.status for name, body in LARGE.items()}
    print(f"the longest callback {service.watchdog.longest() * 1000:.0f} ms")


@pytest.mark.parametrize("bodies", [REFUSED, TAKEN], ids=["refused", "taken"])
def test_many_bodies(
    start_watched: Start, simulator: Server, start_simulator: Start, tmp_path: Path, bodies: dict[str, Hostile]
) -> None:
    """Beside 28 hostile bodies at once, an honest client gets all of its stream, and memory grows by what came."""
    upstreams = tmp_path / "upstreams.toml"
    upstreams.write_text(config(simulator, start_simulator()))
    service = start_watched(config=upstreams, **CAPPED)
    sent = [list(bodies.values())[number % len(bodies)] for number in range(28)]

    async def attack() -> Counter[int]:
        async with httpx.AsyncClient(base_url=service.url, timeout=120) as client:
            return Counter(await asyncio.gather(*(ask(client, body) for body in sent)))

    with neighbour(service) as honest:
        statuses = asyncio.run(attack())
    print(f"{statuses}, the longest callback {service.watchdog.longest() * 1000:.0f} ms")
    assert statuses.keys() <= {200, 400, 404, 502}
    assert honest.grown < 200  # MiB
