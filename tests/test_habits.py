"""What a contributor relies on: the hooks run, the package says that it is typed, and the documents lead somewhere."""

from __future__ import annotations

import re
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load

ROOT = Path(__file__).parent.parent

# What exempts a line from a rule of the linter, of the type checker or of the coverage; and what overrules a type, or
# catches every error.
_EXEMPT = re.compile(
    r"(?:# (?:noqa|type: ignore|pragma: no cover)|mark\.no_cover)\b(?:: ?[A-Z]+[0-9]+)?(?:\[[\w\-, ]+\])?"
)
_OVERRULES = re.compile(r"\bcast\([\"\w]|\bexcept Exception\b[^:#]*:")
_REASON = re.compile(r"\s*(?:#|-)\s*\S")

# Modules that only declare types, which the tests of their room use.
DECLARATIONS = {"simulator/parts.py", "simulator/script.py"}


def test_hooks() -> None:
    """Each hook is a program that the virtual environment has, and none is downloaded."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]
    for hook in repositories[0]["hooks"]:
        program = hook["entry"].split()[0]
        assert program.startswith(".venv/bin/")
        assert (Path(sys.executable).parent / Path(program).name).exists()


def test_typed() -> None:
    """Type checkers of others read the package's own types (PEP 561)."""
    assert (ROOT / "app" / "py.typed").exists()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "Typing :: Typed" in project["classifiers"]


@pytest.mark.parametrize("name", [".github/CONTRIBUTING.md", ".github/SECURITY.md", "tests/README.md"])
def test_links(name: str) -> None:
    """The files that a document leads to exist."""
    document = ROOT / name
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_every_module_has_its_tests() -> None:
    """`app/hub/hub.py` has `tests/hub/test_hub.py`, `app/rechunk/_holding.py` has `tests/rechunk/test_holding.py`."""
    modules = {file.relative_to(ROOT / "app") for file in (ROOT / "app").rglob("*.py") if file.stem[:2] != "__"}
    assert set(map(Path, DECLARATIONS)) <= modules
    assert [
        str(module)
        for module in sorted(modules - set(map(Path, DECLARATIONS)))
        if not (ROOT / "tests" / module.with_name(f"test_{module.name.removeprefix('_')}")).exists()
    ] == []


@pytest.mark.parametrize("room", ["app", "tests"])
def test_exceptions_have_reasons(room: str) -> None:
    """What is exempt from a rule, overrules a type or catches every error has the reason on its line, or above it."""
    bare = []
    for file in sorted((ROOT / room).rglob("*.py")):
        lines = file.read_text().splitlines()
        for number, (above, line) in enumerate(pairwise(["", *lines]), 1):
            exempt = _EXEMPT.search(line)
            if exempt and not _REASON.match(line, exempt.end()):
                bare.append(f"{file.relative_to(ROOT)}:{number}: {exempt[0]}")
            elif (overrules := _OVERRULES.search(line)) and "# " not in above + line[overrules.end() :]:
                bare.append(f"{file.relative_to(ROOT)}:{number}: {overrules[0]}")
    assert bare == []


def test_exempt_files_have_reasons() -> None:
    """Each rule that pyproject.toml switches off, for all files or some, has the reason on its line."""
    text = (ROOT / "pyproject.toml").read_text()
    switched = text.partition("\nignore = [")[2].partition("[tool.pytest")[0]
    rules = [line for line in switched.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*"', line)]
    assert len(rules) >= 3
    assert [line for line in rules if not re.search(r"# \S", line)] == []
