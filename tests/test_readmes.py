"""What the READMEs point at exists, and they and the code are written in plain English."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.readmes import READMES, ROOT, WRITTEN, anchors, prose, said

# Python's packages of the same name, which the virtual environment has.
_PYTHON_NAMESAKES = {"openai": (version("openai"),)}
each_readme = pytest.mark.parametrize("readme", READMES, ids=[str(path.relative_to(ROOT)) for path in READMES])

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_TEST = re.compile(r"`(?:tests/)?((?:[\w-]+/)*test_\w+\.py)(?:::\w+)?`")
# Words that stand for an actor or a thing that the sentence should name.
_STUMBLES = re.compile(
    r"\b(whoever|lest|nobody|anybody|to be had|(?:is|are|was|were) not to be|anew|as if it had|what is there of"
    r"|but for (?:the|what|where|those|its))\b",
    re.IGNORECASE,
)


@each_readme
def test_links(readme: Path) -> None:
    """Each relative link leads to a file, and its anchor to a heading."""
    for link in _LINK.findall(prose(readme.read_text())):
        if link.startswith(("http:", "https:")):
            continue
        path, _, anchor = link.partition("#")
        target = (readme.parent / path).resolve() if path else readme
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@each_readme
def test_named_tests(readme: Path) -> None:
    """Each test module that a README names exists."""
    for name in _TEST.findall(readme.read_text()):
        assert list((ROOT / "tests").rglob(name)), name


@pytest.mark.parametrize("path", [*READMES, *WRITTEN], ids=lambda path: str(path.relative_to(ROOT)))
def test_words(path: Path) -> None:
    """READMEs, comments, docstrings and messages, also of tests, avoid words that a native reader stumbles over."""
    text = said(path)
    assert [text[match.start() - 60 : match.end() + 20] for match in _STUMBLES.finditer(text)] == []


def installed() -> dict[str, set[str]]:
    """Return the versions that the tests install of each package, of npm and of Python."""
    tests = ROOT / "tests"
    packages = (tests / "real" / "clients" / "packages.txt").read_text()
    found = re.findall(r"(?m)^(.+)@([^@\n]+)$", packages)
    for path in (tests / "servers" / "requirements").glob("*.txt"):
        found += re.findall(r"(?m)^([\w.-]+)(?:\[.+\])?==(\S+)$", path.read_text())
    for path in (tests / "clients").glob("*.py"):
        found += re.findall(r'"((?:@[\w-]+/)?[\w-]+)@(\d[\d.]*)"', path.read_text())
    versions: dict[str, set[str]] = {}
    for name, number in found:
        versions.setdefault(name, set(_PYTHON_NAMESAKES.get(name, ()))).add(number)
    return versions


def test_tested_versions() -> None:
    """The versions that a README says were tested are those that the tests install."""
    text = (ROOT / "app" / "edge" / "dialects" / "README.md").read_text()
    versions = installed()
    assert {"@openai/codex", "aider-chat", "ai", "@assistant-ui/react"} <= versions.keys()
    for name, numbers in versions.items():
        said = re.findall(rf"(?<![\w/@-]){re.escape(name)} (\d[\d.]*\d)", text)
        assert set(said) <= numbers, name


def test_tested_clients() -> None:
    """Each client of the table has the version that was tested, and the test."""
    text = (ROOT / "app" / "edge" / "dialects" / "README.md").read_text()
    table = text.partition("## Tested clients\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    for name, _, number, test in rows:
        assert re.search(r"\d|^the same$", number), name
        assert re.match(r"`tests/(?:real|clients)/test_\w+\.py`", test), name


@each_readme
def test_length(readme: Path) -> None:
    """README is a front page; the others are chapters."""
    assert len(readme.read_text().splitlines()) <= (200 if readme.parent == ROOT else 450)
