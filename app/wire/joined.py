"""Objects that come in pieces, put together: what an upstream says of its reasoning, of its calls, and beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Members whose texts come in pieces, in `reasoning_details`, `thinking_blocks` and `audio`. Any other text is whole.
_IN_PIECES = frozenset(("text", "thinking", "summary", "signature", "data", "transcript"))
# How many elements of a list are searched for the one that goes on; the newest ones.
_SEARCHED = 64


class _Text(list[str]):
    """The pieces of a text, because joining them one by one would take quadratic time."""


class Joined:
    """One object, as far as its pieces have come.

    Texts that come in pieces are joined, except a whole signature that comes again. The elements of a list are told
    apart by their `index`, type and id; elements without an index are new ones. Anything else is replaced by what comes
    later.
    """

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}

    def __bool__(self) -> bool:
        return bool(self._members)

    def add(self, piece: Mapping[str, Any]) -> None:
        """Add the next piece."""
        _add(self._members, piece)

    @property
    def value(self) -> dict[str, Any]:
        """The object, as JSON has it."""
        return {name: _plain(member) for name, member in self._members.items()}


def _add(whole: dict[str, Any], piece: Mapping[str, Any]) -> None:
    for name, value in piece.items():
        known = whole.get(name)
        if isinstance(value, Mapping):
            if not isinstance(known, dict):
                known = whole[name] = {}
            _add(known, value)
        elif isinstance(value, (list, tuple)):
            if type(known) is not list:
                known = whole[name] = []
            for item in value:
                _add_item(known, item)
        elif isinstance(value, str) and name in _IN_PIECES:
            if not isinstance(known, _Text):
                whole[name] = _Text((value,))
            elif name != "signature" or known != [value]:
                known.append(value)
        elif value not in (None, "") or name not in whole:
            whole[name] = value


def _add_item(items: list[Any], item: Any) -> None:
    if not isinstance(item, Mapping):
        items.append(item)
        return
    begun = next((other for other in reversed(items[-_SEARCHED:]) if _continues(item, other)), None)
    if begun is None:
        begun = {}
        items.append(begun)
    _add(begun, item)


def _continues(piece: Mapping[str, Any], begun: Any) -> bool:
    """Whether *piece* belongs to the element of a list that has *begun*.

    A block of Anthropic's thinking has no index. It is complete when its signature has come.
    """
    if not isinstance(begun, dict) or begun.get("type") != piece.get("type"):
        return False
    if begun.get("id") and piece.get("id") and begun["id"] != piece["id"]:
        return False
    if "index" in piece or "index" in begun:
        return begun.get("index") == piece.get("index")
    return piece.get("type") == "thinking" and not any(begun.get("signature") or ())


def _plain(member: Any) -> Any:
    if isinstance(member, _Text):
        return "".join(member)
    if isinstance(member, dict):
        return {name: _plain(inner) for name, inner in member.items()}
    if isinstance(member, list):
        return [_plain(inner) for inner in member]
    return member
