"""What the npm package of app/client/ says of itself."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "app" / "client"


@pytest.fixture
def package() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CLIENT / "package.json").read_text())
    return found


def test_licence(package: dict[str, Any]) -> None:
    """The package has the licence of the service, which has none so far."""
    licence = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("license", "UNLICENSED")
    assert package["license"] == licence


def test_exports(package: dict[str, Any]) -> None:
    """Each export has its module and its types."""
    for name, export in package["exports"].items():
        for file in [export] if isinstance(export, str) else export.values():
            assert (CLIENT / file).is_file(), name


def test_no_dependencies(package: dict[str, Any]) -> None:
    """The package needs no other; its peers are optional."""
    assert "dependencies" not in package
    assert set(package["peerDependencies"]) == {"ai", "react"}
    assert all(package["peerDependenciesMeta"][name]["optional"] for name in package["peerDependencies"])
