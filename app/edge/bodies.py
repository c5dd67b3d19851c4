"""What the bodies of all dialects share. A body becomes a `ChatRequest`, or a `BadRequest` that names the field."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.requests import Request

from app.edge.field_path import field_path, suggestion
from app.errors import BadRequest, RequestTimeout, TooLarge, UnsupportedMedia
from app.hub import parse_disconnect_policy
from app.model_name import LONGEST, PATTERN, is_model_name
from app.rechunk import create as create_rechunker
from app.request import StreamRequest
from app.wire import Create
from app.wire.content_parts import restored

Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
_SMOOTH = re.compile("[1-9][0-9]{0,3}", re.ASCII)
_SMOOTHED = re.compile("(?:(.+),)?smooth:(.*)", re.DOTALL)


def _model_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("it holds control characters")
    return name


def _one_answer(number: int) -> int:
    if number != 1:
        raise ValueError("a request gets one answer here; send it again for another")
    return number


Short = Annotated[str, StringConstraints(max_length=512)]
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST, json_schema_extra={"pattern": PATTERN}),
    AfterValidator(_model_name),
]
# A collection without a small bound fails fast: an error for each of 30,000 elements would hold the event loop.
# The bounds are OpenAI's.
MetadataName = Annotated[str, StringConstraints(max_length=64)]
Metadata = Annotated[dict[MetadataName, Short], Field(max_length=16, fail_fast=True)]
Tools = Annotated[list[dict[str, Any]], Field(max_length=1024)]
Tokens = Annotated[int, Field(ge=1)]
# LM Studio and llama.cpp take -1 for "no limit".
TokensOrNoLimit = Tokens | Literal[-1]
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
MOST_TOP_LOGPROBS = 20  # as OpenAI has it
MAX_FIELDS = 128  # of a body's own, in any dialect


class Message(BaseModel):
    """One message in OpenAI's shape. Fields that only some providers know pass as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[dict[str, Any]], Field(fail_fast=True)] | None = None


Messages = Annotated[list[Message], Field(min_length=1, max_length=4096, fail_fast=True)]


class Parameters(BaseModel):
    """OpenAI's sampling and tool parameters, passed on as they are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    temperature: Temperature | None = None
    top_p: Probability | None = None
    n: Annotated[int, Field(json_schema_extra={"minimum": 1, "maximum": 1}), AfterValidator(_one_answer)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    stop: Short | Annotated[list[Short], Field(max_length=16)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(fail_fast=True)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_TOP_LOGPROBS)] | None = None
    seed: int | None = None
    user: Short | None = None
    safety_identifier: Short | None = None
    prompt_cache_key: Short | None = None
    metadata: Metadata | None = None
    store: bool | None = None
    service_tier: Short | None = None
    reasoning_effort: Short | None = None
    verbosity: Short | None = None
    response_format: dict[str, Any] | None = None
    modalities: Annotated[list[Short], Field(min_length=1, max_length=16)] | None = None
    audio: dict[str, Any] | None = None
    tools: Tools | None = None
    tool_choice: Short | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None


_PARAMETERS = frozenset(Parameters.model_fields)


class AskedParameters(Parameters):
    """OpenAI's parameters as clients send them: a limit of -1 says what an absent one does."""

    max_tokens: TokensOrNoLimit | None = None
    max_completion_tokens: TokensOrNoLimit | None = None


class ChatParameters(AskedParameters):
    """OpenAI's parameters, and those of this service."""

    model: ModelName | None = None
    chunk: Short | None = None
    on_disconnect: Short | None = None


Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for a request that does not say, and what no request may exceed.

    *grace* and *max_grace* are seconds without a reader. If the operator has set it, *grace* holds for every request
    that does not say. If not, it holds only for those whose client can come back.
    """

    model: str
    chunk: str
    grace: float
    max_grace: float
    grace_is_set: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What a request asks for, in any dialect: a stream, and an answer that reads it.

    *stream* goes to the hub, and `Hub.labelled` finds it by its *label*, if that is not "". *key_header* is the header
    that has the idempotency key of a request that has no `Idempotency-Key`, or "". The answer is *whole*, or a
    stream in the form of the encoder that *create* returns, with bursts spread over *smooth* seconds; 0 does not spread
    them.
    """

    stream: StreamRequest
    create: Create
    smooth: float = 0.0
    whole: bool = False
    label: str = ""
    key_header: str = ""


async def read_body(request: Request, limit: int, seconds: float, *, plain: bool = False) -> bytes:
    """Read a body of at most *limit* bytes within *seconds*. Raises TooLarge, RequestTimeout or UnsupportedMedia.

    A browser (it sends `Origin`) must declare `application/json`: a form on another site cannot, so it cannot spend the
    owner's money. Anyone else need not, so that `curl -d` works. With *plain*, `text/plain` is as good as JSON: that is
    what a browser declares for a client that declares nothing.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if "origin" in request.headers and media_type != "application/json" and not (plain and media_type == "text/plain"):
        raise UnsupportedMedia
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("The body must be sent as it is, without a Content-Encoding.")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"The request body is larger than {limit} bytes.")
    body = bytearray()
    try:
        async with asyncio.timeout(seconds or None):
            async for data in request.stream():
                body += data
                if len(body) > limit:
                    raise TooLarge(f"The request body is larger than {limit} bytes.")
    except TimeoutError:
        raise RequestTimeout from None
    return bytes(body)


def stream_request(
    defaults: Defaults,
    messages: Iterable[Mapping[str, Any]],
    parameters: Mapping[str, Any],
    model: str | None,
    chunk: str | None,
    on_disconnect: str | None,
    names: tuple[str, str] = ("chunk", "on_disconnect"),
    *,
    keyed: bool,
    returns: bool,
) -> tuple[StreamRequest, float]:
    """Return a request with the *defaults* applied, and over how many seconds its answer's bursts are spread.

    *names* are what the client calls *chunk* and *on_disconnect*. Raises BadRequest.

    A stream to which no client can come back ends with its reader: what it writes is paid for, and is never read.
    A request that is *keyed*, with an idempotency key, can be repeated. *returns* says whether the dialect's clients
    come back with no key, by what they have once the answer has begun.
    """
    cut, smooth = parse_chunk(chunk or "", defaults.chunk, names[0])
    if on_disconnect is not None:
        grace = unknown_grace = parse_grace(on_disconnect, defaults.max_grace, names[1])
    elif keyed or defaults.grace_is_set:
        grace = unknown_grace = defaults.grace
    else:
        grace = defaults.grace if returns else 0.0
        unknown_grace = 0.0
    parameters = {name: value for name, value in parameters.items() if name not in TOKEN_FIELDS or value != -1}
    model = model or defaults.model
    return StreamRequest(model, tuple(map(restored, messages)), parameters, cut, grace, unknown_grace), smooth


def parameters_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's parameters in a body, as they came. One that is null is one that is not there."""
    return {name: value for name, value in data.items() if value is not None and name in _PARAMETERS}


def shown(metadata: Mapping[str, Any] | None) -> str:
    """Return *metadata*, which was validated, as the caller's list of streams has it."""
    return orjson.dumps(metadata).decode() if metadata else ""


def validated(model: type[Body], data: Any) -> Body:
    """Return parsed JSON as *model* has it. Raises BadRequest, which names the first field that is wrong."""
    if not isinstance(data, dict):
        raise BadRequest("The body must be a JSON object.")
    if len(data) > MAX_FIELDS:  # or there would be an error for each that is unknown
        raise BadRequest(f"The body has more than {MAX_FIELDS} fields.")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise _bad_field(error, data, model) from None


def parse_chunk(chunk: str, default: str, field: str = "chunk") -> tuple[str, float]:
    """Return the cut that *chunk* names, or the *default*, and over how many seconds bursts are spread.

    `smooth:MS`, which is about the reader, stands alone or follows a cut. Raises BadRequest, which names *field*.
    """
    if not chunk:
        return default, 0.0
    smoothed = _SMOOTHED.fullmatch(chunk)
    cut = (smoothed[1] if smoothed else chunk) or default
    try:
        create_rechunker(cut)
    except ValueError as error:
        smooth = "smooth:MS may follow each, after a comma, or stand alone"
        raise BadRequest(f"'{field}': {error}. {smooth}.", param=field) from None
    return cut, parse_smooth(smoothed[2], field) if smoothed else 0.0


def parse_grace(policy: str, longest: float, field: str = "on_disconnect") -> float:
    """Return how many seconds a stream goes on without a reader. Raises BadRequest, which names *field*."""
    try:
        grace = parse_disconnect_policy(policy)
    except ValueError as error:
        raise BadRequest(f"'{field}' {error}.", param=field) from None
    if grace > longest:
        raise BadRequest(f"'{field}': this service allows at most grace:{longest:g}.", param=field)
    return grace


def parse_smooth(text: str, field: str = "smooth") -> float:
    """Turn milliseconds into seconds. Raises BadRequest, which names *field*."""
    if not _SMOOTH.fullmatch(text):
        raise BadRequest(f"'{field}': bursts are spread over 1 to 9999 milliseconds.", param=field)
    return int(text) / 1000


def _bad_field(error: ValidationError, data: Mapping[str, Any], model: type[BaseModel]) -> BadRequest:
    """Name the first field that is wrong, as the client wrote it, and never its value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = field_path(first, data)
    if first["type"] == "extra_forbidden":
        meant = suggestion(field, model.model_fields)
        return BadRequest(f"'{field}' is not a field of this request.{meant}", param=field)
    return BadRequest(f"'{field}': {first['msg'].removeprefix('Value error, ')}.", param=field)
