"""Which models upstreams say that they have: their `GET /models`, kept for a minute."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic as _now
from types import MappingProxyType
from typing import Any, NamedTuple

import httpx
import orjson

from app.errors import UpstreamError
from app.upstream.http import client as transport

# Seconds. One that did not answer is asked again sooner, though not by everybody who wants to know.
_KEPT, _KEPT_WITHOUT = 60.0, 5.0
_PATIENCE = 5.0
_MOST_BYTES = 4 << 20
_MOST_MODELS = 4096
_NAME = re.compile("[ -~]{1,256}", re.ASCII)  # what a request may name
_OWNER = re.compile("[ -~]{1,64}", re.ASCII)


class Listing(NamedTuple):
    """An upstream to ask, as `OpenAIChat` asks it."""

    client: httpx.AsyncClient
    base_url: str
    api_key: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})


class Models:
    """The models of several upstreams, each name once, as OpenAI's objects. One that does not answer has none."""

    def __init__(self, upstreams: Sequence[Listing]) -> None:
        self._upstreams = tuple(upstreams)
        self._asking = asyncio.Lock()
        self._models: Sequence[Mapping[str, Any]] = ()
        self._good_until = 0.0

    async def __call__(self) -> Sequence[Mapping[str, Any]]:
        async with self._asking:
            if _now() >= self._good_until:
                answers = await asyncio.gather(*map(_ask, self._upstreams))
                models = [model for answer in answers for model in answer or ()]
                self._models = tuple({model["id"]: model for model in reversed(models)}.values())[::-1]
                kept = _KEPT_WITHOUT if None in answers else _KEPT
                self._good_until = _now() + kept
            return self._models


async def _ask(upstream: Listing) -> list[dict[str, Any]] | None:
    """Return what an upstream lists, or None if that cannot be known."""
    key = {"Authorization": f"Bearer {upstream.api_key}"} if upstream.api_key else {}
    headers = {"Accept": "application/json", **key, **upstream.headers}
    url = f"{upstream.base_url.rstrip('/')}/models"
    body = b""
    with suppress(UpstreamError, TimeoutError):  # nobody's answer depends on it
        async with asyncio.timeout(_PATIENCE), transport.get(upstream.client, url, headers) as response:
            if response.status_code == 200:
                body = await transport.read_capped(response, _MOST_BYTES, _PATIENCE)
    try:
        answer = orjson.loads(body)
    except ValueError:
        return None
    listed = answer.get("data") if isinstance(answer, dict) else answer  # some send the bare list
    if not isinstance(listed, list):
        return None
    return [_model(item) for item in listed[:_MOST_MODELS] if isinstance(item, dict) and _is(_NAME, item.get("id"))]


def _model(item: Mapping[str, Any]) -> dict[str, Any]:
    created, owner = item.get("created"), item.get("owned_by")
    return {
        "id": item["id"],
        "object": "model",
        "created": created if type(created) is int and created > 0 else 0,
        "owned_by": owner if _is(_OWNER, owner) else "upstream",
    }


def _is(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
