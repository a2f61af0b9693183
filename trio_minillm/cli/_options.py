"""What the commands that send requests share: their options, and where keys come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from typer import Option

import trio_minillm as llm

from ._output import Misuse

KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "compatible": "TRIO_MINILLM_API_KEY",
}
"""Where each kind of model's key comes from. The last is sent only where ``--base-url`` says."""

_MODEL = (
    "openrouter:NAME, openai:NAME, anthropic:NAME, compatible:NAME (with --base-url),"
    " local, or local:PATH.gguf."
)
_BASE_URL = "The server's address, where it is not the provider's usual one."
_FIRST = "Longest wait for the first content, in seconds. [300]"
_IDLE = "Longest silence after that, in seconds. [120]"
_TOTAL = "Longest time in all, in seconds. [none]"
_ATTEMPTS = "Requests in all, where trying again may help."

ModelName = Annotated[str, Option("--model", "-m", metavar="KIND:NAME", help=_MODEL)]
BaseURL = Annotated[str | None, Option(metavar="URL", help=_BASE_URL)]
MaxTokens = Annotated[int | None, Option(metavar="N", help="Longest answer.")]
TimeoutFirst = Annotated[float | None, Option(metavar="S", help=_FIRST)]
TimeoutIdle = Annotated[float | None, Option(metavar="S", help=_IDLE)]
TimeoutTotal = Annotated[float | None, Option(metavar="S", help=_TOTAL)]
Attempts = Annotated[int, Option(metavar="N", min=1, help=_ATTEMPTS)]
LedgerFile = Annotated[
    Path | None,
    Option(metavar="FILE", help="Append each attempt and its cost to this file of JSON lines."),
]


def key_of(kind: str) -> str:
    """The key for this kind of model, out of the environment; empty if there is none."""
    return os.environ.get(KEYS.get(kind, ""), "").strip()


def model_of(kind: str, name: str, base_url: str | None) -> llm.Model | None:
    """The model at a provider, with its key from the environment; None for a local one."""
    if kind == "local" and base_url is None:
        return None
    if kind not in KEYS or not name:
        kinds = ", ".join(f"{kind}:NAME" for kind in KEYS)
        raise Misuse(f"--model is {kinds}, or without --base-url local or local:PATH.gguf")
    key = key_of(kind) or None
    if kind == "compatible":
        if base_url is None:
            raise Misuse("--model compatible:NAME needs --base-url")
        return llm.compatible(name, base_url=base_url, api_key=key)
    if key is None and base_url is None:
        raise Misuse(f"no API key: set {KEYS[kind]} in the environment")
    makers = {"openrouter": llm.openrouter, "openai": llm.openai, "anthropic": llm.anthropic}
    return makers[kind](name, base_url=base_url, api_key=key)


def price_of(model: llm.Model) -> llm.TokenPrice | None:
    """The model's price, else the one from the extra ``prices``, if that is installed."""
    try:
        return model.price or llm.known_price(model)
    except ImportError:
        return None


def timeouts_of(**given: float | None) -> llm.Timeouts:
    """The clocks that were given, the others as they are."""
    return llm.Timeouts(**{name: seconds for name, seconds in given.items() if seconds is not None})
