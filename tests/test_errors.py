"""The tree of errors."""

from __future__ import annotations

import re
from pathlib import Path

import app.errors
from app.errors import Empty, RateLimited, StreamError, TimedOut, UnknownModel, UpstreamError, raised

README = Path(__file__).parent.parent / "app" / "edge" / "README.md"


def tree(kind: type[StreamError]) -> list[type[StreamError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in tree(child))]


def test_every_error_has_a_code_of_its_own() -> None:
    """Every error that is raised has its own code; the classes that only group others have none."""
    codes = [kind.code for kind in raised(StreamError)]
    assert codes.count(StreamError.code) == 2  # its own, and `InternalError`'s
    # A model may be unknown here or to the upstream, and an answer empty or blank: each is one to a client.
    shared = [UnknownModel.code, Empty.code]
    assert sorted(code for code in set(codes) if codes.count(code) > 1) == sorted([StreamError.code, *shared])


def test_raised() -> None:
    """The errors of a family come in the tree's order; a class that only groups others is no error of its own."""
    assert raised(TimedOut) == TimedOut.__subclasses__()
    assert raised(RateLimited, TimedOut) == [RateLimited, *raised(TimedOut)]
    assert raised(UpstreamError)[0] is UpstreamError


def test_the_docstring_draws_the_tree() -> None:
    """Each class of the module, and each code, stands in the module's docstring."""
    drawn = (app.errors.__doc__ or "").split()
    for kind in (kind for kind in tree(StreamError) if kind.__module__ == app.errors.__name__):
        assert kind.__name__ in drawn
        assert kind.code in drawn


def test_the_table_of_errors() -> None:
    """The table of app/edge/README.md has each code with its status, and no other."""
    section = README.read_text().partition("\n## Errors\n")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| (\d[\d, ]*) \| (`.+?`) \|", section)
    table = {(int(status), code) for statuses, codes in rows for status, code in _pairs(statuses, codes)}
    assert table == {(kind.status, kind.code) for kind in raised(StreamError)}


def _pairs(statuses: str, codes: str) -> list[tuple[str, str]]:
    """Return each code of a row with its status: all have one, or each has its own."""
    of, names = statuses.split(", "), re.findall(r"`(\w+)`", codes)
    return list(zip(of if len(of) > 1 else of * len(names), names, strict=True))
