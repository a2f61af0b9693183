"""Models by name, as a command line or another program's configuration spells them: ``KIND:NAME``.

It is not among the providers because one of the kinds is a model on this machine, whose server has
to be started.
"""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from difflib import get_close_matches
from typing import Any

from ..providers import Model
from ..providers._models import (
    anthropic,
    compatible,
    gemini,
    openai,
    openai_responses,
    openrouter,
    text_completions,
)
from ._server import open_local_model

KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "openai": "OPENAI_API_KEY",
    "openai-responses": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "text": "OPENAI_API_KEY",
    "compatible": "TRIO_MINILLM_API_KEY",
}
"""The environment variable of each kind's key, where no base URL is given (`variable_of`)."""

_OWN_SERVER_ALONE = frozenset({"openai-responses", "text"})
"""Kinds whose key must not reach another server than the usual one."""

KINDS = ", ".join(f"{kind}:NAME" for kind in KEYS)
"""The forms of names of models that are not local, for messages."""

_CONSTRUCTORS = {
    "openrouter": openrouter,
    "openai": openai,
    "openai-responses": openai_responses,
    "anthropic": anthropic,
    "gemini": gemini,
    "text": text_completions,
}


_ALIASES = {
    "claude": "anthropic",
    "completions": "text",
    "google": "gemini",
    "gpt": "openai",
    "ollama": "compatible",
    "responses": "openai-responses",
    "vertex": "gemini",
    "vllm": "compatible",
} | {kind: kind for kind in (*KEYS, "local")}
"""Words that are taken for kinds, with the kind that each stands for."""


class UnknownNameError(ValueError):
    """A model's name that is not of the form ``KIND:NAME``, or has an unknown kind."""


class NoBaseURLError(ValueError):
    """A name ``compatible:NAME`` without the address of its server."""


def kind_of(name: str) -> str:
    """Return the kind in a model's name, which is the part before the colon."""
    return name.partition(":")[0]


_KNOWN_NAMES = (
    (r"[^:]+\.gguf", "local"),
    (r"claude-\w.*", "anthropic"),
    (r"(?:gemini|gemma)-\w.*", "gemini"),
    (r"(?:gpt|chatgpt)-\w.*|o[134](?:-.+)?", "openai"),
    (r"[\w.-]+/[\w.-]+(?::\w+)?", "openrouter"),
)
"""Patterns of well-known models' names without a kind, with the kind that each is most likely of."""


def kind_meant(word: str) -> str | None:
    """Return the kind that a misspelt or a similar word most likely stands for."""
    near = get_close_matches(word.lower(), _ALIASES, n=1)
    return _ALIASES[near[0]] if near else None


def suggested(name: str) -> str | None:
    """Return the name that an unknown one was most likely meant for: ``gpt-5-mini`` lacks its kind, and
    that of ``opnai:gpt-5-mini`` is misspelt.
    """
    for pattern, kind in _KNOWN_NAMES:
        if re.fullmatch(pattern, name):
            return f"{kind}:{name}"
    word, _, rest = name.partition(":")
    meant = kind_meant(word)
    if meant is None or (meant == word and ":" in name):
        return None
    return meant if meant == "local" and not rest else f"{meant}:{rest or 'NAME'}"


def meant(name: str) -> str:
    """Return words on the name that an unknown one was likely meant for, to follow a message."""
    likely = suggested(name)
    return "" if likely is None else f"; did you mean {likely}?"


def variable_of(kind: str, base_url: str | None = None) -> str | None:
    """Return the environment variable of the key for this kind of model, or None if it has none.

    At another server than the usual one it is that of ``compatible``, for kinds that are in use at many
    servers: OpenAI's key must not reach them.
    """
    return KEYS.get("compatible" if base_url is not None and kind in _OWN_SERVER_ALONE else kind)


def key_of(kind: str, base_url: str | None = None) -> str:
    """Return the key for this kind of model from the environment, or an empty text."""
    return os.environ.get(variable_of(kind, base_url) or "", "").strip()


def is_local(name: str) -> bool:
    """Return True if the name is that of a model on this machine: ``local`` or ``local:PATH``."""
    return kind_of(name) == "local" and name != "local:"


def named_model(
    name: str, *, base_url: str | None = None, api_key: str | None = None, **options: Any
) -> Model:
    """Return the model with a name like ``openai:gpt-5-mini``. It must not be local.

    Without ``api_key`` the key is that of the environment. ``options`` are further ones of the
    constructor of its kind. Raises `UnknownNameError`, `NoBaseURLError`, and whatever the
    constructor raises.
    """
    kind, _, rest = name.partition(":")
    if kind not in KEYS or not rest:
        raise UnknownNameError(f"the model is {KINDS}, local or local:PATH.gguf{meant(name)}")
    if kind in _OWN_SERVER_ALONE and base_url is not None:
        api_key = api_key or key_of(kind, base_url) or None
    if kind != "compatible":
        return _CONSTRUCTORS[kind](rest, base_url=base_url, api_key=api_key, **options)
    if base_url is None:
        raise NoBaseURLError("compatible:NAME needs a base URL")
    return compatible(rest, base_url=base_url, api_key=api_key or key_of(kind) or None, **options)


@asynccontextmanager
async def open_model(
    model: str | Model, *, base_url: str | None = None, api_key: str | None = None, **options: Any
) -> AsyncIterator[Model]:
    """Yield the model with a name like ``openai:gpt-5-mini``; a local one lasts for the block.

    A `Model` is yielded as it is, and the options have no effect on it. ``options`` are those of
    the constructor of the name's kind, or of `open_local_model`. Raises ``ValueError`` for a name
    of any other form, and whatever the constructor raises.
    """
    if isinstance(model, Model):
        yield model
    elif not is_local(model):
        yield named_model(model, base_url=base_url, api_key=api_key, **options)
    elif base_url is not None:
        raise ValueError("a local model has no base URL: its server is started here")
    else:
        async with open_local_model(path=model.partition(":")[2] or None, **options) as opened:
            yield opened
