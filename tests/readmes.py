"""What READMEs, comments, docstrings and messages say, and the READMEs' code blocks, for the tests that run them."""

from __future__ import annotations

import re
import tokenize
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
READMES = [
    ROOT / "README.md",
    *(path for room in ("app", "deploy", "tests") for path in sorted((ROOT / room).rglob("README.md"))),
]

# What is written for people, too, in comments, docstrings and messages.
WRITTEN = [
    ROOT / "CHANGELOG.md",
    *(
        path
        for room in ("app", "deploy")
        for path in sorted((ROOT / room).rglob("*"))
        if path.is_file()
        and "node_modules" not in path.parts
        and path.name != "README.md"
        and path.suffix not in (".pyc", ".png")
    ),
    *(path for path in sorted((ROOT / "tests").rglob("*.py")) if path.name != "test_readmes.py"),  # it lists the words
]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of code: the *number*-th in *language* under its *heading*, from 0."""

    readme: str
    heading: str
    language: str
    number: int
    code: str

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.readme, self.heading, self.language, self.number


def blocks() -> list[Block]:
    """Return every fenced block of every README."""
    found = []
    for path in READMES:
        text = path.read_text()
        seen: Counter[tuple[str, str]] = Counter()
        for match in _FENCE.finditer(text):
            heading = _last_heading(text[: match.start()])
            indent, language, code = match[1], match[2] or "text", match[3]
            number = seen[heading, language]
            seen[heading, language] += 1
            lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
            found.append(Block(str(path.relative_to(ROOT)), heading, language, number, "".join(lines)))
    return found


def prose(text: str) -> str:
    """Return a README without its code blocks."""
    return _FENCE.sub("", text)


def said(path: Path) -> str:
    """Return what a file says to people, on one line: of Python its comments and strings, of others everything."""
    if path.name == "README.md":
        text = prose(path.read_text())
    elif path.suffix != ".py":
        text = path.read_text()
    else:
        with path.open("rb") as file:
            code = (tokenize.NAME, tokenize.OP)
            words = [token.string for token in tokenize.tokenize(file.readline) if token.type not in code]
        text = re.sub(r'[rbf]*"', "", " ".join(words))
    return re.sub(r"\s*\n[\s#/*]*|\s+", " ", text)


def anchors(text: str) -> set[str]:
    """Return the anchors of a README's headings, as GitHub makes them."""
    headings = _HEADING.findall(prose(text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _last_heading(text: str) -> str:
    headings: list[str] = _HEADING.findall(prose(text))
    return headings[-1] if headings else ""
