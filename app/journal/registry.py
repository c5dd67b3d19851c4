"""What processes have to agree on besides the logs: idempotency keys, labels, and the live streams of each account."""

from __future__ import annotations

from typing import Protocol

from app.errors import KeyReused


class Registry(Protocol):
    """The claims, labels and slots of all streams."""

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        """Claim an idempotency key for a stream that is about to be created.

        Return None, or the id of the stream that has the key already. Raises KeyReused if that stream was claimed with
        another *fingerprint*, or JournalDown. A claim ends with its stream's log.
        """

    async def keyed(self, owner: str, name: str) -> str | None:
        """Return the id of the stream that has an idempotency key, or None.

        The stream may no longer be kept, or still be about to be created. Raises JournalDown.
        """

    async def release(self, stream_id: str) -> None:
        """Give up the claim that was made for a stream, if there was one. Raises nothing."""

    async def labelled(self, owner: str, label: str) -> str | None:
        """Return the id of the *owner*'s newest stream that was created with *label*, or None.

        The stream may no longer be kept. Raises JournalDown.
        """

    async def occupy(self, account: str, stream_id: str, limit: int) -> bool:
        """Count a live stream of the *account* in and return True; or return False if *limit* are live already.

        Raises JournalDown.
        """

    async def vacate(self, account: str, stream_id: str) -> None:
        """Count a live stream out. Raises nothing."""


class MemoryRegistry:
    """The registry of a process that shares its streams with no other."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], tuple[bytes, str]] = {}  # by owner and name: fingerprint and stream
        self._claim_of: dict[str, tuple[str, str]] = {}  # by stream: owner and name
        self._labels: dict[tuple[str, str], str] = {}  # by owner and label: the newest stream
        self._slots: dict[str, set[str]] = {}  # live streams by account

    async def claim(self, owner: str, name: str, fingerprint: bytes, stream_id: str) -> str | None:
        known = self._claims.get((owner, name))
        if known is None:
            self._claims[owner, name] = fingerprint, stream_id
            self._claim_of[stream_id] = owner, name
            return None
        if known[0] != fingerprint:
            raise KeyReused
        return known[1]

    def claimed(self, stream_id: str) -> tuple[str, bytes] | None:
        """Return the name of a stream's idempotency key, and the fingerprint that came with it."""
        key = self._claim_of.get(stream_id)
        return None if key is None else (key[1], self._claims[key][0])

    async def keyed(self, owner: str, name: str) -> str | None:
        known = self._claims.get((owner, name))
        return None if known is None else known[1]

    async def release(self, stream_id: str) -> None:
        self._release(stream_id)

    def _release(self, stream_id: str) -> None:
        key = self._claim_of.pop(stream_id, None)
        if key is not None:
            del self._claims[key]

    def label(self, owner: str, label: str, stream_id: str) -> None:
        """Have *label* name a stream from now on."""
        self._labels[owner, label] = stream_id

    async def labelled(self, owner: str, label: str) -> str | None:
        return self._labels.get((owner, label))

    async def occupy(self, account: str, stream_id: str, limit: int) -> bool:
        slots = self._slots.get(account, set())
        if len(slots) >= limit:
            return False
        self._slots.setdefault(account, slots).add(stream_id)
        return True

    async def vacate(self, account: str, stream_id: str) -> None:
        slots = self._slots.get(account, set())
        slots.discard(stream_id)
        if not slots:
            self._slots.pop(account, None)  # an entry for each of any number of accounts would fill the memory

    def forget(self, owner: str, label: str, stream_id: str) -> None:
        """Forget the claim and the label of a stream that is no longer kept."""
        self._release(stream_id)
        if self._labels.get((owner, label)) == stream_id:
            del self._labels[owner, label]
