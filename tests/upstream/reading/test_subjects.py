"""What errors are about, as far as their words tell."""

from __future__ import annotations

from typing import Any

import pytest

from app.errors import ContentRefused, ContextTooLong, ModelUnknown, Rejected
from app.upstream.reading.subjects import (
    disliked_by,
    first_of,
    is_about_credit,
    is_about_key,
    message_of,
    subject_of,
)

M = ModelUnknown

# What upstreams say about a request, in their own words, and what is made of it.
SUBJECTS: list[tuple[int, dict[str, Any], type[Rejected] | None]] = [
    # the model
    (404, {"message": "The model `x` does not exist or you do not have access to it.", "code": "model_not_found"}, M),
    (404, {"message": "The model `x` does not exist.", "type": "NotFoundError", "code": 404}, M),  # vLLM
    (404, {"message": 'model "x" not found, try pulling it first', "type": "api_error"}, M),  # Ollama
    (404, {"message": "model: claude-x", "type": "not_found_error"}, M),
    (404, {"message": "models/x is not found for API version v1", "status": "NOT_FOUND", "code": 404}, M),
    (404, {"message": "The API deployment for this resource does not exist.", "code": "DeploymentNotFound"}, M),
    (404, {"message": "No endpoints found for x/y.", "code": 404}, M),
    (404, {"message": "This is not a chat model and thus not supported in the v1/chat/completions endpoint."}, M),
    (404, {"message": "no", "param": "model"}, M),
    (403, {"message": "Project `p` does not have access to model `x`", "code": "model_not_found"}, M),
    (403, {"message": "You do not have access to model x"}, M),
    (400, {"message": "x is not a valid model ID", "code": 400}, M),
    (400, {"message": "Model Not Exist", "type": "invalid_request_error"}, M),
    (400, {"message": "The model doesn't exist"}, M),
    (400, {"message": "invalid model ID", "type": "invalid_request_error"}, M),
    (400, {"message": "The requested model is not supported.", "code": "model_not_supported"}, M),
    (403, {"message": "You don't have access to the model with the specified model ID."}, M),  # Bedrock
    (403, {"message": "Access to model denied. Please make sure you are eligible.", "code": "Model.AccessDenied"}, M),
    (403, {"message": "no", "code": "Model.AccessDenied"}, M),
    (400, {"message": "The provided model identifier is invalid."}, M),
    (400, {"message": "Unable to access model x. Please visit us.", "code": "model_not_available"}, M),
    # the content
    (400, {"message": "The response was filtered", "code": "content_filter", "param": "prompt"}, ContentRefused),
    (400, {"message": "no", "code": "content_policy_violation"}, ContentRefused),
    (400, {"message": "Your prompt was flagged as potentially violating our usage policy."}, ContentRefused),
    (400, {"message": "Content Exists Risk", "type": "invalid_request_error"}, ContentRefused),
    (400, {"message": "Input data may contain inappropriate content.", "code": "DataInspectionFailed"}, ContentRefused),
    (403, {"message": "Input was refused", "code": 403, "metadata": {"reasons": ["violence"]}}, ContentRefused),
    (403, {"message": 'x requires moderation. Your input was flagged for "violence"', "code": 403}, ContentRefused),
    (403, {"message": "blocked by our safety system", "type": "permission_denied"}, ContentRefused),
    (403, {"message": "Content violates usage guidelines. Failed check: SAFETY_CHECK_TYPE_BIO"}, ContentRefused),  # xAI
    # the length
    (400, {"message": "no", "code": "context_length_exceeded"}, ContextTooLong),
    (400, {"message": "This model's maximum context length is 8192 tokens."}, ContextTooLong),
    (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, ContextTooLong),
    (400, {"message": "The input token count (12) exceeds the maximum number of tokens allowed (10)."}, ContextTooLong),
    (
        400,
        {"message": "the request exceeds the available context size", "type": "exceed_context_size_error"},
        ContextTooLong,
    ),
    (400, {"message": "The decoder prompt (length 9) is longer than the maximum model length of 8."}, ContextTooLong),
    (400, {"message": "This model's maximum prompt length is 10 but the request contains 12 tokens."}, ContextTooLong),
    (400, {"message": "Input is too long for requested model."}, ContextTooLong),
    (413, {"message": "Please reduce the length of the messages or completion."}, ContextTooLong),
    (400, {"message": "Your request exceeded model token limit: 8"}, ContextTooLong),
    (400, {"message": "The number of tokens to keep is greater than the context length. Try again."}, ContextTooLong),
    (400, {"message": "Prompt exceeds max length", "code": "1261"}, ContextTooLong),  # Z.ai
    (422, {"message": "`inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000"}, ContextTooLong),  # TGI
    # neither
    (400, {"message": "image_url is only supported by certain models."}, None),
    (400, {"message": "'max_tokens' is not supported with this model."}, None),
    (400, {"message": "This model does not support image inputs."}, None),
    (404, {"message": "Item with id 'rs_1' not found.", "param": "input"}, Rejected),
    (404, {"message": "Resource not found", "code": "404"}, None),
    (404, {"message": "Not here: /v1/models/x"}, None),
    (404, {"message": "Invalid URL (POST /v1/models/chat/completions)", "param": None}, None),
    (404, {"message": "Cannot POST /model/chat/completions"}, None),
    (403, {"message": "Your account was flagged. Talk to us."}, None),
]


@pytest.mark.parametrize(("status", "error", "kind"), SUBJECTS)
def test_subject(status: int, error: dict[str, Any], kind: type[Rejected] | None) -> None:
    """The model, the content and the length are told apart from everything else (rows H27, H31)."""
    assert subject_of(status, error) is kind


def test_only_so_much_is_searched() -> None:
    """A message is searched as far as an upstream's own words go, and not through all that it may quote."""
    assert subject_of(400, {"message": "x" * 4000 + " unknown model"}) is ModelUnknown
    assert subject_of(400, {"message": "x" * 4096 + " unknown model"}) is None


@pytest.mark.parametrize(
    ("message", "key", "credit"),
    [
        ("API key not valid. Please pass a valid API key.", True, False),
        ("Incorrect API key provided: sk-x.", True, False),
        ("No API_KEY was set", True, False),
        ("Your credit balance is too low to use the API.", False, True),
        ("Insufficient balance", False, True),
        ("Sorry, your account balance is insufficient", False, True),
        ("Your newly created team doesn't have any credits yet.", False, True),
        ("Your team has used all available credits or reached its monthly limit.", False, True),
        ("Budget has been exceeded! Current cost: 26.075, Max budget: 0.25", False, True),
        ("ExceededTokenBudget: Current spend: 7.2e-05", False, True),
        ("Account a-1 is suspended, possibly due to reaching the monthly spending limit", False, True),
        ("token quota is not enough, token remain quota: $0.10", False, True),
        ("You exceeded your current quota. Please retry in 37 s.", False, False),
        ("Country, region, or territory not supported", False, False),
        (None, False, False),
    ],
)
def test_what_is_ours(message: str | None, key: bool, credit: bool) -> None:
    """A wrong key and an empty account are known by the message."""
    assert (is_about_key({"message": message}), is_about_credit({"message": message})) == (key, credit)


@pytest.mark.parametrize(
    ("error", "disliked"),
    [
        ({"message": "Unrecognized request argument supplied: stream_options"}, "stream_options"),
        ({"message": "Unknown field in request: include_usage"}, "stream_options"),
        ({"message": "no", "param": "stream_options.include_usage"}, "stream_options"),
        ({"message": "Your organization must be verified to stream this model.", "param": "stream"}, "stream"),
        ({"message": "Your organization must be verified to stream this model."}, "stream"),
        ({"message": "Streaming is not supported for this model"}, "stream"),
        ({"message": "This model does not support streaming."}, "stream"),
        ({"message": "Streaming unsupported!"}, "stream"),
        ({"message": "stream: must be false"}, "stream"),
        ({"detail": [{"loc": ["body", "stream"], "msg": "Input should be false"}]}, "stream"),
        ({"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs"}]}, "stream_options"),
        ({"message": {"detail": [{"loc": ["body", "n"], "msg": "bad", "input": "stream_options"}]}}, ""),
        ({"message": "upstream closed the stream"}, ""),
        ({"message": "stream ID 5; INTERNAL_ERROR; received from peer"}, ""),
        ({"message": "bad temperature", "param": "temperature"}, ""),
    ],
)
def test_disliked(error: dict[str, Any], disliked: str) -> None:
    """An error says which of the fields that the service itself sends the upstream does not take (rows H11, H29)."""
    assert disliked_by(error) == {disliked} - {""}


@pytest.mark.parametrize(
    "name", ["message", "Message", "msg", "detail", "error_msg", "errorMessage", "status_msg", "faultstring"]
)
def test_message(name: str) -> None:
    """The message stands under one of several names."""
    assert message_of({"code": 1, name: "no"}) == "no"
    assert message_of({"code": 1}) is None
    assert message_of({name: {"a": "b"}}) is None


def test_message_of_many_parts() -> None:
    """An object or a list in a message's place gives the sentences in it, and nothing of the input (Mistral)."""
    listed = [{"loc": ["body", "n"], "msg": "bad", "input": "PROMPT"}, 3, {"loc": ["body", "m", 0], "msg": "worse"}]
    assert message_of({"message": {"detail": listed}}) == "body.n: bad; body.m.0: worse"
    assert message_of({"detail": listed}) == "body.n: bad; body.m.0: worse"
    assert message_of({"detail": {"message": "no"}}) == "no"
    assert message_of({"message": {"message": {"message": "too deep"}}}) is None
    assert message_of({"message": {}, "detail": [3], "msg": 4}) is None


def test_first_of() -> None:
    """Empty fields count as missing."""
    assert first_of({"a": "", "b": 0, "c": "x", "d": "y"}, "a", "b", "c", "d") == "x"
    assert first_of({"a": ""}, "a", "b") is None
