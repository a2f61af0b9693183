"""List prices from the optional package genai-prices, as `TokenPrice`. Nothing is fetched.

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

import msgspec

from .._types.cost import PriceTier, TokenPrice
from .._types.money import scaled
from ..providers._base import Model
from ..providers._pricing import STANDARD
from ..providers._usage import OPENAI_TIERS

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
"""Rates of the list, and their names in `TokenPrice`. Both are in USD per million tokens."""

_SEARCHES = "web_searches_kcount"  # USD per thousand

_NEVER_HERE = frozenset({"storage_searches_kcount"})
"""Rates of features that these wire formats don't have (OpenAI's file search belongs to its
Responses API)."""

_TIER_KEYS = ("service_tier", "speed", "processing")
"""Items of a context that stand for a service tier of `TokenPrice`."""

_ROUTES = ("nitro", "floor", "exacto")
"""OpenRouter's suffixes that choose among a model's servers, and so don't change its list price.
Others name another model (``:free``, ``:thinking``) or add a charge (``:online``)."""


def known_price(
    model: Model | str,
    *,
    at: datetime | None = None,
    context: Mapping[str, str] | None = None,
) -> TokenPrice | None:
    """Return the list price of a model from the package genai-prices, or ``None``.

    Nothing is fetched, and a price that could be wrong is ``None``.

    - ``model`` is a `Model`, which is looked up by its address and name. At an unknown address,
      such as a proxy or a server of your own, it has no price. A string is a name
      (``"gpt-5-mini"``), a name with its provider (``"groq:llama-3.1-8b-instant"``), or a name as
      OpenRouter writes it (``"anthropic/claude-haiku-4.5"``).
    - ``at`` is the time of the request; a time without a zone is UTC, and the default is now.
      Models whose price changes with the hour have no price without it.
    - ``context`` selects one of the model's service tiers, such as ``{"service_tier": "flex"}``,
      ``{"processing": "batch"}``, or ``{"speed": "fast"}``. Without it, the prices of the other
      tiers are the ``variants``, so that an answer is priced at the tier that it names.

    The price's ``source`` names the package and its version. Its ``as_of`` is the newest day from
    which the list has any price, so the list was made on that day or later.

    There is no price for models that are billed by the hour of audio, by the page, by the request,
    or by the search; for models with a separate rate for reasoning or video; and for audio models
    without an audio rate. Names that the list matches by their beginning (``gpt-5-nano-…``) get
    that price.

    Raises ``ImportError`` if the package is missing.
    """
    if not isinstance(model, Model | str):
        raise TypeError(f"model must be a Model or a name, not {type(model).__name__}")
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
    """Return the list of the installed package, and the package's name and version."""
    try:
        from genai_prices import __version__
        from genai_prices.data import providers
    except ImportError as exc:
        wanted = "known_price needs genai-prices: pip install 'trio-minillm[prices]'"
        raise ImportError(wanted) from exc
    return providers, f"genai-prices {__version__}"


def _at_address(base_url: str, providers: list[types.Provider]) -> list[types.Provider]:
    return [p for p in providers if serves(p.api_pattern, base_url)]


def serves(pattern: str, base_url: str) -> bool:
    """Return True if an address is the provider's.

    The list's patterns match a beginning, so the host must end where the match does:
    ``api.openai.com.example.org`` is not OpenAI's.
    """
    parts = urlsplit(base_url)
    origin = f"{parts.scheme}://{parts.hostname or ''}"
    if "/" in pattern.split("//", 1)[-1]:  # the pattern itself ends the host, or has a path
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
    if not _covers(info, at, context):
        return None
    price = _price_at(info, at, context, source)
    if price is None or context:
        return price
    others = {tier: context for context in _contexts(info) if (tier := _tier(context)) != STANDARD}
    priced = [
        one
        for other in others.values()
        if _covers(info, at, other) and (one := _price_at(info, at, other, source)) is not None
    ]
    return msgspec.structs.replace(price, variants=tuple(priced))


def _contexts(info: types.ModelInfo) -> Iterator[Mapping[str, str]]:
    """Yield the contexts, each of one item that says how fast or when a request is served, for
    which the list has other prices.
    """
    for variant in info.price_variants or ():
        if len(variant.when) == 1 and variant.when.keys() <= set(_TIER_KEYS):
            yield variant.when


def _tier(context: Mapping[str, str]) -> str:
    """Return the service tier that a context selects, in the words of `Usage.service_tier`."""
    words = [
        OPENAI_TIERS.get(context[key], context[key]) if key == "service_tier" else context[key]
        for key in _TIER_KEYS
        if key in context
    ]
    return "+".join(word for word in words if word != STANDARD) or STANDARD


def _price_at(
    info: types.ModelInfo, at: datetime, context: Mapping[str, str], source: str
) -> TokenPrice | None:
    prices = info.get_prices(at, context or None)
    if "search" in info.id:  # also billed by the search, which no usage of these wires counts
        return None
    given = {key: rate for key, rate in vars(prices).items() if rate is not None}
    if not given and info.id.endswith(":free"):
        return TokenPrice(input=0, output=0, as_of=list_date(), source=source)
    rates = _rates(given)
    if rates is None or ("audio" in info.id and not rates.keys() & {"audio_input", "audio_output"}):
        return None  # audio has a rate of its own, whether or not the list has it
    tier = None if _tier(context) == STANDARD else _tier(context)
    return TokenPrice(**rates, as_of=list_date(), source=source, service_tier=tier)


@cache
def list_date() -> date | None:
    """Return the newest day from which the list has a price: it was made on that day or later.

    Days after its installation don't count: it also has prices that are only announced.
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


def _covers(info: types.ModelInfo, at: datetime, context: Mapping[str, str]) -> bool:
    """Return True if the list has a price for each item of the context."""
    applied = [
        variant.when.items()
        for variant in info.price_variants or ()
        if (variant.constraint is None or variant.constraint.active(at))
        and variant.when.items() <= context.items()
    ]
    return all(any(item in when for when in applied) for item in context.items())


def _rates(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the arguments of a `TokenPrice`, or ``None`` if it could not express the price."""
    if not given.keys() <= {*_FIELDS, _SEARCHES, *_NEVER_HERE}:
        return None
    if "input_mtok" not in given or "output_mtok" not in given:
        return None
    out: dict[str, Any] = {}
    tiers: dict[int, dict[str, Decimal]] = {}
    for key, rate in given.items():
        if key in _FIELDS:
            # In the list a rate has its own tiers; a TokenPrice has tiers with their rates.
            for tier in getattr(rate, "tiers", ()):
                tiers.setdefault(tier.start, {})[_FIELDS[key]] = tier.price
            out[_FIELDS[key]] = getattr(rate, "base", rate)
        elif key == _SEARCHES:
            if not isinstance(rate, Decimal):
                return None
            out["web_search"] = scaled(rate, -3)
    out["tiers"] = tuple(PriceTier(above=mark, **tiers[mark]) for mark in sorted(tiers))
    return out
