"""Engines are found by how a setting names them, and adding one is adding one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.typing import FilteringBoundLogger

import app.journal
from app.composition.settings import SettingsError, load
from app.journal import Journal, create, engine_of, journals
from app.journal.file.journal import FileJournal
from app.journal.memory import MemoryJournal
from app.journal.redis.journal import RedisJournal
from tests.journal.processes import DONE, INFO, ROOMY, opened

pytestmark = pytest.mark.anyio

DUMMY = '''
from app.journal.memory import MemoryJournal

FORMS = ("dummy://",)
SHARED = True


def check(url):
    if url != "dummy://anywhere":
        raise ValueError("it is somewhere else")


def about(url):
    return "nowhere"


class DummyJournal(MemoryJournal):
    """Keeps everything in memory, whatever its url says."""


def create(url, bounds, patience, on_evict, log):
    return DummyJournal(bounds, on_evict)
'''


def made(url: str, log: FilteringBoundLogger) -> Journal:
    return create(url, ROOMY, 1.0, lambda stream_id, reason: None, log)


@pytest.fixture
def dummy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An engine in a file of its own, as if it were in the package."""
    (tmp_path / "dummy.py").write_text(DUMMY)
    monkeypatch.setattr(app.journal, "__path__", [*app.journal.__path__, str(tmp_path)])
    yield
    sys.modules.pop("app.journal.dummy", None)


def test_the_engines() -> None:
    """These are the forms in which a setting may name a journal."""
    forms = ["file://", "memory", "redis+cluster://", "redis://", "rediss+cluster://", "rediss://", "unix://"]
    assert sorted(journals()) == forms
    assert [engine_of(form).SHARED for form in forms] == [False, False, *[True] * 5]


async def test_engines_are_created(log: FilteringBoundLogger) -> None:
    """The form decides on the engine. None of them connects before it is used."""
    assert isinstance(made("memory", log), MemoryJournal)
    assert isinstance(made("file:///nowhere", log), FileJournal)
    for url in ("redis://h:1/0", "rediss://h", "redis+cluster://h", "rediss+cluster://h:2", "unix:///run/redis.sock"):
        assert isinstance(made(url, log), RedisJournal)


@pytest.mark.parametrize("url", ["", "disk", "memory://", "redis", "redis:", "http://h", "REDIS://h"])
def test_an_unknown_engine(url: str) -> None:
    """Anything else is refused with the forms that there are, as a setting, too."""
    with pytest.raises(ValueError, match=r"is one of: file://…, memory, redis://…, .*unix://…"):
        engine_of(url)
    if url:
        with pytest.raises(SettingsError, match=r"JOURNAL .*is one of: file://…, memory, redis://…"):
            load(None, journal=url)


@pytest.mark.usefixtures("dummy")
async def test_one_more_engine(log: FilteringBoundLogger) -> None:
    """One file makes an engine: settings take it, and streams are kept in it."""
    assert load(None, journal="dummy://anywhere").journal == "dummy://anywhere"
    with pytest.raises(SettingsError, match=r"^CHAT_SSE_JOURNAL is not right: it is somewhere else\.$"):
        load(None, journal="dummy://there")
    journal = made("dummy://anywhere", log)
    assert type(journal).__name__ == "DummyJournal"
    (await journal.create("s", INFO)).append([DONE])
    assert await opened(journal) == [DONE]
