"""Prompts of given lengths, made of common words. Pure: what a token is, a `Fit` says."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeAlias

import msgspec

from ..._serve.distributions import Distribution
from .collected import Collected
from .prompt import OWN_WORDS, Prompt
from .words import drawn_words, own_words

Count: TypeAlias = Callable[[str], int | None]
"""A function that returns the tokens of a request with this text, ``None`` if it can't say."""

MADE = 1_000
"""Prompts that are made at most: they differ in length and words, and after the last comes the first,
with a new beginning."""
MAX_MADE_BYTES = 64 << 20
"""Bytes of made prompts together, beyond which fewer are made (at least one)."""
MAX_TOKENS = 10_000_000
"""Tokens of the longest prompt that is made."""
TRIES = 8
"""Corrections of a prompt's length, at most, where it can be counted."""


class Synthetic(msgspec.Struct, frozen=True, kw_only=True):
    """The lengths that made prompts are to have."""

    tokens: Distribution
    """Tokens of a prompt as the server counts them, with its template and the system message."""
    output: Distribution | None = None
    """Most tokens of each answer; ``None`` for those of all requests."""
    turns: int = 1
    """Turns of each conversation; the later ones bring so many tokens of text each."""
    prefix_share: float = 0.0
    """Share of each prompt with which all of them begin, from 0 to 1."""
    count: int = MADE
    """Prompts to make, if they are not too large."""
    seed: int = 0


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of a made text: ``around + each * words``."""

    each: float = 1.0
    """Tokens of a word."""
    around: float = 0.0
    """Tokens of the template and of the system message."""
    how: str
    """The way in which that was found, in words."""
    count: Count | None = None
    """A function that counts a request exactly, if there is one."""

    def words(self, tokens: float) -> int:
        """Return the number of words that have about so many tokens, at least one."""
        return max(1, round((tokens - self.around) / self.each))


def make_prompts(wanted: Synthetic, fit: Fit) -> Collected:
    """Return prompts of the wanted lengths. The same seed and fit make the same, but for the words that
    are new in every request and, at the beginning of what they share, in every run.
    """
    draw = random.Random(wanted.seed)
    sizes = [tokens_of(wanted.tokens, draw) for _ in range(wanted.count)]
    longest = max(map(fit.words, sizes))
    shared = _Shared(draw, round(longest * wanted.prefix_share))
    made = Collected(None)
    for tokens in sizes:
        text, own = _text(draw, fit, tokens, wanted.prefix_share, shared)
        params = {} if wanted.output is None else {"max_tokens": tokens_of(wanted.output, draw)}
        later = [round(tokens_of(wanted.tokens, draw) / fit.each) for _ in range(wanted.turns - 1)]
        lengths = [] if wanted.output is None else [tokens_of(wanted.output, draw) for _ in later]
        prompt = Prompt(
            messages=text,
            params=params,
            turns=tuple(" ".join(drawn_words(draw, max(1, words))) for words in later),
            lengths=tuple(lengths),
            tokens=tokens,
            own=own,
        )
        made.add(prompt)
        if made.size > MAX_MADE_BYTES:
            break
    return made


def tokens_of(lengths: Distribution, draw: random.Random) -> int:
    """Return the next length, from 1 on."""
    return min(MAX_TOKENS, max(1, round(lengths.draw(draw))))


class _Shared:
    """The words with which all prompts begin."""

    def __init__(self, draw: random.Random, count: int) -> None:
        self.words = drawn_words(draw, count)
        fresh = min(count, OWN_WORDS)
        self.words[:fresh] = own_words(fresh).split() if fresh else []


def _text(
    draw: random.Random, fit: Fit, tokens: int, share: float, shared: _Shared
) -> tuple[str, tuple[int, int] | None]:
    """Return a text of so many tokens, without the words that are new in every request, and the place and
    number of these.
    """
    count = fit.words(tokens)
    for _ in range(TRIES):
        prefix = shared.words[: round(count * share)]
        fresh = min(OWN_WORDS, count - len(prefix))
        rest = drawn_words(draw, count - len(prefix) - fresh)
        if fit.count is None:
            break
        found = fit.count(" ".join([*prefix, *own_words(fresh).split(), *rest]))
        if found is None or found == tokens:
            break
        after = max(1, count + round((tokens - found) / fit.each))
        if after == count:
            break
        count = after
    place = len(" ".join(prefix)) + 1 if prefix else 0
    text = " ".join([*prefix, *rest])
    return text, (place, fresh) if fresh else None
