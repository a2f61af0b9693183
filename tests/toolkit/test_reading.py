"""What stands around the JSON of an answer is passed over, as `read_answer` does with the whole."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._toolkit.values.dressing import MAX_LEAD_IN, Dressing
from trio_minillm._toolkit.values.reading import Reading
from trio_minillm._toolkit.values.shapes import FieldShape
from trio_minillm._types.schemas import read_answer, undressed

from ..support.json_texts import OBJECTS, almost, cut, texts_of


class Text:
    """A text that came in these pieces."""

    base, restarted = 0, None

    def __init__(self, text):
        self.text = text

    def whole(self):
        return self.text

    def final(self):
        return undressed(self.text.strip())

    def rest(self):
        return ""


def read(pieces, types=None, **options):
    """The fields that came while the text did, all of them, and the error."""
    reading = Reading(lambda: FieldShape(types or {}, **options))
    early = [field for piece in pieces for field in reading.feed(piece)]
    return early, early + reading.finish(Text("".join(pieces))), reading.broken


def values(fields):
    return {field.name: field.value for field in fields if field.done}


DRESSED = {
    "as it is": "%s",
    "thoughts": '<think>say {"a": 1} or ```json {} ```?</think>\n%s',
    "thinking": "<thinking>\n</thinking>%s\n",
    "thoughts twice": "<think>a</think><think>{}</think>%s",
    "fence": "```json\n%s\n```",
    "fence without a name": "\n```\n%s\n```\n",
    "thoughts and a fence": "<think>hm</think>\n\n```json\n%s\n```\nDone.",
    "words": "Here is what you asked for: %s I hope it helps.",
    "words and a fence": "Sure!\n```json\n%s\n```\nAnything else?",
    "sources": "As they say [1], [2, 3] and others: %s [4]",
    "byte-order mark": "\ufeff%s",
    "no opening mark": "Let me think.</think>%s",
    "drafts without an opening mark": "word " * 60 + '{"a": 1} and [2] </think>%s',
}
"""Around all of these, the JSON is read while it arrives."""
LATER = {
    "long words": "word " * 60 + "%s",
    "a broken draft": 'I say {"a: 1} or so </think> %s',
}


@pytest.mark.parametrize("dressing", [*DRESSED.values(), *LATER.values()], ids=[*DRESSED, *LATER])
@given(made=texts_of(OBJECTS), data=st.data())
def test_the_fields_are_those_of_the_whole_answer(dressing, made, data):
    value, text = made
    if "</think" in text or "```" in text:
        return
    whole = dressing % text
    _, fields, broken = read(data.draw(cut(whole)))
    try:
        wanted = read_answer(whole.strip(), dict, None)
    except msgspec.DecodeError:  # two values, or words that look like one
        assert broken is not None or not value
        return
    assert wanted == value or dressing != "%s"
    assert broken is None
    assert values(fields) == wanted


@pytest.mark.parametrize("dressing", DRESSED.values(), ids=DRESSED)
def test_they_come_while_the_text_does(dressing):
    whole = dressing % '{"text": "one two", "n": 1}'
    early, fields, broken = read(list(whole))
    assert broken is None
    assert values(fields) == {"text": "one two", "n": 1}
    assert fields == early
    assert "".join(field.delta for field in early if field.name == "text") == "one two"
    assert len(early) > 7


@pytest.mark.parametrize("dressing", LATER.values(), ids=LATER)
def test_where_the_beginning_can_not_be_told_they_come_in_the_end(dressing):
    early, fields, broken = read(list(dressing % '{"text": "one two"}'))
    assert (early, broken) == ([], None)
    assert values(fields) == {"text": "one two"}


def test_a_draft_that_was_handed_out_is_said_to_be_another():
    early, _, broken = read(list('So: {"a": "draft"} </think> {"a": "final"}'))
    assert values(early) == {"a": "draft"}
    assert isinstance(broken, llm.BrokenJSON)
    assert "draft" not in str(broken)


def test_two_values_are_one_too_many():
    early, _, broken = read(['{"a": 1} and {"b": 2}'])
    assert values(early) == {"a": 1}
    assert isinstance(broken, llm.BrokenJSON)


@given(almost(OBJECTS), st.data())
def test_a_broken_answer_gives_the_same_however_it_is_cut(text, data):
    pieces = data.draw(cut(text))
    one, other = read([text]), read(pieces)
    assert values(one[1]) == values(other[1])
    assert said(one[1]) == said(other[1])
    assert [(type(b), str(b), b and b.path) for _, _, b in (one,)] == [
        (type(b), str(b), b and b.path) for _, _, b in (other,)
    ]
    try:
        wanted = read_answer(text.strip(), dict, None)
    except msgspec.DecodeError:
        assert isinstance(one[2], llm.BrokenJSON)
    else:
        assert values(one[1]) == wanted or one[2] is not None


def said(fields):
    texts = {}
    for field in fields:
        texts[field.name] = texts.get(field.name, "") + field.delta
    return texts


@pytest.mark.parametrize(
    ("text", "kind", "position", "path"),
    [
        ('{"a": "x", "b": {"c": [1, {"d": tru}]}}', llm.BrokenJSON, 32, "$.b.c[1].d"),
        ('{"a": "x", "b": [1, 2', llm.CutJSON, 21, "$.b[1]"),
        ('{"a": "x", "n": "y"}', llm.UnexpectedValue, 16, "$.n"),
        ("[1]", llm.UnexpectedValue, 0, "$"),
        ('"x"', llm.UnexpectedValue, 0, "$"),
        ("Well, no.", llm.BrokenJSON, 0, "$"),
        ('Here: {"a": "x", "n": "y"}', llm.UnexpectedValue, 22, "$.n"),
    ],
)
def test_errors_say_where(text, kind, position, path):
    for pieces in ([text], list(text)):
        _, _, error = read(pieces, {"n": int})
        assert type(error) is kind
        assert (error.position, error.path) == (position, path)
        assert isinstance(error, msgspec.DecodeError)
        assert f"(character {position})" in str(error)


def test_a_message_has_no_name_but_those_of_the_type():
    _, _, error = read(['{"secret": {"b": [x'], {"n": int})
    assert "secret" not in str(error)
    assert error.path == "$.secret.b[0]"
    assert "$.n" in str(read(['{"n": "word"}'], {"n": int})[2])


# -- answers that are asked for in an object ------------------------------------------------------

ANSWERS = [
    ('{"answer": [1, 2]}', [1, 2]),
    ("[1, 2]", [1, 2]),
    ('{"answer": "x"}', "x"),
    ('"x"', "x"),
    ("12", 12),
    ('{"a": 1}', {"a": 1}),
    ("{}", {}),
    ('{"answer": {"json_text": "[1]"}}', [1]),
    ("null", None),
]


@pytest.mark.parametrize(("text", "value"), ANSWERS)
@pytest.mark.parametrize("dressing", ["%s", "```json\n%s\n```", "<think>no</think> %s"])
def test_an_answer_in_an_object_or_without(text, value, dressing):
    whole = dressing % text
    for pieces in ([whole], list(whole)):
        _, fields, broken = read(pieces, wrapped=True)
        assert broken is None
        assert values(fields) == {"answer": value}
        if "json_text" not in text:
            joined = "".join(field.delta for field in fields)
            assert (joined if isinstance(value, str) else json.loads(joined)) == value


@pytest.mark.parametrize("text", ['{"answer": 1, "b": 2}', "[1", '{"answer": [1', '{"answ', ""])
def test_an_answer_that_is_none(text):
    for pieces in ([text], list(text)):
        assert isinstance(read(pieces, wrapped=True)[2], llm.BrokenJSON)


def test_an_object_that_comes_as_text():
    text = json.dumps({"json_text": json.dumps({"a": 'é"', "b": [1]})})
    for pieces in ([text], list(text)):
        early, fields, broken = read(pieces)
        assert broken is None
        assert values(early) == values(fields) == {"a": 'é"', "b": [1]}
    assert values(read([text], {"json_text": str})[1]) == json.loads(text)
    for broken_text in ('{"json_text": "{x"}', '{"json_text": "[1]"}', '{"json_text": "{"}'):
        assert isinstance(read([broken_text])[2], llm.BrokenJSON)


# -- the beginning --------------------------------------------------------------------------------


def test_so_many_words_are_passed_over():
    for size, begun in ((MAX_LEAD_IN, True), (MAX_LEAD_IN + 1, False)):
        dressing = Dressing()
        text = "w" * size + '{"a": 1}'
        assert dressing.feed(text) == ('{"a": 1}' if begun else "")
        assert dressing.begun == begun


@given(st.text(st.sampled_from('<>/think`json{}[]"1 '), max_size=40), st.data())
def test_the_beginning_is_found_at_one_place(text, data):
    found = []
    for pieces in ([text], list(text), data.draw(cut(text))):
        dressing = Dressing()
        found.append(("".join(map(dressing.feed, pieces)), dressing.start, dressing.begun))
    assert len(set(found)) == 1
    rest, start, begun = found[0]
    assert not begun or text[start:] == rest
