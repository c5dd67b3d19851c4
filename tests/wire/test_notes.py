"""Notes on a text."""

from __future__ import annotations

import pytest

from app.events import Annotation
from app.wire.notes import Cited, in_chat, inner_of

FACTS = {"url": "u", "title": "t", "start_index": 1, "end_index": 2}
CITED = {"type": "url_citation", "url_citation": FACTS}


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


@pytest.mark.parametrize(
    ("note", "fields"),
    [
        (CITED, {"annotations": [CITED]}),
        ({"type": "url_citation"} | FACTS, {"annotations": [CITED]}),
        (
            {"type": "url_citation", "url": "u", "title": None},
            {"annotations": [CITED | {"url_citation": {"url": "u", "title": "", "start_index": 0, "end_index": 0}}]},
        ),
        ({"type": "file_citation", "file_id": "f"}, {"other_annotations": [{"type": "file_citation", "file_id": "f"}]}),
        (
            {"type": "url_citation", "url_citation": "u"},
            {"other_annotations": [{"type": "url_citation", "url_citation": "u"}]},
        ),
        ({"type": "file", "file": {"hash": "h"}}, {"annotations": [{"type": "file", "file": {"hash": "h"}}]}),
        ({"n": 1}, {"annotations": [{"n": 1}]}),
        ("u", {"annotations": ["u"]}),
    ],
)
def test_notes_in_a_chat(note: object, fields: object) -> None:
    """A citation of a URL has OpenAI's form, and what clients would refuse among the annotations is beside them."""
    assert in_chat([note]) == fields


def test_all_notes_in_a_chat() -> None:
    """They stay in their order, and nothing is said of none."""
    assert in_chat([]) == {}
    assert in_chat([1, {"type": "a"}, 2, {"type": "b"}]) == {
        "annotations": [1, 2],
        "other_annotations": [{"type": "a"}, {"type": "b"}],
    }
