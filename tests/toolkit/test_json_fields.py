"""The reader of members: any JSON, cut anywhere, character by character as strict as msgspec."""

import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_minillm._toolkit.values.json_fields import ENDED, MemberReader

from ..support.json_texts import almost, cut, texts_of


def read(pieces, **options):
    """The reader behind these pieces, the text of each member, and those that are done."""
    reader = MemberReader(**options)
    texts, done = {}, {}
    for found in [*map(reader.feed, pieces), reader.finish()]:
        assert len({piece.key for piece in found}) == len(found)  # one for each
        for piece in found:
            texts[piece.key] = texts.get(piece.key, "") + piece.text
            if piece.done:
                done[piece.key] = piece
    return reader, texts, done


def members(value):
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else {None: value}


@given(texts_of(), st.data())
def test_the_pieces_joined_are_the_members(made, data):
    value, text = made
    reader, texts, done = read(data.draw(cut(text)))
    assert reader.over
    assert not reader.broken
    assert done.keys() == members(value).keys()
    for key, member in members(value).items():
        assert done[key].is_text == isinstance(member, str)
        assert (texts[key] if isinstance(member, str) else json.loads(texts[key])) == member


@given(almost(), st.data())
def test_it_is_as_strict_as_msgspec_and_breaks_at_one_place(text, data):
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
        good = True
    except msgspec.DecodeError:
        good = False
    found = [read(pieces) for pieces in ([text], list(text), data.draw(cut(text)))]
    reader = found[0][0]
    rest = text[reader.at :].strip(" \t\n\r")
    assert (reader.over and not reader.broken and not rest) == good
    assert len({(r.over, r.broken, r.at, str(t), str(d.keys())) for r, t, d in found}) == 1


@given(texts_of(), st.data())
def test_what_comes_of_a_beginning_is_the_beginning_of_what_comes(made, data):
    _, text = made
    begun = text[: data.draw(st.integers(0, len(text)))]
    _, some, done = read(data.draw(cut(begun)))
    _, texts, all_done = read([text])
    assert all(texts[key].startswith(said) for key, said in some.items())
    for key in done.keys() - {None}:  # the end of a number at the root is the text's
        assert (some[key], done[key].at) == (texts[key], all_done[key].at)


@pytest.mark.parametrize(
    ("text", "why", "at"),
    [
        ('{"a": 1,}', "a name is missing", 8),
        ('{"a": [1,]}', "a value is missing", 9),
        ('{"a" 1}', "no colon after a name", 5),
        ('{"a": 1 "b"', "no comma after a value", 8),
        ('{"a": 01}', "an invalid number", 6),
        ('{"a": "b\nc"}', "a control character in a string", 8),
        ('{"a": "b\\x"}', "an invalid escape", 8),
        (r'{"a": "\ud83d\u0041"}', "an invalid escape", 7),
        (r'{"a": "\ude00"}', "an invalid escape", 7),
        ('{"a": nul}', "a value is missing", 6),
        ('{"a": 1', ENDED, 7),
        ('{"a": "x\\', ENDED, 8),
        ("{]", "a name is missing", 1),
        ('["a"}', "no comma after a value", 4),
    ],
)
def test_where_it_breaks(text, why, at):
    for pieces in ([text], list(text)):
        reader, _, _ = read(pieces)
        assert (reader.broken, reader.at) == (why, at)


def test_an_escape_cut_anywhere():
    text = r'{"a": "x\ud83d\ude00\u00e9\n"}'
    for at in range(len(text)):
        _, texts, _ = read([text[:at], text[at:]])
        assert texts == {"a": "x😀é\n"}
    reader = MemberReader()
    assert [piece.text for piece in reader.feed(text[:19])] == ["x"]
    assert [piece.text for piece in reader.feed(text[19:])] == ["😀é\n"]


def test_control_characters_are_taken_where_they_may_be():
    text = '{"a": "x\ny", "b": ["\t", 1], "c": "z"}'
    for pieces in ([text], list(text)):
        reader, texts, done = read(pieces, loose=True)
        assert reader.over
        assert texts == {"a": "x\ny", "b": '["\t", 1]', "c": "z"}
        assert {key: piece.mended for key, piece in done.items()} == {
            "a": True,
            "b": True,
            "c": False,
        }


def test_a_name_that_comes_twice_is_given_twice():
    reader = MemberReader()
    found = reader.feed('{"a": 1, "a": "x"}')
    assert [(piece.key, piece.text) for piece in found] == [("a", "1"), ("a", "x")]


SHAPES = {
    "a long text": lambda n: '{"a": "' + r"word \n " * n + '"}',
    "a long list": lambda n: '{"a": [' + '{"x": 1.5, "y": ["z"]},' * n + "1]}",
    "many fields": lambda n: "{" + "".join(f'"k{i}": {i},' for i in range(n // 2)) + '"z": 1}',
    "deep": lambda n: '{"a": ' + "[" * n + "]" * n + "}",
    "a long number": lambda n: '{"a": ' + "1" * 8 * n + "}",
    "a long name": lambda n: '{"' + "k" * 8 * n + '": 1}',
    "no end of brackets": lambda n: '{"a": ' + "[1, [" * n,
}


@pytest.mark.parametrize("size", [3, 40, 10**9])
@pytest.mark.parametrize("shape", SHAPES)
def test_time_is_in_proportion_to_the_text(shape, size):
    """Four times the text takes four times the time, not sixteen; the bound allows for noise."""

    def seconds(n):
        text = SHAPES[shape](n)
        pieces = [text[i : i + size] for i in range(0, len(text), size)]
        best = []
        for _ in range(3):
            reader, begun = MemberReader(), time.process_time()
            for piece in pieces:
                reader.feed(piece)
            best.append(time.process_time() - begun)
        return min(best)

    seconds(100)
    assert seconds(16_000) < 10 * max(seconds(4_000), 0.001)
