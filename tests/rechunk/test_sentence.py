from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "expected",
    [
        "Hello. |World! |It is 3.14 at example.com. |No?! |Ok… |fine",
        'He said: "Yes." |(No.) |**Done.** |Next',
        "J. R. R. Tolkien (e.g. here) wrote. |It",
        "你好。|世界！|「是吗？」|他说。|“好。”|Python。 |下",
        "そうですか？！|はい。|３つ",
        "नमस्ते। |कैसे हो॥|ठीक",
        "مرحبا؟ |نعم. |هكذا",
        "1. First\n|2. Second. |More\n|10. Third\n\n|- dash\r\n|  - nested",
        "He was 42. |Then he left.",
        "```py\n|def f():\n|    return 1\n|```\n|Done.",
        "Wow! 👨‍👩‍👧".replace(" ", " |"),
    ],
)
def test_sentences(cut: Callable[[str, str], str], expected: str) -> None:
    """Sentences leave with what closes them and the spaces after; lines end them too."""
    assert cut("sentence", expected.replace("|", "")) == expected
