"""What may be asked: which models, how much of them, and what the server says in the client's stead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from app.edge.bodies import Parameters
from app.errors import BadRequest, ModelNotAllowed
from app.request import StreamRequest

TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
_SERVERS_OWN = ("system", "developer")
# Parameters that are read by the model, and paid for as the messages are.
_PROMPTING = ("tools", "response_format", "prediction")
# All others of OpenAI's are not; of parameters that we do not know, who can tell?
_OPENAIS = frozenset(Parameters.model_fields)
# Parts whose payload is no text, and how long the word may be that says what a part is.
_MEDIA = ("image_url", "input_audio")
_LONGEST_TYPE = 32


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for a model; 0 is no cap.

    *max_output_tokens* bounds what a request may ask for in either of TOKEN_FIELDS; one that does not say gets it, in
    *output_tokens_field*. *max_prompt_chars* are characters of all that the model reads as text. *pinned* parameters
    replace the client's, the caps notwithstanding. *system* goes first, and then no message of the client's may be one.
    """

    max_output_tokens: int = 0
    max_messages: int = 0
    max_prompt_chars: int = 0
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""

    def apply(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes upstream. Raises BadRequest."""
        if self.max_messages and len(request.messages) > self.max_messages:
            raise BadRequest(f"'messages': at most {self.max_messages} are taken.", param="messages")
        if self.max_prompt_chars and _characters(request) > self.max_prompt_chars:
            raise BadRequest(
                f"'messages': at most {self.max_prompt_chars} characters are taken, with tools and response format.",
                param="messages",
            )
        parameters = self._parameters(request.parameters) if self.max_output_tokens or self.pinned else None
        messages = self._messages(request.messages) if self.system else None
        if parameters is None and messages is None:
            return request
        return replace(
            request,
            parameters=request.parameters if parameters is None else parameters,
            messages=request.messages if messages is None else messages,
        )

    def _parameters(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(asked)
        for name in TOKEN_FIELDS:
            if 0 < self.max_output_tokens < parameters.get(name, 0):
                raise BadRequest(f"'{name}': at most {self.max_output_tokens} tokens are given.", param=name)
        if any(name in self.pinned for name in TOKEN_FIELDS):
            for name in TOKEN_FIELDS:  # the client's other one would contradict it
                parameters.pop(name, None)
        elif self.max_output_tokens:
            # In the one field that upstream heeds, whichever the client used.
            given = [parameters.pop(name) for name in TOKEN_FIELDS if name in parameters]
            parameters[self.output_tokens_field] = min(given, default=self.max_output_tokens)
        parameters.update(self.pinned)
        return parameters

    def _messages(self, asked: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        for index, message in enumerate(asked):
            if message.get("role") in _SERVERS_OWN:
                param = f"messages[{index}].role"
                raise BadRequest(f"'{param}': this model's system message is the service's own.", param=param)
        return ({"role": "system", "content": self.system}, *asked)


class ModelPolicy:
    """The rules of all models. *rest* holds for those that have none of their own; None: they are not offered."""

    def __init__(self, rules: Mapping[str, Rule], rest: Rule | None) -> None:
        self._rules = dict(rules)
        self._rest = rest

    def __repr__(self) -> str:
        return f"<ModelPolicy {len(self._rules)} rules, the rest {'refused' if self._rest is None else 'taken'}>"

    def offers(self, model: str) -> bool:
        """Whether *model* may be asked for."""
        return self._rules.get(model, self._rest) is not None

    def admit(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes upstream. Raises ModelNotAllowed or BadRequest."""
        rule = self._rules.get(request.model, self._rest)
        if rule is None:
            raise ModelNotAllowed(param="model")
        return rule.apply(request)


def _characters(request: StreamRequest) -> int:
    """Count what the model reads. Not the text parts alone, or a client would put its text elsewhere."""
    messages = sum(len(text) for message in request.messages for text in _texts(message))
    others = (value for name, value in request.parameters.items() if name in _PROMPTING or name not in _OPENAIS)
    return messages + sum(len(text) for value in others for text in _texts(value, keys=True))


def _texts(value: object, *, keys: bool = False) -> Iterator[str]:
    """Yield the strings in *value*; *keys*: the names in it, too, as they are the caller's own in a schema."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if keys:
                yield name
            elif name in _MEDIA or (name in ("role", "type") and isinstance(item, str) and len(item) <= _LONGEST_TYPE):
                continue
            yield from _texts(item, keys=keys)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, keys=keys)
