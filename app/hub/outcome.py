"""What is known of a stream when it has ended, and the observers that are told."""

from __future__ import annotations

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from app.errors import InternalError
from app.events import Done, Failure, Terminal
from app.hub.stream import Stream
from app.request import StreamRequest
from app.upstream import Attempt
from app.usage import Usage, estimate_tokens


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that is known of a stream that has ended, except its content.

    *owner* is the principal's name and *model* the model that was asked for. *terminal* is the stream's last record.
    Times are whole milliseconds since the stream was opened; *first_token_ms* is None if no content came.
    *input_tokens* and *output_tokens* are the upstream's own counts; where it sent no believable count of the output,
    that is estimated. *attempt* is the last attempt, or a blank one if no upstream was asked. *answers* has an upstream
    and its answer (see `Attempt.answers`) for each request that was answered, and *requests* is how many were sent.
    *causes* has an upstream and why it brought no answer, for each attempt of which that is known.
    *costs* has an item for each attempt that may have cost something: the upstream's final usage, or None if it sent
    none. *account* is the owner's.
    *readers* is how many attached in all, *readers_peak* how many at once. *adopted* says that another process began
    the stream; *deltas* and *output_bytes* include what came there, and *readers* and *requests* do not.
    """

    stream_id: str
    owner: str
    account: str
    model: str
    terminal: Terminal
    deltas: int
    output_bytes: int
    first_token_ms: int | None
    duration_ms: int
    input_tokens: int
    output_tokens: int
    attempt: Attempt
    answers: tuple[tuple[str, str], ...]
    requests: int
    causes: tuple[tuple[str, str], ...]
    costs: tuple[Usage | None, ...]
    readers: int
    readers_peak: int
    adopted: bool = False

    @classmethod
    def of(cls, stream: Stream) -> Outcome:
        """Return the outcome of *stream*, whose relay has run."""
        relay = stream.relay
        terminal = relay.ended or Failure.of(InternalError())
        usage = terminal.usage
        answers = [(attempt.upstream, answer) for attempt in relay.attempts for answer in attempt.answers]
        return cls(
            stream_id=stream.id,
            owner=stream.principal.name,
            account=stream.principal.counted_as(),
            model=stream.request.model,
            terminal=terminal,
            deltas=relay.deltas,
            output_bytes=relay.output_bytes,
            first_token_ms=relay.first_token_ms,
            duration_ms=relay.duration_ms,
            input_tokens=usage.input_tokens if usage else 0,
            # An upstream's zero is not believed where text came. Where none came, hidden reasoning may have taken many.
            output_tokens=(usage.output_tokens if usage else 0) or estimate_tokens(relay.output_bytes),
            attempt=relay.attempts[-1] if relay.attempts else Attempt(),
            answers=tuple((upstream, answer) for upstream, answer in answers if answer),
            requests=len(answers),
            causes=tuple((attempt.upstream, attempt.cause) for attempt in relay.attempts if attempt.cause),
            costs=tuple(usage for attempt in relay.attempts for usage in attempt.costs),
            readers=stream.readers_total,
            readers_peak=stream.readers_peak,
            adopted=stream.adopted,
        )

    @property
    def reason(self) -> str:
        """The finish reason, or the error's code."""
        return self.terminal.finish_reason if isinstance(self.terminal, Done) else self.terminal.code


class Observer:
    """Is told about every stream that this process produces. Its methods raise nothing."""

    def opened(self, stream_id: str, request: StreamRequest) -> str:
        """Take note of a new stream. Return the traceparent that goes to the upstream, or "" to keep the request's."""
        return ""

    def adopted(self, stream_id: str, request: StreamRequest) -> str:
        """Take note of a stream that this process goes on with, and return what `opened` does.

        The process that began it is gone. No messages are in the *request*.
        """
        return self.opened(stream_id, request)

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Take note of a stream's end. *log* is bound to the stream's id and to the request that opened it."""

    def left(self, stream_id: str) -> None:
        """Take note that this process has left a live stream to another one, which tells of its end."""
