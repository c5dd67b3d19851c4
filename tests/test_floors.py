"""The rules of the house: what may import what, who hands callbacks to whom, and how long a module may be."""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
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
    "addresses": 0,
    "events": 0,
    "model_name": 0,
    "request": 0,
    "errors": 0,
    "usage": 0,
    "meter": 0,
    "turns": 0,
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
        *("starlette", "sse_starlette", "pydantic", "pydantic_core", "orjson", "structlog", "yaml"),
        *("itsdangerous", "jwt", "cryptography", "limits"),
    },
    "hub": {"structlog"},
    "relay": {"structlog"},
    "upstream": {"httpx", "aiohappyeyeballs", "httptools", "orjson"},
    "rechunk": {"regex"},
    "journal": {"redis", "orjson", "structlog"},
    "wire": {"orjson"},
    "addresses": set(),
    "events": set(),
    "model_name": set(),
    "request": set(),
    "errors": set(),
    "usage": set(),
    "meter": set(),
    "turns": set(),
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


def test_sqlite_is_in_one_place() -> None:
    """Nothing but the journal on disk knows SQLite."""
    found = {file.parent.relative_to(APP) for file in FILES if "sqlite3" in imports(file)}
    assert found == {Path("journal/file")}


def test_every_room_has_a_floor() -> None:
    """No module stands outside the house."""
    rooms = {file.relative_to(APP).with_suffix("").parts[0] for file in FILES} - {"__init__"}
    assert rooms <= set(FLOORS)


def modules_imported(file: Path) -> set[Path]:
    """Return the files of the app that *file* imports, be it a module or a name from one."""
    found = set()
    for name in imports(file):
        parts = name.split(".")[1:] if name.startswith("app.") else []
        for path in (APP.joinpath(*parts), APP.joinpath(*parts[:-1])):
            candidates = [path.with_suffix(".py"), path / "__init__.py"]
            existing = [candidate for candidate in candidates if candidate.exists() and path != APP]
            if existing:
                found.add(existing[0])
                break
    return found


def test_imports_have_no_cycle() -> None:
    """No module imports itself by way of others."""
    graph = {file: modules_imported(file) - {file} for file in FILES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(str(file.relative_to(APP)) for file in reversed(error.args[1])))


def callbacks_assigned(tree: ast.Module) -> list[str]:
    """Return the assignments of a callback to an attribute of another object than `self` or `cls`.

    A callback is a lambda, a function or method of the module, or whatever an attribute named `on_…` is given.
    """
    methods = {
        each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
        for each in node.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    functions = {each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}

    def is_callback(value: ast.expr | None) -> bool:
        match value:
            case ast.Lambda():
                return True
            case ast.Name(id=name):
                return name in functions
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name):
                return name in methods
        return False

    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            match target:
                case ast.Attribute(value=ast.Name(id="self" | "cls")):
                    continue
                case ast.Attribute(attr=name) if name.startswith("on_") or is_callback(node.value):
                    found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(APP)) for file in FILES])
def test_callbacks_are_constructor_arguments(file: Path) -> None:
    """No module assigns a callback to another object: what an object calls is known when it is made."""
    assert callbacks_assigned(ast.parse(file.read_text())) == []


def test_the_callbacks_that_are_found() -> None:
    """The rule above sees functions, methods, lambdas and `on_…`, and lets plain values and own attributes be."""
    source = """
class Owner:
    def __init__(self, other, given):
        self.on_change = given
        self.method_of_mine = self.heard
        self.total = other.total = 0
        self.other.owner = self
        other.on_change = given
        self.other.changed = self.heard
        self.other.told = lambda: None
        other.run = callback
    def heard(self): ...
def callback(): ...
"""
    assert callbacks_assigned(ast.parse(source)) == [
        "other.on_change = given",
        "self.other.changed = self.heard",
        "self.other.told = lambda: None",
        "other.run = callback",
    ]


def test_size() -> None:
    """A file over 450 lines wants a split."""
    assert [file.name for file in FILES if len(file.read_text().splitlines()) > 450] == []
