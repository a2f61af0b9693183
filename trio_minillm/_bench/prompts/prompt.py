"""One prompt of a benchmark, and the turns of its conversation. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from ..._types.messages import Message, TextPart, ToolCall, user
from .words import own_words

OWN_WORDS = 6
"""Words of a beginning that no other prompt has: 6 of `WORDS` are drawn alike once in 10^15 pairs."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request's own part: messages, parameters, and the further turns of its conversation."""

    messages: str | tuple[Message, ...]
    """The request itself: a text, or messages."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Parameters of this prompt alone, which replace those of the plan."""
    turns: tuple[str, ...] = ()
    """The user's next words, one after the other, each behind the model's answer to the one before."""
    lengths: tuple[int, ...] = ()
    """Most tokens of the answer to each of ``turns``; empty if ``params`` hold for all of them."""
    tokens: int | None = None
    """Tokens that it was made to have, if it was made."""
    own: tuple[int, int] | None = None
    """Place in its first text, in characters, and number of words that are new in every request, so that
    no server finds what follows in its cache; ``None`` for no such words."""

    def __repr__(self) -> str:
        return f"<Prompt of {1 + len(self.turns)} turns>"

    def __rich_repr__(self) -> Any:
        yield repr(self)


def as_sent(prompt: Prompt) -> Prompt:
    """Return the prompt with words of its own, if it is to have some."""
    if prompt.own is None:
        return prompt
    place, count = prompt.own

    def with_words(text: str) -> str:
        return f"{text[:place]}{own_words(count)} {text[place:]}"

    given = prompt.messages
    if isinstance(given, str):
        return msgspec.structs.replace(prompt, messages=with_words(given), own=None)
    first = given[0]
    at = next((i for i, part in enumerate(first.parts) if isinstance(part, TextPart)), 0)
    parts = [*first.parts]
    part = parts[at]
    if isinstance(part, TextPart):
        parts[at] = msgspec.structs.replace(part, text=with_words(part.text))
    messages = (msgspec.structs.replace(first, parts=tuple(parts)), *given[1:])
    return msgspec.structs.replace(prompt, messages=messages, own=None)


def next_turn(prompt: Prompt, answer: Message) -> Prompt | None:
    """Return the conversation's next request, behind the model's answer to this one.

    ``None`` if there is no further turn, or none can follow: the answer is empty, or calls a tool.
    """
    if not prompt.turns or not answer.parts:
        return None
    if any(isinstance(part, ToolCall) for part in answer.parts):
        return None
    given = prompt.messages
    before = (user(given),) if isinstance(given, str) else given
    params, lengths = prompt.params, prompt.lengths
    if lengths:
        params = {**params, "max_tokens": lengths[0]}
    return msgspec.structs.replace(
        prompt,
        messages=(*before, answer, user(prompt.turns[0])),
        params=params,
        turns=prompt.turns[1:],
        lengths=lengths[1:],
        tokens=None,
    )
