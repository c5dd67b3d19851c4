"""A chat request in the words of OpenAI's Responses API. `responses.reader` goes the other way.

What both APIs know is renamed. What Responses cannot express is refused by name before anything is sent: to leave it
out would be to answer another question. A field is left out if its value means the same as its absence. Fields that
neither API knows pass as they are, for upstreams that may know them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from app.errors import Rejected
from app.request import StreamRequest
from app.upstream.reading.parts import is_thought

T = TypeVar("T")

LOGPROBS: Final = "message.output_text.logprobs"

# The fields that Responses do not have, and the values of each that mean the same as its absence.
_UNSUPPORTED: Final[dict[str, tuple[object, ...]]] = {
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
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
# The fields that are renamed, and those that concern the client's side of the stream only.
_RENAMED: Final = frozenset(
    {"response_format", "verbosity", "reasoning_effort", "logprobs", "tools", "tool_choice"}
    | {"input", "messages", "stream_options", *_LIMITS}
)
_NOTHING: Final = {"type": "object", "properties": {}}  # the parameters of a function that has none


def responses_fields(request: StreamRequest, extra: Mapping[str, Any], background: bool) -> dict[str, Any]:
    """Return the body for *request*. *extra* has the operator's fields, in Responses' words. Raises Rejected.

    The upstream stores the answer only if the client asks for that, or if it answers in the *background*, which OpenAI
    does not do without storing.
    """
    asked = {name: value for name, value in request.parameters.items() if value is not None}
    for name, meaningless in _UNSUPPORTED.items():
        if name in asked and asked.pop(name) not in meaningless:
            raise _unsupported(name)
    if background and asked.get("store") is False:
        raise Rejected(
            "'store': this model's upstream answers in the background, and has to store for it.", param="store"
        )

    store = asked.pop("store", False)
    fields: dict[str, Any] = {"model": request.model, "input": _input(request.messages), "store": store}
    limits = [_expect(asked[name], int, name) for name in _LIMITS if name in asked]
    if limits:
        fields["max_output_tokens"] = min(limits)
    if "response_format" in asked:
        fields["text"] = {"format": _flat(asked["response_format"], "json_schema", "response_format")}
    if "verbosity" in asked:
        fields["text"] = fields.get("text", {}) | {"verbosity": asked["verbosity"]}
    if "reasoning_effort" in asked:
        fields["reasoning"] = {"effort": asked["reasoning_effort"]}
    if "tools" in asked:
        tools = enumerate(_expect(asked["tools"], list, "tools"))
        fields["tools"] = [_tool(tool, f"tools[{index}]") for index, tool in tools]
    if "tool_choice" in asked:
        fields["tool_choice"] = _choice(asked["tool_choice"])
    if asked.get("logprobs"):
        fields["include"] = [LOGPROBS]

    # A client may use Responses' own words, too. They do not replace what is there already.
    fields = _merged({name: value for name, value in asked.items() if name not in _RENAMED}, fields)
    fields = _merged(request.responses, fields)
    fields = _merged(fields, extra)
    # Last, because neither the client nor the operator decides these.
    fields["model"], fields["stream"] = request.model, True
    fields.pop("background", None)
    if background:
        fields["background"] = fields["store"] = True
    return fields


def _merged(fields: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* with those of *over* in their places; `reasoning`, `text` and `include` are put together."""
    merged = {**fields, **over}
    for name in fields.keys() & over.keys():
        before = fields[name]
        after = over[name]
        if name in ("reasoning", "text") and isinstance(before, Mapping) and isinstance(after, Mapping):
            merged[name] = {**before, **after}
        elif name == "include" and isinstance(before, list) and isinstance(after, list):
            merged[name] = [*before, *(item for item in after if item not in before)]
    return merged


def _unsupported(name: str) -> Rejected:
    return Rejected(
        f"'{name}' cannot be said to this model's upstream, which speaks OpenAI's Responses API.", param=name
    )


def _expect(value: object, kind: type[T], name: str) -> T:
    """Return *value* if it is of *kind*. Raises Rejected, with the *name* of its field."""
    if not isinstance(value, kind):
        raise Rejected(f"'{name}' is not what OpenAI's chat completions have there.", param=name)
    return value


# Tools and formats: {"type": T, T: {…}} becomes {"type": T, …}.


def _flat(value: object, kind: str, name: str) -> dict[str, Any]:
    """Take what is under *kind*, the name of its own type, out of there. Its type stays what it was."""
    fields = _expect(value, dict, name)
    if fields.get("type") != kind:
        return dict(fields)
    return {**_expect(fields.get(kind), dict, f"{name}.{kind}"), "type": kind}


def _tool(tool: object, name: str) -> dict[str, Any]:
    kind = _expect(tool, dict, name).get("type")
    if kind == "function":
        # A chat's functions are lax if nothing is said of it, and Responses' are strict.
        fields = _flat(tool, kind, name)
        return fields | {"parameters": fields.get("parameters") or _NOTHING, "strict": fields.get("strict") or False}
    if kind != "custom":
        return _flat(tool, "", name)  # one of the upstream's own, such as web_search
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
        tools = _expect(fields.get("tools"), list, name)
        fields["tools"] = [_allowed(tool, name) for tool in tools]
    return fields


def _allowed(tool: object, name: str) -> dict[str, Any]:
    kind = _expect(tool, dict, name).get("type")
    # Any other has the form of Responses already.
    return _flat(tool, kind, name) if kind in ("function", "custom") else dict(_expect(tool, dict, name))


# Messages.


def _input(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    custom: set[str] = set()  # the ids of calls of custom tools, whose outputs are items of another type
    for index, message in enumerate(messages):
        name = f"messages[{index}]"
        role = message.get("role")
        if message.get("name") and role != "tool":
            raise _unsupported(f"{name}.name")
        if role == "assistant":
            items += _assistant(message, name, custom)
        elif role == "tool":
            id = _expect(message.get("tool_call_id"), str, f"{name}.tool_call_id")
            kind = "custom_tool_call_output" if id in custom else "function_call_output"
            items.append({"type": kind, "call_id": id, "output": _content(message, name, _input_part) or ""})
        elif role == "function":
            raise _unsupported(f"{name}.role")
        else:
            items.append({"role": role, "content": _content(message, name, _input_part) or ""})
    return items


def _assistant(message: Mapping[str, Any], name: str, custom: set[str]) -> list[dict[str, Any]]:
    for field in ("audio", "function_call"):
        if message.get(field):
            raise _unsupported(f"{name}.{field}")
    content = _content(message, name, _output_part)
    if isinstance(content, list):  # reasoning as a part is another upstream's
        content = [part for part in content if not is_thought(str(part.get("type")))]
    refusal = message.get("refusal")
    if refusal:
        said = [{"type": "output_text", "text": content}] if content and isinstance(content, str) else content or []
        content = [*said, {"type": "refusal", "refusal": _expect(refusal, str, f"{name}.refusal")}]
    items = _reasoning(message, name)
    phase = {"phase": message["phase"]} if isinstance(message.get("phase"), str) else {}
    items += [{"role": "assistant", "content": content, **phase}] if content else []
    for index, call in enumerate(_expect(message.get("tool_calls") or [], list, f"{name}.tool_calls")):
        where = f"{name}.tool_calls[{index}]"
        item = _call(_expect(call, dict, where), where)
        if item["type"] == "custom_tool_call":
            custom.add(item["call_id"])
        items.append(item)
    return items


def _reasoning(message: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the reasoning that only its upstream can read, and wants back before what followed from it.

    `reasoning_items` are Responses' own items. `reasoning_details` is how others write them down: ciphertext and
    summaries with the id of their item. Reasoning that is only text is left out: Responses take no such item back.
    """
    items = _expect(message.get("reasoning_items") or [], list, f"{name}.reasoning_items")
    own = [dict(item) for item in items if isinstance(item, Mapping) and item.get("encrypted_content")]
    if own:
        return [{"summary": [], **item, "type": "reasoning"} for item in own]
    details = _expect(message.get("reasoning_details") or [], list, f"{name}.reasoning_details")
    known = [detail for detail in details if isinstance(detail, Mapping)]
    summaries: dict[str, list[dict[str, Any]]] = {}
    for detail in known:
        if detail.get("type") == "reasoning.summary" and detail.get("summary"):
            summaries.setdefault(_id(detail), []).append({"type": "summary_text", "text": detail["summary"]})
    found: list[dict[str, Any]] = []
    for detail in known:
        if detail.get("type") == "reasoning.encrypted" and detail.get("data"):
            id = _id(detail)
            named = {"id": id} if id else {}
            summary = summaries.pop(id, [])  # one item has it: a copy for each would be quadratic
            found.append({"type": "reasoning", **named, "summary": summary, "encrypted_content": detail["data"]})
    return found


def _id(detail: Mapping[str, Any]) -> str:
    id = detail.get("id")
    return id if isinstance(id, str) else ""


def _call(call: Mapping[str, Any], name: str) -> dict[str, Any]:
    kind = "custom" if call.get("type") == "custom" else "function"
    item, field = ("custom_tool_call", "input") if kind == "custom" else ("function_call", "arguments")
    id = _expect(call.get("id"), str, f"{name}.id")
    tool = _expect(call.get(kind), dict, f"{name}.{kind}")
    return {
        "type": item,
        "call_id": id,
        "name": _expect(tool.get("name"), str, f"{name}.{kind}.name"),
        field: _expect(tool.get(field), str, f"{name}.{kind}.{field}"),
    }


def _content(
    message: Mapping[str, Any], name: str, part_of: Callable[[Mapping[str, Any], str], dict[str, Any]]
) -> str | list[dict[str, Any]] | None:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content
    parts = []
    for index, part in enumerate(_expect(content, list, f"{name}.content")):
        where = f"{name}.content[{index}]"
        parts.append(part_of(_expect(part, dict, where), where))
    return parts


def _input_part(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    rest = {field: value for field, value in part.items() if field not in ("type", "image_url", "file")}
    match part.get("type"):
        case "text":
            return {"type": "input_text", **rest}
        case "image_url":
            image = part.get("image_url")
            image = {"url": image} if isinstance(image, str) else _expect(image, dict, f"{name}.image_url")
            url = _expect(image.get("url"), str, f"{name}.image_url.url")
            return {"type": "input_image", "image_url": url, "detail": image.get("detail") or "auto", **rest}
        case "file":
            return {**_expect(part.get("file"), dict, f"{name}.file"), **rest, "type": "input_file"}
        case "refusal":
            raise _unsupported(name)
    return dict(part)  # `input_audio`, which both APIs have, and any part that is in Responses' words already


def _output_part(part: Mapping[str, Any], name: str) -> dict[str, Any]:
    if part.get("type") == "text":
        return {**part, "type": "output_text"}
    return dict(part)  # refusal
