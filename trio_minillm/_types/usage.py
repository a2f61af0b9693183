"""Token counts of one response, and the rule by which a later count replaces an earlier one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

MAX_RAW_FIELDS = 256
"""Fields that a raw usage object may have for later ones to be merged into it; a larger one is
replaced. It bounds what a server holds here that sends new names in every event."""
MAX_RAW_DEPTH = 4
"""Objects within each other that are merged field by field; deeper ones are replaced whole. Real
ones are nested twice."""
UNREADABLE = " is not a count"
"""The end of a doubt that says that a field could not be read."""
MAX_COUNT = 2**53
"""Counts and amounts from here on are not believed: beyond, JSON numbers are no longer exact."""


class Usage(msgspec.Struct, kw_only=True, dict=True):
    """Token counts of one response, in disjoint buckets: three for input and one for output.

    The buckets are ``uncached_input_tokens``, ``cache_read_tokens``, ``cache_write_tokens``, and
    ``completion_tokens``. Each token is in exactly one of them. The other token counts are parts of
    a bucket. ``None`` means that the provider did not report a count; it never means zero.
    """

    uncached_input_tokens: int | None = None
    """Input that was neither read from a cache nor written to it."""
    cache_read_tokens: int | None = None
    """Input that was read from a cache."""
    cache_write_tokens: int | None = None
    """Input that was written to a cache."""
    completion_tokens: int | None = None
    """All output, including reasoning."""
    reasoning_tokens: int | None = None
    """The part of ``completion_tokens`` that is reasoning."""
    cache_write_1h_tokens: int | None = None
    """The part of ``cache_write_tokens`` that is cached for an hour."""
    audio_input_tokens: int | None = None
    """The part of the input that is audio."""
    image_input_tokens: int | None = None
    """The part of the input that is images."""
    audio_output_tokens: int | None = None
    """The part of the output that is audio."""
    image_output_tokens: int | None = None
    """The part of the output that is images."""
    web_searches: int | None = None
    """The number of web searches that the provider ran for this answer."""
    cost: float | None = None
    """The cost that the provider reported, in USD, as it was sent."""
    service_tier: str | None = None
    """The service tier, speed, or region that the answer names, if the price depends on it:
    ``"standard"``, ``"flex"``, ``"priority"``, ``"fast"``, ``"us"``, or several, as in
    ``"fast+us"``."""
    doubts: dict[str, str] | None = None
    """Fields whose values are uncertain, with the reason: a count that could not be read, or counts
    that contradict each other. With uncertain counts, a cost is at most a lower bound."""
    final: bool = False
    """True if the counts cover the whole answer. False if they are provisional, which makes them a
    lower bound."""
    raw: dict[str, Any] | None = None
    """The usage object as the provider sent it, with later objects merged into earlier ones."""

    @property
    def prompt_tokens(self) -> int | None:
        """All input tokens: uncached, read from a cache, and written to a cache."""
        uncached, read = self.uncached_input_tokens, self.cache_read_tokens
        written = self.cache_write_tokens
        if uncached is None and read is None and written is None:
            return None
        return (uncached or 0) + (read or 0) + (written or 0)

    @property
    def total_tokens(self) -> int | None:
        """Input and output tokens together; ``None`` only if neither is known."""
        uncached, read = self.uncached_input_tokens, self.cache_read_tokens
        written, completion = self.cache_write_tokens, self.completion_tokens
        if uncached is None and read is None and written is None and completion is None:
            return None
        return (uncached or 0) + (read or 0) + (written or 0) + (completion or 0)

    @property
    def counted(self) -> bool:
        """True if both input and output are counted. Otherwise, the usage is not final."""
        return self.prompt_tokens is not None and self.completion_tokens is not None

    @property
    def empty(self) -> bool:
        """True if this has no count, no cost, and no count that can't be read."""
        counted = self.completion_tokens is not None or self.prompt_tokens is not None
        return not counted and self.cost is None and not self.doubts

    def read_by(
        self,
        reader: Callable[[Mapping[str, Any]], Usage],
        *,
        positive: bytes | bool = False,
        output: str | None = None,
    ) -> Usage:
        """Return this usage with the function that made it from a raw object, for `merge_from`.

        `merge_from` then reads the merged raw object again. The function is kept outside the
        fields: it is not compared, encoded, or copied. ``positive`` says that the raw object has
        only counts above zero and lists, and that none of it is uncertain. It may be the JSON of
        the object, for `anew`. ``output`` names the raw field that ``completion_tokens`` is, if no
        other field says anything about it, nor it about any other.
        """
        kept = vars(self)
        kept["reader"] = reader
        if positive:
            kept["positive"] = positive
        if output is not None:
            kept["output"] = output
        return self

    def anew(self) -> Usage | None:
        """Return this usage as it was read, whatever has been done to its fields since.

        Returns ``None`` unless `read_by` made it with its JSON.
        """
        kept = vars(self)
        json = kept.get("positive")
        if type(json) is not bytes:
            return None
        again: Usage = kept["reader"](msgspec.json.decode(json))
        return again

    def merge_from(self, later: Usage) -> None:
        """Merge a later usage object of the same response into this one.

        Counts are never added up, because they are cumulative in every wire format. A later count
        replaces an earlier one, with these exceptions:

        - ``None`` replaces nothing.
        - 0, or a value that is no number, does not replace a count above 0, because servers fill
          unknown fields with zeros. But if a later object reports the same prompt as only cached,
          its 0 uncached tokens count.

        The same rule applies to ``raw`` at each depth. A usage with a reader (see `read_by`) is
        read from the merged ``raw``, so it does not matter which object had which count. Final
        usage stays final.
        """
        before = self.raw
        kept, new = vars(self), vars(later)
        positive = "positive" in new
        if positive and "positive" in kept and before.keys() == later.raw.keys():  # type: ignore[union-attr]
            # One replaces the other. So it is with each piece of a text, where each has a usage.
            self.uncached_input_tokens = later.uncached_input_tokens
            self.cache_read_tokens = later.cache_read_tokens
            self.completion_tokens = later.completion_tokens
            self.reasoning_tokens = later.reasoning_tokens
            self.raw = later.raw
            return
        output = new.get("output")
        if output is not None and self._takes_output(output, later):
            return
        moved = False
        if later.uncached_input_tokens == 0:
            prompt = self.prompt_tokens
            moved = bool(prompt) and later.prompt_tokens == prompt
        if later.raw is not None:
            self.raw = merged_raw(before, later.raw)
            if moved and "input_tokens" in later.raw:
                self.raw = {**self.raw, "input_tokens": later.raw["input_tokens"]}
        found, reader = later, new.get("reader")
        # Counts that were not read from a raw object can only be merged one by one.
        whole = reader is not None and (before is not None or self.total_tokens is None)
        if reader is not None and whole and self.raw != later.raw:
            found = reader(self.raw)
        for field, value in zip(_FIELDS, msgspec.structs.astuple(found), strict=False):
            if value is None:
                continue
            if whole or value or not getattr(self, field):
                setattr(self, field, value)
        if self.doubts or later.doubts or found.doubts:
            # What was read anew is judged anew; but a count that can't be read may be a larger one.
            old = {k: why for k, why in (self.doubts or {}).items() if getattr(later, k) is None}
            doubts = {**old, **(later.doubts or {})}
            if whole:
                doubts = {k: why for k, why in doubts.items() if why.endswith(UNREADABLE)}
            self.doubts = {**doubts, **(found.doubts or {})} or None
        self.final = self.final or later.final
        kept.pop("positive", None)
        if positive and not self.doubts and self.raw == later.raw:
            kept["positive"] = True

    def _takes_output(self, name: str, later: Usage) -> bool:
        """Merge a later usage whose output alone is new, and return whether it is such.

        That is how Anthropic counts: the prompt at the beginning, the output at the end, where the
        prompt may stand again.
        """
        before, made = self.raw or {}, later.completion_tokens
        known = self.completion_tokens
        if not made or not known or before.get(name) != known:
            return False
        if self.doubts or len(before) >= MAX_RAW_FIELDS:
            return False
        for field, value in (later.raw or {}).items():
            if field != name and before.get(field) != value:
                return False
        self.raw = {**before, name: made}
        self.completion_tokens = made
        self.final = self.final or later.final
        return True


def merged_raw(
    earlier: dict[str, Any] | None, later: dict[str, Any], depth: int = MAX_RAW_DEPTH
) -> dict[str, Any]:
    """Return two raw usage objects as one, by the rule of `Usage.merge_from`."""
    if not earlier or len(earlier) >= MAX_RAW_FIELDS:
        return later
    out = dict(earlier)
    for name, new in later.items():
        old = out.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and depth:
            out[name] = merged_raw(old, new, depth - 1)
        elif new is not None and (number_in(new) or not number_in(old)):
            out[name] = new
        elif name == "output_tokens" and old == 1 and number_in(new) == 0:
            out[name] = new  # Anthropic opens with a 1; a refusal then ends with 0
    return out


def number_in(value: Any) -> int | float | None:
    """Return a count or an amount that is given as a number or as the text of one.

    ``None`` for anything else, and for what can't be one: negative, NaN, or `MAX_COUNT` or more.
    """
    if type(value) is int:  # almost always
        return value if 0 <= value < MAX_COUNT else None
    if isinstance(value, str) and len(value) <= 40:
        try:
            value = float(value) if not value.isdecimal() else int(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value < MAX_COUNT else None


_FIELDS: Final = Usage.__struct_fields__[:-3]
"""The fields that are merged one by one: all before the doubts, ``final`` and ``raw``."""
