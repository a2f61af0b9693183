"""One prompt of a benchmark."""

from __future__ import annotations

from typing import Any

import msgspec

from ..._types.messages import Message


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request's own part: messages, parameters, and the further turns of its conversation."""

    messages: str | tuple[Message, ...]
    """The request itself: a text, or messages."""
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    """Parameters of this prompt alone, which replace those of the plan."""
    turns: tuple[str, ...] = ()
    """The user's next words, one after the other, each behind the model's answer to the one before."""
    tokens: int | None = None
    """Tokens that it was made to have, if it was made."""
