"""What all errors have in common."""

from __future__ import annotations

from typing import ClassVar


class StreamError(Exception):
    """Base of all. *message* is for people: bounded, and free of keys, prompts and answers.

    *param* names the offending field of the request; *retry_after* is in seconds.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False
    message: ClassVar[str] = "The service failed to handle this request."
    retry_after: float | None = None

    def __init__(
        self, message: str | None = None, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        self.text = message or self.message
        super().__init__(self.text)
        self.param = param
        if retry_after is not None:
            self.retry_after = retry_after
