"""The house: imports go downwards only, and each third party has its floor."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

APP = Path(__file__).parent.parent / "app"

# Floor by room. Rooms on the same floor never import each other, with the exceptions beside them.
FLOORS = {
    "__main__": 6,
    "cli": 5,
    "composition": 4,
    "serving": 4,
    "telemetry": 4,
    "simulator": 4,
    "edge": 3,
    "hub": 2,
    "relay": 2,
    "upstream": 1,
    "rechunk": 1,
    "journal": 1,
    "wire": 1,
    "events": 0,
    "request": 0,
    "errors": 0,
    "usage": 0,
    "meter": 0,
}
# The composition root builds what it composes; a hub runs relays.
SAME_FLOOR = {
    ("composition", "telemetry"),
    ("composition", "simulator"),
    ("hub", "relay"),
    ("events", "errors"),
    ("events", "usage"),
}
THIRD_PARTIES: dict[str, set[str]] = {
    "edge": {
        *("anyio", "starlette", "sse_starlette", "pydantic", "orjson", "structlog"),
        *("itsdangerous", "jwt", "cryptography", "limits"),
    },
    "hub": {"structlog"},
    "relay": {"structlog"},
    "upstream": {"httpx", "httpx_aiohttp", "aiohttp", "aiohappyeyeballs", "httptools", "stamina", "orjson"},
    "rechunk": {"regex"},
    "journal": {"redis", "orjson", "structlog"},
    "wire": {"orjson"},
    "events": set(),
    "request": set(),
    "errors": set(),
    "usage": set(),
    "meter": set(),
}

FILES = sorted(APP.rglob("*.py"))


def imports(file: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(dotted: str) -> str:
    return dotted.split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(APP)) for file in FILES])
def test_imports(file: Path) -> None:
    """A module imports from lower floors and its own room, and only the third parties of its floor."""
    here = file.relative_to(APP).with_suffix("").parts[0]
    if here == "__init__":
        assert imports(file) == set()
        return
    for name in imports(file):
        top = name.split(".")[0]
        if name == "app.__version__":
            continue
        if top == "app":
            there = room(name)
            below = FLOORS[there] < FLOORS[here]
            assert below or there == here or (here, there) in SAME_FLOOR, f"{here} imports {name}"
        elif top not in sys.stdlib_module_names and here in THIRD_PARTIES:
            assert top in THIRD_PARTIES[here], f"{here} imports {top}"


def test_every_room_has_a_floor() -> None:
    """No module stands outside the house."""
    rooms = {file.relative_to(APP).with_suffix("").parts[0] for file in FILES} - {"__init__"}
    assert rooms <= set(FLOORS)


def test_size() -> None:
    """A file over 450 lines wants a split."""
    assert [file.name for file in FILES if len(file.read_text().splitlines()) > 450] == []
