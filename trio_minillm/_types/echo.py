"""An answer that repeats its prompt, parted from it by the offsets of its tokens.

Servers of text completions with ``echo=True`` put the prompt before the answer, in the text and in
the list of log probabilities. Where it ends is known to who has asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import msgspec

from .checks import check_type
from .messages import Quiet
from .response import Choice, CompletionResponse


class Echo(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """An answer, separated from the prompt that it started with.

    The entries have the shape of `Choice.logprobs`: ``token``, ``logprob`` (``None`` for the first
    token, which has nothing before it), ``top_logprobs``, and ``text_offset``. Offsets count from
    the start of the prompt. A token that the server added before the prompt has a negative offset.
    """

    text: str
    """The generated text."""
    prompt: tuple[dict[str, Any], ...] = ()
    """The log probabilities of the prompt's tokens; empty if the answer has none."""
    completion: tuple[dict[str, Any], ...] = ()
    """The log probabilities of the generated tokens."""

    def _facts(self) -> str:
        return f"{len(self.prompt)} + {len(self.completion)} tokens"


def split_echo(answer: CompletionResponse | Choice, prompt: str) -> Echo:
    """Return the generated part of an answer to ``echo=True``, separated from its prompt.

    ``answer`` is a response or one of its choices, and ``prompt`` the text that was sent.

    Raises ``ValueError``, which shows neither text, if the answer does not start with the prompt,
    or if the tokens of its log probabilities do not add up to its text.
    """
    check_type("prompt", prompt, str)
    content = answer.content
    if not content.startswith(prompt):
        raise ValueError("the answer does not begin with the prompt: the server gave no echo")
    given = (answer.logprobs or {}).get("content") or ()
    entries = [one for one in given if isinstance(one, Mapping)]
    placed = [
        {**entry, "text_offset": place}
        for entry, place in zip(entries, _places(entries, content, len(prompt)), strict=True)
    ]
    # Those of characters that take several tokens have the offset of the character.
    cut = next((n for n, one in enumerate(placed) if one["text_offset"] >= len(prompt)), None)
    return Echo(
        text=content[len(prompt) :],
        prompt=tuple(placed[:cut]),
        completion=() if cut is None else tuple(placed[cut:]),
    )


def _places(entries: Sequence[Mapping[str, Any]], content: str, end: int) -> list[int]:
    """Return the offset of each token in the content, whose prompt ends at ``end``.

    A token that begins a document may be in one of the two only. Then, and in characters that take
    several tokens, servers' own offsets are those of the text or those of the tokens.
    """
    tokens = [str(entry.get("token")) for entry in entries]
    joined = "".join(tokens)
    ahead = len(joined) - len(content)
    if joined.endswith(content) or content.endswith(joined):
        ends = accumulate(map(len, tokens))
        return [end - len(token) - ahead for end, token in zip(ends, tokens, strict=True)]
    offsets: list[Any] = [entry.get("text_offset") for entry in entries]
    if all(type(place) is int for place in offsets):
        for shift in dict.fromkeys((0, len(tokens[0]))):
            places = [place - shift for place in offsets]
            if places == sorted(places) and _fit(tokens, places, content, end):
                return places
    raise ValueError("the tokens of the log probabilities do not add up to the text")


def _fit(tokens: Sequence[str], places: Sequence[int], content: str, end: int) -> bool:
    """Return whether the prompt's tokens that are whole characters stand in these places."""
    return all(
        place < 0 or "\ufffd" in token or content.startswith(token, place)
        for token, place in zip(tokens, places, strict=True)
        if place < end
    )
