"""What to say about paths that are not here, but that clients of known APIs ask for: what to use in their place."""

from __future__ import annotations

import re

_USE_CHAT = "use POST /v1/chat/completions, or POST /v1/chat"

# The first pattern that matches the whole path has the sentence. A sentence never quotes the path.
_SENTENCES = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        # The base URL is not right: it has no version, has it twice, or has a path in it that the client adds again.
        (
            "/(?:chat|chat/completions|models(?:/.+)?|responses(?:/.+)?|streams(?:/.+)?|ai-sdk/.+|ag-ui)",
            "The paths of this service begin with /v1: put that at the end of the base URL.",
        ),
        ("/v1/v1/.+", "This path has /v1 twice: the client adds it to the base URL, so leave it out there."),
        (
            "/v1/chat/completions/(?:v1/)?(?:chat/completions|models)",
            "The base URL ends in /v1, without /chat/completions: the client adds that.",
        ),
        # OpenAI's other endpoints.
        (r"(?:/v1)?/(?:engines/.+/)?completions", f"Bare prompts are not completed here: {_USE_CHAT}."),
        ("/v1/responses/.+", "Of the Responses API, this service has POST /v1/responses, GET, DELETE and cancel."),
        (
            "/v1/chat/completions/.+",
            "Stored completions are not served here: GET /v1/streams/{id} reads a stream again.",
        ),
        (
            "(?:/v1)?/(?:embeddings|moderations|images|audio|videos|realtime|files|uploads|batches|fine_tuning"
            "|vector_stores|assistants|threads|conversations|evals|containers|rerank)(?:/.*)?",
            f"This service streams chat completions only: ask the upstream itself for this, or {_USE_CHAT}.",
        ),
        # Other APIs.
        ("(?:/v1)?/messages(?:/.*)?", f"Anthropic's API is not served here: {_USE_CHAT}."),
        ("/api/(?:chat|generate)", f"Ollama's own API is not served here: {_USE_CHAT}."),
        ("/api/(?:tags|show|version)", "Ollama's own API is not served here: GET /v1/models lists the models."),
        ("/openai/deployments/.+", f"Azure's paths are not served here: {_USE_CHAT}, with the model in the body."),
        ("/v1beta/(?!openai).*", f"Gemini's own API is not served here: {_USE_CHAT}."),
    )
)


def sentence_about(path: str) -> str | None:
    """Return what to use in place of *path*, which is not here, or None if there is nothing to say."""
    return next((sentence for pattern, sentence in _SENTENCES if pattern.fullmatch(path)), None)
