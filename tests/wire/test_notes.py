"""Notes on a text."""

from __future__ import annotations

import pytest

from app.events import Annotation
from app.wire.notes import Cited, inner_of


def test_a_citation_is_new_once() -> None:
    """A URL that is in both lists, or that came before, is one citation. It has what the search said of it."""
    cited = Cited()
    result = {"url": "b", "title": "t"}
    assert cited.add(Annotation(citations=["a", "b", "a", 3], search_results=[result, {"title": "no url"}, "x"])) == [
        ("a", {}),
        ("b", result),
    ]
    assert cited.add(Annotation(citations=["b", "c"], search_results=[{"url": "d"}])) == [
        ("c", {}),
        ("d", {"url": "d"}),
    ]


@pytest.mark.parametrize(
    ("note", "inner"),
    [
        ({"type": "url_citation", "url_citation": {"url": "u"}}, {"url": "u"}),
        ({"type": "url_citation", "url": "u"}, {"type": "url_citation", "url": "u"}),
        ({"type": "url_citation", "url_citation": "u"}, {"type": "url_citation", "url_citation": "u"}),
        ({"url": "u"}, {"url": "u"}),
        ("u", "u"),
    ],
)
def test_the_facts_of_a_note(note: object, inner: object) -> None:
    """They are in an inner object, or in the note itself."""
    assert inner_of(note) == inner
