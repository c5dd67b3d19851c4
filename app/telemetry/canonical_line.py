"""The canonical line: one line in the log for each stream, with all that is known of it except its content."""

from __future__ import annotations

from typing import Any

from structlog.typing import FilteringBoundLogger

from app.events import Done
from app.hub import Observer, Outcome


class CanonicalLine(Observer):
    """Writes the line when a stream has ended.

    It names the stream's owner by its account, which is a keyed hash; with *names*, by its name.
    """

    def __init__(self, *, names: bool = False) -> None:
        self._names = names

    async def ended(self, outcome: Outcome, log: FilteringBoundLogger) -> None:
        """Write `stream.finished`, or `stream.failed` as a warning."""
        facts = {"principal": (self._names and outcome.owner) or outcome.account, **_facts(outcome)}
        if isinstance(outcome.terminal, Done):
            log.info("stream.finished", **facts)
        else:
            log.warning("stream.failed", **facts)


def _facts(outcome: Outcome) -> dict[str, Any]:
    attempt = outcome.attempt
    usage = outcome.terminal.usage
    facts: dict[str, Any] = {"reason": outcome.reason}
    if usage is not None:
        facts["prompt_tokens"] = usage.fields.get("prompt_tokens")
        facts["completion_tokens"] = usage.fields.get("completion_tokens")
        facts["usage_estimated"] = usage.estimated
    if outcome.causes:
        facts["upstream_causes"] = [f"{upstream}: {cause}" for upstream, cause in dict.fromkeys(outcome.causes)]
    if outcome.adopted:
        facts["adopted"] = True
    return facts | {
        "deltas": outcome.deltas,
        "output_bytes": outcome.output_bytes,
        "first_token_ms": outcome.first_token_ms,
        "duration_ms": outcome.duration_ms,
        "upstream": attempt.upstream,
        "upstream_fallback": attempt.fallback,
        "upstream_answers": [f"{upstream} {answer}" for upstream, answer in outcome.answers],
        "upstream_status": attempt.status,
        "upstream_attempts": outcome.requests,
        "upstream_request_id": attempt.request_id,
        "upstream_model": attempt.model,
        "cut_after_finish": attempt.cut_after_finish,
        "replaced_bytes": attempt.replaced_bytes,
        "subscribers_peak": outcome.readers_peak,
        "subscribers_total": outcome.readers,
    }
