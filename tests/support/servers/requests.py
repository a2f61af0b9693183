"""Requests that known servers want otherwise than the reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request

from ..schema_rules import refusals
from . import Difference

REQUESTS: list[Difference] = []

# -- schemas and formats ---------------------------------------------------------------------


class _Source(msgspec.Struct):
    name: str


class _Rated(msgspec.Struct):
    stars: Annotated[int, msgspec.Meta(ge=1, le=10)]
    lines: Annotated[list[str], msgspec.Meta(min_length=2)]
    point: tuple[float, float]
    source: Annotated[_Source, msgspec.Meta(description="where it is from")]


class _Node(msgspec.Struct):
    below: list[_Node]


def _asked(model: llm.Model, format: Any) -> dict[str, Any]:
    body = body_of(make_request(model, (llm.user("hi"),), {"response_format": format}))
    return body.get("response_format") or body["output_config"]["format"]


def _named(server: str) -> llm.Model:
    return llm.compatible("m", base_url="http://host.invalid/v1", server=server)


def _schema_is_taken(model: llm.Model, wire: str) -> Callable[[], None]:
    def check() -> None:
        sent = _asked(model, _Rated)
        schema = sent["schema"] if wire == "anthropic" else sent["json_schema"]["schema"]
        assert refusals(schema, wire) == []
        whole = _asked(model, list[_Rated])
        schema = whole["schema"] if wire == "anthropic" else whole["json_schema"]["schema"]
        assert refusals(schema, wire) == []

    return check


def _is_refused(model: llm.Model, format: Any, words: str) -> Callable[[], None]:
    def check() -> None:
        with pytest.raises(ValueError, match=words):
            _asked(model, format)

    return check


def _is_not_strict() -> None:
    sent = _asked(llm.openai("gpt", api_key="none"), dict[str, int])["json_schema"]
    assert sent["strict"] is False


def _schema_beside_json() -> None:
    sent = _asked(_named("llama-cpp-python"), _Rated)
    assert sent.keys() == {"type", "schema"}
    assert sent["type"] == "json_object"
    assert refusals(sent["schema"], "azure") == []


REQUESTS += [
    Difference(
        "OpenAI",
        "refuses a schema with something beside a `$ref`, a root that is no object, tuples",
        "the definition is written out in place; the answer is put into an object; a list of that length",
        "developers.openai.com: structured outputs; langchainjs#11381, openclaude#1256,"
        " openai-agents-python#4752",
        _schema_is_taken(llm.openai("gpt", api_key="none"), "openai"),
    ),
    Difference(
        "OpenAI",
        "refuses maps in a strict schema",
        "it is asked for without `strict`; a strict tool is a `ValueError` before anything is sent",
        "pydantic-ai#4117, openai-agents-python PR 3927",
        _is_not_strict,
    ),
    Difference(
        "Azure",
        "refuses bounds and formats in a strict schema",
        "they are said in the description",
        "learn.microsoft.com: structured outputs, unsupported keywords",
        _schema_is_taken(_named("azure"), "azure"),
    ),
    Difference(
        "OpenRouter",
        "passes a schema on to a model of any vendor",
        "bounds and formats are said in the description",
        "openrouter.ai/docs/structured-outputs; litellm#21016",
        _schema_is_taken(llm.openrouter("anthropic/claude", api_key="none"), "openrouter"),
    ),
    Difference(
        "Groq",
        "refuses bounds in a strict schema: `minItems is not supported`",
        "they are said in the description",
        "beeai-framework#1215",
        _schema_is_taken(_named("groq"), "azure"),
    ),
    Difference(
        "llama.cpp",
        "makes a grammar of the schema, from bounds and lengths, but not from every pattern",
        "bounds are kept, patterns and formats are said in the description",
        "github.com/ggml-org/llama.cpp: grammars/README.md",
        _schema_is_taken(_named("llama.cpp"), "llama.cpp"),
    ),
    Difference(
        "Anthropic",
        "refuses bounds of numbers, lengths, tuples",
        "they are said in the description",
        "platform.claude.com: structured outputs, JSON Schema limitations; litellm#21016",
        _schema_is_taken(llm.anthropic("claude", api_key="none"), "anthropic"),
    ),
    Difference(
        "Anthropic",
        "refuses recursion and maps in a schema",
        "a `ValueError` that names the field, before anything is sent",
        "platform.claude.com: structured outputs, JSON Schema limitations",
        _is_refused(llm.anthropic("claude", api_key="none"), _Node, r"below\[\] is recursive"),
    ),
    Difference(
        "DeepSeek",
        "has no `json_schema` as response format",
        "a `ValueError` that names the alternatives, before anything is sent",
        "api-docs.deepseek.com: create chat completion; litellm#7580, llm-exe#662",
        _is_refused(_named("deepseek"), _Rated, "use 'json'"),
    ),
    Difference(
        "Z.ai (GLM)",
        "has no `json_schema` as response format",
        "a `ValueError` that names the alternatives, before anything is sent",
        "docs.z.ai: chat completion; promptfoo PR 9905",
        _is_refused(_named("zai"), _Rated, "use 'json'"),
    ),
    Difference(
        "llama-cpp-python",
        "takes a schema beside `json_object`, and no `json_schema`",
        "it is sent so",
        "abetlen/llama-cpp-python: llama_types.py",
        _schema_beside_json,
    ),
    Difference(
        "LM Studio",
        "has no `json_object` as response format",
        "a `ValueError` that says to give a schema or a type, before anything is sent",
        "lmstudio-bug-tracker#189",
        _is_refused(_named("lmstudio"), "json", "give a schema or a type"),
    ),
    Difference(
        "Perplexity",
        "has no `json_object` as response format",
        "a `ValueError` that says to give a schema or a type, before anything is sent",
        "docs.perplexity.ai: structured outputs",
        _is_refused(_named("perplexity"), "json", "give a schema or a type"),
    ),
]
