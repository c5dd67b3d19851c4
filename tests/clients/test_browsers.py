"""Browsers besides Chromium, in pages of another site, through a proxy that cuts them at any byte."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.clients.cuts import check, cut_stream, serving
from tests.clients.offline import FIREFOX_ENVIRONMENT, firefox_profile
from tests.real.processes import ROOT, Server
from tests.real.proxy import Cut

pytestmark = pytest.mark.real

READ = {
    "EventSource": """
const source = new EventSource(url);
for (const name of ["start", "delta", "done", "error"])
  source.addEventListener(name, ({ data }) => {
    if (data === undefined) return; // the connection's own error: it comes back by itself
    say(name, data);
    if (name === "done" || name === "error") source.close();
  });""",
    "client.js": """
const { attach } = await import("/client.js");
for await (const { type, data } of attach(url, { retries: 1000, maxDelay: 100 })) say(type, JSON.stringify(data));""",
}
PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><script type="module">
const url = %s;
const lines = [];
function say(name, data) {
  lines.push(`${name} ${data}`);
  if (name === "done" || name === "error") fetch("/", { method: "POST", body: lines.join("\\n") });
}
%s
</script>"""


Browser = Callable[[str, Path], AbstractContextManager[None]]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("service"), simulator) as server:
        yield server


class Site:
    """Another site, whose page reads a stream and tells the site what it saw."""

    def __init__(self) -> None:
        self.page = ""
        self.told: list[str] = []
        self.whole = threading.Event()
        self.url = ""

    @contextmanager
    def open(self) -> Iterator[None]:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                script = self.path == "/client.js"
                self.send_response(200)
                self.send_header("Content-Type", f"text/{'javascript' if script else 'html'}; charset=utf-8")
                self.end_headers()
                self.wfile.write((ROOT / "app/client/client.js").read_bytes() if script else site.page.encode())

            def do_POST(self) -> None:
                site.told = self.rfile.read(int(self.headers["Content-Length"])).decode().split("\n")
                self.send_response(204)
                self.end_headers()
                site.whole.set()

            def log_message(self, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/"
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


@contextmanager
def firefox(url: str, profile: Path) -> Iterator[None]:
    """Show a page in Firefox."""
    program = shutil.which("firefox-esr") or shutil.which("firefox")
    assert program is not None
    (profile / "user.js").write_text(firefox_profile())
    env = {**os.environ, **FIREFOX_ENVIRONMENT}
    with running(program, "--headless", "--no-remote", "--profile", str(profile), url, env=env):
        yield


@contextmanager
def webkit(url: str, profile: Path) -> Iterator[None]:
    """Show a page in WebKitGTK's own small browser, which needs a display."""
    [program] = Path("/usr/lib").glob("*/webkit2gtk-4.1/MiniBrowser")
    read, write = os.pipe()
    with running("Xvfb", "-displayfd", str(write), "-nolisten", "tcp", pass_fds=(write,)), open(read) as told:
        os.close(write)
        display = f":{told.readline().strip()}"  # once it is there
        with running(str(program), "--private", url, env={**os.environ, "HOME": str(profile), "DISPLAY": display}):
            yield


@contextmanager
def running(*command: str, env: dict[str, str] | None = None, pass_fds: tuple[int, ...] = ()) -> Iterator[None]:
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env, pass_fds=pass_fds
    ) as process:
        try:
            yield
        finally:
            process.terminate()


@pytest.mark.parametrize("read", READ)
@pytest.mark.parametrize("browser", [firefox, webkit])
def test_cuts(service: Server, simulator: Server, tmp_path: Path, browser: Browser, read: str) -> None:
    """It has each event once, wherever its connections break: within a line, between lines, between events."""
    chance = random.Random(7)
    cuts = [Cut(blocks=2), *(Cut(octets=chance.randrange(700, 1400), reset=chance.random() < 0.5) for _ in range(12))]
    site = Site()
    # Not each of them is a resume: a browser also asks whether it may, and opens connections that it does not use.
    with cut_stream(service, simulator, cuts, least=6) as url, site.open():
        site.page = PAGE % (json.dumps(url), READ[read])
        with browser(site.url, tmp_path):
            assert site.whole.wait(120)
    check(site.told)
