"""A dialect that is one file, in a folder of its own that is added to the package."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from app import wire

_ENCODER = '''
from app.wire import Encoder, Reading


class Counter(Encoder):
    """Sends how many records a batch has."""

    headers = {"X-Dummy": "1"}

    def __init__(self, reading: Reading) -> None:
        pass

    def __call__(self, batch):
        return b"%d\\n" % len(batch.events)

    def dismissal(self, retry_ms):
        return b"bye\\n"


NAME = "dummy"
create = Counter
'''


@contextmanager
def added(package: ModuleType, source: str, folder: Path) -> Iterator[None]:
    """Have *package* contain a module `dummy` of that *source*, which is kept in *folder*."""
    name = f"{package.__name__}.dummy"
    folder.joinpath("dummy.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "__path__", [*package.__path__, str(folder)])
        try:
            yield
        finally:
            sys.modules.pop(name, None)


@contextmanager
def dummy_dialect(folder: Path) -> Iterator[None]:
    """Have a dialect `dummy`, whose encoder sends how many records a batch has."""
    wire.dialects.cache_clear()
    with added(wire, _ENCODER, folder):
        yield
    wire.dialects.cache_clear()
