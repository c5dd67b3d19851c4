"""The body of `POST /v1/chat/completions` → a request, as OpenAI has it but for what a stream of text cannot carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from app.edge.bodies import Defaults, Messages, ModelName, Parameters, parse_chunk, parse_grace, validated
from app.errors import BadRequest
from app.request import StreamRequest

FIELD = "[ -~]{1,64}"  # the name of one that is not known
CHUNK = "X-Chunk"
ON_DISCONNECT = "X-On-Disconnect"

_NAME = re.compile(FIELD, re.ASCII)
MOST_FIELDS = 128
# What is OpenAI's, and not to be had here, with what to do instead.
REFUSED = {
    "functions": "OpenAI replaced it: send 'tools'",
    "function_call": "OpenAI replaced it: send 'tool_choice'",
    "audio": "answers are text here: leave it out",
}


class StreamOptions(BaseModel):
    """What is said of the stream itself. Any other option is ignored, as none of them changes what is answered."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool | None = None


class CompletionBody(Parameters):
    """The body of `POST /v1/chat/completions`. Parameters that are not known here go upstream as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    messages: Messages
    model: ModelName | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=16)] | None = None


_OWN = frozenset({"messages", "model", "stream", "stream_options"})


class Completion(NamedTuple):
    """A request, and how its answer is wanted: as a *stream*, with its usage, bursts spread over *smooth* seconds."""

    request: StreamRequest
    stream: bool
    include_usage: bool
    smooth: float


def parse_completion(data: Any, headers: Mapping[str, str], defaults: Defaults) -> Completion:
    """Turn the parsed body, and the headers CHUNK and ON_DISCONNECT, into a request. Raises BadRequest.

    What is not OpenAI's is in headers because a field would go upstream.
    """
    body = validated(CompletionBody, data)
    for name, instead in REFUSED.items():
        if data.get(name) is not None:
            raise BadRequest(f"'{name}' is not taken; {instead}.", param=name)
    unknown = (body.model_extra or {}).keys() - REFUSED.keys()
    if len(data) > MOST_FIELDS or not all(map(_NAME.fullmatch, unknown)):
        raise BadRequest(f"At most {MOST_FIELDS} fields are taken, with names of 64 ASCII characters at most.")
    if defaults.extra is not None and (refused := unknown - defaults.extra):
        name = min(refused)
        raise BadRequest(f"'{name}' is not a parameter that this service passes on.", param=name)
    chunk, smooth = parse_chunk(headers.get(CHUNK, ""), defaults.chunk, CHUNK)
    policy = headers.get(ON_DISCONNECT)
    request = StreamRequest(
        model=body.model or defaults.model,
        messages=tuple(data["messages"]),
        # A known one that is null is one that is not there; of an unknown one null may mean something.
        parameters={
            name: value for name, value in data.items() if name not in _OWN and (value is not None or name in unknown)
        },
        chunk=chunk,
        grace=defaults.grace if policy is None else parse_grace(policy, defaults.max_grace, ON_DISCONNECT),
    )
    options = body.stream_options
    return Completion(request, bool(body.stream), bool(options and options.include_usage), smooth)
