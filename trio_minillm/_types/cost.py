"""Costs from usage and prices: amounts are `decimal.Decimal` in USD, and never rounded.

All arithmetic uses its own decimal context, so that the program's context (its precision, its
traps) changes no amount.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TypeAlias

import msgspec

from .usage import Usage

_EXACT = decimal.Context(
    # The recipe for exact arithmetic from the decimal module's FAQ: as many digits as the operands
    # need. There are sums, products and shifts only, so that number is always finite.
    prec=decimal.MAX_PREC,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=decimal.MIN_EMIN,
    Emax=decimal.MAX_EMAX,
    capitals=1,
    clamp=0,
    flags=[],
    traps=[decimal.Inexact, decimal.InvalidOperation],
)

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
    """Optional rates of a price, in USD per million tokens; see `TokenPrice`."""

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
    output: Rate | None = None

    def __post_init__(self) -> None:
        if isinstance(self.above, bool) or not isinstance(self.above, int):
            raise TypeError("above must be a number of tokens")
        if self.above < 0:
            raise ValueError("above must be a number of tokens, 0 or more")
        _check_rates(self, _RATES)


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

    Raises ``TypeError`` if a rate is not a number, ``ValueError`` if it is negative or not finite,
    or if the tiers are not in order.
    """

    input: Rate
    output: Rate
    web_search: Rate | None = None
    tiers: tuple[PriceTier, ...] = ()
    as_of: date | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            if getattr(self, name) is None:
                raise TypeError(f"{name} must be a price in USD")
        _check_rates(self, (*_RATES, "web_search"))
        if not all(isinstance(tier, PriceTier) for tier in self.tiers):
            raise TypeError("tiers must be PriceTier values")
        marks = [tier.above for tier in self.tiers]
        if marks != sorted(set(marks)):
            raise ValueError("tiers must stand in rising order of above")
        if self.as_of is not None and (
            not isinstance(self.as_of, date) or isinstance(self.as_of, datetime)
        ):
            raise TypeError("as_of must be a date")


_WIDER = {
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

_RATES = ("input", "output", *_WIDER)


def _check_rates(given: PriceTier | TokenPrice, names: Iterable[str]) -> None:
    for name in names:
        rate = getattr(given, name)
        if rate is None:
            continue
        if isinstance(rate, bool) or not isinstance(rate, Decimal | float | int):
            raise TypeError(f"{name} must be a price in USD, not a {type(rate).__name__}")
        number = exact(rate)
        if not number.is_finite() or number < 0:
            raise ValueError(f"{name} must be a price in USD, 0 or more")


class CostInfo(msgspec.Struct, frozen=True):
    """A cost, and the degree to which it can be trusted.

    ``amount`` is in USD, and ``None`` unless the cost is resolved or a lower bound.
    """

    amount: Decimal | None = None
    resolution: CostResolution = CostResolution.UNKNOWN
    source: str | None = None
    """``"native"`` for the provider's own figure, ``"price"`` for usage times a price."""
    as_of: date | None = None
    """Date of the price, if it has one; see `TokenPrice`."""


def exact(number: Decimal | float | int | str) -> Decimal:
    """Return a number from JSON or from a user as the decimal that was written."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def add(a: Decimal, b: Decimal) -> Decimal:
    """Return the exact sum of two amounts, whatever the caller's decimal context."""
    return _EXACT.add(a, b)


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """Return the exact sum of any number of amounts; 0 for none."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def scaled(number: Decimal | int, power: int) -> Decimal:
    """Return ``number`` times ten to the ``power``, exactly."""
    return _EXACT.scaleb(Decimal(number), power)


def times(count: int, rate: Decimal) -> Decimal:
    """Return ``count`` times ``rate``, exactly."""
    return _EXACT.multiply(Decimal(count), rate)


def native_cost(usage: Usage, amount: Decimal) -> CostInfo:
    """Return the provider's own figure for this usage: a lower bound unless the usage is final."""
    resolution = CostResolution.RESOLVED if usage.final else CostResolution.LOWER_BOUND
    return CostInfo(amount, resolution, "native")


def priced_cost(usage: Usage | None, price: TokenPrice | None) -> CostInfo:
    """Return usage times price: ``unpriced`` without a price, ``unknown`` unless both input and
    output are counted.
    """
    if usage is None or usage.total_tokens is None:
        return CostInfo()
    if price is None:
        return CostInfo(None, CostResolution.UNPRICED)
    if usage.uncached_input_tokens is None or usage.completion_tokens is None:
        return CostInfo()
    least, most = _range(usage, price)
    covered = least == most and (price.web_search is not None or not usage.web_searches)
    sure = usage.final and covered
    resolution = CostResolution.RESOLVED if sure else CostResolution.LOWER_BOUND
    return CostInfo(least, resolution, "price", price.as_of)


def rates_at(price: TokenPrice, prompt_tokens: int) -> dict[str, Decimal]:
    """Return every rate of a request with so many input tokens, in USD per million tokens."""
    given = {name: getattr(price, name) for name in _RATES}
    for tier in price.tiers:
        if prompt_tokens > tier.above:
            found = {name: getattr(tier, name) for name in _RATES}
            given |= {name: rate for name, rate in found.items() if rate is not None}
    for name, wider in _WIDER.items():
        if given[name] is None:
            given[name] = given[wider]
    return {name: exact(rate) for name, rate in given.items()}


def _range(usage: Usage, price: TokenPrice) -> tuple[Decimal, Decimal]:
    """Return the least and the most that the usage can have cost, in USD.

    They differ only where audio or images were sent along with cached tokens: no provider says
    which tokens were the cached ones.
    """
    rate = rates_at(price, usage.prompt_tokens or 0)
    plain, read = usage.uncached_input_tokens or 0, usage.cache_read_tokens or 0
    written, output = usage.cache_write_tokens or 0, usage.completion_tokens or 0
    hour = min(usage.cache_write_1h_tokens or 0, written)
    # Audio and image tokens are part of the output, so they can't be more than it has.
    audio = min(usage.audio_output_tokens or 0, output)
    image = min(usage.image_output_tokens or 0, output - audio)
    least = sum_of(
        (
            times(plain, rate["input"]),
            times(read, rate["cache_read"]),
            times(written - hour, rate["cache_write"]),
            times(hour, rate["cache_write_1h"]),
            times(output - audio - image, rate["output"]),
            times(audio, rate["audio_output"]),
            times(image, rate["image_output"]),
        )
    )
    most = least
    for kind, count in (("audio", usage.audio_input_tokens), ("image", usage.image_input_tokens)):
        places = [
            (_EXACT.subtract(rate[f"{kind}_input"], rate["input"]), plain),
            (_EXACT.subtract(rate[f"{kind}_cache_read"], rate["cache_read"]), read),
            (Decimal(0), written),
        ]
        least = add(least, _placed(count or 0, sorted(places)))
        most = add(most, _placed(count or 0, sorted(places, reverse=True)))
    searches = times(usage.web_searches or 0, exact(price.web_search or 0))
    return add(scaled(least, -6), searches), add(scaled(most, -6), searches)


def _placed(count: int, places: list[tuple[Decimal, int]]) -> Decimal:
    """Return the surcharge of ``count`` tokens that fill the places in the order given.

    A place is a surcharge per token, in USD per million, and the number of tokens with that rate.
    """
    total = Decimal(0)
    for surcharge, room in places:
        here = min(count, room)
        total = add(total, times(here, surcharge))
        count -= here
    return total


MAX_AMOUNT, MAX_PLACES = Decimal(10) ** 12, 60
"""Largest amount, in USD, and most decimal places of one; within them any sum is exact."""


def payable(amount: Decimal | None) -> bool:
    """Return whether it can be an amount of money: ``None``, or a number that is not NaN, negative,
    or beyond `MAX_AMOUNT` and `MAX_PLACES`.
    """
    if amount is None:
        return True
    if not isinstance(amount, Decimal) or not amount.is_finite():
        return False
    places = amount.as_tuple().exponent
    return 0 <= amount <= MAX_AMOUNT and isinstance(places, int) and -places <= MAX_PLACES
