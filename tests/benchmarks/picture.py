"""The README's picture: how many deltas, and how many short answers, a core carries in each contender.

It is drawn from the kept results of a session (`tests.benchmarks.results`):

    .venv/bin/python -m tests.benchmarks --picture tests/benchmarks/cost.svg

GitHub shows it as an image: no script runs in it and nothing is loaded. It has a ground of its own, so that it can be
read on any page, and darker colours where the reader's system asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from xml.sax.saxutils import escape

from tests.benchmarks.report import Verdict
from tests.benchmarks.results import Result, Session

# Who is shown, and under which name; ours stands out.
NAMES = {
    "nginx": "nginx, which only copies bytes",
    "service": "chat-sse",
    "node pipe": "Node's http, piped",
    "TensorZero": "TensorZero's gateway (Rust)",
    "socket.io": "socket.io and axios",
    "naive": "httpx, httpx-sse, sse-starlette",
    "AI SDK": "AI SDK 7's streamText",
    "official SDK": "FastAPI and OpenAI's SDK",
    "Portkey": "Portkey's gateway",
    "LiteLLM": "LiteLLM's proxy",
}
OURS = "service"
# What each panel shows: the load, a heading, and the unit.
PANELS = (
    ("200 × 50/s", "Deltas a second that one core carries, in 200 streams of 50 a second", "a delta"),
    ("20 at once, 3 deltas each", "Answers of three deltas that one core carries in a second, 20 at once", "an answer"),
)
# The colours of ground, text, faint text, bars, and of our own bar; on a light and on a dark page.
LIGHT = ("#ffffff", "#1f2328", "#59636e", "#8c959f", "#0969da")
DARK = ("#0d1117", "#f0f6fc", "#9198a1", "#656c76", "#4493f8")

_WIDTH, _MARGIN = 760, 20
_BAR_LEFT, _BAR_MOST = 240, 250
_ROW, _HEAD, _GAP, _LINE = 24, 34, 18, 16


def draw(session: Session) -> str:
    """Return the picture of a *session* as SVG, without what is unsound, and without a panel that has no nginx."""
    parts, words, top = [], [], _MARGIN
    for load, heading, unit in PANELS:
        sound = [each for each in session.results if each.remark != Verdict.UNSOUND.value]
        shown = [each for each in sound if each.load == load and each.via in NAMES]
        nginx = next((median(each.cost) for each in shown if each.via == "nginx"), None)
        if nginx is None:
            continue
        shown.sort(key=lambda each: each.ratio)
        parts.append(_text(_MARGIN, top + 14, heading, "head"))
        parts += _bars(shown, nginx, top + _HEAD)
        words.append(f"{heading}: {'; '.join(_said(each, nginx, unit) for each in shown)}.")
        top += _HEAD + _ROW * len(shown) + _GAP
    foot = (f"{session.day}, {session.machine}", "µs: CPU time for each. ×: relative to nginx in the same minute.")
    for line in foot:
        parts.append(_text(_MARGIN, top + 4, line, "faint"))
        top += _LINE
    return _SVG.format(
        width=_WIDTH,
        height=top + 4,
        title="What chat-sse costs, beside nginx and other gateways",
        desc=escape(" ".join([*words, ". ".join(foot)])),
        light=_colours(LIGHT),
        dark=_colours(DARK),
        body="\n".join(parts),
    )


def carried(result: Result, nginx: float) -> float:
    """Return how many a core carries in a second, where nginx takes so many microseconds for one."""
    return 1e6 / (nginx * result.ratio)


def _bars(shown: Sequence[Result], nginx: float, top: int) -> Iterable[str]:
    most = max(carried(each, nginx) for each in shown)
    for number, each in enumerate(shown):
        y, long = top + _ROW * number, max(2.0, _BAR_MOST * carried(each, nginx) / most)
        kind = "ours" if each.via == OURS else "text"
        yield _text(_BAR_LEFT - 12, y + 12, NAMES[each.via], f"{kind} name")
        yield f'<rect class="{kind} bar" x="{_BAR_LEFT}" y="{y}" width="{long:.1f}" height="15" rx="2"/>'
        value = f"{_about(carried(each, nginx))} · {_micros(nginx * each.ratio)} µs · {_times(each)} ×"
        yield _text(_BAR_LEFT + long + 8, y + 12, value, kind)


def _said(result: Result, nginx: float, unit: str) -> str:
    return (
        f"{NAMES[result.via]}, {_about(carried(result, nginx))}, {_micros(nginx * result.ratio)} microseconds {unit},"
        f" {_times(result)} times nginx"
    )


def _about(rate: float) -> str:
    """Return *rate* with the two digits that hold."""
    return f"{float(f'{rate:.2g}'):,.0f}"


def _micros(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _times(result: Result) -> str:
    return f"{result.ratio:.1f}" if result.ratio < 10 else f"{result.ratio:.0f}"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y}">{escape(text)}</text>'


def _colours(colours: Sequence[str]) -> str:
    kinds = (".ground", ".text,.head", ".faint", ".bar", ".ours")
    return "".join(f"{kind}{{fill:{colour}}}" for kind, colour in zip(kinds, colours, strict=True))


_SVG = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-labelledby="title desc">
<title id="title">{title}</title>
<desc id="desc">{desc}</desc>
<style>
text{{font:13px system-ui,-apple-system,"Segoe UI",sans-serif}}.head,text.ours{{font-weight:600}}
.name{{text-anchor:end}}text.faint{{font-size:11px}}
{light}
@media (prefers-color-scheme:dark){{{dark}}}
</style>
<rect class="ground" width="{width}" height="{height}" rx="6"/>
{body}
</svg>
"""
