"""The text of answers: plain words, each of which is one token. Pure."""

from __future__ import annotations

from typing import Final

_TEXT: Final = (
    "the river carries salt from old hills down to a quiet sea where it stays while water rises"
    " again as rain and falls on stone that slowly gives way so every year more of it arrives and"
    " none ever leaves until dry winds take what is left of some small bay"
)
WORDS: Final = tuple(_TEXT.split())
PERIOD: Final = len(WORDS)
"""Tokens after which the text repeats itself."""


def text_of(first: int, count: int) -> str:
    """Return ``count`` tokens of the endless text, from the one with the number ``first`` on.

    All but the very first have a space before them, so that any two stretches can be joined.
    """
    if not count:
        return ""
    text = " ".join(WORDS[n % PERIOD] for n in range(first, first + count))
    return f" {text}" if first else text
