"""The typed parameters of a call, and the values that some of them take.

`Params` lists each parameter once; a provider's request builder says how it is sent. A parameter
that a wire format does not have is an error there, never silently dropped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypedDict

import msgspec

from .messages import CacheHint
from .schemas import JSONObject, plain_name, schema_of
from .tools import Tool


class JSONSchema(msgspec.Struct, frozen=True, kw_only=True):
    """A response format: JSON that matches ``schema``.

    ``strict`` asks the provider to enforce the schema, which is then closed: every property is
    required, and no others are allowed. A schema that its strict mode can't take (maps, values of any
    type) is asked for without, or is a ``ValueError`` where there is no other mode. A root that is no
    object is put into one. ``type`` is what `CompletionResponse.parsed` decodes into.
    """

    schema: JSONObject
    name: str = "response"
    description: str | None = None
    strict: bool = True
    type: Any = None


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """The amount of reasoning before the answer: ``effort`` or ``budget``, not both.

    ``effort`` is one of the provider's words (``minimal`` … ``high``); ``budget`` is in tokens;
    ``enabled=False`` turns reasoning off. ``summary`` and ``exclude`` control how much of it is
    shown. Raises ``ValueError`` if both effort and budget are given.
    """

    effort: str | None = None
    budget: int | None = None
    enabled: bool | None = None
    summary: str | None = None
    exclude: bool | None = None

    def __post_init__(self) -> None:
        if self.effort is not None and self.budget is not None:
            raise ValueError("give reasoning effort or budget, not both")


def reasoning_of(given: Reasoning | str | int | bool) -> Reasoning:
    """Return a `Reasoning`, of which ``"low"``, ``2000`` and ``False`` are shorthands."""
    if isinstance(given, Reasoning):
        return given
    if isinstance(given, bool):
        return Reasoning(enabled=given)
    return Reasoning(budget=given) if isinstance(given, int) else Reasoning(effort=given)


def format_of(given: Any) -> JSONSchema | Literal["json", "text"] | JSONObject:
    """Return the format that ``response_format`` asks for.

    A type becomes a `JSONSchema`; the rest stays as it is: ``"json"``, ``"text"``, a `JSONSchema`,
    or the provider's own mapping. Raises ``ValueError`` for another string.
    """
    if isinstance(given, JSONSchema):
        return given
    if isinstance(given, Mapping):
        return dict(given)
    if given in ("json", "text"):
        return "json" if given == "json" else "text"
    if isinstance(given, str):
        raise ValueError("response_format is 'json', 'text', a JSONSchema, a type or a mapping")
    name = plain_name(getattr(given, "__name__", None))
    return JSONSchema(schema=schema_of(given), name=name, type=given)


class Params(TypedDict, total=False):
    """The typed parameters of a call; ``None`` is the same as leaving a parameter out."""

    # In every wire format, or most of them
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    stop: str | Sequence[str] | None
    seed: int | None
    tools: Sequence[Tool | type | Callable[..., Any] | Mapping[str, Any]] | None
    tool_choice: str | Tool | Mapping[str, Any] | None
    """``auto``, ``none``, ``required``, a tool or its name, or the provider's own mapping."""
    parallel_tool_calls: bool | None
    response_format: Any
    """``"json"``, a `JSONSchema`, a type, or the provider's own mapping."""
    reasoning: Reasoning | str | int | bool | None
    user: str | None
    metadata: Mapping[str, str] | None
    service_tier: str | None
    cache: CacheHint
    """A cache breakpoint after the last block that can be cached (Anthropic, OpenRouter)."""

    # OpenAI and most servers that speak its format
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[str, int] | None
    logprobs: bool | None
    top_logprobs: int | None
    n: int | None
    verbosity: str | None
    prediction: str | Mapping[str, Any] | None
    modalities: Sequence[str] | None
    audio: Mapping[str, Any] | None
    store: bool | None
    moderation: Mapping[str, Any] | None
    web_search_options: Mapping[str, Any] | None
    prompt_cache_key: str | None
    prompt_cache_retention: str | None
    prompt_cache_options: Mapping[str, Any] | None
    safety_identifier: str | None
    include_obfuscation: bool | None
    stream_options: Mapping[str, Any] | None
    """Further fields of the request's ``stream_options`` (vLLM's ``continuous_usage_stats``)."""

    # OpenRouter, and samplers that servers of open-weight models share with it
    min_p: float | None
    top_a: float | None
    repetition_penalty: float | None
    models: Sequence[str] | None
    provider: Mapping[str, Any] | None
    """OpenRouter's routing options: ``order``, ``only``, ``ignore``, ``sort``, ``max_price`` …"""
    plugins: Sequence[Mapping[str, Any]] | None
    session_id: str | None
    trace: Mapping[str, Any] | None
    image_config: Mapping[str, Any] | None

    # Anthropic
    container: str | Mapping[str, Any] | None
    context_management: Mapping[str, Any] | None
    mcp_servers: Sequence[Mapping[str, Any]] | None
    inference_geo: str | None
    speed: str | None
    betas: Sequence[str] | None


PARAM_NAMES: frozenset[str] = frozenset(Params.__annotations__)


def check_params(given: Mapping[str, Any], options: Iterable[str] = ()) -> int:
    """Check the parameters of a call and return the number of choices that they ask for.

    ``options`` are the names of other keywords that the caller takes, for the hint in the error.
    Raises ``TypeError`` for an unknown parameter, ``ValueError`` for a number that makes no sense.
    """
    unknown = sorted(set(given) - PARAM_NAMES)
    if unknown:
        from difflib import get_close_matches  # rarely needed, and slow to import

        close = get_close_matches(unknown[0], sorted(PARAM_NAMES.union(options)), 1)
        hint = f"did you mean {close[0]}?" if close else "extra={…} sends any field"
        raise TypeError(f"unknown parameter: {', '.join(unknown)} ({hint})")
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number")
    choices = given.get("n", 1)
    if isinstance(choices, bool) or not isinstance(choices, int) or choices < 1:
        raise ValueError("n must be a whole number from 1 on")
    return choices
