"""Notes on a text: citations, as OpenAI's annotations or as Perplexity's lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.events import Annotation
from app.wire.json import string_in


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
