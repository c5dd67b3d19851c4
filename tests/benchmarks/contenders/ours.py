"""The service itself, in its variants: each a process of its own, so that their memory is told apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tests.benchmarks.contenders.ground import PROMPT, Contender, Ground, Running, openai_ask, stop
from tests.benchmarks.plan import MODEL, Ask
from tests.real.processes import Server, launch
from tests.real.redis import launch_redis


def native(readers: int = 1, **more: Any) -> Ask:
    """Return how the service is asked in its own dialect."""
    body = {"prompt": PROMPT, "model": MODEL, **more}
    return Ask("/v1/chat", body, end="event: done", readers=readers)


def _service(ask: Ask) -> Callable[[Ground], Running]:
    return lambda ground: Running(_launch(ground), ask)


def _launch(ground: Ground, **settings: str) -> Server:
    """Start the service; it lets go of the upstream when the reader leaves, as all others do, and not after 10 s."""
    return launch(ground.directory, ground.simulator, on_disconnect="cancel", **settings)


def _file(ground: Ground) -> Running:
    """The journal on disk, at the level that survives a kill."""
    folder = ground.directory / f"streams-{secrets.token_hex(4)}"
    return Running(_launch(ground, journal=f"file://{folder}"), native())


def _redis(ground: Ground) -> Running:
    return _shared(ground, elsewhere=False)


def _elsewhere(ground: Ground) -> Running:
    return _shared(ground, elsewhere=True)


def _shared(ground: Ground, *, elsewhere: bool) -> Running:
    """The journal in Redis: in its memory, as what its disk costs is another matter."""
    with ExitStack() as starting:
        redis = launch_redis(ground.directory)
        starting.callback(stop, redis)
        shared = _launch(ground, journal=redis.url)
        starting.callback(stop, shared)
        reader = _launch(ground, journal=redis.url) if elsewhere else shared
        starting.pop_all()
    return Running(reader, native(), shared if elsewhere else None, redis)


OURS = (
    Contender("service", "chat-sse, `auto`, journal in memory", _service(native()), resumes=True),
    Contender("service none", "the same, `chunk: none`", _service(native(chunk="none"))),
    Contender("service time:50", "the same, `chunk: time:50`", _service(native(chunk="time:50"))),
    Contender("service × 3", "the same, `auto`, three readers of each stream", _service(native(readers=3))),
    Contender("service openai", "the same, `auto`, asked at `/v1/chat/completions`", _service(openai_ask())),
    Contender("file", "the same, `auto`, journal on disk", _file, resumes=True),
    Contender("redis", "the same, `auto`, journal in Redis", _redis, resumes=True),
    Contender("elsewhere", "the same, journal in Redis, read on another process", _elsewhere, resumes=True),
)
