"""JSON schemas of Python types, and values of these types read back from JSON.

msgspec does both for its own Structs, dataclasses, TypedDicts, NamedTuples, attrs classes, enums and
everything made of them; pydantic does for its models and what is made of those. pydantic is optional:
it is imported only for a type that is its own.

An answer must be a JSON object: OpenAI refuses a schema with another root. A list, a union or a
scalar is therefore asked for as the one field `ANSWER` of an object, and taken out of it again here.
So is what Anthropic's strict mode can't express (maps, recursion), which comes as `JSON_TEXT`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from json import JSONDecoder
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints
from urllib.parse import unquote

import msgspec

JSONObject: TypeAlias = dict[str, Any]

ANSWER = "answer"
"""Name of the field that holds an answer whose type is no object."""
ANY_IN_OBJECT: Any = Annotated[Any, "in an object"]
"""The type of an answer to a plain schema whose root is no object: any JSON, in the field `ANSWER`."""
JSON_TEXT = "json_text"
"""Name of the only field of an object that stands for a value which a strict mode can't express: it
holds the value's JSON as text."""
_KEPT = 256
"""Types whose schema and decoder are kept: more than a program has. Making a decoder takes some
0.1 ms, far more than most answers take to decode."""


def schema_of(type: Any) -> JSONObject:
    """Return a type's JSON schema, with its root in place: providers refuse a ``$ref`` there.

    Raises ``TypeError`` for a type that neither msgspec nor pydantic can describe.
    """
    made: JSONObject = msgspec.json.decode(_kept(_schema, type))
    return made


def root_in_place(schema: Mapping[str, Any]) -> JSONObject:
    """Return the schema with the definition of its root in place of a reference to it."""
    out = dict(schema)
    name = definition_name(out.get("$ref"))
    definitions: JSONObject = {}
    for key in ("definitions", "$defs"):
        if isinstance(out.get(key), Mapping):  # PHP writes an empty one as a list
            definitions |= out[key]
    if name is None or not isinstance(definitions.get(name), Mapping):
        return out
    del out["$ref"]
    return {**definitions[name], **out}


def definition_name(reference: Any) -> str | None:
    """Return the name of the definition that a reference means, or ``None`` for another kind."""
    if not isinstance(reference, str):
        return None
    found = re.fullmatch(r"#/(?:\$defs|definitions)/([^/]+)", reference)
    if found is None:
        return None
    return unquote(found[1]).replace("~1", "/").replace("~0", "~")  # RFC 6901, 6: it is in a URL


def is_object(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema with its root in place is that of a JSON object."""
    if "anyOf" in schema or "oneOf" in schema:
        return False  # providers refuse a choice at the root, also of objects
    return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)


def in_object(schema: Mapping[str, Any]) -> JSONObject:
    """Return a schema that can be asked for: an object, which holds the answer if that is none."""
    root = root_in_place(schema)
    if is_object(root):
        return root
    out: JSONObject = {"type": "object", "properties": {ANSWER: root}, "required": [ANSWER]}
    for key in ("$schema", "$defs", "definitions"):
        if key in root:
            out[key] = root.pop(key)
    return out


def plain_name(name: Any, otherwise: str = "response") -> str:
    """Return a type's or function's name as providers take it: letters, digits, ``_``, ``-``."""
    found = re.sub(r"[^A-Za-z0-9_-]+", "_", name) if isinstance(name, str) else ""
    return found.strip("_")[:64] or otherwise


# -- reading values --------------------------------------------------------------------------


def read_json(text: str | bytes, type: Any) -> Any:
    """Return the value of a type that JSON stands for.

    Raises `msgspec.DecodeError` if it is not JSON, and its subclass `msgspec.ValidationError` if it
    does not match the type; the cause is pydantic's own error if the type is pydantic's.
    """
    try:
        return _kept(_reader, type)(text)
    except RecursionError:
        raise msgspec.DecodeError(_DEEP) from None


_DEEP = "it is nested too deeply"
"""The words for an answer that repeats a bracket for ever, as models do."""


def read_answer(text: str, type: Any, asked: Any) -> Any:
    """Return the value that an answer stands for, taken out of its object if it was asked for so.

    ``asked`` is the type that the request asked for. A model that left the object out is understood
    all the same, and so is one that put its JSON into a fenced block, behind its thoughts, or between
    words. Raises what `read_json` raises.
    """
    try:
        text = undressed(text)
        if f'"{JSON_TEXT}"' in text:
            with suppress(msgspec.ValidationError):  # a type that has such a field itself
                return _read_answer(_without_texts(text), type, asked)
        return _read_answer(text, type, asked)
    except RecursionError:
        raise msgspec.DecodeError(_DEEP) from None


def undressed(text: str) -> str:
    """Return the JSON of an answer that has something around it: thoughts before it, a fence, or words.

    What is JSON as it stands is returned as it is, and so is what has no JSON in it, or more than one.
    """
    if _is_json(text):
        return text
    # Templates that open the thoughts themselves leave the closing mark alone in the answer.
    answer = re.split(r"</think(?:ing)?>", text)[-1].strip()
    if answer.startswith(("<think>", "<thinking>")):  # it was cut before the answer began
        return answer
    fenced = [body for body in re.findall(_FENCE, answer) if _is_json(body)]
    if len(fenced) == 1:
        return str(fenced[0])
    begun = min((at for mark in "{[" if (at := answer.find(mark)) >= 0), default=0)
    ended = max(answer.rfind("}"), answer.rfind("]")) + 1
    bare = answer[begun:ended]
    if not fenced and _is_json(bare):
        return bare
    if not fenced and len(found := _values_in(answer)) == 1:
        return found[0]
    return re.sub(_OPENING, "", answer)  # the error is then of the JSON, which may have been cut


_FENCE = r"(?s)```[\w-]*\s(.*?)```"
"""A block of code, with the name of its language or without."""
_OPENING = r"\A```[\w-]*\s"


_REFERENCE = re.compile(r"\[\^?\d{1,4}(?:[,-] ?\d{1,4})*\]")
"""The number of a source that the model cites."""
_MAX_BRACKETS = 64
"""Brackets of an answer that are looked at. An answer with its sources has a few."""


def _values_in(answer: str) -> list[str]:
    """Return the objects and lists of JSON in an answer, but for the numbers of its sources; none if
    one of them is broken.
    """
    decode, found, at = JSONDecoder().raw_decode, list[str](), 0
    for _ in range(_MAX_BRACKETS):
        begun = min((i for mark in "{[" if (i := answer.find(mark, at)) >= 0), default=-1)
        if begun < 0:
            return found
        if reference := _REFERENCE.match(answer, begun):
            at = reference.end()
            continue
        try:
            at = decode(answer, begun)[1]
        except (ValueError, RecursionError):
            return []
        found.append(answer[begun:at])
    return []


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _read_answer(text: str, type: Any, asked: Any) -> Any:
    if asked is None or not is_wrapped(asked):
        return read_json(text, type)
    whole = msgspec.json.decode(text, type=msgspec.Raw)
    try:
        fields = msgspec.json.decode(whole, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        fields = {}
    if fields.keys() != {ANSWER}:
        return read_json(text, type)
    try:
        return read_json(fields[ANSWER], type)
    except msgspec.ValidationError as error:
        try:  # a type that has such a field itself
            return read_json(text, type)
        except msgspec.ValidationError:
            raise error from error.__cause__


def _without_texts(text: str) -> str:
    """Return JSON with the values in place of the objects that hold them as text."""
    return msgspec.json.encode(_untexted(msgspec.json.decode(text))).decode()


def _untexted(value: Any) -> Any:
    if isinstance(value, list):
        return [_untexted(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {JSON_TEXT} and isinstance(value[JSON_TEXT], str):
        with suppress(msgspec.DecodeError):
            return _untexted(msgspec.json.decode(value[JSON_TEXT]))
    return {name: _untexted(entry) for name, entry in value.items()}


def is_wrapped(type: Any) -> bool:
    """Return whether a type is asked for in an object, as its field `ANSWER`."""
    wrapped: bool = _kept(_is_wrapped, type)
    return wrapped


def _is_wrapped(type: Any) -> bool:
    return type is ANY_IN_OBJECT or not is_object(schema_of(type))


def _reader(type: Any) -> Callable[[str | bytes], Any]:
    adapter = _adapter(type)
    if adapter is None:
        try:
            return msgspec.json.Decoder(type).decode
        except TypeError as error:
            raise TypeError(_unfit(type, error)) from None
    from pydantic import ValidationError

    def read(text: str | bytes) -> Any:
        msgspec.json.decode(text, type=msgspec.Raw)  # not JSON is the same error for every type
        try:
            return adapter.validate_json(bytes(text) if isinstance(text, msgspec.Raw) else text)
        except ValidationError as error:
            words = _words(error, _names_in(adapter.json_schema()))
            raise msgspec.ValidationError(words) from error.with_traceback(None)

    return read


def _words(error: Any, names: set[str]) -> str:
    """Return the first of pydantic's complaints in msgspec's words, without the value.

    Of its place only the ``names`` are shown that the type has: the keys of a map are the model's words.
    """
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    steps = (
        f"[{x}]" if isinstance(x, int) else f".{x}" if x in names else "[...]" for x in first["loc"]
    )
    at = "".join(steps)
    return f"{first['msg']} - at `${at}`" if at else str(first["msg"])


def _names_in(schema: Any) -> set[str]:
    """Return the names of the fields, definitions and tags in a schema."""
    found, waiting = set[str](), [schema]
    for one in waiting:  # it grows
        if isinstance(one, dict):
            for key in ("properties", "$defs", "mapping"):
                found.update(one.get(key) or ())
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def _schema(type: Any) -> bytes:
    adapter = _adapter(type)
    if adapter is not None:
        return msgspec.json.encode(root_in_place(adapter.json_schema()))
    try:
        (root,), components = msgspec.json.schema_components([type], ref_template="#/$defs/{name}")
    except TypeError as error:
        raise TypeError(_unfit(type, error)) from None
    schema = root_in_place({**root, "$defs": components})
    name = definition_name(root.get("$ref"))
    if name is not None and f"'#/$defs/{name}'" not in str(components):
        del schema["$defs"][name]
    if not schema["$defs"]:
        del schema["$defs"]
    return msgspec.json.encode(schema)


def _unfit(type: Any, error: TypeError) -> str:
    """Return the words for a type that msgspec can't use, in one line and without a value."""
    said = str(error).rpartition("\n")[2]
    if re.fullmatch(r"Type '.*' is not supported", said, re.DOTALL):
        return f"a value of type {type.__class__.__name__} is not a type"
    return _NEITHER if is_pydantic(type) else said


def _kept(make: Callable[[Any], Any], type: Any) -> Any:
    """Return what is made from a type, from memory if it was made before."""
    try:
        hash(type)
    except TypeError:  # metadata that can't be hashed
        return make(type)
    return _memory(make, type)


@lru_cache(maxsize=2 * _KEPT)
def _memory(make: Callable[[Any], Any], type: Any) -> Any:
    return make(type)


# -- pydantic --------------------------------------------------------------------------------


def _adapter(type: Any) -> Any:
    """Return pydantic's adapter of a type that is its own or made of such; else ``None``."""
    if not is_pydantic(type) or hasattr(type.__class__, "__pydantic_validator__"):
        return None  # a value is no type, though pydantic 2.10 takes one for its class
    try:
        from pydantic import PydanticUserError, TypeAdapter
    except ImportError:  # annotated_types can be installed alone
        return None
    try:
        return TypeAdapter(type)
    except PydanticUserError:  # a msgspec Struct is in it
        return None


def is_pydantic(type: Any) -> bool:
    """Return whether a type is pydantic's, or has something of pydantic's in it."""
    if not sys.modules.keys() & _PACKAGES:
        return False
    found = [type]
    for one in found:  # it grows
        if hasattr(one, "__pydantic_validator__") or _package(one) in _PACKAGES:
            return True
        inside = [*get_args(one), *_hints(one)]
        found += [x for x in inside if not any(x is y for y in found)]
    return False


_PACKAGES = {"pydantic", "annotated_types"}
_NEITHER = (
    "a type with a pydantic model in it must be one that pydantic knows: no msgspec Struct, and before"
    " Python 3.12 typing_extensions' TypedDict"
)


def _package(metadata: Any) -> str:
    """Return the package of a value that stands beside a type in ``Annotated``."""
    return type(metadata).__module__.partition(".")[0]


def _hints(type: Any) -> list[Any]:
    try:
        if not isinstance(getattr(type, "__annotations__", None), Mapping):
            return []
        return list(get_type_hints(type, include_extras=True).values())
    except (NameError, TypeError, AttributeError):  # names that only a type checker knows
        return []
