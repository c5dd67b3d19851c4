"""The errors that the simulator answers with, the way OpenAI writes them."""

from __future__ import annotations

from typing import Any

import orjson

from app.simulator.steps import Reply

ERRORS = {
    400: ("invalid_request_error", "invalid_value", "Invalid value in the request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: (
        "invalid_request_error",
        "unsupported_country_region_territory",
        "Country, region, or territory not supported.",
    ),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    408: ("timeout", "request_timeout", "The request timed out."),
    409: ("invalid_request_error", "conflict", "The request conflicts with another one."),
    422: ("invalid_request_error", "unprocessable_entity", "The request could not be processed."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."),
    500: ("server_error", None, "The server had an error while processing your request. Sorry about that!"),
    502: ("server_error", "bad_gateway", "Bad gateway."),
    503: ("server_error", "overloaded", "The engine is currently overloaded, please try again later."),
}


def failure(status: int, text: str = "", *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return an error the way OpenAI writes one."""
    kind, usual, sentence = ERRORS.get(status, ERRORS[500 if status >= 500 else 400])
    return {"error": {"message": text or sentence, "type": kind, "param": param, "code": code or usual}}


def refused(status: int, text: str = "", **fields: Any) -> Reply:
    """Return that error as an answer."""
    return Reply(status, orjson.dumps(failure(status, text, **fields)))


class Refused(Exception):
    """A request that gets an error as its answer."""

    def __init__(self, status: int, text: str = "", *, code: str | None = None, param: str | None = None) -> None:
        self.reply = refused(status, text, code=code, param=param)
