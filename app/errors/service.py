"""What this service refuses, or fails at."""

from __future__ import annotations

from app.errors.base import StreamError


class BadRequest(StreamError):
    """The request is wrong; *param* says where."""

    status = 400
    type = "invalid_request_error"
    code = "bad_request"
    message = "The request is not valid."


class Unauthenticated(StreamError):
    """Credentials are asked for: there were none, or they are wrong, or no longer good."""

    status = 401
    type = "authentication_error"
    code = "unauthenticated"
    message = "This service asks for credentials: send 'Authorization: Bearer ...'."


class Forbidden(StreamError):
    """Understood, and refused."""

    status = 403
    type = "permission_error"
    code = "forbidden"
    message = "This is not allowed."


class ForeignOrigin(Forbidden):
    """A page of another site asks, and that site is not on the list."""

    code = "origin_not_allowed"
    message = "Pages of this origin may not use this service."


class ForeignHost(Forbidden):
    """The request is for another name than the service's: DNS rebinding, or a proxy that says so."""

    code = "host_not_allowed"
    message = "This service does not answer to this host name."


class ModelNotAllowed(Forbidden):
    """The model is not among those that are offered."""

    code = "model_not_allowed"
    message = "This model is not offered here."


class RequestTimeout(StreamError):
    """The request's body did not come in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"
    retryable = True
    message = "The request's body took too long to arrive."


class UnknownPath(StreamError):
    """Nothing is at this path."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"
    message = "There is nothing at this path."


class UnknownStream(StreamError):
    """No stream of that id, or no longer."""

    status = 404
    type = "invalid_request_error"
    code = "unknown_stream"
    message = "There is no such stream, or it is no longer kept."


class UnknownModel(StreamError):
    """A model was looked up that is not listed."""

    status = 404
    type = "invalid_request_error"
    code = "model_not_found"
    message = "There is no such model here."


class MethodNotAllowed(StreamError):
    """There is something at this path, for other methods."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"
    message = "This path does not take this method."


class Cancelled(StreamError):
    """The stream was stopped, which a dialect that has no word for it takes for a failure."""

    status = 409
    type = "conflict_error"
    code = "cancelled"
    message = "The answer was cancelled."


class KeyReused(StreamError):
    """An idempotency key came again with another body."""

    status = 422
    type = "invalid_request_error"
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used before, with another body."


class TooLarge(StreamError):
    """The request's body is over the limit."""

    status = 413
    type = "invalid_request_error"
    code = "request_too_large"
    message = "The request body is too large."


class UnsupportedMedia(StreamError):
    """The request's body is declared as something other than JSON."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"
    message = "The body must be sent as application/json."


class RateExceeded(StreamError):
    """More requests a minute than the principal, or all together, may make."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limited"
    retryable = True
    message = "Too many requests. Try again shortly."


class TooManyStreams(StreamError):
    """As many of the principal's streams are live as may be."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_streams"
    retryable = True
    message = "Too many answers are being written for you. Try again when one has ended."
    retry_after = 1.0


class TooManyReaders(StreamError):
    """As many of the principal's readers are attached as may be."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_readers"
    retryable = True
    message = "Too many readers of yours are attached. Try again when one has left."
    retry_after = 5.0


class BudgetSpent(StreamError):
    """The principal has had its output tokens for today."""

    status = 429
    type = "rate_limit_error"
    code = "token_budget_spent"
    retryable = True
    message = "Today's output tokens are used up."


class InternalError(StreamError):
    """A fault of ours."""


class Overloaded(StreamError):
    """Full: as many streams are live as the settings allow; or what is needed to decide cannot be had."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"
    retryable = True
    message = "The service is full. Try again shortly."
    retry_after = 1.0


class Draining(StreamError):
    """Shutting down: no new streams, and what did not finish in time is ended."""

    status = 503
    type = "overloaded_error"
    code = "shutting_down"
    retryable = True
    message = "The service is shutting down."
    retry_after = 1.0


class JournalDown(StreamError):
    """The journal's engine cannot be reached, or takes nothing."""

    status = 503
    type = "overloaded_error"
    code = "journal_unavailable"
    retryable = True
    message = "The service cannot keep streams at the moment. Try again shortly."
    retry_after = 5.0


class JournalLost(StreamError):
    """The journal's engine lost what it kept of a stream whose producer is gone, too."""

    status = 502
    type = "server_error"
    code = "journal_lost"
    retryable = True
    message = "What was kept of this stream is lost."


class ProducerLost(StreamError):
    """The process that wrote the stream is gone, and took upstream's connection with it."""

    status = 502
    type = "server_error"
    code = "producer_lost"
    retryable = True
    message = "The process that wrote this answer is gone."


class StreamTooLarge(StreamError):
    """The answer outgrew the bound on one stream's log."""

    status = 502
    type = "upstream_error"
    code = "stream_too_large"
    message = "The answer is larger than this service keeps."
