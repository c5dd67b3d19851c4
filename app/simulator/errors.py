"""The errors that the simulator answers with, as OpenAI writes them."""

from __future__ import annotations

from typing import Any

import orjson

from app.simulator.script import Reply

# The type, the code and the message of each status.
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


def error(status: int, message: str = "", *, code: str | None = None, param: str | None = None) -> dict[str, Any]:
    """Return the body of an error; what is not given is the usual for *status*."""
    kind, usual_code, usual_message = ERRORS.get(status, ERRORS[500 if status >= 500 else 400])
    return {"error": {"message": message or usual_message, "type": kind, "param": param, "code": code or usual_code}}


class Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str = "", *, code: str | None = None, param: str | None = None) -> None:
        self.reply = Reply(orjson.dumps(error(status, message, code=code, param=param)), status)


def require(condition: object, param: str, message: str) -> None:
    """Raise Refused with a 400 that names *param*, unless *condition* is true."""
    if not condition:
        raise Refused(400, message, param=param)
