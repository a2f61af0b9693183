"""Usage x price -> cost. Pure; money is `decimal.Decimal` in USD, and nothing is ever rounded.

All arithmetic has a context of its own, so that a program's own decimal context (its
precision, its traps) changes no amount.
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
    # Python's own recipe for exact arithmetic (FAQ of the decimal module): as many digits as
    # the operands need. Sums, products and shifts only, so that they are always finitely many.
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
    """How much a cost can be trusted."""

    RESOLVED = "resolved"
    """The provider's own figure, or a price times final usage with nothing left over."""
    LOWER_BOUND = "lower_bound"
    """At least this: the usage was still running when the stream stopped, or it shows a charge
    that the price does not cover (web searches), or leaves open which of two rates applies."""
    UNPRICED = "unpriced"
    """The usage is known, its price is not."""
    UNKNOWN = "unknown"
    """Not even the usage is known. Not zero."""

    def __str__(self) -> str:
        return self.value


class _SpecialRates(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Rates that a price may lack, in USD per million tokens; see `TokenPrice`."""

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
    """Rates of a request with more than ``above`` input tokens, cached ones included.

    They hold for *all* tokens of that request, output too, not just for those beyond the mark.
    A rate that is missing here is the one of the tier below.
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
    """USD per million tokens; ``web_search`` alone is USD per single search (0.01: a cent each).

    A missing rate costs what the wider one does: ``cache_read``, ``cache_write``,
    ``audio_input`` and ``image_input`` the ``input`` rate; ``cache_write_1h`` (a cache entry
    that lives an hour) the ``cache_write`` rate (five minutes); ``audio_cache_read`` and
    ``image_cache_read`` the ``cache_read`` rate; ``audio_output`` and ``image_output`` the
    ``output`` rate. ``web_search`` has no wider one: searches without a rate make a cost a
    lower bound. Reasoning is output.

    ``tiers`` are the rates of longer requests, in rising order. ``as_of`` is the day on which the
    price is known to hold, and ``source`` says from whom.

    Raises ``TypeError`` for what is no number and ``ValueError`` for what is no price.
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
"""What a missing rate costs instead; a wider one stands before those that fall back on it."""

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
    """What something cost. ``amount`` is in USD; ``None`` unless resolved or a lower bound."""

    amount: Decimal | None = None
    resolution: CostResolution = CostResolution.UNKNOWN
    source: str | None = None
    """``"native"`` for the provider's own figure, ``"price"`` for a price times usage."""
    as_of: date | None = None
    """The price's date, if it has one; see `TokenPrice`."""


def exact(number: Decimal | float | int | str) -> Decimal:
    """A number from JSON or from a user as the decimal that was written."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def add(a: Decimal, b: Decimal) -> Decimal:
    """The exact sum of two amounts, whatever the caller's decimal context."""
    return _EXACT.add(a, b)


def sum_of(amounts: Iterable[Decimal]) -> Decimal:
    """The exact sum of any number of amounts; 0 for none."""
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def scaled(number: Decimal | int, power: int) -> Decimal:
    """``number`` times ten to ``power``, exactly."""
    return _EXACT.scaleb(Decimal(number), power)


def times(count: int, rate: Decimal) -> Decimal:
    """``count`` times ``rate``, exactly."""
    return _EXACT.multiply(Decimal(count), rate)


def native_cost(usage: Usage, amount: Decimal) -> CostInfo:
    """The provider's own figure for this usage."""
    resolution = CostResolution.RESOLVED if usage.final else CostResolution.LOWER_BOUND
    return CostInfo(amount, resolution, "native")


def priced_cost(usage: Usage | None, price: TokenPrice | None) -> CostInfo:
    """Usage times price. ``unpriced`` without a price, ``unknown`` without both counts."""
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
    """Every rate of a request with so many input tokens, in USD per million tokens."""
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
    """The least and the most that the usage can have cost, in USD.

    They differ only where sound or pictures came beside cached tokens: no wire says which of
    them were the cached ones.
    """
    rate = rates_at(price, usage.prompt_tokens or 0)
    plain, read = usage.uncached_input_tokens or 0, usage.cache_read_tokens or 0
    written, output = usage.cache_write_tokens or 0, usage.completion_tokens or 0
    hour = min(usage.cache_write_1h_tokens or 0, written)
    # Parts of the whole: they are charged the difference to it, and never beyond it.
    said = min(usage.audio_output_tokens or 0, output)
    drawn = min(usage.image_output_tokens or 0, output - said)
    least = sum_of(
        (
            times(plain, rate["input"]),
            times(read, rate["cache_read"]),
            times(written - hour, rate["cache_write"]),
            times(hour, rate["cache_write_1h"]),
            times(output - said - drawn, rate["output"]),
            times(said, rate["audio_output"]),
            times(drawn, rate["image_output"]),
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
    """What ``count`` tokens cost beyond the plain rate, put into the first places with room."""
    total = Decimal(0)
    for surcharge, room in places:
        here = min(count, room)
        total = add(total, times(here, surcharge))
        count -= here
    return total


MAX_AMOUNT, MAX_PLACES = Decimal(10) ** 12, 60
"""What an amount can be, in USD, and its decimals: within them any sum is exact."""


def payable(amount: Decimal | None) -> bool:
    """Whether it can be an amount of money: not NaN, negative or absurd, from whomever."""
    if amount is None:
        return True
    if not isinstance(amount, Decimal) or not amount.is_finite():
        return False
    places = amount.as_tuple().exponent
    return 0 <= amount <= MAX_AMOUNT and isinstance(places, int) and -places <= MAX_PLACES
