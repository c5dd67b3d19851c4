"""The systemd units under a real systemd: it is process 1 of a bare Debian 13, in namespaces of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.debian import bootstrap, copied, entering, environment
from tests.ports import free_port
from tests.real.clients.sse import check, parse
from tests.real.processes import ROOT, Process, log_file
from tests.waiting import wait_until

UNITS = ("chat-sse.socket", "chat-sse.service")
INSTALL = """
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends systemd >/dev/null
python3 -m venv /opt/chat-sse
cd /source
/opt/chat-sse/bin/pip install --quiet -c deploy/constraints.txt .
systemctl enable chat-sse.socket chat-sse.service
rm -r /etc/systemd/system/getty.target.wants  # they would open this machine's terminals
"""
# What a container engine prepares for systemd, which may then change neither the settings of the kernel nor devices.
BOOT = """
set -e
root=$1; group=$2
echo $$ > "$group/cgroup.procs"
exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child=SIGKILL sh -c '
set -e
root=$1
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for name in null zero full random urandom; do
    touch "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
cd "$root"
pivot_root . mnt  # in a chroot, the kernel allows no user namespaces
umount -l mnt
exec env -i container=other PATH=/usr/sbin:/usr/bin /usr/lib/systemd/systemd
' sh "$root"
"""


class Machine(Process):
    """systemd, which has booted *root*."""

    def __init__(self, root: Path, group: Path, directory: Path) -> None:
        super().__init__(["sh", "-c", BOOT, "sh", str(root), str(group)], log_file(directory, "systemd"))

    def run(self, *command: str) -> str:
        """Run *command* there, and return what it says."""
        child = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().strip()
        entered = ["nsenter", "--target", child, "--mount", "--pid", "--cgroup", "--uts", "--ipc", "--root", "--wd"]
        return subprocess.run([*entered, *command], capture_output=True, text=True, check=False).stdout

    def shown(self, unit: str, name: str) -> str:
        """Return a property of a unit."""
        return self.run("systemctl", "show", unit, "--property", name, "--value").strip()

    def stop(self) -> None:
        if self.popen.poll() is None:
            self.popen.kill()  # and all of its children with it
            self.popen.wait()


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def debian(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian 13 with the service and its units, as the head of each says."""
    assert os.geteuid() == 0, "systemd as process 1 needs root"
    base = bootstrap("trixie", "ca-certificates", "python3", "python3-venv")
    with copied(base, tmp_path_factory.mktemp("units") / "root") as root:
        for name in ("app", "deploy", "pyproject.toml", "README.md"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            (root / "source").mkdir(exist_ok=True)
            copy(ROOT / name, root / "source" / name)
        for name in UNITS:
            text = (ROOT / "deploy" / name).read_text()
            if name.endswith(".socket"):
                text, count = re.subn(
                    r"^ListenStream=127\.0\.0\.1:8000$", f"ListenStream=127.0.0.1:{port}", text, flags=re.M
                )
                assert count == 1
            (root / "etc/systemd/system" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "etc/systemd/system" / name).write_text(text)
        variables = [f"{name}={value}" for name, value in environment().items()]
        subprocess.run(entering(root, "/usr/bin/env", "-i", *variables, "sh", "-ec", INSTALL), check=True)
        yield root


@pytest.fixture(scope="module")
def machine(debian: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    [hierarchy] = re.findall(r"^\S+ (\S+) cgroup2 ", Path("/proc/self/mounts").read_text(), re.MULTILINE)
    group = Path(hierarchy) / f"chat-sse-test-{os.getpid()}"
    group.mkdir()
    booted = Machine(debian, group, tmp_path_factory.mktemp("log"))
    try:
        wait_until(
            lambda: booted.popen.poll() is not None or booted.shown("chat-sse.service", "ActiveState") == "active"
        )
        assert booted.popen.poll() is None, booted.text()
        yield booted
    finally:
        print(booted.run("journalctl", "--no-pager", "--output=cat", "--unit=chat-sse.service"))
        booted.stop()
        for folder in (*sorted(group.rglob("*/"), reverse=True), group):
            _remove(folder)


def _remove(group: Path) -> None:
    """Remove a cgroup once its processes are gone."""
    wait_until(lambda: not (group / "cgroup.procs").read_text())
    group.rmdir()


def test_it_answers(machine: Machine, port: int) -> None:
    """Within all its limits the service starts and answers; systemd listens for it."""
    assert machine.shown("chat-sse.socket", "ActiveState") == "active"
    answer = httpx.post(f"http://127.0.0.1:{port}/v1/chat", json={"prompt": "hi", "model": "sim-gpt?rate=0&first=0"})
    check(parse(answer.content), dense=False)
    said = machine.run("cat", f"/proc/{machine.shown('chat-sse.service', 'MainPID')}/status")
    status = dict(line.split(":", 1) for line in said.splitlines())
    assert int(status["Uid"].split()[0]) > 0
    assert int(status["CapEff"], 16) == 0
    assert status["Seccomp"].strip() == "2"


def test_a_restart(machine: Machine, port: int) -> None:
    """A restart refuses no connection, lets a live stream finish, and loses none that has ended."""
    url = f"http://127.0.0.1:{port}/v1/chat"
    before = machine.shown("chat-sse.service", "MainPID")
    body = {"prompt": "hi", "model": "sim-gpt?rate=20&first=0&tokens=30"}
    with httpx.Client(timeout=60) as client, client.stream("POST", url, json=body) as answer:
        received = b""
        for data in answer.iter_bytes():
            if not received:
                machine.run("systemctl", "restart", "--no-block", "chat-sse.service")
                wait_until(lambda: machine.shown("chat-sse.service", "ActiveState") != "active")
            received += data
        check(parse(received), dense=False)
        # It was asked before the next process was there.
        again = client.get(f"http://127.0.0.1:{port}{answer.headers['content-location']}")
    assert parse(again.content)[-1] == parse(received)[-1]
    wait_until(lambda: machine.shown("chat-sse.service", "ActiveState") == "active")
    assert machine.shown("chat-sse.service", "MainPID") not in ("0", before)
    assert machine.shown("chat-sse.service", "Result") == "success"
