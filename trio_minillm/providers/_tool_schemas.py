"""Parameters of tools as servers take them, in strict mode or out of it.

Out of strict mode a schema may say almost anything, and many come from elsewhere (MCP). What is
mended here is what servers refuse with HTTP 400, the whole request with it: a root that is no plain
object, a list without a type of its items, a tuple. Kimi wants more (`flavored`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from .._types.schemas import JSONObject, definition_name, root_in_place
from .._types.tools import Tool
from ._schemas import MAX_DEPTH, SchemaRules, Unfit, of_today, strict_schema

_NO_PARAMETERS: Final[JSONObject] = {"type": "object", "properties": {}}
_PLAIN_NAME = "[A-Za-z0-9_-]+"
_is_field = re.compile("[A-Za-z0-9_.-]{1,64}").fullmatch
_CHOICES = ("anyOf", "oneOf", "allOf")
_CONDITIONS = ("if", "then", "else", "discriminator")
_MAX_CHOICES = 8
"""Levels of choices within choices of a root that are read; definitions may refer to themselves."""
_OF_VALUES = {"const", "enum", "type", "title", "default", "description"}
"""Keywords of a schema that is a list of values."""
_LISTS = (*_CHOICES, "prefixItems")
_NODES = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Keywords whose value is a list of schemas, a schema, and schemas by name."""
_NOTES = {"$schema", "$comment"}
"""Keywords that ask nothing of a value, and that Google's servers refuse (qwen-code#1186,
CLIProxyAPI#3512)."""
_TYPES = {
    str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
    list: "array", dict: "object",
}  # fmt: skip


def checked_name(tool: Tool, most: int) -> str:
    """Return a tool's name. Raises ``ValueError`` if it has other characters than letters, digits,
    ``_`` and ``-``, or more than ``most``: OpenAI and Anthropic refuse the whole request for it.
    """
    if not re.fullmatch(_PLAIN_NAME, tool.name) or len(tool.name) > most:
        raise ValueError(
            f"tool {tool.name!r}: this server accepts names of at most {most} letters, digits, _ and -:"
            " give it another with Tool(name=…)"
        )
    return tool.name


def parameters_of(tool: Tool, *, flavored: bool = False) -> JSONObject:
    """Return a tool's schema as servers take it without ``strict``; the given one is not changed.

    ``flavored``: as Kimi's servers demand ("not a valid moonshot flavored json schema"): a type at
    each node, none beside a choice, references alone and under ``$defs``, and ``required``.
    """
    given = msgspec.json.encode(tool.parameters)
    made: JSONObject = msgspec.json.decode(_plain(given, flavored))
    return made


def checked_fields(tool: Tool, parameters: JSONObject) -> JSONObject:
    """Return a tool's schema. Raises ``ValueError`` if it has a parameter whose name Anthropic refuses,
    with the whole request: ``$filter``, ``filter[name]`` (ComposioHQ/composio#3500). Names of fields
    inside of parameters may be any.
    """
    for name in _object(parameters.get("properties")):
        if not _is_field(name):
            raise ValueError(
                f"tool {tool.name!r} has the parameter {name!r}: this server accepts names of at"
                " most 64 letters, digits, _, . and -: give it another"
            )
    return parameters


def strict_parameters(tool: Tool, rules: SchemaRules) -> JSONObject:
    """Return a tool's schema as a strict mode takes it.

    Raises ``ValueError`` if it can't: a tool that is to be strict isn't silently sent otherwise.
    """
    root = of_today(root_in_place(tool.parameters))
    root = {k: {} if v == [] and k in _MAPS else v for k, v in root.items()}  # as PHP writes them
    try:
        return strict_schema({**_missing(root), **root}, rules)
    except Unfit as unfit:
        raise ValueError(
            f"tool {tool.name!r} can't be strict: {unfit}; or leave strict out"
        ) from None


def _missing(root: Mapping[str, Any]) -> JSONObject:
    """Return what a root lacks: OpenAI refuses an object without ``properties``, Anthropic a root
    without ``type``.
    """
    return {k: v for k, v in _NO_PARAMETERS.items() if k not in root}


@lru_cache(maxsize=256)
def _plain(given: bytes, flavored: bool) -> bytes:
    # A batch sends the same tools thousands of times.
    root = of_today(root_in_place(msgspec.json.decode(given)))
    root = _merged(root, {**_object(root.get("definitions")), **_object(root.get("$defs"))})
    out = _node({**root, **_missing(root)}, flavored, 0)
    if flavored:
        out.setdefault("required", [])
        named = (_object(out.pop(key, None)) for key in ("definitions", "$defs"))
        out["$defs"] = {k: v for one in named for k, v in one.items()}
        if not out["$defs"]:
            del out["$defs"]
    return msgspec.json.encode(out)


def _merged(root: JSONObject, definitions: JSONObject, depth: int = 0) -> JSONObject:
    """Return an object without choices, which OpenAI and Anthropic refuse at the root.

    Its properties are those of all choices; one that differs among them may be any of theirs. Required
    is what every choice requires, or, of ``allOf``, what any does.
    """
    out = {k: v for k, v in root.items() if k not in _CHOICES and k not in _CONDITIONS}
    found: dict[str, list[Any]] = {}
    needed: set[str] = set()
    for word, choices in _choices_of(root) if depth < _MAX_CHOICES else ():
        made = [_merged(_resolved(c, definitions), definitions, depth + 1) for c in choices]
        for one in made:
            for name, schema in _object(one.get("properties")).items():
                found.setdefault(name, []).append(schema)
        required = [{n for n in _list(one.get("required")) if isinstance(n, str)} for one in made]
        needed |= set.union(*required) if word == "allOf" else set.intersection(*required)
    if found:
        own = _object(out.get("properties"))
        out["properties"] = {
            **{name: _any_of(_distinct(those)) for name, those in found.items()},
            **own,
        }
        more = [name for name in out["properties"] if name in needed]
        out["required"] = list(dict.fromkeys([*_list(out.get("required")), *more]))
        out["type"] = "object"
    return out


def _choices_of(root: JSONObject) -> Iterator[tuple[str, list[Any]]]:
    """Yield the choices of an object; a condition is one between what follows from it and nothing."""
    for word in _CHOICES:
        if _list(root.get(word)):
            yield word, root[word]
    if conditional := [root[word] for word in ("then", "else") if word in root]:
        yield "if", [*conditional, {}]


def _any_of(schemas: list[Any]) -> Any:
    """Return the schema of a value that fits one of these."""
    if len(schemas) == 1:
        return schemas[0]
    values: list[Any] = []
    for schema in map(_object, schemas):
        told = [schema["const"]] if "const" in schema else _list(schema.get("enum"))
        if not told or schema.keys() - _OF_VALUES:
            return {"anyOf": schemas}
        values += told
    kinds = _distinct([schema.get("type") for schema in schemas])
    typed = {"type": kinds[0]} if len(kinds) == 1 and kinds[0] else {}
    return {"enum": _distinct(values), **typed}


def _distinct(values: list[Any]) -> list[Any]:
    """Return JSON values without those that stand before: ``true`` is not 1."""
    return list({msgspec.json.encode(v, order="sorted"): v for v in values}.values())


def _resolved(choice: Any, definitions: JSONObject) -> JSONObject:
    name = definition_name(_object(choice).get("$ref"))
    return _object(choice if name is None else definitions.get(name))


def _object(value: Any) -> JSONObject:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _node(schema: Any, flavored: bool, depth: int) -> Any:
    """Return a schema with what servers refuse mended, at every level."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return schema
    out = {k: v for k, v in of_today(schema).items() if k not in _NOTES}
    if isinstance(out.get("items"), list):  # drafts before 2020
        out["prefixItems"] = out.pop("items")
    for key in _LISTS:
        if isinstance(out.get(key), list):
            out[key] = [_node(one, flavored, depth + 1) for one in out[key]]
    for key in (*_NODES, *_MAPS):
        if out.get(key) == []:  # an empty object, as PHP writes it
            out[key] = {}
    for key in _NODES:
        if isinstance(out.get(key), dict):
            out[key] = _node(out[key], flavored, depth + 1)
    for key in _MAPS:
        if isinstance(out.get(key), dict):
            named = {k: {} if v is True and flavored else v for k, v in out[key].items()}
            out[key] = {k: _node(v, flavored, depth + 1) for k, v in named.items()}
    places = out.pop("prefixItems", None)
    if isinstance(places, list) and places:
        others = [out["items"]] if isinstance(out.get("items"), dict) else []
        kinds = _distinct([*places, *others])
        out["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    is_list = out.get("type") == "array" or "array" in _list(out.get("type"))
    if is_list and not isinstance(out.get("items"), dict):
        out["items"] = {"type": "string"} if flavored else {}
    return _flavored(out) if flavored else out


def _flavored(out: JSONObject) -> JSONObject:
    """Return a node as Kimi's servers take it."""
    if isinstance(out.get("$ref"), str):
        return {"$ref": out["$ref"].replace("#/definitions/", "#/$defs/")}
    values = [out["const"]] if "const" in out else _list(out.get("enum"))
    if "type" not in out and values:
        kinds = list(dict.fromkeys(_TYPES[type(v)] for v in values))
        out["type"] = kinds[0] if len(kinds) == 1 else kinds
    elif "type" not in out and not out.keys() & _SAYS:
        out["type"] = next((kind for word, kind in _SHAPES.items() if word in out), "string")
    for word in ("anyOf", "oneOf"):
        if "type" in out and isinstance(out.get(word), list):
            kind = out.pop("type")
            out[word] = [
                {"type": kind, **one} if isinstance(one, dict) and not one.keys() & _SAYS else one
                for one in out[word]
            ]
    return out


_SHAPES = {
    **dict.fromkeys(("properties", "required", "additionalProperties"), "object"),
    **dict.fromkeys(("items", "minItems", "maxItems"), "array"),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), "number"),
}
"""Keywords that tell the type of a value."""
_SAYS = {"type", "$ref", "anyOf", "oneOf", "allOf"}
"""Keywords of a choice that says its type itself."""
