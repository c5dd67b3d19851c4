"""Which models the upstreams say that they have: their `GET /models`, kept for a minute."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import orjson

from app.errors import UpstreamError
from app.model_name import is_model_name
from app.upstream.endpoint import Endpoint
from app.upstream.http.client import read_capped

# Seconds. An upstream that did not answer is asked again sooner, but not by every client that wants to know.
_KEEP = 60.0
_KEEP_INCOMPLETE = 5.0
_MAX_BYTES = 4 << 20
_MAX_MODELS = 4096
_MAX_DESCRIPTION = 300  # characters


class Models:
    """The models of several upstreams, each name once, as OpenAI's objects, with the `description` that some have.

    An upstream that does not answer within *patience* seconds has none. *clock* counts seconds.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], patience: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._endpoints = tuple(endpoints)
        self._patience = patience
        self._clock = clock
        self._asking = asyncio.Lock()
        self._models: Sequence[Mapping[str, Any]] = ()
        self._good_until = 0.0

    async def __call__(self) -> Sequence[Mapping[str, Any]]:
        async with self._asking:
            if self._clock() >= self._good_until:
                answers = await asyncio.gather(*(_ask(endpoint, self._patience) for endpoint in self._endpoints))
                models: dict[str, Mapping[str, Any]] = {}
                for answer in answers:
                    for model in answer or ():
                        models.setdefault(model["id"], model)
                self._models = tuple(models.values())
                self._good_until = self._clock() + (_KEEP_INCOMPLETE if None in answers else _KEEP)
            return self._models


async def _ask(endpoint: Endpoint, patience: float) -> list[dict[str, Any]] | None:
    """Return the models that an upstream lists, or None if it does not say."""
    body = b""
    with suppress(UpstreamError, TimeoutError):  # no client's answer depends on it
        async with asyncio.timeout(patience), endpoint.get("/models") as response:
            if response.is_success:
                body = await read_capped(response, _MAX_BYTES, patience)
    try:
        answer = orjson.loads(body)
    except ValueError:
        return None
    listed = answer.get("data") if isinstance(answer, dict) else answer  # some send the bare list
    if not isinstance(listed, list):
        return None
    return [_model(item) for item in listed[:_MAX_MODELS] if isinstance(item, dict) and is_model_name(item.get("id"))]


def _model(item: Mapping[str, Any]) -> dict[str, Any]:
    created = item.get("created")
    owner = item.get("owned_by")
    description = item.get("description")
    return {
        "id": item["id"],
        "object": "model",
        "created": created if type(created) is int and created > 0 else 0,
        "owned_by": owner if is_model_name(owner) else "upstream",
        **({"description": description[:_MAX_DESCRIPTION]} if isinstance(description, str) and description else {}),
    }
