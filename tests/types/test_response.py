"""The value of an answer, and the errors of one that has none."""

import msgspec
import pytest

import trio_minillm as llm


class City(msgspec.Struct):
    name: str


def answer(text, type=None):
    return llm.CompletionResponse(choices=(llm.Choice(content=text),), response_type=type)


def test_a_value_is_decoded_once():
    made = answer('{"name": "Paris"}', City)
    assert made.value == City("Paris")
    assert made.value is made.value
    assert made == answer('{"name": "Paris"}', City)  # it is no field
    assert answer('{"a": [1]}').value == {"a": [1]}


def test_what_is_no_value():
    for text, kind, path in (
        ('{"name": 1}', llm.MismatchedAnswer, "$.name"),
        ("nothing", llm.InvalidAnswer, None),
        ('"\ud800"', llm.InvalidAnswer, None),
    ):
        with pytest.raises(kind) as caught:
            assert answer(text, City).value
        assert (caught.value.path, caught.value.text) == (path, text)
        assert caught.value.response == caught.value.partial == answer(text, City)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no", "is not JSON"),
        ('{"name": "P', "was cut before"),
        ("", "is empty"),
        ('"no', "was cut"),
    ],
)
def test_why_an_answer_is_no_json(text, words):
    with pytest.raises(llm.InvalidAnswer, match=words):
        assert answer(text, City).value


def test_the_text_has_one_name():
    made = answer("Hi")
    assert made.text == made.content == made.choices[0].text == "Hi"
