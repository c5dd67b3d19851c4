"""A bare Debian in a folder, and commands in it, each with mounts of its own that end with it.

How registries are reached is this machine's matter: its settings are shown to what runs there, and are nowhere else.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("CHAT_SSE_TEST_CACHE", "~/.cache/chat-sse")).expanduser() / "debian"
MIRROR = "http://deb.debian.org/debian"
# What says how names are looked up, which certificates hold, and where packages are.
SETTINGS = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pip.conf",
    "/etc/xdg/pip",
    "/root/.config/pip",
    "/root/.npmrc",
)
_PREFIXES = (
    "PIP_",
    "NPM_",
    "npm_",
    "SSL_CERT_",
    "REQUESTS_CA_",
    "NODE_EXTRA_CA_",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
# Mounts in a namespace of its own, which ends with the command.
_ENTER = """
set -e
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


def settings() -> list[Path]:
    """Return those of this machine's files that are there."""
    return [path for path in map(Path, SETTINGS) if path.exists()]


def environment() -> dict[str, str]:
    """Return the variables that say the same, and what every command needs."""
    said = {name: value for name, value in os.environ.items() if name.startswith(_PREFIXES)}
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **said}


def bootstrap(suite: str, *packages: str) -> Path:
    """Return a folder with the bare Debian *suite* and these *packages*. It is made once: change copies only."""
    root = CACHE / "-".join((suite, *packages))
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            made = root.with_suffix(".new")
            shutil.rmtree(made, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", suite, str(made), MIRROR]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            subprocess.run(["chroot", str(made), "apt-get", "clean"], check=True)
            made.rename(root)
    return root


@contextmanager
def copied(root: Path, to: Path) -> Iterator[Path]:
    """Copy *root* to the folder *to*, with this machine's settings in it, and remove that at the end."""
    subprocess.run(["cp", "-a", str(root), str(to)], check=True)
    try:
        for path in settings():
            target = to / path.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, target)
            else:
                target.unlink(missing_ok=True)  # if it were a link, it would lead out of the folder
                shutil.copy(path, target)
        yield to
    finally:
        subprocess.run(["rm", "-rf", "--one-file-system", str(to)], check=True)


def entering(root: Path, *command: str) -> list[str]:
    """Return the command line that runs *command* in *root* as root, and all that it starts ends with it."""
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", str(root), *command]
