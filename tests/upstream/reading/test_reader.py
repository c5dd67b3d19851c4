"""What holds for the reader of any dialect, shown with that of chat completions."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterable

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.errors import Empty, Malformed, UpstreamError
from app.events import Delta, Done, ToolCall
from app.upstream.reading.answer import ENDED, FINISHED, OPEN, State
from app.upstream.reading.body import LARGE
from app.upstream.reading.chat import chat_reader
from tests.upstream.play import MAX_EVENT, cut_at, read
from tests.upstream.reading.quirks import CASES
from tests.upstream.reading.quirks_bytes import DONE, HI, STOP, event, merged


@pytest.mark.parametrize(
    "steps",
    [
        [(HI, OPEN), (STOP, FINISHED), (HI, FINISHED), (DONE, ENDED), (HI, ENDED)],
        [(HI, OPEN), (event({"error": "no"}), ENDED)],
        [(HI, OPEN), (b"data: oops\n\n", ENDED)],
        [(b"<", ENDED)],
        [(b"{", OPEN)],
    ],
)
def test_what_to_wait_for(steps: list[tuple[bytes, State]]) -> None:
    """An answer is finished by a finish reason, and ended by `[DONE]`, errors and nonsense."""
    reader = chat_reader()
    for raw, state in steps:
        reader.feed(raw)
        assert reader.answer.state is state


def test_a_large_event_in_steps() -> None:
    """A large event is read in many steps; what came before it is there at once, and what comes after it is last."""
    reader = chat_reader()
    text = '",' * (LARGE // 2)
    found = [reader.feed(HI + event({"choices": [{"index": 0, "delta": {"content": text}}]}) + STOP + DONE)]
    while reader.unread is not None:
        found.append(reader.go_on())
    assert len(found) > 4
    assert [content for content in found if content] == [[Delta("hi")], [Delta(text)]]
    assert reader.answer.state is ENDED


def test_a_large_event_with_too_many_values() -> None:
    """It is given up as soon as it has more values than are read."""
    reader = chat_reader()
    reader.feed(event([1] * (LARGE // 2)))
    steps = 0
    while reader.unread is not None:
        steps += 1
        reader.go_on()
    assert steps < 3
    with pytest.raises(Malformed, match="more values"):
        reader.result()


def test_error_is_told_without_secrets() -> None:
    """An upstream that quotes the prompt in its error does not reach the client with it."""
    reader = chat_reader(secrets=["my dark secret"])
    reader.feed(event({"error": {"message": "cannot answer 'my dark secret'"}}))
    with pytest.raises(UpstreamError, match=r"^cannot answer '\[redacted\]'$"):
        reader.result()


def outcome(pieces: Iterable[bytes], ends: str) -> tuple[str, str, str]:
    """Return text, calls and how it ended; everything must be encodable."""
    reader = chat_reader(4096)
    events = read(reader, pieces, ends)
    assert orjson.dumps(events)
    said_text = "".join(event.text for event in events if isinstance(event, Delta))
    said_calls = str(merged([event for event in events if isinstance(event, ToolCall)]))
    try:
        done: Done = reader.result()
    except UpstreamError as error:
        assert len(error.text) <= 300
        return said_text, said_calls, type(error).__name__ + error.text
    json.dumps(done.usage and done.usage.fields, allow_nan=False)
    return said_text, said_calls, str(done)


SPICE = [
    b"data:",
    b"data: ",
    b"\n",
    b"\r",
    b"\n\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"error:",
    b"event: error\n",
    b"\xef\xbb\xbf",
]


SPICE += [
    b'"error"',
    b'"choices"',
    b"null",
    b"[DONE]",
    b"\xff",
    b"\\ud83d",
    b"NaN",
    b"1e999",
    b"\x00",
    b'"delta"',
    b"<",
    b"3",
]
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.lists(st.one_of(st.sampled_from(SPICE), st.binary(max_size=4)), max_size=40).map(b"".join),
)


ENDINGS = st.sampled_from(["eof", "cut", "timeout"])


CUTS = st.lists(st.integers(0, 1 << 20), max_size=6)


@given(GARBAGE, ENDINGS, CUTS)
@example(b"data: [DONE]\n\nerror: {}", "eof", [13])
def test_garbage_ends_in_a_verdict(raw: bytes, ends: str, cuts: list[int]) -> None:
    """Bytes of any kind raise nothing, and come to the same end however they are cut."""
    assert outcome([raw], ends) == outcome(cut_at(raw, cuts), ends)


@given(
    st.lists(st.sampled_from([case.raw for case in CASES if len(case.raw) < 1000]), min_size=1, max_size=3).map(
        b"".join
    ),
    st.lists(
        st.tuples(st.integers(0, 1 << 20), st.integers(0, 9), st.one_of(st.sampled_from(SPICE), st.just(b""))),
        max_size=5,
    ),
    ENDINGS,
    CUTS,
)
def test_mutated_streams_end_in_a_verdict(
    raw: bytes, edits: list[tuple[int, int, bytes]], ends: str, cuts: list[int]
) -> None:
    """So do streams that are nearly right."""
    for place, length, instead in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + instead + raw[at + length :]
    assert outcome([raw], ends) == outcome(cut_at(raw, cuts), ends)


@pytest.mark.no_cover  # megabytes through few lines, which the rows cover
@pytest.mark.parametrize(
    ("endless", "end"),
    [
        (lambda: b"data: " + b"x" * 994, Malformed),
        (lambda: b"data: xxxx\n" * 100, Malformed),
        (lambda: b'{"a":' * 200, Malformed),
        (lambda: b"x\n" * 500, Malformed),
        (lambda: b" " * 1000, Malformed),
        (lambda: b": ping\n\n" * 125, Empty),
        (lambda: b"event: x\nid: 4\n" * 66, Empty),
        (lambda: HI[:-1] + b"\n" + b"\n" * 900, UpstreamError),
    ],
    ids=["line", "event", "body", "no-fields", "blanks", "comments", "no-data", "deltas"],
)
def test_endless_input_is_not_kept(endless: Callable[[], bytes], end: type[UpstreamError]) -> None:
    """Two megabytes of anything leave less than a tenth of that behind."""
    reader, piece = chat_reader(MAX_EVENT), endless()
    tracemalloc.start()
    for _ in range(2000):
        reader.feed(piece)
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000
    reader.end()
    with pytest.raises(end):
        reader.result()


NAMES = """choices delta message content tool_calls index id function name arguments function_call refusal reasoning
    reasoning_details text thinking finish_reason error code detail status type object usage x_groq model"""
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just("stop"))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=4),
    max_leaves=20,
)


@given(st.lists(st.one_of(JSON, JSON.map(lambda value: {"choices": [{"delta": value}]})), max_size=4), ENDINGS)
def test_fields_of_any_type_end_in_a_verdict(values: list[object], ends: str) -> None:
    """Every field may hold a value of any type."""
    raw = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    outcome([raw], ends)
    outcome([json.dumps(value).encode() for value in values[:1]], ends)


def test_nothing_is_content_after_the_end() -> None:
    """Text that comes after `[DONE]` is dropped, also where the reader knows its bytes from the text before it."""
    reader = chat_reader()
    for _ in range(6):
        assert reader.feed(HI)
    reader.feed(STOP + DONE)
    assert reader.feed(HI) == []
