"""A journal on disk under a real service: it is killed and started again, its disk is full, its folder is taken."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.ports import free_port
from tests.real.clients.sse import Event, check, parse, text
from tests.real.conftest import Start
from tests.real.processes import ROOT, Server, launch
from tests.waiting import wait_until

pytestmark = pytest.mark.real

LIVE = {"prompt": "x", "model": "never-ends?rate=200&first=0", "on_disconnect": "continue", "chunk": "none"}
QUICK = {"prompt": "x", "model": "sim-echo?rate=0&first=0", "chunk": "none"}


@contextmanager
def reading(url: str, after: str = "", **request: Any) -> Iterator[Iterator[bytes]]:
    """Read a stream, from its start or after a position."""
    headers = {"Last-Event-ID": after} if after else {}
    method = "POST" if "json" in request else "GET"
    with httpx.stream(method, url, headers=headers, timeout=30, **request) as answer:
        assert answer.status_code == 200, answer.read()
        yield answer.iter_raw()


def read_until_killed(service: Server, events: int, **body: Any) -> list[Event]:
    """Start a stream, read so many of its events, kill the service, and return what came until the connection broke."""
    data = b""
    with reading(f"{service.url}/v1/chat", json={**LIVE, **body}) as pieces:
        try:
            for piece in pieces:
                data += piece
                if len(parse(data)) >= events and service.popen.poll() is None:
                    service.kill()
        except httpx.HTTPError:
            pass  # it broke off, as it was meant to
    return parse(data)


def rest_of(service: Server, last: Event, after: str = "") -> list[Event]:
    """Return what a client gets that comes back with the last event's id."""
    stream_id = last.id[:22]
    with reading(f"{service.url}/v1/streams/{stream_id}", after or last.id) as pieces:
        return parse(b"".join(pieces))


def test_kill_it_and_start_it(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """After a kill and a start, a page that comes back gets exactly the rest of what there is, and an honest end."""
    settings = {"journal": f"file://{tmp_path}/{{port}}", "port": free_port()}
    service = start_service(simulator, **settings)
    with reading(f"{service.url}/v1/chat", json=QUICK) as pieces:
        whole = parse(b"".join(pieces))
    check(whole)
    seen = read_until_killed(service, 50)
    service = start_service(simulator, **settings)
    rest = rest_of(service, seen[-1])
    check(seen + rest)
    assert (rest[-1].event, rest[-1].json()["error"]["code"]) == ("error", "producer_lost")
    assert all(event.event == "delta" for event in rest[:-1])
    # For a reader of all of it, or one that had read less, it is the same.
    assert rest_of(service, seen[-1], seen[9].id) == (seen + rest)[10:]
    url = f"{service.url}/v1/streams/{seen[0].id[:22]}"
    assert httpx.get(url, headers={"Accept": "application/json"}).json()["content"] == text(seen + rest)
    assert httpx.get(url, headers={"Last-Event-ID": rest[-1].id}).status_code == 204
    beyond = httpx.get(url, headers={"Last-Event-ID": f"{seen[0].id[:22]}-{rest[-1].seq + 1}"})
    assert (beyond.status_code, beyond.json()["error"]["code"]) == (502, "journal_lost")
    with reading(f"{service.url}/v1/streams/{whole[0].id[:22]}") as pieces:
        assert parse(b"".join(pieces)) == whole
    assert {file.name for file in tmp_path.iterdir()} >= {str(service.port)}
    folder = tmp_path / str(service.port)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_curl(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """curl goes on with `Last-Event-ID` after a kill, and an idempotency key is not paid for twice."""
    settings = {"journal": f"file://{tmp_path}/j", "port": free_port()}
    service = start_service(simulator, **settings)
    url = f"{service.url}/v1/chat"
    keyed: dict[str, Any] = {"headers": {"Idempotency-Key": "k", "Accept": "application/json"}, "json": LIVE}
    stream_id = httpx.post(url, **keyed).json()["stream_id"]
    command = ["curl", "-sN", f"{service.url}/v1/streams/{stream_id}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        data = b"".join(curl.stdout.readline() for _ in range(200))
        service.send(signal.SIGKILL)
        data += curl.stdout.read()
    seen = parse(data)
    service = start_service(simulator, **settings)
    command = ["curl", "-sN", "-H", f"Last-Event-ID: {seen[-1].id}", f"{service.url}/v1/streams/{stream_id}"]
    rest = parse(subprocess.run(command, stdout=subprocess.PIPE, timeout=30, check=True).stdout)
    check(seen + rest)
    assert rest[-1].json()["error"]["code"] == "producer_lost"
    assert httpx.post(url, **keyed).json()["stream_id"] == stream_id
    other = {**keyed, "json": {**LIVE, "prompt": "y"}}
    assert httpx.post(url, **other).status_code == 422


def refused(settings: dict[str, str], directory: Path) -> str:
    """Start a service that does not start, and return what it says."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **{f"CHAT_SSE_{name}": value for name, value in settings.items()}}
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    ran = subprocess.run(command, env=env, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stderr


def test_two_processes(start_service: Start, simulator: Server, tmp_path: Path) -> None:
    """A second process on the same folder says so and does not start; the first goes on. After it, another may."""
    journal = f"file://{tmp_path}/j"
    service = start_service(simulator, journal=journal)
    said = refused({"JOURNAL": journal}, tmp_path)
    assert f"CHAT_SSE_JOURNAL cannot be used: another process uses {tmp_path}/j, the one with the id" in said
    with reading(f"{service.url}/v1/chat", json=QUICK) as pieces:
        check(parse(b"".join(pieces)))
    service.stop()
    start_service(simulator, journal=journal)
    said = refused({"JOURNAL": journal, "WORKERS": "2"}, tmp_path)
    assert "CHAT_SSE_WORKERS is 2" in said


def test_wrong_files(tmp_path: Path) -> None:
    """A folder or a file that is not the journal's is left alone, and the service says what it is."""
    (tmp_path / "home").mkdir(mode=0o755)
    (tmp_path / "home" / "letter").write_text("Dear")
    said = refused({"JOURNAL": f"file://{tmp_path}/home"}, tmp_path)
    assert f"{tmp_path}/home has other files in it" in said
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755
    assert f"{tmp_path}/home/letter cannot be used" in refused({"JOURNAL": f"file://{tmp_path}/home/letter"}, tmp_path)
    (tmp_path / "j").mkdir()
    for name, content in (("lock", b""), ("streams.sqlite3", b"no database" * 1000)):
        (tmp_path / "j" / name).write_bytes(content)
    said = refused({"JOURNAL": f"file://{tmp_path}/j"}, tmp_path)
    assert "streams.sqlite3 is not a database" in said
    assert (tmp_path / "j" / "streams.sqlite3").read_bytes() == b"no database" * 1000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None] | None]]:
    """A folder on a disk of 1 MB; or, without the right to mount one, what bounds a process's files to that."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        try:
            yield folder, None
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        yield folder, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))


def test_a_full_disk(
    small_disk: tuple[Path, Callable[[], None] | None], simulator: Server, processes: list[Server], tmp_path: Path
) -> None:
    """On a full disk live streams wait, then end honestly; new ones are a 503; with room again, all goes on."""
    folder, bounded = small_disk
    service = launch(tmp_path, simulator, journal=f"file://{folder}/j", journal_timeout=1, keep_alive=0.2)
    processes.append(service)
    if bounded is not None:
        resource.prlimit(service.popen.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    filling = {"prompt": "x", "model": "never-ends?rate=100&first=0&size=5000", "chunk": "none"}
    with reading(f"{service.url}/v1/chat", json=filling) as pieces:
        events = parse(b"".join(pieces))
    check(events)
    assert (events[-1].event, events[-1].json()["error"]["code"]) == ("error", "journal_unavailable")
    assert re.search(r"journal\.away.*(SQLITE_FULL|SQLITE_IOERR)", service.text())
    assert httpx.get(f"{service.url}/healthz").status_code == 200
    assert httpx.get(f"{service.url}/readyz").status_code == 503
    refusal = httpx.post(f"{service.url}/v1/chat", json=QUICK)
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "journal_unavailable")
    assert "retry-after" in refusal.headers
    if bounded is None:
        subprocess.run(["mount", "-o", "remount,size=16m", str(folder)], check=True)
    else:
        resource.prlimit(service.popen.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: httpx.get(f"{service.url}/readyz").status_code == 200)
    with reading(f"{service.url}/v1/chat", json=QUICK) as pieces:
        check(parse(b"".join(pieces)))
    assert rest_of(service, events[-2]) == events[-1:]
    service.kill()
    again = launch(tmp_path, simulator, journal=f"file://{folder}/j")
    processes.append(again)
    with reading(f"{again.url}/v1/streams/{events[0].id[:22]}") as pieces:
        assert parse(b"".join(pieces)) == events


def test_a_full_disk_heals(
    small_disk: tuple[Path, Callable[[], None] | None], simulator: Server, processes: list[Server], tmp_path: Path
) -> None:
    """On a disk that others have filled, there is room again for new streams as soon as old ones have expired."""
    folder, bounded = small_disk
    if bounded is not None:
        pytest.skip("takes the right to mount a small disk")
    subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
    service = launch(tmp_path, simulator, journal=f"file://{folder}/j", journal_timeout=1, keep=5)
    processes.append(service)

    def ask(model: str) -> int:
        body = {"prompt": "x", "model": model, "chunk": "none"}
        return httpx.post(f"{service.url}/v1/chat", json=body, headers={"Accept": "application/json"}).status_code

    long = "sim-gpt?rate=0&first=0&tokens=4000"
    assert [ask(long) for _ in range(20)] == [201] * 20
    # So soon, most of it is in SQLite's log. To move that needs as much room again, and all that is set aside is less.
    wait_until(lambda: (folder / "j" / "streams.sqlite3-wal").stat().st_size < 128 << 10)
    with suppress(OSError), (folder / "others").open("wb", buffering=0) as others:
        while others.write(bytes(4096)):
            pass
    # On a slow machine, some of it has expired by now, and there is room for one more.
    wait_until(lambda: ask("never-ends?rate=100&first=0&size=5000") == 503, timeout=60)
    assert "SQLITE_FULL" in service.text()
    # They fill it again and again, until their time is up, too. There always is room enough to delete what has expired.
    for _ in range(30):
        wait_until(lambda: ask(long) == 201, timeout=60)
    answers: list[httpx.Response] = []

    def answered() -> bool:
        answers.append(httpx.post(f"{service.url}/v1/chat", json=QUICK))
        return answers[-1].status_code == 200

    wait_until(answered, timeout=60)
    check(parse(answers[-1].content))


def test_it_holds_up_no_client(start_watched: Start, simulator: Server, tmp_path: Path) -> None:
    """Neither writing, nor moving, nor loading a long stream holds the event loop."""
    settings = {"journal": f"file://{tmp_path}/j", "port": free_port()}
    service = start_watched(simulator, **settings)
    long = {"prompt": "x", "model": "sim-gpt?rate=0&first=0&tokens=20000", "chunk": "none"}
    with reading(f"{service.url}/v1/chat", json=long) as pieces:
        whole = parse(b"".join(pieces))
    check(whole)
    service.stop()
    service = start_watched(simulator, **settings)
    with reading(f"{service.url}/v1/streams/{whole[0].id[:22]}") as pieces:
        assert parse(b"".join(pieces)) == whole
