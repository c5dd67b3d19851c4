"""`chat-sse ask`: ask a running service, and print the answer as it comes."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

import httpx

from app.cli.client import CutOff, Refused, StreamEvent, answer
from app.cli.process import Commands, add_command, complain
from app.composition.settings import CLIENT_KEY
from app.telemetry import shows_colors

_URL = "http://127.0.0.1:8000"
_DATA_URL = "data:"

# The exit statuses, which `--help` and README tell.
_WHOLE = 0
_WRONG = 2
_REFUSED = 3
_UNREACHABLE = 4
_ENDED_EARLY = 5
_INTERRUPTED = 130

_EPILOG = """\
exit status:
  0    the answer is whole
  1    the answer ended with an error, or the service did not send its rest
  2    the arguments are wrong
  3    the service refused the request
  4    the service cannot be reached
  5    the answer ended early: length, content_filter, cancelled or another reason
  130  interrupted with Ctrl-C, which stops the stream

examples:
  chat-sse ask "Why is the sky blue?"
  git diff | chat-sse ask --system "Review this diff."
  chat-sse ask --chat
  chat-sse ask --json "hi" | jq -r 'select(.event == "delta").data.content'
"""


def add_parser(commands: Commands) -> argparse.ArgumentParser:
    """Say which arguments the command takes."""
    parser = add_command(
        commands,
        "ask",
        "ask a running service and print the answer as it comes",
        "Ask a running service and print the answer as it comes. A connection that breaks is resumed.",
        _EPILOG,
    )
    parser.add_argument("prompt", nargs="?", default="-", help="the prompt (default: -, which is standard input)")
    parser.add_argument("--chat", action="store_true", help="a conversation: a prompt from each line of standard input")
    parser.add_argument("--system", metavar="TEXT", help="a system message")
    parser.add_argument("--json", action="store_true", help="print each event as a line of JSON: id, event, data")
    parser.add_argument("--url", default=_URL, help=f"the service (default: {_URL})")
    parser.add_argument("--model", help="the model (default: the service's)")
    parser.add_argument("--chunk", help="how the text is re-chunked, e.g. word or time:50 (default: the service's)")
    parser.add_argument("--key", help=f"API key or JWT (default: ${CLIENT_KEY}, which no list of processes shows)")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    key: str = arguments.key or os.environ.get(CLIENT_KEY, "")
    if not key.isascii() or not key.isprintable():
        return complain("the key is not printable ASCII", _WRONG)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        trust = httpx.create_ssl_context()
    except OSError:
        return complain("SSL_CERT_FILE or SSL_CERT_DIR names certificates that cannot be read", _WRONG)
    try:
        with httpx.Client(base_url=arguments.url, headers=headers, timeout=60, verify=trust) as client:
            return _Conversation(client, arguments).run()
    except httpx.InvalidURL as error:
        return complain(f"{arguments.url}: {error}", _WRONG)


class _Conversation:
    """Asks for one answer, or for one after another, each with those before it."""

    def __init__(self, client: httpx.Client, arguments: argparse.Namespace) -> None:
        self._client = client
        self._url: str = arguments.url
        self._chat: bool = arguments.chat
        self._prompt: str = arguments.prompt
        fields = {"model": arguments.model, "chunk": arguments.chunk}
        self._options = {name: value for name, value in fields.items() if value is not None}
        self._printer: _Printer = _JsonPrinter() if arguments.json else _TextPrinter()
        self._messages: list[dict[str, str]] = []
        if arguments.system is not None:
            self._messages.append({"role": "system", "content": arguments.system})

    def run(self) -> int:
        """Ask for every prompt, and return the exit status of the last answer."""
        status = 0
        for prompt in self._prompts():
            if any("\ud800" <= letter <= "\udfff" for letter in prompt):
                return complain("the prompt is not UTF-8", _WRONG)
            status = self._turn(prompt)
            if status == _INTERRUPTED and not (self._chat and sys.stdin.isatty()):
                break
        return status

    def _prompts(self) -> Iterator[str]:
        if not self._chat:
            yield sys.stdin.read() if self._prompt == "-" else self._prompt
            return
        if self._prompt != "-":
            yield self._prompt
        terminal = sys.stdin.isatty()
        if terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 - for `input`, which then edits lines and knows earlier ones
        while True:
            try:
                line = input("> " if terminal else "")
            except EOFError:
                return
            if line.strip():
                yield line

    def _turn(self, prompt: str) -> int:
        """Ask with *prompt*, print the answer, and return its exit status."""
        self._messages.append({"role": "user", "content": prompt})
        alone = len(self._messages) == 1 and not self._chat
        asked = {"prompt": prompt} if alone else {"messages": self._messages}
        said: list[str] = []
        stream_id = ""
        try:
            for event in answer(self._client, {**asked, **self._options}):
                if event.name == "start":
                    stream_id = event.data.get("stream_id", "")
                elif event.name == "delta":
                    said.append(event.data["content"])
                self._printer.event(event)
                if event.name == "error":
                    return complain(event.data["error"]["message"])
                if event.name == "done":
                    return self._ended(event.data["finish_reason"])
            return complain("the answer was cut off")
        except Refused as error:
            return complain(error.message, _REFUSED)
        except CutOff as error:
            self._printer.broken()
            return complain(str(error))
        except httpx.HTTPError as error:
            return complain(f"{self._url}: {str(error) or type(error).__name__}", _UNREACHABLE)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            self._stop(stream_id)
            if isinstance(error, BrokenPipeError):
                raise
            self._printer.broken()
            return _INTERRUPTED
        finally:
            if said:
                self._messages.append({"role": "assistant", "content": "".join(said)})
            else:
                self._messages.pop()

    def _ended(self, reason: str) -> int:
        if reason in ("stop", "tool_calls"):
            return _WHOLE
        return complain(f"the answer ended early: {reason}", _ENDED_EARLY)

    def _stop(self, stream_id: str) -> None:
        """Have the service stop the stream, so that the upstream is not paid for what no reader gets."""
        if stream_id:
            with suppress(httpx.HTTPError):
                self._client.post(f"/v1/streams/{stream_id}/cancel", timeout=5)


class _Call(NamedTuple):
    """A tool call, in the pieces that came."""

    names: list[str]
    arguments: list[str]


class _Printer(Protocol):
    """Prints one answer after another."""

    def event(self, event: StreamEvent) -> None:
        """Print what there is to print of *event*."""
        ...

    def broken(self) -> None:
        """Print what is to stand under an answer that has no terminal event."""
        ...


class _TextPrinter:
    """Prints an answer for people: its text as it comes, and what else there is of it after that."""

    def __init__(self) -> None:
        self._begin()
        self._terminal = sys.stdout.isatty()
        self._dim, self._plain = ("\x1b[2m", "\x1b[0m") if shows_colors(sys.stdout) else ("", "")

    def _begin(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._notes: list[str] = []
        self._in_line = False

    def event(self, event: StreamEvent) -> None:
        match event.name, event.data:
            case "delta" | "refusal", {"content": str(text)}:
                print(self._safe(text), end="", flush=True)
                self._in_line = True
            case "tool_call", {"index": int(index)}:
                call = self._calls.setdefault(index, _Call([], []))
                call.names.append(event.data.get("name") or "")
                call.arguments.append(event.data.get("arguments") or "")
            case "media", {"type": str(kind), "url": str(url)}:
                where = f"{url[:40]}… ({len(url)} characters)" if url.startswith(_DATA_URL) else url
                self._notes.append(f"[{kind}: {where}]")
            case "annotation", notes:
                self._notes += [f"[source: {url}]" for url in _sources(notes)]
            case "done" | "error", _:
                self._end()

    def broken(self) -> None:
        self._end()

    def _end(self) -> None:
        """End the line, and print what waited for the end of the answer."""
        if self._in_line:
            print()
        calls = [f"[tool call: {''.join(call.names)}({''.join(call.arguments)})]" for call in self._calls.values()]
        for line in (*dict.fromkeys(self._notes), *calls):
            print(f"{self._dim}{self._safe(line)}{self._plain}")
        self._begin()

    def _safe(self, text: str) -> str:
        """Return *text* without what would command a terminal."""
        return text.translate(_CONTROLS) if self._terminal else text


class _JsonPrinter:
    """Prints each event as a line of JSON."""

    def event(self, event: StreamEvent) -> None:
        print(json.dumps({"id": event.id, "event": event.name, "data": event.data}, ensure_ascii=False), flush=True)

    def broken(self) -> None:
        pass


_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def _sources(notes: Mapping[str, Any]) -> Sequence[str]:
    """Return the addresses that an `annotation` event names."""
    found = [note.get("url") or note.get("url_citation", {}).get("url") for note in notes.get("annotations", [])]
    found += [source for source in notes.get("citations", []) if isinstance(source, str)]
    found += [result.get("url") for result in notes.get("search_results", [])]
    return [url for url in found if isinstance(url, str)]
