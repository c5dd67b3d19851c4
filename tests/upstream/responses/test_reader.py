"""The Responses reader against the rows of the upstream README, and against what streams of any dialect may do."""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Iterable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import Disconnected, Malformed, UpstreamError
from app.events import Delta, Reasoning, ToolCall
from app.upstream.reading.answer import Answer
from app.upstream.reading.reader import AnswerReader
from app.upstream.responses.reader import ResponsesDialect, ResponsesReader, responses_reader
from tests.upstream.play import MAX_EVENT, cut_at, facts, play, read, verdict
from tests.upstream.reading.quirks_bytes import Case, event
from tests.upstream.responses.bytes import (
    END,
    HI,
    READ,
    TYPES,
    WHOLE,
    arguments,
    function,
    item,
    over,
    said,
    sent,
    thought,
)
from tests.upstream.responses.quirks import RESPONSES, SHARED


def test_every_row_has_a_case() -> None:
    """The table covers rows R1–R8, names no case twice, and takes over what holds for all streams."""
    names = [case.name for case in RESPONSES]
    assert {f"R{n}" for n in range(1, 9)} <= {name.partition("-")[0] for name in names}
    assert len(names) == len(set(names))
    assert len(SHARED) > 60


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
def test_row(case: Case) -> None:
    """The row comes out as the table says, in one read, byte by byte and at random cuts."""
    play(case, [case.raw], responses_reader)
    play(case, (case.raw[at : at + 1] for at in range(len(case.raw))), responses_reader)
    dice = random.Random(case.name)
    for _ in range(10):
        play(case, cut_at(case.raw, [dice.randrange(1 << 30) for _ in range(dice.randrange(1, 9))]), responses_reader)


@pytest.mark.parametrize("case", RESPONSES, ids=lambda case: case.name)
def test_short_cut_changes_nothing(case: Case) -> None:
    """In mid-stream, deltas read by the short cut come out as they do without it (no sequence number, no short cut)."""
    careful = b"".join(case.raw.partition(b"\xef\xbb\xbf")[::2])
    numbered = careful
    for number in range(careful.count(b'"content_index": 0,')):
        numbered = numbered.replace(
            b'"content_index": 0,', b'"content_index":0,"sequence_number":%d,' % (number + 9), 1
        )
    one, other = responses_reader(MAX_EVENT), responses_reader(MAX_EVENT)
    assert read(one, [HI, numbered], case.ends) == read(other, [HI, careful], case.ends)
    assert verdict(one) == verdict(other)
    assert facts(one) == facts(other)


def test_all_types_are_known() -> None:
    """The 59 types of openai-python 3.54.0, `error` included."""
    assert len(TYPES) == len(set(TYPES)) == 58
    assert set(TYPES) >= READ


JUNK = {
    "item_id": "x",
    "output_index": 9,
    "content_index": 9,
    "delta": "junk",
    "text": "junk",
    "code": "junk()",
    "arguments": "{}",
    "part": {"type": "output_text", "text": "junk"},
    "item": {"type": "web_search_call"},
    "error": {"message": "junk"},
    "partial_image_b64": "junk",
    "response": {"output": [{"type": "message", "content": [{"type": "output_text", "text": "junk"}]}]},
}


@pytest.mark.parametrize("kind", sorted(set(TYPES) - READ))
def test_types_that_a_chat_has_not(kind: str) -> None:
    """Whatever they hold, they are neither content nor an end; the text around them is untouched."""
    reader = responses_reader()
    assert reader.feed(sent(kind, sequence_number=3, **JUNK)) == []
    assert reader.feed(HI + sent(kind, **JUNK) + said(" you") + END) == [Delta("hi"), Delta(" you")]
    assert reader.result().finish_reason == "stop"


@pytest.mark.parametrize("kind", [*TYPES, "error", "keepalive"])
@pytest.mark.parametrize("value", [None, 7, "x", [], {}, [{}], {"type": {}}, True])
def test_types_with_anything_in_them(kind: str, value: object) -> None:
    """No field of any event needs to be there, nor to be what it should."""
    fields = dict.fromkeys([*JUNK, "sequence_number", "logprobs", "summary_index", "refusal", "input"], value)
    name = kind if kind in ("error", "keepalive") else f"response.{kind}"
    for raw in (event({"type": name}), event(fields | {"type": name})):
        reader = responses_reader()
        assert orjson.dumps([*reader.feed(HI + raw + HI), *reader.end()])
        verdict(reader)


def test_one_event_per_delta_in_order() -> None:
    """Deltas are neither merged nor moved."""
    raw = said("a") + thought("hm", 1) + item("added", 2, function()) + said("b") + arguments("{}", 2) + said("c")
    first = ToolCall(0, "call_1", "f", "")
    assert responses_reader().feed(raw) == [
        *(Delta("a"), Reasoning("hm"), first, Delta("b"), ToolCall(0, "", "", "{}"), Delta("c"))
    ]


def test_error_is_told_without_secrets() -> None:
    """An upstream that quotes the prompt in its error does not reach the client with it."""
    reader = responses_reader(secrets=["my dark secret"])
    reader.feed(over("failed", error={"code": "invalid_prompt", "message": "cannot answer 'my dark secret'"}))
    with pytest.raises(UpstreamError, match=r"^cannot answer '\[redacted\]'$"):
        reader.result()


@pytest.mark.parametrize(
    ("raw", "by_upstream"),
    [
        (HI, False),
        (HI + END, True),
        (HI + event({"type": "error", "message": "no"}), True),
        (over("failed"), True),
        (HI + b"data: nonsense\n\n", False),
        (HI + said("x" * 2 * MAX_EVENT), False),
    ],
    ids=range(6),
)
def test_who_ends_an_answer(raw: bytes, by_upstream: bool) -> None:
    """The upstream ends one by a terminal event or an error; that we cannot read on is not the upstream's end."""
    reader = responses_reader(MAX_EVENT)
    reader.feed(raw)
    assert reader.answer.ended_by_upstream is by_upstream


def resumable() -> tuple[ResponsesDialect, ResponsesReader]:
    dialect = ResponsesDialect(Answer())
    return dialect, AnswerReader(dialect)


def numbered(raw: bytes) -> list[bytes]:
    return [block + b"\n\n" for block in raw.split(b"\n\n")[:-1]]


@pytest.mark.parametrize("cut", range(1, 14))
@pytest.mark.parametrize("again", [0, 1, 99])
def test_resume(cut: int, again: int) -> None:
    """Read on in another body, with events *again* that were read before, the answer is that of one body."""
    blocks = numbered(WHOLE)
    whole = responses_reader()
    events = whole.feed(WHOLE)
    dialect, reader = resumable()
    got = reader.feed(b"".join(blocks[:cut]) + (blocks[cut][:-20] if cut < len(blocks) else b""))
    assert (dialect.response_id, dialect.sequence) == ("resp_1", cut - 1)
    assert dialect.resumable is (cut < len(blocks))
    if dialect.resumable:
        dialect.resume()
        reader.resume()
        rest = b"".join(blocks[max(0, cut - again) :])
        for at in range(len(rest)):
            got += reader.feed(rest[at : at + 1])
    assert got == events
    assert reader.result() == whole.result()


def test_what_cannot_be_resumed() -> None:
    """Without an id and a number there is nothing to ask for; an id that is no path segment is none."""
    dialect, reader = resumable()

    def resumable_after(raw: bytes) -> bool:
        reader.feed(raw)
        return dialect.resumable

    assert not resumable_after(HI)
    assert not resumable_after(said("x", sequence_number=1))
    for bad in ("../v1/files", "a/b", "", ".", "x?y", "x" * 300, "a b", 7, None, "é"):
        assert not resumable_after(sent("in_progress", sequence_number=2, response={"id": bad}))
    assert resumable_after(sent("in_progress", sequence_number=3, response={"id": "resp_68-a.b=="}))
    assert not resumable_after(END)


def test_heartbeats_have_no_place_in_the_count() -> None:
    """A keepalive's number may not belong to an event that the upstream kept: it is not asked what follows it (R1)."""
    dialect, reader = resumable()
    reader.feed(said("a", sequence_number=4) + event({"type": "keepalive", "sequence_number": 7}))
    assert dialect.sequence == 4
    reader.feed(said("b", sequence_number=5) + sent("unheard_of", sequence_number=6))
    assert dialect.sequence == 6


def test_a_whole_answer_in_place_of_the_rest() -> None:
    """Where the rest was asked for and the whole came, as JSON, it is not read: part of it was sent on already."""
    dialect, reader = resumable()
    reader.feed(b"".join(numbered(WHOLE)[:8]))
    dialect.resume()
    reader.resume()
    body = {"id": "resp_1", "status": "completed", "output": [{"type": "message", "content": []}]}
    assert reader.feed(json.dumps(body).encode()) == []
    assert reader.end() == []
    with pytest.raises(Malformed):
        reader.result()


TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@given(
    st.lists(st.tuples(TEXT, st.integers(0, 2), st.integers(0, 1)), max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=20),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.booleans(),
)
def test_any_text_comes_out_as_it_went_in(
    pieces: list[tuple[str, int, int]], cuts: list[int], ensure_ascii: bool, line_end: bytes, count: bool
) -> None:
    """However text is cut into deltas, escaped, framed and cut into reads: nothing is lost, added or changed."""
    raw = b""
    wholes: dict[tuple[int, int], str] = {}
    for number, (piece, at, index) in enumerate(pieces):
        wholes[at, index] = wholes.get((at, index), "") + piece
        fields = {"type": "response.output_text.delta", "output_index": at, "content_index": index, "delta": piece}
        if count:
            fields["sequence_number"] = number
        raw += event(json.dumps(fields, ensure_ascii=ensure_ascii).encode())
    for (at, index), whole in wholes.items():
        raw += sent("output_text.done", output_index=at, content_index=index, text=whole)
    reader = responses_reader()
    events = read(reader, cut_at((raw + END).replace(b"\n", line_end), cuts))
    assert events == [Delta(piece) for piece, _, _ in pieces if piece]
    assert reader.result().finish_reason == "stop"


NAMES = """type delta text item part response output content summary name call_id arguments id model usage status error
    code message incomplete_details reason output_index content_index summary_index sequence_number logprobs token
    logprob bytes top_logprobs refusal"""
WORDS = st.sampled_from(
    [f"response.{kind}" for kind in sorted(READ)]
    + ["message", "reasoning", "function_call", "custom_tool_call", "output_text", "refusal", "completed", "failed"]
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=5),
    max_leaves=20,
)
EVENTS = st.fixed_dictionaries(
    {"type": WORDS},
    optional=dict.fromkeys(["item", "part", "response", "delta", "output_index", "content_index", "logprobs"], JSON),
)


def outcome(pieces: Iterable[bytes], ends: str) -> tuple[bytes, object]:
    reader = responses_reader(4096)
    events = read(reader, pieces, ends)
    return orjson.dumps(events), verdict(reader)


@given(
    st.lists(st.one_of(JSON, EVENTS), max_size=5),
    st.sampled_from(["eof", "cut"]),
    st.lists(st.integers(0, 1 << 20), max_size=6),
)
def test_fields_of_any_type_end_in_a_verdict(values: list[object], ends: str, cuts: list[int]) -> None:
    """Every field may hold a value of any type, and what comes of it does not depend on the reads."""
    raw = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    assert outcome([raw], ends) == outcome(cut_at(raw, cuts), ends)
    outcome([json.dumps(value).encode() for value in values[:1]], ends)


@pytest.mark.no_cover  # megabytes through few lines, which the rows cover
@pytest.mark.parametrize(
    "piece",
    [
        HI,
        said("x" * 900, sequence_number=1),
        event({"type": "keepalive", "sequence_number": 1}),
        sent("created", response={"id": "resp_1", "model": "m", "usage": {"input_tokens": 3}}),
        item("added", 0, function()) + arguments("x" * 500),
        thought("x" * 900),
        item("done", 3, {"type": "message", "content": [{"type": "output_text", "text": "x" * 900}]}),
        b"".join(said("x", at) for at in range(500)),
    ],
    ids=["text", "numbered", "heartbeat", "lifecycle", "call", "reasoning", "items", "parts"],
)
def test_endless_input_is_not_kept(piece: bytes) -> None:
    """Thousands of anything leave little behind, whatever the answer's length."""
    reader = responses_reader(MAX_EVENT)
    tracemalloc.start()
    for _ in range(max(2000, 2_000_000 // len(piece)) if len(piece) < 5000 else 30):
        reader.feed(piece)
    kept, _peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 250_000
    reader.end(Disconnected())
    with pytest.raises(UpstreamError):
        reader.result()
