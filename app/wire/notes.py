"""Notes on a text: citations, as OpenAI's annotations or as Perplexity's lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.events import Annotation
from app.wire.json import string_in

URL: Final = "url_citation"
NOTHING_MORE: Final = {"title": "", "start_index": 0, "end_index": 0}
"""What the citation of a URL has besides that: clients refuse one that lacks any of it."""


class Cited:
    """The URLs that an answer's `citations` and `search_results` have named. A chunk may name them all once more."""

    __slots__ = ("_urls",)

    def __init__(self) -> None:
        self._urls: set[str] = set()

    def add(self, notes: Annotation) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the URLs that are new, each with what the search said of it."""
        results = {result["url"]: result for result in notes.search_results if string_in(result, "url")}
        urls = dict.fromkeys([*(url for url in notes.citations if isinstance(url, str)), *results])
        new = [(url, results.get(url, {})) for url in urls if url not in self._urls]
        self._urls.update(urls)
        return new


def inner_of(note: Any) -> Any:
    """Return the object within an annotation that has its facts: the note itself, where there is none.

    Chat completions have such an object, whose name is the annotation's type. Responses have none.
    """
    kind = string_in(note, "type")
    inner = note.get(kind) if kind else None
    return inner if isinstance(inner, Mapping) else note


def in_chat(notes: Iterable[Any]) -> dict[str, list[Any]]:
    """Return the fields of a chat's delta or message that have *notes*.

    `annotations` are those with an inner object, and those without a type, as they came. A citation of a URL gets such
    an object. All that is left is of Responses, or was a part of a text: clients read a chat's annotations by a schema
    that has citations of URLs only, and refuse the whole chunk, so it is in `other_annotations`.
    """
    found: dict[str, list[Any]] = {}
    for note in notes:
        kind = string_in(note, "type")
        flat = kind != "" and inner_of(note) is note
        if flat and kind == URL and URL not in note:
            facts = {name: value for name, value in note.items() if name != "type" and value is not None}
            found.setdefault("annotations", []).append({"type": URL, URL: NOTHING_MORE | facts})
        else:
            found.setdefault("other_annotations" if flat else "annotations", []).append(note)
    return found
