"""Options of a timed server, and the checks of their values. Pure."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

import msgspec

from .distributions import Distribution, distribution
from .fault_texts import SharedFault, fault_from

Wire: TypeAlias = Literal["openai", "text", "anthropic", "responses", "gemini"]
"""The names of the wire formats, as `trio_minillm.testing` has them."""
WIRES: Final[tuple[Wire, ...]] = get_args(Wire)

UsageMode: TypeAlias = Literal["asked", "late", "running", "never"]
USAGE_MODES: Final[tuple[UsageMode, ...]] = get_args(UsageMode)

TTFT, ITL = 0.2, 0.02
"""Seconds to the first content, and between contents, by default."""
TOKENS: Final = 128
"""Tokens of an answer by default, where the request names no limit."""
MAX_TOKENS: Final = 1_000_000
"""Tokens of the longest answer, so that its text is bounded."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The options of `open_timed_server`; times are in seconds.

    Times and ``tokens`` are numbers, or distributions as text: ``"uniform(0.1, 0.5)"``, ``"normal(0.3,
    0.1)"``, ``"lognormal(0.3, 0.5)"`` (median, sigma), ``"exp(0.2)"``. Raises ``ValueError`` for other
    values.
    """

    ttft: float | str | None = None
    """Seconds from the complete request (or from its turn, with ``slots``) to the first content: 0.2.
    None keeps the timing of recordings and scripts."""
    itl: float | str | None = None
    """Seconds from one content of a stream to the next: 0.02. None as for ``ttft``."""
    tokens: float | str | None = None
    """Tokens of an answer, if the request does not ask for fewer. None is as many as it asks for at most,
    or 128."""
    tokens_per_chunk: int = 1
    """Tokens in each content."""
    reasoning: int = 0
    """Tokens of reasoning, as the first of the answer's."""
    usage: UsageMode = "asked"
    """Usage in a stream: ``asked`` as the real servers do, ``late`` at the end, ``running`` in each content
    as well (where the wire format has a place for it), or ``never``."""
    opening: bool = False
    """True if the opening without content is sent at once, and not with the first content."""
    slots: int | None = None
    """Requests that are served at once; others wait for their turn, in order. None is no limit."""
    slow_down: int | None = None
    """Running streams from which on ``itl`` grows in proportion to their number. None is never."""
    faults: Sequence[str] = ()
    """Faults, each as for ``--fault``."""
    wire: Wire | None = None
    """The only wire format that is served. None is all of them, by the path."""
    model: str = "timed"
    """Name of the model in the list of models."""
    files: Sequence[str | os.PathLike[str]] = ()
    """Recordings and scripts, whose answers are served in order, over and over."""
    seed: int = 0
    """Seed of what is random. The n-th request gets the same numbers in every run."""

    def __post_init__(self) -> None:
        """Check all values."""
        for name in ("tokens_per_chunk", "slots", "slow_down"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number, 1 or more")
        if type(self.reasoning) is not int or self.reasoning < 0:
            raise ValueError("reasoning must be a whole number, 0 or more")
        if self.usage not in USAGE_MODES:
            raise ValueError(f"usage must be one of {', '.join(USAGE_MODES)}")
        if self.wire is not None and self.wire not in WIRES:
            raise ValueError(f"wire must be one of {', '.join(WIRES)}")
        _ = self.first, self.gap, self.length, self.shared_faults

    @cached_property
    def first(self) -> Distribution:
        """The distribution of the time to the first content."""
        return distribution(TTFT if self.ttft is None else self.ttft, "ttft")

    @cached_property
    def gap(self) -> Distribution:
        """The distribution of the time between contents."""
        return distribution(ITL if self.itl is None else self.itl, "itl")

    @cached_property
    def length(self) -> Distribution | None:
        """The distribution of the number of tokens, if it is given."""
        return None if self.tokens is None else distribution(self.tokens, "tokens")

    @cached_property
    def shared_faults(self) -> tuple[SharedFault, ...]:
        """The faults, each with its share of the requests."""
        return tuple(fault_from(text) for text in self.faults)

    @property
    def retimed(self) -> bool:
        """True if recordings and scripts are paced anew."""
        return self.ttft is not None or self.itl is not None
