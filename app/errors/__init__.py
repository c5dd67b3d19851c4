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

from app.errors.base import StreamError
from app.errors.service import (
    BadRequest,
    BudgetSpent,
    Cancelled,
    Draining,
    Forbidden,
    ForeignHost,
    ForeignOrigin,
    InternalError,
    JournalDown,
    JournalLost,
    KeyReused,
    MethodNotAllowed,
    ModelNotAllowed,
    Overloaded,
    ProducerLost,
    RateExceeded,
    RequestTimeout,
    StreamTooLarge,
    TooLarge,
    TooManyReaders,
    TooManyStreams,
    Unauthenticated,
    UnknownModel,
    UnknownPath,
    UnknownStream,
    UnsupportedMedia,
)
from app.errors.upstream import (
    ConnectTimeout,
    Disconnected,
    Empty,
    FirstTokenTimeout,
    IdleTimeout,
    Malformed,
    ProgressTimeout,
    RateLimited,
    Rejected,
    TimedOut,
    TotalTimeout,
    Truncated,
    Unauthorized,
    Unpaid,
    Unreachable,
    UpstreamError,
)

__all__ = [
    "BadRequest",
    "BudgetSpent",
    "Cancelled",
    "ConnectTimeout",
    "Disconnected",
    "Draining",
    "Empty",
    "FirstTokenTimeout",
    "Forbidden",
    "ForeignHost",
    "ForeignOrigin",
    "IdleTimeout",
    "InternalError",
    "JournalDown",
    "JournalLost",
    "KeyReused",
    "Malformed",
    "MethodNotAllowed",
    "ModelNotAllowed",
    "Overloaded",
    "ProducerLost",
    "ProgressTimeout",
    "RateExceeded",
    "RateLimited",
    "Rejected",
    "RequestTimeout",
    "StreamError",
    "StreamTooLarge",
    "TimedOut",
    "TooLarge",
    "TooManyReaders",
    "TooManyStreams",
    "TotalTimeout",
    "Truncated",
    "Unauthenticated",
    "Unauthorized",
    "UnknownModel",
    "UnknownPath",
    "UnknownStream",
    "Unpaid",
    "Unreachable",
    "UnsupportedMedia",
    "UpstreamError",
]
