"""Re-chunking: how the text of an answer is cut into events. The text itself stays what the upstream sent.

A cut is a module of this package, and its name is its public name. Adding a cut is adding one file, which exports a
`CUT`; see `_grammar.Cut`. Modules with a leading underscore are not cuts. Most cuts are one function, which `_holding`
runs.

Invariants: No text is lost, and the order stays. Texts of different kinds are never joined. The first text of each kind
is not held back. At most `_holding.LIMIT` characters are held, or more if `size:N` asks for more. There is no clock
here: the relay arms the timer that `max_delay` asks for, and the source reads as rarely as `pause` allows.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module

from app.rechunk._grammar import Cut
from app.rechunk._rechunker import Rechunker
from app.rechunk._resumed import Resumed
from app.rechunk._slices import SLICE, SLICE_EVENTS, slices

__all__ = ["SLICE", "SLICE_EVENTS", "Cut", "Rechunker", "Resumed", "create", "cuts", "merge_after", "pattern", "slices"]


@cache
def cuts() -> Mapping[str, Cut]:
    """Return the table of all cuts, by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    return {name: import_module(f"{__name__}.{name}").CUT for name in names}


def create(spec: str) -> Rechunker:
    """Return a new rechunker for one stream, made as *spec* says, such as `word,80ms` or `size:40`.

    Raises ValueError, with a sentence for the client, if there is no such cut.
    """
    name = _name(spec)
    cut = cuts().get(name)
    if cut is None:
        forms = "; ".join(cut.form(name) for name, cut in cuts().items())
        raise ValueError(f"it is not one of: {forms}")
    return cut.read(spec, name)


def merge_after(spec: str) -> int | None:
    """Return how many waiting texts show that a reader of this cut is behind, so that they may be joined for it.

    None if they never may be.
    """
    cut = cuts().get(_name(spec))
    return None if cut is None else cut.merge_after  # another version of this service may know more cuts


def pattern() -> str:
    """Return the regular expression of every spec that `create` takes, for JSON Schema."""
    return f"(?:{'|'.join(cut.pattern(name) for name, cut in cuts().items())})"


def _name(spec: str) -> str:
    return spec.partition(",")[0].partition(":")[0]
