"""The words of the documentation: how a page reads, and what it does not say.

``docs/reference/style.md`` explains the rules; here is what a program can check of them.
"""

from __future__ import annotations

import re
from typing import Final

MOST_WORDS: Final = 2500
"""Words of a page, without code and tables."""
HARDEST: Final = 10.0
"""Grade of a page: the years at school that it takes to read it."""
USUAL: Final = 8.0
"""Grade of the page in the middle."""

INSTEAD: Final = {
    r"\b(?:un)?booked\b": "counted, recorded",
    r"\bbooks\b": "ledger",
    r"\bparted\b": "split",
    r"\bcrowd(?:ed|s)?\b": "limit, exceed",
    r"\bsettl(?:e|es|ed|ing)\b": "look up the final cost",
    r"\bof (?:yours|ours|theirs)\b": "your, our, their",
    r"\bwhat there is of\b": "the … so far",
    r"\bgo(?:es)? on\b": "continue",
    r"\bwent on\b": "continued",
    r"\btaken up again\b": "resumed",
    r"\bcall(?:s|ed)? (?:it |them )?off\b": "cancel",
    r"\bwhat (?:became|becomes) of\b": "what happened to, what happens to",
    r"\bas a rule\b": "usually",
    r"\blikewise\b": "also, in the same way",
    r"\bin vain\b": "without effect",
    r"\bdear(?:er|est)?\b": "expensive",
    r"\bbehind (?:it|them|the (?:end|answer|content|first|last))\b": "after",
    r"\bbut for\b": "except for",
    r"\bshall\b": "must, will",
    r"\bhave to be asked\b": "need a lookup",
    r"\bin (?:his|her) own way\b": "differently",
    r"\boddit(?:y|ies)\b": "quirk",
    r"\bwhoever\b": "anyone who, you",
    r"\bat hand\b": "available",
}
"""What a native reader stumbles over, as patterns, and what to say instead."""


def plain(markdown: str) -> str:
    """Return the sentences of a page: no code, tables, headings or comments, a line for each."""
    markdown = re.sub(r"(?ms)^ *```.*?^ *```$|<!--.*?-->|^---\n.*?^---$", "", markdown)
    lines: list[str] = []
    for paragraph in re.split(r"\n\s*\n", markdown):
        if paragraph.lstrip().startswith(("|", "#", "<", ":::", "--8<--")):
            continue
        for item in re.split(r"(?m)^\s*(?:[-*]|\d+\.|!!! .*|>)\s+", paragraph):
            text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", " ".join(item.split()))
            text = re.sub(r"`[^`]*`", "code", text).replace("*", "").strip(" :;")
            if text:
                lines.append(text if text[-1] in ".?!" else f"{text}.")
    return "\n".join(lines)


def grade(text: str) -> float:
    """Return the Flesch-Kincaid grade of a text. Needs pyphen, which knows where words are divided."""
    import pyphen

    dictionary = pyphen.Pyphen(lang="en_US")
    words = re.findall(r"[A-Za-z][A-Za-z'’]*", text)
    sentences = len(re.findall(r"[.?!](?=\s|$)", text))
    syllables = sum(len(dictionary.positions(word.lower())) + 1 for word in words)
    return 0.39 * len(words) / max(1, sentences) + 11.8 * syllables / max(1, len(words)) - 15.59
