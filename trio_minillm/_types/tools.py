"""Tools that a model may call, made from functions, types or schemas."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, Sequence
from functools import partial
from typing import Any, get_origin, get_type_hints

import msgspec

from .checks import check_function, check_option, check_type
from .messages import CacheHint, ToolCall, check_cache
from .schemas import JSONObject, is_object, is_pydantic, plain_name, schema_of


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that the model may call.

    Make one with `tool` from a function or a type, or directly from a JSON schema.
    """

    name: str
    """The name by which the model calls the tool."""
    description: str = ""
    """The purpose of the tool, for the model."""
    parameters: JSONObject = msgspec.field(default_factory=lambda: {"type": "object"})
    """The JSON schema of the arguments, which are an object."""
    strict: bool | None = None
    """True if the provider should enforce the schema. All properties are then required, and no
    others are allowed. A schema that the strict mode does not support raises ``ValueError``."""
    cache: CacheHint = None
    """A cache breakpoint after the tool (Anthropic)."""
    function: Callable[..., Any] | None = None
    """The function that `call` calls, if the tool was made from one."""
    type: Any = None
    """The type that `read` decodes the arguments into; ``None`` for plain JSON."""

    def __post_init__(self) -> None:
        check_type("name", self.name, str)
        if self.description is None:  # as MCP's tools have it
            msgspec.structs.force_setattr(self, "description", "")
        check_type("description", self.description, str)
        check_type("parameters", self.parameters, Mapping)
        check_option("strict", self.strict, bool)
        check_function("function", self.function)
        check_cache(self.cache)

    def read(self, call: ToolCall) -> Any:
        """Return the arguments of a call in the tool's type, or as a ``dict`` for a plain schema.

        Raises `msgspec.ValidationError` if the arguments do not match the type.
        """
        return call.parsed(Any if self.type is None else self.type)

    def call(self, call: ToolCall) -> Any:
        """Call the tool's function with the arguments of a call, and return its result.

        For an async function, the result is an awaitable. Raises `msgspec.ValidationError` before
        the function runs if the arguments do not match their types, and ``TypeError`` if the tool
        was not made from a function.
        """
        if self.function is None:
            raise TypeError(f"tool {self.name!r} was not made from a function")
        given = self.read(call)
        kind = type(given)
        names = (
            kind.__struct_fields__
            if issubclass(kind, msgspec.Struct)
            else kind.__dataclass_fields__
        )
        return self.function(**{name: getattr(given, name) for name in names})


def tool(
    source: Any,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    cache: CacheHint = None,
) -> Tool:
    """Make a `Tool` from an annotated function, or from a type whose JSON is an object.

    - ``source`` is the function or the type: a msgspec Struct, a dataclass, a TypedDict, an attrs
      class, or a pydantic model.
    - ``name`` is the name of the source by default, and ``description`` the first paragraph of its
      docstring.
    - ``strict`` is true if the provider should enforce the schema; see `Tool.strict`.
    - ``cache`` is a cache breakpoint after the tool.

    Describe a parameter with ``Annotated[str, msgspec.Meta(description="…")]``, or with pydantic's
    ``Field``.

    Raises ``TypeError`` for any other source, and for a parameter that has no annotation or can't
    be passed by name.
    """
    target: Any = source
    function = None
    if not isinstance(source, type) and get_origin(source) is None:
        if not callable(source):
            kind = type(source).__name__
            raise TypeError(f"a tool is made from a function or a type, not {kind}")
        target, function = _arguments_type(source), source
    parameters = schema_of(target)
    if not is_object(parameters):
        raise TypeError("a tool's arguments are an object: give a type with fields, or a function")
    if description is None:
        doc = (inspect.getdoc(source) if function or source.__doc__ else None) or ""
        generated = doc.startswith(f"{source.__name__}(")  # dataclasses write their signature
        description = "" if generated else doc.split("\n\n")[0].strip()
    return Tool(
        name=name or plain_name(source.__name__, "tool"),
        description=description,
        parameters=parameters,
        strict=strict,
        cache=cache,
        function=function,
        type=target,
    )


def _arguments_type(function: Callable[..., Any]) -> type:
    hints = get_type_hints(function, include_extras=True)
    given: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"parameter {name!r} can't be passed by name")
        if name not in hints:
            raise TypeError(f"parameter {name!r} has no annotation")
        if parameter.default is parameter.empty:
            given.append((name, hints[name]))
        else:
            given.append((name, hints[name], parameter.default))
    if any(is_pydantic(hints[name]) for name, *_ in given):
        return _pydantic_arguments(function.__name__, given)
    return msgspec.defstruct(function.__name__, given, kw_only=True)


def _pydantic_arguments(name: str, given: Sequence[Any]) -> type:
    """Return a dataclass: pydantic reads it whatever its fields are called."""
    from dataclasses import field, make_dataclass  # slow to import, and loaded by pydantic anyway

    made: list[Any] = []
    for field_name, hint, *default in given:
        # A factory, as a plain default must not be a list
        made.append(
            (field_name, hint, *(field(default_factory=partial(_same, x)) for x in default))
        )
    return make_dataclass(name, made, kw_only=True)


def _same(value: Any) -> Any:
    return value


def tools_of(given: Sequence[Any]) -> list[Tool | JSONObject]:
    """Return each tool as a `Tool`; a mapping is a provider's own tool, and is sent as it is.

    Raises ``ValueError`` for two tools of one name.
    """
    out: list[Tool | JSONObject] = []
    for item in given:
        if isinstance(item, Tool):
            out.append(item)
        elif isinstance(item, Mapping):
            out.append(dict(item))
        else:
            out.append(tool(item))
    names = [one.name for one in out if isinstance(one, Tool)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"tools has two of the name {twice!r}")
    return out


def choice_of(
    given: Any, tools: Sequence[Tool | JSONObject], words: Container[str]
) -> str | JSONObject:
    """Return ``tool_choice`` as one of ``words``, a tool's name, or a provider's own mapping.

    ``tools`` are those that stand beside it. Raises ``ValueError`` for one that is not among them,
    if all their names are known.
    """
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, str) and given in words:
        return given
    ours = [one for one in tools if isinstance(one, Tool)]
    if isinstance(given, str | Tool):
        name = given if isinstance(given, str) else given.name
        if not tools or len(ours) < len(tools) or any(one.name == name for one in ours):
            return name
    for one in ours:
        if given in (one.function, one.type):
            return one.name
    raise ValueError("tool_choice must be one of tools, or its name")
