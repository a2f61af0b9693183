"""Responses in each wire format, event by event: every field, every error, every oddity.

The wires' facts are those of the providers' references and of recorded streams; the error
table is that of their documentation. Bytes that are wrong become this library's errors.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import (
    CostResolution,
    OpaquePart,
    ReasoningPart,
    StreamChunk,
    TextPart,
    ToolCall,
    ToolCallDelta,
    Usage,
    testing,
)
from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._types.errors import EXCERPT_CHARS
from trio_minillm.providers import (
    Anthropic,
    Compatible,
    Gemini,
    OpenAIChat,
    OpenAIResponses,
    OpenRouter,
    Provider,
    Request,
    error_info,
)
from trio_minillm.providers._coerce import MOST_VALUES, each, loose_object, word
from trio_minillm.providers._server_quirks import server_at

OPENAI, OPENROUTER, ANTHROPIC = OpenAIChat(), OpenRouter(), Anthropic()
GEMINI, RESPONSES = Gemini(), OpenAIResponses()
XAI, MISTRAL, GROQ = Compatible("xai"), Compatible("mistral"), Compatible("groq")


def wire(*events: Any) -> bytes:
    """Encode server-sent events; a pair is a named event, bytes are data as they are."""
    out = b""
    for event in events:
        name, data = event if isinstance(event, tuple) else ("", event)
        text = data if isinstance(data, bytes) else json.dumps(data).encode()
        out += (f"event: {name}\n".encode() if name else b"") + b"data: " + text + b"\n\n"
    return out


def decode(
    provider: Provider, *events: Any, lenient: bool = False
) -> tuple[list[StreamChunk], llm.MiniLLMError | None]:
    decoder = ChunkDecoder(provider, lenient=lenient)
    chunks = decoder.feed(wire(*events), 0.0)
    chunks += decoder.finish(0.0)
    return chunks, decoder.error


def chunks_of(provider: Provider, *events: Any) -> list[dict[str, Any]]:
    """Return the fields of each chunk that differ from their defaults."""
    chunks, error = decode(provider, *events)
    assert error is None
    return [said(chunk) for chunk in chunks]


def said(chunk: StreamChunk) -> dict[str, Any]:
    plain = StreamChunk()
    names = [n for n in chunk.__struct_fields__ if n not in ("event", "received_at")]
    found = {n: getattr(chunk, n) for n in names}
    return {n: v for n, v in found.items() if v != getattr(plain, n)}


def error_of(provider: Provider, *events: Any) -> llm.MiniLLMError:
    chunks, error = decode(provider, *events)
    assert error is not None
    assert not any(c.progress for c in chunks)
    return error


def info_of(provider: Provider, *events: Any) -> llm.ErrorInfo:
    error = error_of(provider, *events)
    assert isinstance(error, llm.ProviderError)
    return error.info


def answer(provider: Provider, *events: Any) -> llm.CompletionResponse:
    """Fold the events into a response."""
    chunks, error = decode(provider, *events)
    assert error is None
    state = Ingest(model="asked", expect_usage=True, wire=provider.replay_wire)
    state.ingest_all(chunks)
    return state.response()


def usage(provider: Provider, raw: dict[str, Any]) -> Usage:
    """Translate a usage object."""
    if isinstance(provider, Anthropic):
        (chunk,) = decode(provider, {"type": "message_delta", "delta": {}, "usage": raw})[0]
    else:
        (chunk,) = decode(provider, {"choices": [], "usage": raw})[0]
    assert chunk.usage is not None
    return chunk.usage


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields}]}


def message(**fields: Any) -> bytes:
    return json.dumps({"choices": [{"index": 0, "message": fields}]}).encode()


# -- OpenAI's wire: chunks -------------------------------------------------------------------

CALL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (delta(content="Hi"), {"delta": "Hi"}),
        (delta(content=""), {"progress": False}),
        (delta(content=None, role="assistant"), {"progress": False}),
        (delta(refusal="No"), {"refusal": "No"}),
        ({"choices": [{"index": 2, "delta": {"content": "x"}}]}, {"delta": "x", "choice": 2}),
        ({"choices": [{"index": None, "delta": {"content": "x"}}]}, {"delta": "x"}),
        ({"choices": [{"delta": None, "finish_reason": "stop"}]}, {"finish_reason": "stop"}),
        ({"choices": [{"finish_reason": "length"}]}, {"finish_reason": "length"}),
        ({"choices": [{"delta": {}, "finish_reason": ""}]}, {"progress": False}),
        (
            {"id": "c1", "model": "m-1", "choices": [{"delta": {"content": "x"}}]},
            {"id": "c1", "model": "m-1", "delta": "x"},
        ),
        # reasoning, under each of its names
        (delta(reasoning_content="hm"), {"reasoning": "hm"}),
        (delta(reasoning="hm"), {"reasoning": "hm"}),
        (delta(reasoning_text="hm"), {"reasoning": "hm"}),
        (delta(reasoning="hm", reasoning_content="hm"), {"reasoning": "hm"}),
        # tool calls
        (delta(tool_calls=[CALL]), {"tool_calls": (ToolCallDelta(0, "call_1", "f"),)}),
        (
            delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a'}}]),
            {"tool_calls": (ToolCallDelta(0, arguments='{"a'),)},
        ),
        (
            delta(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]),
            {"tool_calls": (ToolCallDelta(None, "c", "f", '{"a":1}'),)},
        ),
        (
            delta(tool_calls=[{"index": 1, "id": "null", "function": {"name": ""}}]),  # Mistral
            {"tool_calls": (ToolCallDelta(1),), "progress": False},  # it says nothing
        ),
        (
            delta(tool_calls=[{"index": 0, "id": ""}, {"index": 1}]),
            {"tool_calls": (ToolCallDelta(0), ToolCallDelta(1)), "progress": False},
        ),
        (
            delta(tool_calls=[{"index": 0, "id": "c", "custom": {"name": "s", "input": "x"}}]),
            {"tool_calls": (ToolCallDelta(0, "c", "s", "x", "custom"),)},
        ),
        (
            delta(
                tool_calls=[{"id": "c", "extra_content": {"google": {"thought_signature": "c2ln"}}}]
            ),
            {
                "tool_calls": (
                    ToolCallDelta(
                        None,
                        "c",
                        extra={"extra_content": {"google": {"thought_signature": "c2ln"}}},
                    ),
                )
            },
        ),
        (
            delta(function_call={"name": "f", "arguments": "{}"}),  # deprecated
            {"tool_calls": (ToolCallDelta(0, None, "f", "{}"),)},
        ),
        # fields beside the answer
        (
            delta(annotations=[{"type": "url_citation"}]),
            {"annotations": ({"type": "url_citation"},)},
        ),
        (delta(audio={"data": "AAAA"}), {"audio": {"data": "AAAA"}}),
        (delta(images=[{"type": "image_url"}]), {"images": ({"type": "image_url"},)}),
        (
            {"choices": [{"delta": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]},
            {"delta": "x", "logprobs": {"content": [{"token": "x"}]}},
        ),
        (
            {
                "choices": [
                    {
                        "delta": {"content": "x"},
                        "finish_reason": "stop",
                        "native_finish_reason": "STOP",
                    }
                ],
                "provider": "Groq",
                "service_tier": "flex",
                "system_fingerprint": "fp_1",
            },
            {
                "delta": "x",
                "finish_reason": "stop",
                "metadata": {
                    "native_finish_reason": "STOP",
                    "provider": "Groq",
                    "service_tier": "flex",
                    "system_fingerprint": "fp_1",
                },
            },
        ),
        # vLLM, while a character of several bytes is not complete
        (
            {"choices": [{"delta": {"content": ""}, "logprobs": {"content": [{"token": "x"}]}}]},
            {"logprobs": {"content": [{"token": "x"}]}},
        ),
        # fields that every piece of text repeats are read in events without text, and at the end
        ({**delta(content="x"), "provider": "Groq", "service_tier": "flex"}, {"delta": "x"}),
        (
            {"choices": [], "provider": {"id": "x"}, "citations": None, "search_results": []},
            {"progress": False, "answer": False},
        ),
        ({"choices": []}, {"progress": False, "answer": False}),  # Azure's first
        ({"choices": None}, {"progress": False, "answer": False}),
        ({}, {"progress": False, "answer": False}),
        (
            {"choices": [], "debug": {"echo_upstream_body": {}}},
            {"progress": False, "answer": False},
        ),
        # errors that are not errors
        ({"choices": [{"delta": {"content": "x"}}], "error": ""}, {"delta": "x"}),
        ({"choices": [{"delta": {"content": "x"}}], "error": {}}, {"delta": "x"}),
        ({"choices": [{"delta": {"content": "x"}}], "error": {"code": None}}, {"delta": "x"}),
        ({"choices": [{"delta": {"content": "x"}}], "error": "a warning"}, {"delta": "x"}),
        ({"choices": [{"delta": {"content": "x"}, "error": {}}]}, {"delta": "x"}),
        ({"choices": [{"delta": {"content": "x"}}], "x_groq": {"id": "req_1"}}, {"delta": "x"}),
        (b"[DONE]", {"end": True, "sentinel": True, "progress": False}),
        (b"  [DONE] ", {"end": True, "sentinel": True, "progress": False}),
    ],
)
def test_what_a_chunk_says(event: Any, fields: dict[str, Any]) -> None:
    assert chunks_of(OPENAI, event) == [fields]


def test_a_chunk_with_several_choices_is_several_chunks() -> None:
    event = {
        "id": "c1",
        "choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    first, last = chunks_of(OPENAI, event)
    assert first == {"delta": "a"}
    assert (last["choice"], last["id"], last["usage"].completion_tokens) == (1, "c1", 2)


def test_usage_alone_is_progress_and_an_opening_is_none() -> None:
    usage_alone, _ = decode(OPENAI, {"choices": [], "usage": {"completion_tokens": 1}})
    assert usage_alone[0].progress
    opening, _ = decode(OPENAI, delta(role="assistant", content=""), {"choices": [], "usage": {}})
    assert [c.progress for c in opening] == [False, False]


def test_what_a_searching_or_local_server_adds_ends_up_in_the_metadata() -> None:
    response = answer(
        OPENAI,
        {
            "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}],
            "citations": ["https://h"],
            "search_results": [{"title": "t"}],
            "timings": {"predicted_ms": 1.5},
        },
        b"[DONE]",
    )
    assert response.metadata == {
        "citations": ["https://h"],
        "search_results": [{"title": "t"}],
        "timings": {"predicted_ms": 1.5},
    }


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (["a", {"type": "text", "text": "b"}], {"delta": "ab"}),
        ([{"type": "text", "text": None}], {"progress": False}),
        (
            [
                {
                    "type": "thinking",
                    "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}],
                    "closed": True,
                }
            ],
            {"reasoning": "hm"},
        ),
        ([{"type": "thinking", "thinking": "hm"}], {"reasoning": "hm"}),
        ([{"type": "thinking", "thinking": None}], {"progress": False}),
        (
            [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]}],
            {"reasoning": "hm"},
        ),
        ([{"type": "reasoning", "text": "hm"}], {"reasoning": "hm"}),
        ([{"type": "text", "text": "hm", "thought": True}], {"reasoning": "hm"}),
        ([{"type": "text", "text": "x", "thought": False}], {"delta": "x"}),
        ([{"type": "output_text", "text": {"value": "x"}}], {"delta": "x"}),
        ([{"type": "refusal", "refusal": "no"}], {"refusal": "no"}),
        (["a", 1, {"type": "text", "text": 2}], {"delta": "a12"}),
        (
            [{"type": "image_url", "image_url": {"url": "data:,"}}],
            {"images": ({"type": "image_url", "image_url": {"url": "data:,"}},)},
        ),
        (
            [{"type": "reference", "reference_ids": [1]}],
            {"annotations": ({"type": "reference", "reference_ids": [1]},)},
        ),
        ([{"no": "type"}], {"progress": False}),
    ],
)
def test_mistrals_list_content(content: list[Any], fields: dict[str, Any]) -> None:
    assert chunks_of(MISTRAL, delta(content=content)) == [fields]


def test_openrouters_reasoning_blocks_are_kept_whole_and_shown_once() -> None:
    details = [
        {"type": "reasoning.text", "text": "h", "index": 0, "format": "anthropic-claude-v1"},
        {"type": "reasoning.summary", "summary": "m", "index": 1},
        {"type": "reasoning.encrypted", "data": "ZW5j", "index": 2},
        {"type": "reasoning.text", "text": 5},
    ]
    (alone,) = chunks_of(OPENROUTER, delta(reasoning_details=details))
    assert alone == {"reasoning": "hm", "reasoning_details": tuple(details)}
    (beside,) = chunks_of(OPENROUTER, delta(reasoning_details=details[:1], reasoning="h"))
    assert beside["reasoning"] == "h"


def test_openrouters_pieces_of_a_block_are_joined_for_the_replay() -> None:
    def piece(**fields: Any) -> dict[str, Any]:
        return delta(reasoning_details=[{"type": "reasoning.text", "index": 0, **fields}])

    response = answer(
        OPENROUTER,
        piece(text="h", format="anthropic-claude-v1"),
        piece(text="m", signature=None),
        piece(text="", signature="c2ln"),
        delta(content="x"),
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}},
    )
    (thought, _) = response.parts
    assert isinstance(thought, ReasoningPart)
    assert thought.raw == {
        "type": "reasoning.text",
        "index": 0,
        "text": "hm",
        "format": "anthropic-claude-v1",
        "signature": "c2ln",
    }
    assert response.reasoning == "hm"


# -- OpenAI's wire: usage and cost -----------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "buckets"),  # uncached, read, written, output, reasoning
    [
        ({"prompt_tokens": 10, "completion_tokens": 5}, (10, None, None, 5, None)),
        ({"prompt_tokens": 10}, (10, None, None, None, None)),
        ({"completion_tokens": 5}, (None, None, None, 5, None)),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "total_tokens": 150,
                "prompt_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 40},
            },
            (10, 60, 30, 50, 40),
        ),
        (  # the names of OpenAI's Responses
            {
                "input_tokens": 10,
                "output_tokens": 5,
                "input_tokens_details": {"cached_tokens": 4},
                "output_tokens_details": {"reasoning_tokens": 1},
            },
            (6, 4, None, 5, 1),
        ),
        (  # DeepSeek
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 7},
            (3, 7, None, 1, None),
        ),
        (  # a zero under one name does not hide the count under another
            {
                "prompt_tokens": 10,
                "completion_tokens": 1,
                "prompt_tokens_details": {"cached_tokens": 0},
                "prompt_cache_hit_tokens": 7,
            },
            (3, 7, None, 1, None),
        ),
        ({"prompt_tokens": 10, "cache_creation_input_tokens": 4}, (6, None, 4, None, None)),
        (  # xAI leaves reasoning out of completion_tokens, and the total shows it
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 35,
                "completion_tokens_details": {"reasoning_tokens": 20},
            },
            (10, None, None, 25, 20),
        ),
        (  # xAI on Azure: more cached than there is
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 12},
            },
            (0, 10, None, 2, None),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 2,
                "total_tokens": 12,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 8},
            },
            (0, 8, 2, 2, None),
        ),
        (
            {"prompt_tokens": 10.0, "completion_tokens": None, "prompt_tokens_details": None},
            (10, None, None, None, None),
        ),
    ],
)
def test_usage_is_disjoint(raw: dict[str, Any], buckets: tuple[int | None, ...]) -> None:
    found = usage(OPENAI, raw)
    assert (
        found.uncached_input_tokens,
        found.cache_read_tokens,
        found.cache_write_tokens,
        found.completion_tokens,
        found.reasoning_tokens,
    ) == buckets
    assert found.raw == raw
    assert not found.final


def test_groqs_usage_is_found_in_its_own_corner() -> None:
    last = {
        "choices": [{"delta": {}, "finish_reason": "stop"}],
        "x_groq": {"id": "req_1", "usage": {"prompt_tokens": 3, "completion_tokens": 4}},
    }
    (chunk,) = decode(GROQ, last)[0]
    assert chunk.usage is not None
    assert chunk.usage.total_tokens == 7
    (both,) = decode(GROQ, {**last, "usage": {"completion_tokens": 9}})[0]
    assert both.usage is not None
    assert both.usage.completion_tokens == 9


PRICE = llm.TokenPrice(input=1, output=2)
COUNTS = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
OWN_COUNTS = {"input_tokens": 1_000_000, "output_tokens": 1_000_000}
BYOK = {"cost": 0.05, "is_byok": True}


@pytest.mark.parametrize(
    ("provider", "raw", "amount", "resolution", "source"),
    [
        (OPENAI, COUNTS, "3", "resolved", "price"),
        (OPENROUTER, {"cost": 0.00012345}, "0.00012345", "resolved", "native"),
        (OPENROUTER, {"cost": 0}, "0", "resolved", "native"),  # a free model
        (OPENROUTER, {"cost": "0.5"}, "0.5", "resolved", "native"),
        # Without BYOK the upstream figure repeats the cost.
        (
            OPENROUTER,
            {"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.5}},
            "0.5",
            "resolved",
            "native",
        ),
        (
            OPENROUTER,
            {"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.5}},
            "0.5",
            "resolved",
            "native",
        ),
        # With it, the cost is the fee and the upstream figure the rest.
        (
            OPENROUTER,
            {**BYOK, "cost_details": {"upstream_inference_cost": 0.95}},
            "1.00",
            "resolved",
            "native",
        ),
        (
            OPENROUTER,
            {**BYOK, "cost": 0, "cost_details": {"upstream_inference_cost": 0.95}},
            "0.95",
            "resolved",
            "native",
        ),
        # So it is behind a gateway that hands OpenRouter's answers on.
        (
            Compatible(),
            {**BYOK, "cost": 0, "cost_details": {"upstream_inference_cost": 0.95}},
            "0.95",
            "resolved",
            "native",
        ),
        (Compatible(), {**COUNTS, **BYOK, "cost": 0}, "3", "resolved", "price"),
        # Anthropic's wire has the same fields at gateways, beside counts of its own.
        (ANTHROPIC, {**OWN_COUNTS, "cost": 0.5}, "0.5", "resolved", "native"),
        (ANTHROPIC, {**OWN_COUNTS, "cost": 0}, "3", "resolved", "price"),
        (
            ANTHROPIC,
            {**BYOK, "cost": 0, "cost_details": {"upstream_inference_cost": 0.95}},
            "0.95",
            "resolved",
            "native",
        ),
        (ANTHROPIC, BYOK, "0.05", "lower_bound", "native"),
        # The fee alone is not what it cost.
        (OPENROUTER, BYOK, "0.05", "lower_bound", "native"),
        (
            OPENROUTER,
            {**BYOK, "cost_details": {"upstream_inference_cost": None}},
            "0.05",
            "lower_bound",
            "native",
        ),
        # Perplexity
        (
            Compatible(),
            {"cost": {"input_tokens_cost": 0.1, "request_cost": 0.2, "total_cost": 0.3}},
            "0.3",
            "resolved",
            "native",
        ),
        (Compatible(), {**COUNTS, "cost": {"total": 0.3}}, "0.3", "resolved", "native"),
        # xAI counts 1e-10 USD
        (XAI, {**COUNTS, "cost_in_usd_ticks": 37_756_000}, "0.0037756", "resolved", "native"),
        (XAI, {**COUNTS, "cost_in_usd_ticks": 0}, "3", "resolved", "price"),
        (XAI, {**COUNTS, "cost_in_usd_ticks": "x"}, "3", "resolved", "price"),
        (XAI, {"cost": 0.5, "cost_in_usd_ticks": 37_756_000}, "0.5", "resolved", "native"),
        # Not a cost.
        (OPENROUTER, {**COUNTS, "cost": None}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": -1}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": True}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": "free"}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": "nan"}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": [1]}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": {}}, "3", "resolved", "price"),
        (OPENROUTER, {**COUNTS, "cost": 10**400}, "3", "resolved", "price"),
    ],
)
def test_what_it_cost(
    provider: Provider, raw: dict[str, Any], amount: str, resolution: str, source: str
) -> None:
    spent = usage(provider, raw)
    spent.final = True
    cost = provider.cost_of(spent, PRICE)
    assert (cost.amount, str(cost.resolution), cost.source) == (Decimal(amount), resolution, source)


@pytest.mark.parametrize("provider", [OPENAI, OPENROUTER, XAI, ANTHROPIC])
def test_a_cost_is_never_a_fake_zero(provider: Provider) -> None:
    assert provider.cost_of(None, PRICE).resolution is CostResolution.UNKNOWN
    assert provider.cost_of(Usage(), PRICE).resolution is CostResolution.UNKNOWN
    running = Usage(uncached_input_tokens=1, completion_tokens=1)
    assert provider.cost_of(running, PRICE).resolution is CostResolution.LOWER_BOUND
    assert provider.cost_of(running, None).resolution is CostResolution.UNPRICED


# -- OpenAI's wire: answers that were not streamed -------------------------------------------

WHOLE = {
    "id": "c1",
    "model": "m-1",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "finish_reason": "tool_calls",
            "logprobs": {"content": [{"token": "Hi"}]},
            "message": {
                "role": "assistant",
                "content": "Hi",
                "reasoning_content": "hm",
                "refusal": None,
                "annotations": [{"type": "url_citation"}],
                "tool_calls": [
                    {
                        "id": "a",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"x": 1}'},
                    },
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": ""}},
                ],
            },
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}


def test_a_body_that_is_no_stream_is_an_answer_too() -> None:
    decoder = ChunkDecoder(OPENAI)
    assert decoder.feed(json.dumps(WHOLE).encode(), 0.0) == []
    chunks = decoder.finish(0.0)
    assert decoder.error is None
    state = Ingest(model="asked", expect_usage=True)
    state.ingest_all(chunks)
    response = state.response()
    assert (response.content, response.reasoning, response.finish_reason) == (
        "Hi",
        "hm",
        "tool_calls",
    )
    assert [(c.id, c.name, c.arguments) for c in response.tool_calls] == [
        ("a", "f", '{"x": 1}'),
        ("b", "g", ""),
    ]
    assert (response.id, response.model, response.outcome) == ("c1", "m-1", llm.Outcome.FINISHED)
    assert response.annotations == ({"type": "url_citation"},)
    assert response.logprobs == {"content": [{"token": "Hi"}]}
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.final) == (3, True)


@pytest.mark.parametrize("provider", [OPENAI, OPENROUTER, MISTRAL])
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "boom", "code": 502}}, "boom"),
        ({"error": "boom"}, "boom"),
        ({"object": "error", "message": "boom"}, "boom"),
        ({"detail": "boom"}, "boom"),
        ({"choices": None, "error": {"message": "boom"}}, "boom"),
        ({"choices": None}, "no explanation"),
        ({"choices": []}, '"choices":'),
        ({}, "no explanation"),
        ({"choices": [{"finish_reason": "error", "error": {"message": "boom"}}]}, "boom"),
    ],
)
def test_a_body_that_is_an_error(provider: Provider, body: Any, words: str) -> None:
    with pytest.raises(llm.ProviderError, match=words):
        provider.parse_response(json.dumps(body).encode())


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"choices": 5, "content": 5}', b'{"choices": [5], "content": [5]}']
)
def test_a_body_that_is_neither(provider: Provider, body: bytes) -> None:
    decoder = ChunkDecoder(provider)
    decoder.feed(body, 0.0)
    assert decoder.finish(0.0) == []
    assert isinstance(decoder.error, llm.ProtocolError)


# -- Anthropic: events -----------------------------------------------------------------------


def start(block: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block}


def change(fields: dict[str, Any], index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


MESSAGE_START = {
    "type": "message_start",
    "message": {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-x",
        "content": [],
        "stop_reason": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 20,
            "cache_read_input_tokens": 30,
            "output_tokens": 1,
        },
    },
}


def message_delta(reason: str = "end_turn", **more: Any) -> dict[str, Any]:
    return {
        "type": "message_delta",
        "delta": {"stop_reason": reason, **more},
        "usage": {"output_tokens": 15},
    }


MESSAGE_STOP = {"type": "message_stop"}
BLOCK_5 = llm.Block(start={"type": "text", "text": 5})


def claude(*events: dict[str, Any], end: dict[str, Any] | None = None) -> llm.CompletionResponse:
    """Fold a whole stream around these blocks into a response."""
    every = [MESSAGE_START, *events, end or message_delta(), MESSAGE_STOP]
    return answer(ANTHROPIC, *[(e["type"], e) for e in every])


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        (change({"type": "text_delta", "text": "Hi"}, 3), {"delta": "Hi", "part": 3}),
        (change({"type": "text_delta", "text": ""}), {"part": 0, "progress": False}),
        (change({"type": "thinking_delta", "thinking": "hm"}), {"reasoning": "hm", "part": 0}),
        (
            change({"type": "input_json_delta", "partial_json": '{"a'}, 1),
            {"tool_calls": (ToolCallDelta(1, arguments='{"a'),), "part": 1},
        ),
        (
            change({"type": "signature_delta", "signature": "c2ln"}),
            {"part": 0, "block": llm.Block(delta={"signature": "c2ln"})},
        ),
        (
            change({"type": "citations_delta", "citation": {"type": "char_location"}}),
            {
                "part": 0,
                "annotations": ({"type": "char_location"},),
                "block": llm.Block(delta={"citation": {"type": "char_location"}}),
            },
        ),
        (
            change({"type": "compaction_delta", "content": "sum", "encrypted_content": None}),
            {"part": 0, "block": llm.Block(delta={"content": "sum"})},
        ),
        (change({"type": "hologram_delta", "hologram": {}}), {"part": 0}),  # unknown
        (stop(2), {"part": 2, "block": llm.Block(stop=True)}),
        (MESSAGE_STOP, {"end": True, "progress": False}),
        (b"[DONE]", {"end": True, "sentinel": True, "progress": False}),  # some proxies add it
        ({"type": "hologram_start"}, {"answer": False}),  # unknown, and a sign of life
        ({"index": 0}, {"progress": False, "answer": False}),
        # fields that relays leave out where they are empty
        (change({"type": "text_delta"}), {"part": 0, "progress": False}),
        (change({"type": "thinking_delta"}), {"part": 0, "progress": False}),
        (
            change({"type": "input_json_delta"}),
            {"part": 0, "progress": False, "tool_calls": (ToolCallDelta(0),)},
        ),
        ({"type": "content_block_delta", "index": 0}, {"part": 0, "progress": False}),
        (
            {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "x"}},
            {"delta": "x"},
        ),
        (
            {"type": "content_block_delta", "index": 0, "delta": {"text": "x"}},
            {"part": 0, "delta": "x"},
        ),
        ({"type": "content_block_stop"}, {"block": llm.Block(stop=True)}),
        (start({"type": "text", "text": 5}), {"part": 0, "delta": "5", "block": BLOCK_5}),
        # what can't be read beside the answer
        (
            change({"type": "citations_delta"}),
            {"part": 0, "progress": False, "unread": ("delta.citation",)},
        ),
        (
            {"type": "content_block_start", "index": 0},
            {"part": 0, "progress": False, "unread": ("content_block",)},
        ),
        (start({"type": 5}), {"part": 0, "progress": False, "unread": ("content_block",)}),
        ({"type": "message_start"}, {"progress": False, "unread": ("message",)}),
        ({"type": "message_start", "message": "text"}, {"progress": False, "unread": ("message",)}),
        (
            change({"type": "thinking_delta", "thinking": ["x"]}),
            {"part": 0, "reasoning": "x"},
        ),
        (
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": [5]},
            {"finish_reason": "end_turn", "unread": ("usage",)},
        ),
        (
            {"type": "message_delta", "delta": {"stop_reason": None}, "usage": None},
            {},
        ),
        ({"type": "message_delta"}, {}),
        (
            {"type": "message_start", "message": {"id": "m", "model": "c"}},
            {"id": "m", "model": "c", "progress": False},
        ),
    ],
)
def test_what_an_event_says(event: Any, fields: dict[str, Any]) -> None:
    assert chunks_of(ANTHROPIC, event) == [fields]


def test_a_ping_says_nothing() -> None:
    assert chunks_of(ANTHROPIC, ("ping", {"type": "ping"})) == []


def test_a_whole_stream() -> None:
    response = claude(
        start({"type": "thinking", "thinking": "", "signature": ""}),
        change({"type": "thinking_delta", "thinking": "hm"}),
        change({"type": "signature_delta", "signature": "c2ln"}),
        stop(),
        start({"type": "redacted_thinking", "data": "ZW5j"}, 1),
        stop(1),
        start({"type": "text", "text": ""}, 2),
        change({"type": "text_delta", "text": "Hel"}, 2),
        change({"type": "text_delta", "text": "lo"}, 2),
        stop(2),
        start({"type": "tool_use", "id": "toolu_1", "name": "f", "input": {}}, 3),
        change({"type": "input_json_delta", "partial_json": ""}, 3),
        change({"type": "input_json_delta", "partial_json": '{"a": '}, 3),
        change({"type": "input_json_delta", "partial_json": "1}"}, 3),
        stop(3),
        end=message_delta("tool_use"),
    )
    assert response.outcome is llm.Outcome.FINISHED
    assert (response.id, response.model, response.finish_reason) == (
        "msg_1",
        "claude-x",
        "tool_use",
    )
    assert response.parts == (
        ReasoningPart(
            text="hm",
            signature="c2ln",
            wire="anthropic",
            raw={"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        ),
        ReasoningPart(
            encrypted="ZW5j",
            wire="anthropic",
            raw={"type": "redacted_thinking", "data": "ZW5j"},
        ),
        TextPart("Hello"),
        ToolCall(id="toolu_1", name="f", arguments='{"a": 1}'),
    )
    spent = response.usage
    assert spent is not None
    assert (spent.uncached_input_tokens, spent.cache_write_tokens, spent.cache_read_tokens) == (
        10,
        20,
        30,
    )
    assert (spent.completion_tokens, spent.prompt_tokens, spent.final) == (15, 60, True)


@pytest.mark.parametrize(
    ("given", "pieces", "arguments"),
    [
        ({}, [], {}),  # a tool without arguments sends no delta
        ({}, [""], {}),
        (None, [], {}),
        ({"a": 1}, [], {"a": 1}),  # whole in the start
        ({}, ['{"a":', "1}"], {"a": 1}),
    ],
)
def test_the_input_of_a_tool(given: Any, pieces: list[str], arguments: dict[str, Any]) -> None:
    response = claude(
        start({"type": "tool_use", "id": "t", "name": "f", "input": given}),
        *[change({"type": "input_json_delta", "partial_json": p}) for p in pieces],
        stop(),
        end=message_delta("tool_use"),
    )
    (call,) = response.tool_calls
    assert (call.id, call.name, call.parsed()) == ("t", "f", arguments)


def test_an_input_that_max_tokens_cut_is_no_call_to_execute() -> None:
    response = claude(
        start({"type": "tool_use", "id": "t", "name": "f", "input": {}}),
        change({"type": "input_json_delta", "partial_json": '{"a": "lo'}),
        stop(),
        end=message_delta("max_tokens"),
    )
    assert response.tool_calls == ()
    assert [c.id for c in response.invalid_tool_calls] == ["t"]


def test_who_called_a_tool_goes_back_with_the_call() -> None:
    caller = {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}
    response = claude(
        start({"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": caller}),
        stop(),
        end=message_delta("tool_use"),
    )
    assert response.tool_calls[0].extra == {"caller": caller}


def test_a_refusal_says_why() -> None:
    details = {"type": "refusal", "category": "cyber"}
    response = claude(end=message_delta("refusal", stop_details=details))
    assert (response.finish_reason, response.outcome) == ("refusal", llm.Outcome.FINISHED)
    assert response.metadata["stop_details"] == details


def test_what_stands_beside_the_stop_reason_is_kept() -> None:
    event = message_delta("stop_sequence", stop_sequence="END", container={"id": "c"})
    event["context_management"] = {"applied_edits": []}
    assert claude(end=event).metadata == {
        "stop_sequence": "END",
        "container": {"id": "c"},
        "context_management": {"applied_edits": []},
    }


def test_citations_stay_with_their_text() -> None:
    first, second = {"type": "page_location", "n": 1}, {"type": "char_location", "n": 2}
    response = claude(
        start({"type": "text", "text": "A", "citations": [first]}),
        change({"type": "citations_delta", "citation": second}),
        change({"type": "text_delta", "text": "B"}),
        stop(),
        start({"type": "text", "text": "", "citations": None}, 1),
        change({"type": "text_delta", "text": "C"}, 1),
        stop(1),
    )
    assert response.parts == (TextPart("AB", citations=(first, second)), TextPart("C"))
    assert response.annotations == (first, second)


SERVER_BLOCKS = [
    {"type": t, "tool_use_id": "srv_1", "content": [{"type": "x"}]}
    for t in (
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
        "mcp_tool_result",
        "advisor_tool_result",
    )
] + [
    {"type": "container_upload", "file_id": "file_1"},
    {"type": "fallback", "from": {"model": "a"}, "to": {"model": "b"}},
    {"type": "hologram", "voxels": [1, 2]},
]


@pytest.mark.parametrize("block", SERVER_BLOCKS, ids=lambda b: b["type"])
def test_a_servers_block_goes_back_as_it_came(block: dict[str, Any]) -> None:
    response = claude(start(block), stop())
    assert response.parts == (OpaquePart(wire="anthropic", raw=block),)
    assert response.tool_calls == ()
    assert response.content == ""


def test_calls_of_a_model_that_declined_are_left_out() -> None:
    def call(number: int) -> list[dict[str, Any]]:
        block = {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {"x": number}}
        return [start(block, number), stop(number)]

    def mark(to: Any) -> list[dict[str, Any]]:
        return [start({"type": "fallback", "from": {"model": "claude-x"}, "to": to}, 1), stop(1)]

    end = message_delta("tool_use")
    response = claude(*call(0), *mark({"model": "claude-y"}), *call(2), end=end)
    assert [c.id for c in response.tool_calls] == ["t2"]
    assert [p.id for p in response.parts if isinstance(p, ToolCall)] == ["t2"]
    assert "tool calls of a model that declined" in "".join(response.notes)
    assert response.invalid_tool_calls == ()
    assert response.model == "claude-x"  # the answer's as a whole, which its beginning names
    again = claude(*call(0), *mark({"model": "claude-y"}), *call(0), end=end)
    assert [c.arguments for c in again.tool_calls] == ['{"x":0}']
    for odd in ({}, None, {"model": [5]}, "claude-y"):
        assert claude(*call(0), *mark(odd), end=end).tool_calls == ()


@pytest.mark.parametrize("kind", ["server_tool_use", "mcp_tool_use"])
def test_a_servers_call_is_not_ours_to_answer(kind: str) -> None:
    block = {"type": kind, "id": "srv_1", "name": "web_search", "input": {}}
    response = claude(
        start(block),
        change({"type": "input_json_delta", "partial_json": '{"query": '}),
        change({"type": "input_json_delta", "partial_json": '"x"}'}),
        stop(),
    )
    assert response.tool_calls == response.invalid_tool_calls == ()
    assert response.parts == (OpaquePart(wire="anthropic", raw={**block, "input": {"query": "x"}}),)


def test_a_compaction_comes_in_a_delta() -> None:
    response = claude(
        start({"type": "compaction", "content": None}),
        change({"type": "compaction_delta", "content": "sum", "encrypted_content": "ZW5j"}),
        stop(),
    )
    assert response.parts == (
        OpaquePart(
            wire="anthropic",
            raw={"type": "compaction", "content": "sum", "encrypted_content": "ZW5j"},
        ),
    )


def test_a_signature_may_begin_in_the_start_block() -> None:
    response = claude(
        start({"type": "thinking", "thinking": "h", "signature": "c2"}),
        change({"type": "signature_delta", "signature": "ln"}),
        stop(),
    )
    (thought,) = response.parts
    assert isinstance(thought, ReasoningPart)
    assert (thought.text, thought.signature) == ("h", "c2ln")


def test_usage_is_cumulative_and_overwrites_what_is_there() -> None:
    last = message_delta()
    last["usage"] = {
        "output_tokens": 40,
        "input_tokens": None,
        "cache_read_input_tokens": 31,
        "output_tokens_details": {"thinking_tokens": 25},
        "server_tool_use": {"web_search_requests": 1},
    }
    spent = claude(end=last).usage
    assert spent is not None
    assert (spent.uncached_input_tokens, spent.cache_read_tokens) == (10, 31)
    assert (spent.completion_tokens, spent.reasoning_tokens) == (40, 25)
    assert spent.raw is not None
    assert spent.raw["server_tool_use"] == {"web_search_requests": 1}


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (start({"type": "text", "text": {"a": 1}}), "text of a text block"),
        (start({"type": "tool_use", "id": "t", "name": {"a": 1}}), "name of a tool_use block"),
        (change({"type": "text_delta", "text": {"a": 1}}), "delta.text is not text"),
        (message_delta({"type": {"a": 1}}), "stop_reason is not text"),  # type: ignore[arg-type]
        (b"{", "truncated"),
        (b'[[{"a": 1}]]', "not an object"),
    ],
)
def test_an_event_that_breaks_the_format_is_named(event: Any, words: str) -> None:
    error = error_of(ANTHROPIC, event)
    assert isinstance(error, llm.ProtocolError)
    assert words in str(error)
    assert error.event == 1
    chunks, none = decode(
        ANTHROPIC, event, change({"type": "text_delta", "text": "x"}), lenient=True
    )
    assert none is None
    assert [c.delta for c in chunks] == ["x"]


def test_an_event_that_is_no_json_is_no_answer() -> None:
    assert [said(c) for c in decode(ANTHROPIC, b"text")[0]] == []
    assert decode(ANTHROPIC, b"text")[1] is None


CLAUDE_WHOLE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "text", "text": "Hello", "citations": None},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 4},
}


def test_a_message_that_was_not_streamed() -> None:
    chunks = ANTHROPIC.parse_response(json.dumps(CLAUDE_WHOLE).encode())
    state = Ingest(model="asked", expect_usage=True, wire="anthropic")
    state.ingest_all(chunks)
    response = state.response()
    assert (response.content, response.reasoning, response.finish_reason) == (
        "Hello",
        "hm",
        "tool_use",
    )
    assert [(c.id, c.parsed()) for c in response.tool_calls] == [("t", {"a": 1})]
    assert [type(p) for p in response.parts] == [ReasoningPart, TextPart, ToolCall]
    assert response.parts[0].raw == CLAUDE_WHOLE["content"][0]  # type: ignore[union-attr, index]
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.final) == (7, True)
    assert (response.id, response.outcome) == ("msg_1", llm.Outcome.FINISHED)
    bare = ANTHROPIC.parse_response(b'{"content": [], "stop_reason": "end_turn"}')
    assert [said(c) for c in bare] == [
        {"progress": False},
        {"finish_reason": "end_turn"},
        {"end": True, "progress": False},
    ]
    open_end = ANTHROPIC.parse_response(b'{"content": []}')
    assert [said(c) for c in open_end] == [{"progress": False}, {"end": True, "progress": False}]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"type": "error", "error": {"type": "overloaded_error", "message": "boom"}}, "boom"),
        ({"error": {"message": "boom"}}, "boom"),
        ({"type": "message", "id": "x"}, "message"),
    ],
)
def test_a_message_that_is_an_error(body: Any, words: str) -> None:
    with pytest.raises(llm.ProviderError, match=words):
        ANTHROPIC.parse_response(json.dumps(body).encode())


# -- named events ----------------------------------------------------------------------------


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("data", [b"boom", b'{"message": "boom"}', b'{"error": "boom"}'])
def test_an_event_named_error_is_a_failure(provider: Provider, data: bytes) -> None:
    assert info_of(provider, ("error", data)).message == "boom"


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("data", [b"{}", b"null", b"[DONE]", b"[]", b"5"])
def test_so_is_one_without_words(provider: Provider, data: bytes) -> None:
    assert info_of(provider, ("error", data)).kind == "server"


@pytest.mark.parametrize("provider", [OPENAI, ANTHROPIC])
@pytest.mark.parametrize("name", ["exception", "throttlingException", "stream_failed"])
def test_so_is_one_whose_name_speaks_of_a_failure(provider: Provider, name: str) -> None:
    info = info_of(provider, (name, {"message": "Too many requests"}))
    assert (info.message, info.kind) == ("Too many requests", "rate_limit")
    inner = {"modelStreamErrorException": {"message": "the model broke off"}}
    assert "the model broke off" in info_of(provider, (name, inner)).message


UNSTREAMED = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "x",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello"},
        {"type": "text", "text": " you"},
        {"type": "tool_use", "id": "t", "name": "f", "input": {"q": 1}},
    ],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 9, "output_tokens": 7},
}


@pytest.mark.parametrize("name", ["", "message"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_whole_message_as_an_event_is_the_answer(name: str, streamed: bool) -> None:
    pieces: list[Any] = []
    for index, block in enumerate(UNSTREAMED["content"] if streamed else ()):
        pieces.append({"type": "content_block_start", "index": index, "content_block": block})
        pieces.append({"type": "content_block_stop", "index": index})
    response = answer(ANTHROPIC, *pieces, (name, UNSTREAMED), {"type": "message_stop"})
    assert (response.content, response.reasoning) == ("Hello you", "hm")
    assert [(c.id, c.name, c.parsed()) for c in response.tool_calls] == [("t", "f", {"q": 1})]
    assert response.usage is not None
    assert (response.usage.total_tokens, response.usage.final) == (16, True)
    assert response.outcome == "finished"


@pytest.mark.parametrize("more", [{}, {"content": None}, {"content": 5}])
def test_a_message_without_content_is_an_unknown_event(more: dict[str, Any]) -> None:
    chunks, error = decode(ANTHROPIC, {"type": "message", "id": "m", **more})
    assert error is None
    assert [(c.answer, c.progress) for c in chunks] == [(False, True)]


def test_a_named_event_with_an_answer_in_it_is_read() -> None:
    assert chunks_of(OPENAI, ("error", delta(content="x"))) == [{"delta": "x"}]
    assert chunks_of(OPENAI, ("completion", delta(content="x"))) == [{"delta": "x"}]
    two = {"choices": [{"delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    assert [c["delta"] for c in chunks_of(OPENAI, ("error", two))] == ["a", "b"]


@pytest.mark.parametrize("data", [b"keepalive", b"2026-11-22T00:00:00Z", b"{}", b" "])
def test_a_keep_alive_of_any_name_does_no_harm(data: bytes) -> None:
    chunks, error = decode(OPENAI, ("keepalive", data), delta(content="x"))
    assert error is None
    assert [c.delta for c in chunks if c.progress] == ["x"]


@pytest.mark.parametrize("data", [b"{}", b"alive", b"[1]", b"7", b'{"a": "b"}', b'{"type": "z"}'])
def test_nor_does_one_on_a_wire_whose_events_have_types(data: bytes) -> None:
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}
    chunks, error = decode(ANTHROPIC, ("keepalive", data), ("content_block_delta", said))
    assert error is None
    assert [c.delta for c in chunks if c.delta] == ["x"]


def test_a_message_in_place_of_a_delta_is_a_piece_unless_it_comes_with_the_reason() -> None:
    def said(message: Any, reason: str | None = None) -> dict[str, Any]:
        return {"choices": [{"index": 0, "message": message, "finish_reason": reason}]}

    pieces = [said({"role": "assistant", "content": "Hel"}), said({"content": "lo"})]
    nothing = [said(None), said({}), said("odd"), said([1])]
    chunks, error = decode(OPENAI, *pieces, *nothing, said({"content": "Hello"}, "stop"))
    assert error is None
    assert [c.delta for c in chunks if c.delta] == ["Hel", "lo"]
    assert chunks[-1].finish_reason == "stop"


@pytest.mark.parametrize("content", ["", "x"])
def test_an_error_in_a_delta_is_one_without_a_reason_too(content: str) -> None:
    failed = delta(content=content, error={"message": "dead", "code": "engine"})
    chunks, error = decode(OPENAI, failed)
    assert [c.delta for c in chunks if c.delta] == ([content] if content else [])
    assert isinstance(error, llm.ProviderError)
    assert (error.info.message, error.code) == ("dead", "engine")
    assert decode(OPENAI, delta(content="x", error={}))[1] is None


def test_positions_that_are_no_numbers_count_as_absent_or_as_what_they_say() -> None:
    odd = {"choices": [{"index": {"a": 1}, "delta": {"content": "x"}}]}
    text = {"choices": [{"index": "1.0", "delta": {"content": "y"}}]}
    chunks, error = decode(OPENAI, odd, text)
    assert error is None
    assert [(c.choice, c.delta, c.unread) for c in chunks] == [
        (0, "x", ("choices[].index",)),
        (1, "y", ()),
    ]


def test_types_that_are_no_words_count_as_absent() -> None:
    said = {"type": "content_block_delta", "index": 0, "delta": {"type": 5, "text": "x"}}
    chunks, error = decode(ANTHROPIC, ("content_block_delta", said))
    assert error is None
    assert [(c.delta, c.unread) for c in chunks] == [("x", ("delta.type",))]


def test_arguments_of_an_older_function_call_may_be_an_object() -> None:
    call = {"name": "f", "arguments": {"x": [1, "\ud800"]}}
    chunks, error = decode(OPENAI, delta(function_call=call))
    assert error is None
    (piece,) = chunks[0].tool_calls
    assert json.loads(piece.arguments) == {"x": [1, "\ufffd"]}


def test_what_is_read_loosely_is_bounded() -> None:
    pieces = {"choices": [{"delta": {"content": "x", "audio": [[]] * MOST_VALUES}}] * 2}
    with pytest.raises(llm.ProtocolError, match="more than 131,072 values"):
        loose_object(json.dumps(pieces).encode(), [])
    with pytest.raises(llm.ProtocolError, match="calls has more than 2 entries"):
        each(word, 2)(["a", "b", "c"], "calls", [])


def test_an_address_that_is_none_is_no_known_server() -> None:
    assert server_at("http://[::1") == "generic"


def test_a_named_event_of_the_wrong_shape_is_malformed() -> None:
    assert isinstance(error_of(OPENAI, ("completion", {"choices": 5})), llm.ProtocolError)


# -- errors and their kinds ---------------------------------------------------------------

KINDS = {
    "Q": {"quota"},  # pay: waiting does not help
    "R": {"rate_limit"},
    "O": {"overloaded", "server", "timeout"},
    "A": {"auth"},
    "I": {"invalid"},
}


def openai_error(code: Any, type: Any = None, message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": None, "code": code, **more}}


def claude_error(type: str, message: str = "m", code: str | None = None) -> dict[str, Any]:
    details = {"error_code": code} if code else None
    inner = {"type": type, "message": message, "details": details}
    return {"type": "error", "error": inner, "request_id": "req_1"}


def router_error(code: int, message: str = "m", **metadata: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "metadata": metadata}}


QUOTA_CODES = [
    "insufficient_quota",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "billing_not_active",
]
SPENT = "You exceeded your current quota, please check your plan and billing details."
PAYING_RAISES_IT = (
    "Rate limit reached for gpt-x on requests per min. Please add a payment method to your"
    " account to increase your rate limit. Visit https://platform.openai.com/account/billing"
)
XAI_SPENT = (
    "Your team 1234 has either used all available credits or reached its monthly spending limit."
)
CLAUDE_SPENT = "Your credit balance is too low to access the Anthropic API."
CLAUDE_LIMIT = "You have reached your specified API usage limits. You will regain access on 2026-12"
OTHER = Compatible()

# provider, status, body, class: params.md 4.2, row by row. In-band the status is not there.
ERRORS: list[tuple[Provider, int, dict[str, Any], str]] = [
    *[(OPENAI, 429, openai_error(c, "insufficient_quota"), "Q") for c in QUOTA_CODES],
    *[(OPENAI, 429, openai_error(c), "Q") for c in QUOTA_CODES],
    (OPENAI, 429, openai_error(None, "insufficient_quota", SPENT), "Q"),
    *[
        (OPENAI, 429, openai_error("rate_limit_exceeded", t, PAYING_RAISES_IT), "R")
        for t in ("requests", "tokens", "rate_limit_error")
    ],
    (OPENAI, 503, openai_error("slow_down"), "O"),
    (OPENAI, 503, openai_error("server_is_overloaded", "service_unavailable_error"), "O"),
    (OPENAI, 503, openai_error(None, "service_unavailable_error"), "O"),
    *[(OPENAI, s, openai_error(None, "server_error"), "O") for s in (500, 502, 504)],
    (OPENAI, 401, openai_error("invalid_api_key", "invalid_request_error"), "A"),
    (OPENAI, 404, openai_error("model_not_found", "invalid_request_error"), "I"),
    *[
        (OPENAI, 400, openai_error(c, "invalid_request_error"), "I")
        for c in (
            "context_length_exceeded",
            "unsupported_parameter",
            "unsupported_value",
            "invalid_value",
            "missing_required_parameter",
            "string_above_max_length",
            "invalid_image_url",
            "content_policy_violation",
        )
    ],
    (ANTHROPIC, 402, claude_error("billing_error"), "Q"),
    (ANTHROPIC, 400, claude_error("invalid_request_error", CLAUDE_SPENT), "Q"),
    (ANTHROPIC, 400, claude_error("invalid_request_error", CLAUDE_LIMIT), "Q"),
    *[
        (ANTHROPIC, 429, claude_error("rate_limit_error", "m", c), "Q")
        for c in (
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
            "linked_organization_spend_limit_reached",
        )
    ],
    (ANTHROPIC, 429, claude_error("rate_limit_error"), "R"),
    (ANTHROPIC, 429, claude_error("rate_limit_error", "m", "ramp_limit_exceeded"), "R"),
    (ANTHROPIC, 529, claude_error("overloaded_error", "Overloaded"), "O"),
    (ANTHROPIC, 500, claude_error("api_error"), "O"),
    (ANTHROPIC, 504, claude_error("timeout_error"), "O"),
    (ANTHROPIC, 409, claude_error("conflict_error"), "O"),
    (ANTHROPIC, 401, claude_error("authentication_error"), "A"),
    (ANTHROPIC, 403, claude_error("permission_error", "m", "organization_on_hold"), "A"),
    (ANTHROPIC, 404, claude_error("not_found_error"), "I"),
    (ANTHROPIC, 413, claude_error("request_too_large"), "I"),
    (
        ANTHROPIC,
        400,
        claude_error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
        "I",
    ),
    (OPENROUTER, 402, router_error(402, error_type="payment_required"), "Q"),
    (OPENROUTER, 402, router_error(402, "Insufficient credits. Add more"), "Q"),
    (OPENROUTER, 402, router_error(402, "fewer max_tokens; you can only afford 5"), "Q"),
    (OPENROUTER, 402, router_error(402, error_type="weight_exceeds_budget"), "Q"),
    (OPENROUTER, 402, router_error(402, error_type="in_flight_budget_exhausted"), "R"),
    (OPENROUTER, 403, router_error(403, reasons=["violence"], flagged_input="x"), "I"),
    (OPENROUTER, 403, router_error(403, patterns=["ssn"]), "I"),
    (OPENROUTER, 403, router_error(403, error_type="region_restricted"), "A"),
    (OPENROUTER, 429, router_error(429, error_type="rate_limit_exceeded"), "R"),
    (OPENROUTER, 503, router_error(503, error_type="provider_overloaded"), "O"),
    (OPENROUTER, 502, router_error(502, error_type="provider_unavailable"), "O"),
    (OPENROUTER, 504, router_error(504, error_type="timeout"), "O"),
    (OPENROUTER, 408, router_error(408, error_type="timeout"), "O"),
    (OPENROUTER, 500, router_error(500, error_type="unmapped"), "O"),
    *[
        (OPENROUTER, 400, router_error(400, error_type=t), "I")
        for t in (
            "invalid_request",
            "invalid_prompt",
            "context_length_exceeded",
            "max_tokens_exceeded",
            "model_not_found",
            "content_policy_violation",
            "refusal",
        )
    ],
    *[
        (OPENROUTER, 404, router_error(404, error_type=t), "I")
        for t in ("no_endpoints", "privacy_restricted", "free_variant_ended")
    ],
    (GROQ, 429, openai_error("rate_limit_exceeded", "tokens"), "R"),
    (GROQ, 400, openai_error("tool_use_failed", "invalid_request_error"), "I"),
    (GROQ, 400, openai_error("json_validate_failed", "invalid_request_error"), "I"),
    (GROQ, 400, openai_error("blocked_api_access", "invalid_request_error"), "Q"),
    (
        OTHER,
        402,
        openai_error("invalid_request_error", "unknown_error", "Insufficient Balance"),
        "Q",
    ),
    (XAI, 429, {"code": "Some resource has been exhausted", "error": XAI_SPENT}, "Q"),
    (XAI, 403, {"code": "The caller does not have permission", "error": XAI_SPENT}, "Q"),
    (OTHER, 429, openai_error("429"), "R"),
    (OTHER, 429, openai_error("429", "insufficient_quota"), "Q"),
    (OTHER, 400, openai_error("content_filter", status=400, innererror={}), "I"),
    (OTHER, 400, openai_error(400, "BadRequestError"), "I"),  # vLLM
    (OTHER, 400, {"object": "error", "message": "m", "type": "BadRequestError", "code": 400}, "I"),
    (OTHER, 503, openai_error(503, "unavailable_error"), "O"),  # llama.cpp, loading
    (OTHER, 400, openai_error(400, "exceed_context_size_error", n_ctx=9), "I"),
    (OTHER, 500, openai_error(None, "api_error"), "O"),  # Ollama
]
# Only the status tells, so in-band there is no such error.
HTTP_ERRORS: list[tuple[Provider, int, Any, str]] = [
    (OPENAI, 401, openai_error("ip_not_authorized"), "A"),
    (OPENAI, 403, openai_error("unsupported_country_region_territory"), "A"),
    (OPENAI, 409, openai_error(None), "O"),
    (OPENAI, 408, openai_error(None), "O"),
    (OPENAI, 422, openai_error(None), "I"),
    (OPENAI, 401, {"statusCode": 401, "message": "m"}, "A"),
    (OPENAI, 301, {}, "I"),
    (GROQ, 413, openai_error("rate_limit_exceeded", "tokens"), "I"),
    (GROQ, 498, openai_error("capacity_exceeded"), "O"),
    (GROQ, 424, openai_error(None), "O"),  # what it depends on has failed: it may pass
    (XAI, 400, {"code": "Client specified an invalid argument", "error": "Incorrect API key"}, "A"),
    (XAI, 410, {"code": "x", "error": "search_parameters is gone"}, "I"),
    (XAI, 429, {"code": "x", "error": "Too many requests"}, "R"),
    (MISTRAL, 401, {"message": "Unauthorized", "request_id": "x"}, "A"),
    (MISTRAL, 402, {"detail": "Payment required"}, "Q"),
    (MISTRAL, 422, {"detail": [{"type": "extra_forbidden", "loc": [], "msg": "m"}]}, "I"),
    (MISTRAL, 429, {"message": "Requests rate limit exceeded"}, "R"),
    (MISTRAL, 429, {"object": "error", "type": "rate_limited", "code": "1300"}, "R"),
    (
        MISTRAL,
        503,
        {
            "object": "error",
            "message": "Service tier capacity exceeded for this model.",
            "type": "invalid_request_error",
            "code": "3505",
        },
        "O",
    ),
    (OTHER, 429, {"error": {"code": "RateLimitReached", "message": "m"}}, "R"),
    (OTHER, 401, {"error": {"code": "PermissionDenied", "message": "m"}}, "A"),
    (OTHER, 404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, "I"),
    (OTHER, 404, {"error": "model 'x' not found"}, "I"),
    (OTHER, 500, {"error": "text"}, "O"),
    (OTHER, 599, None, "O"),
]


@pytest.mark.parametrize(("provider", "status", "body", "want"), [*ERRORS, *HTTP_ERRORS])
def test_an_error_over_http(provider: Provider, status: int, body: Any, want: str) -> None:
    info = provider.parse_error(status, json.dumps(body).encode())
    assert info.kind in KINDS[want]
    assert info.status == status
    assert info.retryable is (want in "RO")


@pytest.mark.parametrize(("provider", "status", "body", "want"), ERRORS)
def test_the_same_error_inside_a_stream(
    provider: Provider, status: int, body: dict[str, Any], want: str
) -> None:
    for event in (body, ("error", body)):
        info = info_of(provider, event)
        assert info.kind in KINDS[want]
        assert info.retryable is (want in "RO")


@pytest.mark.parametrize(
    "words",
    [
        "Your credit balance is too low",
        "Insufficient balance",
        "insufficient credit",
        "Insufficient funds on the account",
        "You exceeded your current quota",
        "The project has hit its spend limit",
        "The monthly spending limit was reached",
    ],
)
@pytest.mark.parametrize("status", [400, 402, 403, 429, None])
def test_money_is_told_from_the_words_where_there_is_no_code(status: Any, words: str) -> None:
    assert error_info(status, json.dumps({"error": {"message": words}}).encode()).kind == "quota"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no explanation"),
        (b"  \n", "no explanation"),
        (b"upstream connect error", "upstream connect error"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"null", "no explanation"),
        (b"[]", "no explanation"),
        (b"{}", "no explanation"),
        (b'"text"', "text"),
        (b'{"error": null, "message": "m"}', "m"),
        (b'{"error": "text"}', "text"),
        (b'{"error": {"message": "m"}}', "m"),
        (b'[{"error": {"message": "m"}}]', "m"),  # Google
        (b'{"error": {"message": " ", "type": "t"}}', "t"),
        (b'{"error": {"code": "c"}}', "c"),
        (b'{"error": {"message": 5, "msg": "m"}}', "m"),
        (b'{"error": {"title": "m"}}', "m"),
        (b'{"error": "x", "error_description": "m"}', "x (m)"),
        (b'{"detail": "m"}', "m"),
        (b'{"detail": [{"msg": "a", "input": "SECRET"}, {"msg": "b"}, {}, 5]}', "a; b"),
        (b'{"detail": [5]}', '{"detail":[5]}'),
        (b'{"message": {"detail": [{"msg": "a", "input": "SECRET"}]}}', "a"),  # Mistral
        (b'{"message": {"detail": {}}, "type": "t"}', "t"),
        (b'{"error": {"message": "m", "metadata": {"raw": "why"}}}', "m (why)"),
        (b'{"error": {"message": "m", "metadata": {"raw": {}}}}', "m"),
        (b"[" * 100_000, "[" * EXCERPT_CHARS),
        (b"x" * 100_000, "x" * EXCERPT_CHARS),
    ],
)
def test_the_words_of_an_error(body: bytes, message: str) -> None:
    assert error_info(500, body).message == message


def test_the_facts_of_an_error() -> None:
    body = {
        "error": {
            "code": 503,
            "message": "No capacity",
            "type": None,
            "metadata": {"provider_name": "X", "error_type": "provider_overloaded"},
            "availability": {"code": "capacity_exhausted", "retryable": False, "retry_after": 7},
        }
    }
    info = OPENROUTER.parse_error(503, json.dumps(body).encode())
    assert (info.status, info.code, info.type, info.kind) == (503, "503", None, "overloaded")
    assert (info.should_retry, info.retryable, info.retry_after) == (False, False, 7.0)
    assert info.metadata == {"provider_name": "X", "error_type": "provider_overloaded"}
    refused = llm.RefusedError(info, request_id="req_1", headers={"a": "b"})
    assert (refused.status, refused.code, refused.kind) == (503, "503", "overloaded")
    assert (refused.retry_after, refused.request_id) == (7.0, "req_1")
    assert str(refused) == (
        "HTTP 503 [503] overloaded: No capacity (retry after 7 s) (request req_1)"
    )
    assert llm.RefusedError(info, retry_after=1.0).retry_after == 1.0


@pytest.mark.parametrize(
    "wait", [-1, "7", True, None, 1e10, [], 10**400], ids=lambda w: f"{w!r:.20}"
)
def test_a_wait_that_is_none(wait: Any) -> None:
    body = {"error": {"message": "m", "availability": {"retryable": 1, "retry_after": wait}}}
    info = error_info(503, json.dumps(body).encode())
    assert (info.should_retry, info.retry_after) == (None, None)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"code": 429}, 429),
        ({"code": "429"}, 429),
        ({"status_code": 502}, 502),
        ({"status": 401}, 401),
        ({"code": 5}, None),
        ({"code": "1300"}, None),
        ({"code": True}, None),
        ({"code": 10**30}, None),
        ({"code": None, "type": "overloaded_error"}, 529),
        ({"code": "new", "type": "new"}, None),
    ],
)
def test_the_status_that_an_error_inside_a_stream_stands_for(
    error: dict[str, Any], status: int | None
) -> None:
    assert info_of(OPENAI, {"error": {"message": "m", **error}}).status == status


@pytest.mark.parametrize(
    ("event", "words"),
    [
        ({"error": {"message": "boom"}}, "boom"),
        ({"error": "boom"}, "boom"),  # LM Studio, SGLang
        ({"error": ["boom"]}, "boom"),
        ({"error": True, "choices": []}, '"error":true'),
        ({"choices": [], "error": {"message": "boom", "code": 502}}, "boom"),
        (
            {
                "choices": [{"delta": {"content": ""}, "finish_reason": "error"}],
                "error": {"code": 502, "message": "boom"},
            },
            "boom",
        ),
        ({"choices": [{"delta": {}, "finish_reason": "error"}]}, "finish reason"),
        ({"choices": [{"finish_reason": "error", "error": {"message": "boom"}}]}, "boom"),
        ({"choices": [{"delta": {"content": ""}, "error": {"message": "boom"}}]}, "boom"),
        ({"choices": [], "x_groq": {"error": "boom"}}, "boom"),
        ({"choices": [{"delta": {}}], "x_groq": {"error": {"message": "boom"}}}, "boom"),
        ({"object": "error", "message": "boom"}, "boom"),
        ({"message": "boom"}, "boom"),
        ({"detail": [{"msg": "boom"}]}, "boom"),
        ({"object": "error"}, '"error"'),
        ({"error": True, "message": "boom"}, "boom"),
        ({"error": "rate_limit_exceeded", "message": "boom"}, "boom"),
        ({"error": "x" * 3000, "message": "boom"}, "xxx"),
        ({"event": "error", "data": "boom"}, "boom"),
        ({"event": "error", "data": {"code": 4000, "message": "boom"}}, "boom"),
        ({"code": 0, "data": {"error": {"message": "boom"}}}, "boom"),
        ({"provider": {"error": {"message": "boom"}}}, "boom"),
        ({"level": "error", "message": "boom"}, "boom"),
        (
            {
                "choices": [{"delta": {}, "finish_reason": "error"}],
                "base_resp": {"status_code": 1002, "status_msg": "boom"},
            },
            "boom",
        ),
    ],
)
def test_every_shape_of_an_error_inside_a_stream(event: dict[str, Any], words: str) -> None:
    error = error_of(OPENAI, event)
    assert isinstance(error, llm.ProviderError)
    assert words in str(error)
    assert words in error.info.message


@pytest.mark.parametrize("level", ["info", "warn", "WARNING", "debug"])
def test_a_line_of_a_log_is_no_error_inside_a_stream(level: str) -> None:
    assert decode(OPENAI, {"level": level, "message": "slow"})[1] is None


@pytest.mark.parametrize(
    "event",
    [
        {"data": {"error": None}},
        {"event": "status", "data": {"message": "searching"}},
        {"provider": {"error": ""}},
    ],
)
def test_what_reports_no_failure_in_a_wrapping_is_none(event: dict[str, Any]) -> None:
    assert decode(OPENAI, event)[1] is None


def test_what_came_beside_an_error_is_not_lost() -> None:
    chunks, error = decode(OPENAI, {"choices": [{"delta": {"content": "x"}, "error": "boom"}]})
    assert isinstance(error, llm.ProviderError)
    assert error.content == (), "handed on"
    assert [said(c) for c in chunks] == [{"delta": "x"}]
    assert (error.kind, error.status, error.code) == (
        error.info.kind,
        error.info.status,
        error.info.code,
    )


FAILED = {"id": "gen-7", "model": "salt-1"}
FAILED_GEMINI = {"responseId": "gen-7", "modelVersion": "salt-1"}


@pytest.mark.parametrize("content", ["", "Sea"])
@pytest.mark.parametrize(
    ("provider", "event"),
    [
        (OPENAI, {"error": {"message": "boom"}, "choices": [{"delta": {"content": "CONTENT"}}]}),
        (OPENAI, {"choices": [{"delta": {"content": "CONTENT"}, "error": {"message": "boom"}}]}),
        (
            OPENAI,
            {"choices": [{"message": {"content": "CONTENT"}, "error": {"message": "boom"}}]},
        ),
        (GEMINI, {"candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}),
        (GEMINI, {"promptFeedback": {"blockReason": "OTHER"}}),
        (
            GEMINI,
            {"candidates": [{"content": {"parts": [{"text": "CONTENT"}]}}], "error": {"code": 500}},
        ),
        (ANTHROPIC, {"type": "message", "content": [], "stop_reason": "error"}),
        (RESPONSES, {"object": "response", "output": [], "status": "failed"}),
        (
            RESPONSES,
            {"type": "response.failed", "response": {"status": "failed", **FAILED}},
        ),
        (
            RESPONSES,
            {"type": "response.in_progress", "response": {"error": {"message": "boom"}, **FAILED}},
        ),
    ],
)
def test_the_event_of_a_failure_names_its_answer(
    provider: Provider, event: dict[str, Any], content: str
) -> None:
    names = FAILED_GEMINI if provider is GEMINI else FAILED
    said = json.dumps({**event, **names}).replace("CONTENT", content).encode()
    for body in (said, b"data: " + said + b"\n\n"):
        if body is said and (b"delta" in said or b"response." in said):
            continue  # no answer in place of a stream
        response, error = testing.decode(provider, [body])
        assert isinstance(error, llm.ProviderError)
        assert (response.id, response.model) == ("gen-7", "salt-1")
        assert response.content == (content if b"Sea" in said else "")


@pytest.mark.parametrize("names", [{}, {"id": ""}, {"id": 7, "model": []}])
def test_the_event_of_a_failure_need_not_name_its_answer(names: dict[str, Any]) -> None:
    failed = {"type": "response.failed", "response": {"status": "failed", **names}}
    response, error = testing.decode(RESPONSES, [wire(failed)])
    assert isinstance(error, llm.ProviderError)
    assert not response.id


def test_an_error_inside_anthropics_stream_may_come_at_any_place() -> None:
    chunks, error = decode(
        ANTHROPIC,
        MESSAGE_START,
        start({"type": "text", "text": "Hi"}),
        ("error", claude_error("overloaded_error", "Overloaded")),
        change({"type": "text_delta", "text": "never"}),
    )
    assert [c.delta for c in chunks] == ["", "Hi"]
    assert isinstance(error, llm.ProviderError)
    assert (error.kind, error.status, error.code) == ("overloaded", 529, "overloaded_error")
    assert info_of(ANTHROPIC, {"type": "x", "error": {"message": "boom"}}).message == "boom"
    assert info_of(ANTHROPIC, {"error": "boom"}).message == "boom"


# -- the response ----------------------------------------------------------------------


def test_usage_merges_field_by_field_and_never_adds() -> None:
    first = Usage(uncached_input_tokens=10, completion_tokens=1, raw={"a": 1, "b": 1})
    first.merge_from(Usage(completion_tokens=5, cost=0.5, final=True, raw={"b": 2}))
    first.merge_from(Usage())  # says nothing
    assert first == Usage(
        uncached_input_tokens=10,
        completion_tokens=5,
        cost=0.5,
        final=True,
        raw={"a": 1, "b": 2},
    )
    bare = Usage()
    bare.merge_from(Usage(raw={"a": 1}))
    assert bare.raw == {"a": 1}


@pytest.mark.parametrize(
    ("spent", "prompt", "total"),
    [
        (Usage(), None, None),
        (Usage(uncached_input_tokens=0), 0, 0),
        (Usage(cache_read_tokens=3), 3, 3),
        (Usage(completion_tokens=5), None, 5),
        (
            Usage(
                uncached_input_tokens=1,
                cache_read_tokens=2,
                cache_write_tokens=4,
                completion_tokens=8,
                reasoning_tokens=7,
            ),
            7,
            15,
        ),
    ],
)
def test_sums_of_usage(spent: Usage, prompt: int | None, total: int | None) -> None:
    assert (spent.prompt_tokens, spent.total_tokens) == (prompt, total)


class Colour(msgspec.Struct):
    colour: str


def test_the_content_can_be_read_as_a_type() -> None:
    choice = llm.Choice(content=' {"colour": "blue"}\n')
    response = llm.CompletionResponse(choices=(choice,))
    assert response.parsed() == {"colour": "blue"}
    assert response.parsed(Colour) == Colour("blue")
    asked = llm.CompletionResponse(choices=(choice,), response_type=Colour)
    assert asked.parsed() == Colour("blue")
    with pytest.raises(msgspec.ValidationError):
        response.parsed(list[int])
    with pytest.raises(msgspec.DecodeError):
        llm.CompletionResponse().parsed()


def test_the_turn_to_send_back_leaves_out_what_nobody_can_answer() -> None:
    good, cut = ToolCall(id="a", name="f"), ToolCall(id="b", name="f", arguments='{"x')
    response = llm.CompletionResponse(
        choices=(
            llm.Choice(
                parts=(TextPart("x"), good, cut), tool_calls=(good,), invalid_tool_calls=(cut,)
            ),
        )
    )
    assert response.to_message() == llm.assistant("x", good)


def test_a_response_shows_its_first_choice() -> None:
    first = llm.Choice(
        parts=(TextPart("c"),),
        content="c",
        reasoning="r",
        refusal="n",
        finish_reason="stop",
        logprobs={"content": []},
        annotations=({"type": "a"},),
    )
    response = llm.CompletionResponse(choices=(first, llm.Choice(index=1, content="other")))
    for name in (
        "content",
        "parts",
        "reasoning",
        "refusal",
        "tool_calls",
        "invalid_tool_calls",
        "finish_reason",
        "logprobs",
        "annotations",
    ):
        assert getattr(response, name) is getattr(first, name)


def test_chunks_can_be_made_by_hand() -> None:
    assert said(StreamChunk.content("x")) == {"delta": "x"}
    assert said(StreamChunk.finished("stop")) == {"finish_reason": "stop"}
    assert [str(o) for o in llm.Outcome] == ["finished", "truncated", "errored", "cancelled"]


# -- nothing foreign comes out ---------------------------------------------------------------

SEEDS: list[tuple[Provider, dict[str, Any]]] = [
    (
        OPENROUTER,
        {
            "id": "c",
            "model": "m",
            "provider": "p",
            "service_tier": "t",
            "system_fingerprint": "f",
            "citations": ["u"],
            "search_results": [{"t": 1}],
            "timings": {"ms": 1},
            "error": None,
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "native_finish_reason": "STOP",
                    "logprobs": {"content": [{"token": "x"}]},
                    "error": None,
                    "delta": {
                        "content": "x",
                        "refusal": "r",
                        "reasoning": "h",
                        "reasoning_content": "h",
                        "reasoning_text": "h",
                        "reasoning_details": [
                            {"type": "reasoning.text", "text": "h", "index": 0, "signature": "s"}
                        ],
                        "annotations": [{"type": "a"}],
                        "audio": {"data": "AAAA", "transcript": "t"},
                        "function_call": {"name": "f", "arguments": "{}"},
                        "tool_calls": [
                            {
                                "index": 0,
                                "id": "c",
                                "type": "function",
                                "function": {"name": "f", "arguments": "{}"},
                                "custom": {"name": "s", "input": "x"},
                                "extra_content": {"g": {}},
                            }
                        ],
                    },
                }
            ],
            "usage": {
                "prompt_tokens": 2,
                "completion_tokens": 2,
                "total_tokens": 4,
                "cost": 0.1,
                "is_byok": True,
                "cost_in_usd_ticks": 5,
                "cost_details": {"upstream_inference_cost": 0.1},
                "prompt_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 1},
                "prompt_cache_hit_tokens": 1,
            },
            "x_groq": {"id": "r", "usage": {"prompt_tokens": 1}, "error": None},
        },
    ),
    (
        MISTRAL,
        delta(
            content=[
                "a",
                {"type": "text", "text": "b"},
                {"type": "thinking", "thinking": [{"type": "text", "text": "h"}]},
                {"type": "reference", "reference_ids": [1]},
            ]
        ),
    ),
    (
        OPENAI,
        {
            "error": {
                "message": "m",
                "code": "c",
                "type": "t",
                "status": 500,
                "details": {"error_code": "c"},
                "metadata": {"raw": "r", "error_type": "t", "reasons": []},
                "availability": {"retryable": True, "retry_after": 5},
            }
        },
    ),
    (OPENAI, {"object": "error", "message": "m", "detail": [{"msg": "m"}]}),
    (OPENAI, WHOLE),
    (
        ANTHROPIC,
        {
            **MESSAGE_START,
            "message": {
                **MESSAGE_START["message"],  # type: ignore[dict-item]
                "content": CLAUDE_WHOLE["content"],
                "stop_reason": "end_turn",
                "stop_sequence": "x",
                "stop_details": {"type": "refusal"},
                "container": {"id": "c"},
            },
        },
    ),
    *[
        (ANTHROPIC, event)
        for event in (
            start({"type": "text", "text": "x", "citations": [{"type": "c"}]}),
            start({"type": "thinking", "thinking": "h", "signature": "s"}),
            start({"type": "redacted_thinking", "data": "d"}),
            start({"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}, "caller": {}}),
            start({"type": "server_tool_use", "id": "t", "name": "f", "input": {"a": 1}}),
            start({"type": "web_search_tool_result", "tool_use_id": "t", "content": [{}]}),
            start({"type": "compaction", "content": None}),
            change({"type": "text_delta", "text": "x"}),
            change({"type": "thinking_delta", "thinking": "x"}),
            change({"type": "signature_delta", "signature": "x"}),
            change({"type": "input_json_delta", "partial_json": "{}"}),
            change({"type": "citations_delta", "citation": {"type": "c"}}),
            change({"type": "compaction_delta", "content": "x", "encrypted_content": "e"}),
            stop(),
            {
                **message_delta("refusal", stop_details={"type": "x"}, container={"id": "c"}),
                "context_management": {"applied_edits": []},
                "usage": {"output_tokens": 1, "output_tokens_details": {"thinking_tokens": 1}},
            },
            claude_error("overloaded_error", "m", "c"),
            CLAUDE_WHOLE,
        )
    ],
]
NONSENSE = [
    None,
    True,
    0,
    -1,
    1.5,
    1e300,
    10**400,
    "",
    "x",
    "\ud800",
    [],
    [None],
    [[]],
    {},
    {"a": 1},
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    out = copy.deepcopy(value)
    there = out
    for key in path[:-1]:
        there = there[key]
    there[path[-1]] = new
    return out


PLACES = [(p, seed, path) for p, seed in SEEDS for path in places(seed)]


def read_all_the_way(provider: Provider, event: Any) -> None:
    """Decode an event in every way there is, fold it, and build the next request from it."""
    data = json.dumps(event).encode()
    for read in (provider.parse_chunk, provider.parse_response):
        with suppress(llm.MiniLLMError, msgspec.MsgspecError):  # what a provider may raise
            read(data)
    provider.parse_error(500, data)
    model = llm.Model(name="m", provider=provider, base_url="http://h")
    state = Ingest(model="m", expect_usage=True, wire=provider.wire_at(model))
    for body in (wire(event), wire(("error", event)), data):
        decoder = ChunkDecoder(provider)
        state.ingest_all([*decoder.feed(body, 0.0), *decoder.finish(0.0)])
        assert isinstance(decoder.error, llm.ProtocolError | llm.ProviderError | None)
    response = state.response()
    provider.cost_of(response.usage, PRICE)
    assert repr(response)
    turns = (llm.user("x"), response.to_message())
    reply = Request(model=model, messages=turns, params={}, extra={})
    try:
        assert msgspec.json.encode(provider.build_request(reply))
    except ValueError as exc:  # a call whose arguments are JSON but no object
        assert "not a JSON object" in str(exc)  # noqa: PT017


@pytest.mark.parametrize(
    ("provider", "seed"), SEEDS, ids=[f"{p.name}-{s.get('type')}" for p, s in SEEDS]
)
def test_nonsense_in_any_field_is_our_error_or_a_right_answer(
    provider: Provider, seed: dict[str, Any]
) -> None:
    for path in places(seed):
        for new in NONSENSE:
            try:
                read_all_the_way(provider, put(seed, path, new))
            except Exception as exc:
                exc.add_note(f"{new!r:.20} at {path}")
                raise


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("data", "cost"),
    [
        (None, None),
        ({"native_tokens_prompt": 7}, None),
        ({"native_tokens_prompt": 7, "total_cost": 0.5}, 0.5),
        ({"native_tokens_prompt": "many", "total_cost": 0.5}, 0.5),
    ],
)
def test_a_generation_s_record_counts_once_its_cost_stands(data: Any, cost: float | None) -> None:
    usage = OPENROUTER.parse_settlement(json.dumps({"data": data}).encode())
    assert (usage and usage.cost) == cost
    assert usage is None or usage.final


@settings(deadline=None)
@given(st.sampled_from(PLACES), anything)
def test_anything_in_any_field_is_our_error_or_a_right_answer(
    place: tuple[Provider, dict[str, Any], tuple[Any, ...]], new: Any
) -> None:
    provider, seed, path = place
    read_all_the_way(provider, put(seed, path, new))


@given(st.sampled_from([OPENAI, OPENROUTER, MISTRAL, ANTHROPIC]), st.binary())
def test_any_bytes_are_our_error_or_a_right_answer(provider: Provider, data: bytes) -> None:
    for body in (data, b"data: " + data + b"\n\n", b"event: error\ndata: " + data + b"\n\n"):
        decoder = ChunkDecoder(provider)
        decoder.feed(body, 0.0)
        decoder.finish(0.0)
        assert isinstance(decoder.error, llm.ProtocolError | llm.ProviderError | None)
    assert provider.parse_error(500, data).message


@pytest.mark.parametrize(
    "event",
    [
        '{"choices":[' + ",".join(["{}"] * 5000) + "]}",
        '{"choices":[{"delta":{"tool_calls":[' + ",".join(["{}"] * 5000) + "]}}]}",
    ],
    ids=["choices", "calls"],
)
def test_a_flood_of_choices_or_calls_in_one_event_is_refused(event):
    _, error = testing.decode(OpenAIChat(), [testing.sse(event)])
    assert isinstance(error, llm.ProtocolError)
    assert error.event == 1
    assert "4,096" in str(error)


@pytest.mark.parametrize("kind", ["text", "thinking"])
def test_an_empty_block_is_no_content_yet(kind):
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": kind, kind: ""}}
    chunk = Anthropic().parse_chunk(msgspec.json.encode(start))
    assert not chunk.progress
    assert chunk.block is not None


@pytest.mark.parametrize("error", ['"upstream died"', '["boom"]', "500"])
@pytest.mark.parametrize(
    "delta", ['"delta":{"content":""}', '"delta":{}', '"message":{"content":null}']
)
def test_an_error_beside_a_choice_that_says_nothing_is_one(error, delta):
    event = f'{{"error":{error},"choices":[{{"index":0,{delta},"finish_reason":"stop"}}]}}'
    with pytest.raises(llm.ProviderError):
        OpenAIChat().parse_chunk(event.encode())


def test_an_error_beside_a_known_event_is_one():
    event = b'{"type":"content_block_stop","index":0,"error":{"type":"api_error","message":"boom"}}'
    with pytest.raises(llm.ProviderError, match="boom"):
        Anthropic().parse_chunk(event)


def test_images_and_fields_of_audio_are_bounded():
    for extra in (
        '"images":[' + ",".join(["{}"] * 4097) + "]",
        '"audio":{' + ",".join(f'"k{i}":"x"' for i in range(4097)) + "}",
    ):
        event = '{"choices":[{"index":0,"delta":{' + extra + "}}]}"
        _, error = testing.decode(OpenAIChat(), [testing.sse(event)])
        assert isinstance(error, llm.LimitExceeded)


FAILED_REASONS = {
    "networkError": "server",
    "FINISH_ABORT": "server",
    "FinishReason.UNEXPECTED_TOOL_CALL": "server",
    "function_call_filter: UNEXPECTED_TOOL_CALL": "server",
    "malformedFunctionCall": "server",
    "Insufficient System Resource": "overloaded",
    "service_unavailable": "overloaded",
    "upstream_timeout": "timeout",
    "timed-out": "timeout",
    "client_disconnected": "server",
    "insufficient_quota": "quota",
    "throttled": "rate_limit",
    "fail": "server",
    "not_ok": "server",
    "quota_exceeded": "quota",
    "dailyQuota": "quota",
    "connection_reset": "server",
    "worker_lost": "server",
    "server_shutdown": "server",
    "kv_cache_full": "overloaded",
    "resource_exhausted": "overloaded",
    "too_many_requests": "rate_limit",
    "429": "rate_limit",
    "HTTP 502": "server",
    "bad_gateway": "server",
    "context deadline exceeded": "timeout",
    "system_busy": "overloaded",
    "insufficient_balance": "quota",
    "unexpected_eof": "server",
    "premature_close": "server",
    "InternalServerError": "server",
    "preemption": "server",
    "modelUnloaded": "server",
    "upstream closed": "server",
}


@pytest.mark.parametrize(("reason", "kind"), FAILED_REASONS.items())
def test_a_failure_is_told_in_any_spelling(reason, kind):
    for parse, event in (
        (OpenAIChat().parse_chunk, {"choices": [{"delta": {}, "finish_reason": reason}]}),
        (Anthropic().parse_chunk, {"type": "message_delta", "delta": {"stop_reason": reason}}),
    ):
        with pytest.raises(llm.ProviderError) as caught:
            parse(msgspec.json.encode(event))
        assert caught.value.info.kind == kind
        assert caught.value.info.code == reason


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ([], None),
        ({}, None),
        (0, None),
        ("FINISH_REASON_UNSPECIFIED", None),
        ("stopReasonUnspecified", None),
        ("N/A", None),
        ("-", None),
        ("IN-PROGRESS", None),
        ("generating", None),
        (["stop"], "stop"),
        ("stop ", "stop"),
        ({"type": "stop"}, "stop"),
        ("STOP", "STOP"),
        ("no_error", "no_error"),
        ("ok", "ok"),
        ("server_stop", "server_stop"),
        ("memory_limit", "memory_limit"),
        ("cache_hit", "cache_hit"),
        ("EOF", "EOF"),
        ("interrupt", "interrupt"),
        ("thinking_budget_exhausted", "thinking_budget_exhausted"),
        ("queue", "queue"),
        ("404th", "404th"),
        ("OTHER", "OTHER"),
    ],
)
def test_what_is_no_reason_is_told_in_any_spelling(sent, reason):
    event = msgspec.json.encode({"choices": [{"delta": {}, "finish_reason": sent}]})
    assert OpenAIChat().parse_chunk(event).finish_reason == reason
    event = msgspec.json.encode({"type": "message_delta", "delta": {"stop_reason": sent}})
    assert Anthropic().parse_chunk(event).finish_reason == reason


def test_a_failure_among_several_reasons_counts():
    event = {"choices": [{"delta": {}, "finish_reason": ["stop", "abort"]}]}
    with pytest.raises(llm.ProviderError):
        OpenAIChat().parse_chunk(msgspec.json.encode(event))


ENDS = {"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    "beside",
    [
        {"error": "boom"},
        {"error": [{"message": "boom"}]},
        {"error_msg": "boom", "error_code": 500},
        {"base_resp": {"status_code": 1027, "status_msg": "boom"}},
        {"object": "error", "message": "boom"},
        {"success": False, "message": "boom"},
    ],
)
def test_a_failure_beside_the_end_of_an_answer_counts(beside):
    with pytest.raises(llm.ProviderError, match="boom") as caught:
        OpenAIChat().parse_chunk(msgspec.json.encode({**ENDS, **beside}))
    message = {"index": 0, "message": {"content": "a"}, "finish_reason": "stop"}
    for reason in ("stop", None):
        whole = {**beside, "choices": [{**message, "finish_reason": reason}]}
        with pytest.raises(llm.ProviderError, match="boom"):
            OpenAIChat().parse_response(msgspec.json.encode(whole))
    if "error" not in beside:
        (content,) = caught.value.content
        assert content.delta == "a"


@pytest.mark.parametrize(
    "beside",
    [
        {"error": {"code": 0, "message": "success"}},
        {"error": {"code": 200, "message": "ok"}},
        {"error": {"code": 0, "message": "", "type": ""}},
        {"error": []},
        {"base_resp": {"status_code": 0, "status_msg": ""}},
        {"code": 200, "success": True, "status": "ok"},
    ],
)
def test_what_says_that_all_is_well_is_no_failure(beside):
    chunk = OpenAIChat().parse_chunk(msgspec.json.encode({**ENDS, **beside}))
    assert (chunk.delta, chunk.finish_reason) == ("a", "stop")


@pytest.mark.parametrize("error", [{"message": "boom"}, "boom"])
@pytest.mark.parametrize("name", ["delta", "message"])
def test_an_error_in_a_delta_that_ends_the_answer_counts(error, name):
    event = {"choices": [{"index": 0, name: {"error": error}, "finish_reason": "stop"}]}
    read = OpenAIChat().parse_chunk if name == "delta" else OpenAIChat().parse_response
    with pytest.raises(llm.ProviderError, match="boom"):
        read(msgspec.json.encode(event))


def whole(*choices, **more):
    body = msgspec.json.encode({"choices": choices, **more})
    return testing.decode(OpenAIChat(), [body])


def test_a_failed_whole_answer_keeps_what_it_said_and_its_usage():
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    choice = {"message": {"content": "Hi"}, "finish_reason": "network_error"}
    response, error = whole(choice, usage=usage)
    assert isinstance(error, llm.ProviderError)
    assert response.content == "Hi"
    assert response.usage is not None
    assert response.usage.completion_tokens == 7


def test_choices_of_a_whole_answer_without_numbers_are_told_apart():
    response, _ = whole(*({"message": {"content": t}, "finish_reason": "stop"} for t in "ab"))
    assert [c.content for c in response.choices] == ["a", "b"]


@pytest.mark.parametrize("delta", [{}, {"content": ""}, None])
def test_a_message_beside_an_empty_delta_is_read(delta):
    response, _ = whole({"message": {"content": "Hi"}, "delta": delta, "finish_reason": "stop"})
    assert response.content == "Hi"


def test_arguments_that_are_a_list_are_those_of_an_invalid_call():
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": [1.5]}}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    response, error = testing.decode(OpenAIChat(), [testing.sse({"choices": [choice]})])
    assert error is None
    assert [c.arguments for c in response.invalid_tool_calls] == ["[1.5]"]


@pytest.mark.parametrize("arguments", ['{"a": 1}', {"a": 1}])
def test_a_call_without_a_function_around_it_is_read(arguments):
    call = {"index": 0, "id": "c", "name": "f", "arguments": arguments}
    choice = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    response, error = testing.decode(OpenAIChat(), [testing.sse({"choices": [choice]})])
    assert error is None
    assert [(c.name, json.loads(c.arguments)) for c in response.tool_calls] == [("f", {"a": 1})]


def test_a_refusal_in_parts_is_read():
    delta = {"refusal": [{"type": "refusal", "text": "N"}, {"text": "o"}]}
    event = {"choices": [{"index": 0, "delta": delta, "text": []}]}
    assert OpenAIChat().parse_chunk(msgspec.json.encode(event)).refusal == "No"


def test_text_in_the_place_of_a_delta_is_read():
    event = {"choices": [{"index": 0, "text": "Hi", "finish_reason": None}]}
    assert OpenAIChat().parse_chunk(msgspec.json.encode(event)).delta == "Hi"


def test_a_whole_answer_behind_a_keep_alive_and_an_opening_is_read():
    opening = {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}
    answer = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}
    events = map(testing.sse, ({}, opening, answer))
    response, error = testing.decode(OpenAIChat(), events)
    assert error is None
    assert response.content == "Hi"


def test_usage_in_a_wrapping_of_its_own_counts():
    text = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    events = [testing.sse({"result": event}) for event in (text, usage)]
    response, error = testing.decode(OpenAIChat(), [*events, testing.sse("[DONE]")])
    assert error is None
    assert response.usage is not None
    assert (response.content, response.usage.completion_tokens) == ("Hi", 7)


def test_a_whole_answer_that_says_nothing_is_no_evidence_of_one():
    response, error = whole({})
    assert isinstance(error, llm.StreamTruncated)
    assert response.outcome is llm.Outcome.TRUNCATED


def test_bytes_of_a_whole_answer_that_are_not_utf8_are_replaced():
    body = b'{"choices":[{"message":{"content":"a\xffb"},"finish_reason":"stop"}]}'
    response, error = testing.decode(OpenAIChat(), [body])
    assert error is None
    assert response.content == "a\ufffdb"


MESSAGE = {"id": "m", "content": [], "usage": {"input_tokens": 9, "output_tokens": 1}}
START = {"type": "message_start", "message": MESSAGE}
BLOCK = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}
LAST = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
USED = {"usage": {"output_tokens": 7}}
STOP = {"type": "message_stop"}


def messages(*events):
    return testing.decode(Anthropic(), [*map(testing.sse, events)])


@pytest.mark.parametrize(
    "last",
    [
        {**LAST, **USED, "base_resp": {"status_code": 1027, "status_msg": "boom"}},
        {**LAST, **USED, "delta": {"stop_reason": "end_turn", "error": {"message": "boom"}}},
        {**LAST, **USED, "delta": {}, "stop_reason": "error"},
        {**LAST, **USED, "delta": {"stop_reason": "error"}},
    ],
)
def test_a_failure_beside_the_stop_reason_counts_and_its_usage_stays(last):
    response, error = messages(START, BLOCK, last, STOP)
    assert isinstance(error, llm.ProviderError)
    assert response.content == "Hi"
    assert response.usage is not None
    assert response.usage.completion_tokens == 7


@pytest.mark.parametrize(
    "events",
    [
        (START, BLOCK, {**LAST, **USED, "error": {"type": "", "message": ""}}, STOP),
        (START, BLOCK, {**LAST, "delta": {}, "stop_reason": "end_turn", **USED}, STOP),
        (START, BLOCK, LAST, {**STOP, **USED}),
        (START, BLOCK, {**LAST, "delta": {"stop_reason": "end_turn", **USED}}, STOP),
        (START, {**BLOCK, "delta": {"type": "text", "text": "Hi"}}, {**LAST, **USED}, STOP),
        tuple(
            {k: v for k, v in e.items() if k != "type"} for e in (START, BLOCK, {**LAST, **USED})
        ),
    ],
    ids=[
        "fine error",
        "top reason",
        "usage in stop",
        "usage in delta",
        "type of block",
        "no types",
    ],
)
def test_an_anthropic_answer_in_another_shape_is_read(events):
    response, error = messages(*events)
    assert error is None
    assert (response.content, response.finish_reason) == ("Hi", "end_turn")
    assert response.usage is not None
    assert response.usage.completion_tokens == 7


def test_the_usage_of_an_opening_is_no_evidence_of_an_answer():
    response, error = testing.decode(Anthropic(), [testing.sse(START), b"data: [DONE]\n\n"])
    assert isinstance(error, llm.StreamTruncated)
    assert response.outcome is llm.Outcome.TRUNCATED


@pytest.mark.parametrize(
    "more",
    [{"error": {"message": "boom"}}, {"base_resp": {"status_code": 1002, "status_msg": "boom"}}],
)
def test_a_failure_in_a_whole_message_counts(more):
    message = {**MESSAGE, "type": "message", "stop_reason": "end_turn", **more}
    _, error = testing.decode(Anthropic(), [msgspec.json.encode(message)])
    assert isinstance(error, llm.ProviderError)
    assert "boom" in str(error)


def test_the_reason_of_the_server_behind_a_gateway_may_name_a_failure():
    choice = {
        "delta": {},
        "finish_reason": "stop",
        "native_finish_reason": "MALFORMED_FUNCTION_CALL",
    }
    with pytest.raises(llm.ProviderError, match="MALFORMED_FUNCTION_CALL"):
        OpenAIChat().parse_chunk(msgspec.json.encode({"choices": [choice]}))


def test_a_failing_event_of_several_choices_loses_no_text():
    event = {
        "choices": [
            {"index": 0, "delta": {"content": "a"}},
            {"index": 1, "delta": {"content": "b"}, "finish_reason": "abort"},
        ]
    }
    with pytest.raises(llm.ProviderError) as caught:
        OpenAIChat().parse_chunk(msgspec.json.encode(event))
    assert [(c.choice, c.delta, c.finish_reason) for c in caught.value.content] == [
        (0, "a", None),
        (1, "b", None),
    ]


@pytest.mark.parametrize(("error", "told"), [("boom", "boom"), ({"message": "boom"}, "boom")])
def test_what_an_error_comes_with_stays_though_its_choices_fail_too(error, told):
    choices = [{"delta": {"content": "a"}, "finish_reason": "error"}, {"delta": {}, "index": -1}]
    with pytest.raises(llm.ProviderError, match=told) as caught:
        OpenAIChat().parse_chunk(msgspec.json.encode({"error": error, "choices": choices}))
    assert [c.delta for c in caught.value.content] == ["a"]


def test_a_cost_beside_the_usage_counts():
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    for event in ({"choices": [], "usage": usage, "cost": 0.25}, {"choices": [], "cost": 0.25}):
        found = OpenAIChat().parse_chunk(msgspec.json.encode(event)).usage
        assert found.cost == 0.25
    usage["cost"] = 0.5
    found = OpenAIChat().parse_chunk(
        msgspec.json.encode({"choices": [], "usage": usage, "cost": 9})
    )
    assert found.usage.cost == 0.5


@pytest.mark.parametrize(
    ("delta", "delta_says", "reasoning", "unread"),
    [
        ({"content": {"text": None, "value": 7}}, "7", "", ()),
        ({"content": [{"type": "think", "text": "t"}, {"thought": "u"}]}, "", "tu", ()),
        ({"content": [{"type": "citation", "text": "c"}, {"type": 7, "text": "x"}]}, "x", "", ()),
        ({"content": [{"type": "reasoning", "thought": {"a": 1}}]}, "", "",
         ("a content part of type reasoning",)),
        ({"output_text": [{"text": "o"}], "thought": ["t"]}, "o", "t", ()),
        ({"text": {"a": {"b": 1}}}, "", "", ("choices[].delta.text",)),
        ({"role": "assistant", "phase": "final", "signature": "s"}, "", "", ()),
        ({"provider_metadata": {"gateway": {"cost": "0.01"}}}, "", "", ()),
        ({"an odd name!": "x", "odd": [], "more": {"a": 1}}, "", "",
         ("choices[].delta.a field of another name", "choices[].delta.more")),
    ],
)  # fmt: skip
def test_text_is_read_wherever_it_stands(delta, delta_says, reasoning, unread):
    chunk = OpenAIChat().parse_chunk(msgspec.json.encode({"choices": [{"delta": delta}]}))
    assert (chunk.delta, chunk.reasoning, chunk.unread) == (delta_says, reasoning, unread)
    assert chunk.progress is bool(delta_says or reasoning or chunk.annotations)


def test_text_beside_a_reason_is_read_from_the_delta_alone():
    event = {"choices": [{"delta": {"text": "x"}, "content": "all", "finish_reason": "stop"}]}
    chunk = OpenAIChat().parse_chunk(msgspec.json.encode(event))
    assert (chunk.delta, chunk.finish_reason) == ("x", "stop")
    event = {"choices": [{"delta": {}, "content": "all", "finish_reason": "stop"}]}
    assert OpenAIChat().parse_chunk(msgspec.json.encode(event)).delta == ""
    event = {"choices": [["odd"]]}
    assert not OpenAIChat().parse_chunk(msgspec.json.encode({"choices": {"delta": {}}})).progress


def test_an_opening_and_an_end_without_anything_are_no_answer():
    start = {
        "type": "message_start",
        "message": {"id": "m", "content": [], "usage": {"output_tokens": 0}},
    }
    body = [testing.sse(start), testing.sse({"type": "message_stop"})]
    response, _ = testing.decode(Anthropic(), body)
    assert response.outcome is not llm.Outcome.FINISHED
