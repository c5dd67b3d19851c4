"""What a model name may ask for after its question mark, as in `stall?after=3&rate=200&first=0`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs

from app.simulator.text import ANSWERS


class BadKnob(ValueError):
    """A knob of the model name is unknown, doubled, or out of range."""


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a model name may ask for after its question mark."""

    rate: float = 50  # deltas a second; 0 is as fast as they are read
    tokens: int = -1  # deltas in all; 0 never ends, -1 is the answer as it is
    first: float = 0.3  # seconds before the headers
    head: float = 0  # seconds between headers and first delta
    size: int = 0  # code points in a delta; 0 cuts like a tokenizer
    after: int = 5  # deltas before the fault
    seconds: float = 3  # how late, or how far apart
    retry_after: float = -1  # -1 is 1 for statuses 429 and 503 and absent for the others
    fail: int = 1  # how many requests with the same key fail, or connections to one background response
    resume: int = 0  # the status that refuses to stream a background response again; 0 streams it
    mib: int = 16  # how giant
    status: int = 401  # what leak answers with
    key: str = ""  # what flaky counts by, instead of the prompt
    answer: str = ""  # which text, instead of the prompt's choice


_BOUNDS: dict[str, tuple[type, float, float]] = {
    "rate": (float, 0, 1e6),
    "tokens": (int, 0, 10_000_000),
    "first": (float, 0, 3600),
    "head": (float, 0, 3600),
    "size": (int, 0, 1_000_000),
    "after": (int, 0, 10_000_000),
    "seconds": (float, 0, 3600),
    "retry_after": (float, 0, 1e6),
    "fail": (int, 0, 1_000_000),
    "resume": (int, 400, 599),
    "mib": (int, 1, 1024),
    "status": (int, 400, 599),
}


def tune(knobs: Knobs, query: str) -> Knobs:
    """Return *knobs* changed as *query* says. Raises BadKnob."""
    if not query:
        return knobs
    try:
        fields = parse_qs(query, keep_blank_values=True, strict_parsing=True, max_num_fields=20)
    except ValueError:
        raise BadKnob("The knobs after `?` are not of the form name=value&name=value.") from None
    changes: dict[str, Any] = {}
    for name, values in fields.items():
        value = values[0]
        if len(values) > 1:
            raise BadKnob(f"Knob {name[:20]!r} is given twice.")
        if (name == "key" and len(value) <= 200) or (name == "answer" and value in ANSWERS):
            changes[name] = value
        elif name in _BOUNDS:
            kind, low, high = _BOUNDS[name]
            try:
                number = kind(value)
            except ValueError:
                number = -1
            if not low <= number <= high:
                raise BadKnob(f"Knob {name!r} must be {kind.__name__}, from {low:g} to {high:g}.")
            changes[name] = number
        else:
            raise BadKnob(f"Knob {name[:20]!r} is unknown, or its value is. Knobs: {', '.join(Knobs.__slots__)}.")
    return replace(knobs, **changes)
