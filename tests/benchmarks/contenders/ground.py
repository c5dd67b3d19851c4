"""What a contender is, and the ground it starts on."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from os import kill
from pathlib import Path
from typing import Any

from tests.benchmarks import accounts
from tests.benchmarks.contenders.packages import Missing, last_line
from tests.benchmarks.plan import MODEL, Ask
from tests.real.processes import Process, Server, log_file
from tests.waiting import wait_until

PROMPT = "What time is it?"
SERVERS = Path(__file__).parent / "servers"
_STARTING = 90.0  # seconds; LiteLLM takes 15


@dataclass(frozen=True, slots=True)
class Ground:
    """A *directory* for files, and the *simulator* that is everybody's upstream."""

    directory: Path
    simulator: Server

    @property
    def upstream(self) -> str:
        """The simulator's url without /v1."""
        return self.simulator.url.removesuffix("/v1")

    def start(self, command: list[Any], port: int = 0, says: str = "", **env: str) -> Server:
        """Start a server that listens on *port*, or *says* (a pattern with one group) at what url it does.

        Raises Missing if it does not come up.
        """
        server = Server(
            [str(word) for word in command], log_file(self.directory, "contender"), {"PYTHONPATH": "", **env}
        )
        try:
            if says:
                return server.listening(says)
            server.url = f"http://127.0.0.1:{port}"
            wait_until(lambda: _accepts(port) or server.popen.poll() is not None, _STARTING)
            assert server.popen.poll() is None, server.text()
        except BaseException as error:
            stop(server)
            if isinstance(error, AssertionError):
                raise Missing(f"does not start: {last_line(str(error))}") from None
            raise
        return server


@dataclass(frozen=True, slots=True)
class Running:
    """A contender at work: the *server* that is asked by *ask*.

    Streams are started on *origin*, if that is another, and kept in *redis*, if there is one.
    """

    server: Server
    ask: Ask
    origin: Server | None = None
    redis: Server | None = None

    @property
    def processes(self) -> dict[str, Server]:
        """Its processes, by the names that they are accounted for under."""
        found = {"via": self.server} if self.origin is None else {"via": self.origin, "reader": self.server}
        return found if self.redis is None else {**found, "redis": self.redis}

    def stop(self) -> None:
        """End all of its processes."""
        for server in self.processes.values():
            stop(server)


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is compared: how it starts, and what it is, for the report.

    *resumes* says that it can give the rest of a stream to who comes back.
    """

    name: str
    about: str
    start: Callable[[Ground], Running]
    resumes: bool = False


def stop(process: Process) -> None:
    """End a process and all that it started."""
    pids = accounts.tree(process.popen.pid)
    process.stop()
    for pid in pids[1:]:
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def openai_ask(**more: Any) -> Ask:
    """Return how OpenAI's API is asked for a stream, with what the service asks for."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "stream": True}
    body["stream_options"] = {"include_usage": True}
    headers = more.pop("headers", {})
    return Ask("/v1/chat/completions", body={**body, **more}, end="data: [DONE]", headers=headers)


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
