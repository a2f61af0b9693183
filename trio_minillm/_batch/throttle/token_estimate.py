"""Estimates of the tokens that a request comes to, before it is answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..._accounting.estimate import CHARACTERS_PER_TOKEN
from ..._types.messages import Message, TokensPart
from ..types import BatchRequest

USUAL_OUTPUT = 256
"""Tokens of an answer that the request does not bound."""


def estimate_tokens(request: BatchRequest) -> float:
    """Return roughly how many tokens a request comes to, input and output together."""
    bound, content = request.params.get("max_tokens"), request.messages
    output = USUAL_OUTPUT
    if isinstance(bound, int) and 0 <= bound < output:  # -1 is no bound, at some servers
        output = bound
    length = len(content) if type(content) is str else _characters(content)
    return length / CHARACTERS_PER_TOKEN + output


def _characters(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    if isinstance(content, Message):
        first = content.parts[0] if content.parts else None
        if isinstance(first, TokensPart):
            return len(first.ids) * CHARACTERS_PER_TOKEN
        return len(content.text)
    if type(content) is int:  # the id of a token
        return CHARACTERS_PER_TOKEN
    if isinstance(content, Mapping):
        return _characters(content.get("content") or content.get("text") or ())
    return sum(map(_characters, content)) if isinstance(content, Sequence) else 0


class TokenCalibration:
    """Correction of a lane's estimates by what its newest answers really took."""

    def __init__(self) -> None:
        self.factor = 1.0
        """Tokens that answers took, as a multiple of their estimates."""
        self._estimated = self._used = 0.0

    def add(self, estimated: float, used: float) -> None:
        """Learn from an answer. Each one weighs 5 % less than the next, so some twenty count."""
        self._estimated = 0.95 * self._estimated + estimated
        self._used = 0.95 * self._used + used
        if self._estimated > 0:
            self.factor = self._used / self._estimated
