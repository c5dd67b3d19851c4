"""The table of sources: what a file in the package adds."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.composition.config_file import create_config
from app.composition.service import create_source
from app.composition.settings import Settings
from app.upstream import sources
from app.upstream.http.client import create_client
from app.upstream.sources import SOURCES

pytestmark = pytest.mark.anyio

DUMMY = """
from app.upstream.endpoint import Endpoint

OWN_FIELDS = frozenset({"model"})
BACKGROUND = False

def create(endpoint, max_event, background=False):
    return Dummy()

class Dummy:
    async def stream(self, request, attempt):
        yield ()
"""


def test_the_table() -> None:
    """Each file is a source, by its name with dashes."""
    assert dict(SOURCES) == {
        "openai-chat": "app.upstream.sources.openai_chat",
        "openai-responses": "app.upstream.sources.openai_responses",
    }


async def test_one_file_adds_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more file is enough for a source that the settings can name and the service can build."""
    (tmp_path / "dummy_api.py").write_text(DUMMY)
    monkeypatch.setattr(sources, "__path__", [*sources.__path__, str(tmp_path)])
    monkeypatch.setattr(sources, "SOURCES", sources.find_sources())
    settings = Settings.model_validate({"upstream": "dummy-api", "openai_base_url": "http://localhost:1/v1"})
    [upstream] = create_config(settings, {}).upstreams
    async with create_client("http://localhost:1/v1", 5) as client:
        assert type(create_source(upstream, client, settings)).__name__ == "Dummy"


@pytest.mark.parametrize("name", ["dummy-api", "__init__", "openai_chat", "", "os"])
def test_no_other_name_is_loaded(name: str) -> None:
    """A name that is not in the table is refused, whatever module it might be."""
    with pytest.raises(KeyError):
        sources.load_source(name)
    with pytest.raises(ValueError, match="it is one of openai-chat, openai-responses"):
        Settings.model_validate({"upstream": name})
