"""The types of an object's fields and of a list's elements, as a type says them."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import (
    Annotated,
    Any,
    Final,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from ..._types.schemas import JSON_TEXT, read_answer, read_json

Fields: TypeAlias = "dict[str, Any]"
_PLAIN_TEXT: Final = (str, Any, None)
_MARKS: Final = frozenset({"Required", "NotRequired", "ReadOnly"})
_KEPT = 256
"""Types whose fields are kept, as in `schemas`."""


def decoded(text: str, type: Any, *, is_text: bool) -> Any:
    """Return a value of a type from its JSON, or from the decoded text of a string.

    ``None`` for the type is any JSON. Raises `msgspec.DecodeError` as `read_answer` does.
    """
    if is_text:
        if any(type is plain for plain in _PLAIN_TEXT):
            return text
        text = msgspec.json.encode(text).decode()
    type = Any if type is None else type
    if f'"{JSON_TEXT}"' in text:
        return read_answer(text, type, None)
    return read_json(text, type)


def fields_of(type: Any) -> Fields:
    """Return the types of the fields of a type, by their names in JSON; empty if it is no such type."""
    try:
        return _kept(type)
    except TypeError:  # metadata that can't be hashed
        return _fields(type)


@lru_cache(maxsize=_KEPT)
def _kept(type: Any) -> Fields:
    return _fields(type)


def _fields(type: Any) -> Fields:
    type = _bare(type)
    origin = get_origin(type) or type
    if hasattr(origin, "__struct_fields__"):
        found = msgspec.structs.fields(type)
        return {} if origin.__struct_config__.array_like else {f.encode_name: f.type for f in found}
    model = getattr(origin, "model_fields", None)
    if isinstance(model, Mapping):  # pydantic's
        return {_alias(name, field): _annotated(field) for name, field in model.items()}
    if (
        is_typeddict(origin)
        or dataclasses.is_dataclass(origin)
        or hasattr(origin, "__attrs_attrs__")
    ):
        try:
            hints = get_type_hints(origin, include_extras=True)
        except (NameError, TypeError):  # names that only a type checker knows
            return {}
        values = dict(zip(getattr(origin, "__parameters__", ()), get_args(type), strict=False))
        return {name: _filled(_unmarked(hint), values) for name, hint in hints.items()}
    return {}


def _alias(name: str, field: Any) -> str:
    alias = field.validation_alias or field.alias
    return alias if isinstance(alias, str) else name


def _annotated(field: Any) -> Any:
    """Return the type of a pydantic field with its constraints."""
    metadata = tuple(field.metadata)
    return Annotated[(field.annotation, *metadata)] if metadata else field.annotation


def _unmarked(hint: Any) -> Any:
    while getattr(get_origin(hint), "_name", None) in _MARKS:
        (hint,) = get_args(hint)
    return hint


def _filled(hint: Any, values: Mapping[Any, Any]) -> Any:
    """Return a generic's hint with its parameters' values, where those are known."""
    if isinstance(hint, TypeVar):
        return values.get(hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters:
        return hint
    return hint[tuple(values.get(one, Any) for one in parameters)]


def element_of(type: Any) -> Any:
    """Return the type of the elements of a list type, also of one that may be null.

    Returns ``None`` for any other type: its elements, if it has any, are then plain JSON.
    """
    type = _bare(type)
    origin, args = get_origin(type), get_args(type)
    if origin is Union or origin is types.UnionType:
        found = [one for one in args if is_list(one)]
        return element_of(found[0]) if len(found) == 1 else None
    if not is_list(type) or not args:
        return None
    return args[0] if origin is not tuple or args[1:] == (...,) else None


def is_list(type: Any) -> bool:
    """Return whether the JSON of a type is a list."""
    type = _bare(type)
    origin = get_origin(type) or type
    if not inspect.isclass(origin) or issubclass(origin, str | bytes | bytearray | Mapping):
        return False
    if issubclass(origin, msgspec.Struct):
        return origin.__struct_config__.array_like
    return issubclass(origin, Collection) and not is_typeddict(origin)


def holds_list(type: Any) -> bool:
    """Return whether the JSON of a type may be a list."""
    type = _bare(type)
    if type is Any or type is object or isinstance(type, TypeVar):
        return True
    if get_origin(type) in (Union, types.UnionType):
        return any(map(holds_list, get_args(type)))
    return is_list(type)


def _bare(type: Any) -> Any:
    """Return a type without what stands beside it in ``Annotated``, and an alias as what it stands for."""
    while True:
        if get_origin(type) is Annotated:
            type = get_args(type)[0]
        elif hasattr(type, "__value__"):  # an alias of Python 3.12
            type = type.__value__
        else:
            return type
