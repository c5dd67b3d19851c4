"""Every command and snippet of every README is run, with only addresses, ports and paths replaced."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.ports import free_port
from tests.readmes import ROOT, Block, blocks
from tests.real import node, picture
from tests.real.processes import Process, Server, launch, launch_simulator, log_file, nginx_program
from tests.real.proxy import Cut, Proxy
from tests.waiting import wait_until

pytestmark = pytest.mark.real

BLOCKS = blocks()
CHAT_SSE = f"{sys.executable} -m app"
RECIPES = "README.md"
PACKAGE = "app/client/README.md"
API = "app/edge/README.md"
CLIENTS = "app/edge/dialects/README.md"
OPERATION = "deploy/README.md"
BY_HAND = (OPERATION, "Two processes, by hand")


@dataclass
class Place:
    """Where a block is run: beside a *service*, in a *browser*, in a *folder* of its own, in a fresh *clone*, or where
    the npm *package* is installed."""

    service: Server
    browser: Browser
    folder: Path
    clone: Callable[[], Path]
    package: Callable[[], node.Installed]


Run = Callable[[str, Place], None]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with its own simulator, as `deploy/run` starts it."""
    server = launch(tmp_path_factory.mktemp("service"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """A fresh clone in which the quick start was run, made when it is first asked for."""
    folder = tmp_path_factory.mktemp("quick-start")

    def made() -> Path:
        if not (folder / "chat-sse").exists():
            block = next(block for block in BLOCKS if block.key == (RECIPES, "Quick start", "sh", 0))
            # `exec`, so that a signal reaches the service and not its shell.
            code = block.code.replace("REPOSITORY", str(ROOT)).replace("deploy/run", "exec deploy/run")
            started = Server(
                ["sh", "-ec", code],
                log_file(folder, "quick-start"),
                {
                    "CHAT_SSE_PORT": "0",
                    "PYTHONPATH": "",
                    "HOME": "/proc/none",
                },  # a user whose home cannot be written to
            )
            try:
                started.awaits(r"listens on (http://\S+?),? ", timeout=600)
            finally:
                started.stop()
        return folder / "chat-sse"

    return made


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], node.Installed]:
    """The npm package, installed when it is first asked for."""
    return cache(lambda: node.Installed(tmp_path_factory.mktemp("package")))


@pytest.fixture
def place(
    service: Server,
    browser: Browser,
    tmp_path: Path,
    clone: Callable[[], Path],
    package: Callable[[], node.Installed],
) -> Place:
    return Place(service, browser, tmp_path, clone, package)


@pytest.mark.parametrize("block", BLOCKS, ids=[f"{it.readme}-{it.heading}-{it.language}{it.number}" for it in BLOCKS])
def test_block(block: Block, place: Place) -> None:
    """A block does what its README says; a block that no test knows is a failure."""
    assert block.key in RUNS, f"no test runs the {block.language} block of {block.readme} under {block.heading!r}"
    RUNS[block.key](block.code, place)


def test_no_run_is_left_over() -> None:
    """Every run has its block."""
    assert set(RUNS) == {block.key for block in BLOCKS}


def test_picture(service: Server, browser: Browser, tmp_path: Path) -> None:
    """README's picture can be taken again: the playground drops its connection twice and resumes."""
    path = tmp_path / "playground.png"
    picture.take(browser, service, path)
    assert path.read_bytes()[:24] == (ROOT / "deploy" / "playground.png").read_bytes()[:24]  # a PNG of the same size


# Shell


def shell(code: str, place: Place, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *code* to its end in the test's folder and return what it printed."""
    code = _local(code, place.service)
    return subprocess.run(
        ["bash", "-ec", code],
        cwd=place.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def _local(code: str, service: Server) -> str:
    replaced = code.replace("http://localhost:8000", service.url).replace("localhost:8000", f"127.0.0.1:{service.port}")
    return replaced.replace(".venv/bin/chat-sse", CHAT_SSE)


def events(text: str) -> list[tuple[str, dict[str, object]]]:
    """Return the (event, data) pairs of a native stream."""
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", text, re.MULTILINE)
    return [(name, json.loads(data)) for name, data in found]


def quick_start(code: str, place: Place) -> None:
    assert (place.clone() / ".venv" / "bin" / "chat-sse").exists()


def first_stream(code: str, place: Place) -> None:
    names = [name for name, _ in events(shell(code, place).stdout)]
    assert names[0] == "start"
    assert set(names[1:-1]) == {"delta"}
    assert names[-1] == "done"


def shown_events(code: str, place: Place) -> None:
    """The fields that README shows are those that the service sends."""
    answer = httpx.post(f"{place.service.url}/v1/chat", json={"prompt": "hi"}).text
    sent = {name: set(data) for name, data in events(answer)}
    shown = {name: set(data) for name, data in events(code.replace("{…}", "{}"))}
    assert shown == {name: sent[name] for name in shown}
    order = re.compile(r"^(retry|event|data|id): ", re.MULTILINE)
    assert order.findall(code.split("\n\n")[0]) == order.findall(answer.split("\n\n")[0])
    assert order.findall(code.split("\n\n")[1]) == order.findall(answer.split("\n\n")[1])


def ask(code: str, place: Place) -> None:
    assert shell(code.replace("chat-sse ask", f"chat-sse ask --url {place.service.url}"), place).stdout.strip()


def real_upstreams(code: str, place: Place) -> None:
    """Each line starts a service that names its upstream; only the second is asked: the first would ask OpenAI."""
    simulator = launch_simulator(place.folder)
    try:
        code = code.replace("http://localhost:11434/v1", simulator.url).replace("llama3.2", "sim-gpt")
        code = code.replace("sk-…", "sk-example").replace("deploy/run", f"exec {CHAT_SSE} serve --port 0")
        to_openai, to_local = (Server(["sh", "-c", line], log_file(place.folder, "line")) for line in code.splitlines())
        try:
            to_openai.awaits(r"https://api\.openai\.com/v1")
            to_local.listening(r"listens on (http://\S+?),? ")
            answer = httpx.post(f"{to_local.url}/v1/chat", json={"prompt": "hi"}).text
            assert events(answer)[0][1]["model"] == "sim-gpt"
        finally:
            to_openai.stop()
            to_local.stop()
    finally:
        simulator.stop()


def resume_and_stop(code: str, place: Place) -> None:
    body = {"prompt": "word " * 60, "model": "sim-gpt", "chunk": "none"}
    started = httpx.post(f"{place.service.url}/v1/chat", json=body, headers={"Accept": "application/json"}).json()
    answer = httpx.get(f"{place.service.url}{started['url']}").text
    *lines, listing = code.splitlines()
    whole, rest, stopped, snapshot = (shell(line, place, ID=started["stream_id"]).stdout for line in lines)
    assert events(whole)[-1][0] == "done"
    ends = [text for text in answer.split("\n\n") if text]
    after = next(number for number, text in enumerate(ends) if text.endswith("-42") or "-42\n" in text)
    assert [data for _, data in events(rest)] == [data for _, data in events("\n\n".join(ends[after + 1 :]))]
    assert json.loads(stopped)["state"] == "done"
    assert json.loads(snapshot)["finish_reason"] == "stop"
    with keyed(place) as (service, key):
        listed = json.loads(
            shell(listing.replace("localhost:8000", f"127.0.0.1:{service.port}"), place, KEY=key).stdout
        )
    assert [one["model"] for one in listed["streams"]] == ["sim-gpt"]


def listed_streams(code: str, place: Place) -> None:
    """The fields that the README shows are those that the service sends."""
    with keyed(place) as (service, key):
        listed = httpx.get(f"{service.url}/v1/streams", headers={"Authorization": f"Bearer {key}"}).json()
    shown = json.loads(code)
    assert listed.keys() == shown.keys()
    assert listed["streams"][0].keys() == shown["streams"][0].keys()


@contextmanager
def keyed(place: Place) -> Iterator[tuple[Server, str]]:
    """Start a service that asks for a key, and give it with the key, which has opened a stream."""
    key = "csk_for-this-test-alone"
    service = launch(place.folder, api_keys=f"web:{hashlib.sha256(key.encode()).hexdigest()}")
    try:
        body = {"prompt": "hi", "metadata": {"title": "Trip to Oslo"}}
        httpx.post(f"{service.url}/v1/chat", json=body, headers={"Authorization": f"Bearer {key}"})
        yield service, key
    finally:
        service.stop()


def each_streams(code: str, place: Place) -> None:
    """Each line gets content, or what its comment promises; an endless answer is ended after its first events."""
    promised = {"a rate limit": '"upstream_rate_limited"', "all of them": '"object":"list"'}
    for line in code.splitlines():
        command, _, comment = line.partition("  #")
        command = _local(command.replace("curl ", "curl -s "), place.service)
        _prints(command, promised.get(comment.strip(), "event: delta"), place.folder)


def _prints(command: str, expected: str, folder: Path) -> None:
    process = Process(["bash", "-c", command], log_file(folder, "curl"))
    try:
        wait_until(lambda: expected in process.text())
    finally:
        process.stop()


def key_line(code: str, place: Place) -> None:
    """`chat-sse key` prints a line like the one that README shows."""
    printed = shell(f"{CHAT_SSE} key web", place)
    assert re.search(r"CHAT_SSE_API_KEYS=web:[0-9a-f]{64}", printed.stdout + printed.stderr)
    assert re.fullmatch(r"CHAT_SSE_API_KEYS=(\w+:[0-9a-f]{16}…,?){2}\n", code)


def as_a_stranger(code: str, place: Place) -> None:
    key = "csk_for-this-test-alone"
    keys = f"web:{hashlib.sha256(key.encode()).hexdigest()}"
    service = launch(place.folder, api_keys=keys, allowed_hosts="127.0.0.1")
    try:
        code = code.replace("https://chat.example.com", service.url).replace("csk_…", key)
        for line in code.replace("chat-sse ask", f"{CHAT_SSE} ask").splitlines():
            command, _, expected = line.rpartition("#")
            printed = shell(command, place).stdout
            assert printed.startswith(f"HTTP/1.1 {expected.strip()}") if "curl" in command else printed.strip()
    finally:
        service.stop()


def dev_server(code: str, place: Place) -> None:
    """The page of the origin that the line lists may ask; the preflight of another one is refused."""
    line = code.replace("deploy/run", f"exec {CHAT_SSE} serve --port 0").replace("sk-…", "sk-example")
    started = Server(["sh", "-c", line], log_file(place.folder, "dev-server"))
    try:
        started.listening(r"listens on (http://\S+?),? ")
        for origin, status in (("http://localhost:5173", 200), ("http://localhost:5174", 403)):
            preflight = {"Origin": origin, "Access-Control-Request-Method": "POST"}
            assert httpx.options(f"{started.url}/v1/chat", headers=preflight).status_code == status
    finally:
        started.stop()


def upstreams_file(code: str, place: Place) -> None:
    path = place.folder / "upstreams.toml"
    path.write_text(re.sub(r'sha256 = "[^"]*"', f'sha256 = "{hashlib.sha256(b"key").hexdigest()}"', code))
    keys = {"OPENAI_API_KEY": "one", "AZURE_OPENAI_API_KEY": "other"}
    assert "fast" in shell(f"{CHAT_SSE} check {path}", place, **keys).stdout


# Two processes, by hand: one history, told in four blocks.


def two_processes(code: str, place: Place) -> None:
    """The whole recipe, block after block, in the fresh clone."""
    install, services, nginx, read = (block.code for block in BLOCKS if block.key[:3] == (*BY_HAND, "sh"))
    assert code == install
    recipe = Recipe(place)
    try:
        packages, environment, folder, redis = install.splitlines()
        names = packages.removeprefix("sudo apt-get install ").split()
        assert all(shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") for name in names)
        recipe.runs(environment)
        recipe.runs(folder)
        recipe.starts(redis, "6390")
        first, second = services.splitlines()
        killed = recipe.starts(first, "8000")
        recipe.starts(second, "8010")
        configure, start, ask = nginx.rsplit("\n", 3)[:3]
        recipe.runs(configure)
        recipe.listens_elsewhere()
        recipe.starts(f"{start} -g 'daemon off;'", "8080")
        assert recipe.runs(ask).strip()
        reader = recipe.starts(read.replace("\ncurl", "\nexec curl"))
        wait_until(lambda: reader.text().count("event: delta") > 3)
        killed.send(signal.SIGKILL)
        wait_until(lambda: '"producer_lost"' in reader.text(), timeout=60)
    finally:
        recipe.ends()


class Recipe:
    """The shells of one recipe, in the clone, with free ports in place of README's."""

    def __init__(self, place: Place) -> None:
        self._clone = place.clone()
        self._folder = place.folder
        self._ports = {port: str(free_port()) for port in ("8000", "8010", "8080", "6390")}
        self._processes: list[Process] = []

    def runs(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", self._local(command)],
            cwd=self._clone,
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        return done.stdout

    def starts(self, command: str, port: str | None = None) -> Process:
        """Start *command* in a shell of its own, and wait until it listens on what became of *port*."""
        # `exec`, so that a signal reaches the process and not its shell.
        command = command if "\n" in command else f"exec env {command}"
        process = Process(
            ["bash", "-ec", f"cd {self._clone}; {self._local(command)}"],
            log_file(self._folder, "shell"),
            {"PYTHONPATH": ""},
        )
        self._processes.append(process)
        if port is not None:
            address = ("127.0.0.1", int(self._ports[port]))
            wait_until(lambda: _listens(address) or process.popen.poll() is not None)
            assert process.popen.poll() is None, process.text()
        return process

    def listens_elsewhere(self) -> None:
        """Give the nginx configuration the free ports, and a user that this machine has."""
        path = self._folder / "chat-sse-nginx.conf"
        text = path.read_text()
        for port in ("8000", "8010"):
            assert text.count(f"    server 127.0.0.1:{port};") == 1
            text = text.replace(f"server 127.0.0.1:{port};", f"server 127.0.0.1:{self._ports[port]};")
        path.write_text(text.replace("user www-data;", "user root;" if os.geteuid() == 0 else ""))

    def ends(self) -> None:
        for process in reversed(self._processes):
            process.stop()

    def _local(self, command: str) -> str:
        command = command.replace("sudo ", "").replace("/tmp/", f"{self._folder}/")
        command = re.sub(r"\bnginx -c", f"{nginx_program()} -c", command)
        for port, free in self._ports.items():
            command = re.sub(
                rf"(--port |localhost:|redis://127\.0\.0\.1:|listen 127\.0\.0\.1:){port}\b", rf"\g<1>{free}", command
            )
        return command


def told_in_the_first(code: str, place: Place) -> None:
    """`two_processes` runs this block, too."""
    assert code in [block.code for block in BLOCKS if block.key[:2] == BY_HAND]


def _listens(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) == 0


# JavaScript and Python


def event_source(code: str, place: Place) -> None:
    """The snippet shows the whole answer, and throws the sentence of a refusal without asking again."""
    in_a_page(code, place)
    for status in (400, 401, 403, 429, 503):
        with place.browser.new_context(bypass_csp=True) as context:
            page = context.new_page()
            page.goto(place.service.url)
            asked = _refuse(page, status)
            with page.expect_event("pageerror") as thrown:
                page.add_script_tag(content=code, type="module")
            assert thrown.value.message == "No."
            assert len(asked) == 1


def _refuse(page: Page, status: int) -> list[str]:
    """Have every request of *page* to the API refused, and return the list that gets their URLs."""
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.fulfill(status=status, json={"error": {"message": "No."}})

    page.route("**/v1/**", refuse)
    return asked


def in_a_page(code: str, place: Place) -> None:
    """The snippet runs as a module of a page, and shows the whole answer."""
    with place.browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(place.service.url)
        page.evaluate(
            "Object.assign(window, {shown: '', show: (text) => { shown += text }, complain: (text) => { throw text }})"
        )
        page.add_script_tag(content=code, type="module")
        page.wait_for_function("shown.length > 100")
        expected = httpx.post(f"{place.service.url}/v1/chat", json={"prompt": "hi"}).text
        text = "".join(str(data["content"]) for name, data in events(expected) if name == "delta")
        page.wait_for_function("(length) => shown.length === length", arg=len(text.encode("utf-16-le")) // 2)


def in_node(code: str, place: Place) -> None:
    """The snippet runs in Node, and ends by itself. It gives up on a refusal that is final, and waits out another."""
    done = _node(_fetching(code, place.service.url))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 100
    for status in (400, 401, 403):
        with Refusals(status, place.service) as refusing:
            refused = _node(_fetching(code, refusing.url))
        assert refused.returncode != 0
        assert "No." in refused.stderr
        assert len(refusing.asked_at) == 1
    for status in (429, 503):
        with Refusals(status, place.service, then_pass=True) as refusing:
            done = _node(_fetching(code, refusing.url))
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 100
        first, second = refusing.asked_at
        assert second - first > 1.9  # as `Retry-After` says


def _fetching(code: str, url: str) -> str:
    """Return a program that runs *code* in a page made of the few globals that fetch-event-source uses."""
    return f"""
        const page = Object.assign(new EventTarget(), {{ hidden: false }});
        globalThis.window = globalThis;
        globalThis.document = page;
        const {{ fetchEventSource }} = require("@microsoft/fetch-event-source");
        const there = fetch;
        globalThis.fetch = (path, options) => there({json.dumps(url)} + path, options);
        const ended = new AbortController();
        const show = (text) => process.stdout.write(text);
        (async () => {{ {code} }})();
    """


class Refusals(ThreadingHTTPServer):
    """Refuses requests with *status*: each, or, with *then_pass*, the first one, and sends the next to *service*."""

    def __init__(self, status: int, service: Server, *, then_pass: bool = False, wait: int = 2) -> None:
        self.asked_at: list[float] = []
        refusals = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                refusals.asked_at.append(time.monotonic())
                body = self.rfile.read(int(self.headers["content-length"]))
                if then_pass and len(refusals.asked_at) > 1:
                    passed = httpx.post(service.url + self.path, content=body, headers=dict(self.headers), timeout=60)
                    self._answer(passed.status_code, passed.headers["content-type"], passed.content)
                else:
                    self._answer(status, "application/json", b'{"error":{"message":"No."}}')

            def _answer(self, answered: int, kind: str, content: bytes) -> None:
                self.send_response(answered)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                if answered in (429, 503):
                    self.send_header("Retry-After", str(wait))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


def _node(program: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NODE_PATH": str(node.install())}
    return subprocess.run([node.NODE, "-e", program], env=environment, capture_output=True, text=True, timeout=120)


def npm_install(code: str, place: Place) -> None:
    """The package is packed and installed, with nothing else."""
    npm = Path(node.NODE).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    shell(code.replace("npm ", f"{node.NODE} {npm} ").replace("./app/client", str(ROOT / "app" / "client")), place)
    assert [found.name for found in (place.folder / "node_modules").glob("[!.]*")] == ["chat-sse-client"]


def with_the_package(code: str, place: Place) -> None:
    """The module shows the answer, in Node."""
    script = place.package().folder / "snippet.mjs"
    globals_ = "globalThis.show = (text) => process.stdout.write(text);\n"
    script.write_text(globals_ + _local(code, place.service))
    done = subprocess.run([node.NODE, script], capture_output=True, text=True, check=True, timeout=60)
    assert len(done.stdout) > 100


def component(code: str, place: Place) -> None:
    """The component asks when its button is pressed, and shows the answer."""
    folder = place.package().folder
    (folder / "chat.jsx").write_text(code)
    page_ = (
        'createRoot(document.body.appendChild(document.createElement("div"))).render(<Chat id="a-chat-of-a-page" />);'
    )
    imports = 'import { createRoot } from "react-dom/client"; import { Chat } from "./chat.jsx"; '
    script = place.package().bundle(imports + page_)
    with place.browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{place.service.url}/healthz")
        page.add_script_tag(content=script)
        page.get_by_role("button", name="Ask").click()
        page.wait_for_function("[...document.querySelectorAll('p')].some((p) => p.textContent.length > 100)")


def answers_in_react(code: str, place: Place) -> None:
    """The hook shows the answer; a page that is reloaded in its middle shows it from its start, and its end."""
    folder = place.package().folder
    (folder / "answers.jsx").write_text(code)
    script = place.package().bundle("""
        import { createRoot } from "react-dom/client";
        import { useAnswers } from "./answers.jsx";

        function Page() {
          const { messages, sendMessage, status } = useAnswers();
          const answer = messages.findLast(({ role }) => role === "assistant");
          return (
            <>
              <button onClick={() => sendMessage({ text: "hi" }, { body: { model: "never-ends?rate=50&first=0" } })}>
                Ask
              </button>
              <output>{status}</output>
              <p>{answer?.parts.map(({ text }) => text ?? "").join("")}</p>
            </>
          );
        }
        createRoot(document.body.appendChild(document.createElement("div"))).render(<Page />);
    """)
    with place.browser.new_context(bypass_csp=True) as context:
        page = context.new_page()
        page.goto(f"{place.service.url}/healthz")
        page.add_script_tag(content=script)
        page.get_by_role("button", name="Ask").click()
        longer = "(least) => document.querySelector('p')?.textContent.length > least"
        page.wait_for_function(longer, arg=20)
        before = page.locator("p").text_content() or ""
        page.reload()
        page.add_script_tag(content=script)
        page.wait_for_function(longer, arg=len(before))
        assert (page.locator("p").text_content() or "").startswith(before)
        run = page.evaluate("localStorage.getItem('run')")
        httpx.post(f"{place.service.url}/v1/streams/{run}/cancel").raise_for_status()
        expect(page.locator("output")).to_have_text("ready")
        page.wait_for_function("localStorage.getItem('run') === null")


def resumes(code: str, place: Place) -> None:
    """The program prints the answer, through cuts; and gives up at once on what is final."""
    body = '{"prompt": "hi"}'
    assert body in code
    echo = json.dumps({"prompt": "word " * 100, "model": "sim-echo?rate=0&first=0", "chunk": "none"})
    with Proxy(
        place.service.url, [Cut(octets=60, reset=True), Cut(octets=3000), Cut(octets=3000, reset=True)]
    ) as proxy:
        program = code.replace("http://localhost:8000", proxy.url)
        done = _python(program.replace(body, echo))
        assert done.stdout.strip() == ("word " * 100).strip()
        assert len(proxy.heads) == 4
    for status in (400, 401, 403):
        with Refusals(status, place.service) as refusing:
            refused = _python(code.replace("http://localhost:8000", refusing.url))
        assert f"{status} " in refused.stderr.splitlines()[-2]
        assert len(refusing.asked_at) == 1
    for status in (429, 503):
        with Refusals(status, place.service, then_pass=True) as refusing:
            done = _python(code.replace("http://localhost:8000", refusing.url))
        assert done.returncode == 0, done.stderr
        first, second = refusing.asked_at
        assert second - first > 1.9  # as `Retry-After` says
    with Refusals(429, place.service, then_pass=True, wait=120) as refusing:
        program = code.replace("http://localhost:8000", refusing.url)
        program = program.replace("time.sleep(", 'print("slept", ')
        assert "slept 120.0" in _python(program).stdout  # however long that is


def _python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def python(code: str, place: Place) -> None:
    """The program prints the answer."""
    program = _local(code, place.service)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert len(done.stdout) > 100


def stop_in_node(code: str, place: Place) -> None:
    """The snippet's stop button ends the stream at once, where `stop` alone would leave it for ten seconds."""
    program = f"""
        const {{ AbstractChat, DefaultChatTransport }} = require("ai");
        const there = fetch;
        globalThis.fetch = (path, options) => there({json.dumps(place.service.url)} + path, options);
        const id = crypto.randomUUID();
        const state = {{ messages: [], snapshot: structuredClone, popMessage() {{}} }};
        state.pushMessage = (message) => state.messages.push(message);
        state.replaceMessage = (at, message) => state.messages[at] = message;
        class Chat extends AbstractChat {{}}
        const useChat = (options) => new Chat({{ ...options, state }});
        (async () => {{
            {code}
            const done = sendMessage({{ text: "hi" }}, {{ body: {{ model: "never-ends?rate=50&first=0" }} }});
            const begun = () => state.messages.at(-1)?.parts.some((part) => part.text?.length > 20);
            while (!begun()) await new Promise(setImmediate);
            await stopAnswer();
            await done;
            console.log((await fetch(`/v1/ai-sdk/chat/${{id}}/stream`)).status);
        }})();
    """
    done = _node(program)
    assert (done.stdout, done.returncode) == ("204\n", 0), done.stderr  # nothing is live


RUNS: dict[tuple[str, str, str, int], Run] = {
    (RECIPES, "Quick start", "sh", 0): quick_start,
    (RECIPES, "Quick start", "sh", 1): first_stream,
    (RECIPES, "Quick start", "text", 0): shown_events,
    (RECIPES, "Quick start", "sh", 2): ask,
    (RECIPES, "Quick start", "sh", 3): real_upstreams,
    (RECIPES, "Resume and stop from a shell", "sh", 0): resume_and_stop,
    (API, "List your streams", "json", 0): listed_streams,
    (RECIPES, "Stream into a page", "js", 0): in_a_page,
    (RECIPES, "Stream into a page", "js", 1): event_source,
    (RECIPES, "Use the client you have", "python", 0): python,
    (RECIPES, "Choose what an event holds", "sh", 0): each_streams,
    (RECIPES, "Let it misbehave", "sh", 0): each_streams,
    (CLIENTS, "`@microsoft/fetch-event-source`", "js", 0): in_node,
    (PACKAGE, "chat-sse-client", "sh", 0): npm_install,
    (PACKAGE, "A stream", "js", 0): with_the_package,
    (PACKAGE, "With `useChat`", "jsx", 0): component,
    (PACKAGE, "With React alone", "jsx", 0): component,
    (CLIENTS, "Python, with httpx-sse", "python", 0): resumes,
    (CLIENTS, "The AI SDK", "js", 0): stop_in_node,
    (CLIENTS, "`WorkflowChatTransport`", "js", 0): answers_in_react,
    (OPERATION, "Put it on the internet", "sh", 0): key_line,
    (OPERATION, "Put it on the internet", "sh", 1): as_a_stranger,
    (OPERATION, "From a dev server", "sh", 0): dev_server,
    (OPERATION, "Several upstreams", "toml", 0): upstreams_file,
    (*BY_HAND, "sh", 0): two_processes,
    (*BY_HAND, "sh", 1): told_in_the_first,
    (*BY_HAND, "sh", 2): told_in_the_first,
    (*BY_HAND, "sh", 3): told_in_the_first,
}
