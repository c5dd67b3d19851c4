"""The image of deploy/Dockerfile, built and run as a container is: as PID 1, as its own user, on a read-only root."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.deploy.debian import bootstrap, environment, settings
from tests.ports import free_port
from tests.real.clients.sse import check, parse
from tests.real.processes import LISTENS, ROOT, Server, log_file

VOLUME = "var/lib/chat-sse"
# Megabytes that the image may have besides its base: 90 when this was written.
MOST = 100
# What a container engine does: a namespace, the volume, and a root without write access.
_RUN = f"""
set -e
root=$1; volume=$2; shift 2
mount --bind "$root" "$root"
mount --bind "$volume" "$root/{VOLUME}"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot "$@"
"""


@dataclass(frozen=True)
class Image:
    """An image that was built: its configuration, its files, and those of its base."""

    config: dict[str, Any]
    root: Path
    base: Path

    def command(self, volume: Path, env: dict[str, str], *command: str) -> list[str]:
        """Return the command line that runs *command* in it, or its own."""
        config = self.config
        own = [*config["Entrypoint"], *config["Cmd"]]
        variables = [*config["Env"], *(f"{name}={value}" for name, value in env.items())]
        user = [f"--userspec={config['User']}", "--groups=", str(self.root), "/usr/bin/env", "-i", *variables]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        return [*namespaces, "sh", "-c", _RUN, "sh", str(self.root), str(volume), *user, *(command or own)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    """The image, on a bare Debian 13 with its Python."""
    assert os.geteuid() == 0, "building the image without a container engine needs root"
    directory = tmp_path_factory.mktemp("image")
    store = ["--storage-driver", "vfs", "--root", str(directory / "root"), "--runroot", str(directory / "runroot")]

    def buildah(*arguments: str | Path) -> str:
        command = ["buildah", *store, *map(str, arguments)]
        ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    debian = bootstrap("trixie", "ca-certificates", "python3", "python3-venv")
    scratch = buildah("from", "scratch")
    buildah("copy", "-q", scratch, debian, "/")
    buildah("run", "--isolation", "chroot", scratch, "ln", "-s", "python3", "/usr/bin/python")
    buildah("commit", "-q", "--rm", scratch, "localhost/base")
    mounts = [
        f"--volume={path.resolve()}:{path}:ro" for path in settings() if path.name not in ("hosts", "resolv.conf")
    ]
    mounts.append(f"--volume={_pip_settings(directory)}:/root/.pip/pip.conf:ro")
    options = ["--isolation", "chroot", "--pull-never", "--format", "docker", "--build-arg", "BASE=localhost/base"]
    buildah("bud", "-q", *options, *mounts, "-f", "deploy/Dockerfile", "-t", "chat-sse", ".")
    config = json.loads(buildah("inspect", "--type", "image", "chat-sse"))["Docker"]["config"]
    working = buildah("from", "--pull-never", "localhost/chat-sse")
    try:
        yield Image(config, Path(buildah("mount", working)), debian)
    finally:
        buildah("rm", "--all")
        shutil.rmtree(directory, ignore_errors=True)


def _pip_settings(directory: Path) -> Path:
    """Write down for pip what it is told here by variables, which do not reach it while an image is built."""
    said = {name.removeprefix("PIP_"): value for name, value in environment().items() if name.startswith("PIP_")}
    lines = [f"{name.lower().replace('_', '-')} = {value}\n" for name, value in said.items()]
    path = directory / "pip.conf"
    path.write_text("[global]\n" + "".join(lines))
    return path


@pytest.fixture
def volume(image: Image, tmp_path: Path) -> Path:
    """A new volume: it has the owner and the mode of the image's folder."""
    path = tmp_path / "volume"
    path.mkdir()
    found = (image.root / VOLUME).stat()
    os.chown(path, found.st_uid, found.st_gid)
    path.chmod(found.st_mode)
    return path


class Container(Server):
    """The image, run with *env*."""

    def __init__(self, image: Image, volume: Path, directory: Path, **env: str) -> None:
        self.env = {"CHAT_SSE_PORT": str(free_port()), "CHAT_SSE_ALLOW_ANONYMOUS": "true", **env}
        super().__init__(image.command(volume, self.env), log_file(directory, "container"))
        self.awaits(LISTENS)
        self.url = f"http://127.0.0.1:{self.env['CHAT_SSE_PORT']}"

    def send(self, number: signal.Signals) -> None:
        """Send it to the process that is number 1 in the container."""
        [child] = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        os.kill(int(child), number)

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()  # and its child with it
            self.popen.wait()


@pytest.fixture
def container(image: Image, volume: Path, tmp_path: Path) -> Iterator[Container]:
    started = Container(image, volume, tmp_path, CHAT_SSE_JOURNAL=f"file:///{VOLUME}/{{port}}")
    yield started
    started.stop()


def test_it_answers(image: Image, container: Container, volume: Path) -> None:
    """It runs as the user that it names, answers, and is healthy by its own check."""
    [child] = Path(f"/proc/{container.popen.pid}/task/{container.popen.pid}/children").read_text().split()
    status = dict(line.split(":", 1) for line in Path(f"/proc/{child}/status").read_text().splitlines())
    assert status["Uid"].split() == [image.config["User"].partition(":")[0]] * 4
    assert int(status["Uid"].split()[0]) > 0
    assert int(status["CapEff"], 16) == 0
    answer = httpx.post(f"{container.url}/v1/chat", json={"prompt": "hi", "model": "sim-gpt?rate=0&first=0"})
    check(parse(answer.content), dense=False)
    kind, *healthcheck = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    command = image.command(volume, container.env, *healthcheck)
    assert subprocess.run(command, check=False).returncode == 0
    elsewhere = image.command(volume, {**container.env, "CHAT_SSE_PORT": str(free_port())}, *healthcheck)
    assert subprocess.run(elsewhere, stderr=subprocess.DEVNULL, check=False).returncode != 0


def test_it_drains(image: Image, container: Container) -> None:
    """On the signal that it is stopped with, it lets a live stream finish, and ends with 0."""
    body = {"prompt": "hi", "model": "sim-gpt?rate=20&first=0&tokens=40"}
    with httpx.stream("POST", f"{container.url}/v1/chat", json=body, timeout=30) as answer:
        received = b""
        for data in answer.iter_bytes():
            if not received:
                container.send(signal.Signals[image.config["StopSignal"]])
            received += data
    events = parse(received)
    check(events, dense=False)
    assert events[-1].json()["finish_reason"] == "stop"
    assert container.ended() == 0


def test_it_writes_to_its_volume(image: Image, container: Container, volume: Path, tmp_path: Path) -> None:
    """It writes to its volume, for itself alone, and nowhere else. Killed and started again, it has its streams."""
    for folder, status in ((VOLUME, 0), ("tmp", 1), ("opt/chat-sse", 1)):
        command = image.command(volume, {}, "touch", f"/{folder}/x")
        assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == status
    (volume / "x").unlink()
    body = {"prompt": "hi", "model": "sim-gpt?rate=0&first=0"}
    answer = httpx.post(f"{container.url}/v1/chat", json=body)
    events = parse(answer.content)
    container.kill()
    files = [path for path in volume.rglob("*") if path.is_file()]
    assert files
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    successor = Container(image, volume, tmp_path, **container.env)
    try:
        path = answer.headers["content-location"]
        again = httpx.get(f"{successor.url}{path}", headers={"Last-Event-ID": events[0].id})
        assert parse(again.content)[-1] == events[-1]
    finally:
        successor.stop()


def test_what_is_in_it(image: Image) -> None:
    """Besides its base it has the service and the place of its volume: no pip, no cache, no compiler, no source."""
    added = _files(image.root) - _files(image.base) - {Path("usr/bin/python")}
    others = [path for path in added if Path("opt/chat-sse") not in (path, *path.parents)]
    assert {str(path) for path in others} <= {"opt", VOLUME}
    service = [path for path in added if path not in others]
    assert [
        path for path in service if path.name in ("pip", "pip3", "hatchling", "setuptools", "wheel", "gcc", "cc")
    ] == []
    megabytes = sum((image.root / path).lstat().st_size for path in service) / 1e6
    print(f"{megabytes:.0f} MB besides the base")
    assert megabytes < MOST


def _files(root: Path) -> set[Path]:
    return {path.relative_to(root) for path in root.rglob("*")}
