"""Reading each shape of line once finds what reading each line whole finds, in the same words."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from datetime import date
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._batch.files import request_format
from trio_minillm._batch.files.request_format import RequestReader, check_request, request_from
from trio_minillm._batch.types import BatchRequest
from trio_minillm.providers.anthropic import Anthropic
from trio_minillm.providers.openai import OpenAIChat

from ...support.wires import model_on

WIRES = ("openai", "anthropic", "openrouter", "compatible", "text_completions")
PARAMS = {"temperature": 0.5}


def user(content: Any = "Hello.", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
TEMPLATES: list[dict[str, Any]] = [
    {"key": "a", "prompt": "Hello."},
    {"key": 7, "prompt": "Hello.", "system": "Be brief.", "max_tokens": 9, "meta": {"n": 1}},
    {"custom_id": "b", "messages": [user()], "temperature": 1, "n": 1},
    {"key": "c", "messages": [user(), {"role": "assistant", "content": "Hi."}, user("And?")]},
    {"key": "d", "messages": [user()], "system": "Be brief.", "extra": {"x": 1}},
    {
        "custom_id": "e",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": "m", "messages": [user()], "tools": [TOOL], "tool_choice": "auto"},
    },
    {"custom_id": "g", "url": "/v1/completions", "body": {"prompt": "Once.", "logprobs": 2}},
    {"key": "h", "prompt": [1, 2]},
    {"custom_id": "f", "body": {"messages": [user()], "logit_bias": {"5": 1}, "stop": ["x"]}},
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 1.0, -1, 5, 2**70, 0.5, math.nan, math.inf, "", " ", "\u2003\n"),
    *(
        "x",
        "é",
        "\ud800",
        "POST",
        "system",
        "tool",
        "low",
        [],
        {},
        ["x"],
        {"x": 1},
        {"x": math.nan},
    ),
    *([user()], [user("")], [user(5)], [user([{"type": "text", "text": "x"}])], user()),
    *([user(name="n")], [{"role": "pope", "content": "x"}], [{"role": ["user"], "content": "x"}]),
    *([{"role": "tool", "content": "x"}], [{"content": "x", "x": 1}], (user(),), ["ab"], [TOOL]),
    *(b"x", date(2026, 1, 2), {"messages": [user()]}, {"messages": None}, "x" * 70_000),
]
NAMES = [
    *("key", "custom_id", "prompt", "messages", "system", "meta", "extra", "model", "body", "url"),
    *("method", "max_tokens", "temperature", "stop", "n", "logit_bias", "top_k", "seed", "user"),
    *(
        "tools",
        "tool_choice",
        "response_format",
        "reasoning",
        "stream",
        "promt",
        "reasoning_effort",
    ),
    *("max_completion_tokens", "role", "content", "name"),
]
PLACES: list[Callable[[dict[str, Any]], Any]] = [
    lambda line: line,
    lambda line: line.get("body"),
    lambda line: line["messages"][-1],
    lambda line: line["body"]["messages"][0],
]


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A good line, in which up to two fields are other ones, absent or added."""
    line = copy.deepcopy(draw(st.sampled_from(TEMPLATES)))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        try:
            place = draw(st.sampled_from(PLACES))(line)
        except (KeyError, TypeError, IndexError):
            continue
        if isinstance(place, dict):
            name = draw(st.sampled_from([*place, *NAMES]))
            if draw(st.booleans()):
                place[name] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            else:
                place.pop(name, None)
    return line


def found(read: Callable[[Any], BatchRequest], line: Any) -> Any:
    """The request, comparable also where it has a NaN, or the words for the fault."""
    try:
        return repr(_plain(read(line)))
    except ValueError as exc:
        return f"{type(exc).__name__}: {exc}"


def _plain(request: BatchRequest) -> list[Any]:
    return [getattr(request, name) for name in request.__struct_fields__]


def by_shape(model: llm.Model) -> Callable[[Any], BatchRequest]:
    reader = RequestReader(model_of=lambda name: model, params=PARAMS)

    def read(line: Any) -> BatchRequest:
        request, shape = reader.read(line)
        reader.check(request, shape)
        return request

    return read


def whole(model: llm.Model) -> Callable[[Any], BatchRequest]:
    def read(line: Any) -> BatchRequest:
        request = request_from(line, model_of=lambda name: model, params=PARAMS)
        check_request(request)
        return request

    return read


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=200, deadline=None)
@given(file=st.lists(lines(), max_size=12))
def test_lines_are_found_good_or_bad_as_one_by_one(wire: str, file: list[dict[str, Any]]) -> None:
    model = model_on(wire)
    quick, slow = by_shape(model), whole(model)
    for line in [*TEMPLATES, *file]:
        assert found(quick, copy.deepcopy(line)) == found(slow, copy.deepcopy(line))


@pytest.mark.parametrize("wire", WIRES)
def test_each_single_change_of_a_good_line(wire: str) -> None:
    """All fields with all values, after the good lines, whose shapes are known then."""
    model = model_on(wire)
    quick, slow = by_shape(model), whole(model)
    for line in TEMPLATES:
        assert found(quick, line) == found(slow, line)
    for template in TEMPLATES:
        for at in range(len(PLACES)):
            for name in NAMES:
                for value in VALUES:
                    line = copy.deepcopy(template)
                    try:
                        place = PLACES[at](line)
                    except (KeyError, TypeError):
                        continue
                    if isinstance(place, dict):
                        place[name] = value
                        assert found(quick, line) == found(slow, line), (template, at, name, value)


# -- what is remembered ----------------------------------------------------------------------


class Counting(OpenAIChat):
    """Counts the bodies that are built, and takes any text."""

    any_text = True
    built: ClassVar[int] = 0

    def build_request(self, request: llm.Request) -> dict[str, Any]:
        Counting.built += 1
        return super().build_request(request)


class Choosy(OpenAIChat):
    """Refuses a text."""

    def build_request(self, request: llm.Request) -> dict[str, Any]:
        if request.messages[-1].text == "no":
            raise ValueError("not this text")
        return super().build_request(request)


def model_of_class(kind: type[OpenAIChat]) -> llm.Model:
    return llm.Model(name="m", provider=kind(), base_url="https://test.invalid/v1")


def test_a_shape_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "built", 0)
    read = by_shape(model_of_class(Counting))
    for n in range(50):
        assert read({"key": str(n), "prompt": f"Number {n}."}).key == str(n)
        read({"custom_id": f"b{n}", "body": {"messages": [user(f"Number {n}.")]}, "meta": n})
    assert Counting.built == 2


def test_a_provider_that_may_refuse_a_text_is_asked_for_each() -> None:
    assert (OpenAIChat.any_text, Anthropic.any_text, Choosy.any_text) == (True, True, False)
    read = by_shape(model_of_class(Choosy))
    for _ in range(2):
        read({"key": "a", "prompt": "yes"})
        with pytest.raises(ValueError, match="not this text"):
            read({"key": "a", "prompt": "no"})


def test_few_shapes_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_format, "MAX_SHAPES", 3)
    reader = RequestReader(model_of=lambda name: model_on("openai"), params={})
    for seed in range(10):
        request, shape = reader.read({"key": "a", "prompt": "Hello.", "seed": seed})
        reader.check(request, shape)
        assert len(reader._good) <= 3
    large = {"key": "a", "prompt": "Hello.", "stop": ["x" * request_format.MAX_SHAPE]}
    assert reader.read(large)[1] is None


def test_requests_of_one_shape_share_no_parameters() -> None:
    read = by_shape(model_on("openai"))
    read({"key": "a", "prompt": "x", "seed": 1})
    one, two = (read({"key": key, "prompt": "x", "seed": 1}) for key in "bc")
    assert isinstance(one.params, dict)
    one.params["seed"] = 2
    assert two.params == {"temperature": 0.5, "seed": 1}
