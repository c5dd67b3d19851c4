"""Languages and browsers whose ordinary readers follow a stream of native events, with tests/clients/run.

Each reads through a proxy that cuts it three times, also within an event, and comes back after the last event it has.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from tests.clients.packages import package
from tests.real.node import install
from tests.real.processes import Server, launch, stats
from tests.real.proxy import Cut, Proxy

pytestmark = pytest.mark.real

READERS = Path(__file__).parent / "readers"
TEXT = "Hello, 你好, สวัสดี, مرحبا 👩‍👩‍👧‍👦! \u2028 A stream belongs to the server, not to a connection.\n" * 2
CUTS = (Cut(blocks=5), Cut(octets=900, reset=True), Cut(octets=700))
DENO, BUN = "deno@2.9.6", "bun@1.4.5"
PAGE = """<!doctype html><meta charset="utf-8"><script>
const source = new EventSource({url});
const lines = [];
for (const name of ["start", "delta", "done", "error"])
  source.addEventListener(name, ({{ data }}) => {{
    if (data === undefined) return; // the connection's own error: it comes back by itself
    lines.push(`${{name}} ${{data}}`);
    if (name !== "done" && name !== "error") return;
    source.close();
    fetch("/", {{ method: "POST", body: lines.join("\\n") }});
  }});
</script>"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=100, allowed_origins="*")
    yield server
    server.stop()


@contextmanager
def cut_stream(service: Server, simulator: Server) -> Iterator[str]:
    """Give the URL of a stream whose connections are cut. At the end its reader has to have come back each time."""
    with Proxy(service.url, CUTS) as proxy:
        before = stats(simulator)["requests"]
        asked = {"prompt": TEXT, "model": "sim-echo?rate=40&first=0", "chunk": "none"}
        opened = httpx.post(f"{service.url}/v1/chat", json=asked, headers={"Accept": "application/json"})
        yield proxy.url + opened.json()["url"]
        positions = proxy.header("last-event-id")
        assert positions[0] is None
        assert len([position for position in positions if position]) == len(CUTS)
        assert stats(simulator)["requests"] == before + 1


def check(lines: list[str]) -> None:
    """Check what a reader printed: all events, each once."""
    events = [line.split(" ", 1) for line in lines if line]
    assert [name for name, _ in events if name != "delta"] == ["start", "done"]
    assert "".join(json.loads(data)["content"] for name, data in events if name == "delta") == TEXT


def commands() -> dict[str, list[str]]:
    """Return what runs each reader. Deno and Bun are programs beside npm's package of that name."""
    [deno] = package(DENO).parent.glob("@deno/*/deno")
    [bun] = package(BUN).parent.glob("@oven/*/bin/bun")
    return {
        "php": ["php", str(READERS / "read.php")],
        "ruby": ["ruby", str(READERS / "read.rb")],
        "go": ["go", "run", str(READERS / "read.go")],
        "java": ["java", str(READERS / "Read.java")],
        "deno": [str(deno), "run", "--allow-net", str(READERS / "read.mjs")],
        "bun": [str(bun), str(READERS / "read.mjs")],
    }


@pytest.mark.parametrize("language", ["php", "ruby", "go", "java", "deno", "bun"])
def test_language(service: Server, simulator: Server, language: str) -> None:
    """It has each event once, however its connections end."""
    with cut_stream(service, simulator) as url:
        module = str(install() / "eventsource" / "dist" / "index.js")
        done = subprocess.run([*commands()[language], url, module], capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
    check(done.stdout.decode().split("\n"))


def test_firefox(service: Server, simulator: Server, tmp_path: Path) -> None:
    """Firefox's `EventSource`, in a page of another site, has each event once."""
    told: list[str] = []
    whole = threading.Event()

    class Site(BaseHTTPRequestHandler):
        page = b""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(self.page)

        def do_POST(self) -> None:
            said = self.rfile.read(int(self.headers["Content-Length"])).decode()
            told.extend(said.split("\n"))
            self.send_response(204)
            self.end_headers()
            whole.set()

        def log_message(self, *arguments: object) -> None:
            pass

    firefox = shutil.which("firefox-esr") or shutil.which("firefox")
    assert firefox is not None
    with cut_stream(service, simulator) as url, ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        Site.page = PAGE.format(url=json.dumps(url)).encode()
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{site.server_port}/"
        options = ["--headless", "--no-remote", "--profile", str(tmp_path)]
        with subprocess.Popen(
            [firefox, *options, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as browser:
            try:
                assert whole.wait(60)
            finally:
                browser.terminate()
                site.shutdown()
                thread.join()
    check(told)
