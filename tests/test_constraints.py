"""The versions of libraries: bounded in pyproject.toml, pinned in deploy/constraints.txt, and the ones tested."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import constraints
from tests.constraints import FILE, ROOT

WRITE = "run `.venv/bin/python -m tests.constraints`"


def test_every_dependency_has_a_ceiling() -> None:
    """A new major version, or a new minor one of a 0.x, is installed only after a person has looked at it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    lines = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    lines += [line for extra in project["project"]["optional-dependencies"].values() for line in extra]
    requirements = [Requirement(line) for line in lines if not line.startswith("chat-sse[")]
    assert [str(each) for each in requirements if {it.operator for it in each.specifier} != {">=", "<"}] == []


def test_all_is_pinned_and_nothing_else() -> None:
    """The file pins each package that the service installs, with the packages that those need, and no other."""
    assert set(constraints.pinned()) == constraints.needed(), WRITE


def test_pins_are_in_range() -> None:
    """Each pin is a version that pyproject.toml allows."""
    pins = constraints.pinned()
    for requirement in constraints.required():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), f"{requirement}: {WRITE}"


def test_pins_are_what_is_tested() -> None:
    """These tests run with the pinned versions: tests/run installs them."""
    installed = {}
    for name in constraints.pinned():
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue  # another Python needs it
    assert installed.items() <= constraints.pinned().items(), f"run tests/run, or, to pin what is installed, {WRITE}"


def test_it_says_nothing_but_names_and_versions() -> None:
    """No line names a place to install from, or an option of pip."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line)] == []


def test_the_image_has_them() -> None:
    """The Dockerfile installs the pinned versions, and the build is given the file."""
    assert re.search(r" install .*-c deploy/constraints\.txt ", (ROOT / "deploy" / "Dockerfile").read_text())
    assert "!deploy/constraints.txt" in (ROOT / ".dockerignore").read_text().splitlines()
