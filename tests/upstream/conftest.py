"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.upstream.simulator import Simulator, serve


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """A simulator in this loop, at once and as fast as it can."""
    async with await serve(tokens_per_second=0, first_token_delay=0) as running:
        yield running
