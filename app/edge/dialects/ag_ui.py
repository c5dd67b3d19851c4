"""AG-UI over HTTP: `POST /v1/ag-ui` starts a run, and the same `POST` with `Last-Event-ID` goes on in it.

TanStack's client names the run in a header, too, and comes back after a cut. `HttpAgent` does neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.edge.bodies import (
    ChatParameters,
    ChatRequest,
    Defaults,
    Short,
    parameters_of,
    shown,
    stream_request,
    validated,
)
from app.edge.dialects.agent_messages import AgentContext, AgentMessage, AgentTool, sealed_in, to_messages, to_tool
from app.edge.json import check_sealed
from app.edge.positions import parse_position
from app.edge.streams import Streams, is_keyed
from app.errors import BadRequest
from app.wire import ag_ui

RUN_ID = "X-Run-Id"
"""The header in which TanStack's client names a run. It stands for an idempotency key."""


class ForwardedProps(ChatParameters):
    """What a client's application adds: the parameters of a chat. Any other field is the application's own."""

    model_config = ConfigDict(extra="ignore", strict=True)

    metadata: Any = None
    tools: Any = None


class RunAgentInput(BaseModel):
    """The body of `POST /v1/ag-ui`. Fields that are not known here are ignored, as the protocol has it."""

    model_config = ConfigDict(extra="ignore", strict=True)

    threadId: Short
    runId: Short
    protocolVersion: Short | None = None
    parentRunId: Short | None = None
    messages: Annotated[list[AgentMessage], Field(min_length=1, max_length=4096, fail_fast=True)]
    tools: Annotated[list[AgentTool], Field(max_length=1024, fail_fast=True)] | None = None
    context: Annotated[list[AgentContext], Field(max_length=1024, fail_fast=True)] | None = None
    state: Any = None
    forwardedProps: ForwardedProps | None = None
    resume: list[Any] | None = None


async def parse_run(data: Any, defaults: Defaults, *, keyed: bool = False, returns: bool = False) -> ChatRequest:
    """Turn the parsed body into a request. Raises BadRequest.

    *keyed* is that of `stream_request`; *returns* says whether the client comes back after a cut.
    """
    body = validated(RunAgentInput, data)
    await asyncio.sleep(0)  # thousands of messages took time to validate, and take as much to convert
    if body.resume:
        raise BadRequest("'resume' is not taken: no run of this service is interrupted.", param="resume")
    props = body.forwardedProps or ForwardedProps()
    parameters = _parameters(body, data.get("forwardedProps") or {})
    await check_sealed(sealed_in(body.messages))
    stream, smooth = stream_request(
        defaults,
        to_messages(data["messages"], body.context or ()),
        parameters,
        props.model,
        props.chunk,
        props.on_disconnect,
        ("forwardedProps.chunk", "forwardedProps.on_disconnect"),
        keyed=keyed,
        returns=False,  # clients stop by hanging up, and those that can come back have a key
    )
    metadata = shown({"thread_id": body.threadId})
    stream = replace(stream, metadata=metadata, asked=ag_ui.asked_of(body.threadId, body.runId))
    create = ag_ui.ReturningRunEncoder if returns else ag_ui.create
    return ChatRequest(stream, create, smooth, key_header=RUN_ID)


class AgUi:
    """The endpoint."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def open(self, request: Request) -> Response:
        """`POST /v1/ag-ui`: start a run and answer with it; with a position, resume one."""
        streams = self._streams
        position = parse_position(request)
        if position is not None:
            return await streams.resume(request, position, ag_ui.ReturningRunEncoder)
        data = await streams.body(request)
        returns = RUN_ID in request.headers
        asked = await parse_run(data, streams.options.defaults, keyed=is_keyed(request, RUN_ID), returns=returns)
        return await streams.answer(request, asked, data)


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    return [Route("/v1/ag-ui", AgUi(streams).open, methods=["POST"])]


def _parameters(body: RunAgentInput, props: Mapping[str, Any]) -> dict[str, Any]:
    parameters = parameters_of(props)
    parameters.pop("metadata", None)
    parameters.pop("tools", None)
    return {**parameters, "tools": [to_tool(tool) for tool in body.tools]} if body.tools else parameters
