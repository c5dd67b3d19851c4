"""Everything that can go wrong, as one tree.

A `StreamError` is rendered in two ways. While no byte of the answer was sent, it is an HTTP status with a JSON body;
after that it is the terminal record `Failure`. Its code is the stable name that clients and dashboards use.

    StreamError
    ├── RequestError
    │   ├── BadRequest        400  bad_request
    │   ├── UnknownPath       404  not_found
    │   ├── UnknownStream     404  unknown_stream
    │   ├── UnknownModel      404  model_not_found
    │   ├── MethodNotAllowed  405  method_not_allowed
    │   ├── RequestTimeout    408  request_timeout            retryable
    │   ├── TooLarge          413  request_too_large
    │   ├── UnsupportedMedia  415  unsupported_media_type
    │   └── KeyReused         422  idempotency_key_reused
    ├── Unauthenticated       401  unauthenticated                        no credentials, or wrong or expired ones
    ├── Forbidden             403  forbidden
    │   ├── ForeignOrigin     403  origin_not_allowed                     a page of a site that is not allowed
    │   ├── ForeignHost       403  host_not_allowed                       DNS rebinding, or a proxy that changes `Host`
    │   └── ModelNotAllowed   403  model_not_allowed
    ├── Cancelled             409  cancelled                              in dialects that have no word for it
    ├── LimitExceeded
    │   ├── RateExceeded      429  rate_limited               retryable   requests a minute
    │   ├── TooManyStreams    429  too_many_streams           retryable   live at once
    │   ├── TooManyReaders    429  too_many_readers           retryable   attached at once
    │   └── BudgetSpent       429  token_budget_spent         retryable   tokens a day
    ├── InternalError         500  internal_error                         a bug
    ├── Unavailable
    │   ├── Overloaded        503  overloaded                 retryable
    │   ├── Draining          503  shutting_down              retryable
    │   └── JournalDown       503  journal_unavailable        retryable   Redis is away, full or read-only; a full disk
    ├── StreamLost
    │   ├── JournalLost       502  journal_lost               retryable   the producer is gone, its records too
    │   └── ProducerLost      502  producer_lost              retryable   the process that wrote the stream is gone
    ├── StreamTooLarge        502  stream_too_large
    └── UpstreamError         502  upstream_error             retryable
        ├── Unreachable       502  upstream_unreachable       retryable   refused, no such host, TLS: nothing was sent
        ├── Disconnected      502  upstream_disconnected      retryable   before the answer, or in the middle of it
        ├── Malformed         502  upstream_malformed                     HTML, broken JSON, or over a bound
        ├── Empty             502  upstream_empty             retryable   ended with nothing in it
        │   └── Blank         502  upstream_empty                         tokens were made, and nothing of them sent
        ├── Truncated         502  upstream_truncated         retryable   no finish reason, no `[DONE]`
        ├── Unauthorized      502  upstream_auth                          401, 403: our key, not the client's
        ├── Unpaid            502  upstream_quota                         402: our credit
        ├── Misaddressed      502  upstream_base_url                      404, 405: our base URL
        ├── Rejected          400  upstream_rejected                      400, 422 and others: the client's parameters
        │   ├── ContextTooLong     400  context_length_exceeded
        │   ├── ContentRefused     400  content_filter                    of the request; an answer's is a finish reason
        │   ├── ModelUnknown       404  model_not_found                   to the upstream
        │   └── RequestTooLarge    413  upstream_request_too_large
        ├── Conflicting       409  upstream_conflict          retryable
        ├── RateLimited       429  upstream_rate_limited      retryable   429: the upstream's own
        ├── Busy              503  upstream_overloaded        retryable   498, 503, 529: the upstream is full
        └── TimedOut          504
            ├── ConnectTimeout      upstream_connect_timeout  retryable   nothing was sent
            ├── FirstTokenTimeout   first_token_timeout       retryable
            ├── IdleTimeout         idle_timeout              retryable   no byte for too long
            ├── ProgressTimeout     progress_timeout          retryable   bytes, but no content: heartbeats hide a stall
            └── TotalTimeout        total_timeout

*retryable* tells a client whether the same request may succeed later. Whether the service itself asks the upstream
again is decided in `upstream.router`.

The statuses here are those of the native dialect. What an upstream said about the request itself is *told* besides:
OpenAI's dialect passes that on, so that its clients raise what they raise against the upstream itself.

A class has a docstring only where its message and the tree leave something to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class StreamError(Exception):
    """The base of all.

    *message* is for people. It is bounded and holds no key, no prompt and no answer. *param* names the field of the
    request that is wrong; *retry_after* is in seconds, *longer* says that this service itself does not wait so long.
    *cause* is for the operator, with addresses and names of the settings, and never sent to a client.
    *told* has what an upstream itself said of the request or of its load: `status`, `type`, `code`; `more` of content.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    message: ClassVar[str] = "The service failed to handle this request."
    retry_after: float | None = None
    longer: bool = False
    told: Mapping[str, Any] | None = None

    def __init__(
        self, message: str | None = None, *, param: str | None = None, retry_after: float | None = None, cause: str = ""
    ) -> None:
        self.text = message or self.message
        super().__init__(self.text)
        self.param = param
        self.cause = cause
        if retry_after is not None:
            self.retry_after = retry_after


class RequestError(StreamError):
    """The client has to change the request."""

    status = 400
    type = "invalid_request_error"


class BadRequest(RequestError):
    """*param* names the field that is wrong."""

    code = "bad_request"
    message = "The request is not valid."


class UnknownPath(RequestError):
    status = 404
    code = "not_found"
    message = "There is nothing at this path."


class UnknownStream(RequestError):
    status = 404
    code = "unknown_stream"
    message = "There is no such stream, or it is no longer kept."


class UnknownModel(RequestError):
    status = 404
    code = "model_not_found"
    message = "There is no such model here."


class MethodNotAllowed(RequestError):
    status = 405
    code = "method_not_allowed"
    message = "This path does not take this method."


class RequestTimeout(RequestError):
    status = 408
    code = "request_timeout"
    retryable = True
    message = "The request's body took too long to arrive."


class TooLarge(RequestError):
    status = 413
    code = "request_too_large"
    message = "The request body is too large."


class UnsupportedMedia(RequestError):
    status = 415
    code = "unsupported_media_type"
    message = "The body must be sent as application/json."


class KeyReused(RequestError):
    status = 422
    code = "idempotency_key_reused"
    message = "This Idempotency-Key was used before, with another body."


class Unauthenticated(StreamError):
    status = 401
    type = "authentication_error"
    code = "unauthenticated"
    message = "This service asks for credentials: send 'Authorization: Bearer ...'."


class Forbidden(StreamError):
    status = 403
    type = "permission_error"
    code = "forbidden"
    message = "This is not allowed."


class ForeignOrigin(Forbidden):
    code = "origin_not_allowed"
    message = "Pages of this origin may not use this service."


class ForeignHost(Forbidden):
    code = "host_not_allowed"
    message = "This service does not answer to this host name."


class ModelNotAllowed(Forbidden):
    code = "model_not_allowed"
    message = "This model is not offered here."


class Cancelled(StreamError):
    status = 409
    type = "conflict_error"
    code = "cancelled"
    message = "The answer was cancelled."


class LimitExceeded(StreamError):
    """The principal has used all that it may for now."""

    status = 429
    type = "rate_limit_error"
    retryable = True


class RateExceeded(LimitExceeded):
    code = "rate_limited"
    message = "Too many requests. Try again shortly."


class TooManyStreams(LimitExceeded):
    code = "too_many_streams"
    message = "Too many answers are being written for you. Try again when one has ended."
    retry_after = 1.0


class TooManyReaders(LimitExceeded):
    code = "too_many_readers"
    message = "Too many readers of yours are attached. Try again when one has left."
    retry_after = 5.0


class BudgetSpent(LimitExceeded):
    code = "token_budget_spent"
    message = "Today's tokens are used up."


class InternalError(StreamError):
    """A bug in this service."""


class Unavailable(StreamError):
    """The service takes no new stream for now."""

    status = 503
    type = "overloaded_error"
    retryable = True
    retry_after = 1.0


class Overloaded(Unavailable):
    """The settings allow no more live streams, or something that the decision needs cannot be reached."""

    code = "overloaded"
    message = "The service is full. Try again shortly."


class Draining(Unavailable):
    """The service takes no new streams, and ends those that do not finish in time."""

    code = "shutting_down"
    message = "The service is shutting down."


class JournalDown(Unavailable):
    code = "journal_unavailable"
    message = "The service cannot keep streams at the moment. Try again shortly."
    retry_after = 5.0


class StreamLost(StreamError):
    """A part of this service that the stream needed is gone."""

    status = 502
    retryable = True


class JournalLost(StreamLost):
    code = "journal_lost"
    message = "What was kept of this stream is lost."

    def __init__(self, info: Any = None) -> None:
        super().__init__()
        self.info = info  # what the stream was created with, if that is known: it says whose the stream is


class ProducerLost(StreamLost):
    code = "producer_lost"
    message = "The process that wrote this answer is gone."


class StreamTooLarge(StreamError):
    status = 502
    type = "upstream_error"
    code = "stream_too_large"
    message = "The answer is larger than this service keeps."


class UpstreamError(StreamError):
    """The upstream failed: a 5xx, an error inside the stream, or a finish reason that means failure.

    *disliked* has those of the service's own fields, `stream` and `stream_options`, that the upstream does not take.
    """

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retryable = True
    message = "The upstream service failed."
    disliked: frozenset[str] = frozenset()


class Unreachable(UpstreamError):
    code = "upstream_unreachable"
    message = "The upstream service cannot be reached."


class Disconnected(UpstreamError):
    code = "upstream_disconnected"
    message = "The upstream service closed the connection early."


class Malformed(UpstreamError):
    code = "upstream_malformed"
    retryable = False
    message = "The upstream service sent something that is no answer."


class Empty(UpstreamError):
    code = "upstream_empty"
    message = "The upstream service ended the stream without an answer."


class Blank(Empty):
    """The upstream made tokens of an answer, and sent nothing of it that can be shown. They are paid for."""

    retryable = False
    message = "The upstream service made an answer, and sent nothing of it."


class Truncated(UpstreamError):
    code = "upstream_truncated"
    message = "The upstream service ended the stream before the answer was finished."


class Unauthorized(UpstreamError):
    code = "upstream_auth"
    retryable = False
    message = "The upstream service refused this service's credentials."


class Unpaid(UpstreamError):
    code = "upstream_quota"
    retryable = False
    message = "The upstream service's credit is used up."


class Misaddressed(UpstreamError):
    code = "upstream_base_url"
    retryable = False
    message = "The upstream service is not at the address that this service has for it."


class Rejected(UpstreamError):
    status = 400
    type = "invalid_request_error"
    code = "upstream_rejected"
    retryable = False
    message = "The upstream service rejected the request."


class ContextTooLong(Rejected):
    code = "context_length_exceeded"
    message = "The request is longer than the model can read."


class ContentRefused(Rejected):
    code = "content_filter"
    message = "The upstream service refused the content of the request."


class ModelUnknown(Rejected):
    status = 404
    code = "model_not_found"
    message = "The upstream service has no such model."


class RequestTooLarge(Rejected):
    status = 413
    code = "upstream_request_too_large"
    message = "The request is larger than the upstream service takes."


class Conflicting(UpstreamError):
    status = 409
    type = "conflict_error"
    code = "upstream_conflict"
    message = "The upstream service has a conflict with another request."


class RateLimited(UpstreamError):
    status = 429
    type = "rate_limit_error"
    code = "upstream_rate_limited"
    message = "The upstream service is limiting requests."


class Busy(UpstreamError):
    status = 503
    type = "overloaded_error"
    code = "upstream_overloaded"
    message = "The upstream service is full. Try again shortly."


class TimedOut(UpstreamError):
    """The upstream was too slow. The subclasses name the limit that passed."""

    status = 504
    type = "timeout_error"


class ConnectTimeout(TimedOut):
    code = "upstream_connect_timeout"
    message = "Connecting to the upstream service took too long."


class FirstTokenTimeout(TimedOut):
    code = "first_token_timeout"
    message = "The upstream service took too long to begin its answer."


class IdleTimeout(TimedOut):
    code = "idle_timeout"
    message = "The upstream service went silent in the middle of its answer."


class ProgressTimeout(TimedOut):
    code = "progress_timeout"
    message = "The upstream service kept the connection alive without sending any more of its answer."


class TotalTimeout(TimedOut):
    code = "total_timeout"
    retryable = False
    message = "The answer took longer than this service allows."


def raised(*roots: type[StreamError]) -> list[type[StreamError]]:
    """Return the errors of the families of *roots*, without the classes that only group others, in the tree's order."""
    tree = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, StreamError)]
    return [kind for kind in tree if issubclass(kind, roots) and ("code" in vars(kind) or not kind.__subclasses__())]
