"""What upstream refuses, or fails at."""

from __future__ import annotations

from app.errors.base import StreamError


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
