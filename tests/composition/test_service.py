"""The composition: who is asked for credentials, where quotas are counted, and what the first line says."""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from app.composition.service import compose, create_counts
from app.composition.settings import SettingsError, load
from app.edge.access.api_keys import digest
from app.edge.access.rates import MemoryCounts
from app.journal.file.folder import Folder
from tests.waiting import until

pytestmark = pytest.mark.anyio

KEY = "csk_of-the-web"
PUBLIC = (
    "/healthz",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs.css",
    "/client.js",
    "/",
    "/playground/playground.js",
    "/playground/playground.css",
)


async def test_what_asks_for_credentials(log: FilteringBoundLogger) -> None:
    """With credentials, every path but the public ones asks for them, also paths that do not exist."""
    async with compose(load(None, api_keys=(f"web:{digest(KEY)}",)), log) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for path in PUBLIC:
                assert (await client.get(path)).status_code == 200, path
            for path in ("/v1/models", "/v1/chat", "/v1/nothing", "/nothing", "/healthz/", "/docs/"):
                assert (await client.get(path)).status_code == 401, path
            assert (await client.get("/metrics")).status_code == 403  # there is no token for them
            client.headers["Authorization"] = f"Bearer {KEY}"
            assert (await client.get("/v1/models")).status_code == 200
            assert (await client.get("/nothing")).status_code == 404


async def test_without_the_playground(log: FilteringBoundLogger) -> None:
    """The playground's files go with it; the browser client stays, because other pages import it."""
    async with compose(load(None, playground=False), log) as service:
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            found = {path: (await client.get(path)).status_code for path in PUBLIC}
    assert [path for path, status in found.items() if status == 404] == [
        "/",
        "/playground/playground.js",
        "/playground/playground.css",
    ]


async def test_where_the_playground_offers_the_simulator(log: FilteringBoundLogger) -> None:
    """It does where the simulator answers, unless a list of models may leave out the simulator's."""
    for settings, upstream in (
        (load(None), "simulator"),
        (load(None, models=("sim-gpt",)), "real"),
        (load(None, openai_base_url="http://127.0.0.1:1/v1"), "real"),
    ):
        async with compose(settings, log) as service:
            transport = httpx.ASGITransport(service.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                assert f'data-upstream="{upstream}"' in (await client.get("/")).text


async def test_says_which_upstreams_it_has(log: FilteringBoundLogger, tmp_path: Path) -> None:
    """The settings' upstream is named by its address, those of a file by their names and the file's."""
    async with compose(load(None, openai_base_url="http://127.0.0.1:1/v1"), log) as service:
        assert service.upstream == "http://127.0.0.1:1/v1"
    path = tmp_path / "up.toml"
    tables = [f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:1/v1"\n' for name in "ab"]
    path.write_text("".join(tables))
    async with compose(load(None, config=path), log) as service:
        assert service.upstream == f"a, b ({path})"


async def test_a_mistake_stops_the_start(log: FilteringBoundLogger) -> None:
    """A service that cannot be composed raises one sentence."""
    with pytest.raises(SettingsError, match="CHAT_SSE_MODEL is not right"):
        async with compose(load(None, model="x", models=("m",)), log):
            pass


@pytest.mark.parametrize(
    ("journal", "kind"),
    [
        ("memory", "MemoryCounts"),
        ("redis://127.0.0.1:1/0", "RedisStorage"),
        ("rediss://127.0.0.1:1/0", "RedisStorage"),
        ("unix:///nowhere.sock", "RedisStorage"),
        ("redis+cluster://127.0.0.1:1", "RedisClusterStorage"),
        ("rediss+cluster://127.0.0.1:1", "RedisClusterStorage"),
    ],
)
async def test_quotas_are_counted_where_streams_are_kept(journal: str, kind: str) -> None:
    """Processes that share their streams share the counts as well."""
    async with AsyncExitStack() as held:
        counts = create_counts(load(None, journal=journal), held)
        assert type(counts).__name__ == kind
        assert isinstance(counts, MemoryCounts) is (journal == "memory")


async def test_the_journal_of_the_process_before(log: FilteringBoundLogger, logs: LogCapture, tmp_path: Path) -> None:
    """A folder that another process uses is waited for, with one line in the log, for as long as that may take."""
    settings = load(None, journal=f"file://{tmp_path}/j")
    folder = Folder(tmp_path / "j")
    folder.take()

    def waits() -> list[Any]:
        return [entry for entry in logs.entries if entry["event"] == "journal.waiting"]

    async def begin(overlap: float) -> None:
        async with compose(settings, log, overlap):
            pass

    with pytest.raises(SettingsError, match=r"^CHAT_SSE_JOURNAL cannot be used: another process uses"):
        await begin(0.1)
    waiting = asyncio.create_task(begin(60))
    await until(lambda: len(waits()) == 2)
    folder.release()
    await waiting
    assert len(waits()) == 2
    assert waits()[1]["reason"].endswith(f"the one with the id {os.getpid()}; it has up to 60 s to end")
