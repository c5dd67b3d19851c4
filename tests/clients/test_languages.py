"""Languages whose ordinary readers follow a stream of native events, with tests/clients/run.

Each reads through a proxy that cuts it three times, also within an event, and comes back after the last event it has.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.cuts import check, cut_stream, serving
from tests.clients.packages import package
from tests.real.node import install
from tests.real.processes import Server
from tests.real.proxy import Cut

pytestmark = pytest.mark.real

READERS = Path(__file__).parent / "readers"
CUTS = (Cut(blocks=2), Cut(octets=900, reset=True), Cut(octets=700))
DENO, BUN = "deno@2.9.6", "bun@1.4.5"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("service"), simulator) as server:
        yield server


def commands() -> dict[str, list[str]]:
    """Return what runs each reader. Deno and Bun are programs beside npm's package of that name."""
    [deno] = package(DENO).parent.glob("@deno/*/deno")
    [bun] = package(BUN).parent.glob("@oven/*/bin/bun")
    return {
        "php": ["php", str(READERS / "read.php")],
        "ruby": ["ruby", str(READERS / "read.rb")],
        "go": ["go", "run", str(READERS / "read.go")],
        "java": ["java", str(READERS / "Read.java")],
        "deno": [str(deno), "run", "--allow-net", str(READERS / "read.mjs")],
        "bun": [str(bun), str(READERS / "read.mjs")],
    }


@pytest.mark.parametrize("language", ["php", "ruby", "go", "java", "deno", "bun"])
def test_language(service: Server, simulator: Server, language: str) -> None:
    """It has each event once, however its connections end."""
    # Bun drops what arrives together with the end of its connection, so after a cut it may know no event.
    with cut_stream(service, simulator, CUTS, least=0 if language == "bun" else len(CUTS)) as url:
        module = str(install() / "eventsource" / "dist" / "index.js")
        done = subprocess.run([*commands()[language], url, module], capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode()
    check(done.stdout.decode().split("\n"))
