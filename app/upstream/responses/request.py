"""A chat request, as OpenAI's Responses API wants it said. The other way round is `responses_reader`.

What the two share is said the other way; what Responses cannot say is refused, with its name, before anything is sent:
to leave it out would be to answer another question. A field at the value that means the same as its absence is left
out. Fields that neither API knows pass as they are, for an upstream that may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from app.errors import Rejected
from app.request import StreamRequest

LOGPROBS: Final = "message.output_text.logprobs"

# What cannot be said, and the values of it that say nothing.
_UNSAYABLE: Final[dict[str, tuple[object, ...]]] = {
    "audio": (),
    "conversation": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "instructions": (),
    "logit_bias": ({},),
    "modalities": (["text"], []),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "previous_response_id": (),
    "prompt": (),
    "seed": (),
    "stop": ([], ""),
    "web_search_options": (),
}
# What is said elsewhere, or for the client's side of the stream only.
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_TAKEN: Final = frozenset(
    {"response_format", "verbosity", "reasoning_effort", "logprobs", "tools", "tool_choice"}
    | {"input", "messages", "stream_options", *_LIMITS}
)
_NOTHING: Final = {"type": "object", "properties": {}}  # the parameters of a function that has none


def responses_fields(request: StreamRequest, extra: Mapping[str, Any], background: bool) -> dict[str, Any]:
    """Return the body for *request*; *extra* is the operator's, in Responses' own words. Raises Rejected.

    The answer is stored upstream only if the client asks for it, or if it is made in the *background*, which OpenAI
    refuses to do without.
    """
    asked = {name: value for name, value in request.parameters.items() if value is not None}
    for name, meaningless in _UNSAYABLE.items():
        if name in asked and asked.pop(name) not in meaningless:
            raise _unsayable(name)
    if background and asked.get("store") is False:
        raise Rejected(
            "'store': this model's upstream answers in the background, and has to store for it.", param="store"
        )

    store = asked.pop("store", False)
    fields: dict[str, Any] = {"model": request.model, "input": _input(request.messages), "store": store}
    if limits := [_count(asked[name], name) for name in _LIMITS if name in asked]:
        fields["max_output_tokens"] = min(limits)
    if "response_format" in asked:
        fields["text"] = {"format": _flat(asked["response_format"], "json_schema", "response_format")}
    if "verbosity" in asked:
        fields["text"] = fields.get("text", {}) | {"verbosity": asked["verbosity"]}
    if "reasoning_effort" in asked:
        fields["reasoning"] = {"effort": asked["reasoning_effort"]}
    if "tools" in asked:
        tools = enumerate(_list(asked["tools"], "tools"))
        fields["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in tools]
    if "tool_choice" in asked:
        fields["tool_choice"] = _choice(asked["tool_choice"])
    if asked.get("logprobs"):
        fields["include"] = [LOGPROBS]

    # In Responses' own words, what is said already stands: it may be what the operator pinned.
    fields = _merged({name: value for name, value in asked.items() if name not in _TAKEN}, fields)
    fields = _merged(fields, extra)
    # Last: what these are is not for others to say.
    fields["model"], fields["stream"] = request.model, True
    fields.pop("background", None)
    if background:
        fields["background"] = fields["store"] = True
    return fields


def _merged(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields*, replaced by those of *over*; where both have a part of one thing, that is put together."""
    merged = {**fields, **over}
    for name in fields.keys() & over.keys():
        before, after = fields[name], over[name]
        if name in ("reasoning", "text") and isinstance(before, Mapping) and isinstance(after, Mapping):
            merged[name] = {**before, **after}
        elif name == "include" and isinstance(before, list) and isinstance(after, list):
            merged[name] = [*before, *(item for item in after if item not in before)]
    return merged


def _unsayable(name: str) -> Rejected:
    return Rejected(
        f"'{name}' cannot be said to this model's upstream, which speaks OpenAI's Responses API.", param=name
    )


def _wrong(name: str) -> Rejected:
    return Rejected(f"'{name}' is not what OpenAI's chat completions have there.", param=name)


def _object(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(name)
    return value


def _string(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise _wrong(name)
    return value


def _list(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name)
    return value


def _count(value: object, name: str) -> int:
    if not isinstance(value, int):
        raise _wrong(name)
    return value


# Tools and formats: {"type": T, T: {…}} becomes {"type": T, …}.


def _flat(value: object, kind: str, name: str) -> dict[str, Any]:
    """Take what is under *kind*, the name of its own type, out of there."""
    fields = _object(value, name)
    if fields.get("type") != kind:
        return dict(fields)
    return {"type": kind, **_object(fields.get(kind), f"{name}.{kind}")}


def _tool(tool: object, name: str) -> dict[str, Any]:
    kind = _object(tool, name).get("type")
    if kind == "function":
        # A chat's functions are lax if nothing is said of it, and Responses' are strict.
        fields = _flat(tool, kind, name)
        return fields | {"parameters": fields.get("parameters") or _NOTHING, "strict": fields.get("strict") or False}
    if kind != "custom":
        return _flat(tool, "", name)  # upstream's own, such as web_search: only Responses have those
    fields = _flat(tool, kind, name)
    if "format" in fields:
        fields["format"] = _flat(fields["format"], "grammar", f"{name}.custom.format")
    return fields


def _choice(choice: object) -> object:
    if not isinstance(choice, Mapping):
        return choice  # none, auto, required
    kind = choice.get("type")
    if kind not in ("function", "custom", "allowed_tools"):
        return choice
    fields = _flat(choice, kind, "tool_choice")
    if kind == "allowed_tools":
        name = "tool_choice.allowed_tools.tools"
        tools = _list(fields.get("tools"), name)
        fields["tools"] = [_allowed(tool, name) for tool in tools]
    return fields


def _allowed(tool: object, name: str) -> dict[str, Any]:
    kind = _object(tool, name).get("type")
    # Any other is as Responses have it, and is not to be quoted.
    return _flat(tool, kind, name) if kind in ("function", "custom") else dict(_object(tool, name))


# Messages.


def _input(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    custom: set[str] = set()  # the ids of calls whose answers are called otherwise
    for index, message in enumerate(messages):
        name, role = f"messages[{index}]", message.get("role")
        if message.get("name") and role != "tool":
            raise _unsayable(f"{name}.name")
        if role == "assistant":
            items += _assistant(message, name, custom)
        elif role == "tool":
            id = _string(message.get("tool_call_id"), f"{name}.tool_call_id")
            kind = "custom_tool_call_output" if id in custom else "function_call_output"
            items.append({"type": kind, "call_id": id, "output": _content(message, name, _input_part) or ""})
        elif role == "function":
            raise _unsayable(f"{name}.role")
        else:
            items.append({"role": role, "content": _content(message, name, _input_part) or ""})
    return items


def _assistant(message: Mapping[str, Any], name: str, custom: set[str]) -> list[dict[str, Any]]:
    for field in ("audio", "function_call"):
        if message.get(field):
            raise _unsayable(f"{name}.{field}")
    content = _content(message, name, _output_part)
    if refusal := message.get("refusal"):
        said = [{"type": "output_text", "text": content}] if content and isinstance(content, str) else content or []
        content = [*said, {"type": "refusal", "refusal": _string(refusal, f"{name}.refusal")}]
    items: list[dict[str, Any]] = [{"role": "assistant", "content": content}] if content else []
    for index, call in enumerate(_list(message.get("tool_calls") or [], f"{name}.tool_calls")):
        where = f"{name}.tool_calls[{index}]"
        fields = _object(call, where)
        id = _string(fields.get("id"), f"{where}.id")
        kind, said_in, item = ("function", "arguments", "function_call")
        if fields.get("type") == "custom":
            kind, said_in, item = ("custom", "input", "custom_tool_call")
            custom.add(id)
        tool = _object(fields.get(kind), f"{where}.{kind}")
        called = _string(tool.get("name"), f"{where}.{kind}.name")
        said_to = _string(tool.get(said_in), f"{where}.{kind}.{said_in}")
        items.append({"type": item, "call_id": id, "name": called, said_in: said_to})
    return items


def _content(
    message: Mapping[str, Any], name: str, part_of: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> str | list[dict[str, Any]] | None:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    return [
        part_of(_object(part, where), where)
        for index, part in enumerate(_list(content, f"{name}.content"))
        for where in [f"{name}.content[{index}]"]
    ]


def _input_part(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    rest = {field: value for field, value in part.items() if field not in ("type", "image_url", "file")}
    match part.get("type"):
        case "text":
            return {"type": "input_text", **rest}
        case "image_url":
            image = part.get("image_url")
            image = {"url": image} if isinstance(image, str) else _object(image, f"{name}.image_url")
            url = _string(image.get("url"), f"{name}.image_url.url")
            return {"type": "input_image", "image_url": url, "detail": image.get("detail") or "auto", **rest}
        case "file":
            return {"type": "input_file", **_object(part.get("file"), f"{name}.file"), **rest}
        case "refusal":
            raise _unsayable(name)
    return dict(part)  # input_audio, which is called the same; and what is in Responses' words already


def _output_part(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    if part.get("type") == "text":
        return {**part, "type": "output_text"}
    return dict(part)  # refusal
