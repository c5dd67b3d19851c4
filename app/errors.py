"""Everything that can go wrong, as one tree.

A `StreamError` has two renderings: while no byte went out it is an HTTP status with a JSON body; after that it is the
terminal record `Failure`. The code is the stable name that clients and dashboards key on.

    StreamError
    ├── BadRequest            400  bad_request
    ├── Unauthenticated       401  unauthenticated                        no credentials, or not good ones
    ├── Forbidden             403  forbidden
    │   ├── ForeignOrigin     403  origin_not_allowed
    │   ├── ForeignHost       403  host_not_allowed
    │   └── ModelNotAllowed   403  model_not_allowed
    ├── RequestTimeout        408  request_timeout            retryable
    ├── UnknownPath           404  not_found
    ├── UnknownStream         404  unknown_stream
    ├── UnknownModel          404  model_not_found
    ├── MethodNotAllowed      405  method_not_allowed
    ├── Cancelled             409  cancelled                              in dialects without a word for it
    ├── KeyReused             422  idempotency_key_reused
    ├── TooLarge              413  request_too_large
    ├── UnsupportedMedia      415  unsupported_media_type
    ├── RateExceeded          429  rate_limited               retryable   requests a minute
    ├── TooManyStreams        429  too_many_streams           retryable   live at once
    ├── TooManyReaders        429  too_many_readers           retryable   attached at once
    ├── BudgetSpent           429  token_budget_spent         retryable   output tokens a day
    ├── InternalError         500  internal_error
    ├── Overloaded            503  overloaded                 retryable
    ├── Draining              503  shutting_down              retryable
    ├── JournalDown           503  journal_unavailable        retryable   Redis is away, full or read-only
    ├── JournalLost           502  journal_lost               retryable   what it kept of a stream is gone
    ├── ProducerLost          502  producer_lost              retryable   the process that wrote a stream died
    ├── StreamTooLarge        502  stream_too_large
    └── UpstreamError         502  upstream_error             retryable
        ├── Unreachable       502  upstream_unreachable       retryable
        ├── Disconnected      502  upstream_disconnected      retryable   no answer, or cut in mid-stream
        ├── Malformed         502  upstream_malformed                     not a stream, not JSON, over a bound
        ├── Empty             502  upstream_empty             retryable   ended with nothing in it
        ├── Truncated         502  upstream_truncated         retryable   ended cleanly without a finish
        ├── Unauthorized      502  upstream_auth                          our key, not the client's
        ├── Unpaid            502  upstream_quota                         our credit is used up
        ├── Rejected          400  upstream_rejected                      the client's parameters
        ├── RateLimited       429  upstream_rate_limited      retryable
        └── TimedOut          504
            ├── ConnectTimeout      upstream_connect_timeout  retryable
            ├── FirstTokenTimeout   first_token_timeout       retryable
            ├── IdleTimeout         idle_timeout              retryable   no byte for too long
            ├── ProgressTimeout     progress_timeout          retryable   bytes, but no content
            └── TotalTimeout        total_timeout

*retryable* tells a client whether the same request may succeed later. It says nothing about whether the service itself
tries again: that is `upstream.retry`.
"""

from __future__ import annotations

from typing import ClassVar


class StreamError(Exception):
    """Base of all. *message* is for people: bounded, and free of keys, prompts and answers.

    *param* names the offending field of the request; *retry_after* is in seconds.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    message: ClassVar[str] = "The service failed to handle this request."
    retry_after: float | None = None

    def __init__(
        self, message: str | None = None, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        self.text = message or self.message
        super().__init__(self.text)
        self.param = param
        if retry_after is not None:
            self.retry_after = retry_after


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


class UpstreamError(StreamError):
    """Upstream failed: a 5xx, an error inside the stream, or a finish reason that means failure."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retryable = True
    message = "The upstream service failed."


class Unreachable(UpstreamError):
    """No connection to upstream: refused, no such host, TLS. Nothing was sent."""

    code = "upstream_unreachable"
    message = "The upstream service cannot be reached."


class Disconnected(UpstreamError):
    """Upstream closed or reset the connection before it answered, or in mid-stream."""

    code = "upstream_disconnected"
    message = "The upstream service closed the connection early."


class Malformed(UpstreamError):
    """Upstream spoke nonsense: HTML, broken JSON, an unknown encoding, a line over the bound."""

    code = "upstream_malformed"
    retryable = False
    message = "The upstream service sent something that is no answer."


class Empty(UpstreamError):
    """Upstream's stream ended with nothing usable in it."""

    code = "upstream_empty"
    message = "The upstream service ended the stream without an answer."


class Truncated(UpstreamError):
    """Upstream's stream ended cleanly, but with neither a finish reason nor `[DONE]`."""

    code = "upstream_truncated"
    message = "The upstream service ended the stream before the answer was finished."


class Unauthorized(UpstreamError):
    """Upstream refused our key (401, 403). The client can do nothing about it."""

    code = "upstream_auth"
    retryable = False
    message = "The upstream service refused this service's credentials."


class Unpaid(UpstreamError):
    """Upstream wants money (402). Like a refused key, nothing that the client could mend."""

    code = "upstream_quota"
    retryable = False
    message = "The upstream service's credit is used up."


class Rejected(UpstreamError):
    """Upstream refused the request's parameters (400, 404, 413, 422)."""

    status = 400
    type = "invalid_request_error"
    code = "upstream_rejected"
    retryable = False
    message = "The upstream service rejected the request."


class RateLimited(UpstreamError):
    """Upstream's own 429."""

    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"
    message = "The upstream service is limiting requests."


class TimedOut(UpstreamError):
    """Upstream was too slow in one of five ways; the subclasses name them."""

    status = 504
    type = "timeout_error"


class ConnectTimeout(TimedOut):
    """No connection within the connect limit. Nothing was sent."""

    code = "upstream_connect_timeout"
    message = "Connecting to the upstream service took too long."


class FirstTokenTimeout(TimedOut):
    """No content within the first-token limit."""

    code = "first_token_timeout"
    message = "The upstream service took too long to begin its answer."


class IdleTimeout(TimedOut):
    """No byte within the byte-idle limit, after the answer had begun."""

    code = "idle_timeout"
    message = "The upstream service went silent in the middle of its answer."


class ProgressTimeout(TimedOut):
    """Bytes, but no content within the progress-idle limit: heartbeats that hide a stall."""

    code = "progress_timeout"
    message = "The upstream service kept the connection alive without sending any more of its answer."


class TotalTimeout(TimedOut):
    """The stream as a whole took longer than the total limit."""

    code = "total_timeout"
    retryable = False
    message = "The answer took longer than this service allows."
