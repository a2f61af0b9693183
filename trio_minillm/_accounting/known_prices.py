"""Prices that the package genai-prices knows, as ours. Optional, and never over the network.

Only the list that the installed package ships is read, so that the same program with the same
packages always counts with the same prices.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .._types.cost import PriceTier, TokenPrice
from .._types.money import scaled
from ..providers._base import Model

if TYPE_CHECKING:
    from genai_prices import types

_FIELDS = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "input_audio_mtok": "audio_input",
    "cache_audio_read_mtok": "audio_cache_read",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "cache_image_read_mtok": "image_cache_read",
    "output_image_mtok": "image_output",
}
"""Kinds of price that `TokenPrice` has: both sides count in USD per million tokens."""

_SEARCHES = "web_searches_kcount"  # USD per thousand

_NEVER_HERE = frozenset({"storage_searches_kcount"})
"""Kinds of price for what these wires can't ask for (OpenAI's file search is Responses')."""

_ROUTES = ("nitro", "floor", "exacto")
"""OpenRouter's suffixes that choose among a model's servers: the same model, the same list
price. Others name another model (``:free``, ``:thinking``) or add a charge (``:online``)."""


def known_price(
    model: Model | str,
    *,
    at: datetime | None = None,
    context: Mapping[str, str] | None = None,
) -> TokenPrice | None:
    """The list price of a model, from the package genai-prices; ``None`` where it has none.

    Guarantees: nothing is fetched; ``None`` rather than a price that would be wrong.

    A `Model` is found by its address and its name: at an unknown address (a proxy, a server of
    your own) it has no price, whatever it is called. A ``str`` is a name alone
    (``"gpt-5-mini"``), with the provider before a colon (``"groq:llama-3.1-8b-instant"``), or
    with a slash as OpenRouter names it (``"anthropic/claude-haiku-4.5"``).

    ``at`` is the time of the request (naive: UTC; by default now). Models whose price changes
    with the hour have none without it. ``context`` picks what is priced apart:
    ``{"service_tier": "flex"}``, ``{"processing": "batch"}``, ``{"speed": "fast"}``; without
    it the price is the standard tier's.

    The price's ``source`` names the package and its version. Its ``as_of`` is the newest day from
    which the list has any price: the list was made on that day or later. There is no price for
    models that are billed by the hour of sound, by the page, by the request or search, for sound
    without a rate for it, or with a rate of its own for reasoning or video. Names that the list
    matches by their beginning get that price (``gpt-5-nano-…``).

    Raises ``ImportError`` where the package is missing.
    """
    if not isinstance(model, Model | str):
        raise TypeError(f"model must be a Model or a name, not a {type(model).__name__}")
    providers, source = _list()
    if isinstance(model, Model):
        places, name = _at_address(model.base_url, providers), model.name
    else:
        places, name = _by_name(model, providers)
    for place in places:
        for spelling in _spellings(place, name):
            info = place.find_model(spelling, all_providers=providers)
            if info is not None:
                return _price(info, at, context or {}, source)
    return None


def _list() -> tuple[list[types.Provider], str]:
    """What the installed package ships, and what it is called."""
    try:
        from genai_prices import __version__
        from genai_prices.data import providers
    except ImportError as exc:
        wanted = "known_price needs genai-prices: pip install 'trio-minillm[prices]'"
        raise ImportError(wanted) from exc
    return providers, f"genai-prices {__version__}"


def _at_address(base_url: str, providers: list[types.Provider]) -> list[types.Provider]:
    return [p for p in providers if _serves(p.api_pattern, base_url)]


def _serves(pattern: str, base_url: str) -> bool:
    """Whether an address is the provider's. The list's patterns match a beginning, so the host
    must end where the match does: ``api.openai.com.example.org`` is not OpenAI's.
    """
    parts = urlsplit(base_url)
    origin = f"{parts.scheme}://{parts.hostname or ''}"
    if "/" in pattern.split("//", 1)[-1]:  # it names the end of the host, or a path, itself
        return re.match(pattern, f"{origin}{parts.path}") is not None
    found = re.match(pattern, origin)
    if found is None:
        return False
    rest = origin[found.end() :]
    return not rest or (pattern.endswith(r"\.") and rest.isalpha())  # any country's domain


def _by_name(name: str, providers: list[types.Provider]) -> tuple[list[types.Provider], str]:
    head, colon, rest = name.partition(":")
    if colon and (named := [p for p in providers if p.id == head]):
        return named, rest
    if "/" in name:
        return [p for p in providers if p.id == "openrouter"], name
    lower = name.lower()
    return [p for p in providers if p.model_match and p.model_match.is_match(lower)], name


def _spellings(place: types.Provider, name: str) -> Iterator[str]:
    yield name
    base, _, suffix = name.rpartition(":")
    if place.id == "openrouter" and suffix in _ROUTES:
        yield base


def _price(
    info: types.ModelInfo, at: datetime | None, context: Mapping[str, str], source: str
) -> TokenPrice | None:
    from genai_prices import types

    entries = [] if isinstance(info.prices, types.ModelPrice) else info.prices
    if at is None:
        if any(isinstance(e.constraint, types.TimeOfDateConstraint) for e in entries):
            return None
        at = datetime.now(UTC)
    if not _told_apart(info, at, context):
        return None
    prices = info.get_prices(at, context or None)
    if "search" in info.id:  # billed by the search, too, which no usage of these wires counts
        return None
    given = {key: rate for key, rate in vars(prices).items() if rate is not None}
    if not given and info.id.endswith(":free"):
        return TokenPrice(input=0, output=0, as_of=_list_date(), source=source)
    rates = _rates(given)
    if rates is None or ("audio" in info.id and not rates.keys() & {"audio_input", "audio_output"}):
        return None  # a model for sound has a price for sound, whether or not it is in the list
    return TokenPrice(**rates, as_of=_list_date(), source=source)


@cache
def _list_date() -> date | None:
    """The newest day from which the list has a price: it was made on that day or later. (Days
    after its installation don't count: it also has prices that are only announced.)
    """
    from genai_prices import data, types

    try:
        installed = datetime.fromtimestamp(Path(data.__file__).stat().st_mtime, UTC).date()
    except OSError:  # in a zip file
        return None
    models = (info for provider in data.providers for info in provider.models)
    entries = (e for info in models if isinstance(info.prices, list) for e in info.prices)
    limits = (entry.constraint for entry in entries)
    days = [c.start_date for c in limits if isinstance(c, types.StartDateConstraint)]
    return max((day for day in days if day <= installed), default=None)


def _told_apart(info: types.ModelInfo, at: datetime, context: Mapping[str, str]) -> bool:
    """Whether the list has a price for each thing that the context asks for."""
    applied = [
        variant.when.items()
        for variant in info.price_variants or ()
        if (variant.constraint is None or variant.constraint.active(at))
        and variant.when.items() <= context.items()
    ]
    return all(any(item in when for when in applied) for item in context.items())


def _rates(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments of a `TokenPrice`; ``None`` where it could not say the same."""
    if not given.keys() <= {*_FIELDS, _SEARCHES, *_NEVER_HERE}:
        return None
    if "input_mtok" not in given or "output_mtok" not in given:
        return None
    out: dict[str, Any] = {}
    tiers: dict[int, dict[str, Decimal]] = {}
    for key, rate in given.items():
        if key in _FIELDS:
            # A rate of the list has its own tiers; ours has tiers with their rates.
            for tier in getattr(rate, "tiers", ()):
                tiers.setdefault(tier.start, {})[_FIELDS[key]] = tier.price
            out[_FIELDS[key]] = getattr(rate, "base", rate)
        elif key == _SEARCHES:
            if not isinstance(rate, Decimal):
                return None
            out["web_search"] = scaled(rate, -3)
    out["tiers"] = tuple(PriceTier(above=mark, **tiers[mark]) for mark in sorted(tiers))
    return out
