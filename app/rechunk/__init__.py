"""How content deltas are cut anew. Whatever the cut, the text stays what upstream sent.

A cut is a module of this package, and its name is its public name: adding one is adding one file, which exports
`FORM`, how a request writes it, `PATTERN`, the same as a regular expression, `LAG`, which `lag` returns, and
`create(argument, max_delay)`, which returns a `Rechunker` or raises ValueError if that cut takes no such argument or
bound. Modules with a leading underscore are not cuts. Most cuts are one function of the kind `Cut` in `_holding`.

Invariants: lossless; in order; texts of different kinds are never joined; the first text of each kind is not held
back; never more than `_holding.LIMIT` characters are held (`size` apart, where more was asked for). No clock here:
whoever feeds a rechunker arms the timer that `max_delay` asks for, and reads as rarely as `pause` lets it.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from app.rechunk._rechunker import Rechunker

__all__ = ["Rechunker", "create", "lag", "names", "pattern"]

_SPEC = re.compile(r"([a-z]+)(?::([1-9][0-9]{0,4}))?(?:,([1-9][0-9]{0,4})ms)?", re.ASCII)
_LONGEST_MS = 60_000


@cache
def names() -> Sequence[str]:
    """Return the names of all cuts, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_"))


def create(spec: str) -> Rechunker:
    """Return a new rechunker for one stream, made as *spec* says, such as `word,80ms` or `size:40`.

    Raises ValueError, with a sentence for the one who asked, if there is no such cut.
    """
    match = _SPEC.fullmatch(spec)
    # Only a name that was found in this package is imported, so a request can never load anything else.
    if match and match[1] in names():
        argument, bound = (int(number) if number else None for number in match.group(2, 3))
        if bound is None or bound <= _LONGEST_MS:
            try:
                rechunker: Rechunker = _load(match[1], "create")(argument, bound / 1000 if bound else None)
            except ValueError:
                pass
            else:
                return rechunker
    forms = "; ".join(_load(name, "FORM") for name in names())
    raise ValueError(f"{spec[:40]!r} is not one of: {forms} (MS from 1 to {_LONGEST_MS})")


def pattern() -> str:
    """Return a regular expression (ECMA 262) of what `create` takes."""
    return "|".join(_load(name, "PATTERN") for name in names())


def lag(spec: str) -> int | None:
    """Return how many unread texts show that a reader of this cut is behind, so that they may be joined for it.

    None where they never may, because the cut promises something of each.
    """
    found: int | None = _load(spec.partition(",")[0].partition(":")[0], "LAG")
    return found


def _load(cut: str, attribute: str) -> Any:
    return getattr(import_module(f"{__name__}.{cut}"), attribute)
