"""What was asked for, and by whom."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Allowance(NamedTuple):
    """How much a principal may have: 0 is no limit.

    *requests* a minute, *streams* live at once, *tokens* of output a day, and *readers* attached at once.
    """

    requests: int = 0
    streams: int = 0
    tokens: int = 0
    readers: int = 0


UNLIMITED = Allowance()


class Principal(NamedTuple):
    """Who asks. Streams belong to the principal of that *name*; "" is everybody, where no credentials are asked for.

    *stream_id* is set if all that it may do is read and stop that one stream, whoever's it is; *account* then says on
    whose account its requests are.
    """

    name: str = ""
    allowance: Allowance = UNLIMITED
    stream_id: str = ""
    account: str = ""

    def counted_as(self) -> str:
        """Return what its requests are counted under: 16 hex digits that do not tell the name."""
        return self.account or hashlib.sha256(self.name.encode(errors="surrogatepass")).hexdigest()[:16]


ANYONE = Principal()


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a client asked for, validated, defaults applied.

    *messages* and *parameters* have OpenAI's shape and go upstream as they are; *chunk* names the cut
    (`app.rechunk.create` reads it). *grace* is how many seconds the stream goes on without a reader: 0 for none,
    infinity for ever. *traceparent* is the W3C header of that name, or "".
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    chunk: str = "auto"
    grace: float = 0.0
    traceparent: str = ""


class StreamInfo(NamedTuple):
    """What a journal keeps of a stream beside its records, for whoever attaches later.

    *chunk* is how its text was cut; *owner* is the name of the principal that it belongs to, and *readers* how many
    that one may have attached at once, to all of its streams; 0 is no limit. The owner's newest stream with a *label*
    can be found by that.
    """

    chunk: str
    owner: str = ""
    readers: int = 0
    label: str = ""
