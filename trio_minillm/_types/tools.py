"""Tools that a model may call, made from functions, types or schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, get_type_hints

import msgspec

from .messages import CacheHint, ToolCall

JSONObject: TypeAlias = dict[str, Any]


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call; ``parameters`` is the JSON schema of an object.

    `tool` makes one from a function or a type; construct it directly from a schema.
    """

    name: str
    description: str = ""
    parameters: JSONObject = msgspec.field(default_factory=lambda: {"type": "object"})
    strict: bool | None = None
    """Ask the provider to enforce the schema, which is then closed: every property is required, and
    no others are allowed."""
    cache: CacheHint = None
    function: Callable[..., Any] | None = None
    type: Any = None
    """Type that `read` decodes the arguments into; ``None`` for plain JSON."""

    def read(self, call: ToolCall) -> Any:
        """Return the call's arguments in the tool's own type (a ``dict`` for a plain schema).

        Raises `msgspec.ValidationError` if they don't match it.
        """
        return call.parsed(Any if self.type is None else self.type)

    def call(self, call: ToolCall) -> Any:
        """Call the tool's function with the call's arguments, and return its result.

        Of an async function, that is the awaitable. Raises `msgspec.ValidationError` before the
        function is entered if the arguments don't match their types, and ``TypeError`` if the tool
        was not made from a function.
        """
        if self.function is None:
            raise TypeError(f"tool {self.name!r} was not made from a function")
        given = self.read(call)
        return self.function(**{f: getattr(given, f) for f in given.__struct_fields__})


def tool(
    source: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    cache: CacheHint = None,
) -> Tool:
    """Make a `Tool` from an annotated function, or a msgspec Struct, dataclass or TypedDict.

    Unless given, the name is the source's and the description its docstring's first paragraph.
    A parameter is described with ``Annotated[str, msgspec.Meta(description="…")]``.

    Raises ``TypeError`` for another kind of source, a parameter without an annotation, or one that
    can't be given by name.
    """
    if isinstance(source, type):
        target, function = source, None
    elif callable(source):
        target, function = _arguments_type(source), source
    else:
        raise TypeError(f"a tool is made from a function or a type, not {type(source).__name__}")
    if description is None:
        doc = (inspect.getdoc(source) if function or source.__doc__ else None) or ""
        generated = doc.startswith(f"{source.__name__}(")  # dataclasses write their signature
        description = "" if generated else doc.split("\n\n")[0].strip()
    return Tool(
        name=name or source.__name__,
        description=description,
        parameters=schema_of(target),
        strict=strict,
        cache=cache,
        function=function,
        type=target,
    )


def _arguments_type(function: Callable[..., Any]) -> type:
    hints = get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {name!r} can't be given by name")
        if name not in hints:
            raise TypeError(f"parameter {name!r} has no annotation")
        if parameter.default is parameter.empty:
            fields.append((name, hints[name]))
        else:
            fields.append((name, hints[name], parameter.default))
    return msgspec.defstruct(function.__name__, fields, kw_only=True)


def schema_of(type: Any) -> JSONObject:
    """Return a type's JSON schema with its root inlined: providers refuse a ``$ref`` there."""
    (root,), components = msgspec.json.schema_components([type], ref_template="#/$defs/{name}")
    schema = dict(root)
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    if name in components:
        schema = dict(components[name])
        if f"#/$defs/{name}" not in str(components):
            components = {k: v for k, v in components.items() if k != name}
    if components:
        schema["$defs"] = components
    return schema


def closed(schema: Any) -> Any:
    """Return the schema as strict modes want it: every object closed, every property required."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema  # `true` and `false` are schemas, too
    out = {key: _closed_keyword(key, value) for key, value in schema.items()}
    properties = out.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    is_map = isinstance(out.get("additionalProperties"), Mapping)  # strict modes refuse those
    if (properties or out.get("type") == "object") and not is_map:
        out |= {"additionalProperties": False, "required": list(properties)}
        for prop in properties.values():
            if isinstance(prop, dict):
                prop.pop("default", None)
    return out


def _closed_keyword(key: str, value: Any) -> Any:
    named = key in ("properties", "$defs", "definitions", "patternProperties")
    if named and isinstance(value, Mapping):
        return {name: closed(sub) for name, sub in value.items()}
    return value if key in ("default", "enum", "const", "examples") else closed(value)


def tools_of(given: Sequence[Any]) -> list[Tool | JSONObject]:
    """Return each tool as a `Tool`; a mapping is a provider's own tool, and is sent as it is."""
    out: list[Tool | JSONObject] = []
    for item in given:
        if isinstance(item, Tool):
            out.append(item)
        elif isinstance(item, Mapping):
            out.append(dict(item))
        else:
            out.append(tool(item))
    return out
