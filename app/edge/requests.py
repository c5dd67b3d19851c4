"""Bodies → `StreamRequest`, or a `BadRequest` that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request

from app.errors import BadRequest, TooLarge, UnsupportedMedia
from app.model import StreamRequest
from app.rechunk import create as create_rechunker

Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Short = Annotated[str, StringConstraints(max_length=512)]


class Message(BaseModel):
    """One message in OpenAI's shape. Fields that only some providers know pass as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None


class Parameters(BaseModel):
    """OpenAI's sampling and tool parameters, passed on as they are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    n: Literal[1] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: Short | Annotated[list[Short], Field(max_length=16)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    seed: int | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: Short | None = None
    reasoning_effort: Short | None = None
    verbosity: Short | None = None
    response_format: dict[str, Any] | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=1024)] | None = None
    tool_choice: Short | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None


class ChatBody(Parameters):
    """The body of `POST /v1/chat`."""

    prompt: Annotated[str, StringConstraints(min_length=1)] | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096)] | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    chunk: Short | None = None
    on_disconnect: Literal["cancel"] | None = None


async def read_json(request: Request, limit: int) -> Any:
    """Read and parse a JSON body of at most *limit* bytes. Raises TooLarge, UnsupportedMedia or BadRequest.

    A browser (it sends `Origin`) must declare `application/json`: a form on another site cannot, so it cannot spend the
    owner's money. Anyone else need not, so that `curl -d` works.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "origin" in request.headers and media_type != "application/json":
        raise UnsupportedMedia
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"The request body is larger than {limit} bytes.")
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > limit:
            raise TooLarge(f"The request body is larger than {limit} bytes.")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(
            f"The body is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None


def parse_chat(data: Any, *, default_model: str, default_chunk: str) -> StreamRequest:
    """Turn the parsed body of `POST /v1/chat` into a request. Raises BadRequest."""
    if not isinstance(data, dict):
        raise BadRequest("The body must be a JSON object.")
    try:
        body = ChatBody.model_validate(data)
    except ValidationError as error:
        raise _bad_field(error, data) from None
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Give exactly one of 'prompt' and 'messages'.", param="prompt")
    messages: tuple[Mapping[str, Any], ...]
    if body.messages is None:
        messages = ({"role": "user", "content": body.prompt},)
    else:
        messages = tuple(message.model_dump(exclude_unset=True) for message in body.messages)
    chunk = body.chunk or default_chunk
    try:
        create_rechunker(chunk)
    except ValueError as error:
        raise BadRequest(f"'chunk': {error}", param="chunk") from None
    return StreamRequest(
        model=body.model or default_model,
        messages=messages,
        parameters=body.model_dump(include=set(Parameters.model_fields), exclude_none=True),
        chunk=chunk,
    )


def _bad_field(error: ValidationError, data: Mapping[str, Any]) -> BadRequest:
    """Name the first field that is wrong, as the client wrote it, and never its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    path: list[str] = []
    value: Any = data
    for step in first["loc"]:
        # pydantic puts a union's branch into the path ('list[...]', 'str'); only steps that exist are the client's.
        if isinstance(value, dict) and step in value:
            path.append(str(step)[:64])
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path[-1] += f"[{step}]"
            value = value[step]
        elif step == first["loc"][-1] and first["type"] == "missing":
            path.append(str(step))
    field = ".".join(path)
    if first["type"] == "extra_forbidden":
        return BadRequest(f"'{field}' is not a field of this request.", param=field)
    return BadRequest(f"'{field}': {first['msg']}.", param=field)
