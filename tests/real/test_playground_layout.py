"""The playground at four sizes and in two themes: what is in view, what keys reach, and what axe-core finds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.real.node import install
from tests.real.playground import answer, ask, ended, part, playground
from tests.real.processes import Server, launch
from tests.waiting import wait_until

pytestmark = pytest.mark.real

SIZES = {"phone": (390, 844), "landscape": (844, 390), "tablet": (768, 1024), "desktop": (1280, 800)}
NARROW = ("phone", "landscape", "tablet")
MARKDOWN = (
    "# One\n\n### Two\n\n| a | |\n|-|-|\n| 1 | 2 |\n\n- [x] `three`\n\n```\n"
    + "long " * 60
    + "\n```\n> [four](https://a.example)"
)
LINES = "sim-echo?rate=0&first=0"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service in front of its simulator, whose playground has all the controls that there are."""
    server = launch(tmp_path_factory.mktemp("service"))
    yield server
    server.stop()


@pytest.fixture
def page(browser: Browser, service: Server) -> Iterator[Page]:
    with playground(browser, service) as page:
        yield page


def resize(page: Page, size: str) -> None:
    width, height = SIZES[size]
    page.set_viewport_size(ViewportSize(width=width, height=height))


def show(page: Page, view: str) -> None:
    """Press the button that shows `options`, `log` or `streams` where there is little room."""
    page.locator(f"#views [value={view}]").click()


def violations(page: Page) -> list[tuple[str, list[str]]]:
    """Return the rules that axe-core finds broken, best practices included, each with the elements."""
    found: list[dict[str, Any]] = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found]


@pytest.mark.parametrize(("size", "scheme"), list(product(SIZES, ("light", "dark"))))
def test_axe_finds_nothing(page: Page, size: str, scheme: Literal["light", "dark"]) -> None:
    """Empty, answered, refused, as rendered Markdown, and with each part in view, nothing is broken."""
    resize(page, size)
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    page.evaluate((install() / "axe-core" / "axe.min.js").read_text())
    assert violations(page) == []
    for prompt, model in ((MARKDOWN, LINES), ("hi", "reasoning?rate=0&first=0"), ("hi", "tools?rate=0&first=0")):
        model_is(page, model)
        page.fill("#prompt", prompt)
        page.keyboard.press("Enter")
        ended(page)
    model_is(page, "error-429?retry_after=60&first=0")
    page.fill("#prompt", "no")
    page.keyboard.press("Enter")
    expect(part(page, "ending")).to_contain_text("Refused with 429")
    page.evaluate("document.getElementById('tools').value = '{'")
    for rendered in (False, True):
        page.evaluate(
            "rendered => document.getElementById('markdown').checked !== rendered && markdown.click()", rendered
        )
        assert violations(page) == []
    for view in ("options", "log", "streams") if size in NARROW else ():
        show(page, view)
        assert violations(page) == []


def model_is(page: Page, model: str) -> None:
    """Fill in a model, also where its field is not in view."""
    page.evaluate("model => (document.getElementById('model').value = model)", model)


@pytest.mark.parametrize("size", SIZES)
def test_what_is_in_view(page: Page, size: str) -> None:
    """Prompt, answer and Stop are in view at the bottom of a long answer, and nothing sticks out."""
    resize(page, size)
    model_is(page, "sim-echo?rate=100&first=0&tokens=0")
    page.fill("#prompt", "line\n" * 30)
    page.keyboard.press("Enter")
    wait_until(lambda: len(answer(page)) > 300)
    for name in ("#prompt", "#send", "#stop", "#drop", "#state", "#first"):
        expect(page.locator(name)).to_be_in_viewport(ratio=1)
    width, height = SIZES[size]
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    composer, panel = page.locator("#composer").bounding_box(), page.locator("#scroller").bounding_box()
    assert composer is not None
    assert panel is not None
    assert height - 32 < composer["y"] + composer["height"] <= height
    assert panel["height"] > height * 0.45
    page.keyboard.press("Escape")
    ended(page)


@pytest.mark.parametrize("size", NARROW)
def test_one_tap(page: Page, size: str) -> None:
    """Options, events and streams are one tap away from the answer, and it is from them; sending goes back to it."""
    resize(page, size)
    for view in ("options", "log", "streams"):
        expect(page.locator(f"#{view}")).to_be_hidden()
        show(page, view)
        expect(page.locator(f"#{view}")).to_be_visible()
        expect(page.locator(f"#views [value={view}]")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#prompt")).to_be_in_viewport()
        show(page, view)
        expect(page.locator("#scroller")).to_be_visible()
    show(page, "options")
    ask(page, "hi", LINES)
    assert ended(page) == "hi"
    expect(part(page, "answer")).to_be_in_viewport()
    show(page, "log")
    expect(page.locator("#events [data-type=done]")).to_be_in_viewport()
    page.keyboard.press("Escape")
    expect(part(page, "answer")).to_be_in_viewport()
    resize(page, "desktop")
    for view in ("#options", "#log", "#scroller"):
        expect(page.locator(view)).to_be_visible()


def test_the_keyboard_reaches_all(page: Page) -> None:
    """Tab goes to each control that is in view, in the order in which they are read, and each shows the focus."""
    page.keyboard.type("hi")
    model_is(page, "tools?rate=0&first=0")
    page.keyboard.press("Enter")
    ended(page)
    reached: list[str] = []
    outlines: list[str] = []
    page.focus("#fresh")
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate("""() => {
          const { id, dataset, tagName } = document.activeElement;
          const style = getComputedStyle(document.activeElement.id === "prompt" ? composer : document.activeElement);
          return [id || dataset.copy || tagName.toLowerCase(), `${style.outlineStyle} ${style.boxShadow}`];
        }""")
        if name == "body":
            break
        reached.append(name)
        outlines.append(outline)
    assert [name for name in reached if name not in ("summary", "textarea")] == [
        *("scroller", "curl", "script", "python", "link", "prompt", "send", "stop", "drop", "second"),
        *("preset", "system", "model", "temperature", "tools", "example", "chunk", "smooth", "on_disconnect"),
        *("transport", "markdown", "keys", "events"),
    ]
    assert "none none" not in outlines


def test_without_a_mouse(page: Page) -> None:
    """From the prompt, keys alone ask, stop, copy, open a row and come back."""
    page.keyboard.type("hi")
    model_is(page, "never-ends")
    page.keyboard.press("Enter")
    wait_until(lambda: len(answer(page)) > 20)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.locator("#stop")).to_be_focused()
    page.keyboard.press("Space")
    ended(page)
    expect(page.locator("#stop")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.locator("#prompt")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(part(page, "copies [data-copy=link]")).to_have_text("Copied")
