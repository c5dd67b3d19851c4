"""A client of the service: the events of one answer, resumed where the connection broke."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import httpx
import httpx_sse

# How many times in a row it asks again without having received an event, and how many seconds it waits at most.
_TRIES = 5
_LONGEST_WAIT = 30.0
_MAY_PASS = (429, 502, 503, 504)
_POSITION = "Last-Event-ID"


class Refused(Exception):
    """The service answered with an error *status*. *message* is its sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class CutOff(Exception):
    """The answer broke off, and the service did not send the rest of it. The message says why."""


class StreamEvent(NamedTuple):
    """An event of the native dialect: its position, its name, and its JSON."""

    id: str
    name: str
    data: Any


def answer(
    client: httpx.Client, body: Mapping[str, Any], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[StreamEvent]:
    """Ask the service with *body*, and yield the events of the answer up to its terminal event.

    Where the connection breaks, the same request with a `Last-Event-ID` brings the rest. Before the first event, the
    request's `Idempotency-Key` has the service answer the repeated request with the same stream.

    Raises Refused if the service refuses the request, httpx.TransportError if it cannot be reached, and CutOff if an
    answer that has begun cannot be resumed.
    """
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    tries = 0
    wait = 1.0
    while True:
        try:
            with httpx_sse.connect_sse(client, "POST", "/v1/chat", json=body, headers=headers) as source:
                response = source.response
                if response.status_code != 200:
                    refused = Refused(response.status_code, _message(response.read()))
                    if _POSITION not in headers or refused.status not in _MAY_PASS:
                        raise refused
                    failure: Exception = refused
                    wait = max(wait, _retry_after(response))
                else:
                    for event in source.iter_sse():
                        tries = 0
                        wait = (event.retry or 1000) / 1000
                        headers[_POSITION] = event.id
                        yield StreamEvent(event.id, event.event, event.json())
                        if event.event in ("done", "error"):
                            return
                    failure = CutOff("the connection ended")
        except (httpx_sse.SSEError, ValueError):
            raise Refused(200, "what answered is no chat-sse") from None
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            if _POSITION not in headers:
                raise
            failure = error
        except httpx.TransportError as error:
            failure = error
        except Refused as refused:
            if _POSITION in headers:
                raise CutOff(f"the answer was cut off, and the service refused the rest: {refused}") from None
            raise
        tries += 1
        if tries > _TRIES:
            if _POSITION in headers:
                raise CutOff(f"the answer was cut off: {str(failure) or type(failure).__name__}") from None
            raise failure
        sleep(min(wait, _LONGEST_WAIT))


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "the service answered with an error"


def _retry_after(response: httpx.Response) -> float:
    """Return the seconds of the response's `Retry-After`; 0 without one. The service sends no dates there."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else 0.0
