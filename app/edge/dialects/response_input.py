"""The input of a response, in the words of OpenAI's Responses → messages, tools and formats of chat completions.

The items that an assistant's turn is made of are one message, as chat completions have it: reasoning, text and calls.
What this service's own answer had in the opaque text of an item of reasoning, or in other fields of an item, goes back
into the fields of the message or the call that it came from. An upstream that speaks Responses gets the same request:
`app.upstream.responses.request` puts it back into items.

What neither form nor upstream can be told is refused by name. Items of tools that ran upstream are left out: no
upstream takes them back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.edge.dialects.openai_messages import add_fields, image_part, reasoning_field, string_of, wrong
from app.wire.opaque import is_of_reasoning, unseal
from app.wire.response_output import REASONING_FIELD

_ROLES = ("system", "developer", "user", "assistant")
_LEFT_OUT = ("web_search_call", "file_search_call", "code_interpreter_call", "mcp_list_tools", "mcp_call")
_OWN_OF_MESSAGE = frozenset(("id", "type", "role", "status", "content"))
_OWN_OF_CALL = frozenset(
    ("id", "type", "status", "call_id", "name", "arguments", "input", "namespace", "async", "caller", "created_by")
)
_OUTPUTS = ("function_call_output", "custom_tool_call_output")

Item = Mapping[str, Any]


def to_messages(given: str | Sequence[Item], instructions: str | None) -> list[dict[str, Any]]:
    """Return what *given*, the input, and *instructions* say to the model. Raises BadRequest, which names the field."""
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    turn = _Turn()
    for at, item in enumerate(given):
        where = f"input[{at}]"
        kind = item.get("type") or ("message" if "role" in item else "")
        if kind == "message" and item.get("role") != "assistant":
            messages += turn.end()
            messages.append(_message(item, where))
        elif kind in _OUTPUTS:
            messages += turn.end()
            output = _content(item.get("output"), f"{where}.output")
            messages.append({"role": "tool", "tool_call_id": string_of(item, "call_id", where), "content": output})
        elif kind == "message":
            messages += turn.message(item, where)
        elif kind == "reasoning":
            turn.reasoning(item, where)
        elif kind in ("function_call", "custom_tool_call"):
            turn.call(item, where)
        elif kind == "image_generation_call":
            turn.image(item)
        elif kind not in _LEFT_OUT:
            raise wrong(f"{where}.type", "is not a type of an item that this service takes")
    return [*messages, *turn.end()]


class _Turn:
    """What an assistant says before any other speaker."""

    def __init__(self) -> None:
        self._content: list[dict[str, Any]] = []
        self._texts: dict[str, list[str]] = {}  # fields of the message, in pieces
        self._fields: dict[str, Any] = {}  # other fields of it
        self._calls: list[dict[str, Any]] = []

    def message(self, item: Item, where: str) -> list[dict[str, Any]]:
        """Take a message. Return the one before it, if there is one, and calls do not keep the two together."""
        before = self.end() if self._content and not self._calls else []
        content = _content(item.get("content"), f"{where}.content")
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part.get("type") == "refusal":
                self._texts.setdefault("refusal", []).append(str(part.get("refusal", "")))
            else:
                self._content.append(part)
        add_fields(self._fields, {name: value for name, value in item.items() if name not in _OWN_OF_MESSAGE})
        return before

    def reasoning(self, item: Item, where: str) -> None:
        """Take reasoning: its text, and what the upstream wants back; of another service, the item itself."""
        own = unseal(item.get("encrypted_content"))
        if own is None and item.get("encrypted_content"):
            add_fields(self._fields, {"reasoning_items": [dict(item)]})
            return
        own = own or {}
        name = own.pop(REASONING_FIELD, None)
        field = reasoning_field(name)
        parts = [part for name in ("summary", "content") for part in _list(item, name, where)]
        text = "".join([part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)])
        if text:
            self._texts.setdefault(field, []).append(text)
        add_fields(self._fields, own)

    def call(self, item: Item, where: str) -> None:
        """Take a call of a tool, with the upstream's other fields of it."""
        kind, field = ("custom", "input") if item["type"] == "custom_tool_call" else ("function", "arguments")
        more = {name: value for name, value in item.items() if name not in _OWN_OF_CALL}
        called = {"name": string_of(item, "name", where), field: string_of(item, field, where)}
        self._calls.append({**more, "id": string_of(item, "call_id", where), "type": kind, kind: called})

    def image(self, item: Item) -> None:
        """Take an image that the model has made."""
        if isinstance(item.get("result"), str) and item["result"]:
            url = f"data:image/{item.get('output_format') or 'png'};base64,{item['result']}"
            add_fields(self._fields, {"images": [image_part(url)]})

    def end(self) -> list[dict[str, Any]]:
        """Return the message, if there is one, and begin another."""
        content = _joined(self._content)
        calls = {"tool_calls": self._calls} if self._calls else {}
        fields = {**{name: "".join(pieces) for name, pieces in self._texts.items()}, **self._fields}
        self._content = []
        self._texts = {}
        self._fields = {}
        self._calls = []
        if not (content or calls or fields.get("refusal") or "images" in fields or "audio" in fields):
            return []
        own = ("role", "content", "tool_calls", "tool_call_id", "name", "function_call")
        more = {name: value for name, value in fields.items() if name not in own}
        return [{"role": "assistant", "content": content or None, **more, **calls}]


def _list(item: Item, name: str, where: str) -> list[Any]:
    value = item.get(name) or []
    if not isinstance(value, list):
        raise wrong(f"{where}.{name}", "has to be a list")
    return value


def _message(item: Item, where: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in _ROLES:
        raise wrong(f"{where}.role", f"is one of: {', '.join(_ROLES)}")
    return {"role": role, "content": _content(item.get("content"), f"{where}.content")}


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    """Return content as chat completions have it: as a string, if it is only text, which every upstream takes."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise wrong(where, "has to be a string or a list of parts")
    return _joined([_part(part, f"{where}[{at}]") for at, part in enumerate(content)])


def _joined(parts: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if all(part.keys() <= {"type", "text"} and part.get("type") == "text" for part in parts):
        return "".join([part["text"] for part in parts])
    return parts


def _part(part: Item, where: str) -> dict[str, Any]:
    """Return a part in the words of chat completions; one that these lack stays as it is."""
    kind = part.get("type")
    match kind:
        case "input_text" | "output_text" | "text" | "summary_text":
            more = {name: value for name, value in part.items() if kind == "output_text" and is_of_reasoning(name)}
            return {**more, "type": "text", "text": string_of(part, "text", where)}
        case "input_image" if part.get("image_url"):
            detail = {"detail": part["detail"]} if part.get("detail") else {}
            return {"type": "image_url", "image_url": {"url": string_of(part, "image_url", where), **detail}}
        case "input_file" if not part.get("file_url"):
            return {"type": "file", "file": {name: value for name, value in part.items() if name != "type"}}
        case str():
            return dict(part)
    raise wrong(f"{where}.type", "has to say what the part is")


# Tools, and formats: {"type": T, …} becomes {"type": T, T: {…}}.


def to_tool(tool: Item) -> dict[str, Any]:
    """Return a tool as chat completions have it; one of the upstream's own as it is."""
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        return dict(tool)
    fields = {name: value for name, value in tool.items() if name != "type" and value is not None}
    if kind == "custom" and isinstance(fields.get("format"), dict) and fields["format"].get("type") == "grammar":
        fields["format"] = _nested(fields["format"], "grammar")
    return {"type": kind, kind: fields}


def to_choice(choice: Any) -> Any:
    """Return a `tool_choice` as chat completions have it."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind in ("function", "custom"):
        return _nested(choice, kind)
    if kind == "allowed_tools":
        tools = choice.get("tools")
        allowed = [to_tool(tool) for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
        return _nested({**choice, "tools": allowed}, kind)
    return choice


def to_response_format(given: Any) -> dict[str, Any] | None:
    """Return a `text.format` as a `response_format`, or None for plain text."""
    if not isinstance(given, dict) or given.get("type") == "text":
        return None
    if given.get("type") != "json_schema":
        return dict(given)
    return _nested({name: value for name, value in given.items() if value is not None}, "json_schema")


def _nested(fields: Item, kind: str) -> dict[str, Any]:
    return {"type": kind, kind: {name: value for name, value in fields.items() if name != "type"}}
