"""Which models clients may ask for, the caps on their requests, and what the service adds to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

from app.edge.access.allow_list import ANYTHING, AllowList
from app.edge.access.prompt import prompt_sizes
from app.edge.bodies import TOKEN_FIELDS
from app.errors import BadRequest, ModelNotAllowed
from app.request import StreamRequest, texts_in

_SYSTEM_ROLES = ("system", "developer")


@dataclass(frozen=True)
class Rule:
    """What holds for requests of one model. 0 is no cap.

    *max_output_tokens* bounds what a request may ask for in either of TOKEN_FIELDS. A request without either gets
    the cap in *output_tokens_field*. *max_prompt_chars* counts what `prompt_sizes` does. *allowed* says what else a
    request may have in it. *pinned* parameters replace the client's, whatever the rest of the rule says of these. A
    *system* message goes first; with one, the client may not send any.
    """

    max_output_tokens: int = 0
    max_messages: int = 0
    max_prompt_chars: int = 0
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    allowed: AllowList = ANYTHING

    def apply(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes to the upstream. Raises BadRequest."""
        if self.max_messages and len(request.messages) > self.max_messages:
            raise BadRequest(
                f"'messages': at most {self.max_messages} are taken (CHAT_SSE_MAX_MESSAGES).", param="messages"
            )
        asked = {name: value for name, value in request.parameters.items() if name not in self.pinned}
        self.allowed.check(request.messages, asked)
        self.allowed.check_responses(request.responses)
        if self.max_prompt_chars:
            self._check_prompt(prompt_sizes(request.messages, {**request.responses, **asked}))
        if self.max_output_tokens or self.pinned:
            request = replace(request, parameters=self._parameters(request.parameters))
        if self.system:
            request = replace(request, messages=self._messages(request.messages))
        if self._limit_field != request.output_tokens_field:
            request = replace(request, output_tokens_field=self._limit_field)
        return replace(request, secrets=self.secrets) if self.secrets else request

    def _check_prompt(self, sizes: Mapping[str, int]) -> None:
        if sum(sizes.values()) > self.max_prompt_chars:
            longest = max(sizes, key=sizes.__getitem__)
            raise BadRequest(
                f"'{longest}': at most {self.max_prompt_chars} characters are taken, in messages and parameters "
                "together (CHAT_SSE_MAX_PROMPT_CHARS).",
                param=longest,
            )

    @cached_property
    def secrets(self) -> tuple[str, ...]:
        """What of a request is the operator's: pinned values, the system message, and each line of that."""
        return (*texts_in(self.pinned), *({self.system, *self.system.splitlines()} - {""}))

    @cached_property
    def _limit_field(self) -> str:
        """The field in which the upstream takes a limit: the one that is pinned, if one is."""
        return next((name for name in TOKEN_FIELDS if name in self.pinned), self.output_tokens_field)

    def _parameters(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        parameters = dict(asked)
        for name in TOKEN_FIELDS:
            if 0 < self.max_output_tokens < parameters.get(name, 0):
                raise BadRequest(
                    f"'{name}': at most {self.max_output_tokens} tokens are given (CHAT_SSE_MAX_OUTPUT_TOKENS).",
                    param=name,
                )
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

    def secrets(self, model: str) -> tuple[str, ...]:
        """Return what of a request for *model* is the operator's, as `StreamRequest.secrets` has it."""
        rule = self._rules.get(model, self._rest)
        return () if rule is None else rule.secrets

    def admit(self, request: StreamRequest) -> StreamRequest:
        """Return *request* as it goes to the upstream. Raises ModelNotAllowed or BadRequest."""
        rule = self._rules.get(request.model, self._rest)
        if rule is None:
            raise ModelNotAllowed(param="model")
        return rule.apply(request)
