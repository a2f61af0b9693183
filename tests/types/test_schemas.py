"""Schemas of types and values read back, in msgspec's types and in pydantic's."""

from __future__ import annotations

import datetime
import decimal
import inspect
import subprocess
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypeVar

import attrs
import msgspec
import pydantic
import pytest
from annotated_types import Gt
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

import trio_minillm as llm
from trio_minillm._types.params import format_of
from trio_minillm._types.schemas import (
    ANY_IN_OBJECT,
    definition_name,
    in_object,
    is_pydantic,
    plain_name,
    read_answer,
    read_json,
    root_in_place,
    schema_of,
)

T = TypeVar("T")


class City(msgspec.Struct):
    name: str
    people: Annotated[int, msgspec.Meta(ge=0)] = 0


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Person(BaseModel):
    """Somebody."""

    name: str = Field(description="the whole name", min_length=1)
    born: datetime.date | None = None
    parents: list[Person] = []


class Item(BaseModel):
    kind: Literal["item"] = "item"
    count: pydantic.PositiveInt


class Gone(BaseModel):
    kind: Literal["gone"] = "gone"


Change = Annotated[Item | Gone, Field(discriminator="kind")]


@dataclass
class Team:
    lead: Person
    sizes: dict[str, int]


class Row(TypedDict):
    item: Item


class Place(NamedTuple):
    item: Item
    row: int


@pydantic.dataclasses.dataclass
class Order:
    item: Item


@attrs.define
class Box:
    width: int
    name: str = ""


class Mixed(msgspec.Struct):
    item: Item


def call(arguments: str, name: str = "t") -> llm.ToolCall:
    return llm.ToolCall(id="call_1", name=name, arguments=arguments)


# -- types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "text", "value"),
    [
        (City, '{"name":"Rome"}', City("Rome")),
        (Box, '{"width":3}', Box(3)),
        (Page[City], '{"items":[{"name":"Rome"}]}', Page([City("Rome")])),
        (
            Person,
            '{"name":"A","born":"1990-01-02"}',
            Person(name="A", born=datetime.date(1990, 1, 2)),
        ),
        (list[Item], '[{"count":1}]', [Item(count=1)]),
        (dict[str, Item], '{"a":{"count":1}}', {"a": Item(count=1)}),
        (Item | Gone, '{"kind":"gone"}', Gone()),
        (Change, '{"kind":"item","count":2}', Item(count=2)),
        (Optional[Item], "null", None),  # noqa: UP045
        (Team, '{"lead":{"name":"A"},"sizes":{"a":1}}', Team(Person(name="A"), {"a": 1})),
        (Row, '{"item":{"count":1}}', {"item": Item(count=1)}),
        (Place, '[{"count":1},2]', Place(Item(count=1), 2)),
        (Order, '{"item":{"count":1}}', Order(Item(count=1))),
        (pydantic.RootModel[list[int]], "[1]", pydantic.RootModel[list[int]]([1])),
        (list[Annotated[int, Field(ge=1)]], "[1]", [1]),
    ],
    ids=str,
)
def test_a_type_has_a_schema_and_is_read(type: Any, text: str, value: Any) -> None:
    schema = schema_of(type)
    assert "$ref" not in schema
    assert read_json(text, type) == value
    assert read_json(text.encode(), type) == value
    answer = text if in_object(schema) == schema else f'{{"answer":{text}}}'
    asked = llm.CompletionResponse(choices=(llm.Choice(content=answer),), response_type=type)
    assert asked.parsed() == value
    schema.clear()
    assert schema_of(type), "a schema is the caller's own"


@pytest.mark.parametrize(
    ("type", "text", "words"),
    [
        (Person, '{"name":""}', r"at least 1 character - at `\$\.name`"),
        (list[Item], '[{"count":1},{"count":0}]', r"greater than 0 - at `\$\[1\]\.count`"),
        (Person, "[]", "be an object"),
        (City, '{"name":"a","people":-1}', r">= 0 - at `\$\.people`"),
        (list[Annotated[int, Field(ge=1)]], "[0]", "greater than or equal to 1"),
    ],
)
def test_what_does_not_match_is_one_kind_of_error_for_every_type(
    type: Any, text: str, words: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=words) as caught:
        read_json(text, type)
    assert isinstance(caught.value.__cause__, pydantic.ValidationError) is is_pydantic(type)
    with pytest.raises(msgspec.DecodeError) as caught:
        read_json("{", type)
    assert not isinstance(caught.value, msgspec.ValidationError)


def test_the_error_does_not_show_the_value() -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        read_json('{"count": "private"}', Item)
    assert "private" not in str(caught.value)


def test_a_failure_of_the_callers_own_is_not_taken_for_one_of_the_answer() -> None:
    class Careful(BaseModel):
        a: int

        @pydantic.field_validator("a")
        @classmethod
        def look(cls, value: int) -> int:
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        read_json('{"a": 1}', Careful)


@pytest.mark.parametrize(
    ("type", "theirs"),
    [
        (Person, True),
        (list[Person | None], True),
        (Team, True),
        (Mixed, True),
        (Annotated[int, Field(ge=1)], True),
        (pydantic.PositiveInt, True),
        (Annotated[int, msgspec.Meta(ge=1)], False),
        (City, False),
        (dict[str, list[City]], False),
        (Any, False),
        (None, False),
    ],
    ids=str,
)
def test_whose_a_type_is(type: Any, theirs: bool) -> None:
    assert is_pydantic(type) is theirs


def test_a_struct_can_not_hold_a_model() -> None:
    with pytest.raises(TypeError, match="no msgspec Struct"):
        schema_of(Mixed)


def test_names_that_only_a_type_checker_knows_are_no_reason_to_fail() -> None:
    class Odd:
        __annotations__ = {"a": "Nowhere"}

    assert not is_pydantic(list[Odd])


def test_pydantic_is_not_imported_for_other_types() -> None:
    code = """if True:
        import sys, msgspec
        from trio_minillm._types.schemas import read_json, schema_of
        class A(msgspec.Struct):
            a: int
        schema_of(A), read_json('{"a": 1}', A), read_json("[1]", list[int])
        print("pydantic" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "False\n"


def test_metadata_that_can_not_be_hashed() -> None:
    type = Annotated[City, msgspec.Meta(extra_json_schema={"examples": [{"name": "Rome"}]})]
    assert schema_of(type)["examples"] == [{"name": "Rome"}]
    assert read_json('{"name":"Rome"}', type) == City("Rome")
    assert read_json('{"name":"Rome"}', Annotated[City, {"not": "hashable"}]) == City("Rome")


def test_a_type_that_has_no_schema_is_no_fault_of_pydantics() -> None:
    with pytest.raises(TypeError, match="complex"):
        schema_of(complex)


def test_without_pydantic_no_type_is_its(monkeypatch: pytest.MonkeyPatch) -> None:
    marked = Annotated[int, Gt(0)]
    assert is_pydantic(marked)
    monkeypatch.setitem(sys.modules, "pydantic", None)  # not installed, but annotated_types is
    assert schema_of(marked) == {"type": "integer"}
    monkeypatch.delitem(sys.modules, "pydantic")
    monkeypatch.delitem(sys.modules, "annotated_types")
    assert not is_pydantic(marked)


# -- roots and names -------------------------------------------------------------------------


def test_a_root_that_is_a_reference() -> None:
    schema = {"$ref": "#/$defs/A", "title": "T", "$defs": {"A": {"type": "object", "title": "A"}}}
    assert root_in_place(schema) == {"type": "object", "title": "T", "$defs": schema["$defs"]}
    dangling = {"$ref": "#/$defs/B"}
    assert root_in_place(dangling) == dangling


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("#/$defs/A", "A"),
        ("#/definitions/A~1B~0C", "A/B~C"),
        ("#", None),
        ("#/properties/a", None),
        ("http://host.invalid/#/$defs/A", None),
        (None, None),
    ],
)
def test_the_name_in_a_reference(reference: Any, name: str | None) -> None:
    assert definition_name(reference) == name


def test_an_answer_that_is_no_object_is_put_into_one_with_its_definitions_outside() -> None:
    made = in_object(schema_of(list[City]))
    assert list(made) == ["type", "properties", "required", "$defs"]
    assert made["properties"]["answer"] == {"type": "array", "items": {"$ref": "#/$defs/City"}}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("City", "City"),
        ("Page[City]", "Page_City"),
        ("<lambda>", "lambda"),
        ("日本", "response"),
        (None, "response"),
        ("a" * 70, "a" * 64),
    ],
)
def test_a_name_that_providers_take(given: Any, name: str) -> None:
    assert plain_name(given) == name


@pytest.mark.parametrize("type", [Any, dict, list[int], City, Person])
@pytest.mark.parametrize(
    "text", ["[" * 99_999, "[" * 9999 + "]" * 9999, '{"name":' * 9999 + "1" + "}" * 9999]
)
def test_an_answer_of_brackets_alone_is_no_json(type: Any, text: str) -> None:
    for asked in (None, type):
        with pytest.raises(msgspec.DecodeError):
            read_answer(text, type, asked)
    with pytest.raises(msgspec.DecodeError):
        read_answer(f'{{"answer": {text}}}', Any, ANY_IN_OBJECT)
    with pytest.raises(msgspec.DecodeError):
        llm.ToolCall(id="a", name="f", arguments=text).parsed(type)


def test_the_type_of_a_plain_schema_that_is_no_object() -> None:
    assert read_answer('{"answer":[1]}', Any, ANY_IN_OBJECT) == [1]
    assert read_answer('```json\n{"answer":[1]}\n```', Any, ANY_IN_OBJECT) == [1]
    assert read_answer("[1]", Any, ANY_IN_OBJECT) == [1]
    assert read_answer('{"answer":1,"more":2}', Any, ANY_IN_OBJECT) == {"answer": 1, "more": 2}
    assert read_answer('{"answer":[1]}', list[int], ANY_IN_OBJECT) == [1]
    assert read_answer('{"answer":[1]}', Any, None) == {"answer": [1]}


def test_a_format_from_a_model() -> None:
    made = format_of(Person)
    assert made == llm.JSONSchema(schema=schema_of(Person), name="Person", type=Person)


# -- tools -----------------------------------------------------------------------------------


def find(
    person: Person,
    count: Annotated[int, Field(ge=1, description="how many")] = 3,
    json: list[Item | Gone] = [],  # noqa: B006
    *,
    copy: bool = False,
) -> tuple[Any, ...]:
    """Find somebody."""
    return person, count, json, copy


def test_a_function_with_models_as_parameters() -> None:
    tool = llm.tool(find, strict=True)
    assert tool.parameters["required"] == ["person"]
    count = tool.parameters["properties"]["count"]
    assert (count["minimum"], count["description"]) == (1, "how many")
    given = call('{"person":{"name":"A"},"json":[{"kind":"gone"}],"copy":true}', "find")
    assert tool.call(given) == (Person(name="A"), 3, [Gone()], True)
    with pytest.raises(msgspec.ValidationError, match="count"):
        tool.call(call('{"person":{"name":"A"},"count":0}', "find"))


def test_a_function_with_dataclasses_as_parameters() -> None:
    def measure(box: Box, city: City, pair: tuple[int, str] = (1, "a")) -> Any:
        return box, city, pair

    tool = llm.tool(measure)
    assert tool.call(call('{"box":{"width":1},"city":{"name":"A"}}')) == (
        Box(1),
        City("A"),
        (1, "a"),
    )


def test_a_function_without_parameters() -> None:
    assert llm.tool(lambda: 3, description="x").call(call("")) == 3


@pytest.mark.parametrize(
    ("source", "name", "text", "value"),
    [
        (Person, "Person", '{"name":"A"}', Person(name="A")),
        (Box, "Box", '{"width":1}', Box(1)),
        (Page[City], "Page", '{"items":[]}', Page([])),
        (Row, "Row", '{"item":{"count":1}}', {"item": Item(count=1)}),
    ],
)
def test_a_tool_from_a_type(source: Any, name: str, text: str, value: Any) -> None:
    tool = llm.tool(source)
    assert tool.name == name
    assert tool.read(call(text, name)) == value
    assert call(text, name).parsed(source) == value


def test_the_description_of_a_tool_from_a_model() -> None:
    assert llm.tool(Person).description == "Somebody."
    assert llm.tool(Item).description == ""
    assert inspect.getdoc(Item), "which is BaseModel's own"


@pytest.mark.parametrize("source", [list[int], Place, int, pydantic.RootModel[list[int]]])
def test_arguments_are_an_object(source: Any) -> None:
    with pytest.raises(TypeError, match="arguments are an object"):
        llm.tool(source)


def test_decimals_go_there_and_back() -> None:
    assert read_json('"1.10"', decimal.Decimal) == decimal.Decimal("1.10")


@pytest.mark.parametrize(
    "text",
    [
        '```json\n{"a": 1}\n```',
        '```\n{"a": 1}```',
        '```JSON  \n\n{"a":\n1}\n\n```',
        '<think>so: {"a": 2}</think>\n{"a": 1}',
        '<thinking>so</thinking>```json\n{"a": 1}\n```',
        'so: {"a": 2}</think>\n{"a": 1}',
        'Here it is:\n\n```json\n{"a": 1}\n```\n\nDo you need more?',
        'Sure! {"a": 1}',
        '{"a": 1}\n\nDo you need more?',
        '```json\n{"a": 1}',
        '```json {"a": 1}```',
        '<answer>{"a": 1}</answer>',
        '{"a": 1} [1]',
        '{"a": 1}[1][^2] [3, 4]',
        '[1] {"a": 1}',
        'As [1](http://a.invalid) says: {"a": 1}\n\n[1]: http://a.invalid',
    ],
)
def test_an_answer_in_a_fence_or_behind_thoughts_is_taken_out(text: str) -> None:
    assert read_answer(text, dict[str, int], None) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        *(
            "```json\n{",
            "<think>{}",
            "a</think><think>{}",
            "```",
            "<think>",
            "It is {a}.",
            "{1} {}",
        ),
        *('{"a": 1} [{}]', '{"a": 1} [1] {', "[1] [2]", "[1] " * 99 + '{"a": 1}', "[" * 9999),
        *('{"a": 1}{"a": 1}', "```\n1\n```\n```\n2\n```", 'Sure: {"a": {"b": 1}, "c": '),
    ],
)
def test_anything_else_is_no_json(text: str) -> None:
    with pytest.raises(msgspec.DecodeError):
        read_answer(text, Any, None)


@pytest.mark.parametrize("value", ["</think>1", "```\n1\n```", 'so {"a": 1}'])
def test_what_stands_in_the_json_is_part_of_it(value: str) -> None:
    text = msgspec.json.encode({"a": value}).decode()
    assert read_answer(text, Any, None) == {"a": value}


def test_an_answer_that_was_cut_in_its_fence_is_called_cut() -> None:
    response = llm.CompletionResponse(choices=(llm.Choice(content='```json\n{"a": 1, "b'),))
    with pytest.raises(msgspec.DecodeError, match="the answer was cut before its JSON ended"):
        response.parsed()


CALL = llm.ToolCall(id="1", name="f")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (llm.Choice(refusal="I can't."), "the model declined to answer"),
        (llm.Choice(refusal="I can't.", content="Sorry"), "the model declined to answer"),
        (llm.Choice(), "the answer is empty"),
        (llm.Choice(content=" \n"), "the answer is empty"),
        (llm.Choice(tool_calls=(CALL,)), "the answer is empty: the model called tools instead"),
        (llm.Choice(invalid_tool_calls=(CALL,)), "the answer is empty: the model called tools"),
        (llm.Choice(content='{"count": 1'), "the answer was cut before its JSON ended"),
        (llm.Choice(content='{"name": "secr'), "the answer was cut before its JSON ended"),
        (llm.Choice(content="Sorry, no."), "JSON is malformed"),
    ],
)
@pytest.mark.parametrize("type", [Item, Person, None])
def test_an_answer_that_is_no_json_says_why(choice: llm.Choice, words: str, type: Any) -> None:
    with pytest.raises(msgspec.DecodeError, match=words) as caught:
        llm.CompletionResponse(choices=(choice,)).parsed(type)
    assert not isinstance(caught.value, msgspec.ValidationError)
    for secret in ("I can't", "Sorry", "secr"):
        assert secret not in str(caught.value)


def test_an_answer_that_does_not_match_says_where() -> None:
    choice = llm.Choice(refusal="I can't.", content='{"count": "x"}')
    with pytest.raises(msgspec.ValidationError, match=r"at `\$.count`"):
        llm.CompletionResponse(choices=(choice,)).parsed(Item)


@pytest.mark.parametrize("wrong", [5, "secret", Item(count=1)])
def test_a_value_is_no_type(wrong: Any) -> None:
    kind = type(wrong).__name__
    for read in (schema_of, lambda it: read_json("1", it)):
        with pytest.raises(TypeError, match=f"^a value of type {kind} is not a type$"):
            read(wrong)
