"""Usage objects of each wire format as `Usage`, whose buckets are disjoint.

A field that is absent stays ``None``; it is never read as zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._types.errors import ProtocolError
from .._types.usage import Usage


def openai_usage(raw: Mapping[str, Any]) -> Usage:
    """Translate a usage object of the OpenAI family.

    Cached and cache-written tokens are part of ``prompt_tokens`` (OpenAI's and OpenRouter's
    reference list both in its details). A server that reports more cached tokens than
    prompt tokens (xAI on Azure does) is taken at its total: a bucket can't be larger than
    the whole. Where the total shows that reasoning was left out of ``completion_tokens``
    (xAI), it is put back in. Raises `ProtocolError` for a count that is not one.
    """
    details = mapping_in(raw, "prompt_tokens_details", "input_tokens_details")
    out_details = mapping_in(raw, "completion_tokens_details", "output_tokens_details")
    prompt = _count(raw, "prompt_tokens", "input_tokens")
    completion = _count(raw, "completion_tokens", "output_tokens")
    cached = _count(details, "cached_tokens")
    if cached is None:
        cached = _count(raw, "prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
    written = _count(details, "cache_write_tokens")
    if written is None:
        written = _count(raw, "cache_creation_input_tokens")
    reasoning = _count(out_details, "reasoning_tokens")
    total = raw.get("total_tokens")
    if prompt is not None:
        cached = None if cached is None else min(cached, prompt)
        written = None if written is None else min(written, prompt - (cached or 0))
    if reasoning and total == (prompt or 0) + (completion or 0) + reasoning:
        completion = (completion or 0) + reasoning
    tools = mapping_in(raw, "server_tool_use", "server_tool_use_details")  # OpenRouter's
    return Usage(
        uncached_input_tokens=None if prompt is None else prompt - (cached or 0) - (written or 0),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        completion_tokens=completion,
        reasoning_tokens=reasoning,
        audio_input_tokens=_count(details, "audio_tokens"),
        image_input_tokens=_count(details, "image_tokens"),
        audio_output_tokens=_count(out_details, "audio_tokens"),
        image_output_tokens=_count(out_details, "image_tokens"),
        web_searches=_count(tools, "web_search_requests"),
        cost=amount_in(raw.get("cost")),
        raw=dict(raw),
    )


def anthropic_usage(raw: Mapping[str, Any]) -> Usage:
    """Translate Anthropic's usage, whose buckets are disjoint already.

    Raises `ProtocolError` for a count that is not one.
    """
    return Usage(
        uncached_input_tokens=_count(raw, "input_tokens"),
        cache_read_tokens=_count(raw, "cache_read_input_tokens"),
        cache_write_tokens=_count(raw, "cache_creation_input_tokens"),
        completion_tokens=_count(raw, "output_tokens"),
        reasoning_tokens=_count(mapping_in(raw, "output_tokens_details"), "thinking_tokens"),
        cache_write_1h_tokens=_count(
            mapping_in(raw, "cache_creation"), "ephemeral_1h_input_tokens"
        ),
        web_searches=_count(mapping_in(raw, "server_tool_use"), "web_search_requests"),
        raw=dict(raw),
    )


def mapping_in(raw: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the first of the named fields that is an object; an empty mapping if none is."""
    for name in names:
        value = raw.get(name)
        if value is not None and isinstance(value, Mapping):
            return value
    return {}


def _count(raw: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = raw.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
            raise ProtocolError(f"usage: {name} is not a count")
        return int(value)
    return None


def amount_in(value: Any) -> float | None:
    """Return an amount in USD, given as a number, as text, or as Perplexity's object with a total.

    ``None`` for anything else, and for what can't be an amount (negative, 1e12 or more).
    """
    if isinstance(value, Mapping):
        value = value.get("total_cost")
    try:
        number = None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number is not None and 0 <= number < 1e12 else None
