"""The release check: version, changelog, tag, client and description agree. And the notes of a release."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import app
from app.edge.openapi.document import document

ROOT = Path(__file__).parent.parent
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
HEADING = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d{2}-\d{2})$", re.MULTILINE)


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def notes(version: str) -> str:
    command = [str(ROOT / ".ci" / "release-notes"), version]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_version_is_the_changelogs() -> None:
    """The package's version is the topmost released heading of the changelog, under an Unreleased section."""
    releases = HEADING.findall(CHANGELOG)
    assert releases[0][0] == app.__version__
    assert CHANGELOG.index("## [Unreleased]") < CHANGELOG.index(f"## [{app.__version__}]")
    dates = [date for _, date in releases]
    assert dates == sorted(dates, reverse=True)


def test_version_has_one_home() -> None:
    """pyproject takes the version from the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["hatch"]["version"]["path"] == "app/__init__.py"


def test_the_others_have_the_same() -> None:
    """The client's npm package and the description at /openapi.json have the version of the service."""
    client = json.loads((ROOT / "app" / "client" / "package.json").read_text())
    assert client["version"] == app.__version__
    assert document(credentials=False)["info"]["version"] == app.__version__


def test_the_release_is_tagged() -> None:
    """On a commit that is tagged, or is about to be published (RELEASE=1), the tag is the version's."""
    tags = [tag for tag in git("tag", "--points-at", "HEAD").split() if tag.startswith("v")]
    if tags or os.environ.get("RELEASE"):
        assert tags == [f"v{app.__version__}"]


def test_tags_are_releases() -> None:
    """Every tag vX.Y.Z is annotated, and names the version that its commit has in code and changelog."""
    for tag in git("tag", "--list", "v*").split():
        assert git("cat-file", "-t", tag) == "tag", f"{tag} is not annotated"
        version = tag.removeprefix("v")
        assert f'__version__ = "{version}"' in git("show", f"{tag}:app/__init__.py")
        assert HEADING.findall(git("show", f"{tag}:CHANGELOG.md"))[0][0] == version


@pytest.mark.parametrize("version", HEADING.findall(CHANGELOG), ids=lambda it: it[0])
def test_notes(version: tuple[str, str]) -> None:
    """`.ci/release-notes X.Y.Z` prints that version's section of the changelog, without its heading."""
    heading = "## [{}] - {}".format(*version)
    section = CHANGELOG.partition(heading)[2].partition("\n## ")[0]
    assert notes(version[0]) == section.strip() != ""


@pytest.mark.parametrize("version", ["9.9.9", "0.1", "Unreleased]"])
def test_no_notes(version: str) -> None:
    """A version without a section has no notes, and the error says so."""
    with pytest.raises(subprocess.CalledProcessError) as failed:
        notes(version)
    assert failed.value.stderr == f".ci/release-notes: CHANGELOG.md has no section for {version}\n"
