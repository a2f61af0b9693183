"""The facts beside the counts that decide a price: the tier that served, and the choices counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from .._types.usage import UNREADABLE, Usage, number_in
from ._base import Model
from ._pricing import STANDARD
from ._usage import (
    ANTHROPIC_TIERS,
    OPENAI_TIERS,
    TERM_CHARS,
    TERMS,
    at_path,
    terms_in,
    tier_of,
)


class Asked(msgspec.Struct, frozen=True):
    """The part of a request that its price depends on."""

    terms: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """The fields of the body that name a service tier, a speed or a region."""
    anthropic: bool = False
    """True if the tiers are in the words of Anthropic's wire."""
    choices: int = 1
    counts_all: bool = False
    """True if the server's usage is known to cover all choices."""
    audio: bool = False
    """True if audio was sent."""
    hour: bool = False
    """True if something is to be cached for an hour."""
    search: bool = False
    """True if the model may search the web."""

    plain: bool = True
    """True if nothing in the request changes the price of a token; the other fields decide it."""

    def __post_init__(self) -> None:
        changed = self.terms or self.audio or self.hour or self.search or self.choices != 1
        msgspec.structs.force_setattr(self, "plain", not changed)

    def tier(self, terms: Mapping[str, str]) -> str | None:
        """Return the tier that such fields name, in the words of `Usage.service_tier`."""
        return tier_of(terms, ANTHROPIC_TIERS if self.anthropic else OPENAI_TIERS)


@lru_cache(maxsize=64)
def _tier_named(word: str, place: str, anthropic: bool) -> str | None:
    terms = terms_in({"service_tier": word, "inference_geo": place})
    return tier_of(terms, ANTHROPIC_TIERS if anthropic else OPENAI_TIERS)


_RARE = TERMS - {"service_tier", "inference_geo"}
"""Fields that hardly any answer has."""
_UNCOUNTED = "there may have been some, and they were not counted"


def asked_of(model: Model, body: Mapping[str, Any]) -> Asked:
    """Return what a request with this body asks for."""
    provider, parts = model.provider, list(_parts(body))
    choices = body.get("n") or (body.get("generationConfig") or {}).get("candidateCount")
    return Asked(
        terms_in(body),
        provider.replay_wire == "anthropic",
        choices if type(choices) is int and choices > 0 else 1,
        provider.counts_all_choices(model),
        audio=any(map(_is_audio, parts)),
        hour=any(
            (part.get("cache_control") or {}).get("ttl") == "1h" for part in _marked(body, parts)
        ),
        search="web_search_options" in body
        or "search-preview" in model.name
        or any(map(_is_search, _list(body.get("tools")))),
    )


_SEARCHES = frozenset({"googleSearch", "googleSearchRetrieval", "google_search", "googleMaps"})
"""Gemini's tools that are charged by the search."""


def _is_search(tool: Mapping[str, Any]) -> bool:
    """Return whether a tool is Gemini's or OpenAI's own for searching the web."""
    kind = tool.get("type")
    return not _SEARCHES.isdisjoint(tool) or (
        isinstance(kind, str) and kind.startswith("web_search")
    )


def _list(value: Any) -> Iterator[Mapping[str, Any]]:
    return (one for one in (value if isinstance(value, list) else ()) if isinstance(one, Mapping))


def _is_audio(part: Mapping[str, Any]) -> bool:
    data = part.get("inlineData")  # Gemini's
    kind = str(data.get("mimeType")) if isinstance(data, Mapping) else ""
    return part.get("type") in ("input_audio", "audio") or kind.startswith("audio/")


_TURNS = (("messages", "content"), ("input", "content"), ("contents", "parts"))
"""Names of the turns in a body, and of what is in one, by wire: the last are Gemini's."""


def _parts(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for messages, parts in _TURNS:
        for message in _list(body.get(messages)):
            yield from _list(message.get(parts))


def _marked(body: Mapping[str, Any], parts: list[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield what may have a cache breakpoint: the body, parts of messages, and what else has parts."""
    yield body
    yield from parts
    for name in ("system", "tools"):
        yield from _list(body.get(name))


def _lacks_lives(usage: Usage, raw: Mapping[str, Any]) -> bool:
    """Return whether some of the tokens written to the cache are counted under no life.

    Anthropic has sent zeros for both lives beside their sum (anthropics/anthropic-sdk-java#353).
    """
    written, hour = usage.cache_write_tokens, usage.cache_write_1h_tokens
    if not written or hour is None:
        return bool(written)
    short = number_in(at_path(raw, _SHORT_LIVED))
    return short is not None and short + hour < written


_SHORT_LIVED = ("cache_creation", "ephemeral_5m_input_tokens")


def charged(
    usage: Usage,
    asked: Asked,
    metadata: Mapping[str, Any],
    *,
    choices: int,
    content: bool,
    images: bool = False,
    cited: bool = False,
) -> Usage:
    """Return a usage with what decides its price beside it.

    ``metadata`` is that of the answer: OpenAI's servers name the tier beside the usage. A tier that
    was asked for and that the answer does not confirm is in doubt, and so is the output of several
    choices, unless the server is known to count all of them (llama.cpp counts one). ``content`` is
    true if there was any: its tokens can't be none. ``images`` and ``cited`` say that it has pictures,
    and citations of pages: what is charged for those at a rate of its own is in doubt without a count.
    """
    raw = usage.raw or {}
    counted = usage.completion_tokens or not content
    plain = counted and asked.plain and choices <= 1 and not (images or cited)  # almost always
    if plain:  # nearly every answer names its tier, be it in one place only
        outside = TERMS.isdisjoint(raw)
        none = TERMS.isdisjoint(metadata)
        if outside and none:
            return usage
        told = metadata if outside else raw
        word, place = told.get("service_tier"), told.get("inference_geo", "")
        usual = (outside or none) and _RARE.isdisjoint(told)
        if usual and type(word) is str and type(place) is str:
            # Cut, since the cache would keep a server's words of any length.
            tier = _tier_named(word[:TERM_CHARS], place[:TERM_CHARS], asked.anthropic)
            same = tier == usage.service_tier
            return usage if same else msgspec.structs.replace(usage, service_tier=tier)
    answered = {**terms_in(metadata), **terms_in(raw)}
    tier, doubts = asked.tier({**asked.terms, **answered}), dict(usage.doubts or {})
    named = [word for word in (metadata.get("service_tier"), raw.get("service_tier")) if word]
    words = all(isinstance(word, str) for word in named)
    if plain and words:
        same = tier == usage.service_tier
        return usage if same else msgspec.structs.replace(usage, service_tier=tier)
    unconfirmed = {name: word for name, word in asked.terms.items() if name not in answered}
    wanted = asked.tier(unconfirmed)
    if wanted not in (None, STANDARD):
        doubts["service_tier"] = f"{wanted} was requested, and the answer does not confirm it"
    if not words:
        doubts["service_tier"] = f"it{UNREADABLE}"
    if max(choices, asked.choices) > 1 and not asked.counts_all:
        doubts["completion_tokens"] = "it may count only one of several choices"
    if content and usage.completion_tokens == 0:
        doubts["completion_tokens"] = "an answer of no tokens"
    uncounted = {
        "audio_input_tokens": asked.audio and usage.audio_input_tokens is None,
        "image_output_tokens": images and usage.image_output_tokens is None,
        "cache_write_1h_tokens": asked.hour and _lacks_lives(usage, raw),
        "web_searches": (asked.search or cited) and usage.web_searches is None,
    }
    doubts |= {field: _UNCOUNTED for field, there in uncounted.items() if there}
    if tier == usage.service_tier and doubts == (usage.doubts or {}):
        return usage
    return msgspec.structs.replace(usage, service_tier=tier, doubts=doubts or None)
