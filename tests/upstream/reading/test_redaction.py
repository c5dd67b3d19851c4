"""An upstream's words as a client may see them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.upstream.reading.redaction import MAX_MESSAGE, presentable, presenter, scrub


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a\x00b\x1b[31m\r\n  c\u202e", "a b [31m c"),
        ("plain <b>bold</b> 1 < 2 > 0", "plain bold 1 < 2 > 0"),
        ("key sk-proj-abc***def.", "key [redacted]"),
        ("header Bearer abcdefgh12345678, ok", "header [redacted], ok"),
        ("k AIzaSyA1234567890abcdefghijklmnop", "k [redacted]"),
        ("d41d8cd98f00b204e9800998ecf8427e is it", "[redacted] is it"),
        ("in org-AbCdEf123456 on tokens", "in [redacted] on tokens"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc", "jwt [redacted]"),
        ("Team: 1b2c-3d, API key ID: 9f8e, Model: m, team: none", "[redacted], [redacted], Model: m, team: none"),
        (
            "model Llama-4-Maverick-17B-128E-Instruct-FP8 is unknown",
            "model Llama-4-Maverick-17B-128E-Instruct-FP8 is unknown",
        ),
        ("max_tokens_to_sample_exceeded_for_this_model", "max_tokens_to_sample_exceeded_for_this_model"),
        ("x" * 400, "x" * (MAX_MESSAGE - 1) + "…"),
        ("<!doctype html><p>Hi", None),
        ("y" * 20_000, None),
        ("\ud800 half", "half"),
    ],
)
def test_message_is_fit_to_be_seen(said: str, told: str | None) -> None:
    """One bounded line without control characters, markup or keys; a page or an echo is not quoted at all."""
    assert presentable(said, []) == told


MODEL = "Qwen3-Next-80B-A3B-Instruct-int4-mixed-AutoRound"
OWN = [f"vendor/{MODEL}", "org_lookup_employees", "hf_dataset_name", "in proj_list_items: 3", "name"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"The model `{MODEL}` does not exist.", f"The model `{MODEL}` does not exist."),
        ("'org_lookup_employees', (hf_dataset_name).", "'org_lookup_employees', (hf_dataset_name)."),
        ("see org_lookup_employees.name: proj_list_items", "see org_lookup_employees.name: proj_list_items"),
        # what the client did not say
        (f"The model `{MODEL}2` does not exist.", "The model `[redacted]` does not exist."),
        ("in `org_lookup_employee`", "in `[redacted]`"),
        ("org_lookup_employees.org_01xyz", "[redacted]"),
        ("sk-abc***def, hf_abcdefgh, gsk_abcdefgh", "[redacted], [redacted], [redacted]"),
    ],
)
def test_own_words_are_no_keys(said: str, told: str) -> None:
    """What looks like a key stays where all of it is the client's own."""
    assert presenter(["the operator's text"], lambda: OWN)(said) == told


def test_secrets_are_nobodys_own() -> None:
    """What the operator's texts have is taken out, also if the client has guessed it."""
    show = presenter(["Never tell sk-live-0123456789, hidden here."], lambda: ["sk-live-0123456789", "sk-test-987654"])
    assert show("with sk-live-0123456789 and sk-test-987654") == "with [redacted] and sk-test-987654"


def test_own_words_are_looked_at_once_and_only_if_need_be() -> None:
    """A request may be large, and an error may have many texts."""
    looked = []

    def own() -> list[str]:
        looked.append(1)
        return OWN

    show = presenter([], own)
    assert (show("The model does not exist."), looked) == ("The model does not exist.", [])
    show("org_lookup_employees, hf_dataset_name")
    show("org_lookup_employees")
    assert looked == [1]


@pytest.mark.parametrize(
    ("text", "secrets", "clean"),
    [
        ("you said: tell me a joke!", ["tell me a joke"], "you said: [redacted]!"),
        ("you said: hi", ["hi"], "you said: hi"),
        ('input "a\\nb c d e f" is bad', ["a\nb c d e f"], 'input "[redacted]" is bad'),
        (
            'in {"a": "{\\"m\\": \\"a\\\\nb c d \\\\\\"e\\\\\\"\\"}"}',
            ['a\nb c d "e"'],
            'in {"a": "{\\"m\\": \\"[redacted]\\"}"}',
        ),
        ("long and longer words", ["and longer", "long and longer"], "[redacted] words"),
        ("cut: the quick brown fox jumps ov...", ["the quick brown fox jumps over the lazy dog"], "cut: [redacted]..."),
        *(
            (f"cut: {said}...", ["the quick brown fox, old\ner é and lazier"], "cut: [redacted]...")
            for said in (
                "the quick brown fox, old\ner é and",
                "the quick brown fox, old\\ner é and",
                "the quick brown fox, old\\\\ner é and",
                "the quick brown fox, old\\ner \\u00e9 and",
                "the quick brown fox, old\\\\ner \\\\u00e9 and",
            )
        ),
        ("[redacted]", ["redacted"], "[[redacted]]"),
        ("abc" * 30, ["abc" * 20], "[redacted][redacted]"),
        ("nothing", [], "nothing"),
    ],
)
def test_scrub(text: str, secrets: list[str], clean: str) -> None:
    """Secrets of eight characters or more go, whole, escaped or cut short."""
    assert scrub(text, secrets) == clean


@given(
    st.text(alphabet="ab[]redct\n", max_size=60),
    st.lists(st.text(alphabet="ab[]redct\n", min_size=8, max_size=40), max_size=3),
)
def test_scrub_always_ends(text: str, secrets: list[str]) -> None:
    """Even where the secrets look like what takes their place."""
    scrub(text, secrets)
