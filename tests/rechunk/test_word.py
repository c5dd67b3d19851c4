from __future__ import annotations

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    "expected",
    [
        "Hello, |world!  |I |can't |say |3.14 |at |https://a.example/b?c=d.",
        "A \n\n|B\r\n|C\t|D",
        "\n\n  leading |spaces ",
        "Combien |?\u00a0Dix\u202fmille\u00a0! |Oui",
        "你|好，|世|界！|他|说|“你|好”。|Python|编|程|(中|文)|很|好",
        "**你|好**，`码`是**重|点**。|好",
        "东|京 |和 |北|京",
        "東|京|タワー|へ|行|き|ま|し|た。|コンピューター|は|らー|め|ん・|ジョン・|スミス|「きゃー」|と|言っ|た",
        "人々|の|カ\u3099ラス|と|ﾊﾝｶｸ",
        "ภา|ษา|ไท|ย|น้ำ|แข็|ง|เก่า |ดีๆ",
        "ខ្មែ|រ |မြ|န်|မ|ာ|စ|ာ |ສະ|ບາ|ຍ",
        "안녕하세요 |여러분. |좋아요",
        "مرحبا |بالعالم؟ |نعم",
        "नमस्ते |दुनिया। |क्षमा",
        "👨‍👩‍👧👍🏽 |🇩🇪🇫🇷 |中|👍🏽|文|👨‍👩‍👧|字|🇩🇪",
        "a \u0301b |c",
        "- |one\n|- |two\n\n|```py\n|def |f():\n    |return |1\n|```",
    ],
)
def test_words(cut: Callable[[str, str], str], expected: str) -> None:
    """Words leave with the spaces after them; scripts without spaces are cut where it stays readable."""
    assert cut("word", expected.replace("|", "")) == expected
