"""What a configuration says: whom to ask for what, and to whom it is offered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from app.composition.settings import Kind
from app.edge.access.models import Rule
from app.request import Allowance


@dataclass(frozen=True, slots=True)
class Upstream:
    """One to ask. *models* are those it may be asked for; none is any.

    *kind* is the module of `app.upstream` that knows what it speaks; *background* is `OpenAIResponses`'s. *key_env* is
    the variable that the key came from, or "". *connect_timeout* is None where the setting holds; 0 is no limit, as it
    is for *first_token_timeout*. What may be secret is not in the repr.
    """

    name: str
    base_url: str
    key: str | None = field(default=None, repr=False)
    key_env: str = ""
    models: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    extra_body: Mapping[str, Any] = field(default_factory=dict, repr=False)
    connect_timeout: float | None = None
    first_token_timeout: float = 0.0
    kind: Kind = "openai-chat"
    background: bool = False


class Hop(NamedTuple):
    """A place in a route. *model* is the upstream's own name for the model, None for the one that the client uses."""

    upstream: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Model:
    """One that is offered. A cap that is None is the settings'; see `Rule` for the rest."""

    name: str
    route: tuple[Hop, ...]
    max_output_tokens: int | None = None
    max_messages: int | None = None
    max_prompt_chars: int | None = None
    output_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    pinned: Mapping[str, Any] = field(default_factory=dict)
    system: str = field(default="", repr=False)

    def rule(self, caps: Rule) -> Rule:
        """Return what holds for it, the caps that it does not give being those of *caps*."""
        return Rule(
            caps.max_output_tokens if self.max_output_tokens is None else self.max_output_tokens,
            caps.max_messages if self.max_messages is None else self.max_messages,
            caps.max_prompt_chars if self.max_prompt_chars is None else self.max_prompt_chars,
            self.output_tokens_field,
            self.pinned,
            self.system,
        )


class Key(NamedTuple):
    """An API key: the SHA-256 of it, and its limits; None is what the settings say."""

    name: str
    sha256: bytes
    requests: int | None = None
    streams: int | None = None
    readers: int | None = None
    tokens: int | None = None

    def allowance(self, default: Allowance) -> Allowance:
        """Return its limits, those that it does not give being those of *default*."""
        given = {name: value for name in Allowance._fields if (value := getattr(self, name)) is not None}
        return default._replace(**given)


@dataclass(frozen=True, slots=True)
class Config:
    """Whom to ask for what. *file* is where it was read from, "" if the settings alone made it."""

    upstreams: tuple[Upstream, ...]
    models: tuple[Model, ...] = ()
    keys: tuple[Key, ...] = ()
    file: str = ""

    @property
    def offered(self) -> tuple[str, ...]:
        """The names of the models that are known by name, each once."""
        if self.models:
            return tuple(model.name for model in self.models)
        return tuple(dict.fromkeys(model for upstream in self.upstreams for model in upstream.models))

    @property
    def routes(self) -> dict[str, tuple[Hop, ...]]:
        """Whom to ask for each of those, in order."""
        if self.models:
            return {model.name: model.route for model in self.models}
        return {name: all_with(name, self.upstreams) for name in self.offered}

    @property
    def rest(self) -> tuple[Hop, ...]:
        """Whom to ask for any other model; nobody, if no other is offered."""
        return () if self.models else tuple(Hop(upstream.name) for upstream in self.upstreams if not upstream.models)


def all_with(model: str, upstreams: Sequence[Upstream]) -> tuple[Hop, ...]:
    """Return the route over all upstreams that have *model*, or any; in their order."""
    return tuple(Hop(upstream.name) for upstream in upstreams if not upstream.models or model in upstream.models)
