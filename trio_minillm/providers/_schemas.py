"""JSON schemas as each wire format's strict mode takes them.

A strict mode makes the model's answer fit the schema, and takes only a part of JSON schema: every
object is closed, and all its properties are required. `SchemaRules` says what else; the table of them
is `OPENAI`, `COMMON`, `GRAMMAR`, `ANTHROPIC` and `GEMINI`. A bound, a format or another keyword that is refused is left
out and said in the description instead, where the model reads it; the answer is checked against the
type anyway. What a strict mode can't express at all is `Unfit`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec

from .._types.schemas import JSON_TEXT, JSONObject, definition_name

MAX_DEPTH: Final = 64
"""Levels of nesting in a schema. OpenAI takes 10; this only keeps the walk from Python's own limit."""
MAX_NODES: Final = 5_000
"""Nodes up to which definitions are written out in place: OpenAI's limit of properties in a schema.
Types that name each other with descriptions double it with each level."""
_MAX_TOLD: Final = 200
"""Characters of a keyword's value in a description: the model pays for them in every request."""
_MAX_IN_TEXT: Final = 8_000
"""Characters of a schema in the description of a value that comes as text. Most have some hundred."""


class SchemaRules(msgspec.Struct, frozen=True, kw_only=True):
    """The part of JSON schema that one strict mode takes."""

    keywords: frozenset[str] = frozenset()
    """Bounds and formats that are taken; ``format`` only with the values in `formats`."""
    formats: frozenset[str] = frozenset()
    whole: bool = False
    """True if bounds have a meaning for whole numbers only."""
    counts: frozenset[int] | None = None
    """The only values that ``minItems`` may have; ``None`` for any."""
    unions: int | None = None
    """Places that may be of several types, in a schema as a whole; ``None`` for any number."""
    values: int | None = None
    """Values of all its ``enum`` together; ``None`` for any number."""
    recursive: bool = True
    """True if a definition may refer to itself."""
    in_text: bool = False
    """True if what can't be expressed is asked for as JSON in a text (`JSON_TEXT`), which
    `read_answer` undoes; otherwise it is `Unfit`."""


_FORMATS = frozenset(
    ("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid")
)
_NUMBERS = frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"))

OPENAI = SchemaRules(
    keywords=_NUMBERS | {"pattern", "format", "minItems", "maxItems"},
    formats=_FORMATS,
    values=1000,
)
"""OpenAI's own models. Source: the guide to structured outputs, "Supported properties"; lengths of
strings are not in it. Fine-tuned models take less: ask them without ``strict``."""

COMMON = SchemaRules()
"""The types alone, which every strict mode takes.

Azure's guide lists all bounds and formats as unsupported. Groq ("minItems is not supported",
i-am-bee/beeai-framework#1215), Cerebras ("Unsupported JSON schema fields", claude-code-router#708), xAI
and DeepSeek refuse some of them; OpenRouter and other gateways pass a schema on to models of any
vendor."""

GRAMMAR = SchemaRules(
    keywords=_NUMBERS - {"multipleOf"} | {"minLength", "maxLength", "minItems", "maxItems"},
    whole=True,
)
"""Servers that make a grammar of the schema: llama.cpp, and Ollama with it (source: llama.cpp's
grammars/README.md; a pattern must be anchored there, or is an error), vLLM with xgrammar (which has
no ``multipleOf``)."""

ANTHROPIC = SchemaRules(
    keywords=frozenset(("pattern", "format", "minItems")),
    formats=_FORMATS | {"uri"},
    counts=frozenset((0, 1)),
    unions=16,  # "too many parameters with union types" (vercel/ai PR 17268)
    recursive=False,
)
"""Anthropic's strict tools. Source: its guide to structured outputs, "JSON Schema limitations"."""

ANTHROPIC_ANSWER = msgspec.structs.replace(ANTHROPIC, in_text=True)
"""Anthropic's output formats: it has no mode without ``strict`` that maps and recursion could use."""

GEMINI = SchemaRules(
    keywords=frozenset(("minimum", "maximum", "minItems", "maxItems", "format")),
    formats=frozenset(("date-time", "date", "time")),
)
"""Gemini's answers. Source: its guide to structured outputs, "JSON schema support"."""


class Unfit(ValueError):
    """A schema that a strict mode can't take, with the place, the reason and the remedy as its text."""


def strict_schema(schema: Mapping[str, Any], rules: SchemaRules) -> JSONObject:
    """Return the schema as a strict mode takes it; the given one is not changed.

    A reference has nothing beside it: its definition is written out in place of one that has, except
    where it would not end. Tuples become lists with their length. Raises `Unfit` if it can't be done:
    for maps, values of any type, and recursion where the rules have none; and ``ValueError`` if it is
    nested deeper than `MAX_DEPTH`.
    """
    try:
        given = msgspec.json.encode(schema)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    made: JSONObject = msgspec.json.decode(_strict(given, rules))
    return made


@lru_cache(maxsize=256)
def _strict(given: bytes, rules: SchemaRules) -> bytes:
    # A batch asks for the same type thousands of times.
    return msgspec.json.encode(_Walk(msgspec.json.decode(given), rules).made())


class _Walk:
    """One schema on its way to a strict mode."""

    def __init__(self, root: JSONObject, rules: SchemaRules) -> None:
        self.root = root
        self.rules = rules
        named = (root.pop(key, None) or {} for key in ("definitions", "$defs"))
        self.given: JSONObject = {name: one for those in named for name, one in those.items()}
        self.definitions: JSONObject = {}
        self.open: list[str] = []  # the definitions around the node at hand
        self.left = MAX_NODES

    def made(self) -> JSONObject:
        out = self.node(self.root, "", 0)
        if "anyOf" in out:  # both refuse it: "must not have 'oneOf'/'anyOf'/… at the top level"
            raise Unfit("the root has several schemas to choose from: put them into a field")
        whole = {**out, "$defs": self.definitions} if self.definitions else out
        try:
            self.check_size(whole)
        except Unfit:
            if not self.rules.in_text:
                raise
            return self.in_text(self.root, "")
        return whole

    def check_size(self, whole: JSONObject) -> None:
        """Raise `Unfit` if a finished schema has more of something than the mode takes."""
        nodes = list(_nodes_in(whole))
        unions = sum("anyOf" in n or isinstance(n.get("type"), list) for n in nodes)
        if self.rules.unions is not None and unions > self.rules.unions:
            most = self.rules.unions
            raise Unfit(f"more than {most} fields may be of several types (or null)")
        values = sum(len(n.get("enum", ())) for n in nodes)
        if self.rules.values is not None and values > self.rules.values:
            raise Unfit(f"there are more than {self.rules.values} values to choose from")

    def node(self, schema: Any, at: str, depth: int) -> JSONObject:
        if depth > MAX_DEPTH:
            raise ValueError(_TOO_DEEP)
        try:
            return self.strict(schema, at, depth)
        except Unfit:
            if not self.rules.in_text:
                raise
        return self.in_text(schema, at)

    def in_text(self, schema: Any, at: str) -> JSONObject:
        """Return the schema of an object that holds a value's JSON as text."""
        definitions: JSONObject = {}
        waiting = [schema]
        for one in waiting:  # it grows
            for name in _names_in(one):
                if name in self.given and name not in definitions:
                    definitions[name] = self.given[name]
                    waiting.append(self.given[name])
        whole = {**schema, "$defs": definitions} if definitions else schema
        shown = msgspec.json.encode(whole).decode()
        if at and '"$ref":"#"' in shown:
            raise Unfit(_said(at, "refers to the whole schema"))  # so that comes as text
        if len(shown) > _MAX_IN_TEXT:
            raise ValueError(_said(at, "has a schema too long to be put into words"))
        text = {"type": "string", "description": f"JSON that matches the JSON schema {shown}"}
        closing = {"required": [JSON_TEXT], "additionalProperties": False}
        return {"type": "object", "properties": {JSON_TEXT: text}, **closing}

    def strict(self, schema: Any, at: str, depth: int) -> JSONObject:
        self.left -= 1
        schema = _plainer(schema, at)
        if "$ref" in schema:
            return self.reference(schema, at, depth)
        kinds = _kinds(schema, at)
        out: JSONObject = {k: schema[k] for k in ("title", "description") if k in schema}
        if kinds:
            out["type"] = kinds[0] if len(kinds) == 1 else kinds
        if "enum" in schema:
            out["enum"] = schema["enum"]
        if "anyOf" in schema:
            out["anyOf"] = self.choices(schema["anyOf"], at, depth)
        if "object" in kinds:
            out |= self.fields(schema, at, depth)
        if "array" in kinds:
            out |= self.items(schema, at, depth)
        return self.bounded(out, schema)

    def choices(self, given: list[Any], at: str, depth: int) -> list[JSONObject]:
        made = [self.node(x, at, depth + 1) for x in given]
        return [y for x in made for y in (x["anyOf"] if x.keys() == {"anyOf"} else [x])]

    def fields(self, schema: JSONObject, at: str, depth: int) -> JSONObject:
        others = schema.get("additionalProperties")
        given = schema.get("properties", {} if others is False else None)
        free = isinstance(others, dict) or (others is True and not given)
        if given is None or free or schema.get("patternProperties"):
            raise Unfit(_said(at, "is a map: use a list of objects with a key and a value"))
        properties = {
            name: self.node(x, f"{at}.{name}" if at else name, depth + 1)
            for name, x in given.items()
        }
        closing = {"required": list(properties), "additionalProperties": False}
        return {"properties": properties, **closing}

    def items(self, schema: JSONObject, at: str, depth: int) -> JSONObject:
        """Return the schema of a list's items: for a tuple, any of those of its places."""
        places = schema.get("prefixItems") or []
        given = [*places, *([schema["items"]] if isinstance(schema.get("items"), dict) else [])]
        if not given:
            raise Unfit(_said(at, "has items of any type: give them one"))
        made = [self.node(x, f"{at}[]", depth + 1) for x in given]
        if places:
            schema["in this order"] = ", ".join(_called(x) for x in made)
        different = [x for k, x in enumerate(made) if x not in made[:k]]
        return {"items": different[0] if len(different) == 1 else {"anyOf": different}}

    def reference(self, schema: JSONObject, at: str, depth: int) -> JSONObject:
        name = "#" if schema["$ref"] == "#" else definition_name(schema["$ref"])
        target = self.root if name == "#" else self.given.get(name or "")
        if name is None or not isinstance(target, dict):
            raise Unfit(
                _said(at, "refers to something that is not among the schema's own definitions")
            )
        if not self.rules.recursive and (name == "#" or name in self.open):
            raise Unfit(_said(at, "is recursive: use a type with a fixed number of levels"))
        beside = {k: v for k, v in schema.items() if k not in ("$ref", "title")}
        told = self.bounded({k: v for k, v in beside.items() if k == "description"}, beside)
        if not told:
            return self.referred(name, target, depth)
        if name == "#" or name in self.open or self.left < 0:
            # Strict modes take words beside the list of choices, though not beside a reference.
            words = {k: v for k, v in told.items() if k == "description"}
            return {"anyOf": [self.referred(name, target, depth)], **words}
        self.open.append(name)
        try:
            return self.node({**target, **beside}, at, depth + 1)
        finally:
            self.open.pop()

    def referred(self, name: str, target: JSONObject, depth: int) -> JSONObject:
        if name == "#":
            return {"$ref": "#"}
        if name not in self.definitions:
            self.definitions[name] = {}  # it may refer to itself
            self.open.append(name)
            self.definitions[name] = self.node(target, name, depth + 1)
            self.open.pop()
        return {"$ref": "#/$defs/" + name.replace("~", "~0").replace("/", "~1")}

    def bounded(self, out: JSONObject, schema: JSONObject) -> JSONObject:
        """Add the keywords that are taken as they are, and say the others in the description."""
        told = []
        for key in sorted(schema.keys() - _STRUCTURE, key=_place):
            value = schema[key]
            if self.takes(key, value, out):
                out[key] = value
            elif words := _in_words(key, value):
                told.append(words)
        if told:
            text = out.get("description")
            out["description"] = f"{text} ({'; '.join(told)})" if text else "; ".join(told)
        return out

    def takes(self, key: str, value: Any, beside: JSONObject) -> bool:
        rules = self.rules
        if key not in rules.keywords:
            return False
        if key in _NUMBERS and rules.whole:
            return beside.get("type") == "integer"
        if key == "format":
            return value in rules.formats
        if key == "pattern":
            return isinstance(value, str) and re.search(_UNUSUAL, value) is None
        return key != "minItems" or rules.counts is None or value in rules.counts


_TOO_DEEP = f"the schema is nested deeper than {MAX_DEPTH} levels"
_UNUSUAL = r"\(\?(?!:)|\\[1-9bBAZzGkpP]"
"""Parts of a regular expression that no strict mode takes: looking around, references back, edges of
words."""
_STRUCTURE = {
    *("$ref", "title", "description", "type", "properties", "required", "additionalProperties"),
    *("patternProperties", "items", "prefixItems", "anyOf", "enum", "$defs", "definitions"),
    # These say nothing that the model needs
    *("$schema", "$id", "$anchor", "$comment", "discriminator"),
    *("readOnly", "writeOnly", "deprecated"),
}
"""Keywords that are read above, or left out without a word."""
_WORDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "length at least {}",
    "maxLength": "length at most {}",
    "pattern": "matching the regular expression {}",
    "minItems": "number of items at least {}",
    "maxItems": "number of items at most {}",
    "uniqueItems": "no item twice",
    "contentEncoding": "encoded as {}",
}


_ORDER = {key: place for place, key in enumerate(_WORDS)}


def _names_in(schema: Any) -> Iterator[str]:
    """Yield the names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if (name := definition_name(schema.get("$ref"))) is not None:
            yield name
        for value in schema.values():
            yield from _names_in(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _names_in(value)


def _nodes_in(made: JSONObject) -> Iterator[JSONObject]:
    """Yield all nodes of a schema as a strict mode takes it; a definition once."""
    yield made
    below = [*made.get("properties", {}).values(), *made.get("$defs", {}).values()]
    for node in (*below, *made.get("anyOf", ()), *([made["items"]] if "items" in made else ())):
        yield from _nodes_in(node)


def _place(key: str) -> tuple[int, str]:
    """Return a key to sort keywords by, so that equal schemas are equal texts (prompt caches)."""
    return _ORDER.get(key, len(_ORDER)), key


def _in_words(key: str, value: Any) -> str:
    """Return a keyword as words for the model; empty if it says nothing."""
    if value is None or value is False or value in ("", [], {}):
        return ""
    if value == 0 and key in ("minItems", "minLength", "minProperties"):
        return ""
    shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if len(shown) > _MAX_TOLD:
        shown = shown[:_MAX_TOLD] + "…"
    return _WORDS.get(key, key + ": {}").format(shown)


_NUMBER, _COUNT = (int, float), (int,)
_VALUES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(_NUMBERS, _NUMBER),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), _COUNT),
    **dict.fromkeys(("minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("title", "description", "format", "pattern", "$comment"), (str,)),
    **dict.fromkeys(("required", "examples"), (list,)),
    "uniqueItems": (bool,),
}
"""The types of the values that keywords can have."""
_MAY_BE_NULL = ("const", "default", "example")


def of_today(schema: JSONObject) -> JSONObject:
    """Return a schema's own node without what the current draft refuses, with the whole request.

    Draft 4 says with ``true`` that ``minimum`` is excluded, draft 3 that a property is required, and
    serializers write ``null`` for what is not there (Dokploy/mcp#74, MervinPraison/PraisonAI#3111).
    """
    out = {k: v for k, v in schema.items() if v is not None or k in _MAY_BE_NULL}
    for new, old in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if out.get(new) is True and old in out:
            out[new] = out.pop(old)
    return {k: v for k, v in out.items() if _can_be(k, v)}


def _can_be(key: str, value: Any) -> bool:
    """Return whether a keyword can have a value; no boolean is a number."""
    types = _VALUES.get(key)
    return types is None or (
        isinstance(value, types) and (type(value) is not bool or bool in types)
    )


def _plainer(schema: Any, at: str) -> JSONObject:
    """Return a node's own copy with one word for one thing: ``enum``, ``anyOf``, ``prefixItems``."""
    out = of_today(schema) if isinstance(schema, dict) else {}
    for key, shape in _SHAPES.items():
        if key in out and not isinstance(out[key], shape):
            raise Unfit(_said(at, f"is not a JSON schema: {key} has another type"))
    every = out.pop("allOf", None)
    if every is not None:
        if len(every) != 1 or not isinstance(every[0], dict):
            raise Unfit(_said(at, "has several schemas at once (allOf): write them as one"))
        out = {**_plainer(every[0], at), **out}
    if "const" in out:
        out.setdefault("enum", [out.pop("const")])
    if "oneOf" in out:
        out.setdefault("anyOf", out.pop("oneOf"))
    if out.pop("nullable", False) is True:
        out = _with_null(out)
    if "enum" in out and "type" in out:
        told = _told(out)
        out["enum"] = [v for v in out["enum"] if _is_of(v, told)] or out["enum"]
    if "anyOf" in out and out.get("type") == "object" and not out.get("properties"):
        del out["type"]  # each of the choices says it
    if isinstance(out.get("items"), list):
        out["prefixItems"] = out.pop("items")
    return out


_SHAPES: dict[str, Any] = {
    "$ref": str,
    "type": str | list,
    "properties": dict,
    **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems", "enum"), list),
}


def _with_null(schema: JSONObject) -> JSONObject:
    """Return a node that may also be null, which OpenAPI 3.0 says with ``nullable``."""
    if "$ref" in schema or "anyOf" in schema:
        words: JSONObject = {k: schema.pop(k) for k in ("title", "description") if k in schema}
        return {"anyOf": [schema, {"type": "null"}], **words}
    out = dict(schema)
    if "type" in out:
        out["type"] = list(dict.fromkeys([*_told(out), "null"]))
    if "enum" in out and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    return out


def _told(schema: JSONObject) -> list[str]:
    """Return the names of the types that a node says it may have."""
    told = schema.get("type", [])
    return [told] if isinstance(told, str) else [str(kind) for kind in told]


def _is_of(value: Any, kinds: list[str]) -> bool:
    """Return whether a value may have one of these types. OpenAI refuses others in an ``enum``."""
    kind = _KINDS.get(type(value))
    return kind is None or kind in kinds or (kind in ("integer", "number") and "number" in kinds)


def _kinds(schema: JSONObject, at: str) -> list[str]:
    """Return the names of the JSON types that a node may have, told or not."""
    kinds = _told(schema)
    values = schema.get("enum")
    if values is not None:
        if not all(type(v) in _KINDS for v in values):
            raise Unfit(_said(at, "has lists or objects as its only values: use a type for them"))
        kinds = kinds or list(dict.fromkeys(_KINDS[type(v)] for v in values))
    elif not kinds and "properties" in schema:
        kinds = ["object"]
    elif not kinds and ("items" in schema or "prefixItems" in schema):
        kinds = ["array"]
    if not kinds and not schema.get("anyOf"):
        raise Unfit(_said(at, "may be anything: give it a type"))
    return kinds


_KINDS = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
}


def _called(schema: JSONObject) -> str:
    """Return a short name of a node for the description of a tuple."""
    if "$ref" in schema:
        return definition_name(schema["$ref"]) or "the whole"
    kinds = schema.get("type", "one of several")
    return str(schema.get("title") or (kinds if isinstance(kinds, str) else " or ".join(kinds)))


def _said(at: str, text: str) -> str:
    return f"{at or 'the root'} {text}"
