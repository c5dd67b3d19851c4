"""Rules of models: each cap at its edge, what the service adds, and the ways around a cap that are closed."""

from __future__ import annotations

from typing import Any

import pytest

from app.edge.access.allow_list import AllowList
from app.edge.access.models import ModelPolicy, Rule
from app.errors import BadRequest, ModelNotAllowed
from app.request import StreamRequest

USER = {"role": "user", "content": "hello"}


def asked(*messages: Any, model: Any = "m", **parameters: Any) -> StreamRequest:
    return StreamRequest(model, messages or (USER,), parameters)


def admit(rule: Rule, request: StreamRequest) -> StreamRequest:
    return ModelPolicy({"m": rule}, None).admit(request)


def refused(rule: Rule, request: StreamRequest) -> str | None:
    with pytest.raises(BadRequest) as raised:
        admit(rule, request)
    assert "hello" not in raised.value.text
    return raised.value.param


def test_models() -> None:
    """A model without a rule is refused, or has the rest's; the error names the field and not the model."""
    assert ModelPolicy({"m": Rule()}, None).offers("m")
    with pytest.raises(ModelNotAllowed) as raised:
        ModelPolicy({"m": Rule()}, None).admit(asked(model="other"))
    assert (raised.value.param, "other" in raised.value.text) == ("model", False)
    with pytest.raises(BadRequest):
        ModelPolicy({"m": Rule()}, Rule(max_messages=1)).admit(asked(USER, USER, model="other"))


def test_no_rule_no_copy() -> None:
    """A request that nothing holds for passes as it is."""
    request = asked(temperature=1)
    assert ModelPolicy({}, Rule()).admit(request) is request
    assert admit(Rule(max_messages=1, max_prompt_chars=5), request) is request


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_output_tokens(name: str) -> None:
    """The cap holds for either field, and goes on in the one that upstream heeds; asking for more is refused."""
    rule = Rule(max_output_tokens=10)
    assert admit(rule, asked(**{name: 10})).parameters == {"max_completion_tokens": 10}
    assert admit(rule, asked(max_tokens=9, max_completion_tokens=8)).parameters == {"max_completion_tokens": 8}
    old = Rule(max_output_tokens=10, output_tokens_field="max_tokens")
    assert admit(old, asked(**{name: 3})).parameters == {"max_tokens": 3}
    assert refused(rule, asked(**{name: 11})) == name
    assert refused(rule, asked(**{"max_tokens": 1, "max_completion_tokens": 1, name: 11})) == name


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_output_tokens_not_asked_for(field: Any) -> None:
    """A request that does not say gets the cap, in the field that the upstream knows; the client's own stay."""
    rule = Rule(max_output_tokens=10, output_tokens_field=field)
    assert admit(rule, asked(temperature=1)).parameters == {"temperature": 1, field: 10}


def test_messages() -> None:
    """As many messages as the cap says pass, and no more."""
    assert len(admit(Rule(max_messages=2), asked(USER, USER)).messages) == 2
    assert refused(Rule(max_messages=2), asked(USER, USER, USER)) == "messages"


def test_prompt() -> None:
    """The cap holds for messages and parameters together; the error names the longest field, and the setting."""
    rule = Rule(max_prompt_chars=6)
    request = asked(stop="x")
    assert admit(rule, request) is request
    assert refused(rule, asked(stop="xy")) == "messages"
    assert refused(rule, asked(stop="too long")) == "stop"
    assert admit(Rule(max_prompt_chars=5, pinned={"stop": "y"}), request).parameters == {"stop": "y"}
    with pytest.raises(BadRequest, match="CHAT_SSE_MAX_PROMPT_CHARS"):
        admit(rule, asked(tools=[{"type": "function", "function": {"name": "f"}}]))


def test_allowed() -> None:
    """A rule may allow certain parameters only; a pinned one replaces even what the client may not send."""
    rule = Rule(allowed=AllowList(frozenset()), pinned={"service_tier": "flex"})
    assert refused(rule, asked(store=True)) == "store"
    assert admit(rule, asked(service_tier="priority")).parameters == {"service_tier": "flex"}


def test_pinned() -> None:
    """A pinned parameter replaces the client's, and is there if the client gave none; the request stays as it was."""
    rule = Rule(pinned={"temperature": 0.2, "store": False})
    request = asked(temperature=2, seed=1)
    assert admit(rule, request).parameters == {"temperature": 0.2, "store": False, "seed": 1}
    assert request.parameters == {"temperature": 2, "seed": 1}


def test_pinned_output_tokens() -> None:
    """Where one of the two token fields is pinned, neither of the client's goes upstream; the cap holds."""
    rule = Rule(max_output_tokens=10, pinned={"max_tokens": 7})
    assert admit(rule, asked(max_completion_tokens=9)).parameters == {"max_tokens": 7}
    assert refused(rule, asked(max_completion_tokens=11)) == "max_completion_tokens"


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system(role: str) -> None:
    """The server's system message goes first; a client's own is refused wherever it stands."""
    rule = Rule(system="Be kind.", max_messages=2, max_prompt_chars=10)
    assert admit(rule, asked(USER, USER)).messages == ({"role": "system", "content": "Be kind."}, USER, USER)
    own = {"role": role, "content": "no"}
    assert refused(rule, asked(own, USER)) == "messages[0].role"
    assert refused(rule, asked(USER, own)) == "messages[1].role"
    assert admit(Rule(), asked(own)).messages == (own,)


def test_what_is_the_operators() -> None:
    """A request says which of its texts the client is not to see: pinned ones, the system message, each line of it."""
    rule = Rule(pinned={"user": "team-7", "metadata": {"a": ["b"]}}, system="Be Marvin.\n\nHate diodes.")
    assert set(admit(rule, asked()).secrets) == {
        "team-7",
        "b",
        "Be Marvin.\n\nHate diodes.",
        "Be Marvin.",
        "Hate diodes.",
    }
    assert admit(Rule(max_output_tokens=5), asked()).secrets == ()


def test_what_is_the_operators_of_a_model() -> None:
    """It is known without a request, too, for a stream that another process has opened."""
    policy = ModelPolicy({"m": Rule(pinned={"user": "us"}, system="Be kind")}, Rule())
    assert policy.secrets("m") == policy.admit(asked()).secrets
    assert (policy.secrets("other"), ModelPolicy({}, None).secrets("other")) == ((), ())
