"""Idempotency keys, labels and slots of a process whose streams are on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from app.errors import KeyReused
from app.journal.file import reading
from app.journal.file.committer import Committer
from app.journal.file.entries import Identity, digest, pack_info
from app.journal.file.store import FAILURES, Store
from app.journal.registry import MemoryRegistry
from app.request import StreamInfo


class FileRegistry:
    """The registry of this process: what *memory* has, what is being written, and what the *store* has.

    Slots are in memory alone: a stream that is adopted is counted in again.
    """

    def __init__(self, memory: MemoryRegistry, committer: Committer, store: Store, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._committer = committer
        self._store = store
        self._clock = clock
        self._beginning: dict[str, asyncio.Future[None]] = {}  # by stream that has a key, and is not there yet

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        key = digest(owner, name)
        while True:
            known = await self._written(key)
            if known is not None:
                if known[1] != fingerprint:
                    raise KeyReused
                return known[0]
            other = await self._memory.claim(owner, name, fingerprint, stream_id)
            if other is None:
                self._beginning[stream_id] = asyncio.get_running_loop().create_future()
                return None
            if other not in self._beginning:
                return other
            # Another request is just beginning that stream. If it fails, this one may have the key.
            await asyncio.wait((self._beginning[other],))

    async def keyed(self, owner: str, name: str) -> str | None:
        known = await self._written(digest(owner, name))
        return await self._memory.keyed(owner, name) if known is None else known[0]

    async def _written(self, key: bytes) -> tuple[str, bytes] | None:
        """Return the stream that has a key, and the key's fingerprint, if it is in the store or on its way there."""
        known = await self._store.read(reading.claimed, key, self._clock())
        writer = self._committer.claimed(key)
        return known if writer is None else (writer.id, writer.identity.fingerprint or b"")

    def identity_of(self, stream_id: str, info: StreamInfo) -> Identity:
        """Return what is to be kept of a new stream."""
        claimed = self._memory.claimed(stream_id)
        label = digest(info.owner, info.label) if info.label else None
        if claimed is None:
            return Identity(pack_info(info), label)
        name, fingerprint = claimed
        return Identity(pack_info(info), label, digest(info.owner, name), fingerprint)

    def begun(self, stream_id: str) -> bool:
        """Note that a stream is there, or will not be: a request that repeats its key waits no longer.

        Return whether the stream had a key, and was still about to begin.
        """
        beginning = self._beginning.pop(stream_id, None)
        if beginning is None:
            return False
        beginning.set_result(None)
        return True

    async def release(self, stream_id: str) -> None:
        await self._memory.release(stream_id)
        if self.begun(stream_id):
            return  # it never began
        writer = self._committer.writer(stream_id)
        if writer is not None:
            self._committer.release(writer)
            return
        with suppress(*FAILURES):  # the key stands for the stream as long as that is kept then
            await self._store.write(self._store.database.release, stream_id)

    async def labelled(self, owner: str, label: str) -> str | None:
        known = await self._memory.labelled(owner, label)
        if known is not None:
            return known
        # This process has created none, or its newest one has left memory: one that is live may be older than that.
        key = digest(owner, label)
        found = [self._committer.labelled(key), await self._store.read(reading.labelled, key, self._clock())]
        return max((each for each in found if each is not None), default=(0, None))[1]

    async def occupy(self, account: str, stream_id: str, limit: int) -> bool:
        return await self._memory.occupy(account, stream_id, limit)

    async def vacate(self, account: str, stream_id: str) -> None:
        await self._memory.vacate(account, stream_id)
