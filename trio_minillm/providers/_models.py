"""Models at their usual addresses: a name, a wire, a key from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .._types.cost import TokenPrice
from . import Anthropic, Compatible, Model, OpenAIChat, OpenRouter, Provider
from .compatible import server_at

__all__ = ["Model", "anthropic", "compatible", "openai", "openrouter"]


def _model(
    provider: Provider,
    name: str,
    base_url: str | None,
    default_url: str,
    api_key: str | None,
    variable: str,
    headers: Mapping[str, str] | None,
    extra: Mapping[str, Any] | None,
    price: TokenPrice | None,
) -> Model:
    named = ""
    if api_key is None:
        api_key = os.environ.get(variable, "").strip() or None
        if api_key is None and base_url is None:
            raise ValueError(f"no API key: set {variable} or give api_key=")
        named = f"{variable}: "
    try:
        return Model(
            name=name,
            provider=provider,
            base_url=base_url or default_url,
            api_key=api_key or None,
            headers=dict(headers or {}),
            extra=dict(extra or {}),
            price=price,
        )
    except ValueError as exc:
        # Without the frames below, and the key here: local variables are printed too.
        message, api_key = f"{named}{exc}", None
    raise ValueError(message)


def openai(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """A model of OpenAI's, over chat completions. Key: ``OPENAI_API_KEY``.

    ``extra`` goes into every request's body, ``headers`` into its headers, ``price`` is used
    where the wire names no cost. Raises ``ValueError`` without a key, or with one that could
    not stand in a header (which is not shown).
    """
    url = "https://api.openai.com/v1"
    key = "OPENAI_API_KEY"
    return _model(OpenAIChat(), name, base_url, url, api_key, key, headers, extra, price)


def openrouter(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
    app_url: str | None = None,
    app_title: str | None = None,
) -> Model:
    """A model at OpenRouter. Key: ``OPENROUTER_API_KEY``.

    ``app_url`` and ``app_title`` name your program in OpenRouter's statistics. The rest is as
    in `openai`; OpenRouter names the cost itself.
    """
    named = {"http-referer": app_url, "x-openrouter-title": app_title, "x-title": app_title}
    all_headers = {k: v for k, v in named.items() if v} | dict(headers or {})
    url = "https://openrouter.ai/api/v1"
    key = "OPENROUTER_API_KEY"
    return _model(OpenRouter(), name, base_url, url, api_key, key, all_headers, extra, price)


def anthropic(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """A model over Anthropic Messages. Key: ``ANTHROPIC_API_KEY``. The rest is as in `openai`."""
    url = "https://api.anthropic.com"
    key = "ANTHROPIC_API_KEY"
    return _model(Anthropic(), name, base_url, url, api_key, key, headers, extra, price)


def compatible(
    name: str,
    *,
    base_url: str,
    server: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """A model at any other server of OpenAI's wire: ``base_url`` ends before ``/chat/completions``.

    ``server`` says what it wants sent otherwise (``"vllm"``, ``"mistral"`` …, see
    `trio_minillm.providers.SERVERS`); by default it is told from the host. No key is taken from
    the environment, so none can reach a server that it was not meant for.
    """
    provider = Compatible(server or server_at(base_url))
    return Model(
        name=name,
        provider=provider,
        base_url=base_url,
        api_key=api_key or None,
        headers=dict(headers or {}),
        extra=dict(extra or {}),
        price=price,
    )
