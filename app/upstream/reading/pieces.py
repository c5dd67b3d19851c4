"""A part of an answer's content, put together from its pieces, so that the upstream can have it back as it was."""

from __future__ import annotations

from typing import Any, Final

# The members of a part, or of what is in it, that have its text: a string, or a list of such objects.
_TEXTS: Final = frozenset(("text", "thinking", "summary", "reasoning", "content"))
# The members that say what a part is. The first piece may have them alone, or all may.
_NAMES: Final = frozenset(("type", "id", "index", "role", "status", "format", "name"))


class _Text(list[str]):
    """The pieces of a text, because joining them one by one would take quadratic time."""


class Part:
    """A part that began with *piece*.

    Texts are joined. A piece begins another part if it has another type, id or index, or after a signature, which
    closes what it signs. The same holds for the objects in a list of texts: Databricks' and Mistral's are such lists.
    """

    __slots__ = ("_members",)

    def __init__(self, piece: dict[str, Any]) -> None:
        self._members = _begun(piece)

    def add(self, piece: dict[str, Any]) -> bool:
        """Add *piece*, and return whether it belongs to this part. If it does not, nothing is added."""
        fits = _fits(self._members, piece)
        if fits:
            _add(self._members, piece)
        return fits

    @property
    def value(self) -> dict[str, Any]:
        """The part, as far as it has come."""
        return {name: _whole(value) for name, value in self._members.items()}


def says_something(value: object) -> bool:
    """Whether there is anything in *value*, a part or what is in one, besides names and switches."""
    if isinstance(value, dict):
        return any(name not in _NAMES and says_something(item) for name, item in value.items())
    if isinstance(value, list):
        return any(map(says_something, value))
    return not (value is None or value == "" or isinstance(value, bool))


def _begun(piece: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) if name in _TEXTS else value for name, value in piece.items()}


def _text(value: object) -> object:
    if isinstance(value, str):
        return _Text((value,))
    if isinstance(value, list):
        return [_begun(item) if isinstance(item, dict) else item for item in value]
    return value


def _fits(begun: dict[str, Any], piece: dict[str, Any]) -> bool:
    if begun.get("type") != piece.get("type") or _TEXTS.isdisjoint(begun):
        return False
    for name, value in piece.items():
        before = begun.get(name)
        if _is_absent(value) or _is_absent(before):
            continue
        if name not in _TEXTS:
            if before != value and not isinstance(value, bool):
                return False
        elif not isinstance(value, (str, list)) or isinstance(before, _Text) is not isinstance(value, str):
            return False
    return not any(_closes(name, value) and not piece.get(name) for name, value in begun.items())


def _is_absent(value: object) -> bool:
    """Whether *value* says nothing. Zero and false do: an index may be zero."""
    return not value and value != 0


def _closes(name: str, value: object) -> bool:
    """Whether a member of a part is one that comes last, such as a signature."""
    return bool(value) and value is not True and name not in _TEXTS and name not in _NAMES


def _add(begun: dict[str, Any], piece: dict[str, Any]) -> None:
    for name, value in piece.items():
        before = begun.get(name)
        if _is_absent(value) and name in begun:
            continue
        if isinstance(before, _Text):
            before.append(value)
        elif name in _TEXTS and isinstance(before, list):
            for item in value:
                _add_item(before, item)
        else:
            begun[name] = _text(value) if name in _TEXTS else value


def _add_item(items: list[Any], item: object) -> None:
    last = items[-1] if items else None
    if not isinstance(item, dict):
        items.append(item)
    elif isinstance(last, dict) and _fits(last, item):
        _add(last, item)
    else:
        items.append(_begun(item))


def _whole(value: Any) -> Any:
    if isinstance(value, _Text):
        return "".join(value)
    if isinstance(value, dict):
        return {name: _whole(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value
