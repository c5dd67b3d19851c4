"""What a request may write to choose a cut, such as `word,80ms` or `size:40`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from app.rechunk._rechunker import Rechunker

LONGEST_MS = 60_000


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to re-chunk.

    *create* takes the cut's number and its bound in seconds, and returns a new rechunker. A cut that takes a number
    says its *unit* and the *largest* one: `size:N`, `time:MS`. The number is 0 for other cuts. A *bounded* cut may be
    given a bound on how long text is held back: `word,80ms`. Without one the bound is None.

    If *merge_after* texts or more wait for a reader, it is behind, and they may be joined for it. With None they are
    never joined, because the cut promises something of each piece.
    """

    create: Callable[[int, float | None], Rechunker]
    unit: str = ""
    largest: int = 0
    bounded: bool = False
    merge_after: int | None = None

    def form(self, name: str) -> str:
        """Return how the cut is written, for people: `size:N[,MSms] with N from 1 to 65536`."""
        number = f":{self.unit}" if self.unit else ""
        bound = "[,MSms]" if self.bounded else ""
        largest = f" with {self.unit} from 1 to {self.largest}" if self.unit else ""
        return f"{name}{number}{bound}{largest}"

    def pattern(self, name: str) -> str:
        """Return the regular expression of all that may be written, for `re` and for JSON Schema."""
        number = f":{_up_to(self.largest)}" if self.unit else ""
        bound = f"(?:,{_up_to(LONGEST_MS)}ms)?" if self.bounded else ""
        return name + number + bound

    def read(self, spec: str, name: str) -> Rechunker:
        """Return a new rechunker, as *spec* says. Raises ValueError, with a sentence for the client."""
        if spec == name and not self.unit:
            return self.create(0, None)  # without the expression, whose pattern takes longer to put together
        if re.fullmatch(self.pattern(name), spec) is None:
            bound = f" (MS from 1 to {LONGEST_MS})" if self.bounded else ""
            raise ValueError(f"it is not of the form {self.form(name)}{bound}")
        numbers = [int(digits) for digits in re.findall("[0-9]+", spec)]
        number = numbers.pop(0) if self.unit else 0
        return self.create(number, numbers[0] / 1000 if numbers else None)


def _up_to(largest: int) -> str:
    """Return a regular expression of the numbers from 1 to *largest*, without leading zeros."""
    digits = str(largest)
    branches = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"]  # the shorter ones
    for place, digit in enumerate(digits):
        least = 0 if place else 1
        if int(digit) > least:  # those that have the same digits up to here, and then a smaller one
            branches.append(f"{digits[:place]}[{least}-{int(digit) - 1}][0-9]{{{len(digits) - place - 1}}}")
    return f"(?:{'|'.join([*branches, digits])})"
