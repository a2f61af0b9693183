"""Answers checked against the JSON schemas that their requests asked for."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import msgspec

from .._types.params import JSONSchema, format_of
from .._types.response import CompletionResponse, MismatchedAnswer
from .types import BatchRequest, BatchResult

MAX_MESSAGE = 300
"""Characters of a checker's message: it quotes the value at fault, which may be the whole answer."""
_NEEDED = "checking answers against a schema needs jsonschema: pip install 'trio-minillm[schemas]'"


def validate_schema(result: BatchResult) -> None:
    """Raise `MismatchedAnswer` unless the answer matches its request's JSON schema: ``validate=``
    of a batch.

    This is for requests whose ``response_format`` is a `JSONSchema` without a type. The package
    jsonschema (extra ``schemas``) checks the answer in the schema's own draft, or in 2020-12 if it
    names none. ``format`` is not checked, and nothing is fetched. An answer to ``"json"`` must be
    JSON. An answer to anything else passes.

    The message is jsonschema's, which quotes the wrong value. Raises `InvalidAnswer` for an answer
    that is not JSON, ``TypeError`` for an invalid schema, and ``ImportError`` without the extra.
    """
    asked, answer = _format(result.request), result.response
    if asked is not None and answer is not None:
        check_answer(asked, answer)


def check_answer(asked: JSONSchema | Literal["json"], answer: CompletionResponse) -> None:
    """Raise `InvalidAnswer`, or `MismatchedAnswer`, unless an answer is as its format asks. Raises
    what else `validate_schema` raises.
    """
    try:
        value = answer.value
        if not isinstance(asked, JSONSchema) or asked.type is not None:
            return
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            error = best_match(_checker(asked).iter_errors(value))
        except Unresolvable:
            raise MismatchedAnswer(
                "the schema refers to something outside itself", answer
            ) from None
    except RecursionError:
        raise MismatchedAnswer("it is nested too deeply", answer) from None
    if error is not None:
        raise MismatchedAnswer(_words(error), answer)


def check_schema(request: BatchRequest) -> None:
    """Raise ``ValueError`` if answers to this request could not be checked: its schema is none, or refers
    to what is not in it. Raises `ImportError` without the extra ``schemas``.
    """
    asked = _format(request)
    if isinstance(asked, JSONSchema):
        check_format(asked)


def check_format(asked: JSONSchema) -> None:
    """Raise ``ValueError`` if answers of this format could not be checked with `check_answer`. Raises
    `ImportError` if that takes the extra ``schemas``, which is not installed.
    """
    if asked.type is None:
        try:
            _checker(asked)
        except TypeError as exc:
            raise ValueError(str(exc)) from None


def need_jsonschema() -> None:
    """Raise `ImportError` with the remedy if jsonschema is not installed."""
    try:
        import jsonschema  # noqa: F401
    except ImportError:
        raise ImportError(_NEEDED) from None


def _format(request: BatchRequest) -> Any:
    """Return the plain schema that a request asks for, or ``"json"``; ``None`` for anything else."""
    given = request.params.get("response_format")
    asked = None if given is None else format_of(given)
    if isinstance(asked, JSONSchema):
        return asked if asked.type is None else None
    return asked if asked == "json" else None


def _checker(asked: JSONSchema) -> Any:
    return _made(msgspec.json.encode(asked.schema))


@lru_cache(maxsize=256)
def _made(text: bytes) -> Any:
    """Return jsonschema's validator of a schema. Raises ``TypeError`` for what is none."""
    need_jsonschema()
    from jsonschema.exceptions import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry, Resource
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    schema = msgspec.json.decode(text)
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        resource = Resource.from_contents(schema, default_specification=DRAFT202012)
        address = resource.id() or ""
        resolver = Registry().with_resource(address, resource).resolver(address)
        for reference in _references(schema):
            try:
                resolver.lookup(reference)
            except Unresolvable:
                what = f"the schema refers to {_short(repr(reference))}, which is not in it"
                raise TypeError(what) from None
    except SchemaError as exc:
        raise TypeError(f"response_format is not a JSON schema: {_words(exc)}") from None
    except RecursionError:
        raise TypeError("the schema is nested too deeply") from None
    return kind(schema, registry=Registry())  # an empty one: else references are fetched


def _references(schema: Any) -> list[str]:
    found = []
    waiting = [schema]
    for one in waiting:  # it grows
        if isinstance(one, dict):
            if isinstance(one.get("$ref"), str):
                found.append(one["$ref"])
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
    return found


def _words(error: Any) -> str:
    """Return a complaint of jsonschema's in msgspec's manner: with the place at its end."""
    at = str(error.json_path)
    said = _short(str(error.message))
    return said if at == "$" else f"{said} - at `{_short(at)}`"


def _short(text: str) -> str:
    """Return a message without its middle if it is long: the fault is named at its end."""
    half = MAX_MESSAGE // 2
    return text if len(text) <= MAX_MESSAGE else f"{text[:half]}…{text[-half:]}"
