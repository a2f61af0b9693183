"""Answers checked against JSON schemas."""

import sys

import msgspec
import pytest

import trio_minillm as llm
from trio_minillm._batch.validation import MAX_MESSAGE, check_schema
from trio_minillm._types.schemas import ANY_IN_OBJECT
from trio_minillm.batch import BatchRequest, BatchResult, validate_schema

pytest.importorskip("jsonschema", reason="needs the extra [schemas]")

CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer", "minimum": 1}},
    "required": ["name"],
}


def result(schema, content, **more):
    wanted = llm.JSONSchema(schema=schema) if isinstance(schema, dict) else schema
    request = BatchRequest("k", "x", params={} if wanted is None else {"response_format": wanted})
    response = llm.CompletionResponse(choices=(llm.Choice(content=content),), **more)
    return BatchResult(request=request, index=0, response=response)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"name": "Paris", "people": 2}', None),
        ('{"name": "Paris", "more": 1}', None),
        ('```json\n{"name": "Paris"}\n```', None),
        ("{}", "'name' is a required property"),
        ('{"name": "Paris", "people": 0}', "0 is less than the minimum of 1 - at `$.people`"),
        ("[]", "[] is not of type 'object'"),
        ("Paris", "JSON is malformed: invalid character (byte 0)"),
        ("", "the answer is empty"),
        ('{"name": ' + "[" * 10_000 + "]" * 10_000 + "}", "it is nested too deeply"),
    ],
    ids=range(9),
)
def test_an_answer_matches_its_schema_or_says_where_not(content, words):
    if words is None:
        validate_schema(result(CITY, content))
        return
    with pytest.raises(msgspec.DecodeError) as caught:
        validate_schema(result(CITY, content))
    assert str(caught.value) == words
    assert isinstance(caught.value, llm.InvalidAnswer)
    assert caught.value.text == content


def test_a_mismatch_has_its_place():
    with pytest.raises(llm.MismatchedAnswer) as caught:
        validate_schema(result(CITY, '{"name": "Paris", "people": 0}'))
    assert caught.value.path == "$.people"


def test_a_long_value_is_not_quoted_whole():
    with pytest.raises(msgspec.ValidationError) as caught:
        validate_schema(result(CITY, msgspec.json.encode({"name": ["x" * 10_000]}).decode()))
    assert len(str(caught.value)) < MAX_MESSAGE + 50
    assert "is not of type 'string' - at `$.name`" in str(caught.value)


def test_definitions_and_drafts():
    words = "'x' is not of type 'integer' - at `$.a`"
    whole = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for schema in (
        {"$ref": "#/$defs/w", "$defs": {"w": whole}},
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "$ref": "#/definitions/w",
            "definitions": {"w": whole},
        },
        {"$id": "http://test.invalid/s", **whole},
    ):
        check_schema(result(schema, "").request)
        with pytest.raises(msgspec.ValidationError) as caught:
            validate_schema(result(schema, '{"a": "x"}'))
        assert str(caught.value) == words


def test_an_answer_that_is_no_object_is_taken_out_of_one():
    schema = {"type": "array", "items": {"type": "integer"}}
    for whole in "[1, 2]", '{"answer": [1, 2]}':
        validate_schema(result(schema, whole, response_type=ANY_IN_OBJECT))
    with pytest.raises(msgspec.ValidationError, match="is not of type 'integer'"):
        validate_schema(result(schema, '{"answer": ["x"]}', response_type=ANY_IN_OBJECT))


def test_other_formats():
    validate_schema(result("text", "words"))
    validate_schema(result(None, "words"))
    validate_schema(result("json", "[1]"))
    with pytest.raises(msgspec.DecodeError):
        validate_schema(result("json", "words"))
    typed = BatchRequest("k", "x", params={"response_format": dict[str, int]})
    answer = llm.CompletionResponse(choices=(llm.Choice(content="words"),))
    validate_schema(BatchResult(request=typed, index=0, response=answer))
    validate_schema(BatchResult(request=typed, index=0, error=llm.SendError("no")))


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "text"}, "response_format is not a JSON schema: 'text' is not valid"),
        (
            {"$ref": "http://test.invalid/s"},
            "refers to 'http://test.invalid/s', which is not in it",
        ),
        ({"$ref": "#/$defs/x", "$defs": {}}, "refers to '#/$defs/x', which is not in it"),
    ],
)
def test_a_schema_that_is_none_is_told_before_anything_is_sent(schema, words):
    asked = result(schema, "{}")
    with pytest.raises(ValueError) as caught:
        check_schema(asked.request)
    assert words in str(caught.value)
    with pytest.raises(TypeError) as bug:
        validate_schema(asked)
    assert words in str(bug.value)


def test_nothing_is_fetched_for_a_reference_that_only_an_answer_reaches():
    schema = {
        "$id": "http://test.invalid/a",
        "properties": {"a": {"$dynamicRef": "http://test.invalid/b"}},
    }
    check_schema(result(schema, "").request)
    with pytest.raises(msgspec.ValidationError, match="refers to something outside itself"):
        validate_schema(result(schema, '{"a": 1}'))


def test_without_the_package_it_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(ImportError, match=r"pip install 'trio-minillm\[schemas\]'"):
        check_schema(result({"type": "object", "title": "another"}, "{}").request)
