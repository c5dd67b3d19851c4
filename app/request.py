"""What was asked for, and by whom."""

from __future__ import annotations

import hmac
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple


class Allowance(NamedTuple):
    """The limits of one principal; 0 is no limit.

    *requests* a minute, *streams* live at once, output *tokens* a day, *readers* attached at once.
    """

    requests: int = 0
    streams: int = 0
    tokens: int = 0
    readers: int = 0


UNLIMITED = Allowance()


class Principal(NamedTuple):
    """The caller.

    Without credentials every caller is the principal "". Its requests, streams and tokens count for *account*, which is
    a keyed hash of the *name*, and its streams belong to that account. A ticket's principal has a *stream_id*: it may
    only read and stop that stream, which another principal owns, and has that principal's account.
    """

    name: str = ""
    allowance: Allowance = UNLIMITED
    stream_id: str = ""
    account: str = ""

    def counted_as(self) -> str:
        """Return what it is counted under: the account, or that of its name without a key."""
        return self.account or keyed_hash(self.name)

    @property
    def owner(self) -> str:
        """Whose its streams are: its account's, or "" without credentials."""
        return self.counted_as() if self.name else ""


def keyed_hash(text: str, key: bytes = b"") -> str:
    """Return 32 hex digits that stand for *text*. To guess the text from them takes the *key*.

    They decide who may read a stream, so they are as many as no other text can be found for.
    """
    return hmac.digest(key, text.encode(errors="surrogatepass"), "sha256").hex()[:32]


ANYONE = Principal()


_MAX_WORDS: Final = 64 * 1024  # characters
_MAX_WORD: Final = 1024


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a client asked for, validated and with the defaults applied.

    *messages* and *parameters* have OpenAI's shape for chat completions; a source translates them if its upstream
    speaks another API. *chunk* names the cut, as `app.rechunk.create` reads it. *grace* is how many seconds the stream
    goes on without a reader: 0 for none, infinity for ever. *unknown_grace* is the same while no client has the
    stream's id. *traceparent* is the W3C header of that name, or "". The upstream is not read for *pause* seconds after
    content, because what comes meanwhile is to leave together. *include_usage* says that the usage is to be among the
    chunks of OpenAI's dialect. *secrets* are texts in it that the operator put there, and that the client is not to
    see. *output_tokens_field* is the parameter in which the upstream takes a limit on the answer's tokens. *responses*
    are fields in the words of OpenAI's Responses that chat completions lack: an upstream that speaks Responses gets
    them, and no other. *asked*, *keep* and *metadata* are those of `StreamInfo`.
    """

    model: str
    messages: tuple[Mapping[str, Any], ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    chunk: str = "auto"
    grace: float = 0.0
    unknown_grace: float = 0.0
    traceparent: str = ""
    pause: float | None = None
    include_usage: bool = False
    secrets: tuple[str, ...] = ()
    output_tokens_field: str = "max_completion_tokens"
    responses: Mapping[str, Any] = field(default_factory=dict)
    asked: str = ""
    keep: float = math.inf
    metadata: str = ""

    def words(self) -> Iterator[str]:
        """Yield the names and the short texts in it, up to 64 K characters: an error may be about any of them."""
        room = _MAX_WORDS
        for text in texts_in((self.messages, self.responses, self.parameters, self.model), names=True):
            if len(text) <= _MAX_WORD:
                room -= len(text)
                if room < 0:
                    return
                yield text


class StreamInfo(NamedTuple):
    """What a journal keeps of a stream besides its records, for readers that attach later.

    *chunk* is the cut of its text. *owner* is the account that it belongs to (see `Principal.owner`), and *readers* how
    many readers may be attached to all of that account's streams at once (0 is no limit). The owner can find its newest
    stream with a *label* by that label, which is hashed, too. *include_usage* is that of the request. *asked* is what a
    dialect says again of the request, in its own form. The stream is kept for *keep* seconds after its end at most. Its
    owner's list of streams shows the *model* that was asked for, when the stream was *created* (microseconds since the
    epoch), and *metadata*, a JSON object in which the client says what the stream is, or "".
    """

    chunk: str
    owner: str = ""
    readers: int = 0
    label: str = ""
    include_usage: bool = False
    asked: str = ""
    keep: float = math.inf
    model: str = ""
    created: int = 0
    metadata: str = ""


def texts_in(value: object, *, names: bool = False) -> Iterator[str]:
    """Yield all strings in *value*, the last ones first; the *names* of its fields only if they are asked for."""
    # Not recursive: a text 60 levels deep would pass through 60 generators.
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, (list, tuple)):
            waiting += item
        elif isinstance(item, (dict, Mapping)):  # the first is found sooner
            waiting += item.values()
            if names:
                waiting += item
