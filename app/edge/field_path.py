"""Where pydantic found a mistake, as people write it, and what they may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from pydantic_core import ErrorDetails

_LONGEST_NAME = 64


def field_path(error: ErrorDetails, data: Any) -> str:
    """Return the path of *error*'s field in *data*, which was validated: `upstreams[1].base_url`. "" is *data* itself.

    The `loc` of an error also has the branch of a union in it ("str", "list[...]") and a mark for a name that is wrong
    ("[key]"), so only steps that exist in *data* belong to the path. A missing field does, too.
    """
    path = ""
    value = data
    for step in error["loc"]:
        missing = error["type"] == "missing" and step == error["loc"][-1]
        if isinstance(value, dict) and (step in value or missing):
            name = str(step)[:_LONGEST_NAME]
            path = f"{path}.{name}" if path else name
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            path = f"{path}[{step}]"
            value = value[step]
    return path


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return a question for the end of a sentence about *name*, which is unknown; "" if no *known* name is like it."""
    near = get_close_matches(name[:_LONGEST_NAME], known, n=1, cutoff=0.81)
    return f" Did you mean {near[0]!r}?" if near else ""
