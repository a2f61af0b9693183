"""Tokens of one response, and how a later count replaces an earlier one."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_RAW_FIELDS = 256
"""Fields of a raw usage object that later ones are merged into."""


class Usage(msgspec.Struct, kw_only=True):
    """Tokens of one response, in disjoint buckets: three of input and one of output.

    Guarantees: no token is in two buckets, ``None`` means that the provider did not say, and
    the other counts of tokens are parts of a bucket: ``reasoning_tokens`` and ``…_output_tokens``
    of ``completion_tokens``, ``…_input_tokens`` of the input.
    """

    uncached_input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    """Everything that was generated, reasoning included."""
    reasoning_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """The part of ``cache_write_tokens`` that was written to live an hour."""
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    web_searches: int | None = None
    """Searches that the provider ran for this answer. Not tokens: a number of requests."""
    cost: float | None = None
    """What the provider says that this cost, in USD, as on the wire."""
    final: bool = False
    """True for the last word on the whole answer; False for a count that was still
    running when the stream stopped, which is a lower bound."""
    raw: dict[str, Any] | None = None
    """The usage as the wire had it, later objects merged into earlier ones."""

    @property
    def prompt_tokens(self) -> int | None:
        """All input: uncached, read from and written to the cache."""
        known = [self.uncached_input_tokens, self.cache_read_tokens, self.cache_write_tokens]
        if all(n is None for n in known):
            return None
        return sum(n or 0 for n in known)

    @property
    def total_tokens(self) -> int | None:
        """Input and output; ``None`` only where neither was said."""
        prompt = self.prompt_tokens
        if prompt is None and self.completion_tokens is None:
            return None
        return (prompt or 0) + (self.completion_tokens or 0)

    def merge_from(self, later: Usage) -> None:
        """Take over every field that ``later`` has. Replaces, never adds: counts on every
        wire are cumulative. What is final stays final.
        """
        for field in _USAGE_FIELDS:
            value = getattr(later, field)
            if value is not None:
                setattr(self, field, value)
        if later.raw is not None:
            few = self.raw is not None and len(self.raw) < MAX_RAW_FIELDS
            self.raw = {**self.raw, **later.raw} if self.raw and few else later.raw
        self.final = self.final or later.final


_USAGE_FIELDS = (
    "uncached_input_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "completion_tokens",
    "reasoning_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
    "web_searches",
    "cost",
)
