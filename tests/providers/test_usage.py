"""Usage objects of all servers: what is read, what is in doubt, and how they are merged."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import CostResolution, StreamChunk, TokenPrice, Usage
from trio_minillm._protocol.ingest import Ingest
from trio_minillm.providers import OpenAIChat
from trio_minillm.providers import _usage as usage_module
from trio_minillm.providers._charged import Asked, asked_of, charged
from trio_minillm.providers._pricing import priced_cost
from trio_minillm.providers._usage import anthropic_usage, gemini_usage, openai_usage

PRICE = TokenPrice(input=1, output=10, cache_read=0.1, cache_write=1.25)
READERS = {"openai": openai_usage, "anthropic": anthropic_usage}


def buckets(usage: Usage) -> tuple[int | None, ...]:
    """Uncached, read, written, output."""
    return (
        usage.uncached_input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_tokens,
        usage.completion_tokens,
    )


def resolution(usage: Usage, price: TokenPrice = PRICE) -> str:
    usage.final = True
    return str(priced_cost(usage, price).resolution)


@pytest.mark.parametrize("read", READERS.values())
@pytest.mark.parametrize("raw", [[1], "12", 7, True])
def test_usage_that_is_no_object_is_in_doubt(read: Any, raw: Any) -> None:
    usage = read(raw)
    assert buckets(usage) == (None, None, None, None)
    assert usage.doubts == {"total_tokens": "it is not an object"}
    assert resolution(usage) == "unknown"


def test_a_cache_under_the_other_wires_name_is_in_doubt_if_a_total_leaves_it_out() -> None:
    raw = {"input_tokens": 100, "output_tokens": 5, "cache_read_input_tokens": 50}
    assert openai_usage(raw).doubts is None
    usage = openai_usage(raw | {"total_tokens": 105})
    assert usage.doubts == {"cache_read_tokens": "the cache's tokens may be part of the input"}
    assert buckets(usage) == (100, 50, None, 5)


# -- what servers send -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "found", "sure"),
    [
        # A total that shows thinking: Gemini's servers have it there alone.
        (
            {"prompt_tokens": 20, "completion_tokens": 198, "total_tokens": 623},
            (20, None, None, 603),
            True,
        ),
        (
            {
                "prompt_tokens": 21,
                "completion_tokens": 0,
                "total_tokens": 81,
                "completion_tokens_details": {"reasoning_tokens": 60},
            },
            (21, None, None, 60),
            True,
        ),
        # The names of Vercel's AI SDK.
        (
            {
                "inputTokens": 100,
                "outputTokens": 20,
                "totalTokens": 120,
                "reasoningTokens": 5,
                "cachedInputTokens": 64,
            },
            (36, 64, None, 20),
            False,  # with Claude, the cache's tokens are beside the input
        ),
        (
            {
                "inputTokens": 100,
                "cachedInputTokens": 64,
                "inputTokenDetails": {
                    "noCacheTokens": 26,
                    "cacheReadTokens": 64,
                    "cacheWriteTokens": 10,
                },
                "outputTokens": 20,
                "outputTokenDetails": {"textTokens": 15, "reasoningTokens": 5},
                "totalTokens": 120,
            },
            (26, 64, 10, 20),
            True,
        ),
        # A total with something else in it.
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "guard_tokens": 30,
                "total_tokens": 150,
            },
            (100, None, None, 20),
            False,
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 620,
                "prompt_tokens_details": {"video_tokens": 500},
            },
            (100, None, None, 20),
            False,
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 20,
                "total_tokens": 200,
                "completion_tokens_details": {"reasoning_tokens": 7},
            },
            (100, None, None, 20),
            False,
        ),
        (  # more reasoning than there is output
            {
                "prompt_tokens": 1,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            (1, None, None, 5),
            False,
        ),
        # Cache tokens under the names of Anthropic's wire, inside the prompt and beside it.
        (
            {
                "prompt_tokens": 10100,
                "completion_tokens": 5,
                "total_tokens": 10105,
                "cache_read_input_tokens": 10000,
                "cache_creation_input_tokens": 0,
            },
            (100, 10000, 0, 5),
            True,
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "cache_read_input_tokens": 1000},
            (10, 1000, None, 5),
            True,
        ),
        (
            {
                "prompt_tokens": 5000,
                "completion_tokens": 5,
                "total_tokens": 9005,
                "cache_read_input_tokens": 3000,
                "cache_creation_input_tokens": 1000,
            },
            (5000, 3000, 1000, 5),
            True,
        ),
        (
            {"input_tokens": 10, "output_tokens": 5, "cache_read_input_tokens": 7},
            (10, 7, None, 5),
            True,
        ),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 60},
                "cache_creation_input_tokens": 30,
            },
            (10, 60, 30, 5),
            True,
        ),
        (  # a zero under OpenAI's name does not hide the other's count
            {
                "prompt_tokens": 100,
                "completion_tokens": 5,
                "total_tokens": 105,
                "prompt_tokens_details": {"cached_tokens": 0},
                "cache_read_input_tokens": 90,
            },
            (10, 90, None, 5),
            True,
        ),
        (  # more cached than there is, and a total without it
            {
                "prompt_tokens": 235,
                "completion_tokens": 90,
                "total_tokens": 325,
                "prompt_tokens_details": {"cached_tokens": 373},
            },
            (0, 235, None, 90),
            False,
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 12},
            },
            (0, 10, None, 1),
            False,
        ),
        # Other families of names.
        (
            {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 135,
                "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 20,
            },
            (10, 100, 20, 5),
            True,
        ),
        ({"promptTokens": 10, "completionTokens": 5, "totalTokens": 15}, (10, None, None, 5), True),
        (
            {
                "promptTokenCount": 100,
                "candidatesTokenCount": 5,
                "thoughtsTokenCount": 60,
                "cachedContentTokenCount": 40,
                "totalTokenCount": 165,
            },
            (60, 40, None, 65),
            True,
        ),
        ({"promptTokens": 5, "completionTokens": 7, "totalTokens": 12}, (5, None, None, 7), True),
        (
            {"promptTokenCount": 1, "candidatesTokenCount": 5, "thoughtsTokenCount": 60},
            (1, None, None, 65),
            True,
        ),
        (
            {
                "billed_units": {"input_tokens": 5, "output_tokens": 7},
                "tokens": {"input_tokens": 71, "output_tokens": 9},
            },
            (5, None, None, 7),
            True,
        ),
        (
            {
                "completion_tokens": 1,
                "prompt_cache_hit_tokens": 7,
                "prompt_cache_miss_tokens": 3,
            },
            (3, 7, None, 1),
            True,
        ),
        ({"prompt_tokens": 9, "completion_tokens": 1, "cached_tokens": 4}, (5, 4, None, 1), True),
        # Numbers in other clothes.
        ({"prompt_tokens": "12", "completion_tokens": 7.0}, (12, None, None, 7), True),
        # A prompt always has tokens.
        ({"prompt_tokens": 0, "completion_tokens": 7}, (0, None, None, 7), False),
        # Charges that no rate covers.
        (
            {"prompt_tokens": 1, "completion_tokens": 7, "citation_tokens": 5000},
            (1, None, None, 7),
            False,
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 7, "search_context_size": "low"},
            (1, None, None, 7),
            False,
        ),
    ],
)
def test_the_counts_of_the_openai_family(
    raw: dict[str, Any], found: tuple[int | None, ...], sure: bool
) -> None:
    usage = openai_usage(raw)
    assert buckets(usage) == found
    assert usage.raw == raw
    assert resolution(usage) == ("resolved" if sure else "lower_bound")
    assert bool(usage.doubts) is not sure


@pytest.mark.parametrize(
    ("raw", "cost"),
    [
        ({"cost": 0.5}, 0.5),
        ({"cost": 0}, 0.0),
        ({"cost": "0.25"}, 0.25),
        ({"cost": {"total_cost": 0.5, "request_cost": 0.1}}, 0.5),
        ({"estimated_cost": 0.00042}, 0.00042),
        ({"total_cost": 0.1}, 0.1),
        ({"response_cost": 0.1}, 0.1),
        ({"cost_details": {"total_cost": 0.1}}, 0.1),
        ({"estimated_cost": 0}, None),  # not known, rather than nothing
        ({"cost": -1}, None),
        ({"cost": True}, None),
        ({"cost": "free"}, None),
        ({"cost": 1e13}, None),
        ({"cost": math.nan}, None),
        ({"cost": 0.5, "currency": "EUR"}, None),
        ({"cost": {"total_cost": 0.5, "currency": "EUR"}}, None),
        ({"cost": 0.5, "currency": "USD"}, 0.5),
        ({"cost": "?", "estimated_cost": 0.5}, 0.5),
    ],
)
def test_the_fields_in_which_a_cost_is_named(raw: dict[str, Any], cost: float | None) -> None:
    assert openai_usage(raw).cost == cost


@pytest.mark.parametrize("cost", ["free", -1, {"total_cost": "?"}])
def test_a_cost_that_cannot_be_read_costs_itself(cost: Any) -> None:
    usage = openai_usage({"prompt_tokens": 1, "completion_tokens": 1, "cost": cost})
    assert usage.doubts is not None
    assert usage.doubts.keys() == {"cost"}
    assert resolution(usage) == "resolved"  # usage times price


UNREADABLE = [-1, "many", "", True, [], {}, [5], 1.5, 1.7e308, 2**53, 10**400, math.nan, math.inf]


@pytest.mark.parametrize("bad", UNREADABLE, ids=lambda b: f"{b!r:.20}")
@pytest.mark.parametrize(
    ("wire", "name", "field"),
    [
        ("openai", "prompt_tokens", "uncached_input_tokens"),
        ("openai", "completion_tokens", "completion_tokens"),
        ("openai", "cached_tokens", "cache_read_tokens"),
        ("anthropic", "input_tokens", "uncached_input_tokens"),
        ("anthropic", "output_tokens", "completion_tokens"),
        ("anthropic", "cache_read_input_tokens", "cache_read_tokens"),
        ("anthropic", "cache_creation_input_tokens", "cache_write_tokens"),
    ],
)
def test_a_count_that_is_none_is_in_doubt(wire: str, name: str, field: str, bad: Any) -> None:
    whole = {"openai": {"prompt_tokens": 9, "completion_tokens": 9}}
    whole["anthropic"] = {"input_tokens": 9, "output_tokens": 9}
    usage = READERS[wire]({**whole[wire], name: bad})
    assert getattr(usage, field) is None
    assert usage.doubts is not None
    assert name in usage.doubts[field]
    assert resolution(usage) in ("unknown", "lower_bound")


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt_tokens_details": {"audio_tokens": -1}},
        {"prompt_tokens_details": {"image_tokens": "many"}},
        {"completion_tokens_details": {"audio_tokens": True}},
        {"completion_tokens_details": {"image_tokens": 1e300}},
        {"server_tool_use": {"web_search_requests": []}},
        {"completion_tokens_details": {"reasoning_tokens": "some"}},
        {"total_tokens": "x"},
    ],
)
def test_a_part_that_cannot_be_read_matters_if_it_has_a_rate_of_its_own(raw: Any) -> None:
    usage = openai_usage({"prompt_tokens": 9, "completion_tokens": 9, **raw})
    assert usage.doubts is not None
    (field,) = usage.doubts
    assert getattr(usage, field) in (None, 18)
    searched = field == "web_searches"
    assert resolution(usage) == ("lower_bound" if searched else "resolved")
    dear = msgspec.structs.replace(
        PRICE, audio_input=3, image_input=3, audio_output=30, image_output=30
    )
    aside = field in ("reasoning_tokens", "total_tokens")
    assert resolution(usage, dear) == ("resolved" if aside else "lower_bound")


def test_a_lower_bound_is_one_when_the_split_of_the_input_is_in_doubt() -> None:
    usage = openai_usage({"prompt_tokens": 1_000_000, "completion_tokens": 0, "cached_tokens": "?"})
    assert priced_cost(usage, PRICE).amount == Decimal(
        "0.1"
    )  # if all of it was read from the cache


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
NAMES = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
    *("prompt_tokens_details", "completion_tokens_details", "cached_tokens", "cost", "speed"),
    *("cache_read_input_tokens", "cache_creation_input_tokens", "service_tier", "cost_details"),
    *("cache_creation", "server_tool_use", "cost_in_usd_ticks", "billed_units", "currency"),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "inputTokens"),
)


@given(
    st.sampled_from(sorted(READERS)),
    json_values | st.dictionaries(st.sampled_from(NAMES), json_values | st.integers(0, 100)),
)
def test_no_usage_raises_or_has_a_negative_bucket(wire: str, raw: Any) -> None:
    usage = READERS[wire](raw)
    assert all(n is None or n >= 0 for n in buckets(usage))
    cost = priced_cost(usage, PRICE)
    assert cost.resolution is not CostResolution.RESOLVED  # it is not final
    merged = Usage()
    merged.merge_from(usage)
    merged.merge_from(READERS[wire](raw))
    assert buckets(merged) == buckets(usage)


counts = st.none() | st.integers(0, 1000)


@given(*[counts] * 6)
def test_buckets_are_disjoint(
    prompt: Any, cached: Any, written: Any, completion: Any, reasoning: Any, total: Any
) -> None:
    usage = openai_usage(
        {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": total,
            "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }
    )
    assert all(n is None or n >= 0 for n in buckets(usage))
    if completion is None:
        assert usage.completion_tokens is None
    if prompt is None:
        return
    inside = usage.prompt_tokens == prompt
    apart = {prompt + n for n in ((cached or 0), (written or 0), (cached or 0) + (written or 0))}
    assert inside or usage.prompt_tokens in apart
    if not inside:  # only if the server shows it
        shown = total is not None and completion is not None and total > prompt + completion
        assert shown or usage.doubts
    if usage.doubts is None and total and completion is not None and total >= prompt + completion:
        assert usage.total_tokens == total


@given(*[counts] * 3, st.booleans())
def test_a_resolved_cost_has_all_its_counts(
    prompt: Any, completion: Any, cached: Any, unreadable: bool
) -> None:
    raw: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion}
    raw["cached_tokens"] = "?" if unreadable else cached
    usage = openai_usage(raw)
    usage.final = True
    if priced_cost(usage, PRICE).resolution is CostResolution.RESOLVED:
        assert prompt is not None
        assert completion is not None
        assert not unreadable
        assert usage.counted


# -- objects that say nothing ----------------------------------------------------------------

NULLS = {"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}
ZEROS = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}


TOP = 2**53 - 1
odd_counts = st.integers(0, 6) | st.sampled_from((None, True, 2.0, "3", -1, TOP, TOP + 1, [], "x"))
INPUT = ("cached_tokens", "audio_tokens", "image_tokens", "text_tokens")
OUTPUT = ("reasoning_tokens", "audio_tokens", "accepted_prediction_tokens", "image_tokens")


def details(names: tuple[str, ...]) -> st.SearchStrategy[Any]:
    few = st.dictionaries(st.sampled_from(names), st.integers(0, 6))
    many = st.dictionaries(st.sampled_from(names), odd_counts)
    return few | many | st.sampled_from((None, [], 0, "x"))


@given(st.data())
def test_a_plain_usage_is_read_as_any_is(data: st.DataObject) -> None:
    prompt, completion = data.draw(odd_counts), data.draw(odd_counts)
    raw = {"prompt_tokens": prompt, "completion_tokens": completion}
    total = data.draw(st.sampled_from(("right", "any", "none")))
    if total == "right" and type(prompt) is int and type(completion) is int:
        raw["total_tokens"] = prompt + completion
    elif total == "any":
        raw["total_tokens"] = data.draw(odd_counts)
    for name, names in (("prompt", INPUT), ("completion", OUTPUT)):
        if data.draw(st.booleans()):
            raw[f"{name}_tokens_details"] = data.draw(details(names))
    assert_read_alike(raw)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"prompt_tokens_details": {"cached_tokens": 2}},
        {"completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": 0}},
        {"prompt_tokens_details": {"cached_tokens": 8}},
        {"prompt_tokens_details": {"cached_tokens": None}},
        {"prompt_tokens_details": {"image_tokens": 1}},
        {"prompt_tokens_details": [1]},
        {"prompt_tokens": TOP, "total_tokens": TOP + 5},
        {"total_tokens": 11},
        {"total_tokens": None},
        {"prompt_tokens": 0, "total_tokens": 5},
        {"prompt_tokens": "7"},
        {"cost": 1},
    ],
)
def test_a_usage_that_is_all_but_plain(more: dict[str, Any]) -> None:
    assert_read_alike({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, **more})


ANTHROPICS = (
    *("input_tokens", "output_tokens"),
    *("cache_read_input_tokens", "cache_creation_input_tokens"),
)


@given(
    st.dictionaries(
        st.sampled_from((*ANTHROPICS, *ANTHROPICS, "cache_creation", "service_tier", "cost")),
        st.integers(0, 9) | odd_counts,
        max_size=5,
    )
)
def test_a_plain_usage_of_anthropics_is_read_as_any_is(raw: dict[str, Any]) -> None:
    assert_read_alike(raw, "anthropic")


LIVES = ("ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "ephemeral_2h_input_tokens")
ANTHROPIC_ODD = st.sampled_from((None, True, -1, 1.5, 2**53, "3", "x", [], {}))
ANTHROPIC_COUNTS = st.sampled_from((0, 0, 1, 2, 5)) | ANTHROPIC_ODD


@given(
    st.fixed_dictionaries(
        {},
        optional={
            **dict.fromkeys(ANTHROPICS, ANTHROPIC_COUNTS),
            "cache_creation": st.dictionaries(st.sampled_from(LIVES), ANTHROPIC_COUNTS)
            | ANTHROPIC_ODD,
            "service_tier": st.sampled_from(("standard", "Standard", "priority", "batch", "", 5)),
            "inference_geo": st.sampled_from(("global", "not_available", "us", "", None, [])),
            "speed": st.sampled_from(("standard", "fast", None)),
            "server_tool_use": st.just({"web_search_requests": 1}),
        },
    )
)
def test_a_usage_of_anthropics_with_terms_is_read_as_any_is(raw: dict[str, Any]) -> None:
    assert_read_alike(raw, "anthropic")


WITH_LIVES = {
    **dict.fromkeys(ANTHROPICS, 5),
    "cache_creation": {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 3},
    "service_tier": "standard",
    "inference_geo": "global",
}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"cache_creation": {}},
        {"cache_creation": {"ephemeral_5m_input_tokens": 2}},
        {"cache_creation": {"ephemeral_1h_input_tokens": 6}},
        {"cache_creation": {"ephemeral_1h_input_tokens": "3"}},
        {"cache_creation": None},
        {"cache_creation": 5},
        {"cache_creation_input_tokens": 0},
        {"cache_creation_input_tokens": "5"},
        {"service_tier": None},
        {"service_tier": "priority"},
        {"service_tier": ["standard"]},
        {"inference_geo": "us"},
        {"inference_geo": "not_available"},
        {"speed": "fast"},
        {**dict.fromkeys(ANTHROPICS, 0), "cache_creation": {}},
        {**dict.fromkeys(ANTHROPICS, 0), "cache_creation": {"ephemeral_5m_input_tokens": 1}},
    ],
)
def test_a_usage_of_anthropics_that_is_all_but_plain(more: dict[str, Any]) -> None:
    assert_read_alike({**WITH_LIVES, **more}, "anthropic")
    without = {name: count for name, count in WITH_LIVES.items() if name not in ANTHROPICS}
    assert_read_alike({**without, **more}, "anthropic")


def test_a_usage_as_anthropic_opens_with_is_plain() -> None:
    assert usage_module._plain_anthropic_usage(WITH_LIVES) == Usage(
        uncached_input_tokens=5,
        cache_read_tokens=5,
        cache_write_tokens=5,
        completion_tokens=5,
        cache_write_1h_tokens=3,
        service_tier="standard",
        raw=WITH_LIVES,
    )


@given(
    st.fixed_dictionaries(
        {"promptTokenCount": st.integers(0, 9)},
        optional={
            "candidatesTokenCount": st.integers(0, 9) | odd_counts,
            "cacheTokensDetails": st.lists(st.just({"modality": "TEXT"}), max_size=2) | odd_counts,
            "thoughtsTokenCount": st.integers(0, 9) | odd_counts,
            "cachedContentTokenCount": st.integers(0, 9),
            "toolUsePromptTokenCount": st.integers(0, 9),
            "promptTokensDetails": st.lists(
                st.fixed_dictionaries(
                    {"modality": st.sampled_from(("TEXT", "AUDIO")), "tokenCount": odd_counts}
                ),
                max_size=2,
            ),
        },
    ),
    st.sampled_from(("right", "wrong", "none")),
)
def test_a_plain_usage_of_gemini_is_read_as_any_is(raw: dict[str, Any], total: str) -> None:
    given = (raw.get(f"{name}TokenCount", 0) for name in ("prompt", "candidates", "thoughts"))
    if total != "none":
        found = sum(count for count in given if type(count) is int)
        raw["totalTokenCount"] = found + (total == "wrong")
    assert_read_alike(raw, "gemini")


def assert_read_alike(raw: dict[str, Any], wire: str = "openai") -> None:
    def fields(usage: Usage) -> str:
        return repr(msgspec.structs.asdict(usage))  # tells 1 and True apart

    with pytest.MonkeyPatch.context() as monkeypatch:
        reader = gemini_usage if wire == "gemini" else READERS[wire]
        read = fields(reader(raw))
        monkeypatch.setattr(usage_module, "_plain_usage", lambda raw: None)
        monkeypatch.setattr(usage_module, "_plain_anthropic_usage", lambda raw: None)
        monkeypatch.setattr(usage_module, "_plain_gemini_usage", lambda raw: None)
        assert read == fields(reader(raw))


OPENED = {"input_tokens": 9, "cache_read_input_tokens": 0, "output_tokens": 1}


@pytest.mark.parametrize(
    "first",
    [
        OPENED,
        WITH_LIVES,
        {**OPENED, "server_tool_use": {"web_search_requests": 2}},
        {**OPENED, "output_tokens": 0},
        {**OPENED, "cache_read_input_tokens": "many"},
        {**OPENED, "input_tokens": 0},
        {**OPENED, **{f"field {number}": 1 for number in range(300)}},
        {"input_tokens": 9},
        {"output_tokens": 1},
    ],
)
@pytest.mark.parametrize("made", [0, 1, 7, None])
@pytest.mark.parametrize(
    "more", [{}, {"input_tokens": 9}, {"input_tokens": 8}, {"cache_creation_input_tokens": 5}]
)
def test_output_that_is_all_that_is_new_is_merged_as_any_is(
    first: dict[str, Any], made: int | None, more: dict[str, Any]
) -> None:
    def both() -> Usage:
        usage = msgspec.structs.replace(anthropic_usage(first))
        usage.merge_from(anthropic_usage({**more, "output_tokens": made}))
        return usage

    with pytest.MonkeyPatch.context() as monkeypatch:
        usage = both()
        monkeypatch.setattr(usage_module, "_plain_anthropic_usage", lambda raw: None)
        assert repr(usage) == repr(both())


@pytest.mark.parametrize("made", [0, 5])
@pytest.mark.parametrize("prompt", [{}, {"input_tokens": 0}, {"cache_read_input_tokens": 4}])
def test_a_prompt_of_no_tokens_is_none_that_is_absent(prompt: dict[str, int], made: int) -> None:
    raw = {**prompt, "output_tokens": made}
    assert_read_alike(raw, "anthropic")
    assert ((anthropic_usage(raw).doubts or {}) != {}) is (prompt == {"input_tokens": 0})


@pytest.mark.parametrize("raw", [NULLS, {}, {"queue_time": 1.5}])
def test_an_object_that_says_nothing_is_no_usage(raw: dict[str, Any]) -> None:
    assert openai_usage(raw).empty
    event = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": raw}
    parsed = OpenAIChat().parse_chunk(msgspec.json.encode(event))
    assert isinstance(parsed, StreamChunk)
    assert parsed.usage is None


@pytest.mark.parametrize("reader", READERS.values())
def test_zeros_in_place_of_counts_cost_nobody_knows_what(reader: Any) -> None:
    zeros = reader({**ZEROS, "input_tokens": 0, "output_tokens": 0})
    assert buckets(zeros) == (0, None, None, 0)
    assert resolution(zeros) == "unknown"


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 0}, True),
        ({"prompt_tokens": 5}, False),
        ({"completion_tokens": 5}, False),
        ({"total_tokens": 5}, False),
    ],
)
def test_half_a_usage_is_not_counted(usage: dict[str, Any], counted: bool) -> None:
    assert openai_usage(usage).counted is counted


@pytest.mark.parametrize(
    "choice",
    [
        {"usage": {"prompt_tokens": 3, "completion_tokens": 4}},
        {"delta": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}},
        {"message": {"usage": {"prompt_tokens": 3, "completion_tokens": 4}}},
    ],
)
def test_usage_in_a_choice(choice: dict[str, Any]) -> None:
    event = {"choices": [{"delta": {}, "finish_reason": "stop", **choice}], "usage": None}
    parsed = OpenAIChat().parse_chunk(msgspec.json.encode(event))
    assert isinstance(parsed, StreamChunk)
    assert parsed.usage is not None
    assert parsed.usage.total_tokens == 7
    whole = OpenAIChat().parse_chunk(
        msgspec.json.encode({**event, "usage": {"prompt_tokens": 8, "completion_tokens": 9}})
    )
    assert isinstance(whole, StreamChunk)
    assert whole.usage is not None
    assert whole.usage.total_tokens == 17  # that of the whole answer counts more


# -- merging ---------------------------------------------------------------------------------


def merged(reader: Any, *raws: Mapping[str, Any]) -> Usage:
    out = Usage()
    for raw in raws:
        out.merge_from(reader(raw))
    return out


WHOLE = {
    "openai": {
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "total_tokens": 1120,
        "prompt_tokens_details": {"cached_tokens": 600, "cache_write_tokens": 300},
        "completion_tokens_details": {"reasoning_tokens": 100},
        "cost": 0.5,
    },
    "anthropic": {
        "input_tokens": 3,
        "output_tokens": 40,
        "cache_read_input_tokens": 500,
        "cache_creation_input_tokens": 60,
        "cache_creation": {"ephemeral_1h_input_tokens": 50},
        "service_tier": "standard",
    },
}


@pytest.mark.parametrize("wire", sorted(WHOLE))
@given(data=st.data())
def test_a_split_usage_is_the_whole_in_any_order(wire: str, data: st.DataObject) -> None:
    whole, reader = WHOLE[wire], READERS[wire]
    names = data.draw(st.permutations(sorted(whole)))
    cut = data.draw(st.integers(0, len(names)))
    pieces = [{n: whole[n] for n in names[:cut]}, {n: whole[n] for n in names[cut:]}]
    if data.draw(st.booleans()):  # what a piece lacks is null, or zero
        pieces = [{**dict.fromkeys(names, None), **piece} for piece in pieces]
    if data.draw(st.booleans()):
        zeros = {n: 0 for n in names if isinstance(whole[n], int)}
        pieces = [{**zeros, **{k: v for k, v in p.items() if v is not None}} for p in pieces]
    found = merged(reader, *pieces)
    assert buckets(found) == buckets(reader(whole))
    assert (found.reasoning_tokens, found.cost) == (
        reader(whole).reasoning_tokens,
        reader(whole).cost,
    )
    assert found.doubts is None


@given(st.lists(st.dictionaries(st.sampled_from(sorted(WHOLE["anthropic"])[2:5]), counts)))
def test_merging_never_takes_a_count_away(raws: list[dict[str, Any]]) -> None:
    found = merged(anthropic_usage, *raws)
    for name in ("input_tokens", "cache_read_input_tokens"):
        told = [raw[name] for raw in raws if raw.get(name)]
        moved = name == "input_tokens" and found.cache_read_tokens  # all of the prompt
        assert (found.raw or {}).get(name) in (
            [told[-1], *[0] * bool(moved)] if told else [None, 0]
        )


def test_a_zero_does_not_replace_a_count() -> None:
    found = merged(
        openai_usage,
        {"prompt_tokens": 5, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 2}},
        {**ZEROS, "prompt_tokens_details": {"cached_tokens": 0}},
    )
    assert buckets(found) == (3, 2, None, 7)
    assert found.raw == {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 0,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    lower = merged(openai_usage, {"completion_tokens": 7}, {"completion_tokens": 6})
    assert lower.completion_tokens == 6  # a correction


@pytest.mark.parametrize(
    ("later", "found", "cost"),
    [
        ({"input_tokens": 0, "cache_read_input_tokens": 100}, (0, 100, None, 7), "resolved"),
        ({"input_tokens": 0, "cache_creation_input_tokens": 100}, (0, None, 100, 7), "resolved"),
        ({"input_tokens": 0, "cache_read_input_tokens": 140}, (100, 140, None, 7), "resolved"),
        ({"input_tokens": 0, "cache_read_input_tokens": 60}, (100, 60, None, 7), "resolved"),
        ({"input_tokens": 0}, (100, None, None, 7), "resolved"),
        ({"input_tokens": 20, "cache_read_input_tokens": 80}, (20, 80, None, 7), "resolved"),
        ({"cache_read_input_tokens": 100}, (100, 100, None, 7), "resolved"),
    ],
)
def test_a_prompt_that_is_in_a_cache_after_all_is_counted_once(
    later: dict[str, int], found: tuple[int | None, ...], cost: str
) -> None:
    first = {"input_tokens": 100, "output_tokens": 1}
    usage = merged(anthropic_usage, first, {**later, "output_tokens": 7})
    assert (buckets(usage), resolution(usage)) == (found, cost)


def test_a_refusal_at_anthropic_ends_with_no_output() -> None:
    found = merged(anthropic_usage, {"input_tokens": 20, "output_tokens": 1}, {"output_tokens": 0})
    assert buckets(found) == (20, None, None, 0)


def test_a_count_behind_one_that_cannot_be_read() -> None:
    good, bad = {"prompt_tokens": 5, "completion_tokens": 7}, {"completion_tokens": "?"}
    assert merged(openai_usage, bad, good).doubts is None
    doubtful = merged(openai_usage, good, bad)
    assert doubtful.completion_tokens == 7
    assert resolution(doubtful) == "lower_bound"  # there may be more by now
    assert resolution(merged(openai_usage, good, bad, {"cost_usd": None})) == "lower_bound"
    assert resolution(merged(openai_usage, good, bad, good)) == "resolved"


def test_a_provider_of_ones_own_is_merged_field_by_field() -> None:
    usage = Usage(completion_tokens=7, uncached_input_tokens=3, doubts={"cost": "odd"})
    usage.merge_from(Usage(completion_tokens=0, cache_read_tokens=4, service_tier="flex"))
    assert buckets(usage) == (3, 4, None, 7)
    assert (usage.service_tier, usage.doubts) == ("flex", {"cost": "odd"})
    usage.merge_from(Usage(cost=0.5, doubts={"completion_tokens": "odd"}))
    assert usage.doubts == {"completion_tokens": "odd"}


def test_the_reader_is_no_part_of_the_value() -> None:
    usage = openai_usage({"prompt_tokens": 1})
    assert usage == Usage(uncached_input_tokens=1, raw={"prompt_tokens": 1})
    assert "reader" not in msgspec.json.encode(usage).decode()


# -- tiers and choices -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "raw", "tier"),
    [
        ("openai", {}, None),
        ("openai", {"service_tier": "auto"}, None),
        ("openai", {"service_tier": "default"}, "standard"),
        ("openai", {"service_tier": "on_demand"}, "standard"),
        ("openai", {"service_tier": "fast"}, "priority"),
        ("openai", {"service_tier": "Flex"}, "flex"),
        ("openai", {"service_tier": 5}, None),
        ("anthropic", {"service_tier": "standard", "inference_geo": "not_available"}, "standard"),
        ("anthropic", {"service_tier": "standard", "inference_geo": "us"}, "us"),
        (
            "anthropic",
            {"service_tier": "batch", "speed": "fast", "inference_geo": "us"},
            "batch+fast+us",
        ),
        ("anthropic", {"service_tier": "priority"}, "committed"),
        ("openai", {"extra_properties": {"google": {"traffic_type": "ON_DEMAND"}}}, "standard"),
        (
            "openai",
            {"extra_properties": {"google": {"traffic_type": "ON_DEMAND_PRIORITY"}}},
            "priority",
        ),
        (
            "openai",
            {"extra_properties": {"google": {"traffic_type": "PROVISIONED_THROUGHPUT"}}},
            "provisioned_throughput",
        ),
    ],
)
def test_the_tier_that_an_answer_names(wire: str, raw: dict[str, Any], tier: str | None) -> None:
    assert READERS[wire](raw).service_tier == tier


FLEX = TokenPrice(input=0.5, output=5, service_tier="flex")
PRIORITY = TokenPrice(input=2, output=20, service_tier="priority")
TIERED = TokenPrice(input=1, output=10, variants=(FLEX, PRIORITY))
ALONE = TokenPrice(input=1, output=10)
M = 1_000_000


@pytest.mark.parametrize(
    ("price", "served", "confirmed", "amount", "resolution"),
    [
        (TIERED, None, True, 1, "resolved"),
        (TIERED, "standard", True, 1, "resolved"),
        (TIERED, "flex", True, 0.5, "resolved"),
        (TIERED, "priority", True, 2, "resolved"),
        (TIERED, "us", True, 1, "lower_bound"),
        (TIERED, "committed", True, None, "unpriced"),
        (TIERED, "priority", False, 1, "lower_bound"),
        (TIERED, "flex", False, 0.5, "lower_bound"),
        (ALONE, "flex", True, None, "unpriced"),
        (ALONE, "priority", True, 1, "lower_bound"),
        (ALONE, "flex+us", True, None, "unpriced"),
        (ALONE, "priority", False, 1, "lower_bound"),
        (ALONE, "flex", False, None, "unpriced"),
        (FLEX, None, True, 0.5, "resolved"),
        (FLEX, "flex", True, 0.5, "resolved"),
        (FLEX, "flex", False, 0.5, "resolved"),  # the caller has given the price of what was asked
        (FLEX, "standard", True, None, "unpriced"),
        (PRIORITY, "standard", True, None, "unpriced"),
    ],
)
def test_an_answer_is_priced_by_the_tier_that_served_it(
    price: TokenPrice, served: str | None, confirmed: bool, amount: Any, resolution: str
) -> None:
    usage = Usage(uncached_input_tokens=M, completion_tokens=0, service_tier=served, final=True)
    usage.doubts = None if confirmed else {"service_tier": "asked for"}
    cost = priced_cost(usage, price)
    assert str(cost.resolution) == resolution
    assert (None if cost.amount is None else float(cost.amount)) == amount


@pytest.mark.parametrize(
    ("metadata", "more", "tier"),
    [
        ({}, {}, None),
        ({"service_tier": "flex"}, {}, "flex"),
        ({"service_tier": "default"}, {}, "standard"),
        ({}, {"service_tier": "flex"}, "flex"),
        ({"service_tier": "flex"}, {"service_tier": "priority"}, "priority"),
    ],
)
def test_the_tier_beside_the_usage_and_the_one_in_it(
    metadata: dict[str, Any], more: dict[str, Any], tier: str | None
) -> None:
    asked = asked_of(llm.openai("m", api_key="k"), {})
    for already in (None, "flex"):
        usage = openai_usage({"prompt_tokens": 3, "completion_tokens": 2, **more})
        usage.service_tier = already
        found = charged(usage, asked, metadata, choices=1, content=True)
        assert (found.service_tier, found.doubts) == (tier or already, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"service_tier": 5},
        {"service_tier": ""},
        {"variants": ("flex",)},
        {"variants": (FLEX, FLEX)},
        {"variants": (ALONE,)},
        {"service_tier": "flex", "variants": (FLEX,)},
    ],
)
def test_prices_of_tiers_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=r"service_tier|variants"):
        TokenPrice(input=1, output=1, **wrong)


OPENAI = llm.openai("m", api_key="k")
CLAUDE = llm.anthropic("m", api_key="k")


@pytest.mark.parametrize(
    ("model", "body", "raw", "metadata", "tier", "doubt"),
    [
        (OPENAI, {}, {}, {}, None, False),
        (OPENAI, {}, {}, {"service_tier": "priority"}, "priority", False),
        (OPENAI, {"service_tier": "flex"}, {}, {"service_tier": "default"}, "standard", False),
        (OPENAI, {"service_tier": "flex"}, {}, {"service_tier": "flex"}, "flex", False),
        (OPENAI, {"service_tier": "flex"}, {}, {}, "flex", True),
        (OPENAI, {"service_tier": "default"}, {}, {}, "standard", False),
        (OPENAI, {"service_tier": "auto"}, {}, {}, None, False),
        (CLAUDE, {"speed": "fast"}, {"service_tier": "standard"}, {}, "fast", True),
        (CLAUDE, {"speed": "fast"}, {"speed": "standard"}, {}, "standard", False),
        (CLAUDE, {"speed": "fast"}, {"speed": "fast"}, {}, "fast", False),
        (CLAUDE, {"inference_geo": "us"}, {"inference_geo": "us"}, {}, "us", False),
    ],
)
def test_a_tier_that_was_asked_for_and_not_confirmed_is_in_doubt(
    model: llm.Model, body: Any, raw: Any, metadata: Any, tier: str | None, doubt: bool
) -> None:
    usage = (anthropic_usage if model is CLAUDE else openai_usage)(raw)
    found = charged(usage, asked_of(model, body), metadata, choices=1, content=False)
    assert found.service_tier == tier
    assert ("service_tier" in (found.doubts or {})) is doubt


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        (OPENAI, True),
        (llm.openai("m", api_key="k", base_url="https://eu.api.openai.com/v1"), True),
        (llm.openai("m", api_key="k", base_url="http://127.0.0.1:1/v1"), False),
        (llm.compatible("m", base_url="http://127.0.0.1:1/v1"), False),
        (llm.compatible("m", base_url="http://127.0.0.1:1/v1", server="llama.cpp"), False),
        (llm.compatible("m", base_url="http://127.0.0.1:1/v1", server="vllm"), True),
        (llm.compatible("m", base_url="https://x.openai.azure.com/openai/v1", api_key="k"), True),
    ],
)
def test_several_choices_are_counted_all_or_in_doubt(model: llm.Model, counts: bool) -> None:
    usage = openai_usage({"prompt_tokens": 5, "completion_tokens": 7})
    several = charged(usage, asked_of(model, {"n": 2}), {}, choices=2, content=True)
    assert resolution(several) == ("resolved" if counts else "lower_bound")
    assert charged(usage, asked_of(model, {}), {}, choices=1, content=True) is usage
    assert [asked_of(model, {"n": n}).choices for n in (3, 0, -1, True, "2")] == [3, 1, 1, 1, 1]


def test_choices_that_nobody_asked_for_are_in_doubt_too() -> None:
    ingest = Ingest(model="m", expect_usage=True, asked=Asked())
    for choice, usage in itertools.zip_longest(range(2), [None]):
        ingest.ingest(StreamChunk("a", choice=choice, finish_reason="stop", usage=usage))
    last = StreamChunk(progress=False)
    last.usage = openai_usage({"prompt_tokens": 5, "completion_tokens": 7})
    ingest.ingest(last)
    response = ingest.response()
    assert response.usage is not None
    assert response.usage.doubts is not None
    assert any("one of several choices" in note for note in response.notes)
    assert ingest.usage is not None
    assert ingest.usage.doubts is None


def test_an_answer_of_no_tokens_is_in_doubt() -> None:
    usage = openai_usage({"prompt_tokens": 5, "completion_tokens": 0})
    said = charged(usage, Asked(), {}, choices=1, content=True)
    assert resolution(said) == "lower_bound"
    assert resolution(charged(usage, Asked(), {}, choices=1, content=False)) == "resolved"


@pytest.mark.parametrize(
    ("short", "hour", "doubted"),
    [
        (100, 0, False),
        (0, 100, False),
        (40, 60, False),
        (None, 100, False),
        (0, 0, True),
        (40, 0, True),
        (0, None, True),
    ],
)
def test_cache_writes_without_a_life_are_in_doubt(
    short: int | None, hour: int | None, doubted: bool
) -> None:
    lives = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour}
    counts = {"input_tokens": 9, "output_tokens": 5, "cache_creation_input_tokens": 100}
    usage = anthropic_usage({**counts, "cache_creation": lives})
    for asked in (Asked(hour=True), Asked()):
        found = charged(usage, asked, {}, choices=1, content=True).doubts or {}
        assert ("cache_write_1h_tokens" in found) is (doubted and asked.hour)


@pytest.mark.parametrize("total", [{}, {"cache_creation_input_tokens": None}])
def test_cache_writes_are_added_up_where_their_sum_is_left_out(total: dict[str, Any]) -> None:
    lives = {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 30}
    usage = anthropic_usage(
        {"input_tokens": 9, "output_tokens": 1, "cache_creation": lives, **total}
    )
    assert usage.cache_write_tokens == 50
    assert usage.cache_write_1h_tokens == 30
    assert usage.prompt_tokens == 59


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"prompt_cache_hit_tokens": 60, "prompt_cache_miss_tokens": 60}, "cache_read_tokens"),
        (
            {"prompt_tokens_details": {"cached_tokens": 60}, "prompt_cache_hit_tokens": 30},
            "cache_read_tokens",
        ),
        ({"total_tokens": 50}, "completion_tokens"),
        (
            {
                "total_tokens": 149,
                "prompt_tokens_details": {"cached_tokens": 40},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            "completion_tokens",
        ),
    ],
)
def test_counts_that_contradict_each_other_are_in_doubt(more: Any, field: str) -> None:
    usage = openai_usage({"prompt_tokens": 100, "completion_tokens": 9, **more})
    assert usage.doubts is not None
    assert usage.doubts.keys() == {field}
    assert resolution(usage) == "lower_bound"


@pytest.mark.parametrize("tier", [{"name": "flex"}, ["flex"], 7])
@pytest.mark.parametrize("where", ["metadata", "usage"])
def test_a_tier_that_cant_be_read_has_no_price(tier: Any, where: str) -> None:
    found = {"service_tier": tier}
    raw = {"prompt_tokens": 9, "completion_tokens": 9, **(found if where == "usage" else {})}
    metadata = found if where == "metadata" else {}
    usage = charged(openai_usage(raw), asked_of(OPENAI, {}), metadata, choices=1, content=True)
    assert "service_tier" in (usage.doubts or {})
    assert resolution(usage) == "unpriced"


@pytest.mark.parametrize("name", ["service_tier", "inference_geo"])
def test_no_long_word_of_a_server_outlives_its_answer(name: str) -> None:
    word = "FLEX" * 100_000
    raw = {"prompt_tokens": 9, "completion_tokens": 9}
    before = sys.getrefcount(word)
    found = {"service_tier": "flex", name: word}
    usage = charged(openai_usage(raw), asked_of(OPENAI, {}), found, choices=1, content=True)
    assert usage.service_tier is not None
    del found
    assert sys.getrefcount(word) == before


@pytest.mark.parametrize(
    ("body", "raw", "answer", "field"),
    [
        ({"messages": [{"content": [{"type": "input_audio"}]}]}, {}, {}, "audio_input_tokens"),
        ({"system": [{"cache_control": {"ttl": "1h"}}]}, {"cache_write_tokens": 3}, {},
         "cache_write_1h_tokens"),
        ({}, {}, {"images": True}, "image_output_tokens"),
        ({"web_search_options": {}}, {}, {}, "web_searches"),
        ({}, {}, {"cited": True}, "web_searches"),
    ],
)  # fmt: skip
def test_what_is_charged_apart_and_not_counted_is_in_doubt(
    body: Any, raw: Any, answer: Any, field: str
) -> None:
    price = llm.TokenPrice(
        input=1,
        output=2,
        audio_input=5,
        image_output=9,
        cache_write=1,
        cache_write_1h=2,
        web_search=1,
    )
    usage = openai_usage({"prompt_tokens": 9, "completion_tokens": 9, **raw})
    usage.final = True
    plain = charged(usage, asked_of(OPENAI, {}), {}, choices=1, content=True)
    assert field not in (plain.doubts or {})
    found = charged(usage, asked_of(OPENAI, body), {}, choices=1, content=True, **answer)
    assert field in (found.doubts or {})
    assert OpenAIChat().cost_of(found, price).resolution is llm.CostResolution.LOWER_BOUND


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"thoughtsTokenCount": 0},
        {"thoughtsTokenCount": "2"},
        {"candidatesTokenCount": "3"},
        {"totalTokenCount": 11},
        {"promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 2}]},
        {"candidatesTokensDetails": []},
    ],
)
def test_what_is_no_plain_usage_of_gemini_is_read_as_any_is(odd: dict[str, Any]) -> None:
    counts = {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}
    assert_read_alike({**counts, **odd}, "gemini")
