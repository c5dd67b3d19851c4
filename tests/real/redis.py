"""A real redis-server for tests, which can be stopped, killed and started again on its port."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from redis import Redis
from redis.exceptions import RedisError

from tests.ports import free_port
from tests.real.processes import Server, log_file
from tests.real.proxy import Proxy
from tests.waiting import wait_until

# What becomes of the data when the server is started again: all of it is there, or none.
PERSISTENT = ("--appendonly", "yes", "--appendfsync", "everysec")
FORGETFUL = ("--appendonly", "no")


class RedisServer(Server):
    """A redis-server with its data in *directory*; *options* are more of its command line."""

    def __init__(self, directory: Path, *options: str) -> None:
        binary = shutil.which("redis-server")
        assert binary is not None, "apt-get install --no-install-recommends redis-server"
        port = free_port()
        self._directory = directory
        self._command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""]
        self._command += options
        self.url = f"redis://127.0.0.1:{port}/0"
        self._begin()

    def _begin(self) -> None:
        super().__init__(self._command, log_file(self._directory, "redis"))
        try:
            wait_until(lambda: self._answers() or self.popen.poll() is not None)
            assert self.popen.poll() is None, self.text()
        except BaseException:
            self.stop()
            raise

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (RedisError, OSError):
            return False  # not listening yet, or still loading

    def client(self) -> Redis:
        """Return a client of it, to be closed."""
        return Redis.from_url(self.url, socket_timeout=5, socket_connect_timeout=2)

    def restart(self, number: signal.Signals = signal.SIGTERM) -> float:
        """End it by signal *number*, and start it again on the same port with what it kept.

        Return when it had ended, as `time.time` has it.
        """
        self.send(number)
        self.ended()
        ended_at = time.time()
        self._begin()
        return ended_at

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.send(signal.SIGCONT)  # stopped, it would not hear the other one
        super().stop()


def launch_redis(directory: Path, *options: str) -> RedisServer:
    """Start a redis-server on a free port, and wait until it answers. Without *options* it forgets all at its end."""
    return RedisServer(directory, *(options or FORGETFUL))


def url_behind(proxy: Proxy) -> str:
    """Return the URL of the Redis to which *proxy* forwards."""
    return proxy.url.replace("http", "redis") + "/0"
