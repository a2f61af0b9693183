"""The cost of a usage: the provider's own figure, or usage times the price of the tier it ran at.

A cost can be wrong by any of its parts:

========================================  =========================================================
part                                      decided in
========================================  =========================================================
own figure, or usage times price          here, and `Provider.cost_of` of each wire
the counts                                ``_usage.py``, by the names of ``_usage_names.py``
the tier, speed and region it ran at,     ``_charged.py``
and how many choices were counted
the price of a model                      the model's ``price=``, which callers may look up in
                                          ``_accounting/known_prices.py``
rates and discounts applied to counts     here
doubt in a count or a tier                here: a bound, or no figure (`CostResolution`)
what is booked for an attempt             ``_accounting/record.py``
the provider's later figure               ``_accounting/settlement.py``
========================================  =========================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Final

from .._types.cost import RATES, WIDER, CostInfo, CostResolution, TokenPrice
from .._types.money import add, exact, scaled, subtract, sum_of, times
from .._types.usage import Usage, number_in
from ._usage import amount_in, at_path

STANDARD: Final = "standard"
"""The service tier of a request that asks for none, and of a price that names none."""
DEARER: Final = frozenset({"priority", "fast", "ultrafast", "us"})
"""Tiers, speeds and regions that cost more than the standard. OpenAI's pages "Fast mode" and
"Ultrafast mode"; Anthropic's "Fast mode" (2 to 6 times as much) and "Data residency" (1.1 times)."""
CHEAPER: Final = frozenset({"flex", "batch"})
"""Those that cost less, or as much as the standard (Groq's flex). OpenAI's page "Flex processing"."""

_BUCKETS: Final = frozenset(
    {"uncached_input_tokens", "cache_read_tokens", "cache_write_tokens", "completion_tokens"}
)
_CONFUSED: Final[Mapping[str, tuple[tuple[str, ...], ...]]] = {
    **dict.fromkeys(
        _BUCKETS - {"completion_tokens"},
        (("input", "cache_read", "cache_write", "cache_write_1h"),),
    ),
    "cache_write_1h_tokens": (("cache_write", "cache_write_1h"),),
    "audio_input_tokens": (("input", "audio_input"), ("cache_read", "audio_cache_read")),
    "image_input_tokens": (("input", "image_input"), ("cache_read", "image_cache_read")),
    "audio_output_tokens": (("output", "audio_output"),),
    "image_output_tokens": (("output", "image_output"),),
}
"""The rates of which it is not known which one applies to a token, if a count is in doubt."""


def native_cost(usage: Usage, amount: Decimal) -> CostInfo:
    """Return the provider's own figure for this usage: a lower bound unless the usage is final."""
    resolution = CostResolution.RESOLVED if usage.final else CostResolution.LOWER_BOUND
    return CostInfo(amount, resolution, "native")


def stated_or_priced(
    usage: Usage | None, price: TokenPrice | None, *, bills: bool = False
) -> CostInfo:
    """Return the charge that a usage names, or else usage times price.

    With ``is_byok``, the user's own key was used at the upstream provider: a gateway's ``cost`` is only
    its fee, and the upstream's charge is added. Without it, the upstream's figure repeats ``cost`` and
    must not be added (OpenRouter's reference). ``bills`` is true for a server that charges what it
    names, so that 0 is free; any other that says 0 may not know the price. xAI names its charge in
    ticks.
    """
    if usage is None:
        return priced_cost(usage, price)
    if usage.cost is None:
        told = usage.raw.get(_TICKS) if usage.raw else None
        ticks = None if told is None else number_in(told)
        return native_cost(usage, _of_ticks(ticks)) if ticks else priced_cost(usage, price)
    amount, raw = exact(usage.cost), usage.raw or {}
    own_key = raw.get("is_byok") is True
    upstream = amount_in(at_path(raw, _UPSTREAM)) if own_key else None
    if not (usage.cost or upstream) and price is not None and not bills:
        return priced_cost(usage, price)
    if upstream is not None:
        return native_cost(usage, add(amount, exact(upstream)))
    if own_key:  # the fee is not the whole cost
        return CostInfo(amount, CostResolution.LOWER_BOUND, "native")
    return native_cost(usage, amount)


_UPSTREAM: Final = ("cost_details", "upstream_inference_cost")
_TICKS: Final = "cost_in_usd_ticks"


def _of_ticks(ticks: float) -> Decimal:
    """Return xAI's ticks in USD. Not documented: with 1e-10, recorded streams come to xAI's list prices."""
    return scaled(int(ticks), -10)


def priced_cost(usage: Usage | None, price: TokenPrice | None) -> CostInfo:
    """Return usage times the price of the tier that it ran at.

    ``unknown`` unless both input and output are counted; ``unpriced`` without a price, and for a
    tier whose price is not known. Where that is known to cost more than the standard tier, the
    standard price is a lower bound.
    """
    if usage is None or (usage.completion_tokens is None and usage.prompt_tokens is None):
        return CostInfo()
    if price is None:
        return _UNPRICED
    if usage.uncached_input_tokens is None or usage.completion_tokens is None:
        return CostInfo()
    if not usage.total_tokens and "uncached_input_tokens" in (usage.doubts or {}):
        return CostInfo()  # zeros in place of counts
    prices = _applicable(usage, price)
    if not prices:
        return _UNPRICED
    known = [one for one in prices if one is not None]
    ranges = [_range(usage, one) for one in known]
    least, most = min(low for low, _ in ranges), max(high for _, high in ranges)
    covered = least == most and (price.web_search is not None or not usage.web_searches)
    sure = usage.final and covered and known == prices and not _too_few(usage, known)
    resolution = CostResolution.RESOLVED if sure else CostResolution.LOWER_BOUND
    return CostInfo(least, resolution, "price", price.as_of)


_UNPRICED: Final = CostInfo(None, CostResolution.UNPRICED)


def _too_few(usage: Usage, prices: Iterable[TokenPrice]) -> bool:
    """Return True if there may be more tokens than are counted, or charges that have no rate."""
    doubts = (usage.doubts or {}).keys()
    if doubts.isdisjoint(_BUCKETS):
        return "web_searches" in doubts
    return "web_searches" in doubts or any(any(rates_at(p, 0).values()) for p in prices)


def price_at(price: TokenPrice, tier: str) -> TokenPrice | None:
    """Return the price of a service tier; ``None`` if it is not known."""
    if tier == (price.service_tier or STANDARD):
        return price
    return next((one for one in price.variants if one.service_tier == tier), None)


def is_dearer(tier: str) -> bool:
    """Return True if a tier is known to cost no less than the standard one."""
    return all(word in DEARER for word in tier.split("+"))


def is_cheaper(tier: str) -> bool:
    """Return True if a tier is known to cost no more than the standard one."""
    return all(word in CHEAPER for word in tier.split("+"))


def _applicable(usage: Usage, price: TokenPrice) -> list[TokenPrice | None]:
    """Return the prices that may be the one; with ``None`` if there may be a dearer one.

    Without any, none of what is known is even a lower bound.
    """
    tier = usage.service_tier
    if tier is None and "service_tier" in (usage.doubts or {}):
        return []  # the answer names one in a way that can't be read
    if tier is None or tier == price.service_tier:
        return [price]
    found = [price_at(price, tier)]
    standard = price_at(price, STANDARD)
    if "service_tier" in (usage.doubts or {}):  # asked for, and the answer does not say
        found.append(standard)
    if None not in found:
        return found
    return [standard, None] if standard is not None and is_dearer(tier) else []


def rates_at(price: TokenPrice, prompt_tokens: int) -> dict[str, Decimal]:
    """Return every rate of a request with so many input tokens, in USD per million tokens."""
    given = {name: getattr(price, name) for name in RATES}
    for tier in price.tiers:
        if prompt_tokens > tier.above:
            found = {name: getattr(tier, name) for name in RATES}
            given |= {name: rate for name, rate in found.items() if rate is not None}
    for name, wider in WIDER.items():
        if given[name] is None:
            given[name] = given[wider]
    return {name: exact(rate) for name, rate in given.items()}


def _range(usage: Usage, price: TokenPrice) -> tuple[Decimal, Decimal]:
    """Return the least and the most that the usage can have cost, in USD.

    They differ where audio or images were sent along with cached tokens (no provider says which
    tokens were the cached ones), and where a count in doubt decides between two rates.
    """
    rate = rates_at(price, usage.prompt_tokens or 0)
    low, high = (_if_confused(rate, usage.doubts or {}, end) for end in (min, max))
    searches = times(usage.web_searches or 0, exact(price.web_search or 0))
    least = add(_input_range(usage, low)[0], _output(usage, low))
    most = add(_input_range(usage, high)[1], _output(usage, high))
    return add(scaled(least, -6), searches), add(scaled(most, -6), searches)


def _if_confused(
    rate: Mapping[str, Decimal],
    doubts: Iterable[str],
    end: Callable[[Iterable[Decimal]], Decimal],
) -> dict[str, Decimal]:
    """Return the rates, the least or the greatest of those that may be confused in their place."""
    out = dict(rate)
    for field in doubts:
        for names in _CONFUSED.get(field, ()):
            out |= dict.fromkeys(names, end([out[name] for name in names]))
    return out


def _output(usage: Usage, rate: Mapping[str, Decimal]) -> Decimal:
    """Return the cost of the output, in millionths of USD."""
    output = usage.completion_tokens or 0
    # Audio and image tokens are part of the output, so they can't be more than it has.
    audio = min(usage.audio_output_tokens or 0, output)
    image = min(usage.image_output_tokens or 0, output - audio)
    return sum_of(
        (
            times(output - audio - image, rate["output"]),
            times(audio, rate["audio_output"]),
            times(image, rate["image_output"]),
        )
    )


def _input_range(usage: Usage, rate: Mapping[str, Decimal]) -> tuple[Decimal, Decimal]:
    """Return the least and the most that the input can have cost, in millionths of USD."""
    plain, read = usage.uncached_input_tokens or 0, usage.cache_read_tokens or 0
    written = usage.cache_write_tokens or 0
    hour = min(usage.cache_write_1h_tokens or 0, written)
    least = sum_of(
        (
            times(plain, rate["input"]),
            times(read, rate["cache_read"]),
            times(written - hour, rate["cache_write"]),
            times(hour, rate["cache_write_1h"]),
        )
    )
    most = least
    for kind, count in (("audio", usage.audio_input_tokens), ("image", usage.image_input_tokens)):
        places = [
            (subtract(rate[f"{kind}_input"], rate["input"]), plain),
            (subtract(rate[f"{kind}_cache_read"], rate["cache_read"]), read),
            (Decimal(0), written),
        ]
        least = add(least, _placed(count or 0, sorted(places)))
        most = add(most, _placed(count or 0, sorted(places, reverse=True)))
    return least, most


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
