"""Paths that are not here: a client of a known API is told what to use."""

from __future__ import annotations

import pytest

from app.edge.wrong_paths import sentence_about


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/chat/completions", "/v1"),
        ("/chat", "/v1"),
        ("/models", "/v1"),
        ("/models/org/m", "/v1"),
        ("/ai-sdk/chat", "/v1"),
        ("/ag-ui", "/v1"),
        ("/v1/v1/chat/completions", "twice"),
        ("/v1/chat/completions/chat/completions", "without /chat/completions"),
        ("/v1/chat/completions/models", "without /chat/completions"),
        ("/v1/chat/completions/chatcmpl-1", "/v1/streams/"),
        ("/v1/completions", "POST /v1/chat/completions"),
        ("/completions", "POST /v1/chat/completions"),
        ("/v1/engines/gpt/completions", "POST /v1/chat/completions"),
        ("/responses", "/v1"),
        ("/responses/resp_1/cancel", "/v1"),
        ("/v1/responses/resp_1/input_items", "POST /v1/responses"),
        ("/v1/embeddings", "upstream itself"),
        ("/embeddings", "upstream itself"),
        ("/v1/moderations", "upstream itself"),
        ("/v1/images/generations", "upstream itself"),
        ("/v1/audio/speech", "upstream itself"),
        ("/v1/audio/transcriptions", "upstream itself"),
        ("/v1/files", "upstream itself"),
        ("/v1/batches/b", "upstream itself"),
        ("/v1/threads/t/runs", "upstream itself"),
        ("/v1/messages", "Anthropic"),
        ("/api/chat", "Ollama"),
        ("/api/tags", "GET /v1/models"),
        ("/openai/deployments/gpt/chat/completions", "Azure"),
    ],
)
def test_known_paths(path: str, word: str) -> None:
    """The sentence says what to use."""
    sentence = sentence_about(path)
    assert sentence is not None
    assert word in sentence


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/", "/nothing", "/v1/chats", "/v1/embed", "/favicon.ico", "/imagesx"])
def test_other_paths(path: str) -> None:
    """About any other path there is nothing to say."""
    assert sentence_about(path) is None
