"""The published rules of strict modes, as checks of a schema that is sent; and a small validator.

They are written from the vendors' references, and know nothing of how the library makes a schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ANNOTATIONS = {"title", "description"}
FRAME = {"type", "properties", "required", "additionalProperties", "items", "anyOf", "enum"}
NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
FORMATS = {
    *("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"),
}

TAKEN: dict[str, set[str]] = {
    # developers.openai.com, Structured outputs, "Supported properties"
    "openai": NUMBERS | {"pattern", "format", "minItems", "maxItems"},
    # learn.microsoft.com, Azure OpenAI structured outputs: bounds and formats are unsupported
    "azure": set(),
    "openrouter": set(),
    # grammars/README.md of llama.cpp
    "llama.cpp": NUMBERS - {"multipleOf"} | {"minLength", "maxLength", "minItems", "maxItems"},
    # platform.claude.com, Structured outputs, "JSON Schema limitations"
    "anthropic": {"pattern", "format", "minItems"},
}


def refusals(schema: dict[str, Any], wire: str) -> list[str]:
    """Return what a server would complain about; nothing for a schema that it takes."""
    found = list(_refusals(schema, wire, "#"))
    if schema.get("type") != "object" or "anyOf" in schema:
        found.append("#: the root is no object")
    if wire == "anthropic" and _recursive(schema):
        found.append("#: recursive")
    for name, inner in schema.get("$defs", {}).items():
        found += _refusals(inner, wire, f"#/$defs/{name}")
    return found


def _refusals(node: Any, wire: str, at: str) -> Iterator[str]:
    if not isinstance(node, dict):
        yield f"{at}: {node!r} instead of a schema"
        return
    if "$ref" in node:
        if len(node) > 1:
            yield f"{at}: $ref has {sorted(node)} beside it"
        return
    known = ANNOTATIONS | FRAME | TAKEN[wire] | ({"$defs"} if at == "#" else set())
    if unknown := set(node) - known:
        yield f"{at}: {sorted(unknown)} not permitted"
    if "type" not in node and "anyOf" not in node:
        yield f"{at}: must have a type"
    kinds = node.get("type", [])
    if "object" in kinds:
        if node.get("additionalProperties") is not False:
            yield f"{at}: additionalProperties must be false"
        if node.get("required") != list(node.get("properties", "missing")):
            yield f"{at}: every property must be required"
    if "array" in kinds and "items" not in node:
        yield f"{at}: an array must have items"
    if node.get("format", "uuid") not in FORMATS | ({"uri"} if wire == "anthropic" else set()):
        yield f"{at}: format {node['format']} not supported"
    if wire == "anthropic" and node.get("minItems", 0) > 1:
        yield f"{at}: minItems {node['minItems']} not supported"
    if any(isinstance(value, dict | list) for value in node.get("enum", ())):
        yield f"{at}: complex types within enum"
    for name, inner in node.get("properties", {}).items():
        yield from _refusals(inner, wire, f"{at}/{name}")
    for number, inner in enumerate(node.get("anyOf", ())):
        yield from _refusals(inner, wire, f"{at}/anyOf/{number}")
    if "items" in node:
        yield from _refusals(node["items"], wire, f"{at}/items")


def references(node: Any) -> Iterator[str]:
    """Yield every reference in a schema, outside of its definitions."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for key, value in node.items():
            if key != "$defs":
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def _recursive(schema: dict[str, Any]) -> bool:
    definitions = schema.get("$defs", {})
    after = {f"#/$defs/{name}": set(references(x)) for name, x in definitions.items()}
    if "#" in set(references(schema)).union(*after.values()):
        return True
    for _ in definitions:  # as many steps as there are definitions reach whatever can be reached
        after = {k: v.union(*(after[x] for x in v)) for k, v in after.items()}
    return any(name in reached for name, reached in after.items())


KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
}


def fits(value: Any, node: Any, root: dict[str, Any]) -> bool:
    """Return whether JSON fits a schema of the strict kind."""
    if "$ref" in node:
        name = node["$ref"].removeprefix("#/$defs/")
        return fits(value, root if name == "#" else root["$defs"][name], root)
    if "anyOf" in node and not any(fits(value, x, root) for x in node["anyOf"]):
        return False
    if "enum" in node and value not in node["enum"]:
        return False
    kinds = node.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is(value, kind) for kind in kinds):
        return False
    if isinstance(value, dict) and "properties" in node:
        inner = node["properties"]
        same = value.keys() == inner.keys()
        return same and all(fits(x, inner[name], root) for name, x in value.items())
    if isinstance(value, list) and "items" in node:
        long = node.get("minItems", 0) <= len(value) <= node.get("maxItems", len(value))
        return long and all(fits(x, node["items"], root) for x in value)
    if type(value) in (int, float):
        low, high = node.get("minimum", value), node.get("maximum", value)
        over, under = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
        inside = (over is None or value > over) and (under is None or value < under)
        return inside and low <= value <= high
    if isinstance(value, str):
        return node.get("minLength", 0) <= len(value) <= node.get("maxLength", len(value))
    return True


def _is(value: Any, kind: str) -> bool:
    if kind in ("integer", "number"):
        return type(value) is int or (type(value) is float and kind == "number")
    return isinstance(value, KINDS[kind])
