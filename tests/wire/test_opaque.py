"""What an upstream wants back comes back as it was, and nothing else is taken for it."""

from __future__ import annotations

import pytest

from app.wire.opaque import is_of_reasoning, seal, unseal


def test_there_and_back() -> None:
    """What was sealed is unsealed as it was."""
    fields = {"reasoning_details": [{"type": "reasoning.encrypted", "data": "é"}], "field": "reasoning"}
    assert unseal(seal(fields)) == fields


@pytest.mark.parametrize("text", ["", "gAAAA", "chat-sse:", "chat-sse:x", "chat-sse:W10=", None, 1, {}])
def test_what_is_not_ours(text: object) -> None:
    """Another's ciphertext is none of ours."""
    assert unseal(text) is None


def test_names() -> None:
    """A field of the delta is about the reasoning if its name says so."""
    assert [name for name in ("reasoning_details", "thinking_blocks", "signature", "odd") if is_of_reasoning(name)] == [
        "reasoning_details",
        "thinking_blocks",
        "signature",
    ]
