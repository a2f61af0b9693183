"""Tests of tools' parameters out of strict mode, and of what requests for some models differ in."""

from __future__ import annotations

from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm.providers._schemas import MAX_DEPTH, OPENAI, SchemaRules
from trio_minillm.providers._tool_schemas import parameters_of, strict_parameters


def plain(parameters: dict[str, Any], *, flavored: bool = False) -> dict[str, Any]:
    return parameters_of(llm.Tool(name="t", parameters=parameters), flavored=flavored)


def of_field(schema: Any, *, flavored: bool = False) -> Any:
    given = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return plain(given, flavored=flavored)["properties"]["a"]


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "array"}, {"type": "array", "items": {}}),
        ({"type": ["array", "null"]}, {"type": ["array", "null"], "items": {}}),
        ({"type": "array", "items": True}, {"type": "array", "items": {}}),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}] * 2, "items": False},
            {"type": "array", "items": {"type": "integer"}},
        ),
        (
            {"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "maxItems": 2},
            {
                "type": "array",
                "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                "maxItems": 2,
            },
        ),
        (
            {"type": "array", "prefixItems": [{"type": "string"}], "items": {"type": "null"}},
            {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        ),
        ({"anyOf": [{"type": "array"}]}, {"anyOf": [{"type": "array", "items": {}}]}),
        (
            {"type": "object", "properties": {"b": {"type": "array"}}},
            {"type": "object", "properties": {"b": {"type": "array", "items": {}}}},
        ),
        (
            {"type": "object", "additionalProperties": {"type": "array"}},
            {"type": "object", "additionalProperties": {"type": "array", "items": {}}},
        ),
        ({"type": "string", "enum": ["array"]}, {"type": "string", "enum": ["array"]}),
        (True, True),
    ],
)
def test_a_list_says_what_is_in_it(schema: Any, sent: Any) -> None:
    assert of_field(schema) == sent


def test_what_is_nested_deeper_than_any_schema_is_left_as_it_is() -> None:
    schema: dict[str, Any] = {"type": "array"}
    for _ in range(MAX_DEPTH + 2):
        schema = {"type": "array", "items": schema}
    assert "items" in of_field(schema)


A, B = {"a": {"type": "string"}}, {"b": {"type": "integer"}}


@pytest.mark.parametrize(
    ("root", "required"),
    [
        ({"anyOf": [{"properties": A, "required": ["a"]}, {"properties": B}]}, []),
        (
            {
                "oneOf": [
                    {"properties": A, "required": ["a"]},
                    {"properties": {**A, **B}, "required": ["b", "a"]},
                ]
            },
            ["a"],
        ),
        ({"allOf": [{"properties": A, "required": ["a"]}, {"properties": B}]}, ["a"]),
        ({"properties": A, "required": ["a"], "anyOf": [{"properties": B}]}, ["a"]),
        (
            {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, True],
             "$defs": {"A": {"properties": A}, "B": {"properties": B}}},
            [],
        ),
    ],
)  # fmt: skip
def test_choices_at_the_root_become_one_object(root: dict[str, Any], required: list[str]) -> None:
    sent = plain(root)
    assert sent["type"] == "object"
    assert sent["properties"] == {**A, **B}
    assert sent["required"] == required
    assert not sent.keys() & {"anyOf", "oneOf", "allOf"}


def test_the_choices_of_a_tagged_union_are_kept() -> None:
    def variant(op: str, **more: Any) -> dict[str, Any]:
        return {"type": "object", "properties": {"op": {"const": op}, **more}, "required": ["op"]}

    sent = plain(
        {
            "oneOf": [{"$ref": "#/$defs/R"}, {"$ref": "#/$defs/W"}],
            "discriminator": {"propertyName": "op", "mapping": {"read": "#/$defs/R"}},
            "$defs": {"R": variant("read"), "W": variant("write", text={"type": "string"})},
        }
    )
    assert sent["properties"] == {"op": {"enum": ["read", "write"]}, "text": {"type": "string"}}
    assert (sent["required"], "discriminator" in sent) == (["op"], False)


@pytest.mark.parametrize(
    ("one", "other", "joined"),
    [
        ({"const": 1}, {"enum": [1, 2]}, {"enum": [1, 2]}),
        ({"const": 1}, {"const": True}, {"enum": [1, True]}),
        (
            {"const": "a", "type": "string"},
            {"const": "b", "type": "string"},
            {"enum": ["a", "b"], "type": "string"},
        ),
        (
            {"enum": ["file"]},
            {"type": "integer"},
            {"anyOf": [{"enum": ["file"]}, {"type": "integer"}]},
        ),
        (True, {"type": "integer"}, {"anyOf": [True, {"type": "integer"}]}),
    ],
)
def test_a_property_that_differs_may_be_any(one: Any, other: Any, joined: Any) -> None:
    sent = plain({"anyOf": [{"properties": {"a": one}}, {"properties": {"a": other}}]})
    assert sent["properties"]["a"] == joined


@pytest.mark.parametrize(
    "root",
    [
        {"oneOf": [{"properties": A}, {"allOf": [{"properties": B}]}]},
        {"oneOf": [{"oneOf": [{"properties": A}]}, {"properties": B}]},
        {"properties": A, "allOf": [{"if": {}, "then": {"properties": B}}]},
        {"properties": A, "if": {}, "then": {"properties": B, "required": ["b"]}},
        {"anyOf": [{"$ref": "#/$defs/X"}], "$defs": {"X": {
            "properties": {**A, **B}, "anyOf": [{"$ref": "#/$defs/X"}]}}},
    ],
)  # fmt: skip
def test_choices_within_choices_and_conditions_are_read(root: dict[str, Any]) -> None:
    sent = plain(root)
    assert sent["properties"].keys() == {"a", "b"}
    assert sent.get("required", []) == []


@pytest.mark.parametrize(
    "choices", [[], [{}], [{"properties": A, "required": [1, None]}], [1, None]]
)
def test_odd_choices_raise_nothing(choices: list[Any]) -> None:
    for word in ("anyOf", "oneOf", "allOf"):
        assert plain({"type": "object", word: choices})["type"] == "object"


def test_empty_maps_that_php_writes_as_lists_are_none() -> None:
    given = {"type": "object", "definitions": [], "$defs": [], "properties": A}
    assert plain(given)["properties"] == plain(given, flavored=True)["properties"] == A
    inner = {"type": "object", "properties": [], "additionalProperties": []}
    for flavored in (False, True):
        made = plain({"type": "object", "properties": {"a": inner}}, flavored=flavored)
        assert made["properties"]["a"]["properties"] == {}
        assert isinstance(made["properties"]["a"]["additionalProperties"], dict)
        assert plain({"type": "object", "properties": []}, flavored=flavored)["properties"] == {}
    tool = llm.Tool(name="t", parameters={"type": "object", "properties": []}, strict=True)
    assert strict_parameters(tool, SchemaRules())["properties"] == {}


def test_a_root_without_anything_is_an_object() -> None:
    assert plain({}) == {"type": "object", "properties": {}}
    assert plain({"anyOf": "odd"}) == {"type": "object", "properties": {}}


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"enum": ["a", 1]}, {"enum": ["a", 1], "type": ["string", "integer"]}),
        ({"const": "a"}, {"const": "a", "type": "string"}),
        ({"description": "any"}, {"description": "any", "type": "string"}),
        ({"items": {"type": "string"}}, {"items": {"type": "string"}, "type": "array"}),
        ({"minimum": 1}, {"minimum": 1, "type": "number"}),
        ({"required": ["a"]}, {"required": ["a"], "type": "object"}),
        (True, {"type": "string"}),
        (
            {"type": "string", "anyOf": [{"minLength": 1}, {"type": "string"}, {"$ref": "#/$defs/X"}]},
            {"anyOf": [
                {"type": "string", "minLength": 1}, {"type": "string"}, {"$ref": "#/$defs/X"},
            ]},
        ),
        ({"type": "object", "oneOf": [True]}, {"oneOf": [True]}),
        ({"$ref": "#/definitions/X", "type": "string", "description": "d"}, {"$ref": "#/$defs/X"}),
    ],
)  # fmt: skip
def test_kimi_gets_its_own_flavor(schema: Any, sent: Any) -> None:
    assert of_field(schema, flavored=True) == sent
    assert of_field(schema) == schema


def test_kimi_gets_the_types_that_are_told_by_the_shape() -> None:
    given = {"properties": {"b": {"type": "array"}}}
    assert of_field(given, flavored=True) == {
        "properties": {"b": {"type": "array", "items": {"type": "string"}}},
        "type": "object",
    }
    assert of_field({"enum": [[1]]}, flavored=True)["type"] == "array"


def test_kimi_gets_definitions_in_one_place_and_what_is_required() -> None:
    given = {"properties": A, "definitions": {"X": {"enum": ["x"]}}, "$defs": {"Y": {"const": 1}}}
    sent = plain(given, flavored=True)
    assert sent["required"] == []
    assert sent["$defs"] == {
        "X": {"enum": ["x"], "type": "string"},
        "Y": {"const": 1, "type": "integer"},
    }
    assert "definitions" not in sent
    assert "$defs" not in plain({}, flavored=True)


HI = (llm.user("hi"),)


def body_of(model: llm.Model, messages: Any = HI, **params: Any) -> dict[str, Any]:
    request = llm.Request(model=model, messages=tuple(messages), params=params, extra={})
    return model.provider.build_request(request)


def compatible(name: str, base_url: str = "http://127.0.0.1/v1") -> llm.Model:
    return llm.compatible(name, base_url=base_url, api_key="k")


TOOL = llm.Tool(name="files.read", parameters={})


@pytest.mark.parametrize("model", [llm.openai("m", api_key="k"), llm.anthropic("m", api_key="k")])
def test_a_name_of_a_tool_that_is_refused_is_an_error_of_ours(model: llm.Model) -> None:
    with pytest.raises(
        ValueError, match=r"tool 'files\.read': this server accepts names of at most"
    ):
        body_of(model, tools=[TOOL], max_tokens=5)
    assert body_of(compatible("m"), tools=[TOOL])["tools"][0]["function"]["name"] == "files.read"


def test_a_moonshot_schema_is_sent_to_moonshot() -> None:
    tool = llm.Tool(name="t", parameters={"properties": {"a": {"enum": ["x"]}}})
    sent = body_of(compatible("kimi-k2", "https://api.moonshot.ai/v1"), tools=[tool])
    assert sent["tools"][0]["function"]["parameters"]["properties"]["a"]["type"] == "string"
    sent = body_of(compatible("m"), tools=[tool])
    assert "type" not in sent["tools"][0]["function"]["parameters"]["properties"]["a"]


@pytest.mark.parametrize(
    ("name", "base_url", "field"),
    [
        ("gpt-5.4", "https://api.githubcopilot.com", "max_completion_tokens"),
        ("openai/gpt-5", "https://models.github.ai/inference", "max_completion_tokens"),
        ("openai/o3-mini", "https://gateway.example/v1", "max_completion_tokens"),
        ("gpt-5", "https://x.services.ai.azure.com/models?api-version=2024-05-01-preview",
         "max_completion_tokens"),
        ("gpt-4o", "https://api.githubcopilot.com", "max_tokens"),
        ("gpt-oss-120b", "https://gateway.example/v1", "max_tokens"),
        ("claude-5", "https://api.githubcopilot.com", "max_tokens"),
        ("foo3", "https://gateway.example/v1", "max_tokens"),
    ],
)  # fmt: skip
def test_the_bound_has_the_name_that_the_model_takes(name: str, base_url: str, field: str) -> None:
    sent = body_of(compatible(name, base_url), max_tokens=10)
    assert {k for k in sent if k.startswith("max_")} == {field}


HISTORY = [
    llm.user("hi"),
    llm.Message(
        role="assistant",
        parts=(
            llm.ReasoningPart(text="hm", wire="compatible"),
            llm.ToolCall(id="c", name="f", arguments="{}"),
        ),
    ),
    llm.tool_result("c", "4"),
]


@pytest.mark.parametrize(
    ("name", "base_url", "sent"),
    [
        ("moonshotai/kimi-k2-thinking", "https://integrate.api.nvidia.com/v1", True),
        ("kimi-k2.5", "https://opencode.ai/zen/v1", True),
        ("deepseek-ai/DeepSeek-V3.2", "https://ark.example/api/v3", True),
        ("kimi-k2-instruct", "https://integrate.api.nvidia.com/v1", False),
        ("meta/llama-4", "https://integrate.api.nvidia.com/v1", False),
        ("deepseek-ai/DeepSeek-V3.2", "https://api.x.ai/v1", False),
    ],
)
def test_reasoning_goes_back_to_models_that_demand_it(name: str, base_url: str, sent: bool) -> None:
    turn = body_of(compatible(name, base_url), HISTORY)["messages"][1]
    assert turn.get("reasoning_content") == ("hm" if sent else None)


def test_deepseek_behind_openrouter_gets_its_reasoning_as_text_too() -> None:
    model = llm.openrouter("deepseek/deepseek-v4", api_key="k")
    assert body_of(model, HISTORY)["messages"][1]["reasoning_content"] == "hm"
    other = llm.openrouter("qwen/qwen3", api_key="k")
    assert "reasoning_content" not in body_of(other, HISTORY)["messages"][1]


@pytest.mark.parametrize(
    ("name", "signed"), [("google/gemini-3-pro", True), ("gemini-2.5", False), ("gpt-4o", False)]
)
def test_a_call_of_another_model_gets_the_mark_for_gemini_at_a_gateway(
    name: str, signed: bool
) -> None:
    turn = body_of(compatible(name, "https://gateway.example/v1"), HISTORY)["messages"][1]
    assert ("extra_content" in turn["tool_calls"][0]) is signed


@pytest.mark.parametrize("title", [None, "notes"])
def test_a_document_of_text_is_sent_as_text(title: str | None) -> None:
    part = llm.DocumentPart(data=b"hello", media_type="text/plain", title=title)
    message = llm.Message(role="user", parts=(llm.TextPart("see"), part))
    sent = body_of(llm.openai("m", api_key="k"), [message])["messages"][0]["content"][1]
    assert sent == {"type": "text", "text": "notes:\n\nhello" if title else "hello"}


FIELD = [
    ({"minimum": 0, "exclusiveMinimum": True}, {"exclusiveMinimum": 0}),
    ({"maximum": 9, "exclusiveMaximum": True}, {"exclusiveMaximum": 9}),
    ({"minimum": 0, "exclusiveMinimum": False}, {"minimum": 0}),
    ({"exclusiveMaximum": True}, {}),
    ({"exclusiveMinimum": 0}, {"exclusiveMinimum": 0}),
]


@pytest.mark.parametrize(("given", "made"), FIELD)
def test_bounds_as_draft_4_excludes_them(given: dict[str, Any], made: dict[str, Any]) -> None:
    """Anthropic and OpenAI check each schema against draft 2020-12, where these are numbers."""
    node = {"type": "integer", **given}
    root = {"type": "object", "properties": {"a": node, "b": {"type": "array", "items": node}}}
    tool = llm.Tool(name="t", parameters=root, strict=True)
    for sent in (plain(root), plain(root, flavored=True), strict_parameters(tool, OPENAI)):
        assert sent["properties"]["a"] == sent["properties"]["b"]["items"]
        assert sent["properties"]["a"] == {"type": "integer", **made}


@pytest.mark.parametrize(
    "odd",
    [
        *({"required": None}, {"required": True}, {"description": None}, {"title": None}),
        *({"examples": {"a": 1}}, {"minLength": None}, {"pattern": None}, {"maxLength": "5"}),
        *({"anyOf": None}, {"enum": None}, {"$ref": None}, {"$defs": None}, {"items": None}),
    ],
)
def test_keywords_with_a_value_that_they_can_not_have_say_nothing(odd: dict[str, Any]) -> None:
    node = {"type": "string", **odd}
    root = {"type": "object", "properties": {"a": node}, **odd}
    tool = llm.Tool(name="t", parameters=root, strict=True)
    for sent in (plain(root), strict_parameters(tool, OPENAI)):
        assert sent["properties"] == {"a": {"type": "string"}}
        assert sent.keys() <= {"type", "properties", "required", "additionalProperties"}


def test_null_can_be_a_value() -> None:
    root = {"type": "object", "properties": {"a": {"type": "null", "const": None, "default": None}}}
    assert plain(root) == root


@pytest.mark.parametrize("missing", ["type", "properties", "required", "$defs", "definitions"])
def test_a_root_whose_fields_are_null_is_that_of_a_tool_without_parameters(missing: str) -> None:
    root = {"type": "object", "properties": {}, missing: None}
    tool = llm.Tool(name="t", parameters=root, strict=True)
    assert plain(root) == {"type": "object", "properties": {}}
    assert strict_parameters(tool, OPENAI)["properties"] == {}


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": False}, {"type": "string"}),
        (
            {"type": "string", "enum": ["x"], "nullable": True},
            {"type": ["string", "null"], "enum": ["x", None]},
        ),
        ({"enum": ["x"], "nullable": True}, {"type": ["string", "null"], "enum": ["x", None]}),
        (
            {"allOf": [{"$ref": "#/$defs/X"}], "nullable": True, "description": "d"},
            {"anyOf": [{"$ref": "#/$defs/X"}, {"type": "null"}], "description": "d"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
        ),
        # OpenAI: "enum value null does not validate against {'type': 'string'}"
        ({"type": "string", "enum": ["x", None]}, {"type": "string", "enum": ["x"]}),
        ({"type": "number", "enum": [1, 2.5, True]}, {"type": "number", "enum": [1, 2.5]}),
        ({"type": "string", "enum": [1]}, {"type": "string", "enum": [1]}),
    ],
)
def test_what_may_be_null_and_what_an_enum_has(given: Any, made: Any) -> None:
    definitions = {"X": {"type": "boolean"}}
    root = {"type": "object", "properties": {"a": given}, "$defs": definitions}
    tool = llm.Tool(name="t", parameters=root, strict=True)
    assert strict_parameters(tool, OPENAI)["properties"]["a"] == made


def test_a_choice_of_nothing_is_no_type() -> None:
    root = {"type": "object", "properties": {"a": {"anyOf": []}}}
    with pytest.raises(ValueError, match="a may be anything: give it a type"):
        strict_parameters(llm.Tool(name="t", parameters=root, strict=True), OPENAI)


def test_a_reference_may_be_written_as_in_a_url() -> None:
    """As generators for TypeScript write them: they are parts of a URL (RFC 6901, section 6)."""
    point = {"type": "object", "properties": A}
    root = {"$ref": "#/definitions/Point%3Cnumber%3E", "definitions": {"Point<number>": point}}
    assert plain(root)["properties"] == A
    tool = llm.Tool(name="t", parameters=root, strict=True)
    assert strict_parameters(tool, OPENAI)["properties"].keys() == A.keys()


def test_notes_that_ask_nothing_of_a_value_are_left_out() -> None:
    notes = {"$schema": "http://json-schema.org/draft-07/schema#", "$comment": "generated"}
    named = {"$schema": {"type": "string", **notes}, "list": {"type": "array", "items": {**notes}}}
    tool = llm.Tool(name="f", parameters={"type": "object", "properties": named, **notes})
    assert parameters_of(tool) == {
        "type": "object",
        "properties": {"$schema": {"type": "string"}, "list": {"type": "array", "items": {}}},
    }
