"""Signed tickets: a URL that opens one stream to a client that cannot send headers, such as a native EventSource.

A ticket says when it was issued and to which account requests with it count. It is signed together with the stream's
id, and allows reading and stopping that stream only.
"""

from __future__ import annotations

import hashlib
import re

from itsdangerous import BadSignature, TimestampSigner

from app.errors import Unauthenticated
from app.request import Allowance, Principal

# The account and its requests per minute; a time of at most 64 bits, and a SHA-256. The signer alone would accept
# other characters and skip them, and any value of the two bits by which the last character exceeds the hash.
_TICKET = re.compile(
    r"([0-9a-f]{32})\.([0-9]{1,16})\.[A-Za-z0-9_-]{1,11}\.[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]", re.ASCII
)
# By how many seconds the clocks of two processes that share a secret may differ.
_SKEW = 10


class Tickets:
    """Issues tickets that are valid for *seconds*, and checks them. Processes that share *secret* know each other's."""

    def __init__(self, secret: str, seconds: float) -> None:
        self._signer = TimestampSigner(
            secret, salt="chat-sse stream ticket", key_derivation="hmac", digest_method=hashlib.sha256
        )
        self._seconds = seconds

    def issue(self, stream_id: str, principal: Principal) -> str:
        """Return a ticket of *principal* for one stream, in characters that a URL does not escape."""
        account = f"{principal.counted_as()}.{principal.allowance.requests}"
        return self._signer.sign(f"{stream_id}.{account}").decode().removeprefix(f"{stream_id}.")

    def check(self, ticket: str, stream_id: str) -> Principal:
        """Return a principal that may read and stop this stream, and nothing else.

        Raises Unauthenticated unless *ticket* was issued for this stream, and not too long ago.
        """
        wrong = Unauthenticated("The ticket in this url is not one for this stream.")
        match = _TICKET.fullmatch(ticket)
        if match is None:
            raise wrong
        try:
            _, issued = self._signer.unsign(f"{stream_id}.{ticket}", return_timestamp=True)
        except BadSignature:
            raise wrong from None
        # The signer's own max_age would refuse a ticket from a process whose clock is ahead.
        age = self._signer.get_timestamp() - issued.timestamp()
        if not -_SKEW <= age <= self._seconds:
            raise Unauthenticated("The ticket in this url has expired.")
        return Principal(f"ticket:{stream_id}", Allowance(requests=int(match[2])), stream_id, match[1])
