"""Where pydantic found a mistake, as people write it."""

from __future__ import annotations

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
