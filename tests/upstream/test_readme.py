"""The table of what upstreams send: every row that a comment cites is there, and every test that a row names."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.upstream.reading.quirks import CASES
from tests.upstream.responses.quirks import RESPONSES

ROOT = Path(__file__).parent.parent.parent
CODE = re.compile(r"(?<![%\w\\])[FHECXR][0-9]{1,2}\b")
RANGE = re.compile(r"(?<![%\w\\])([FHECXR])([0-9]{1,2})–\1([0-9]{1,2})\b")
ROWS = dict(
    re.findall(
        r"^\| ([FHECXR][0-9]+) \|[^|]+\|[^|]+\| (.+) \|$", (ROOT / "app/upstream/README.md").read_text(), re.MULTILINE
    )
)


def cited() -> dict[str, Path]:
    """Return the codes in comments, docstrings and tests, ranges written out, each with a file that cites it."""
    found: dict[str, Path] = {}
    for folder in ("app", "tests"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            text = file.read_text()
            for code in CODE.findall(text):
                found.setdefault(code, file)
            for kind, first, last in RANGE.findall(text):
                for number in range(int(first), int(last) + 1):
                    found.setdefault(f"{kind}{number}", file)
    return found


def test_every_cited_row_is_there() -> None:
    """No comment cites a row that a reader of the clone cannot look up."""
    missing = {code: str(file.relative_to(ROOT)) for code, file in cited().items() if code not in ROWS}
    assert missing == {}


def test_rows_are_dense() -> None:
    """The rows of each kind are numbered without a gap."""
    for kind, first in (("F", 1), ("H", 1), ("E", 1), ("C", 1), ("X", 0), ("R", 1)):
        numbers = [int(row[1:]) for row in ROWS if row[0] == kind]
        assert numbers == list(range(first, first + len(numbers)))
        assert len(numbers) > 10


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_its_test(row: str) -> None:
    """A row has cases that begin with its id, or names a test that exists."""
    if ROWS[row] == "cases":
        assert any(row in re.split(r"[-.]", case.name) for case in [*CASES, *RESPONSES])
        return
    path, _, name = ROWS[row].strip("`").partition("::")
    file = ROOT / path if path.startswith("tests/") else ROOT / "tests/upstream" / path
    defined = {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)}
    defined |= {node.name for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.AsyncFunctionDef)}
    assert name in defined
