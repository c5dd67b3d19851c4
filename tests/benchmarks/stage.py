"""The processes a scenario is played on: the simulator, a bare nginx before it, the service before it, the client."""

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
    """Running processes; *servers* are what listens, by what it stands between."""

    def __init__(self, servers: dict[Via, Server]) -> None:
        self._servers = servers
        self._simulator = accounts.tree(servers["direct"].popen.pid)

    def play(self, scenario: Scenario, via: Via) -> Seen:
        """Play *scenario* once via *via*, with a load client of its own."""
        server = self._servers[via]
        watch = {"simulator": self._simulator}
        if via != "direct":
            watch["via"] = accounts.tree(server.popen.pid)
        client = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.load"],
            input=Plan(scenario, via, server.port, watch).dump(),
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
def stage(directory: Path) -> Iterator[Stage]:
    """Start fresh processes in *directory* and end them: memory that an earlier scenario touched does not count."""
    with ExitStack() as running:

        def started(server: Server) -> Server:
            running.callback(server.stop)
            return server

        simulator = started(launch_simulator(directory))
        nginx = started(launch_bare_nginx(directory, simulator))
        service = started(launch(directory, simulator))
        yield Stage({"direct": simulator, "nginx": nginx, "service": service})
