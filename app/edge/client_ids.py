"""Names that a client makes up, by which its streams are found again: of a run, or of a conversation."""

from __future__ import annotations

from app.request import Principal

# How many characters a name has at least that cannot be guessed.
_UNGUESSED = 16


def is_found_by(name: str, principal: Principal) -> bool:
    """Whether a stream of *principal*'s is found by a *name* that its client made up.

    Where no credentials are asked for, all callers are one principal, so a stranger could guess a short name, and read
    the answer or stop it.
    """
    return bool(principal.name) or len(name) >= _UNGUESSED
