"""Real events with all their fields, and JSON values to put in the place of each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

OPENAI: dict[str, Any] = {
    "text": {
        "id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "service_tier": "default", "system_fingerprint": "fp", "provider": "p",
        "citations": ["u"], "search_results": [{"url": "u"}], "timings": {"n": 1},
        "x_groq": {"id": "r", "usage": None},
        "choices": [{
            "index": 0, "finish_reason": None, "native_finish_reason": None,
            "logprobs": {"content": [{"token": "lost", "logprob": -1.0}], "refusal": None},
            "delta": {"role": "assistant", "content": "lost", "refusal": None, "tool_calls": None},
        }],
        "usage": None,
    },
    "reasoning": {"choices": [{"index": 0, "delta": {
        "reasoning": "lost", "reasoning_details": [
            {"type": "reasoning.text", "text": "lost", "signature": "lost", "index": 0, "id": "i"}],
    }}]},
    "others": {"choices": [{"index": 0, "delta": {
        "refusal": "lost", "annotations": [{"type": "url_citation", "url_citation": {"url": "lost"}}],
        "audio": {"id": "a", "data": "lost", "transcript": "lost", "expires_at": 1},
        "images": [{"type": "image_url", "image_url": {"url": "lost"}}],
    }}]},
    "parts": {"choices": [{"index": 0, "delta": {"content": [
        {"type": "text", "text": "lost"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "lost"}]},
        {"type": "reference", "reference_ids": ["lost"]},
    ]}}]},
    "call": {"choices": [{"index": 0, "delta": {"tool_calls": [
        {"index": 0, "id": "c1", "type": "function",
         "function": {"name": "f", "arguments": '{"lost":1}'}},
    ]}}]},
    "reason": {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    "usage": {"choices": [], "usage": {
        "prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12, "cost": 0.5,
        "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 1, "audio_tokens": 0},
        "cost_details": {"upstream_inference_cost": 0.1}, "is_byok": False,
        "cost_in_usd_ticks": 5,
    }},
    "error": {"error": {"message": "no", "code": 503, "type": "t", "metadata": {"raw": "no"}},
              "choices": []},
}  # fmt: skip


TEXT: dict[str, Any] = {
    "text": {
        "id": "gen-1", "object": "text_completion", "created": 1, "model": "m",
        "system_fingerprint": "fp", "usage": None,
        "choices": [{
            "index": 0, "text": "lost", "finish_reason": None, "stop_reason": None,
            "logprobs": {
                "tokens": ["lost"], "token_logprobs": [-1.0], "top_logprobs": [{"lost": -1.0}],
                "text_offset": [0],
            },
        }],
    },
    "reason": {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]},
    "error": {"error": {"message": "no", "code": 503, "type": "t"}, "choices": []},
}  # fmt: skip

ANTHROPIC: dict[str, Any] = {
    "start": {"type": "message_start", "message": {
        "id": "m", "type": "message", "role": "assistant", "model": "m", "content": [],
        "stop_reason": None, "stop_sequence": None, "container": None,
        "usage": {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 1,
                  "cache_creation": {"ephemeral_1h_input_tokens": 1}},
    }},
    "text": {"type": "content_block_delta", "index": 0,
             "delta": {"type": "text_delta", "text": "lost"}},
    "reasoning": {"type": "content_block_delta", "index": 1,
                  "delta": {"type": "thinking_delta", "thinking": "lost"}},
    "signature": {"type": "content_block_delta", "index": 1,
                  "delta": {"type": "signature_delta", "signature": "lost"}},
    "citation": {"type": "content_block_delta", "index": 0, "delta": {
        "type": "citations_delta", "citation": {"type": "char_location", "cited_text": "lost"}}},
    "call": {"type": "content_block_start", "index": 1, "content_block": {
        "type": "tool_use", "id": "c1", "name": "f", "input": {"lost": 1}}},
    "block": {"type": "content_block_start", "index": 1, "content_block": {
        "type": "text", "text": "lost", "citations": [{"type": "char_location", "cited_text": "lost"}]}},
    "thought": {"type": "content_block_start", "index": 1, "content_block": {
        "type": "thinking", "thinking": "lost", "signature": "lost"}},
    "hidden": {"type": "content_block_start", "index": 1, "content_block": {
        "type": "redacted_thinking", "data": "lost"}},
    "result": {"type": "content_block_start", "index": 1, "content_block": {
        "type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "lost"}]}},
    "arguments": {"type": "content_block_delta", "index": 1,
                  "delta": {"type": "input_json_delta", "partial_json": '{"lost":1}'}},
    "stop": {"type": "content_block_stop", "index": 0},
    "reason": {"type": "message_delta", "context_management": {"applied_edits": []}, "delta": {
        "stop_reason": "end_turn", "stop_sequence": None, "stop_details": None, "container": None},
        "usage": {"input_tokens": 7, "output_tokens": 5, "cache_read_input_tokens": 1,
                  "output_tokens_details": {"thinking_tokens": 1},
                  "server_tool_use": {"web_search_requests": 1},
                  "iterations": [{"type": "message", "output_tokens": 5}]}},
    "error": {"type": "error", "error": {"type": "overloaded_error", "message": "no"},
              "request_id": "r"},
}  # fmt: skip


_LOST = [{"type": "url_citation", "url": "lost", "start_index": 0}]

RESPONSES: dict[str, Any] = {
    "start": {"type": "response.created", "sequence_number": 0, "response": {
        "id": "r", "object": "response", "created_at": 1, "status": "in_progress", "error": None,
        "incomplete_details": None, "model": "m", "output": [], "usage": None}},
    "text": {"type": "response.output_text.delta", "sequence_number": 4, "item_id": "msg_1",
             "output_index": 0, "content_index": 0, "delta": "lost", "logprobs": [], "obfuscation": "x"},
    "refusal": {"type": "response.refusal.delta", "item_id": "msg_2", "output_index": 1,
                "content_index": 0, "delta": "lost"},
    "reasoning": {"type": "response.reasoning_summary_text.delta", "item_id": "rs_1", "output_index": 1,
                  "summary_index": 0, "delta": "lost"},
    "annotation": {"type": "response.output_text.annotation.added", "item_id": "msg_1", "output_index": 0,
                   "content_index": 0, "annotation_index": 0, "annotation": _LOST[0]},
    "arguments": {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 1,
                  "delta": '{"lost":1}'},
    "opens": {"type": "response.output_item.added", "output_index": 1, "item": {
        "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"lost":1}'}},
    "part": {"type": "response.content_part.done", "item_id": "msg_2", "output_index": 1, "content_index": 0,
             "part": {"type": "output_text", "text": "lost", "annotations": _LOST, "logprobs": []}},
    "done": {"type": "response.output_text.done", "item_id": "msg_2", "output_index": 1,
             "content_index": 0, "text": "lost"},
    "message": {"type": "response.output_item.done", "output_index": 1, "item": {
        "type": "message", "id": "msg_2", "role": "assistant", "status": "completed",
        "content": [{"type": "output_text", "text": "lost", "annotations": _LOST}]}},
    "thought": {"type": "response.output_item.done", "output_index": 1, "item": {
        "type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "lost"}],
        "encrypted_content": "lost", "status": None}},
    "call": {"type": "response.output_item.done", "output_index": 1, "item": {
        "type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": '{"lost":1}'}},
    "search": {"type": "response.output_item.done", "output_index": 1, "item": {
        "type": "web_search_call", "id": "ws_1", "status": "completed",
        "action": {"type": "search", "query": "lost"}}},
    "end": {"type": "response.completed", "sequence_number": 9, "response": {
        "id": "r", "object": "response", "status": "completed", "error": None,
        "incomplete_details": None, "model": "m", "service_tier": "default",
        "output": [{"type": "reasoning", "id": "rs_1", "summary": []}],
        "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 5,
                  "output_tokens_details": {"reasoning_tokens": 1}, "total_tokens": 12, "cost": 0.5}}},
    "error": {"type": "error", "code": "server_is_overloaded", "message": "no", "param": None},
}  # fmt: skip


GEMINI: dict[str, Any] = {
    "text": {
        "candidates": [{
            "index": 0, "content": {"role": "model", "parts": [{"text": "lost"}]},
            "safetyRatings": [{"category": "c", "probability": "NEGLIGIBLE"}],
        }],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "m", "responseId": "r", "createTime": "t",
    },
    "reasoning": {"candidates": [{"content": {"parts": [
        {"text": "lost", "thought": True, "thoughtSignature": "lost"}]}}]},
    "parts": {"candidates": [{"content": {"parts": [
        {"text": "lost", "thoughtSignature": "lost"},
        {"executableCode": {"language": "PYTHON", "code": "lost"}},
        {"inlineData": {"mimeType": "image/png", "data": "lost"}},
    ]}}]},
    "call": {"candidates": [{"content": {"parts": [
        {"functionCall": {"id": "c1", "name": "f", "args": {"lost": 1}}, "thoughtSignature": "lost"}]}}]},
    "pieces": {"candidates": [{"content": {"parts": [
        {"functionCall": {"name": "f", "willContinue": False, "partialArgs": [
            {"jsonPath": "$.lost", "stringValue": "lost", "willContinue": False}]}}]}}]},
    "beside": {"candidates": [{
        "content": None, "finishMessage": "m", "avgLogprobs": -0.5, "tokenCount": 3,
        "citationMetadata": {"citations": [{"uri": "lost", "startIndex": 0}]},
        "groundingMetadata": {"groundingChunks": [{"web": {"uri": "lost"}}]},
        "urlContextMetadata": {"urlMetadata": []},
        "logprobsResult": {"chosenCandidates": [{"token": "lost", "logProbability": -1.0}]},
    }], "promptFeedback": {"safetyRatings": []}},
    "reason": {"candidates": [{"index": 0, "finishReason": "STOP"}]},
    "usage": {"candidates": [], "usageMetadata": {
        "promptTokenCount": 7, "cachedContentTokenCount": 2, "candidatesTokenCount": 5,
        "thoughtsTokenCount": 1, "toolUsePromptTokenCount": 1, "totalTokenCount": 14,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 7}]}},
    "error": {"error": {"code": 503, "message": "no", "status": "UNAVAILABLE", "details": []}},
}  # fmt: skip


ABSENT = "absent"
VALUES = (
    "null", "7", "-1", "1.5", "true", "false", '""', '"x"', "[]", "[1]", "[null]", '[["x"]]', "{}",
    '{"a":1}', '{"type":null}', "1e999", "NaN", "9" * 400, "-" + "9" * 10_000, "[" * 5000,
    "[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, '"\\ud83d"', '"\xff"', ABSENT,
)  # fmt: skip


NOTHING = {"null", '""', "[]", "{}", "false", ABSENT}
"""Values that say nothing where something is expected."""


def paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in some JSON."""
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    for key, value in pairs:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))


def walk(events: dict[str, Any]) -> list[Any]:
    return [
        pytest.param(kind, path, id=".".join(map(str, (kind, *path))))
        for kind, event in events.items()
        for path in paths(event)
    ]
