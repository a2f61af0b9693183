"""Prompts of given lengths, made of common words. Pure: what a token is, a `Fit` says."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import chain, count, islice
from typing import TypeAlias

import msgspec

from ..._serve.distributions import Distribution
from .collected import BLOCK, MAX_TOKENS, Collected, Shape
from .prompt import OWN_WORDS, Prompt
from .words import drawn_words, own_words

Count: TypeAlias = Callable[[str], int | None]
"""A function that returns the tokens of a request with this text, ``None`` if it can't say."""

MADE = 1_000
"""Prompts that are made at most: they differ in length and words, and after the last comes the first,
with a new beginning."""
MAX_MADE_BYTES = 64 << 20
"""Bytes of made prompts together, beyond which fewer are made (at least one)."""
TRIES = 8
"""Corrections of a prompt's length, at most, where it can be counted."""


class Synthetic(msgspec.Struct, frozen=True, kw_only=True):
    """The lengths that made prompts are to have."""

    tokens: Distribution | None = None
    """Tokens of a prompt as the server counts them, with its template and the system message."""
    shapes: tuple[Shape, ...] = ()
    """Lengths of given requests, in place of all that follows."""
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

    Raises `PromptError` if given lengths make more than fits into memory.
    """
    return _like(wanted.shapes, wanted, fit) if wanted.shapes else _drawn(wanted, fit)


def _drawn(wanted: Synthetic, fit: Fit) -> Collected:
    """Return prompts of drawn lengths, as many as are wanted or fit."""
    draw = random.Random(wanted.seed)
    assert wanted.tokens is not None
    sizes = [tokens_of(wanted.tokens, draw) for _ in range(wanted.count)]
    longest = max(map(fit.words, sizes))
    shared = fresh_words(draw, round(longest * wanted.prefix_share))
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


def _like(shapes: tuple[Shape, ...], wanted: Synthetic, fit: Fit) -> Collected:
    """Return a prompt for each of the given lengths."""
    draw = random.Random(wanted.seed)
    run = own_words(OWN_WORDS)
    made = Collected(None)
    for shape in shapes:
        text, own = "", None
        if shape.blocks:
            words = fit.words(shape.tokens)
            text = " ".join(islice(_block_words(shape.blocks, run, fit), words))
        else:
            text, own = _text(draw, fit, shape.tokens, 0.0, [])
        params = {} if shape.output is None else {"max_tokens": shape.output}
        made.add(Prompt(messages=text, params=params, tokens=shape.tokens, own=own))
    return made


def _block_words(blocks: tuple[int, ...], run: str, fit: Fit) -> Iterator[str]:
    """Yield the words of blocks, the same for the same id in one run, and beyond them words as in a last
    one.
    """
    for block in chain(blocks, count(-1, -1)):
        yield from drawn_words(random.Random(f"{run}/{block}"), max(1, round(BLOCK / fit.each)))


def longest_of(wanted: Synthetic, output: int) -> int:
    """Return about the most tokens of a request and its answer, for a server that has to make room for
    them. ``output`` is the longest answer where the lengths have none.
    """
    draw = random.Random(wanted.seed)

    def most(lengths: Distribution | None, other: int) -> int:
        return other if lengths is None else max(tokens_of(lengths, draw) for _ in range(MADE))

    shapes = [shape.tokens + (shape.output or output) for shape in wanted.shapes]
    turn = most(wanted.tokens, 0) + most(wanted.output, output)
    return max([*shapes, wanted.turns * turn])


def tokens_of(lengths: Distribution, draw: random.Random) -> int:
    """Return the next length, from 1 on."""
    return min(MAX_TOKENS, max(1, round(lengths.draw(draw))))


def fresh_words(draw: random.Random, number: int) -> list[str]:
    """Return so many words, the first of which are new in every run: no server has them in its cache."""
    fresh = own_words(min(number, OWN_WORDS)).split()
    return [*fresh, *drawn_words(draw, number - len(fresh))]


def _text(
    draw: random.Random, fit: Fit, tokens: int, share: float, shared: list[str]
) -> tuple[str, tuple[int, int] | None]:
    """Return a text of so many tokens, without the words that are new in every request, and the place and
    number of these.
    """
    words: list[str] = []

    def cut(number: int) -> tuple[list[str], int, list[str]]:
        prefix = shared[: round(number * share)]
        fresh = min(OWN_WORDS, number - len(prefix))
        rest = number - len(prefix) - fresh
        words.extend(drawn_words(draw, max(0, rest - len(words))))
        return prefix, fresh, words[:rest]

    number = fit.words(tokens)
    prefix, fresh, rest = cut(number)
    for _ in range(0 if fit.count is None else TRIES):
        assert fit.count is not None
        found = fit.count(" ".join([*prefix, *own_words(fresh).split(), *rest]))
        if found is None or found == tokens:
            break
        number = max(1, number + (round((tokens - found) / fit.each) or 1))
        prefix, fresh, rest = cut(number)
    place = len(" ".join(prefix)) + 1 if prefix else 0
    text = " ".join([*prefix, *rest])
    return text, (place, fresh) if fresh else None
