"""The processes a scenario is played on: the simulator, what is compared before it, and the client.

Either a bare nginx and the service; or the service with each journal, on one process and on two.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.benchmarks import accounts
from tests.benchmarks.plan import Plan, Scenario, Seen, Via
from tests.real.processes import ROOT, Server, free_port, launch, launch_simulator, wait_until
from tests.real.redis import launch_redis

# What a delta costs in a proxy that only moves bytes: the yardstick. One worker, because the service is one process.
_NGINX = """\
daemon off;
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream simulator {{ server 127.0.0.1:{upstream}; keepalive 2048; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://simulator;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


def launch_bare_nginx(directory: Path, upstream: Server) -> Server:
    """Start nginx as nothing but a proxy of *upstream*."""
    port = free_port()
    config = directory / "bare.conf"
    config.write_text(_NGINX.format(directory=directory, upstream=upstream.port, port=port))
    binary = shutil.which("nginx") or "/usr/sbin/nginx"
    server = Server([binary, "-p", str(directory), "-c", str(config)], directory / "nginx.log")
    server.url = f"http://127.0.0.1:{port}"
    wait_until(lambda: _accepts(port) or server.popen.poll() is not None)
    assert server.popen.poll() is None, server.text()
    return server


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Stage:
    """Running processes; *servers* are what listens, by what it stands between.

    *origin* is where streams are started that are read `elsewhere`, *redis* where those with a journal there are kept.
    """

    def __init__(self, servers: dict[Via, Server], origin: Server | None = None, redis: Server | None = None) -> None:
        self._servers = servers
        self._origin = origin
        self._redis = redis

    def play(self, scenario: Scenario, via: Via) -> Seen:
        """Play *scenario* once via *via*, with a load client of its own."""
        server = self._servers[via]
        watched = {"simulator": self._servers["direct"]}
        origin = 0
        if via == "elsewhere" and self._origin is not None:
            watched |= {"via": self._origin, "reader": server}
            origin = self._origin.port
        elif via != "direct":
            watched["via"] = server
        if via in ("redis", "elsewhere") and self._redis is not None:
            watched["redis"] = self._redis
        watch = {name: accounts.tree(each.popen.pid) for name, each in watched.items()}
        client = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.load"],
            input=Plan(scenario, via, server.port, watch, origin).dump(),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return Seen.parse(client.stdout)

    def warm_up(self) -> None:
        """Have every code path run and every pool filled before anything is counted."""
        for via in self._servers:
            self.play(Scenario("warm-up", 10, ramp=0.2, settle=0, window=0.3, probing=0.2, probes=5), via)


@contextmanager
def stage(directory: Path, *, journals: bool = False) -> Iterator[Stage]:
    """Start fresh processes in *directory* and end them: memory that an earlier scenario touched does not count."""
    with ExitStack() as running:

        def started(server: Server) -> Server:
            running.callback(server.stop)
            return server

        simulator = started(launch_simulator(directory))
        service = started(launch(directory, simulator))
        if not journals:
            nginx = started(launch_bare_nginx(directory, simulator))
            yield Stage({"direct": simulator, "nginx": nginx, "service": service})
            return
        redis = started(launch_redis(directory))  # in its memory: what its disk costs is another matter
        shared, other = (started(launch(directory, simulator, journal=redis.url)) for _ in range(2))
        yield Stage({"direct": simulator, "service": service, "redis": shared, "elsewhere": other}, shared, redis)
