"""Three services that share a Redis behind one nginx, of which each can be killed or replaced."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.real.processes import Server, launch


class Fleet:
    """Three services on the Redis at a URL, each with its successors on the same port, and what became of those."""

    def __init__(self, directory: Path, processes: list[Server], simulator: Server, redis: str) -> None:
        self._directory = directory
        self._processes = processes
        self._simulator = simulator
        self._redis = redis
        self.killed: list[Server] = []
        self.drained: list[Server] = []
        self.running = [self._launch(0) for _ in range(3)]

    def _launch(self, port: int) -> Server:
        settings = {"keep_alive": 2, "reconnect_ms": 300, "shutdown_grace": 3, "journal": self._redis}
        server = launch(self._directory, self._simulator, port=port, **settings)
        self._processes.append(server)
        return server

    @property
    def all(self) -> list[Server]:
        """Those that are gone, too."""
        return [*self.killed, *self.drained, *self.running]

    def kill(self, index: int) -> None:
        """End one with no warning, and start its successor."""
        victim = self.running[index]
        victim.kill()
        self.killed.append(victim)
        self.running[index] = self._launch(victim.port)

    def replace(self, index: int) -> None:
        """Drain one, and start its successor."""
        leaving = self.running[index]
        leaving.send(signal.SIGTERM)
        assert leaving.ended(30) == 0, leaving.text()[-2000:]
        self.drained.append(leaving)
        self.running[index] = self._launch(leaving.port)


class Logs:
    """What all services of *fleet* have logged of their streams, by stream."""

    def __init__(self, fleet: Fleet) -> None:
        self.producer: dict[str, Server] = {}
        self.ended_at: dict[str, float] = {}
        self.unpaid = 0  # streams that ended before their first token
        self.crashes: list[str] = []
        self.elsewhere = 0  # readings in a process that is not the producer
        readings: list[tuple[str, Server]] = []
        for server in fleet.all:
            for line in _lines(server):
                match line:
                    case {"event": "stream.opened", "stream_id": stream_id}:
                        self.producer[stream_id] = server
                    case {"event": "stream.finished" | "stream.failed", "stream_id": stream_id, "timestamp": at}:
                        self.ended_at[stream_id] = datetime.fromisoformat(at).timestamp()
                        self.unpaid += line["first_token_ms"] is None
                    case {"event": "subscriber.attached", "stream_id": stream_id}:
                        readings.append((stream_id, server))
                    case {"event": str(event)} if "crashed" in event:
                        self.crashes.append(str(line))
            if "Traceback" in server.text():
                self.crashes.append(server.text().partition("Traceback")[2][:2000])
        self.elsewhere = sum(self.producer.get(stream_id) is not server for stream_id, server in readings)


def _lines(server: Server) -> Iterator[dict[str, Any]]:
    for line in server.text().splitlines():
        if line.startswith("{") and line.endswith("}"):  # the last one of a process that was killed may not
            yield json.loads(line)
