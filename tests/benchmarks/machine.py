"""Where and with what it was measured."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys
import sysconfig
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.contenders.packages import NODE
from tests.real.processes import nginx_program


def machine() -> str:
    """Return the machine in words."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next(
        (line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), "?"
    )
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}, Python {platform.python_version()}{build()}"


def build() -> str:
    """Say so if this Python was built without profile-guided optimization, which costs the service 15 %.

    pyenv's are, unless told otherwise. A distribution's own, in /usr, is not, but Debian's arguments do not show it.
    """
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") or sys.base_prefix == "/usr"
    return "" if optimized else " (built without PGO)"


def head() -> str:
    """Return when, where and with what this was measured."""
    nginx = subprocess.run([nginx_program(), "-v"], capture_output=True, text=True, check=False).stderr
    node = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=False).stdout
    parts = ("chat-sse", "uvicorn", "uvloop", "sse-starlette", "starlette", "httpx", "httptools", "orjson")
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}, nginx {nginx.strip().rpartition('/')[2]},"
        f" Node {node.strip()}, {', '.join(f'{name} {version(name)}' for name in parts)}"
    )


def allow_many_files() -> None:
    """Let this process and its children have as many sockets as the system allows: each stream takes two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
