"""Lists of models, as providers and servers send them, in one shape.

OpenAI's format is ``{"data": [{"id": …}]}``, which nearly every server imitates; Anthropic adds
``has_more`` and ``last_id``. Gemini sends ``{"models": [{"name": "models/…"}], "nextPageToken": …}``,
and Together AI a bare array. What a list says beside the name has another name at each server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

import msgspec

from .._types.cost import TokenPrice
from .._types.errors import ProtocolError
from .._types.money import payable, scaled
from ._coerce import loose_json

CONTEXT = (
    "context_length",  # OpenRouter, Together AI, Fireworks
    "max_model_len",  # vLLM, SGLang
    "context_window",  # Groq
    "max_context_length",  # Mistral
    "max_input_tokens",  # Anthropic
    "inputTokenLimit",  # Gemini
)
"""Fields with the most tokens that a model takes."""
OUTPUT = (
    "max_completion_tokens",  # Groq
    "max_tokens",  # Anthropic
    "outputTokenLimit",  # Gemini
)
"""Fields with the most tokens of an answer."""
_INSIDE = ("top_provider", "meta")
"""Objects in which OpenRouter and llama.cpp have some of these fields."""
_TRAINED = "n_ctx_train"
"""Field with the context that a model was trained with, in llama.cpp's ``meta``."""


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a server's list of models; ``None`` stands for what the list does not say."""

    id: str
    """Name by which the server knows it."""
    context: int | None = None
    """The most tokens that it takes: of prompt and answer together, or of the prompt alone."""
    output: int | None = None
    """The most tokens of an answer."""
    price: TokenPrice | None = None
    """Its price, if the server names one."""


class ModelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of models."""

    models: tuple[ListedModel, ...]
    """The models that can be asked."""
    next: str | None = None
    """The mark of the page that follows; ``None`` for the last one."""


PriceIn: TypeAlias = Callable[[Mapping[str, Any]], TokenPrice | None]
"""Function that returns the price in an entry of a list."""


def no_price(entry: Mapping[str, Any]) -> TokenPrice | None:
    """Return ``None``: most lists have no prices."""
    return None


def price_per_token(entry: Mapping[str, Any]) -> TokenPrice | None:
    """Return the price in OpenRouter's form: USD for each token, as text.

    A negative one stands for a price that depends on the model it picks.
    """
    pricing = entry.get("pricing")
    if not isinstance(pricing, Mapping):
        return None
    rates = [_usd_per_million(pricing.get(name)) for name in ("prompt", "completion")]
    if rates[0] is None or rates[1] is None:
        return None
    return TokenPrice(input=rates[0], output=rates[1])


def page_of(body: bytes, price_in: PriceIn = no_price) -> ModelPage:
    """Read a page of a list, in any of the formats. Raises `ProtocolError`."""
    try:
        found = loose_json(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise ProtocolError("the list of models is not JSON") from None
    around = found if isinstance(found, Mapping) else {"data": found}
    entries = around.get("data", around.get("models"))
    if not isinstance(entries, list):
        raise ProtocolError("the answer is not a list of models")
    models = tuple(
        model
        for entry in entries
        if isinstance(entry, Mapping) and (model := _listed(entry, price_in)) is not None
    )
    return ModelPage(models=models, next=_next(around))


def _next(around: Mapping[str, Any]) -> str | None:
    """Return the mark of the page that follows: Gemini's token, or the last id at Anthropic."""
    mark = around.get("nextPageToken")
    if around.get("has_more") is True:
        mark = around.get("last_id")
    if not isinstance(mark, str) or not mark:
        return None
    if not mark.isascii() and mark != mark.encode("utf-8", "replace").decode():
        raise ProtocolError("the list of models names its next page by what is not Unicode")
    return mark


def _listed(entry: Mapping[str, Any], price_in: PriceIn) -> ListedModel | None:
    """Return a model of a list; ``None`` for one without a name, or that can't be asked."""
    name = entry.get("id") or entry.get("name")
    name = name.removeprefix("models/") if isinstance(name, str) else ""
    if not name:
        return None
    methods = entry.get("supportedGenerationMethods")  # Gemini lists models for embeddings as well
    if isinstance(methods, list) and "generateContent" not in methods:
        return None
    if entry.get("lifecycle") == "retired":  # which Anthropic keeps in the list
        return None
    inside = [part for key in _INSIDE if isinstance(part := entry.get(key), Mapping)]
    return ListedModel(
        id=name,
        context=_count([entry, *inside], (*CONTEXT, _TRAINED)),
        output=_count([entry, *inside], OUTPUT),
        price=price_in(entry),
    )


def _count(places: list[Mapping[str, Any]], names: tuple[str, ...]) -> int | None:
    """Return the first count of tokens under one of these names."""
    values = (place.get(name) for place in places for name in names)
    return next((value for value in values if type(value) is int and value > 0), None)


def _usd_per_million(per_token: Any) -> Decimal | None:
    """Return the price of a million tokens; ``None`` for what is no price."""
    if not isinstance(per_token, str | int | float) or isinstance(per_token, bool):
        return None
    try:
        number = Decimal(str(per_token))
    except InvalidOperation:
        return None
    return scaled(number, 6) if payable(number) else None
