"""Usage times price: exact in decimals, and never a fake zero."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import CostInfo, CostResolution, TokenPrice, Usage
from trio_minillm._cost import exact, native_cost, priced_cost

HAIKU = TokenPrice(
    input=Decimal(1), output=Decimal(5), cache_read=Decimal("0.1"), cache_write=Decimal("1.25")
)


def usage(**fields: Any) -> Usage:
    return Usage(**{"final": True, **fields})


@pytest.mark.parametrize(
    ("counts", "dollars"),
    [
        ({"uncached_input_tokens": 1_000_000, "completion_tokens": 0}, "1"),
        ({"uncached_input_tokens": 0, "completion_tokens": 1_000_000}, "5"),
        ({"cache_read_tokens": 1_000_000, "completion_tokens": 0}, "0.1"),
        ({"cache_write_tokens": 1_000_000, "completion_tokens": 0}, "1.25"),
        ({"uncached_input_tokens": 1, "completion_tokens": 1}, "0.000006"),
        # The reasoning is inside the output and costs nothing beside it.
        (
            {"uncached_input_tokens": 0, "completion_tokens": 100, "reasoning_tokens": 90},
            "0.0005",
        ),
        (
            {
                "uncached_input_tokens": 7,
                "cache_read_tokens": 11,
                "cache_write_tokens": 13,
                "completion_tokens": 17,
            },
            "0.00010935",
        ),
    ],
)
def test_each_bucket_has_its_price(counts: dict[str, int], dollars: str) -> None:
    counts = {"uncached_input_tokens": 0, **counts}
    assert priced_cost(usage(**counts), HAIKU) == CostInfo(
        Decimal(dollars), CostResolution.RESOLVED, "price"
    )


def test_a_missing_cache_price_is_the_input_price() -> None:
    price = TokenPrice(input=2, output=3)
    spent = usage(
        uncached_input_tokens=1,
        cache_read_tokens=10,
        cache_write_tokens=100,
        completion_tokens=1000,
    )
    assert priced_cost(spent, price).amount == Decimal("0.003222")


def test_a_cache_price_of_zero_is_zero() -> None:
    price = TokenPrice(input=2, output=3, cache_read=0, cache_write=0)
    spent = usage(uncached_input_tokens=0, cache_read_tokens=9, completion_tokens=0)
    assert priced_cost(spent, price).amount == 0


@pytest.mark.parametrize(
    ("spent", "price", "resolution", "has_amount"),
    [
        (None, HAIKU, "unknown", False),
        (None, None, "unknown", False),
        (usage(), HAIKU, "unknown", False),
        (usage(uncached_input_tokens=5), HAIKU, "unknown", False),
        (usage(completion_tokens=5), HAIKU, "unknown", False),
        (usage(uncached_input_tokens=5), None, "unpriced", False),
        (usage(uncached_input_tokens=5, completion_tokens=5), None, "unpriced", False),
        (usage(uncached_input_tokens=5, completion_tokens=5), HAIKU, "resolved", True),
        (
            usage(uncached_input_tokens=5, completion_tokens=5, final=False),
            HAIKU,
            "lower_bound",
            True,
        ),
        (usage(uncached_input_tokens=0, completion_tokens=0), HAIKU, "resolved", True),
    ],
)
def test_how_much_a_cost_can_be_trusted(
    spent: Usage | None, price: TokenPrice | None, resolution: str, has_amount: bool
) -> None:
    cost = priced_cost(spent, price)
    assert str(cost.resolution) == resolution
    assert (cost.amount is not None) is has_amount
    assert (cost.source == "price") is has_amount


@pytest.mark.parametrize(
    ("final", "resolution"),
    [(True, CostResolution.RESOLVED), (False, CostResolution.LOWER_BOUND)],
)
def test_the_providers_own_figure(final: bool, resolution: CostResolution) -> None:
    cost = native_cost(Usage(final=final), Decimal("0.1"))
    assert cost == CostInfo(Decimal("0.1"), resolution, "native")


def test_nothing_is_known_by_default() -> None:
    assert CostInfo() == CostInfo(None, CostResolution.UNKNOWN, None)
    assert llm.CompletionResponse().cost.amount is None


@pytest.mark.parametrize(
    ("number", "decimal"),
    [
        (0.1, "0.1"),
        (1e-7, "0.0000001"),
        (0.00012345, "0.00012345"),
        (3, "3"),
        ("0.10", "0.10"),
        (Decimal("1.5"), "1.5"),
    ],
)
def test_a_number_is_the_decimal_that_was_written(number: Any, decimal: str) -> None:
    assert exact(number) == Decimal(decimal)


def test_a_million_tiny_costs_add_up_exactly() -> None:
    one = priced_cost(
        usage(uncached_input_tokens=1, completion_tokens=0), TokenPrice(input=0.1, output=0.1)
    ).amount
    assert one == Decimal("0.0000001")
    total = Decimal(0)
    for _ in range(1_000_000):
        total += one
    assert total == Decimal("0.1")
    assert sum([float(one)] * 1_000_000) != 0.1  # which is why they are no floats


rates = st.decimals(0, 1000, places=6)
counts = st.integers(0, 10**9)


@given(counts, counts, counts, counts, rates, rates, rates, rates)
def test_the_sum_is_exact(
    a: int, b: int, c: int, d: int, i: Decimal, r: Decimal, w: Decimal, o: Decimal
) -> None:
    spent = usage(
        uncached_input_tokens=a, cache_read_tokens=b, cache_write_tokens=c, completion_tokens=d
    )
    amount = priced_cost(spent, TokenPrice(input=i, output=o, cache_read=r, cache_write=w)).amount
    assert amount is not None
    whole = a * Fraction(i) + b * Fraction(r) + c * Fraction(w) + d * Fraction(o)
    assert Fraction(amount) == whole / 1_000_000


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf")])
def test_a_price_is_a_price(bad):
    with pytest.raises(ValueError, match="must be a price"):
        llm.TokenPrice(input=1, output=bad)
