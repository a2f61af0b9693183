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
    """The reliability of a cost."""

    RESOLVED = "resolved"
    """The provider's own figure, or final usage times a price that covers all of it."""
    LOWER_BOUND = "lower_bound"
    """At least this much. The usage is provisional, includes a charge that the price does not cover
    (web searches), or does not say which of two rates applies."""
    UNPRICED = "unpriced"
    """The usage is known, but there is no price."""
    UNKNOWN = "unknown"
    """The usage is not known. This never means zero."""

    def __str__(self) -> str:
        return self.value


class _SpecialRates(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Optional rates of a price, in USD per million tokens; see `TokenPrice`."""

    cache_read: Rate | None = None
    """Rate of input that is read from a cache; ``input`` if ``None``."""
    cache_write: Rate | None = None
    """Rate of input that is written to a cache for five minutes; ``input`` if ``None``."""
    cache_write_1h: Rate | None = None
    """Rate of input that is written to a cache for an hour; ``cache_write`` if ``None``."""
    audio_input: Rate | None = None
    """Rate of audio input; ``input`` if ``None``."""
    audio_cache_read: Rate | None = None
    """Rate of audio input that is read from a cache; ``cache_read`` if ``None``."""
    audio_output: Rate | None = None
    """Rate of audio output; ``output`` if ``None``."""
    image_input: Rate | None = None
    """Rate of image input; ``input`` if ``None``."""
    image_cache_read: Rate | None = None
    """Rate of image input that is read from a cache; ``cache_read`` if ``None``."""
    image_output: Rate | None = None
    """Rate of image output; ``output`` if ``None``."""


class PriceTier(_SpecialRates, frozen=True, kw_only=True):
    """The rates of a request with more than ``above`` input tokens, in USD per million tokens.

    The rates apply to *all* tokens of the request, including output, and not only to those above
    the threshold. A missing rate is taken from the tier below.
    """

    above: int
    """The number of input tokens, including cached ones, above which the rates apply."""
    input: Rate | None = None
    """Rate of uncached input."""
    output: Rate | None = None
    """Rate of output, including reasoning."""

    def __post_init__(self) -> None:
        if isinstance(self.above, bool) or not isinstance(self.above, int):
            raise TypeError("above must be a number of tokens")
        if self.above < 0:
            raise ValueError("above must be a number of tokens, 0 or more")
        _check_rates(self, RATES)


class TokenPrice(_SpecialRates, frozen=True, kw_only=True):
    """The price of a model, in USD per million tokens.

    A missing rate falls back to a wider one, as its description says.

    Raises ``TypeError`` if a rate is not a number. Raises ``ValueError`` if a rate is negative or
    not finite, if the tiers are not in order, or if two prices have the same service tier.
    """

    input: Rate
    """Rate of uncached input."""
    output: Rate
    """Rate of output, including reasoning."""
    web_search: Rate | None = None
    """Price in USD per search: 0.01 is one cent each. Without it, searches make the cost a lower
    bound."""
    tiers: tuple[PriceTier, ...] = ()
    """The rates of longer requests, in rising order."""
    as_of: date | None = None
    """A day on which the price is known to have been valid."""
    source: str | None = None
    """The origin of the price."""
    service_tier: str | None = None
    """The service tier of this price, as in `Usage.service_tier`. ``None`` is the standard tier."""
    variants: tuple[TokenPrice, ...] = ()
    """The prices of the same model at other tiers. An answer that names its tier is priced at that
    tier. If there is no price for it, its cost is not resolved."""

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a price in USD")
        _check_rates(self, (*RATES, "web_search"))
        if not all(isinstance(tier, PriceTier) for tier in self.tiers):
            raise TypeError("tiers must be PriceTier values")
        marks = [tier.above for tier in self.tiers]
        if marks != sorted(set(marks)):
            raise ValueError("tiers must be in rising order of above")
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
    """A cost, and how reliable it is."""

    amount: Decimal | None = None
    """The cost in USD. It is ``None`` unless the cost is resolved or a lower bound."""
    resolution: CostResolution = CostResolution.UNKNOWN
    """The reliability of the amount."""
    source: str | None = None
    """``"native"`` if the provider reported the cost, ``"price"`` if it is usage times a price."""
    as_of: date | None = None
    """The date of the price, if it has one; see `TokenPrice`."""
