"""AG-UI over HTTP: `POST /v1/ag-ui` starts a run, and the same `POST` with `Last-Event-ID` goes on in it.

TanStack's client names the run in a header, too, and comes back after a cut. A page that was reloaded asks which run of
its thread is live, and reads a run from its start by the run's name. `HttpAgent` does none of that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
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
from app.edge.client_ids import is_found_by
from app.edge.context import request_context
from app.edge.dialects.agent_messages import AgentContext, AgentMessage, AgentTool, sealed_in, to_messages, to_tool
from app.edge.json import check_sealed
from app.edge.positions import parse_position
from app.edge.streams import Streams, is_keyed
from app.errors import BadRequest, UnknownStream
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
    """The endpoints."""

    def __init__(self, streams: Streams) -> None:
        self._streams = streams

    async def run(self, request: Request) -> Response:
        """`/v1/ag-ui`: one route for both methods, as in the native dialect."""
        return await (self.open if request.method == "POST" else self.find)(request)

    async def open(self, request: Request) -> Response:
        """`POST /v1/ag-ui`: start a run and answer with it; with a position, resume one."""
        streams = self._streams
        position = parse_position(request)
        if position is not None:
            return await streams.resume(request, position, ag_ui.ReturningRunEncoder)
        data = await streams.body(request)
        returns = RUN_ID in request.headers
        asked = await parse_run(data, streams.options.defaults, keyed=is_keyed(request, RUN_ID), returns=returns)
        if returns:
            asked = replace(asked, label=_label(request, data["threadId"]))
        return await streams.answer(request, asked, data)

    async def find(self, request: Request) -> Response:
        """`GET /v1/ag-ui`: with a `runId` that run, from its start or after a position; with a `threadId` its live run.

        The run is its events; a thread is JSON, whose messages are the client's own.
        """
        position = parse_position(request)
        query = request.query_params
        if query.get("offset", "-1") != "-1":
            raise BadRequest("'offset' is -1, which is the run's start: go on with a 'Last-Event-ID'.", param="offset")
        if "runId" in query:
            stream_id = await self._named(request, query["runId"])
            if position is not None and position.stream_id != stream_id:
                raise BadRequest("The last event id is another run's.", param="last_event_id")
            create = ag_ui.ReturningRunEncoder
            return await self._streams.read(request, stream_id, create, after=position)
        if "threadId" in query:
            run = await self._live_run(request, query["threadId"])
            active = {"runId": run} if run else None
            return JSONResponse({"messages": [], "activeRun": active, "interrupts": None})
        raise BadRequest("The query has to name a 'runId' or a 'threadId'.", param="runId")

    async def _named(self, request: Request, run_id: str) -> str:
        """Return the id of the stream that the caller has named so in `X-Run-Id`. Raises UnknownStream."""
        hub = self._streams.hub
        principal = request_context(request.scope).principal
        stream_id = await hub.keyed(run_id, principal) if is_found_by(run_id, principal) else None
        if stream_id is not None:
            log = await hub.log_of(stream_id, principal)
            if ag_ui.run_of(log.info.asked) == run_id:  # and no stream that has this idempotency key
                return stream_id
        raise UnknownStream

    async def _live_run(self, request: Request, thread_id: str) -> str:
        """Return the name of the thread's newest run, or "" if that has ended."""
        hub = self._streams.hub
        principal = request_context(request.scope).principal
        label = _label(request, thread_id)
        stream_id = await hub.labelled(label, principal) if label else None
        if stream_id is not None:
            with suppress(UnknownStream):  # it is no longer kept
                log = await hub.log_of(stream_id, principal)
                return "" if log.ended else ag_ui.run_of(log.info.asked)
        return ""


def routes(streams: Streams) -> Sequence[Route]:
    """Return the routes of this dialect."""
    return [Route("/v1/ag-ui", AgUi(streams).run, methods=["GET", "POST"])]


def _label(request: Request, thread_id: str) -> str:
    """Return what a thread's runs are found by, or "" if a stranger could guess it."""
    return f"ag-ui:{thread_id}" if is_found_by(thread_id, request_context(request.scope).principal) else ""


def _parameters(body: RunAgentInput, props: Mapping[str, Any]) -> dict[str, Any]:
    parameters = parameters_of(props)
    parameters.pop("metadata", None)
    parameters.pop("tools", None)
    return {**parameters, "tools": [to_tool(tool) for tool in body.tools]} if body.tools else parameters
