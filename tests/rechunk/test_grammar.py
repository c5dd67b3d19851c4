"""What may be written to choose a cut, and what is told of anything else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app import rechunk
from app.composition.settings import load
from app.edge.bodies import parse_chunk
from app.edge.openapi.document import document
from app.rechunk import Cut, Rechunker, create, cuts, merge_after
from tests.wire.dummy import added

FORMS = (
    "auto; line[,MSms]; none; sentence[,MSms]; size:N[,MSms] with N from 1 to 65536; time:MS with MS from 1 to 60000; "
    "word[,MSms]"
)


def test_names() -> None:
    """The cuts are the modules of the package that are not private."""
    assert list(cuts()) == ["auto", "line", "none", "sentence", "size", "time", "word"]


@pytest.mark.parametrize(
    ("spec", "max_delay"),
    [
        *(("auto", None), ("none", None), ("word", None), ("sentence", None), ("line", None)),
        *(("size:1", None), ("size:65536", None), ("time:250", None), ("time:60000", 60.0)),
        *(("word,80ms", 0.08), ("sentence,1ms", 0.001), ("line,60000ms", 60.0), ("size:20,50ms", 0.05)),
    ],
)
def test_accepted(spec: str, max_delay: float | None) -> None:
    """Every form is read, and a bound or time becomes seconds."""
    assert create(spec).max_delay == max_delay


@pytest.mark.parametrize(
    "spec",
    ["", " word", "Word", "wrod", "word\n", "os", "_holding", "__init__", "..size:1", "app.events", "re", ":5", ",5ms"],
)
def test_no_such_cut(spec: str) -> None:
    """A name that is no cut's is refused with a sentence that lists the cuts. Nothing is imported by that name."""
    with pytest.raises(ValueError) as refusal:
        create(spec)
    assert str(refusal.value) == f"it is not one of: {FORMS}"


@pytest.mark.parametrize(
    ("spec", "form"),
    [
        *((spec, "auto") for spec in ("auto:1", "auto,5ms", "auto:", "auto,")),
        *((spec, "none") for spec in ("none:1", "none,5ms")),
        *((spec, "line[,MSms] (MS from 1 to 60000)") for spec in ("line:1", "line:3,5ms", "line,999999ms")),
        *((spec, "word[,MSms] (MS from 1 to 60000)") for spec in ("word:5", "word,0ms", "word,60001ms", "word,80")),
        *((spec, "word[,MSms] (MS from 1 to 60000)") for spec in ("word,80 ms", "word,80ms,80ms", "word,80ms\n")),
        *((spec, "time:MS with MS from 1 to 60000") for spec in ("time", "time:0", "time:60001", "time:5,5ms")),
        *(
            (spec, "size:N[,MSms] with N from 1 to 65536 (MS from 1 to 60000)")
            for spec in ("size", "size:", "size:0", "size:65537", "size:-1", "size:01", "size:٥", "size:1e3", "size:5,")
        ),
    ],
)
def test_a_cut_says_its_own_form(spec: str, form: str) -> None:
    """What a cut does not take is refused with a sentence about this cut."""
    with pytest.raises(ValueError) as refusal:
        create(spec)
    assert str(refusal.value) == f"it is not of the form {form}"


@pytest.mark.parametrize("spec", ["x" * 10_000, "word" + ":" * 10_000])
def test_refusal_is_short(spec: str) -> None:
    """Nothing of the input comes back."""
    with pytest.raises(ValueError, match=r"^it is not [a-z ]+: auto;|^it is not of the form word\["):
        create(spec)


@pytest.mark.parametrize("largest", [9, 10, 99, 250, 60_000, 65_536])
def test_numbers_up_to(largest: int) -> None:
    """A cut's pattern takes exactly the numbers from 1 to the largest."""
    pattern = Cut(lambda number, max_delay: Rechunker(), unit="N", largest=largest).pattern("x")
    taken = [number for number in range(largest + 100) if re.fullmatch(pattern, f"x:{number}")]
    assert taken == list(range(1, largest + 1))


@pytest.mark.parametrize("chunk", ["word,80ms", "time:5"])
def test_merge_after(chunk: str) -> None:
    """A reader that is behind is told by the cut how many texts may be joined for it."""
    assert merge_after(chunk) == cuts()[re.split("[:,]", chunk)[0]].merge_after


def test_merge_after_of_an_unknown_cut() -> None:
    """The texts of a cut that only another version of this service knows are never joined."""
    assert merge_after("haiku:5") is None


def test_a_cut_is_one_file(tmp_path: Path) -> None:
    """A file in the package is a cut: requests, settings, the description and the merging know it by its name."""
    source = """
from app.rechunk import Cut, Rechunker

CUT = Cut(lambda number, max_delay: Rechunker(), unit="N", largest=7, merge_after=3)
"""
    cuts.cache_clear()
    with added(rechunk, source, tmp_path):
        assert type(create("dummy:7")) is Rechunker
        assert merge_after("dummy:7") == 3
        with pytest.raises(ValueError, match=r"it is not of the form dummy:N with N from 1 to 7$"):
            create("dummy:8")
        assert parse_chunk("dummy:3,smooth:80", "auto") == ("dummy:3", 0.08)
        assert load(None, chunk="dummy:2").chunk == "dummy:2"
        described = document(credentials=False)["components"]["schemas"]["Chunk"]["pattern"]
        assert re.search(described, "dummy:7")
        assert not re.search(described, "dummy:8")
    cuts.cache_clear()
    with pytest.raises(ValueError, match="is not one of"):
        create("dummy:7")
