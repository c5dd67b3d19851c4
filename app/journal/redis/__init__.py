"""The journal of many processes: see `journal`. redis-py, which is an extra, is imported only when one is created."""

from __future__ import annotations

from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from app.journal import Bounds, Journal
from app.journal.redis.address import check_address
from app.journal.redis.timing import USUAL, Timing

FORMS = ("redis://", "rediss://", "redis+cluster://", "rediss+cluster://", "unix://")
SHARED = True
check = check_address


def about(url: str) -> str:
    """See `app.journal`: only the form, because the rest may hold a password."""
    return url.partition("://")[0]


def create(
    url: str, bounds: Bounds, patience: float, on_evict: Callable[[str, str], None], log: FilteringBoundLogger
) -> Journal:
    """See `app.journal.create`. What this process no longer has in memory is still in Redis, and is not evicted."""
    from app.journal.redis.journal import RedisJournal

    return RedisJournal(url, bounds, patience, on_evict, log)


async def ask(url: str, timing: Timing = USUAL) -> tuple[bool, str]:
    """See `app.journal`: ask the Redis at *url* for a sign of life."""
    from redis.exceptions import RedisError

    from app.journal.redis.connection import connector
    from app.journal.redis.failures import place, why

    client = connector(url, timing)(None)
    try:
        replies = await client.pipeline(timing.pipeline, [("PING",)])
        failure = next((reply for reply in replies if isinstance(reply, Exception)), None)
    except (RedisError, OSError) as error:
        failure = error
    finally:
        await client.aclose()
    return (True, "") if failure is None else (False, f"{place(url)}: {why(failure, url)}")
