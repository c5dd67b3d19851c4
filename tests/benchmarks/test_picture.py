"""The picture of README: readable on light and dark pages and by a screen reader, and drawn from what was kept."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import picture
from tests.benchmarks.contenders import CONTENDERS
from tests.benchmarks.results import KEPT, Result, Session

PICTURE = Path(__file__).parent / "cost.svg"
SVG = "{http://www.w3.org/2000/svg}"


def session() -> Session:
    deltas, answers = (load for load, _, _ in picture.PANELS)
    results = [
        Result(deltas, "nginx", False, 10_000, [20.0, 30.0, 40.0]),
        Result(deltas, "LiteLLM", False, 1_500, [700.0], [30.0]),
        Result(deltas, "service", False, 10_000, [65.0], [1.9, 2.0, 2.4]),
        Result(deltas, "service none", False, 10_000, [90.0], [3.0]),
        Result(deltas, "TensorZero", False, 10_000, [40.0], [1.3], remark="unsound"),
        Result(answers, "nginx", True, 5_000, [100.0]),
        Result(answers, "service", True, 2_000, [500.0], [4.0]),
    ]
    return Session("2026-11-28", "2 × <CPU> & more", results)


def luminance(colour: str) -> float:
    """Return the relative luminance of *colour*, by the definition of WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_bars() -> None:
    """A bar is as long as what a core carries, relative to the others of its panel, the longest first."""
    root = ElementTree.fromstring(picture.draw(session()))
    bars = [float(each.get("width", "")) for each in root.iter(f"{SVG}rect") if "bar" in each.get("class", "")]
    assert [bars[0] / each for each in bars[:3]] == pytest.approx([1, 2, 30], rel=0.01)
    assert bars[3] / bars[4] == pytest.approx(4, rel=0.01)
    ours = [each for each in root.iter(f"{SVG}rect") if "ours" in each.get("class", "")]
    assert len(ours) == 2
    assert len(bars) == 5


def test_words() -> None:
    """All figures are in the picture's text, and again in its description, in words."""
    root = ElementTree.fromstring(picture.draw(session()))
    shown = [each.text for each in root.iter(f"{SVG}text")]
    assert {"chat-sse", "17,000 · 60.0 µs · 2.0 ×", "1,100 · 900 µs · 30 ×", "2,500 · 400 µs · 4.0 ×"} <= {*shown}
    title, described = (root.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    assert root.get("role") == "img"
    assert root.get("aria-labelledby") == "title desc"
    assert title
    assert described
    assert "; chat-sse, 17,000, 60.0 microseconds a delta, 2.0 times nginx; " in described
    assert "; chat-sse, 2,500, 400 microseconds an answer, 4.0 times nginx." in described
    assert "2 × <CPU> & more" in described


def test_nothing_is_loaded() -> None:
    """It has no script, link, image or font of elsewhere, so that it is shown wherever images are; and it is small."""
    text = picture.draw(session())
    tags = {each.tag.removeprefix(SVG) for each in ElementTree.fromstring(text).iter()}
    assert tags == {"svg", "title", "desc", "style", "rect", "text"}
    assert re.findall(r"https?://[^\"]+|url\(|@import|@font-face|href|\bon\w+=", text) == ["http://www.w3.org/2000/svg"]
    assert len(PICTURE.read_bytes()) < 16_000


@pytest.mark.parametrize("colours", [picture.LIGHT, picture.DARK], ids=["light", "dark"])
def test_contrast(colours: tuple[str, ...]) -> None:
    """On its ground, text has a contrast of 4.5 at least, and a bar one of 3: WCAG 2, 1.4.3 and 1.4.11."""
    ground, text, faint, bar, ours = colours
    assert [each for each in (text, faint, ours) if contrast(ground, each) < 4.5] == []
    assert contrast(ground, bar) >= 3


def test_what_is_shown_is_what_is_kept() -> None:
    """README's picture is the one of results.jsonl, and knows its contenders by their names."""
    assert picture.draw(Session.read(KEPT)) == PICTURE.read_text()
    assert picture.NAMES.keys() <= CONTENDERS.keys()
