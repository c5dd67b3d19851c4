"""Which models clients may ask for, the caps on their requests, and what the service adds to them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from app.edge.bodies import TOKEN_FIELDS, Parameters
from app.errors import BadRequest, ModelNotAllowed
from app.request import StreamRequest, texts_in

_SYSTEM_ROLES = ("system", "developer")
# The model reads these parameters as text, and they are paid for as the messages are. It does not read OpenAI's other
# parameters. Parameters that are not OpenAI's are counted, because it may read them.
_PROMPTING = ("tools", "response_format", "prediction")
_OPENAIS = frozenset(Parameters.model_fields)
# The payload of these parts is no text. A longer "type" than this is no type, but text that a client hides there.
_MEDIA = ("image_url", "input_audio")
_MAX_TYPE = 32


@dataclass(frozen=True)
class Rule:
    """What holds for requests of one model. 0 is no cap.

    *max_output_tokens* bounds what a request may ask for in either of TOKEN_FIELDS. A request without either gets
    the cap in *output_tokens_field*. *max_prompt_chars* counts the characters of everything that the model reads as
    text. *pinned* parameters replace the client's, whatever the caps are. A *system* message goes first; with one, the
    client may not send any.
    """

    max_output_tokens: int = 0
    max_messages: int = 0
    max_prompt_chars: int = 0
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""

    def apply(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes to the upstream. Raises BadRequest."""
        if self.max_messages and len(request.messages) > self.max_messages:
            raise BadRequest(f"'messages': at most {self.max_messages} are taken.", param="messages")
        if self.max_prompt_chars and _characters(request) > self.max_prompt_chars:
            raise BadRequest(
                f"'messages': at most {self.max_prompt_chars} characters are taken, with tools and response format.",
                param="messages",
            )
        if self.max_output_tokens or self.pinned:
            request = replace(request, parameters=self._parameters(request.parameters))
        if self.system:
            request = replace(request, messages=self._messages(request.messages))
        return replace(request, secrets=self._secrets) if self._secrets else request

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        """What of a request is the operator's: pinned values, the system message, and each line of that."""
        return (*texts_in(self.pinned), *({self.system, *self.system.splitlines()} - {""}))

    def _parameters(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(asked)
        for name in TOKEN_FIELDS:
            if 0 < self.max_output_tokens < parameters.get(name, 0):
                raise BadRequest(f"'{name}': at most {self.max_output_tokens} tokens are given.", param=name)
        if any(name in self.pinned for name in TOKEN_FIELDS):
            for name in TOKEN_FIELDS:  # the other one, if the client sent it, would contradict the pinned one
                parameters.pop(name, None)
        elif self.max_output_tokens:
            # The cap goes into the field that the upstream heeds, whichever field the client used.
            given = [parameters.pop(name) for name in TOKEN_FIELDS if name in parameters]
            parameters[self.output_tokens_field] = min(given, default=self.max_output_tokens)
        parameters.update(self.pinned)
        return parameters

    def _messages(self, asked: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        for index, message in enumerate(asked):
            if message.get("role") in _SYSTEM_ROLES:
                param = f"messages[{index}].role"
                raise BadRequest(f"'{param}': this model's system message is the service's own.", param=param)
        return ({"role": "system", "content": self.system}, *asked)


class ModelPolicy:
    """The rules of all models. *rest* is for models without a rule of their own; None means they are not offered."""

    def __init__(self, rules: Mapping[str, Rule], rest: Rule | None) -> None:
        self._rules = dict(rules)
        self._rest = rest

    def offers(self, model: str) -> bool:
        """Return whether clients may ask for *model*."""
        return self._rules.get(model, self._rest) is not None

    def admit(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes to the upstream. Raises ModelNotAllowed or BadRequest."""
        rule = self._rules.get(request.model, self._rest)
        if rule is None:
            raise ModelNotAllowed(param="model")
        return rule.apply(request)


def _characters(request: StreamRequest) -> int:
    """Count the characters that the model reads, in all fields: a client could put its text into any of them."""
    messages = sum(len(text) for message in request.messages for text in _texts(message))
    others = (value for name, value in request.parameters.items() if name in _PROMPTING or name not in _OPENAIS)
    return messages + sum(len(text) for value in others for text in _texts(value, keys=True))


def _texts(value: object, *, keys: bool = False) -> Iterator[str]:
    """Yield the strings in *value*; with *keys*, its names, too, which in a schema are the client's words."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if keys:
                yield name
            elif name in _MEDIA or (name in ("role", "type") and isinstance(item, str) and len(item) <= _MAX_TYPE):
                continue
            yield from _texts(item, keys=keys)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, keys=keys)
