"""The five questions in the table of `_types/chunks.py`, asked of each kind of chunk."""

from __future__ import annotations

import msgspec
import pytest

from trio_minillm import Block, StreamChunk, ToolCallDelta, Usage
from trio_minillm._types.chunks import has_content, has_effect, separate

CONTENT = [
    {"delta": "x"},
    {"reasoning": "x"},
    {"refusal": "x"},
    {"tool_calls": (ToolCallDelta(0),)},
    {"audio": {"data": "x"}},
    {"images": ({"image_url": "x"},)},
    {"reasoning_details": ({"type": "reasoning.text"},)},
]
FACTS = [
    {"usage": Usage()},
    {"block": Block(stop=True)},
    {"end": True},
    {"metadata": {"provider": "x"}},
    {"raw": b"{}"},
]
NEITHER = [{}, {"id": "c"}, {"model": "m"}, {"choice": 1}, {"part": 1}, {"event": 3}]


@pytest.mark.parametrize("fields", CONTENT)
def test_content_is_a_part_of_the_answer_with_or_without_progress(fields):
    for progress in (True, False):
        assert has_content(StreamChunk(**fields, progress=progress))


@pytest.mark.parametrize("fields", [*FACTS, *NEITHER, {"finish_reason": "stop"}])
def test_facts_are_no_content(fields):
    assert not has_content(StreamChunk(**fields))


@pytest.mark.parametrize("fields", FACTS)
def test_facts_have_an_effect_without_progress(fields):
    assert has_effect(StreamChunk(**fields, progress=False))


@pytest.mark.parametrize("fields", NEITHER)
def test_without_progress_and_facts_there_is_no_effect(fields):
    assert not has_effect(StreamChunk(**fields, progress=False))
    assert has_effect(StreamChunk(**fields))


def test_a_chunk_that_is_separate_shares_nothing_that_can_change() -> None:
    inner = {"a": [1, {"b": [2]}], "c": {}}
    chunk = StreamChunk(
        tool_calls=(ToolCallDelta(0, extra=inner, partial=inner),),
        usage=Usage(raw=inner, doubts={"cost": "why"}),
        block=Block(start=inner, delta=inner, stop=True, whole="x"),
        reasoning_details=(inner,),
        annotations=(inner,),
        logprobs=inner,
        audio=inner,
        images=(inner,),
        metadata=inner,
    )
    before = msgspec.json.encode(chunk)
    separate(chunk)
    assert msgspec.json.encode(chunk) == before
    inner["a"][1]["b"].append(3)  # type: ignore[index]
    inner["c"]["d"] = 4  # type: ignore[index, call-overload]
    assert msgspec.json.encode(chunk) == before


def test_a_usage_without_its_json_can_t_be_read_anew() -> None:
    assert Usage(completion_tokens=1).anew() is None
