"""Token counts of one response, and the rule by which a later count replaces an earlier one."""

from __future__ import annotations

from typing import Any

import msgspec

MAX_RAW_FIELDS = 256
"""Fields that a raw usage object may have for later ones to be merged into it; a larger one is
replaced. It bounds what a server holds here that sends new names in every event."""


class Usage(msgspec.Struct, kw_only=True):
    """Token counts of one response, in disjoint buckets: three of input and one of output.

    Guarantees: no token is in two buckets, and ``None`` means that the provider did not say, never
    zero. The buckets are ``uncached_input_tokens``, ``cache_read_tokens``, ``cache_write_tokens``
    and ``completion_tokens``. The other token counts are parts of a bucket: ``reasoning_tokens``
    and ``…_output_tokens`` of ``completion_tokens``, ``…_input_tokens`` of the input.
    """

    uncached_input_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    completion_tokens: int | None = None
    """All output, reasoning included."""
    reasoning_tokens: int | None = None
    cache_write_1h_tokens: int | None = None
    """The part of ``cache_write_tokens`` whose cache entries live for an hour."""
    audio_input_tokens: int | None = None
    image_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    image_output_tokens: int | None = None
    web_searches: int | None = None
    """Number of web searches that the provider ran for this answer (not tokens)."""
    cost: float | None = None
    """The provider's own figure for the cost, in USD, as it was sent."""
    final: bool = False
    """True if the counts cover the whole answer; false if they are provisional, which makes
    them a lower bound."""
    raw: dict[str, Any] | None = None
    """The usage object as the provider sent it, later objects merged into earlier ones."""

    @property
    def prompt_tokens(self) -> int | None:
        """All input tokens: uncached, read from the cache and written to it."""
        known = [self.uncached_input_tokens, self.cache_read_tokens, self.cache_write_tokens]
        if all(n is None for n in known):
            return None
        return sum(n or 0 for n in known)

    @property
    def total_tokens(self) -> int | None:
        """Input and output tokens together; ``None`` only if neither is known."""
        prompt = self.prompt_tokens
        if prompt is None and self.completion_tokens is None:
            return None
        return (prompt or 0) + (self.completion_tokens or 0)

    def merge_from(self, later: Usage) -> None:
        """Replace each field by that of a later usage object, where the later one has it.

        Counts are never added up: in every wire format they are cumulative. Final usage stays
        final.
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
