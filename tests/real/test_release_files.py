"""The files of a release, as `.ci/release` makes them here and in the workflow that publishes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import app
from tests import constraints

# Two environments are installed, which takes minutes while other tests run.
pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the files of a release."""
    made = tmp_path_factory.mktemp("release") / "dist"
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(
        [ROOT / ".ci" / "release", made], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # The service ran from the wheel.
    assert done.stdout == f"chat-sse {app.__version__}\n"
    return made


def test_files(folder: Path) -> None:
    """There are the wheel, the tested versions, the SBOM, the client's package and the notes, and nothing else."""
    assert {file.name for file in folder.iterdir()} == {
        f"chat_sse-{app.__version__}-py3-none-any.whl",
        f"chat-sse-{app.__version__}.cdx.json",
        f"chat-sse-client-{app.__version__}.tgz",
        "constraints.txt",
        "notes.md",
    }
    assert (folder / "constraints.txt").read_bytes() == constraints.FILE.read_bytes()


def test_wheel(folder: Path) -> None:
    """The wheel has every file of the service that Git has."""
    (wheel,) = folder.glob("*.whl")
    tracked = subprocess.run(["git", "ls-files", "app"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(tracked.stdout.splitlines()) <= set(zipfile.ZipFile(wheel).namelist())


def test_sbom(folder: Path) -> None:
    """The SBOM lists the service and the packages that it needs, in the versions of the constraints, and no other."""
    (file,) = folder.glob("*.cdx.json")
    sbom = json.loads(file.read_text())
    assert sbom["bomFormat"] == "CycloneDX"
    listed: dict[str, str] = {canonicalize_name(it["name"]): it["version"] for it in sbom["components"]}
    assert listed.pop("chat-sse") == app.__version__
    assert listed.items() <= constraints.pinned().items()
    assert {canonicalize_name(it.name) for it in constraints.required()} <= set(listed)


def test_notes(folder: Path) -> None:
    """The notes are those of the version."""
    done = subprocess.run([ROOT / ".ci" / "release-notes", app.__version__], capture_output=True, text=True, check=True)
    assert (folder / "notes.md").read_text() == done.stdout
