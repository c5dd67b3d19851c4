"""What a model may say besides text, in whichever API it was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import orjson

from app.simulator.play import Content, Play
from app.simulator.text import REASONING, REFUSAL, cut, encoded


def reasoning(*, summary: bool) -> Content:  # C10
    """Return what thinks before it answers: as OpenAI names it (*summary*), or open models."""

    def content(play: Play) -> Iterator[bytes]:
        thoughts = list(encoded(REASONING, play.knobs.size))
        play.thought = len(thoughts)
        yield from play.voice.thinking(iter(thoughts), summary=summary)
        yield from play.deltas()

    return content


def refusal(play: Play) -> Iterator[bytes]:  # C11
    refused = list(encoded(REFUSAL, play.knobs.size))
    play.spoken = len(refused)
    return play.voice.refusing(iter(refused))


def calls(play: Play) -> Iterator[bytes]:
    """Call up to two of the tools offered, or a weather tool; answer in words once a tool has answered."""
    if play.asked.answered:
        yield from play.deltas()
        return
    arguments = orjson.dumps({"query": play.prompt[:200], "city": "東京", "unit": "celsius"}).decode()
    for at, name in enumerate(play.asked.tools[:2] or ["get_weather"]):
        pieces = [orjson.dumps(piece) for piece in cut(arguments, play.knobs.size or 6)]
        play.spoken += len(pieces)
        yield from play.voice.calling(at, name, iter(pieces))
    play.finish = "tool_calls"


def text_and_calls(play: Play) -> Iterator[bytes]:
    yield from play.deltas()
    if play.finish == "stop" and not play.asked.answered:
        yield from calls(play)


def saying(*pieces: bytes) -> Callable[[Play], Iterator[bytes]]:
    """Return what says *pieces*, the JSON of deltas as they are."""

    def content(play: Play) -> Iterator[bytes]:
        play.spoken = len(pieces)
        return play.voice.text(iter(pieces))

    return content


# C16: pairs split over two deltas, and one half alone.
lone_surrogates = saying(
    rb'"A smile, "', rb'"\ud83d"', rb'"\ude00"', rb'", a half one, "', rb'"\ud83d"', rb'", and no more."'
)
