"""Exact arithmetic with amounts of money: `decimal.Decimal` in USD, never rounded.

All of it uses a decimal context of its own, so that the program's context (its precision, its
traps) changes no amount.
"""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from decimal import Decimal

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


def exact(number: Decimal | float | int | str) -> Decimal:
    """Return a number from JSON or from a user as the decimal that was written."""
    return number if isinstance(number, Decimal) else Decimal(str(number))


def add(a: Decimal, b: Decimal) -> Decimal:
    """Return the exact sum of two amounts, whatever the caller's decimal context."""
    return _EXACT.add(a, b)


def subtract(a: Decimal, b: Decimal) -> Decimal:
    """Return the exact difference of two amounts."""
    return _EXACT.subtract(a, b)


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
