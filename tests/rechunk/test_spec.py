from __future__ import annotations

import pytest

from app.rechunk import create, names


def test_names() -> None:
    """The cuts are the modules of the package that are not private."""
    assert names() == ("auto", "line", "none", "sentence", "size", "time", "word")


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
    ("spec", "pause"),
    [("time:1", 0.001), ("time:250", 0.25), ("time:60000", 0.25), ("auto", None), ("word,80ms", None)],
)
def test_pauses(spec: str, pause: float | None) -> None:
    """Where all that comes in a time is to leave together, upstream is read as rarely, but never too rarely."""
    assert create(spec).pause == pause


@pytest.mark.parametrize(
    "spec",
    [
        *(
            "",
            " word",
            "Word",
            "wrod",
            "word\n",
            "word:5",
            "line:1",
            "auto:1",
            "none:1",
            "sentence:2",
            "os",
            "_holding",
        ),
        *("size", "size:", "size:0", "size:65537", "size:-1", "size:01", "size:٥", "size:1e3", "size:5,", "__init__"),
        *("time", "time:0", "time:60001", "time:5,5ms", "auto,5ms", "none,5ms", "..size:1", "app.model", "re"),
        *("word,0ms", "word,60001ms", "word,80", "word,80 ms", "word,80ms,80ms", "line,999999ms"),
    ],
)
def test_refused(spec: str) -> None:
    """Everything else is refused with a sentence that says what there is."""
    with pytest.raises(ValueError) as refusal:
        create(spec)
    assert str(refusal.value) == (
        f"{spec!r} is not one of: auto; line[,MSms]; none; sentence[,MSms]; size:N[,MSms] with N from 1 to 65536; "
        "time:MS; word[,MSms] (MS from 1 to 60000)"
    )


def test_refusal_is_short() -> None:
    """No more than 40 characters of the input come back."""
    with pytest.raises(ValueError, match=r"^'x{40}' is not"):
        create("x" * 10_000)
