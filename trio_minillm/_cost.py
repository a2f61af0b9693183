"""Usage x price -> cost. Pure; money is `decimal.Decimal` in USD, so sums are exact."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from ._chunks import Usage

MILLION = Decimal(1_000_000)


class CostResolution(str, Enum):
    """How much a cost can be trusted."""

    RESOLVED = "resolved"
    """The provider's own figure, or a price times final usage."""
    LOWER_BOUND = "lower_bound"
    """From usage that was still running when the stream stopped."""
    UNPRICED = "unpriced"
    """The usage is known, its price is not."""
    UNKNOWN = "unknown"
    """Not even the usage is known. Not zero."""

    def __str__(self) -> str:
        return self.value


class TokenPrice(msgspec.Struct, frozen=True, kw_only=True):
    """USD per million tokens. A missing cache price means that it costs the input price."""

    input: Decimal | float | int
    output: Decimal | float | int
    cache_read: Decimal | float | int | None = None
    cache_write: Decimal | float | int | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < float("inf"):
                raise ValueError(f"{name} must be a price in USD, 0 or more")


class CostInfo(msgspec.Struct, frozen=True):
    """What something cost. ``amount`` is in USD; ``None`` unless resolved or a lower bound."""

    amount: Decimal | None = None
    resolution: CostResolution = CostResolution.UNKNOWN
    source: str | None = None
    """``"native"`` for the provider's own figure, ``"price"`` for a price times usage."""


def exact(number: Decimal | float | int | str) -> Decimal:
    """A number from JSON or from a user as the decimal that was written."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


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
    dear = price.input
    parts = (
        (usage.uncached_input_tokens, price.input),
        (usage.cache_read_tokens, dear if price.cache_read is None else price.cache_read),
        (usage.cache_write_tokens, dear if price.cache_write is None else price.cache_write),
        (usage.completion_tokens, price.output),
    )
    amount = sum((Decimal(n or 0) * exact(rate) for n, rate in parts), Decimal(0)) / MILLION
    resolution = CostResolution.RESOLVED if usage.final else CostResolution.LOWER_BOUND
    return CostInfo(amount, resolution, "price")
