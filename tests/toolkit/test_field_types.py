"""The types of fields and elements, of every kind of type that a request takes."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, Required, TypedDict, TypeVar

import attrs
import msgspec
import pydantic
import pytest

from trio_minillm._toolkit.values.field_types import decoded, element_of, fields_of, holds_list

T = TypeVar("T")
Short = Annotated[str, msgspec.Meta(max_length=3)]


class Struct(msgspec.Struct, rename="camel"):
    my_name: Short
    n: int = 1


class Box(msgspec.Struct, Generic[T]):
    item: T


class Pair(msgspec.Struct, array_like=True):
    a: int


@dataclasses.dataclass
class Data:
    name: str
    n: int = 1


@dataclasses.dataclass
class DataBox(Generic[T]):
    item: T
    items: list[T]


class Typed(TypedDict):
    name: Required[Short]
    n: NotRequired[int]


@attrs.define
class Attrs:
    name: str


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(alias="theName", max_length=3)
    n: int


class Place(NamedTuple):
    a: int


class Lost:
    pass


@pytest.mark.parametrize(
    ("type", "fields"),
    [
        (Struct, {"myName": Short, "n": int}),
        (Annotated[Struct, "x"], {"myName": Short, "n": int}),
        (Box[int], {"item": int}),
        (Pair, {}),
        (Data, {"name": str, "n": int}),
        (DataBox[int], {"item": int, "items": list[int]}),
        (Typed, {"name": Short, "n": int}),
        (Attrs, {"name": str}),
        (Place, {}),
        (list[int], {}),
        (int | str, {}),
        (dict, {}),
        (None, {}),
        (Lost, {}),
    ],
)
def test_fields(type, fields):
    assert fields_of(type) == fields


def test_fields_of_pydantic():
    fields = fields_of(Model)
    assert list(fields) == ["theName", "n"]
    assert decoded("abc", fields["theName"], is_text=True) == "abc"
    with pytest.raises(msgspec.ValidationError):
        decoded("abcd", fields["theName"], is_text=True)


@pytest.mark.parametrize(
    ("type", "element"),
    [
        (list[int], int),
        (list[int] | None, int),
        (Annotated[list[Short], "x"], Short),
        (Sequence[int], int),
        (set[int], int),
        (tuple[int, ...], int),
        (tuple[int, str], None),
        (list[int] | list[str], None),
        (list, None),
        (dict[str, int], None),
        (str, None),
        (int, None),
    ],
)
def test_elements(type, element):
    assert element_of(type) == element


@pytest.mark.parametrize(
    "type", [list[int], list, tuple[int, str], list[int] | None, Any, Place, Pair]
)
def test_types_that_may_be_lists(type):
    assert holds_list(type)


@pytest.mark.parametrize("type", [str, bytes, int, dict[str, int], Typed, Struct, int | None, None])
def test_types_that_are_none(type):
    assert not holds_list(type)


def test_values():
    assert decoded("x", None, is_text=True) == "x"
    assert decoded("2024-01-02", __import__("datetime").date, is_text=True).year == 2024
    assert decoded('{"json_text": "[1]"}', list[int], is_text=False) == [1]
    assert decoded("[1, 2]", list[int], is_text=False) == [1, 2]
    with pytest.raises(msgspec.ValidationError):
        decoded('["a"]', list[int], is_text=False)
    unhashable = Annotated[list[int], []]
    assert fields_of(unhashable) == {}
