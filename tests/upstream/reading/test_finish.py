"""What upstreams call the ways in which an answer ends."""

from __future__ import annotations

from typing import Any

import pytest

from app.upstream.reading.finish import FAILED, has_failed, read_finish


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop", ("stop", "STOP", "eos_token", "endTurn", "stop-sequence", "FinishReason.STOP", "REASON_COMPLETE")),
        ("length", ("length", "MAX_TOKENS", "max_output_tokens", "model_context_window_exceeded")),
        ("length", ("repetition", "repetition_truncation")),
        ("tool_calls", ("tool_calls", "function_call", "tool-use", "FINISH_REASON_TOOL_CALLS")),
        ("content_filter", ("content_filter", "SAFETY", "refusal", "guardrail_intervened", "MODEL_ARMOR")),
        ("unknown", ("unknown",)),
        (FAILED, ("error", "abort", "insufficient_system_resource", "MALFORMED_FUNCTION_CALL", "timeout")),
        (FAILED, ("api_error", "overloaded", "connection_error", "error_max_turns", "FinishReason.MALFORMED_RESPONSE")),
        ("", ("null", "NOT_FINISHED", "FINISH_REASON_UNSPECIFIED", "in_progress")),
        ("other", ("pause_turn", "?", "stopx")),
    ],
)
def test_words(reason: str, said: tuple[str, ...]) -> None:
    """A word means the same in any case, with any separators and as a member of an enumeration (rows C20, E11)."""
    assert [read_finish(word) for word in said] == [(reason, word) for word in said]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("content_filter: PROHIBITED_CONTENT", "content_filter"),
        ("content_filter: A_NEW_ONE", "content_filter"),
        ("something: MAX_TOKENS", "length"),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", FAILED),
        ("function_call_filter: A_NEW_ONE", FAILED),
        ("error: upstream died", FAILED),
        ("stop: error", FAILED),
        ("FinishReason:STOP", "stop"),
        ("null: null", "other"),
        ("a: b: c", "other"),
    ],
)
def test_more_after_a_colon(said: str, reason: str) -> None:
    """Of two parts the first one that is known counts, and a failure before that (rows C35, E11)."""
    assert read_finish(said) == (reason, said)


@pytest.mark.parametrize("said", [None, "", 3, True, [], ["stop"], {}, {"type": 3}])
def test_no_reason(said: Any) -> None:
    """What is no text is no reason yet."""
    assert read_finish(said) == ("", "")


@pytest.mark.parametrize("said", [{"type": "length", "length": 16}, {"reason": "length"}])
def test_objects(said: dict[str, Any]) -> None:
    """Some put it into an object."""
    assert read_finish(said) == ("length", "length")


def test_the_upstreams_word_is_bounded() -> None:
    """Sixty-four characters of it are kept, and they can be encoded."""
    assert read_finish("x" * 99) == ("other", "x" * 64)
    assert read_finish("stop" + "-" * 99) == ("stop", "stop" + "-" * 60)
    assert read_finish("\ud800") == ("other", "\ufffd")


def test_failed() -> None:
    """Only the words for a failure are one."""
    assert has_failed("server_error")
    assert not has_failed("stop")
    assert not has_failed(None)
