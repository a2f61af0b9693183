"""Usage times price: exact in decimals, and never a fake zero."""

from __future__ import annotations

import decimal
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import CostInfo, CostResolution, TokenPrice, Usage
from trio_minillm._types.cost import PriceTier
from trio_minillm._types.money import add, exact, scaled, sum_of, times
from trio_minillm.providers import Anthropic, Compatible, OpenAIChat, OpenRouter
from trio_minillm.providers._pricing import native_cost, priced_cost, rates_at

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


@pytest.mark.parametrize("bad", [-1, float("nan"), float("inf"), Decimal("NaN"), Decimal("-1E-9")])
@pytest.mark.parametrize(
    "field", ["input", "output", "cache_write_1h", "image_output", "web_search"]
)
def test_a_price_is_a_price(field: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=f"{field} must be a price"):
        llm.TokenPrice(**{"input": 1, "output": 1, field: bad})
    if field != "web_search":
        with pytest.raises(ValueError, match=f"{field} must be a price"):
            PriceTier(above=1, **{field: bad})


@pytest.mark.parametrize(
    "fields",
    [
        {"input": True},
        {"input": "1"},
        {"input": None},
        {"output": None},
        {"cache_read": False},
        {"tiers": ("above",)},
        {"as_of": "2026-01-01"},
        {"as_of": datetime(2026, 1, 1)},
    ],
)
def test_what_is_no_price_at_all(fields: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        llm.TokenPrice(**{"input": 1, "output": 1, **fields})


@pytest.mark.parametrize(
    ("above", "error"), [(-1, ValueError), (True, TypeError), ("1", TypeError)]
)
def test_a_tier_begins_above_a_number(above: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="above must be"):
        PriceTier(above=above)


@pytest.mark.parametrize("marks", [(2, 1), (1, 1)])
def test_tiers_rise(marks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        TokenPrice(input=1, output=1, tiers=tuple(PriceTier(above=m) for m in marks))


# -- special rates ---------------------------------------------------------------------------

RICH = TokenPrice(
    input=1,
    output=2,
    cache_read=4,
    cache_write=8,
    cache_write_1h=16,
    audio_input=32,
    audio_cache_read=64,
    audio_output=128,
    image_input=256,
    image_cache_read=512,
    image_output=1024,
    web_search=Decimal("0.01"),
)


@pytest.mark.parametrize(
    ("counts", "millionths"),
    [
        ({"cache_write_tokens": 10, "cache_write_1h_tokens": 4}, 6 * 8 + 4 * 16),
        ({"cache_write_tokens": 10, "cache_write_1h_tokens": 40}, 160),  # never beyond the whole
        ({"uncached_input_tokens": 10, "audio_input_tokens": 4}, 6 + 4 * 32),
        ({"uncached_input_tokens": 10, "image_input_tokens": 10}, 2560),
        ({"uncached_input_tokens": 10, "audio_input_tokens": 40}, 320),
        ({"cache_read_tokens": 10, "audio_input_tokens": 10}, 640),
        ({"cache_read_tokens": 10, "image_input_tokens": 10}, 5120),
        ({"cache_write_tokens": 10, "image_input_tokens": 10}, 80),
        ({"completion_tokens": 10, "audio_output_tokens": 4}, 6 * 2 + 4 * 128),
        ({"completion_tokens": 10, "image_output_tokens": 10}, 10240),
        ({"completion_tokens": 10, "audio_output_tokens": 8, "image_output_tokens": 8}, 3072),
        ({"web_searches": 3}, 30_000),
    ],
)
def test_what_is_special_has_its_own_rate(counts: dict[str, int], millionths: int) -> None:
    spent = usage(**{"uncached_input_tokens": 0, "completion_tokens": 0, **counts})
    assert priced_cost(spent, RICH) == CostInfo(
        scaled(millionths, -6), CostResolution.RESOLVED, "price"
    )


def test_a_missing_rate_is_the_wider_one() -> None:
    plain = rates_at(TokenPrice(input=3, output=5), 0)
    assert {plain[n] for n in plain if not n.endswith("output")} == {3}
    assert {plain[n] for n in plain if n.endswith("output")} == {5}
    cached = rates_at(TokenPrice(input=3, output=5, cache_read=1, cache_write=4), 0)
    assert (cached["audio_cache_read"], cached["image_cache_read"]) == (1, 1)
    assert (cached["cache_write_1h"], cached["audio_input"]) == (4, 3)


def test_sound_beside_cached_tokens_leaves_two_costs() -> None:
    """No provider says whether the audio tokens were the cached ones: the cost is a lower bound."""
    spent = usage(
        uncached_input_tokens=10, cache_read_tokens=10, audio_input_tokens=5, completion_tokens=0
    )
    dear_sound = TokenPrice(input=1, output=1, cache_read=1, audio_input=9, audio_cache_read=2)
    cost = priced_cost(spent, dear_sound)
    assert cost == CostInfo(scaled(20 + 5, -6), CostResolution.LOWER_BOUND, "price")
    cheap_sound = msgspec.structs.replace(dear_sound, audio_input=0)
    assert priced_cost(spent, cheap_sound).amount == scaled(20 - 5, -6)
    alike = msgspec.structs.replace(dear_sound, audio_input=2)
    assert priced_cost(spent, alike).resolution is CostResolution.RESOLVED


@pytest.mark.parametrize(
    ("rate", "searches", "resolution", "amount"),
    [
        (None, None, "resolved", "0"),
        (None, 0, "resolved", "0"),
        (None, 2, "lower_bound", "0"),
        (0, 2, "resolved", "0"),
        (0.01, 2, "resolved", "0.02"),
    ],
)
def test_a_charge_that_the_price_does_not_cover(
    rate: float | None, searches: int | None, resolution: str, amount: str
) -> None:
    spent = usage(uncached_input_tokens=0, completion_tokens=0, web_searches=searches)
    cost = priced_cost(spent, TokenPrice(input=1, output=1, web_search=rate))
    assert (str(cost.resolution), cost.amount) == (resolution, Decimal(amount))


# -- tiers -----------------------------------------------------------------------------------

LONG = TokenPrice(
    input=1,
    output=10,
    cache_read=Decimal("0.1"),
    tiers=(
        PriceTier(above=100, input=2, output=20),
        PriceTier(above=200, input=4, cache_read=3),
    ),
)


@pytest.mark.parametrize(
    ("plain", "read", "millionths"),
    [
        (100, 0, 100 + 10),
        (101, 0, 202 + 20),  # all of them, and the output
        (100, 1, 200 + Decimal("0.1") + 20),  # cached input counts; its rate is the one below
        (200, 0, 400 + 20),
        (200, 1, 800 + 3 + 20),  # the output's rate is the one of the tier below
    ],
)
def test_a_tier_holds_for_the_whole_request(plain: int, read: int, millionths: Any) -> None:
    spent = usage(uncached_input_tokens=plain, cache_read_tokens=read, completion_tokens=1)
    assert priced_cost(spent, LONG).amount == scaled(exact(millionths), -6)


# -- exactness, whatever the program's own context ------------------------------------------


def test_a_decimal_context_of_the_programs_own_changes_nothing() -> None:
    spent = usage(
        uncached_input_tokens=123_456_789,
        cache_read_tokens=987_654_321,
        completion_tokens=55_555_555,
        web_searches=3,
    )
    price = TokenPrice(input=1.2345678, output=Decimal("9.87654321"), cache_read=1e-7, web_search=1)
    tick = usage(raw={"cost_in_usd_ticks": 12_345_678_901})
    byok = usage(
        cost=0.123456789, raw={"is_byok": True, "cost_details": {"upstream_inference_cost": 1e-9}}
    )
    every = [
        lambda: priced_cost(spent, price).amount,
        lambda: Compatible("xai").cost_of(tick, None).amount,
        lambda: OpenRouter().cost_of(byok, None).amount,
        lambda: sum_of([Decimal("1.00001"), Decimal("1E-30"), Decimal(10**20)]),
    ]
    wanted = [one() for one in every]
    assert wanted[1:3] == [Decimal("1.2345678901"), Decimal("0.123456790")]
    with decimal.localcontext() as mine:
        mine.prec = 3
        for signal in mine.traps:
            mine.traps[signal] = True
        got = [one() for one in every]
        assert TokenPrice(input=Decimal(1), output=0.5).input == 1
        with pytest.raises(ValueError, match="must be a price"):
            TokenPrice(input=Decimal("sNaN"), output=1)
    assert got == wanted


amounts = st.decimals(-(10**12), 10**12, allow_nan=False, allow_infinity=False)


@given(st.lists(amounts), amounts)
def test_sums_are_exact(several: list[Decimal], one: Decimal) -> None:
    assert Fraction(sum_of(several)) == sum(map(Fraction, several))
    assert Fraction(add(sum_of(several), one)) == Fraction(sum_of(several)) + Fraction(one)
    assert Fraction(times(7, one)) == 7 * Fraction(one)


@given(st.permutations([Decimal("1E-300"), Decimal("1E+300"), Decimal("-1E+300"), Decimal(1)]))
def test_the_order_of_a_sum_does_not_matter(several: list[Decimal]) -> None:
    assert sum_of(several) == add(Decimal(1), Decimal("1E-300"))


# -- as a record -----------------------------------------------------------------------------


@given(
    st.builds(
        CostInfo,
        st.none() | st.decimals(0, allow_nan=False, allow_infinity=False),
        st.sampled_from(CostResolution),
        st.sampled_from([None, "native", "price"]),
        st.none() | st.dates(),
    )
)
def test_a_cost_survives_json(cost: CostInfo) -> None:
    again = msgspec.json.decode(msgspec.json.encode(cost), type=CostInfo)
    assert again == cost
    assert str(again.amount) == str(cost.amount)


def test_a_price_survives_json() -> None:
    for price in (RICH, LONG, msgspec.structs.replace(HAIKU, as_of=date(2026, 1, 2), source="me")):
        assert msgspec.json.decode(msgspec.json.encode(price), type=TokenPrice) == price


def test_an_amount_is_written_as_text() -> None:
    cost = CostInfo(Decimal("0.10"), CostResolution.RESOLVED, "price", date(2026, 1, 2))
    assert msgspec.to_builtins(cost) == {
        "amount": "0.10",
        "resolution": "resolved",
        "source": "price",
        "as_of": "2026-01-02",
    }


def test_a_cost_has_its_prices_date() -> None:
    dated = msgspec.structs.replace(HAIKU, as_of=date(2026, 1, 2))
    spent = usage(uncached_input_tokens=1, completion_tokens=1)
    assert priced_cost(spent, dated).as_of == date(2026, 1, 2)
    assert priced_cost(None, dated).as_of is None


# -- from the wire ---------------------------------------------------------------------------


def test_parts_of_buckets_from_anthropic() -> None:
    from trio_minillm.providers._usage import anthropic_usage

    got = anthropic_usage(
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 9,
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 5},
            "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 7},
            "output_tokens": 1,
        }
    )
    assert (got.cache_write_1h_tokens, got.web_searches) == (5, 2)
    empty = anthropic_usage({"cache_creation": None, "server_tool_use": "?"})
    assert (empty.cache_write_1h_tokens, empty.web_searches) == (None, None)


def test_parts_of_buckets_from_the_openai_family() -> None:
    got = OpenRouter().usage_of(
        {
            "prompt_tokens": 10,
            "completion_tokens": 20,
            "prompt_tokens_details": {"audio_tokens": 1, "image_tokens": 2},
            "completion_tokens_details": {"audio_tokens": 3, "image_tokens": 0},
            "server_tool_use_details": {"web_search_requests": 4},
        }
    )
    assert (got.audio_input_tokens, got.image_input_tokens) == (1, 2)
    assert (got.audio_output_tokens, got.image_output_tokens) == (3, 0)
    assert got.web_searches == 4
    bare = OpenRouter().usage_of(
        {"prompt_tokens": 1, "server_tool_use": {"web_search_requests": 0}}
    )
    assert (bare.audio_input_tokens, bare.image_output_tokens, bare.web_searches) == (None, None, 0)


def test_a_later_part_replaces_the_earlier_one() -> None:
    first = Usage(web_searches=1, audio_input_tokens=5)
    first.merge_from(Usage(web_searches=2, cache_write_1h_tokens=7))
    assert (first.web_searches, first.audio_input_tokens, first.cache_write_1h_tokens) == (2, 5, 7)


def test_what_a_container_costs_is_not_in_the_price() -> None:
    raw = {"server_tool_use": {"code_execution_requests": 1}}
    spent = usage(uncached_input_tokens=1, completion_tokens=1, raw=raw)
    assert str(Anthropic().cost_of(spent, HAIKU).resolution) == "lower_bound"


@pytest.mark.parametrize("provider", [Compatible(), OpenAIChat()])
def test_a_cost_of_nothing_gives_way_to_a_price_of_ones_own(provider: OpenAIChat) -> None:
    spent = usage(uncached_input_tokens=10**6, completion_tokens=10**6, cost=0)
    price = TokenPrice(input=1, output=2)
    assert (provider.cost_of(spent, price).amount, provider.cost_of(spent, None).amount) == (3, 0)
    assert OpenRouter().cost_of(spent, price).amount == 0  # it charges what it names


@pytest.mark.parametrize(
    ("iterations", "resolution"),
    [
        (None, "resolved"),
        ([], "resolved"),
        ("?", "resolved"),
        ([{"type": "message"}, {}], "resolved"),
        ([{"type": "message"}, {"type": "advisor_message"}], "lower_bound"),
        (["?"], "lower_bound"),
    ],
)
def test_a_second_model_inside_the_answer_is_not_in_the_price(
    iterations: Any, resolution: str
) -> None:
    spent = usage(
        uncached_input_tokens=1, completion_tokens=1, raw={"iterations": iterations, "x": 1}
    )
    assert str(Anthropic().cost_of(spent, HAIKU).resolution) == resolution
    assert str(Anthropic().cost_of(spent, None).resolution) == "unpriced"
    assert str(Anthropic().cost_of(None, HAIKU).resolution) == "unknown"
