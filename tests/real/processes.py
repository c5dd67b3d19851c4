"""Real processes for real tests: each is started on a free port, awaited by what it says, and ended with its test."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from tests.ports import free_port
from tests.waiting import wait_until
from tests.watchdog import Recording

# What the service says once it accepts connections.
LISTENS = r"listens on (http://\S+?),? "
# Moves the descriptor of the first argument to where systemd's protocol has it, and becomes the rest of the arguments.
_PASS = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)
ROOT = Path(__file__).parent.parent.parent
NGINX = ROOT / "deploy" / "nginx.conf"


class Process:
    """A child process whose stderr is kept in a file and read while it runs."""

    def __init__(
        self, command: list[str], log: Path, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()
    ) -> None:
        self.log = log
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("CHAT_SSE_", "OPENAI_"))}
        with log.open("wb") as stderr:
            self.popen = subprocess.Popen(
                command,
                cwd=log.parent,
                env={**clean, "PYTHONPATH": str(ROOT), **(env or {})},
                stdout=stderr,
                stderr=stderr,
                pass_fds=pass_fds,
            )

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def awaits(self, pattern: str, timeout: float = 60) -> re.Match[str]:
        """Return the first match of *pattern* in what the process has written."""
        deadline = time.monotonic() + timeout
        while True:
            if match := re.search(pattern, self.text()):
                return match
            assert self.popen.poll() is None, f"ended with {self.popen.returncode}:\n{self.text()}"
            assert time.monotonic() < deadline, f"no {pattern!r} in:\n{self.text()}"
            time.sleep(0.01)

    def memory(self, figure: str = "VmRSS") -> int:
        """Return the bytes that are resident now; with `VmHWM`, the most that ever were."""
        fields = Path(f"/proc/{self.popen.pid}/status").read_text()
        return int(fields.partition(f"{figure}:")[2].split()[0]) * 1024

    def send(self, number: signal.Signals) -> None:
        self.popen.send_signal(number)

    def ended(self, timeout: float = 60) -> int:
        return self.popen.wait(timeout)

    def kill(self) -> None:
        """End it without a warning."""
        self.send(signal.SIGKILL)
        self.ended()

    def stop(self) -> None:
        """End it. A service that after a second still waits for live streams is told to end them."""
        for number, seconds in ((signal.SIGTERM, 1), (signal.SIGINT, 10), (signal.SIGKILL, 60)):
            if self.popen.poll() is None:
                self.popen.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self.popen.wait(seconds)


def left_unread(service: Process) -> set[str]:
    """Return the streams that the service ended because a grace had passed, by the log in JSON."""
    lines = [json.loads(line) for line in service.text().splitlines() if "stream.unread" in line]
    return {line["stream_id"] for line in lines}


class Server(Process):
    """A process that listens; *url* is where."""

    url: str
    watchdog: Recording  # of a service that `launch_watched` started

    def listening(self, pattern: str) -> Server:
        """Wait until it says where it listens; end it if it does not."""
        try:
            self.url = self.awaits(pattern)[1]
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2].partition("/")[0])


def launch(directory: Path, upstream: Server | str | None = None, /, **settings: Any) -> Server:
    """Start `chat-sse serve` with *settings* as environment; without an upstream it brings its simulator along.

    It gets a free port, unless `port` is among them.
    """
    return _serve("app", directory, upstream, settings, {}).listening(LISTENS)


def launch_watched(directory: Path, upstream: Server | str | None = None, /, **settings: Any) -> Server:
    """Start the service as `launch` does, in one process whose event loop is watched; `watchdog` has what held it."""
    file = log_file(directory, "watchdog")
    service = _serve("tests.watchdog", directory, upstream, settings, {"WATCHDOG_FILE": str(file)}).listening(LISTENS)
    service.watchdog = Recording(file)
    return service


def launch_jumped(directory: Path, upstream: Server, jump: float, /, **settings: Any) -> Server:
    """Start the service as `launch` does, on a clock that is *jump* seconds ahead."""
    return _serve("tests.real.jumped", directory, upstream, settings, {"CLOCK_JUMP": str(jump)}).listening(LISTENS)


def launch_hasty(directory: Path, upstream: Server, /, **settings: Any) -> Server:
    """Start the service as `launch` does, with shorter times in Redis."""
    return _serve("tests.real.hasty", directory, upstream, settings, {}).listening(LISTENS)


def start_activated(listener: socket.socket, directory: Path, upstream: Server, /, **settings: Any) -> Server:
    """Start the service on *listener*, as systemd does for a `.socket` unit. It is not awaited: see `LISTENS`."""
    passing = [sys.executable, "-c", _PASS, str(listener.fileno())]
    return _serve("app", directory, upstream, settings, {}, passing, (listener.fileno(),))


def _serve(
    module: str,
    directory: Path,
    upstream: Server | str | None,
    settings: dict[str, Any],
    env: dict[str, str],
    before: Sequence[str] = (),
    pass_fds: tuple[int, ...] = (),
) -> Server:
    command = [*before, sys.executable, "-m", module, "serve", "--port", str(settings.pop("port", 0))]
    for name, value in settings.items():
        prefix = "" if name.startswith("openai_") else "CHAT_SSE_"
        env[prefix + name.upper()] = str(value)
    if upstream is not None:
        env["OPENAI_BASE_URL"] = upstream if isinstance(upstream, str) else upstream.url
    return Server(command, log_file(directory, "service"), env, pass_fds)


def launch_simulator(directory: Path) -> Server:
    """Start a simulator with the models that only tests ask for; its url includes /v1."""
    command = [sys.executable, "-m", "tests.simulator"]
    return Server(command, log_file(directory, "simulator")).listening(r"listens on (http://\S+)")


def launch_nginx(directory: Path, *services: Server, fail_timeout: int = 10, config: str = "") -> Server:
    """Start the real nginx with deploy/nginx.conf itself, before all *services*; only ports and paths are replaced.

    One that cannot be reached is left out for *fail_timeout* seconds; 10 is nginx's own default. *config* is a variant
    of the file, whose first server may have TLS.
    """
    config = config or NGINX.read_text()
    addresses = [f"server 127.0.0.1:{service.port} fail_timeout={fail_timeout}s;" for service in services]
    for old, new in (
        ("user www-data;", "daemon off;" if os.geteuid() else "user root; daemon off;"),
        ("/run/nginx.pid", str(directory / "nginx.pid")),
        ("/var/log/nginx/error.log warn", "stderr info"),
        ("/var/log/nginx/access.log", str(directory / "access.log")),
        ("server 127.0.0.1:8000;", " ".join(addresses)),
        ("worker_processes auto;", "worker_processes 1;"),
    ):
        assert config.count(old) == 1, old
        config = config.replace(old, new)
    config = _without_ipv6(config)
    config = re.sub(r"^( *listen )\d+", lambda it: f"{it[1]}127.0.0.1:{free_port()}", config, flags=re.MULTILINE)
    path = directory / "nginx.conf"
    path.write_text(config)
    server = Server([nginx_program(), "-p", str(directory), "-c", str(path)], log_file(directory, "nginx"))
    address, tls = re.findall(r"^ *listen (\S+?)( ssl.*)?;", config, re.MULTILINE)[0]
    server.url = f"{'https' if tls else 'http'}://{address}"
    try:
        wait_until(lambda: _accepts(server.port) or server.popen.poll() is not None)
        assert server.popen.poll() is None, server.text()
    except BaseException:
        server.stop()
        raise
    return server


def check_nginx(directory: Path, config: str) -> None:
    """Have nginx take *config*, in which nothing but paths, ports and the user is replaced, without a word about it."""
    for old, new in (("/run/", f"{directory}/"), ("/var/log/nginx/", f"{directory}/"), ("user www-data;", "")):
        config = config.replace(old, new)
    if not _has_ipv6():
        config = _without_ipv6(config)
    path = directory / "nginx.conf"
    path.write_text(re.sub(r"^( *listen .*?)(80|443)", r"\g<1>50\2", config, flags=re.MULTILINE))
    command = [nginx_program(), "-t", "-q", "-p", str(directory), "-c", str(path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")


def nginx_program() -> str:
    """Return where nginx is. On Debian only root's PATH leads there."""
    return shutil.which("nginx") or "/usr/sbin/nginx"


def _without_ipv6(config: str) -> str:
    return re.sub(r"^ *listen \[::\].*", "", config, flags=re.MULTILINE)


def _has_ipv6() -> bool:
    """Return whether this machine has it: nginx does not start where it cannot listen."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True


def log_file(directory: Path, name: str) -> Path:
    return directory / f"{name}-{secrets.token_hex(4)}.log"


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def stats(simulator: Server) -> dict[str, int]:
    """Return the simulator's counters."""
    answer = httpx.get(simulator.url.removesuffix("/v1") + "/stats")
    counters: dict[str, int] = answer.json()
    return counters
