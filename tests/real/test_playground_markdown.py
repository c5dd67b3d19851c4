"""Answers as rendered Markdown: the same however they come, safe, and fast."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.real.node import install
from tests.real.playground import ask, ended, part, playground
from tests.real.processes import Server, launch
from tests.waiting import wait_until

pytestmark = pytest.mark.real

TEXT = """# One *two*

Hello **bold**, `code <b>`, [link](https://a.example/?x=1&y "t"), ~~gone~~ &amp; &#x41;
second line 👩‍👩‍👧 你好

### Three

- [ ] task
- [x] done
  - nested

1. one

2. two

   more

| a | b |
|---|--:|
| 1 | `2` |

> quote

```python
if x < 1:

    pass
```

[ref]: https://ref.example

One more

See [ref].
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, simulator: Server) -> Iterator[Server]:
    server = launch(tmp_path_factory.mktemp("service"), simulator, reconnect_ms=200)
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, service: Server) -> Iterator[Page]:
    with playground(browser, service) as page:
        yield page


def test_the_library_is_the_packages_file() -> None:
    """What is vendored is npm's file to the byte, with its license."""
    vendored = resources.files("app.edge").joinpath("playground")
    package = install() / "marked"
    assert vendored.joinpath("marked.esm.js").read_bytes() == (package / "lib" / "marked.esm.js").read_bytes()
    assert vendored.joinpath("marked.license.txt").read_bytes() == (package / "LICENSE").read_bytes()


def rendered(page: Page) -> str:
    return str(part(page, "answer").evaluate("answer => answer.innerHTML"))


@pytest.mark.parametrize("chunk", ["size:1", "line", "auto"])
def test_it_is_rendered(page: Page, chunk: str) -> None:
    """Rendered as it comes, in pieces of any size, it becomes what the whole text becomes; a switch shows the text."""
    page.evaluate("chunk => document.getElementById('chunk').add(new Option(chunk))", chunk)
    page.check("#markdown")
    ask(page, TEXT, "sim-echo?rate=1000&first=0", chunk=chunk)
    ended(page)
    box = part(page, "answer")
    for element, text in {
        "h2": "One two",
        "h2 + p > strong": "bold",
        "h2 + p > code": "code <b>",
        "h3": "Three",
        "h3 + ul > li > ul > li": "nested",
        "ol > li:nth-child(2) > p:last-child": "more",
        "td:nth-child(2) > code": "2",
        "blockquote": "quote",
        "pre > code": "if x < 1:\n\n    pass",
        "p:last-child > a": "ref",
    }.items():
        expect(box.locator(element)).to_have_text(text)
    assert box.locator("ol").count() == 1
    expect(box.locator("h2 + p")).to_contain_text("gone & Asecond line")
    expect(box.locator("h2 + p > a")).to_have_attribute("href", "https://a.example/?x=1&y")
    as_it_came = rendered(page)
    page.uncheck("#markdown")
    expect(box).to_have_text(TEXT, use_inner_text=False)
    page.check("#markdown")
    wait_until(lambda: rendered(page) == as_it_came)


def test_pieces_make_no_difference(page: Page) -> None:
    """However a text is cut, and painted in between, it becomes the same, also where a definition or a list is cut."""
    render = """async ([text, size]) => {
      const { Markdown } = await import("/playground/markdown.js");
      const box = document.createElement("div");
      const markdown = new Markdown(box);
      for (const piece of text.match(new RegExp(`.{1,${size}}`, "gsu"))) {
        markdown.add(piece);
        while (markdown.flush());
      }
      return box.innerHTML;
    }"""
    text = (
        TEXT.replace("👩‍👩‍👧", "") * 3
        + "Title\n===\n\n1. a\n\n   - b\n\n2. c\n\n- d\n\n* e\n\n    code\n\n---\n\nf\n---\n"
    )
    whole = page.evaluate(render, [text, len(text)])
    for size in (1, 2, 3, 7, 50):
        assert page.evaluate(render, [text, size]) == whole, size


def test_it_is_safe(page: Page) -> None:
    """HTML is shown as it is written, only addresses of the web are links, and nothing is loaded."""
    text = (
        "<img src=x onerror=\"document.title='owned'\">\n\n<script>document.title='owned'</script>\n\n"
        "a <b onclick=x>b</b> [c](javascript:alert(1)) [d](data:text/html,x) <javascript:alert(2)> "
        "![e](https://evil.example/e.png) ![f](javascript:alert(3))\n\n[g]\n\n[g]: javascript:alert(4)\n"
    )
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.check("#markdown")
    ask(page, text, "sim-echo?rate=0&first=0")
    ended(page)
    box = part(page, "answer")
    expect(box).to_contain_text("<img src=x onerror=\"document.title='owned'\">")
    expect(box).to_contain_text("<b onclick=x>b</b>")
    links = box.locator("a").evaluate_all("links => links.map(({ href, rel }) => [href, rel])")
    assert links == [["https://evil.example/e.png", "noopener"]]
    assert box.locator("img, script, b").count() == 0
    assert page.title() == "chat-sse playground"
    assert not [url for url in asked if "evil" in url]


def ask_long(page: Page, text: str) -> None:
    """Ask a long text, which Chromium takes its time to type."""
    page.fill("#model", "sim-echo?rate=0&first=0")
    page.evaluate("text => (document.getElementById('prompt').value = text)", text)
    page.click("#send")
    ended(page)


def test_long_answers(page: Page) -> None:
    """What is settled stays as it is, while more comes; and no more than a slice of the text is read at once."""
    page.check("#markdown")
    page.evaluate("""() => {
      window.removed = 0;
      const watch = new MutationObserver((changes) => {
        for (const { removedNodes } of changes) for (const { tagName } of removedNodes) removed += tagName === "H3";
      });
      watch.observe(document.getElementById("turns"), { childList: true, subtree: true });
    }""")
    ask_long(page, TEXT * 100)
    box = part(page, "answer")
    expect(box.locator("h3")).to_have_count(100)
    expect(box.locator("pre")).to_have_count(100)
    assert page.evaluate("removed") < 100  # of headings, those at the end of a slice


@pytest.mark.parametrize("text", [">" * 9000, "1. " * 6000, "_a__" * 5000, "word " * 9000, "```\n" + "word\n" * 5000])
def test_nothing_is_too_odd(page: Page, text: str) -> None:
    """A block that is nested deeply, or does not end, is shown to its end, and what follows is shown as well."""
    page.check("#markdown")
    ask_long(page, f"{text}\n\nthe end")
    expect(part(page, "answer")).to_contain_text("the end")
    assert (part(page, "answer").text_content() or "").count("word") == text.count("word")
