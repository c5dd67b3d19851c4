"""`word`: cut after words and the spaces that follow them.

Strategy: whether there is a cut between two characters depends on those two, and on what marks before them belong to.
Spaces cut, no-break spaces apart. Scripts written without spaces are cut between grapheme clusters, but so that it
stays readable (after UAX #14): closing punctuation, small kana, prolonged sound marks and trailing vowels stay with
what precedes, opening punctuation and leading vowels with what follows, runs of Katakana together. Nothing else is
cut, so emoji, "can't", "3.14" and addresses stay whole.
"""

from __future__ import annotations

import regex

from app.rechunk._clusters import EXTENDER
from app.rechunk._grammar import Cut
from app.rechunk._holding import Holding

_SPACE = r"[\s--[\u00a0\u2007\u202f]]"
# A letter of a script written without spaces; the prolonged sound mark belongs to no script.
_LETTER = r"[[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー\uff70]--[\p{M}\p{Nd}\p{P}\p{S}]]"
_KATAKANA = r"[\p{Katakana}ー\uff70]"
# Quotes and Markdown's marks open as well as close; they stay with both sides.
_EITHER = r"\"'*_`~"
_TRAILING = (
    rf"[{EXTENDER}{_EITHER}\p{{Pe}}\p{{Pf}}\p{{lb=CL}}\p{{lb=CP}}\p{{lb=EX}}\p{{lb=IS}}\p{{lb=SY}}\p{{lb=IN}}"
    r"\p{lb=NS}\p{lb=CJ}\p{lb=PO}\p{lb=GL}\p{lb=WJ}ะาๅๆฯະາຽໆຯ]"
)
_LEADING = rf"[{_EITHER}\p{{Ps}}\p{{Pi}}\p{{lb=OP}}\p{{lb=GL}}\p{{lb=WJ}}\p{{LOE}}\p{{GCB=PP}}\p{{GCB=ZWJ}}]"
_WIDE_CLOSER = rf"[[\p{{P}}&&[\p{{ea=W}}\p{{ea=F}}]]--{_LEADING}]"
_CUT = regex.compile(
    rf"""(?V1)
    # after a space
    (?=[^{_SPACE}{EXTENDER}]) (?<=[^{_SPACE}]{_SPACE}++)
    | (?:
        # before a letter of such a script
        (?=[{_LETTER}--{_TRAILING}]) (?<=[^{_SPACE}{_LEADING}]) (?!{_KATAKANA}(?<={_KATAKANA}[{EXTENDER}]*+.))
        # between such a letter, or wide punctuation, and anything else
        | (?=[^{_SPACE}{_TRAILING}{_LETTER}]) (?<=[{_LETTER}{_WIDE_CLOSER}][{EXTENDER}]*+) (?<!{_LEADING})
    )
    # never inside an emoji or a stacked consonant
    (?<!\u200d) (?<![\p{{InCB=Linker}}\u1039\u17d2][{EXTENDER}]*)
    """,
    regex.VERBOSE | regex.DOTALL,
)
# The same for ASCII, where only spaces cut; three times as fast.
_ASCII_CUT = regex.compile(r"\s(?=\S)(?<=\S\s++)")


def _find_end(text: str, start: int, at: int) -> int:
    match = _ASCII_CUT.search(text, at - 1) if text.isascii() else _CUT.search(text, at)
    return match.end() if match else 0


CUT = Cut(lambda number, max_delay: Holding(_find_end, max_delay), bounded=True, merge_after=32)
