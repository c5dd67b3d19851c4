"""OpenAI's bodies: taken as they are, but for what a stream of text cannot carry, which is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.edge.bodies import Defaults
from app.edge.dialects.openai_requests import Completion, parse_completion
from app.errors import BadRequest
from app.request import StreamRequest

DEFAULTS = Defaults(model="default", chunk="auto", grace=10, max_grace=60)
MESSAGES = [{"role": "user", "content": "hi"}]


def parse(headers: dict[str, str] | None = None, **body: Any) -> Completion:
    return parse_completion({"messages": MESSAGES, **body}, headers or {}, DEFAULTS)


def refused(headers: dict[str, str] | None = None, **body: Any) -> BadRequest:
    with pytest.raises(BadRequest) as raised:
        parse(headers, **body)
    return raised.value


def test_the_least() -> None:
    """Messages are enough: the model and the rest have defaults, and the answer is no stream."""
    request = StreamRequest("default", tuple(MESSAGES), {}, "auto", 10)
    assert parse() == Completion(request, stream=False, include_usage=False, smooth=0)
    assert parse(model=None, stream=None, stream_options=None, temperature=None) == parse()


def test_parameters() -> None:
    """OpenAI's parameters, and those that nobody knows, go upstream as they are; what is about the answer does not."""
    known: dict[str, Any] = {
        "temperature": 0,
        "tools": [{"type": "function"}],
        "response_format": {"type": "json_object"},
        "n": 1,
    }
    unknown: dict[str, Any] = {"top_k": 5, "chat_template_kwargs": {"enable_thinking": False}, "min_p": None}
    mine: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": True},
        "model": "m",
    }
    asked = parse(**known, **unknown, **mine, modalities=["text"])
    assert asked.request.parameters == {**known, **unknown, "modalities": ["text"]}
    assert (asked.request.model, asked.stream, asked.include_usage) == ("m", True, True)


def test_known_parameters_are_checked() -> None:
    """What is wrong is refused as it is in the native dialect, by its name."""
    wrong = {"temperature": 3, "n": 2, "stream": 1, "model": "", "messages": [], "tools": {}}
    for field, value in wrong.items():
        assert refused(None, **{field: value}).param == field
    assert refused(messages=[{"content": "x"}]).param == "messages[0].role"
    assert refused(stream_options={"include_usage": "yes"}).param == "stream_options.include_usage"
    with pytest.raises(BadRequest, match="'messages'"):
        parse_completion({}, {}, DEFAULTS)
    with pytest.raises(BadRequest, match="object"):
        parse_completion([], {}, DEFAULTS)


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ({"functions": [{"name": "f"}]}, "'tools'"),
        ({"function_call": "auto"}, "'tool_choice'"),
        ({"audio": {"voice": "alloy"}}, "text"),
        ({"modalities": ["text", "audio"]}, "text"),
    ],
)
def test_what_cannot_be_had(body: dict[str, Any], hint: str) -> None:
    """What the answer could not carry is refused, and it says what to do instead; null is not there."""
    (field,) = body
    error = refused(**body)
    assert str(error.param).partition("[")[0] == field
    assert hint in error.text
    assert parse(**{field: None}) == parse()


def test_unknown_names_have_a_bound() -> None:
    """What is passed on unseen is not without a bound, nor said again."""
    for names in ([f"p{number}" for number in range(128)], ["x" * 65], ["a\nb"], [""]):
        error = refused(None, **dict.fromkeys(names, 1))
        assert error.param is None
        assert len(error.text) < 120
        assert "\n" not in error.text
    most = {f"p{number}": 1 for number in range(127)}  # beside the messages
    assert parse(None, **most).request.parameters == most


def test_headers() -> None:
    """Cut and policy, which OpenAI does not have, are headers; what is wrong with one is said by its name."""
    asked = parse({"X-Chunk": "word,80ms,smooth:300", "X-On-Disconnect": "cancel"})
    assert (asked.request.chunk, asked.smooth, asked.request.grace) == ("word,80ms", 0.3, 0)
    assert refused({"X-Chunk": "paragraph"}).param == "X-Chunk"
    for policy in ("maybe", "", "grace:61"):
        error = refused({"X-On-Disconnect": policy})
        assert (error.param, "'X-On-Disconnect'" in error.text) == ("X-On-Disconnect", True)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
fields = st.sampled_from(["messages", "stream", "stream_options", "functions", "modalities", "model", "n", "x", "\n"])


@given(st.dictionaries(fields, json_values, max_size=4) | json_values)
def test_any_body_is_taken_or_refused(body: Any) -> None:
    """No JSON whatever makes parsing fail in any other way than BadRequest."""
    if isinstance(body, dict):
        body.setdefault("messages", MESSAGES)
    try:
        assert isinstance(parse_completion(body, {}, DEFAULTS), Completion)
    except BadRequest as error:
        assert len(error.text) < 500


def test_extra_parameters() -> None:
    """Where the service names the parameters that it passes on beyond OpenAI's, any other is refused by name."""
    defaults = Defaults("m", "auto", 1.0, 10.0, frozenset({"top_k"}))
    body = {"messages": [{"role": "user", "content": "x"}], "top_k": 3, "temperature": 0.5}
    assert parse_completion(body, {}, defaults).request.parameters == {"top_k": 3, "temperature": 0.5}
    with pytest.raises(BadRequest) as caught:
        parse_completion(body | {"models": ["n"]}, {}, defaults)
    assert caught.value.param == "models"
