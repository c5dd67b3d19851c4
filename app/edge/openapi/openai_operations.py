"""OpenAI's dialect in `/openapi.json`: its operations, and what its bodies look like.

Of a request's body that is what the model of it says; of the answers it is what `app.wire.openai` sends, and tests hold
it against that.
"""

from __future__ import annotations

from app.edge.dialects.openai_requests import CHUNK, FIELD, MOST_FIELDS, ON_DISCONNECT, REFUSED, CompletionBody
from app.edge.openapi.operations import ALWAYS, LIMITS, failures, headers, parameter, security
from app.edge.openapi.schemas import FAILED, USAGE, Schema, object_of, or_null, ref, text, tidy, whole
from app.errors import Overloaded, RateExceeded, StreamError, Unauthenticated, UnknownModel, UnknownPath, UnknownStream

_LOOKING = (Unauthenticated, RateExceeded, Overloaded)


def openai_paths(credentials: bool) -> dict[str, Schema]:
    """Return the paths; *credentials*: whether they are asked for."""
    return {
        "/v1/chat/completions": {"post": _create(credentials)},
        "/v1/models": {"get": _look(credentials, "listModels", "The models that may be asked for.", "ModelList")},
        "/v1/models/{model}": {
            "parameters": [parameter("path", "model", {"type": "string", "minLength": 1})],
            "get": _look(credentials, "retrieveModel", "One of those.", "Model", UnknownModel, UnknownPath),
        },
    }


def _create(credentials: bool) -> Schema:
    always = ("X-Stream-Id", "Content-Location")
    return {
        "operationId": "createChatCompletion",
        "summary": "OpenAI's chat completions, for every client that speaks them.",
        "description": "Whatever upstream, the answer is a stream of the service's: the native dialect can attach to "
        "it, and stop it, under the id in `X-Stream-Id`. Fields that are not known go upstream as they are.",
        "security": security(credentials, "bearer"),
        "parameters": [parameter("Idempotency-Key"), parameter(CHUNK), parameter(ON_DISCONNECT), *ALWAYS],
        "requestBody": {"required": True, "content": {"application/json": {"schema": ref("CompletionBody")}}},
        "responses": {
            "200": {
                "description": "With `stream`, chunks and `[DONE]`, or an error in its place; else all of it.",
                "headers": headers(*always, *LIMITS, required=always),
                "content": {
                    "text/event-stream": {"schema": ref("ChunkEvent")},
                    "application/json": {"schema": ref("ChatCompletion")},
                },
            },
            **failures(credentials, StreamError, but=(UnknownModel, UnknownStream)),
        },
    }


def _look(credentials: bool, operation: str, summary: str, found: str, *missing: type[StreamError]) -> Schema:
    return {
        "operationId": operation,
        "summary": summary,
        "security": security(credentials, "bearer"),
        "parameters": [*ALWAYS],
        "responses": {
            "200": {
                "description": "In OpenAI's form.",
                "headers": headers(*LIMITS),
                "content": {"application/json": {"schema": ref(found)}},
            },
            **failures(credentials, *_LOOKING, *missing),
        },
    }


def openai_schemas() -> dict[str, Schema]:
    """Return the components that the operations refer to."""
    body = CompletionBody.model_json_schema(ref_template="#/components/schemas/{model}")
    found = {name: schema for name, schema in body.pop("$defs").items() if name != "Message"}  # which `ChatBody` has
    body |= {"propertyNames": {"pattern": f"^{FIELD}$"}, "maxProperties": MOST_FIELDS}
    body["properties"] |= {name: {"type": "null", "description": f"Not taken: {why}."} for name, why in REFUSED.items()}
    for schema in (body, *found.values()):
        tidy(schema)
    return {**found, "CompletionBody": body, **_ANSWERS}


def _choice(**properties: Schema) -> Schema:
    choice = object_of("The one choice.", index={"const": 0}, **properties, logprobs=or_null(ref("Logprobs")))
    return {"type": "array", "items": choice, "maxItems": 1}


_FINISH: Schema = {"enum": ["stop", "length", "content_filter", "tool_calls"]}
_CONTENT = or_null(text("Text of the answer."))
_REFUSAL = or_null(text("Text of a refusal."))
_REASONING = text("Text of the reasoning, which OpenAI does not have.")
_FUNCTION = object_of("A function, and what it is called with.", name=text("Its name."), arguments=text("JSON."))
_WHOSE = {
    "id": text("`chatcmpl-` and the stream's id."),
    "created": whole("Unix time in seconds."),
}
_TOKENS: Schema = {"anyOf": [{"type": "array", "items": {"type": "object"}}, {"type": "null"}]}

_ANSWERS: dict[str, Schema] = {
    "ChunkEvent": object_of(
        "One event of a stream: a chunk, an error, which is the last, or `[DONE]`.",
        data={
            "anyOf": [
                {"const": "[DONE]"},
                {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"anyOf": [ref("ChatCompletionChunk"), ref("ChunkError")]},
                },
            ]
        },
    ),
    "ChatCompletionChunk": object_of(
        "A piece of the answer. The last one has no choice but the usage, if that was asked for.",
        ("id", "object", "created", "model", "choices"),
        **_WHOSE,
        object={"const": "chat.completion.chunk"},
        model=text("The model that was asked for."),
        choices=_choice(
            finish_reason=or_null(_FINISH),
            delta=object_of(
                "What is new.",
                (),
                role={"const": "assistant"},
                content=_CONTENT,
                refusal=_REFUSAL,
                reasoning_content=_REASONING,
                tool_calls={
                    "type": "array",
                    "items": object_of(
                        "A piece of a call.",
                        ("index", "function"),
                        index=whole("Which call: from 0, without a gap."),
                        id=text("With the call's first piece."),
                        type={"const": "function"},
                        function={**_FUNCTION, "required": ["arguments"]},
                    ),
                },
            ),
        ),
        usage=USAGE,
    ),
    "ChunkError": object_of(
        "In place of `[DONE]`: the stream broke, or somebody stopped it.",
        error=object_of("What broke it.", **FAILED, param=or_null(text("The field that is wrong."))),
    ),
    "ChatCompletion": object_of(
        "The whole answer.",
        **_WHOSE,
        object={"const": "chat.completion"},
        model=text("The name that upstream gave itself, or else the one that was asked for."),
        choices=_choice(
            finish_reason=_FINISH,
            message=object_of(
                "What was said.",
                ("role", "content", "refusal"),
                role={"const": "assistant"},
                content=_CONTENT,
                refusal=_REFUSAL,
                reasoning_content=_REASONING,
                tool_calls={
                    "type": "array",
                    "items": object_of(
                        "A call.",
                        id=text("What its answer has to name."),
                        type={"const": "function"},
                        function=_FUNCTION,
                    ),
                },
            ),
        ),
        usage=USAGE,
    ),
    "Logprobs": object_of("OpenAI's own objects, as upstream sent them.", content=_TOKENS, refusal=_TOKENS),
    "Model": object_of(
        "A model.",
        id=text("Its name."),
        object={"const": "model"},
        created=whole("Unix time in seconds, 0 where nobody says."),
        owned_by=text("Whose it is: `chat-sse` where it is offered by name, else what upstream says."),
    ),
    "ModelList": object_of("Models.", object={"const": "list"}, data={"type": "array", "items": ref("Model")}),
}
