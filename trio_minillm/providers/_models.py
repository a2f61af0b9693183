"""Constructors of models: a name, a provider, its usual address, and a key from the environment.

All take the same keywords. They are spelled out in each signature, and not passed on in a
``**kwargs``, so that editors show them and type checkers check them. Each imports its
provider when it is called, since most programs speak one wire.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import NoneType
from typing import Any

from .._types.checks import check_option, check_type, wrong_type
from .._types.cost import TokenPrice
from .._types.credentials import KeySource, Sign
from . import Model, Provider

__all__ = [
    "Model",
    "anthropic",
    "compatible",
    "gemini",
    "openai",
    "openai_responses",
    "openrouter",
    "text_completions",
]


def openai(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model of OpenAI's chat-completions API.

    - ``name`` is the model's name, as the server knows it.
    - ``base_url`` replaces the usual address.
    - ``api_key`` is the key, or a function or async function that returns it. A function is called
      with each attempt, and once more if the server answers 401. The default is ``OPENAI_API_KEY``
      from the environment.
    - ``sign`` is a function or async function that receives each request as a
      `trio_minillm.RequestToSign` and returns headers to add or replace. With it, no key is read
      from the environment.
    - ``headers`` are added to every request, and ``extra`` to the body of every request.
    - ``price`` is used if the provider does not report a cost.

    Trio runs both functions, so they must not block. Raises ``ValueError`` if there is neither a
    key nor a ``base_url``, and if a key, a header, or an address can't be sent. The message never
    shows the key.
    """
    from .openai import OpenAIChat

    default = "https://api.openai.com/v1"
    key = "OPENAI_API_KEY"
    return _model(OpenAIChat(), name, default, key, base_url, api_key, sign, headers, extra, price)


def openai_responses(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model of OpenAI's Responses API, which other servers speak as well.

    ``base_url`` is another server's address without ``/responses``. ``OPENAI_API_KEY`` is read only
    without ``base_url``, so it can't reach another server. The other arguments and the errors are
    those of `openai`.
    """
    from .openai_responses import OpenAIResponses

    default = "https://api.openai.com/v1"
    # OpenAI's own key must not reach another server.
    key = "OPENAI_API_KEY" if base_url is None else ""
    return _model(
        OpenAIResponses(), name, default, key, base_url, api_key, sign, headers, extra, price
    )


def openrouter(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
    app_url: str | None = None,
    app_title: str | None = None,
) -> Model:
    """Return a model at OpenRouter, which reports the cost itself.

    The key is read from ``OPENROUTER_API_KEY`` by default. ``app_url`` and ``app_title`` name your
    program in OpenRouter's statistics. The other arguments and the errors are those of `openai`.
    """
    from .openrouter import OpenRouter

    named = {"http-referer": app_url, "x-openrouter-title": app_title, "x-title": app_title}
    check_option("headers", headers, Mapping)
    all_headers = {k: v for k, v in named.items() if v} | dict(headers or {})
    default = "https://openrouter.ai/api/v1"
    key = "OPENROUTER_API_KEY"
    return _model(
        OpenRouter(), name, default, key, base_url, api_key, sign, all_headers, extra, price
    )


def anthropic(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model of Anthropic's Messages API.

    The key is read from ``ANTHROPIC_API_KEY`` by default. The arguments and the errors are those of
    `openai`.
    """
    from .anthropic import Anthropic

    default = "https://api.anthropic.com"
    key = "ANTHROPIC_API_KEY"
    return _model(Anthropic(), name, default, key, base_url, api_key, sign, headers, extra, price)


def gemini(
    name: str,
    *,
    base_url: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model of Gemini's own API, or of Vertex AI's.

    The key is read from ``GEMINI_API_KEY`` by default. For Vertex AI, ``base_url`` is the address
    up to ``/locations/…``, and ``api_key`` is an access token. The other arguments and the errors
    are those of `openai`.
    """
    from .gemini import Gemini

    default = "https://generativelanguage.googleapis.com/v1beta"
    key = "GEMINI_API_KEY"
    return _model(Gemini(), name, default, key, base_url, api_key, sign, headers, extra, price)


def compatible(
    name: str,
    *,
    base_url: str,
    server: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model at any other server that speaks OpenAI's chat-completions format.

    - ``base_url`` is the address without ``/chat/completions``.
    - ``server`` names one of `trio_minillm.providers.SERVERS`, such as ``"vllm"`` or ``"mistral"``,
      which says how requests to it differ. By default, the host of the address decides.

    No key is read from the environment, so none can reach the wrong server. The other arguments and
    the errors are those of `openai`.
    """
    from ._server_quirks import server_at
    from .compatible import Compatible

    check_type("base_url", base_url, str)
    provider = Compatible(server or server_at(base_url))
    return _model(provider, name, base_url, "", None, api_key, sign, headers, extra, price)


def text_completions(
    name: str,
    *,
    base_url: str | None = None,
    server: str | None = None,
    api_key: str | KeySource | None = None,
    sign: Sign | None = None,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    price: TokenPrice | None = None,
) -> Model:
    """Return a model that continues a prompt without a chat template, over ``/v1/completions``.

    - ``base_url`` is another server's address without ``/completions``; the default is OpenAI's.
    - ``server`` says which server it is, as for `compatible`.

    ``OPENAI_API_KEY`` is read only without ``base_url``, so it can't reach another server. The
    other arguments and the errors are those of `openai`.
    """
    from ._server_quirks import server_at
    from .text_completions import TextCompletions

    check_option("base_url", base_url, str)
    default = "https://api.openai.com/v1"
    key = "OPENAI_API_KEY" if base_url is None else ""  # it must not reach another server
    provider = TextCompletions(server or server_at(base_url or default))
    return _model(provider, name, default, key, base_url, api_key, sign, headers, extra, price)


def _model(
    provider: Provider,
    name: str,
    default_url: str,
    key_variable: str,
    base_url: str | None,
    api_key: str | KeySource | None,
    sign: Sign | None,
    headers: Mapping[str, str] | None,
    extra: Mapping[str, Any] | None,
    price: TokenPrice | None,
) -> Model:
    """Make the model; an empty ``key_variable`` means that no key is looked up."""
    key_source = None
    if not (api_key is None or isinstance(api_key, str)):
        if not callable(api_key):
            raise wrong_type("api_key", api_key, str, "a function", NoneType)
        key_source, api_key = api_key, None
    check_option("base_url", base_url, str)
    source = ""
    if key_source is not None or sign is not None:
        key_variable = ""  # a key in the environment is not what is meant
    if api_key is None and key_variable:
        api_key = os.environ.get(key_variable, "").strip() or None
        source = f"{key_variable}: "
    if not (api_key or "").strip() and key_variable and base_url is None:
        raise ValueError(f"no API key: set {key_variable} or give api_key=")
    try:
        return Model(
            name=name,
            provider=provider,
            base_url=default_url if base_url is None else base_url,
            api_key=api_key or None,
            headers={} if headers is None else headers,
            extra={} if extra is None else extra,
            price=price,
            key_source=key_source,
            sign=sign,
        )
    except (TypeError, ValueError) as exc:
        # Raised anew below: some tools print the local variables of a traceback's frames, and the
        # key is one of them, in here and in `Model`.
        about_key = str(exc).lower().startswith("api")
        failure, api_key = type(exc)(f"{source if about_key else ''}{exc}"), None
        key_source = sign = None
    raise failure
