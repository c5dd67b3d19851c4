"""The transcript: an answer put together from its events."""

from __future__ import annotations

from app.events import Delta, Done, Failure, Logprobs, Media, PlainReasoning, Reasoning, Refusal, Start, ToolCall
from app.wire.transcript import Call, Transcript, call_id

STOP = Done("stop", model="real")


def test_nothing() -> None:
    """A stream without a record has nothing in it, and no end."""
    assert Transcript.of([]) == Transcript()


def test_texts() -> None:
    """Texts of a kind are joined, each kind apart."""
    transcript = Transcript.of([Reasoning("h"), Delta("a"), Reasoning("m"), Refusal("no"), Delta("b")])
    assert (transcript.content, transcript.reasoning, transcript.refusal) == ("ab", "hm", "no")
    assert transcript.records == 5


def test_calls() -> None:
    """Pieces of parallel calls are put together, in the order in which the calls began; a name may come late."""
    pieces = [
        ToolCall(0, "c", "", "{"),
        ToolCall(1, "d", "g", ""),
        ToolCall(0, "", "f", ""),
        ToolCall(0, "", "", "}"),
    ]
    calls = Transcript.of(pieces).calls
    assert [(call.index, call.id, call.name, call.arguments) for call in calls] == [
        (0, "c", "f", "{}"),
        (1, "d", "g", ""),
    ]


def test_a_name_in_pieces() -> None:
    """The pieces of a call's name are joined; a custom call stays one."""
    pieces = [ToolCall(0, "c", "mcp__", "", "custom"), ToolCall(0, "", "get", "", "custom")]
    [call] = Transcript.of(pieces).calls
    assert (call.name, call.type) == ("mcp__get", "custom")


def test_media_between_texts() -> None:
    """Media keep their places between the texts, and the content is the texts alone."""
    one, two = Media("image", "image/png", "a"), Media("image", "image/png", "b")
    transcript = Transcript.of([Delta("a"), Delta("b"), one, two, Delta("c")])
    assert transcript.parts == ["ab", one, two, "c"]
    assert (transcript.content, transcript.media) == ("abc", [one, two])


def test_the_name_of_the_reasoning() -> None:
    """The reasoning keeps the name that the upstream gave it."""
    assert Transcript.of([Reasoning("h")]).reasoning_field == "reasoning_content"
    transcript = Transcript.of([PlainReasoning("h"), PlainReasoning("m")])
    assert (transcript.reasoning, transcript.reasoning_field) == ("hm", "reasoning")


def test_a_call_without_an_id() -> None:
    """A call without an id gets one from its stream and its place; an id that came stays."""
    assert [call_id("S", Call(2)), call_id("S", Call(2, "c"))] == ["call_S_2", "c"]


def test_logprobs() -> None:
    """Log probabilities are joined, those of the content and those of a refusal apart."""
    transcript = Transcript.of([Logprobs([{"token": "a"}]), Logprobs([{"token": "b"}], [{"token": "c"}])])
    assert transcript.content_logprobs == [{"token": "a"}, {"token": "b"}]
    assert transcript.refusal_logprobs == [{"token": "c"}]


def test_model() -> None:
    """The model is the one that was asked for until the upstream names another."""
    assert Transcript.of([Start("m", 7)]).model == "m"
    assert Transcript.of([Start("m", 7), STOP]).model == "real"
    assert Transcript.of([Start("m", 7), Done("stop")]).model == "m"


def test_end() -> None:
    """The terminal record is kept; until then there is none."""
    broken = Failure("Broke.", "t", "c", True, 502)
    assert [Transcript.of([Start("m", 7), *end]).end for end in ([], [STOP], [broken])] == [None, STOP, broken]
