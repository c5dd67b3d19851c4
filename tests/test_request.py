"""Who asks, and for what: how a principal's requests are counted, and the texts of a request."""

from __future__ import annotations

from types import MappingProxyType

import pytest

from app.request import ANYONE, Principal, StreamRequest, keyed_hash, texts_in


def test_counted_as() -> None:
    """A principal's requests are counted under 32 hex digits that depend on its name and do not reveal it."""
    names = ("", "key:web", "jwt:ä", "jwt:\ud800")
    accounts = {Principal(name).counted_as() for name in names}
    assert len(accounts) == len(names)
    for account in accounts:
        assert len(account) == 32
        assert int(account, 16) >= 0
    assert ANYONE.counted_as() == Principal("").counted_as() == keyed_hash("")
    assert {Principal(name).owner for name in names} == {"", *accounts} - {ANYONE.counted_as()}
    assert keyed_hash("key:web", b"a key") not in {*accounts, keyed_hash("key:web", b"another")}


@pytest.mark.parametrize("stream_id", ["", "s" * 22])
def test_a_ticket_counts_as_its_owner(stream_id: str) -> None:
    """The requests of a principal with an account are counted under that account."""
    assert Principal("ticket:s", stream_id=stream_id, account="a1b2").counted_as() == "a1b2"


def test_texts() -> None:
    """All texts of a value are found, at any depth and in any collection, but the names of fields are none."""
    value = {"a": "one", "b": [1, None, ("two", MappingProxyType({"c": [["three"]]}))]}
    assert sorted(texts_in(value)) == ["one", "three", "two"]
    assert list(texts_in("one")) == ["one"]
    assert sorted(texts_in(value, names=True)) == ["a", "b", "c", "one", "three", "two"]


def test_words() -> None:
    """A request's words are its names and short texts, those of the model and the parameters first, up to a bound."""
    tool = {"function": {"name": "look_up", "parameters": {"properties": {"hf_name": {}}}}}
    message = {"role": "user", "content": "hi"}
    words = list(StreamRequest("a-model", (message, {"content": "x" * 1025}), {"tools": [tool]}).words())
    assert words[0] == "a-model"
    assert {"tools", "look_up", "hf_name", "user", "content", "hi"} < set(words)
    assert "x" * 1025 not in words
    many = [*StreamRequest("a-model", ({"content": ["y" * 1024] * 999},), {"tools": [tool]}).words()]
    assert (words[0], "look_up" in many, sum(map(len, many)) <= 64 * 1024) == ("a-model", True, True)
