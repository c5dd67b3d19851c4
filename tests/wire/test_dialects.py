"""The table of dialects: what `app.wire` finds in its own package."""

from __future__ import annotations

from pathlib import Path

from app.events import Batch, Start
from app.wire import Reading, dialects
from tests.wire.dummy import dummy_dialect


def test_names() -> None:
    """The dialects' public names; modules that dialects share are none."""
    assert set(dialects()) == {"events", "openai", "ai-sdk", "responses", "ag-ui"}


def test_each_creates_an_encoder() -> None:
    """What the table has creates an encoder of one response."""
    for create in dialects().values():
        encode = create(Reading("S"))
        assert encode(Batch(1, [Start("m", 7)]))
        assert encode.dismissal(250)


def test_a_dialect_is_one_file(tmp_path: Path) -> None:
    """A file in the package is a dialect, by the name that it has."""
    with dummy_dialect(tmp_path):
        encode = dialects()["dummy"](Reading("S"))
    assert encode(Batch(1, [Start("m", 7)])) == b"1\n"
    assert "dummy" not in dialects()
