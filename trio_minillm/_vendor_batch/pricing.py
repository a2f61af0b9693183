"""The price of a model in its vendor's batches.

Rule: an answer from a batch is of the service tier ``batch``, and is priced by the price of that tier: one
of the model's ``variants``, as `known_price` has them, or the model's own if it names that tier. Where
there is none, the price is half of the standard one, at the vendors' own addresses alone and for what they
say is halved: OpenAI's guide to its Batch API and Anthropic's page "Batch processing". What a cached token
costs in a batch of OpenAI's depends on the model, so that an answer with some is unpriced then.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from .._types.cost import RATES, PriceTier, TokenPrice
from .._types.money import exact, scaled, times
from ..providers import Model
from ..providers._base import host_of
from ..providers._pricing import STANDARD, price_at

BATCH = "batch"
"""The service tier of an answer from a batch."""
HALVED = {"api.openai.com": False, "api.anthropic.com": True}
"""The vendors' own addresses, and whether cached tokens are halved there as well."""


def batch_model(model: Model, usage: Any) -> Model:
    """Return the model at the price that an answer from a batch has; ``usage`` is the answer's."""
    price = model.price
    if price is None or price_at(price, BATCH) is not None:
        return model
    caches = HALVED.get(host_of(model.base_url))
    standard = price_at(price, STANDARD)
    if caches is None or standard is None or not (caches or _uncached(usage)):
        return model  # `priced_cost` finds no price for the tier
    return replace(model, price=replace(price, variants=(*price.variants, _halved(standard))))


def _uncached(usage: Any) -> bool:
    """Return True if none of an answer's tokens were cached, as far as it says."""
    details = [usage.get(name) for name in _DETAILS] if isinstance(usage, dict) else []
    return not any(one.get("cached_tokens") for one in details if isinstance(one, dict))


_DETAILS = ("prompt_tokens_details", "input_tokens_details")


def _halved(price: TokenPrice) -> TokenPrice:
    tiers = tuple(replace(tier, **_half(tier)) for tier in price.tiers)
    return replace(price, tiers=tiers, service_tier=BATCH, variants=(), **_half(price))


def _half(rates: TokenPrice | PriceTier) -> dict[str, Any]:
    given = {name: getattr(rates, name) for name in RATES}
    return {k: scaled(times(5, exact(v)), -1) for k, v in given.items() if v is not None}
