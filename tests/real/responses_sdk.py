"""OpenAI's official SDKs, Python's and Node's, as they speak Responses: each is told the same, and says what it saw."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import openai

from tests.real.node import lines


@dataclass(slots=True)
class Seen:
    """What a client saw, as JSON: the events, the response, and the error that it raised."""

    events: list[Any] = field(default_factory=list)
    response: Any = None
    deleted: bool = False
    error: dict[str, Any] | None = None

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events."""
        return [event["sequence_number"] for event in self.events]

    @property
    def text(self) -> str:
        """The text of the events."""
        return "".join(event["delta"] for event in self.events if event["type"] == "response.output_text.delta")


class Client(Protocol):
    """One SDK. *body* is for an *action* that asks, *id* for one about a response, *after* the number of an event."""

    def __call__(
        self, url: str, action: str, body: dict[str, Any] | None = None, *, id: str = "", after: int = 0
    ) -> Seen: ...


def python(url: str, action: str, body: dict[str, Any] | None = None, *, id: str = "", after: int = 0) -> Seen:
    """Ask with the Python SDK."""
    seen = Seen()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="csk_test", max_retries=0) as client:
        responses: Any = client.responses
        asked = body or {}
        try:
            match action:
                case "create" if asked.get("stream"):
                    seen.events = _dumped(responses.create(**asked))
                case "create":
                    seen.response = responses.create(**asked).to_dict(mode="json", warnings=False)
                case "stream":
                    with responses.stream(**asked) as stream:
                        seen.events = _dumped(stream)
                        seen.response = stream.get_final_response().to_dict(mode="json", warnings=False)
                case "parse":
                    seen.response = responses.parse(**asked).to_dict(mode="json", warnings=False)
                case "retrieve":
                    seen.response = responses.retrieve(id).to_dict(mode="json", warnings=False)
                case "resume":
                    seen.events = _dumped(responses.retrieve(id, stream=True, starting_after=after))
                case "resume_helper":
                    with responses.stream(response_id=id, starting_after=after) as stream:
                        seen.events = _dumped(stream)
                        seen.response = stream.get_final_response().to_dict(mode="json", warnings=False)
                case "cancel":
                    seen.response = responses.cancel(id).to_dict(mode="json", warnings=False)
                case "delete":
                    seen.deleted = responses.delete(id) is None
        except openai.APIError as error:
            status = getattr(error, "status_code", None)
            seen.error = {"name": type(error).__name__, "status": status, "code": error.code, "message": error.message}
    return seen


def node(url: str, action: str, body: dict[str, Any] | None = None, *, id: str = "", after: int = 0) -> Seen:
    """Ask with the Node SDK."""
    return asyncio.run(_collected(lines("responses", url=url, action=action, body=body or {}, id=id, after=after)))


async def _collected(printed: Any) -> Seen:
    seen = Seen()
    async for line in printed:
        if "event" in line:
            seen.events.append(line["event"])
        for name in line.keys() & {"response", "error"}:
            setattr(seen, name, line[name])
        seen.deleted |= bool(line.get("deleted"))
    return seen


CLIENTS: dict[str, Client] = {"python": python, "node": node}


def _dumped(events: Iterable[Any]) -> list[Any]:
    return [event.to_dict(mode="json", warnings=False) for event in events]
