"""What waits for the next pipeline to Redis: streams that have records to send, and messages to other processes."""

from __future__ import annotations

from app.journal.outbox import Outbox


class RedisOutbox(Outbox):
    """An outbox that has messages, too: all that tell other processes something fill it."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: dict[str, list[bytes]] = {}  # by process

    @property
    def empty(self) -> bool:
        return super().empty and not self._messages

    def tell(self, process: str, message: bytes) -> None:
        """Send a packed *message* to *process*. It may be lost."""
        self._messages.setdefault(process, []).append(message)
        self.wake.set()

    def take_messages(self) -> dict[str, list[bytes]]:
        """Return the messages by process, and forget them."""
        messages = self._messages
        self._messages = {}
        return messages
