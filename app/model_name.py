"""What the name of a model may be: any text that people can read on one line.

Relays offer models under Chinese names, and people put emoji into them, so names are not limited to ASCII.
"""

from __future__ import annotations

import re

LONGEST = 256
"""Characters of a name at most."""

# The control characters, Unicode's line ends, and the controls that reverse what is read: a name with these could
# disguise a line of the log.
_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e\u2066-\u2069"
CONTROL = re.compile(f"[{_CONTROL}]")

PATTERN = f"^[^{_CONTROL}]+$"
"""A name as JSON Schema has it."""


def is_model_name(value: object) -> bool:
    """Return whether *value* is one. A half of a surrogate pair is not: it could not be sent."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST or CONTROL.search(value):
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
