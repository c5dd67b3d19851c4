"""`/docs`: the page has all that the description has, and what it shows is true."""

from __future__ import annotations

import copy
import shlex
from html.parser import HTMLParser

import pytest

from app.edge.openapi.docs import command, render
from app.edge.openapi.document import document, examples
from tests.edge.openapi.test_document import operations


class Page(HTMLParser):
    """The ids of a page, what its links lead to, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name == "href":
                self.links.append(value or "")
            assert not name.startswith("on")
            assert name != "style"

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("credentials", [False, True])
@pytest.mark.parametrize("playground", [False, True])
def test_everything_is_there(credentials: bool, playground: bool) -> None:
    """Each operation and each schema has its place, the playground's files apart; each link leads to one; no script."""
    description = document(credentials, playground)
    page = Page(render(description, examples()))
    assert len(page.ids) == len(set(page.ids))
    files = "/playground/"
    listed = {operation["operationId"] for path, _, operation in operations(description) if files not in path}
    assert listed <= set(page.ids)
    assert files not in page.text
    assert {f"schema-{name}" for name in description["components"]["schemas"]} <= set(page.ids)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert ("./" in page.links) == playground
    assert "script" not in page.tags
    for code in ("unknown_stream", "upstream_rate_limited"):
        assert code in page.text


def test_text_is_no_markup() -> None:
    """What the description says is text, whatever is in it; of Markdown, the page knows code, lists and paragraphs."""
    description = copy.deepcopy(document(credentials=False))
    description["info"]["description"] = "One `<b>`.\n\n- two\n- </main><script>three</script>"
    html = render(description, examples())
    assert "<p>One <code>&lt;b&gt;</code>.</p><ul><li>two</li><li>&lt;/main&gt;&lt;script&gt;three" in html


@pytest.mark.parametrize(("credentials", "asks"), [(False, set()), (True, {"$CHAT_SSE_KEY", "$METRICS_TOKEN"})])
def test_commands(credentials: bool, asks: set[str]) -> None:
    """Each operation has a command for a shell. It sends credentials where the service asks for them."""
    shown = examples()
    sent = set()
    for path, method, operation in operations(document(credentials)):
        words = shlex.split(command(path, method, operation, shown.get(operation["operationId"], {})))
        assert words[0] == "curl"
        assert any(word.startswith("http://localhost:8000/") for word in words)
        sent |= {word.rpartition(" ")[2] for word in words if word.startswith("Authorization")}
    assert sent == asks
