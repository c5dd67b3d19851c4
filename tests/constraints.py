"""What deploy/constraints.txt pins: all that the service installs, with its extras.

`python -m tests.constraints` writes the file, with the versions of the virtual environment that it runs in.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
FILE = ROOT / "deploy" / "constraints.txt"
# The Pythons that are supported. Debian 12's needs a package that later ones do not.
PYTHONS = ("3.11.2", "3.11.14", "3.12.0", "3.13.0", "3.14.0")
# The extras of the service itself.
EXTRAS = ("otlp", "redis")

_HEAD = """\
# The versions that the tests ran with, of all that the service installs with its extras otlp and redis:
#   pip install -c deploy/constraints.txt '.[otlp,redis]'
# Written by `python -m tests.constraints`.
"""


def required() -> list[Requirement]:
    """Return what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]
    return [Requirement(line) for line in lines]


def needed() -> set[str]:
    """Return the names of all packages that any supported Python needs, as far as they are installed here."""
    found: set[str] = set()
    visited: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in required()]
    while waiting:
        requirement, extra = waiting.pop()
        if not _applies(requirement, extra):
            continue
        name = canonicalize_name(requirement.name)
        found.add(name)
        for each in ("", *requirement.extras):
            if (name, each) not in visited:
                visited.add((name, each))
                waiting += [(further, each) for further in _requirements(name)]
    return found


def pinned() -> dict[str, str]:
    """Return the file's versions by their packages' names."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def _applies(requirement: Requirement, extra: str) -> bool:
    if requirement.marker is None:
        return True
    return any(requirement.marker.evaluate(_environment(python, extra)) for python in PYTHONS)


def _environment(python: str, extra: str) -> Mapping[str, str]:
    return {"python_full_version": python, "python_version": python.rpartition(".")[0], "extra": extra}


def _requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in distribution(name).requires or ()]
    except PackageNotFoundError:
        return []  # another Python needs it


def write(known: Mapping[str, str]) -> str:
    """Return the file's text; what is not installed here keeps its version of *known*."""
    versions = []
    for name in sorted(needed()):
        try:
            versions.append(f"{name}=={distribution(name).version}\n")
        except PackageNotFoundError:
            versions.append(f"{name}=={known[name]}\n")
    return _HEAD + "".join(versions)


if __name__ == "__main__":
    FILE.write_text(write(pinned()))
