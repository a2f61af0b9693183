"""The cost of a usage: the provider's own figure, or usage times a price."""

from __future__ import annotations

from decimal import Decimal

from .._types.cost import RATES, WIDER, CostInfo, CostResolution, TokenPrice
from .._types.money import add, exact, scaled, subtract, sum_of, times
from .._types.usage import Usage


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
            (subtract(rate[f"{kind}_input"], rate["input"]), plain),
            (subtract(rate[f"{kind}_cache_read"], rate["cache_read"]), read),
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
