"""What the readers of all dialects share: one response body, from its first byte to the verdict.

Invariant: what comes out does not depend on how the network cut the bytes; all content that came before a fault is
returned before `result` raises the fault; no input makes anything here raise but `result`, which raises
`UpstreamError` only; text is always encodable. The rows cited (F6, C10 …) are those of `reference/upstream.md`.

Strategy: an event that a dialect's short cut knows is read by that alone. Whatever orjson refuses (`[DONE]`,
heartbeats, NaN, lone surrogates, broken UTF-8, two events in one) goes the slow way round, and only after a lone
surrogate may have come that way is text looked at for more, since orjson lets none through.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

import orjson

from app.errors import Empty, Malformed, Truncated, UpstreamError
from app.events import Content, Delta, Done, Reasoning, Refusal, ToolCall
from app.upstream.reading.errors import read_error
from app.upstream.reading.json import DONE, parse, payloads
from app.upstream.reading.sse import MAX_EVENT, MAX_STRAY, Splitter, kind_of
from app.upstream.reading.template import Template
from app.upstream.reading.values import bounded_json, encodable
from app.usage import Usage

MAX_TOOL_CALLS = 256
# How many events may be learnt from in vain, and how many have to be known by one for it to have been worth it.
_LESSONS, _WORTH = 4, 8
MAX_USAGE = 8 * 1024

TextKind = type[Delta] | type[Reasoning] | type[Refusal]


class BodyReader(ABC):
    """Reads one response body; a dialect says what its events mean.

    *ended* is true once nothing more is wanted: the last event, an error, nonsense. *finished* is true once it is known
    how the answer ends: something may follow that yet, but need not, so wait for it only briefly. *over* is true as
    soon as either is. *secrets* are strings, such as prompts, that upstream may echo; no error message may hold them.
    """

    _templated: ClassVar[bool] = False
    """Whether all events of text are alike, but for the text."""
    _plain_names: ClassVar[frozenset[bytes | None]] = frozenset({b""})
    """The names of the events that the short cut may take."""

    def __init__(self, max_event: int = MAX_EVENT, secrets: Iterable[str] = ()) -> None:
        self.ended = False
        self.over = False
        self.model = ""
        self.replaced_bytes = 0  # F25
        self._closed = False  # ended, and all content handed out
        self._max_event = max_event
        self._secrets = tuple(secrets)
        self._start_over()
        self._error: UpstreamError | None = None  # said by upstream; nothing outweighs it
        self._fault: UpstreamError | None = None  # how the stream broke; matters only if nothing had finished it
        self._done = False
        self._anything = False
        self._usage: dict[str, Any] | None = None
        self._loose = False  # text may hold surrogates
        self._short = False  # the short cut may be taken
        self._template: Template | None = None
        self._lessons, self._hits = _LESSONS if self._templated else 0, 0
        self._held: dict[TextKind | int, str] = {}  # high surrogates that await their other half; tool calls by index

    def _start_over(self) -> None:
        """Take what comes now for the beginning of a body."""
        self._splitter = Splitter(self._max_event)
        self._head: bytes | None = b""  # the blank beginning of the body, until its kind is known; then None
        self._body: bytearray | None = None  # the whole of a body that is not a stream
        self._stray = b""  # lines that were no field

    @property
    def finished(self) -> bool:
        return self._verdict() is not None

    @property
    def cut_after_finish(self) -> bool:
        return self._fault is not None and self.finished

    @property
    def usage(self) -> Usage | None:
        fields = bounded_json(self._usage, depth=3)
        if len(orjson.dumps(fields)) > MAX_USAGE:
            fields = bounded_json(self._usage, depth=1)
        return Usage(fields) if fields else None

    @property
    def outlook(self) -> Done | None:
        """How the answer will end as far as is known; None until upstream said so."""
        verdict = self._verdict()
        if verdict is None or self._error is not None:
            return None
        kind, raw = verdict
        return Done(kind, raw if kind == "other" else None, self.usage, self.model)

    def feed(self, data: bytes) -> list[Content]:
        """Take one network read and return the content in it."""
        template = self._template
        if template is not None and self._splitter.between and len(data) <= self._max_event:
            found = template.texts(data)
            if found is not None:
                self._hits += 1
                return found
        out: list[Content] = []
        if self._closed:
            return out
        if self._head is not None or self._body is not None:
            data = self._sniff(data)
        plain, names, text_alone = self._short, self._plain_names, self._text_alone
        for name, payload in self._splitter.feed(data):
            try:
                event = orjson.loads(payload)
            except ValueError:
                self._read_odd(name, payload, out)
            else:
                if plain and name in names and (text := text_alone(event)):
                    out.append(Delta(text))
                    if self._lessons:
                        self._learn(payload, text)
                    continue
                if name is None:
                    self._read_stray(payload)
                else:
                    self._read(name, event, out)
            if self.ended:
                break
            plain = self._short = self._plain() and not self._loose
            self._template = None  # what it was learnt from holds no more
            self.over = self.finished
        if self._splitter.error is not None and not self.ended:
            self._break(self._splitter.error)
        if self.ended:
            self.over = True
            self._wind_up(out)
        elif out:
            self._anything = True
        return out

    def _learn(self, payload: bytes, text: str) -> None:
        """Know the next events by this one; but not for ever, where each is another."""
        if self._hits >= _WORTH:
            self._lessons = _LESSONS
        self._lessons -= 1
        self._hits = 0
        self._template = Template.learn(payload, text, self._text_alone)

    def eof(self) -> list[Content]:
        """Take the clean end of the body, and return the content in what was pending."""
        return self.cut(None)

    def cut(self, error: UpstreamError | None) -> list[Content]:
        """Take the end of a body that was reset, truncated or timed out, as *error* says. Else like `eof`."""
        out: list[Content] = []
        if self._closed:
            return out
        if self._body is not None:
            self._read_body(bytes(self._body), out)
            error = error or Malformed()
        for name, payload in self._splitter.eof():
            if not self.ended:
                self._read_odd(name, payload, out, whole=False)
        self._judge_text(self._stray)  # F17: one error, pretty-printed over many lines
        if error is not None and not self.ended:
            self._break(error)
        self.ended = True
        self._wind_up(out)
        return out

    def result(self) -> Done:
        """Return how the answer ended, or raise why it did not (section 7)."""
        if self._error is not None:
            raise self._error
        if (done := self.outlook) is not None:
            return done
        if self._fault is not None:
            raise self._fault
        if not self._anything:
            raise Malformed() if self._stray else Empty()  # H7, H8
        if not self._done:
            raise Truncated()
        return Done("unknown", None, self.usage, self.model)  # C21

    # What a dialect says.

    @abstractmethod
    def _plain(self) -> bool:
        """Whether enough is known by now for the short cut."""

    @abstractmethod
    def _text_alone(self, event: Any) -> str | None:
        """Return the text of an event that has nothing else in it, as most have; None for any other."""

    @abstractmethod
    def _read(self, name: bytes, event: Any, out: list[Content]) -> None:
        """Read one event: any JSON at all."""

    @abstractmethod
    def _read_answer(self, answer: dict[str, Any], out: list[Content]) -> bool:
        """Read an answer that came whole, in place of a stream (H5). Return whether it was one."""

    @abstractmethod
    def _verdict(self) -> tuple[str, str] | None:
        """Return the finish reason, ours and upstream's, or None as long as that is not known."""

    # What it says it with.

    def _judge(self, payload: object, certain: bool = False) -> bool:
        """Return whether *payload* is an error, having ended with it if so."""
        error = read_error(payload, certain=certain, secrets=self._secrets)
        if error is not None and not self.ended:
            self._error = error
            self.ended = True
        return error is not None

    def _break(self, fault: UpstreamError) -> None:
        self._fault = fault
        self.ended = True

    def _name_model(self, model: object) -> None:
        if not self.model and isinstance(model, str):
            self.model = encodable(model[:256])

    def _say(self, kind: TextKind, text: str, out: list[Content]) -> None:
        if self._loose:
            text = self._mended(kind, text)
        if text:
            out.append(kind(text))

    def _say_call(self, piece: ToolCall, out: list[Content]) -> None:
        if self._loose:
            piece = replace(piece, arguments=self._mended(piece.index, piece.arguments))
        if piece.index >= MAX_TOOL_CALLS:
            self._break(Malformed(f"The upstream service sent more than {MAX_TOOL_CALLS} tool calls."))
        elif piece.id or piece.name or piece.arguments:
            out.append(piece)

    # The rest is the same for all.

    def _sniff(self, data: bytes) -> bytes:
        """Return what of *data* is for the splitter. What the body is, its first byte says, not its header (H4–H7)."""
        if self._head is not None:
            data = self._head + data
            kind = kind_of(data)
            self._head = data if kind is None else None
            if kind == "stream":
                return data
            if kind == "page":
                self._break(Malformed("The upstream service sent a page, not a stream."))
            if kind != "json":
                return b""
            self._body = bytearray()
        if self._body is not None:
            self._body += data
            if len(self._body) > self._max_event:
                self._break(Malformed(f"The upstream service sent an answer of more than {self._max_event} bytes."))
        return b""

    def _read_body(self, body: bytes, out: list[Content]) -> None:
        self._loose = True
        try:
            payload = parse(body)
        except ValueError:
            for line in body[:MAX_STRAY].splitlines():  # F17: an error, and then more
                self._judge_text(line)
        else:
            if not self._judge(payload) and isinstance(payload, dict) and self._read_answer(payload, out):
                self._done = self.ended = True

    def _read_odd(self, name: bytes | None, payload: bytes, out: list[Content], whole: bool = True) -> None:
        """Read what orjson does not take for JSON, or what may be no *whole* event."""
        if name is None:
            self._read_stray(payload)
            return
        try:
            events = payloads(payload)
        except ValueError:
            if name == b"error":
                self._read(name, None, out)
            elif whole:
                self._break(Malformed())  # F18, F28: and not a word of what it was
            return
        self._loose = self._loose or b"\\u" in payload
        self.replaced_bytes += payload.decode("utf-8", "replace").count("\ufffd") - payload.count("\ufffd".encode())
        for event in events:
            if self.ended:
                break
            if event is DONE and name != b"error":
                self._judge_text(self._stray)
                self._done = self.ended = True
            else:
                self._read(name, event, out)

    def _read_stray(self, line: bytes) -> None:
        """Look for an error in a line that is no field (F16, F17)."""
        self._stray += line + b"\n"  # the splitter bounds it
        self._judge_text(line.removeprefix(b"error:"))

    def _judge_text(self, text: bytes) -> None:
        with suppress(ValueError):
            self._judge(parse(text))

    def _mended(self, key: TextKind | int, text: str) -> str:
        """Return *text* with surrogates joined to what came before, a high one at its end held back (C16)."""
        text = self._held.pop(key, "") + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._held[key] = text[-1]
            text = text[:-1]
        return encodable(text)

    def _wind_up(self, out: list[Content]) -> None:
        """Close the content. Halves of characters that wait for the other half are lost."""
        self._closed = True
        self._template = None
        out += [ToolCall(key, "", "", "\ufffd") if isinstance(key, int) else key("\ufffd") for key in self._held]
        self._held = {}
        self._anything = self._anything or bool(out)
