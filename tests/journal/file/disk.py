"""A folder for a journal on disk: what a process leaves there, and the next one finds."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from app.journal.file.address import Address
from app.journal.file.folder import DATABASE
from app.journal.file.journal import FileJournal
from app.journal.file.reserve import NAME as RESERVE
from app.journal.file.timing import Timing
from tests.journal.processes import ROOMY, Owner

# Little of the usual times.
FAST = Timing(slow=0.5, last_pause=0.1, sweep=0.02, moved=0.05, erased=0.02, accounts=0.02, close=0.5)


@dataclass
class Disk:
    """Starts journals in *folder*, one after the other. *gone* is what they have dropped, *owner* what they told."""

    folder: Path
    log: FilteringBoundLogger
    now: float = 1_750_000_000.0
    gone: list[tuple[str, str]] = field(default_factory=list)
    owner: Owner = field(default_factory=Owner)

    def journal(
        self, *, durable: bool = False, timing: Timing = FAST, patience: float = 30, **bounds: Any
    ) -> FileJournal:
        """Return a journal; *bounds* are those that differ from `ROOMY`. Its clock is `now`."""
        return FileJournal(
            Address(self.folder, durable),
            replace(ROOMY, **bounds),
            patience,
            lambda *gone: self.gone.append(gone),
            self.log,
            timing,
            lambda: self.now,
        )

    @asynccontextmanager
    async def start(self, **how: Any) -> AsyncIterator[FileJournal]:
        """Start a `journal`."""
        journal = self.journal(**how)
        async with journal.serving(self.owner):
            yield journal

    def killed(self) -> Disk:
        """Return a copy of what is there now, which is what a process leaves that is killed now."""
        left = self.folder.with_name(f"{self.folder.name}-left")
        shutil.copytree(self.folder, left, ignore=shutil.ignore_patterns(RESERVE))
        return replace(self, folder=left, gone=[], owner=Owner())

    @property
    def database(self) -> Path:
        return self.folder / DATABASE

    @property
    def log_file(self) -> Path:
        """SQLite's log of what was committed."""
        return self.folder / f"{DATABASE}-wal"

    def has(self, text: str) -> bool:
        """Whether any file there has *text*."""
        return any(text.encode() in file.read_bytes() for file in self.folder.iterdir() if file.name != RESERVE)
