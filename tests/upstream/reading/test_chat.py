"""The chat reader against everything that upstreams have been seen to send."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.events import REASONING, Delta, Extra, PlainReasoning, Reasoning, ToolCall
from app.upstream.reading.chat import chat_reader
from tests.upstream.play import MAX_EVENT, cut_at, facts, play, read, verdict
from tests.upstream.reading.quirks import CASES
from tests.upstream.reading.quirks_bytes import END, HI, Case, chunk, text


def test_every_row_has_a_case() -> None:
    """The table covers the rows that are about what a stream holds, and names no case twice."""
    names = [case.name for case in CASES]
    rows = {name.partition("-")[0] for name in names}
    wanted = {f"F{n}" for n in range(1, 29)} | {f"E{n}" for n in range(1, 17)} | {f"C{n}" for n in range(1, 36)}
    wanted |= {f"X{n}" for n in [*range(1, 12), 15, 16, 18]} | {f"H{n}" for n in (4, 5, 6, 7, 8, 13, 14, 15)}
    assert wanted <= rows
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_row_whole(case: Case) -> None:
    """In one read, the row comes out as the table says."""
    play(case, [case.raw])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_row_byte_by_byte(case: Case) -> None:
    """One byte a read makes no difference."""
    play(case, (case.raw[at : at + 1] for at in range(len(case.raw))))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_row_at_random_cuts(case: Case) -> None:
    """Nor do thirty other ways to cut it."""
    dice = random.Random(case.name)
    for _ in range(30):
        play(case, cut_at(case.raw, [dice.randrange(1 << 30) for _ in range(dice.randrange(1, 9))]))


@given(st.sampled_from([case for case in CASES if len(case.raw) < 4000]), st.lists(st.integers(0, 4000), max_size=20))
def test_row_at_drawn_cuts(case: Case, cuts: list[int]) -> None:
    """Nor any that Hypothesis thinks of."""
    play(case, cut_at(case.raw, cuts))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_short_cut_changes_nothing(case: Case) -> None:
    """In mid-stream, plain chunks read by the short cut as they do without it (no model, no short cut)."""
    plain, careful = chat_reader(MAX_EVENT), chat_reader(MAX_EVENT)
    raw = b"".join(case.raw.partition(b"\xef\xbb\xbf")[::2])
    assert read(plain, [chunk({"content": "hi"}, model="m"), raw], case.ends) == read(careful, [HI, raw], case.ends)
    assert verdict(plain) == verdict(careful)
    assert facts(plain) == facts(careful)


def test_one_event_per_delta_in_order() -> None:
    """Deltas are neither merged nor moved; reasoning goes before text, and text before calls, in one chunk."""
    both = {"content": "b", "reasoning": "hm", "tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}
    events = chat_reader().feed(text("a") + chunk(both) + text("c"))
    assert events == [Delta("a"), PlainReasoning("hm"), Delta("b"), ToolCall(0, "c", "f", ""), Delta("c")]


@pytest.mark.parametrize("kind", REASONING)
def test_the_name_of_reasoning(kind: type[Reasoning]) -> None:
    """Reasoning keeps the name that the upstream has for it."""
    assert chat_reader().feed(chunk({kind.FIELD: "hm"})) == [kind("hm")]


def test_usage_is_bounded_and_plain() -> None:
    """Whatever the upstream sends as usage can be encoded, and is bounded."""
    wild = {f"k{n}": {"a": {"b": {"c": 1}}, "s": "x" * 199} for n in range(599)} | {"n": 10**30, "t": "\ud800"}
    reader = chat_reader()
    reader.feed(
        b"data: "
        + json.dumps({"choices": [], "usage": {"n": 10**30, "s": "\ud800", "u": wild, "v": wild}}).encode()
        + b"\n\n"
    )
    assert reader.answer.usage is not None
    assert reader.answer.usage.fields["s"] == "\ufffd"
    assert "n" not in reader.answer.usage.fields
    assert len(json.dumps(reader.answer.usage.fields).encode()) < 16 * 1024


def test_what_else_a_call_has() -> None:
    """A signature comes with its call, once, wherever it stands; custom calls say what they are (rows X16, X17)."""
    signed = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = {
        "index": 0,
        "id": "a",
        "type": "function",
        "function": {"name": "f", "arguments": "{", "strict": True},
        **signed,
    }
    more = {"index": 0, "function": {"arguments": "}", "strict": True}, **signed}
    late = {"index": 1, "id": "b", "type": "custom", "custom": {"name": "g", "input": "x"}}
    content = chat_reader().feed(
        chunk({"tool_calls": [call]})
        + chunk({"tool_calls": [more, late]})
        + chunk({"tool_calls": [{"index": 1, **signed}]})
    )
    assert content == [
        ToolCall(0, "a", "f", "{", extra=signed | {"function": {"strict": True}}),
        ToolCall(0, "", "", "}"),
        ToolCall(1, "b", "g", "x", "custom"),
        ToolCall(1, "", "", "", "custom", signed),
    ]


def test_a_function_of_the_upstreams() -> None:
    """It is a call of a function, whose own type comes with it, once (row X19)."""
    call = {"index": 0, "type": "builtin_function", "function": {"name": "$web_search", "arguments": "{"}, "id": "a"}
    more = {"index": 0, "type": "builtin_function", "function": {"arguments": "}"}}
    assert chat_reader().feed(chunk({"tool_calls": [call]}) + chunk({"tool_calls": [more]})) == [
        ToolCall(0, "a", "$web_search", "{", extra={"type": "builtin_function"}),
        ToolCall(0, "", "", "}"),
    ]


def test_short_cut_takes_constant_fields() -> None:
    """What all chunks repeat, and was said, does not keep a plain chunk from the template; what is new does."""
    constant = {"model": "m", "system_fingerprint": "fp", "service_tier": None, "provider": "P", "citations": ["u"]}
    reader = chat_reader()
    reader.feed(chunk({"content": "a"}, **constant))
    assert reader.feed(chunk({"content": "b"}, **constant)) == [Delta("b")]
    assert reader._template.known
    assert reader._template.texts(chunk({"content": "c"}, **constant)) == [Delta("c")]
    assert reader.feed(chunk({"content": "d"}, **constant | {"provider": "Q"})) == [
        Delta("d"),
        Extra({"provider": "Q"}),
    ]
    assert reader.feed(chunk({"content": "e"}, **constant | {"provider": "Q", "vibe": 1}))[1:] == [Extra({"vibe": 1})]


def test_extras_quote_no_secret() -> None:
    """A field that echoes the operator's system prompt is left out, and another one is not."""
    prompt = "You are the operator's assistant."
    reader = chat_reader(secrets=[prompt])
    content = reader.feed(chunk({"content": "a"}, echo={"prompt": f"System: {prompt}"}, provider="P"))
    assert content == [Delta("a"), Extra({"provider": "P"})]


def test_extras_wait_for_content() -> None:
    """What comes before the content does not begin the answer, so that a failure can still be healed."""
    reader = chat_reader()
    assert reader.feed(chunk({"role": "assistant"}, provider="P")) == []
    assert reader.feed(HI) == [Extra({"provider": "P"}), Delta("hi")]
    failing = chat_reader()
    assert failing.feed(chunk({"role": "assistant"}, provider="P") + chunk(error="no")) == []
    many = b"".join(chunk({}, serial=n) for n in range(99))
    whole, slow = chat_reader(), chat_reader()
    assert whole.feed(many) == [event for at in range(0, len(many), 9) for event in slow.feed(many[at : at + 9])]


TEXT = st.text(st.characters(codec="utf-8"), max_size=60)


@given(
    st.lists(TEXT, max_size=8),
    st.lists(st.integers(0, 1 << 20), max_size=20),
    st.booleans(),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.sampled_from(["", "m"]),
)
def test_any_text_comes_out_as_it_went_in(
    pieces: list[str], cuts: list[int], ensure_ascii: bool, line_end: bytes, model: str
) -> None:
    """However text is cut into deltas, escaped, framed and cut into reads: nothing is lost, added or changed."""
    chunks = [
        {"model": model, "choices": [{"index": 0, "delta": {"content": piece}, "finish_reason": None}]}
        for piece in pieces
    ]
    blocks = [b"data: " + json.dumps(chunk, ensure_ascii=ensure_ascii).encode() + b"\n\n" for chunk in chunks]
    raw = (b"".join(blocks) + END).replace(b"\n", line_end)
    reader = chat_reader()
    events = read(reader, cut_at(raw, cuts))
    assert events == [Delta(piece) for piece in pieces if piece]
    assert reader.result().finish_reason == "stop"


@given(TEXT, st.lists(st.integers(0, 200), max_size=9))
def test_text_cut_between_surrogates_is_mended(whole: str, cuts: list[int]) -> None:
    """Deltas cut by UTF-16 units, as by a back end that counts like JavaScript, give the same text (C16)."""
    units = whole.encode("utf-16-le")
    pieces = [
        piece.decode("utf-16-le", "surrogatepass")
        for piece in cut_at(units, [cut % (len(units) // 2 + 1) * 2 for cut in cuts])
    ]
    reader = chat_reader()
    raw = b"".join(
        b"data: " + json.dumps({"choices": [{"delta": {"content": piece}}]}).encode() + b"\n\n" for piece in pieces
    )
    events = read(reader, [raw + END])
    assert "".join(event.text for event in events if isinstance(event, Delta)) == whole
