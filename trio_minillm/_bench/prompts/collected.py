"""A bounded collection of prompts, and what may be told of them. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from .prompt import Prompt

MAX_PROMPTS = 100_000
"""Prompts of a run. They stay in memory, and each process has a copy."""
MAX_PROMPT_BYTES = 256 << 20
"""Bytes of all prompts of a run together."""


MAX_TOKENS = 10_000_000
"""Tokens of the longest prompt that is made."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The lengths of a request of which nothing else is known."""

    tokens: int
    """Tokens of the prompt."""
    output: int | None = None
    """Most tokens of the answer."""
    blocks: tuple[int, ...] = ()
    """Ids of the pieces that the prompt is made of, each of `BLOCK` tokens: the same id is the same text,
    which a server may have in its cache."""


BLOCK = 512
"""Tokens of a block, as in Mooncake's traces."""


class PromptError(ValueError):
    """Prompts that can't be used. The message says why and where, and quotes none of them."""


class Collected:
    """Prompts as they are collected, up to the bounds and to the ``most`` that will be sent."""

    def __init__(self, most: int | None) -> None:
        self.prompts: list[Prompt] = []
        self.shapes: list[Shape] = []
        """Lengths of prompts that are to be made."""
        self.recordings: list[Path] = []
        """Recordings, whose answers tell lengths."""
        self.size = 0
        """Bytes of their texts and messages."""
        self._most = most

    @property
    def full(self) -> bool:
        """True if there are as many as will be sent."""
        return self._most is not None and max(len(self.prompts), len(self.shapes)) >= self._most

    def add(self, prompt: Prompt) -> None:
        """Keep a prompt. Raises `PromptError` beyond a bound."""
        self.size += size_of(prompt)
        if len(self.prompts) >= MAX_PROMPTS:
            raise PromptError(f"more than {MAX_PROMPTS:,} prompts{_HINT}")
        if self.size > MAX_PROMPT_BYTES:
            raise PromptError(f"more than {MAX_PROMPT_BYTES >> 20} MiB of prompts{_HINT}")
        self.prompts.append(prompt)

    def add_shape(self, shape: Shape) -> None:
        """Keep the lengths of a prompt. Raises `PromptError` beyond the bound."""
        if len(self.shapes) >= MAX_PROMPTS:
            raise PromptError(f"more than {MAX_PROMPTS:,} lengths{_HINT}")
        self.shapes.append(shape)

    def check(self) -> None:
        """Raise `PromptError` if there is nothing to send, or if some is given and some to be made."""
        kinds = bool(self.prompts), bool(self.shapes), bool(self.recordings)
        if not any(kinds):
            raise PromptError("no prompts found")
        if sum(kinds) > 1:
            raise PromptError("prompts, lengths, and recordings can't be mixed")


_HINT = "; --requests N reads only the first N"


def size_of(prompt: Prompt) -> int:
    """Return the bytes of a prompt's messages and turns."""
    given = prompt.messages
    size = len(given) if isinstance(given, str) else len(msgspec.msgpack.encode(given))
    return size + sum(map(len, prompt.turns))


def shape_of(prompts: tuple[Prompt, ...]) -> dict[str, Any]:
    """Return the counts and sizes of prompts for a result, without a word of theirs."""
    turns = [1 + len(prompt.turns) for prompt in prompts]
    return {
        "count": len(prompts),
        "characters": sum(map(characters_of, prompts)),
        "turns": sum(turns),
        "own_params": sorted({name for prompt in prompts for name in prompt.params}),
    }


def characters_of(prompt: Prompt) -> int:
    """Return the characters of a prompt's texts, in all of its turns."""
    given = prompt.messages
    if isinstance(given, str):
        first = len(given)
    else:
        first = sum(len(message.text) for message in given)
    return first + sum(map(len, prompt.turns))
