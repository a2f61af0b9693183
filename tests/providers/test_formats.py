"""Schemas in requests: what the strict mode of each wire format takes, and what is said before.

The rules stand in `..support.schema_rules`, from the vendors' references.
"""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from contextlib import suppress
from dataclasses import dataclass, make_dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._protocol.request import body_of, make_request, prepare
from trio_minillm._types.options import Retry, Timeouts
from trio_minillm._types.schemas import ANSWER, JSON_TEXT, in_object, schema_of
from trio_minillm.providers import SERVERS
from trio_minillm.providers._formats import ANY, FORMATS
from trio_minillm.providers._schemas import (
    ANTHROPIC,
    COMMON,
    GRAMMAR,
    MAX_DEPTH,
    MAX_NODES,
    OPENAI,
    SchemaRules,
    Unfit,
    strict_schema,
)

from ..support.schema_rules import fits, references, refusals

Meta = msgspec.Meta


def server(name: str) -> llm.Model:
    return llm.compatible("m", base_url="http://host.invalid:1/v1", server=name)


MODELS = {
    "openai": llm.openai("gpt", api_key="sk-1"),
    "azure": server("azure"),
    "openrouter": llm.openrouter("m/x", api_key="or-1"),
    "llama.cpp": server("llama.cpp"),
    "anthropic": llm.anthropic("claude", api_key="an-1"),
}
RULES = {
    "openai": OPENAI,
    "azure": COMMON,
    "openrouter": COMMON,
    "llama.cpp": GRAMMAR,
    "anthropic": ANTHROPIC,
}
WIRES = sorted(MODELS)


def sent(model: llm.Model, **params: Any) -> dict[str, Any]:
    return body_of(make_request(model, (llm.user("hi"),), params))


def asked(wire: str, format: Any) -> tuple[dict[str, Any], bool]:
    """The schema that is sent for a response format, and whether it is asked for strictly."""
    body = sent(MODELS[wire], response_format=format)
    if wire == "anthropic":
        return body["output_config"]["format"]["schema"], True
    return body["response_format"]["json_schema"]["schema"], body["response_format"][
        "json_schema"
    ].get("strict", False)


def parameters(wire: str, tool: Any) -> dict[str, Any]:
    (made,) = sent(MODELS[wire], tools=[llm.tool(tool, strict=True)])["tools"]
    found = made["input_schema"] if wire == "anthropic" else made["function"]["parameters"]
    assert isinstance(found, dict)
    return found


def parsed(wire: str, format: Any, content: str) -> Any:
    """Return what `parsed` gives for an answer to a request that asked for a format."""
    clocks = {"timeouts": Timeouts(), "retry": Retry()}
    made = prepare(MODELS[wire], "hi", {"response_format": format}, **clocks)  # type: ignore[arg-type]
    choice = llm.Choice(content=content)
    return llm.CompletionResponse(choices=(choice,), response_type=made.response_type).parsed()


def in_texts(value: Any, schema: Any, root: Any) -> Any:
    """The value as a model gives it: as JSON in a text where the schema says so."""
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        given = [in_texts(value, one, root) for one in schema["anyOf"]]
        fitting = [x for x, one in zip(given, schema["anyOf"], strict=True) if fits(x, one, root)]
        return fitting[0] if fitting else value
    fields = schema.get("properties", {})
    if list(fields) == [JSON_TEXT]:
        return {JSON_TEXT: msgspec.json.encode(value).decode()}
    if isinstance(value, dict) and fields:
        return {k: in_texts(v, fields[k], root) if k in fields else v for k, v in value.items()}
    if isinstance(value, list) and "items" in schema:
        return [in_texts(v, schema["items"], root) for v in value]
    return value


# -- one thing at a time ---------------------------------------------------------------------


class Source(msgspec.Struct):
    """Where it is from."""

    name: str


class Chart(msgspec.Struct):
    title: str
    source: Annotated[Source, Meta(description="the newspaper")]
    other: Source


def test_a_definition_is_written_out_where_something_stands_beside_the_reference() -> None:
    schema = strict_schema(schema_of(Chart), OPENAI)
    inner = {
        "title": "Source",
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    assert schema == {
        "title": "Chart",
        "type": "object",
        "properties": {
            "title": {"type": "string"},
            "source": {**inner, "description": "the newspaper"},
            "other": {"$ref": "#/$defs/Source"},
        },
        "required": ["title", "source", "other"],
        "additionalProperties": False,
        "$defs": {"Source": {**inner, "description": "Where it is from."}},
    }


class Tree(msgspec.Struct):
    value: int
    left: Annotated[Tree | None, Meta(description="smaller")] = None
    right: Annotated[Tree, Meta(description="larger")] | None = None


@pytest.mark.parametrize("wire", ["openai", "azure", "llama.cpp"])
def test_recursion_stays_a_reference_whatever_stands_beside_it(wire: str) -> None:
    schema, strict = asked(wire, Tree)
    assert strict
    assert refusals(schema, wire) == []
    assert "#/$defs/Tree" in set(references(schema["$defs"]["Tree"]))
    assert "smaller" in str(schema["$defs"]["Tree"])


def test_recursion_of_the_root_and_a_description_that_can_only_stand_around_a_reference() -> None:
    node = {
        "type": "object",
        "properties": {
            "next": {"$ref": "#", "description": "the one after it"},
            "first": {"$ref": "#"},
        },
    }
    assert strict_schema(node, OPENAI)["properties"] == {
        "next": {"anyOf": [{"$ref": "#"}], "description": "the one after it"},
        "first": {"$ref": "#"},
    }


def test_recursion_at_anthropic_comes_as_text_from_some_level_on() -> None:
    schema, _ = asked("anthropic", Tree)
    assert refusals(schema, "anthropic") == []
    deep = Tree(1, left=Tree(2, left=Tree(3, left=Tree(4))))
    plain = msgspec.to_builtins(deep)
    sent_back = in_texts(plain, schema, schema)
    assert JSON_TEXT in str(sent_back)
    assert fits(sent_back, schema, schema)
    assert parsed("anthropic", Tree, msgspec.json.encode(sent_back).decode()) == deep
    assert parsed("anthropic", Tree, msgspec.json.encode(plain).decode()) == deep
    with pytest.raises(ValueError, match=r"'Tree' can't be strict: Tree.left is recursive"):
        parameters("anthropic", Tree)
    open_tool = llm.tool(Tree)
    assert sent(MODELS["anthropic"], tools=[open_tool])["tools"][0]["input_schema"]["$defs"]


class Bounds(msgspec.Struct):
    stars: Annotated[int, Meta(ge=1, le=10, description="how good")]
    share: Annotated[float, Meta(gt=0, lt=1, multiple_of=0.5)]
    code: Annotated[str, Meta(min_length=2, max_length=3, pattern="^[A-Z]+$")]
    ahead: Annotated[str, Meta(pattern="^(?=a)b")]
    lines: Annotated[list[str], Meta(min_length=1, max_length=5)]
    three: Annotated[list[str], Meta(min_length=3)]
    at: Annotated[datetime.datetime, Meta(tz=True)]
    price: decimal.Decimal
    key: uuid.UUID
    data: bytes
    names: set[str]
    lowest: Annotated[int, Meta(ge=0)] = 5
    none: str | None = None


KEPT = {
    "openai": {
        "stars": {"minimum": 1, "maximum": 10, "description": "how good"},
        "share": {"exclusiveMinimum": 0, "exclusiveMaximum": 1, "multipleOf": 0.5},
        "code": {
            "pattern": "^[A-Z]+$",
            "description": "length at least 2; length at most 3",
        },
        "ahead": {"description": "matching the regular expression ^(?=a)b"},
        "lines": {"minItems": 1, "maxItems": 5},
        "three": {"minItems": 3},
        "at": {"format": "date-time"},
        "price": {"description": "format: decimal"},
        "key": {"format": "uuid"},
        "data": {"description": "encoded as base64"},
        "names": {"description": "no item twice"},
        "lowest": {"minimum": 0, "description": "default: 5"},
    },
    "azure": {
        "stars": {"description": "how good (at least 1; at most 10)"},
        "at": {"description": "format: date-time"},
        "lines": {"description": "number of items at least 1; number of items at most 5"},
        "lowest": {"description": "at least 0; default: 5"},
    },
    "llama.cpp": {
        "code": {
            "minLength": 2,
            "maxLength": 3,
            "description": "matching the regular expression ^[A-Z]+$",
        },
        "share": {"description": "more than 0; less than 1; a multiple of 0.5"},
        "stars": {"minimum": 1, "maximum": 10, "description": "how good"},
    },
    "anthropic": {
        "stars": {"description": "how good (at least 1; at most 10)"},
        "share": {"description": "more than 0; less than 1; a multiple of 0.5"},
        "code": {
            "pattern": "^[A-Z]+$",
            "description": "length at least 2; length at most 3",
        },
        "ahead": {"description": "matching the regular expression ^(?=a)b"},
        "lines": {"minItems": 1, "description": "number of items at most 5"},
        "three": {"description": "number of items at least 3"},
        "at": {"format": "date-time"},
        "lowest": {"description": "at least 0; default: 5"},
    },
}
FRAME = ("type", "items", "anyOf")


@pytest.mark.parametrize(
    ("wire", "name"), [(wire, name) for wire, names in KEPT.items() for name in names]
)
def test_a_bound_is_kept_or_said_in_the_description(wire: str, name: str) -> None:
    schema, strict = asked(wire, Bounds)
    assert strict
    assert refusals(schema, wire) == []
    found = schema["properties"][name]
    assert {k: v for k, v in found.items() if k not in FRAME} == KEPT[wire][name]


class Pair(NamedTuple):
    name: str
    count: int = 1


class Places(msgspec.Struct):
    point: tuple[float, float]
    pair: Pair
    line: tuple[int, ...]


def test_a_tuple_is_a_list_of_its_length() -> None:
    properties = strict_schema(schema_of(Places), OPENAI)["properties"]
    assert properties["point"] == {
        "type": "array",
        "items": {"type": "number"},
        "minItems": 2,
        "maxItems": 2,
        "description": "in this order: number, number",
    }
    assert properties["line"] == {"type": "array", "items": {"type": "integer"}}
    plain = strict_schema(schema_of(Places), ANTHROPIC)
    assert plain["properties"]["point"]["description"] == (
        "number of items at least 2; number of items at most 2; in this order: number, number"
    )
    assert plain["$defs"]["Pair"]["items"]["anyOf"] == [
        {"type": "string"},
        {"type": "integer", "description": "default: 1"},
    ]
    assert parsed("openai", Places, '{"point":[1,2],"pair":["a",3],"line":[]}') == Places(
        (1.0, 2.0), Pair("a", 3), ()
    )


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    tricks: list[str]


class Unit(enum.Enum):
    METRE = "m"
    FOOT = "ft"


class Typed(TypedDict, total=False):
    a: int


@dataclass
class Data:
    a: int
    typed: Typed
    words: Literal["x", None, 3] = "x"


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("type", "value", "whole"),
    [
        (list[Source], [Source("a")], '[{"name":"a"}]'),
        (Cat | Dog, Dog([]), '{"type":"Dog","tricks":[]}'),
        (Cat | Dog | None, None, "null"),
        (int, 3, "3"),
        (str, "a", '"a"'),
        (Unit, Unit.FOOT, '"ft"'),
        (Literal["x", 3], 3, "3"),
        (Pair, Pair("a", 2), '["a",2]'),
        (tuple[int, str], (1, "a"), '[1,"a"]'),
    ],
    ids=str,
)
def test_an_answer_that_is_no_object_is_asked_for_in_one(
    wire: str, type: Any, value: Any, whole: str
) -> None:
    schema, strict = asked(wire, type)
    assert strict
    assert refusals(schema, wire) == []
    assert list(schema["properties"]) == [ANSWER]
    assert parsed(wire, type, f'{{"{ANSWER}": {whole}}}') == value
    assert parsed(wire, type, whole) == value, "a model that leaves the object out"
    with pytest.raises(msgspec.ValidationError):
        parsed(wire, type, f'{{"{ANSWER}": {{"no": 1.5}}}}')
    with pytest.raises(msgspec.ValidationError):
        parsed(wire, type, '{"no": 1.5}')
    with pytest.raises(msgspec.DecodeError):
        parsed(wire, type, f'{{"{ANSWER}": {whole}')


def test_choices_of_choices_are_one_list() -> None:
    choices = strict_schema(in_object(schema_of(Cat | Dog | None)), OPENAI)["properties"][ANSWER]
    assert choices == {
        "anyOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}, {"type": "null"}]
    }


class Answered(msgspec.Struct):
    answer: int


def test_an_object_with_a_field_of_that_name_is_left_alone() -> None:
    assert parsed("openai", Answered, '{"answer": 3}') == Answered(3)
    assert parsed("openai", Answered | None, '{"answer": {"answer": 3}}') == Answered(3)
    assert parsed("openai", Answered | None, '{"answer": 3}') == Answered(3)
    assert parsed("openai", dict[str, int], '{"answer": 3}') == {"answer": 3}
    assert parsed("openai", "json", '{"answer": 3}') == {"answer": 3}


def test_a_plain_schema_whose_root_is_no_object() -> None:
    words = llm.JSONSchema(schema={"type": "array", "items": {"type": "string"}})
    schema, strict = asked("openai", words)
    assert strict
    assert refusals(schema, "openai") == []
    assert parsed("openai", words, '{"answer": ["a"]}') == ["a"]
    assert parsed("openai", words, '["a"]') == ["a"]


@pytest.mark.parametrize("word", ["anyOf", "oneOf"])
def test_a_plain_schema_whose_root_is_a_choice_of_objects(word: str) -> None:
    choice = llm.JSONSchema(schema={"type": "object", word: [schema_of(Source)]})
    schema, _ = asked("openai", choice)
    assert refusals(schema, "openai") == []
    assert parsed("openai", choice, '{"answer": {"name": "a"}}') == {"name": "a"}


def test_a_plain_schema_whose_root_is_a_reference() -> None:
    schema = {"$ref": "#/definitions/A~1B", "definitions": {"A/B": schema_of(Source)}}
    found, strict = asked("openai", llm.JSONSchema(schema=schema))
    assert strict
    assert refusals(found, "openai") == []
    assert list(found["properties"]) == ["name"]


class Counts(msgspec.Struct):
    of: dict[str, int]


@pytest.mark.parametrize(
    ("type", "why"),
    [
        (dict[str, int], "the root is a map: use a list of objects"),
        (dict, "the root is a map"),
        (Counts, "of is a map"),
        (list[Counts], "of is a map"),
        (tuple[Any, int], "may be anything: give it a type"),
        (list[Any], "has items of any type"),
    ],
    ids=str,
)
def test_what_no_strict_mode_takes_is_asked_for_without_or_in_text(type: Any, why: str) -> None:
    schema, strict = asked("openai", type)
    assert not strict
    assert schema["type"] == "object"
    with pytest.raises(Unfit, match=why):
        strict_schema(in_object(schema_of(type)), ANTHROPIC)
    schema, _ = asked("anthropic", type)
    assert refusals(schema, "anthropic") == []
    assert JSON_TEXT in msgspec.json.encode(schema).decode()


def test_a_schema_that_is_too_long_for_words_is_refused_here() -> None:
    fields = {f"field_{n:04}": {"type": "string"} for n in range(400)}
    long = {"type": "object", "additionalProperties": {"type": "object", "properties": fields}}
    with pytest.raises(ValueError, match="the root has a schema too long"):
        asked("anthropic", llm.JSONSchema(schema=long))


def many(count: int, type: Any) -> Any:
    return msgspec.defstruct("Many", [(f"f{n}", type) for n in range(count)])


@pytest.mark.parametrize("type", [int | None, int | str, Source | None], ids=str)
def test_more_choices_of_types_than_anthropic_takes_come_as_text(type: Any) -> None:
    """Its words: "too many parameters with union types (limit: 16)"."""
    schema, _ = asked("anthropic", many(16, type))
    assert len(schema["properties"]) == 16
    schema, _ = asked("anthropic", many(17, type))
    assert list(schema["properties"]) == [JSON_TEXT]
    assert refusals(schema, "anthropic") == []
    text = msgspec.json.encode({JSON_TEXT: '{"f0":null,"f1":5}'}).decode()
    read = parsed("anthropic", msgspec.defstruct("Two", [("f0", int | None), ("f1", int)]), text)
    assert (read.f0, read.f1) == (None, 5)
    tool = llm.tool(many(17, type), strict=True)
    with pytest.raises(ValueError, match="more than 16 fields may be of several types"):
        sent(MODELS["anthropic"], tools=[tool])
    assert sent(MODELS["openai"], tools=[tool])


def test_choices_of_types_in_lists_and_definitions_count() -> None:
    part = many(8, int | None)
    both = msgspec.defstruct("Both", [("a", part), ("b", list[int | None]), ("c", list[part])])
    assert list(asked("anthropic", both)[0]["properties"]) == ["a", "b", "c"]
    more = msgspec.defstruct("More", [("a", many(16, int | None)), ("b", list[int | None])])
    assert list(asked("anthropic", more)[0]["properties"]) == [JSON_TEXT]


def test_more_values_than_openai_takes_are_asked_for_without_strict() -> None:
    values = [f"v{n}" for n in range(600)]
    for fields, strict in ((["a"], True), (["a", "b"], False)):
        of = {name: {"type": "string", "enum": values} for name in fields}
        given = llm.JSONSchema(schema={"type": "object", "properties": of})
        assert asked("openai", given)[1] is strict


def test_a_part_that_refers_to_the_whole_makes_the_whole_come_as_text() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}}
    schema, _ = asked("anthropic", llm.JSONSchema(schema=node))
    assert refusals(schema, "anthropic") == []
    assert list(schema["properties"]) == [JSON_TEXT]


def test_a_field_that_is_called_like_the_text_of_a_value_stays_one() -> None:
    type = msgspec.defstruct("Odd", [(JSON_TEXT, str)])
    for text in ('{"json_text":"[1]"}', '{"json_text":"{"}'):
        assert parsed("openai", type, text) == msgspec.json.decode(text, type=type)


def count(of: dict[str, int]) -> None: ...


@pytest.mark.parametrize("wire", WIRES)
def test_a_strict_tool_that_can_not_be_strict_is_refused_here(wire: str) -> None:
    with pytest.raises(
        ValueError, match=r"tool 'count' can't be strict: of is a map.*leave strict"
    ):
        parameters(wire, count)


@pytest.mark.parametrize("wire", WIRES)
def test_a_tool_without_parameters_can_be_strict(wire: str) -> None:
    body = sent(MODELS[wire], tools=[llm.Tool(name="ping", strict=True)])
    assert '"additionalProperties":false' in msgspec.json.encode(body).decode()


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "object", "patternProperties": {"^x": {"type": "string"}}}, "is a map"),
        ({"type": "object", "additionalProperties": True}, "is a map"),
        ({"properties": {"a": True}}, "a may be anything"),
        ({"properties": {"a": {"description": "x"}}}, "a may be anything"),
        ({"properties": {"a": {"enum": [{"b": 1}]}}}, "a has lists or objects"),
        (
            {"properties": {"a": {"$ref": "http://host.invalid/a"}}},
            "a refers to something that is not",
        ),
        ({"properties": {"a": {"$ref": "#/$defs/A"}}}, "a refers to something that is not"),
        ({"properties": {"a": {"allOf": [{}, {}]}}}, "a has several schemas at once"),
        ({"properties": {"a": {"properties": {"b": {}}}}}, r"a\.b may be anything"),
        ({"properties": {"a": {"anyOf": 5}}}, "a is not a JSON schema: anyOf has another type"),
    ],
)
def test_the_place_of_what_does_not_fit_is_named(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(Unfit, match=why):
        strict_schema(schema, OPENAI)


def test_one_word_for_one_thing_in_a_handwritten_schema() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {
            "one": {"allOf": [{"$ref": "#/definitions/S"}], "description": "d"},
            "either": {"oneOf": [{"type": "string"}, {"type": "null"}], "examples": ["a"]},
            "fixed": {"const": 1.5},
            "pair": {"type": ["array", "null"], "items": [{"type": "string"}], "maxItems": 1},
            "no": {"type": "string", "not": {"const": "x"}},
        },
        "definitions": {"S": {"type": "string", "format": "iri", "deprecated": True}},
    }
    assert strict_schema(schema, OPENAI) == {
        "type": "object",
        "properties": {
            "one": {"type": "string", "description": "d (format: iri)"},
            "either": {
                "anyOf": [{"type": "string"}, {"type": "null"}],
                "description": 'examples: ["a"]',
            },
            "fixed": {"type": "number", "enum": [1.5]},
            "pair": {
                "type": ["array", "null"],
                "items": {"type": "string"},
                "maxItems": 1,
                "description": "in this order: string",
            },
            "no": {"type": "string", "description": 'not: {"const":"x"}'},
        },
        "required": ["one", "either", "fixed", "pair", "no"],
        "additionalProperties": False,
    }


def test_lists_in_a_handwritten_schema_need_no_type() -> None:
    schema = {
        "properties": {
            "many": {"items": {"type": "string"}, "minItems": 0},
            "two": {"prefixItems": [{"$ref": "#/$defs/Word"}, {"type": "string"}]},
        },
        "$defs": {"Word": {"type": "string", "format": "iri"}},
    }
    found = strict_schema(schema, COMMON)["properties"]
    assert found["many"] == {"type": "array", "items": {"type": "string"}}
    assert found["two"]["type"] == "array"
    assert "in this order: Word, string" in found["two"]["description"]


class Awkward(msgspec.Struct):
    """Fields whose names mean something in JSON schema."""

    properties: list[int]
    default: Source
    enum: Source
    const: Source
    required: list[str]


@pytest.mark.parametrize("rules", [OPENAI, COMMON, GRAMMAR, ANTHROPIC])
def test_the_names_of_properties_are_left_alone(rules: SchemaRules) -> None:
    schema = strict_schema(schema_of(Awkward), rules)
    assert list(schema["properties"]) == ["properties", "default", "enum", "const", "required"]


def test_nothing_is_changed_in_place_and_twice_is_once() -> None:
    schema = schema_of(Bounds)
    before = msgspec.json.encode(schema)
    once = strict_schema(schema, ANTHROPIC)
    assert msgspec.json.encode(schema) == before
    assert strict_schema(once, ANTHROPIC) == once
    once.clear()
    assert strict_schema(schema, ANTHROPIC)


def test_a_long_value_is_cut_in_the_description() -> None:
    schema = strict_schema({"properties": {"a": {"type": "string", "pattern": "x" * 999}}}, COMMON)
    assert len(schema["properties"]["a"]["description"]) < 300


def test_a_schema_that_is_nested_too_deep_or_holds_itself() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(MAX_DEPTH + 1):
        deep = {"type": "array", "items": deep}
    with pytest.raises(ValueError, match="nested deeper than"):
        strict_schema({"properties": {"a": deep}}, OPENAI)
    deep["items"] = deep
    with pytest.raises(ValueError, match="nested deeper than"):
        strict_schema({"properties": {"a": deep}}, OPENAI)


def test_definitions_that_double_with_each_level_are_not_written_out_for_ever() -> None:
    definitions: dict[str, Any] = {"D16": {"type": "object", "properties": {}}}
    for n in range(16):
        side = {"$ref": f"#/$defs/D{n + 1}", "description": "x"}
        definitions[f"D{n}"] = {"type": "object", "properties": {"a": side, "b": side}}
    schema = {"type": "object", "properties": {"d": {"$ref": "#/$defs/D0"}}, "$defs": definitions}
    made = strict_schema(schema, OPENAI)
    assert refusals(made, "openai") == []
    assert len(msgspec.json.encode(made)) < 500 * MAX_NODES


# -- formats that a server has ---------------------------------------------------------------


def test_a_server_without_schemas_is_known_before_anything_is_sent() -> None:
    for format in (Source, list[int], llm.JSONSchema(schema={})):
        with pytest.raises(ValueError, match=r"accepts no schema.*'json'.*a tool.*server="):
            sent(server("deepseek"), response_format=format)
    assert sent(server("deepseek"), response_format="json")["response_format"] == {
        "type": "json_object"
    }
    own = {"type": "json_schema", "json_schema": {}}
    assert sent(server("deepseek"), response_format=own)["response_format"] == own


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_each_server_is_sent_a_format_that_it_has(name: str) -> None:
    has = FORMATS.get(name, ANY)
    for format, kind, had in (
        ("text", "text", True),
        ("json", "json_object", has.json),
        (Source, has.schema, bool(has.schema)),
    ):
        if had:
            assert sent(server(name), response_format=format)["response_format"]["type"] == kind
        else:
            with pytest.raises(ValueError, match="this server"):
                sent(server(name), response_format=format)


def test_only_known_servers_are_in_the_table_of_formats() -> None:
    assert set(FORMATS) - set(SERVERS) <= {"openai"}


@pytest.mark.parametrize(
    ("type", "name"),
    [
        (Source, "Source"),
        (list[Source], "list"),
        (Cat | None, "response"),
        (msgspec.defstruct("Städte 2.0", [("a", int)]), "St_dte_2_0"),
        (msgspec.defstruct("x" * 99, [("a", int)]), "x" * 64),
    ],
)
def test_the_name_of_a_schema_is_one_that_openai_takes(type: Any, name: str) -> None:
    found = sent(MODELS["openai"], response_format=type)["response_format"]["json_schema"]["name"]
    assert found in (name, "Union", "Optional")


# -- any type --------------------------------------------------------------------------------


class Made(NamedTuple):
    """A type, values of it, and whether it holds a map."""

    type: Any
    values: st.SearchStrategy[Any]
    map: bool = False


def made(type: Any, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Made]:
    return st.just(Made(type, values))


finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**53), 2**53)
text = st.text(st.characters(codec="utf-8"), max_size=5)
scalars = (
    made(int, whole)
    | made(float, finite)
    | made(str, text)
    | made(bool, st.booleans())
    | made(Unit, st.sampled_from(Unit))
    | made(Literal["a", "b"], st.sampled_from(["a", "b"]))
    | made(Literal[1, 7], st.sampled_from([1, 7]))
    | made(datetime.date, st.dates())
    | made(datetime.datetime, st.datetimes())
    | made(uuid.UUID, st.uuids())
    | made(decimal.Decimal, st.decimals(allow_nan=False, allow_infinity=False))
    | made(bytes, st.binary(max_size=5))
    | made(Annotated[int, Meta(ge=-3, le=9)], st.integers(-3, 9))
    | made(Annotated[float, Meta(gt=0)], finite.map(abs).filter(bool))
    | made(Annotated[str, Meta(min_length=1, max_length=4)], text.filter(lambda t: 0 < len(t) < 5))
    | made(Annotated[str, Meta(pattern="^a+$")], st.sampled_from(["a", "aaa"]))
    | made(Annotated[int, Meta(description="a count")], whole)
)
numbers = iter(range(10**9))


def optional(inner: Made) -> Made:
    return Made(inner.type | None, st.none() | inner.values, inner.map)


def listed(inner: Made) -> Made:
    return Made(list[inner.type], st.lists(inner.values, max_size=3), inner.map)  # type: ignore[name-defined]


def bounded(inner: Made) -> Made:
    values = st.lists(inner.values, min_size=2, max_size=3)
    return Made(Annotated[list[inner.type], Meta(min_length=2, max_length=3)], values, inner.map)  # type: ignore[name-defined]


def mapped(inner: Made) -> Made:
    values = st.dictionaries(text, inner.values, max_size=3)
    return Made(dict[str, inner.type], values, True)  # type: ignore[name-defined]


def paired(given: tuple[Made, Made]) -> Made:
    one, two = given
    values = st.tuples(one.values, two.values)
    return Made(tuple[one.type, two.type], values, one.map or two.map)  # type: ignore[name-defined]


def described(inner: Made) -> Made:
    return Made(Annotated[inner.type, Meta(description="Wörter")], inner.values, inner.map)


def structure(kind: str, fields: list[Made]) -> Made:
    named = [(f"f{n}", f.type) for n, f in enumerate(fields)]
    name, map = f"{kind}{next(numbers)}", any(f.map for f in fields)
    values = [f.values for f in fields]
    type: Any
    if kind == "TypedDict":
        type = TypedDict(name, dict(named))  # type: ignore[operator]  # noqa: UP013
        keys = [k for k, _ in named]
        return Made(
            type, st.tuples(*values).map(lambda given: dict(zip(keys, given, strict=True))), map
        )
    if kind == "NamedTuple":
        type = NamedTuple(name, named)  # type: ignore[misc]
    elif kind == "dataclass":
        type = make_dataclass(name, named)
    else:
        type = msgspec.defstruct(name, named, tag=True if kind == "Tagged" else None)
    return Made(type, st.tuples(*values).map(lambda given: type(*given)), map)


def structures(inner: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    kinds = st.sampled_from(["Struct", "dataclass", "TypedDict", "NamedTuple"])
    return st.builds(structure, kinds, st.lists(inner, min_size=1, max_size=3))


def union(fields: list[list[Made]]) -> Made:
    of = [structure("Tagged", f) for f in fields]
    type: Any = of[0].type
    for one in of[1:]:
        type = type | one.type
    return Made(type, st.one_of(*(one.values for one in of)), any(one.map for one in of))


def compound(inner: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    return (
        inner.map(optional)
        | inner.map(listed)
        | inner.map(bounded)
        | inner.map(mapped)
        | inner.map(described)
        | st.tuples(inner, inner).map(paired)
        | structures(inner)
        | st.lists(st.lists(inner, max_size=2), min_size=1, max_size=2).map(union)
    )


types = st.recursive(scalars, compound, max_leaves=6)


@given(types, st.sampled_from(WIRES), st.data())
def test_any_type_is_asked_for_so_that_the_server_takes_it_and_read_again(
    one: Made, wire: str, data: st.DataObject
) -> None:
    try:
        schema_of(one.type)
    except TypeError:  # a union that msgspec can't tell apart
        assume(False)
    schema, strict = asked(wire, one.type)
    assert strict is (not one.map or wire == "anthropic")
    if strict:
        assert refusals(schema, wire) == []
    value = data.draw(one.values)
    encoded = msgspec.json.encode(value)
    wrapped = list(schema.get("properties", ())) == [ANSWER]
    answer = msgspec.json.decode(b'{"%b":%b}' % (ANSWER.encode(), encoded) if wrapped else encoded)
    if strict:
        answer = in_texts(answer, schema, schema)
        assert fits(answer, schema, schema)
    assert parsed(wire, one.type, msgspec.json.encode(answer).decode()) == value
    assert parsed(wire, one.type, encoded.decode()) == value


@given(types, st.sampled_from(WIRES))
def test_any_type_can_be_a_strict_parameter(one: Made, wire: str) -> None:
    arguments = msgspec.defstruct("Arguments", [("given", one.type)])
    try:
        schema_of(arguments)
    except TypeError:
        assume(False)
    if one.map:
        with pytest.raises(ValueError, match="can't be strict"):
            parameters(wire, arguments)
    else:
        assert refusals(parameters(wire, arguments), wire) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["properties", "default", "enum", "items", "type", "$ref", "anyOf"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


NO_OBJECT = "#: the root is no object"


@given(st.dictionaries(st.sampled_from(["properties", "items", "type"]), json_values))
def test_any_json_as_a_schema_fails_in_one_way(schema: dict[str, Any]) -> None:
    with suppress(ValueError):
        assert refusals(strict_schema(schema, OPENAI), "openai") in ([], [NO_OBJECT])
