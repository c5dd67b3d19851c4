"""Where a journal on disk is, and what it survives, as a URL says it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import unquote

_ADDRESS: Final = re.compile(r"file://(?P<folder>/[^?#]*[^?#/][^?#]*)(?:\?survives=(?P<survives>kill|power-loss))?")


class Address(NamedTuple):
    """A *folder*, and whether a record is on the disk before it is sent: whether it survives a power loss."""

    folder: Path
    durable: bool


def parse_address(url: str) -> Address:
    """Return what *url* says. Raises ValueError, with a clause, unless it is the address of a journal on disk."""
    parts = _ADDRESS.fullmatch(url)
    if parts is None or "\0" in (folder := unquote(parts["folder"])):
        raise ValueError("it takes the form file:///FOLDER, with ?survives=kill or ?survives=power-loss after that")
    return Address(Path(folder), parts["survives"] == "power-loss")


def check_address(url: str) -> None:
    """Raise ValueError, with a clause, unless *url* is the address of a journal on disk."""
    parse_address(url)
