"""Prices and costs as values; `trio_minillm.providers` makes a cost of a usage and a price.

Amounts are `decimal.Decimal` in USD.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

import msgspec

from .money import exact

Rate: TypeAlias = Decimal | float | int


class CostResolution(str, Enum):
    """The degree to which a cost can be trusted."""

    RESOLVED = "resolved"
    """The provider's own figure, or final usage times a price that covers all of it."""
    LOWER_BOUND = "lower_bound"
    """At least this much: the usage is provisional, or it contains a charge that the price does not
    cover (web searches), or it leaves open which of two rates applies."""
    UNPRICED = "unpriced"
    """The usage is known, but not its price."""
    UNKNOWN = "unknown"
    """Not even the usage is known. This never means zero."""

    def __str__(self) -> str:
        return self.value


class _SpecialRates(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Optional rates of a price, in USD per million tokens; see `TokenPrice`.

    Input that a cache had is ``cache_read``, input that goes into one ``cache_write`` and, for an hour,
    ``cache_write_1h``; sound is ``audio_input``, ``audio_cache_read`` and ``audio_output``; pictures are
    ``image_input``, ``image_cache_read`` and ``image_output``.
    """

    cache_read: Rate | None = None
    cache_write: Rate | None = None
    cache_write_1h: Rate | None = None
    audio_input: Rate | None = None
    audio_cache_read: Rate | None = None
    audio_output: Rate | None = None
    image_input: Rate | None = None
    image_cache_read: Rate | None = None
    image_output: Rate | None = None


class PriceTier(_SpecialRates, frozen=True, kw_only=True):
    """Rates, in USD per million tokens, of a request with more than ``above`` input tokens.

    Cached input counts. The rates apply to *all* tokens of that request, output included, and not
    only to those above the threshold. A rate that is missing here is that of the tier below.
    """

    above: int
    input: Rate | None = None
    """Rate of input that no cache has."""
    output: Rate | None = None
    """Rate of output."""

    def __post_init__(self) -> None:
        if isinstance(self.above, bool) or not isinstance(self.above, int):
            raise TypeError("above must be a number of tokens")
        if self.above < 0:
            raise ValueError("above must be a number of tokens, 0 or more")
        _check_rates(self, RATES)


class TokenPrice(_SpecialRates, frozen=True, kw_only=True):
    """The price of a model's tokens, in USD per million tokens.

    A missing rate falls back on a wider one: ``cache_read``, ``cache_write``, ``audio_input`` and
    ``image_input`` on ``input``; ``cache_write_1h`` (cache entries that live for an hour) on
    ``cache_write`` (five minutes); ``audio_cache_read`` and ``image_cache_read`` on
    ``cache_read``; ``audio_output`` and ``image_output`` on ``output``. Reasoning is output.

    ``web_search`` is in USD per search (0.01 is one cent each) and has nothing to fall back on:
    searches without a rate make the cost a lower bound.

    ``tiers`` are the rates of longer requests, in rising order. ``as_of`` is a day on which the
    price is known to have been valid, and ``source`` names where it is from.

    ``service_tier`` is the one that the price is for, in the words of `Usage.service_tier`: the
    standard one if it is ``None``. ``variants`` are the prices of the same model at other tiers. An
    answer that names its tier is priced by that one's price; if there is none, its cost is not
    resolved.

    Raises ``TypeError`` if a rate is not a number, ``ValueError`` if it is negative or not finite,
    if the tiers are not in order, or if two prices are for one service tier.
    """

    input: Rate
    output: Rate
    web_search: Rate | None = None
    tiers: tuple[PriceTier, ...] = ()
    as_of: date | None = None
    source: str | None = None
    service_tier: str | None = None
    variants: tuple[TokenPrice, ...] = ()

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a price in USD")
        _check_rates(self, (*RATES, "web_search"))
        if not all(isinstance(tier, PriceTier) for tier in self.tiers):
            raise TypeError("tiers must be PriceTier values")
        marks = [tier.above for tier in self.tiers]
        if marks != sorted(set(marks)):
            raise ValueError("tiers must stand in rising order of above")
        if self.as_of is not None and (
            not isinstance(self.as_of, date) or isinstance(self.as_of, datetime)
        ):
            raise TypeError("as_of must be a date")
        _check_service_tiers(self)


WIDER = {
    "cache_read": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "audio_cache_read": "cache_read",
    "audio_output": "output",
    "image_input": "input",
    "image_cache_read": "cache_read",
    "image_output": "output",
}
"""The rate that each missing rate falls back on, in an order in which that one is always known."""

RATES = ("input", "output", *WIDER)


def _check_service_tiers(price: TokenPrice) -> None:
    if not all(isinstance(other, TokenPrice) for other in price.variants):
        raise TypeError("variants must be TokenPrice values")
    named = [other.service_tier for other in (price, *price.variants)]
    if not all(isinstance(tier, str | None) and tier != "" for tier in named):
        raise TypeError("service_tier must be a name, or None for the standard tier")
    told = [tier or "standard" for tier in named]
    if len(set(told)) < len(told):
        raise ValueError("variants must be prices of different service tiers")


def _check_rates(given: PriceTier | TokenPrice, names: Iterable[str]) -> None:
    for name in names:
        rate = getattr(given, name)
        if rate is None:
            continue
        if isinstance(rate, bool) or not isinstance(rate, Decimal | float | int):
            raise TypeError(f"{name} must be a price in USD, not {type(rate).__name__}")
        number = exact(rate)
        if not number.is_finite() or number < 0:
            raise ValueError(f"{name} must be a price in USD, 0 or more")


class CostInfo(msgspec.Struct, frozen=True):
    """A cost, and the degree to which it can be trusted.

    ``amount`` is in USD, and ``None`` unless the cost is resolved or a lower bound.
    """

    amount: Decimal | None = None
    resolution: CostResolution = CostResolution.UNKNOWN
    """The degree to which the amount is known."""
    source: str | None = None
    """``"native"`` for the provider's own figure, ``"price"`` for usage times a price."""
    as_of: date | None = None
    """Date of the price, if it has one; see `TokenPrice`."""
