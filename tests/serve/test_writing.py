"""Streams that are written piece by piece are those that the builders make, on each wire format."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from trio_minillm._protocol.decoder import ChunkDecoder
from trio_minillm._serve.forms import MAX_FORMS, Form, Forms, Kind, Length, framed, unframed
from trio_minillm._serve.options import WIRES, Wire
from trio_minillm._serve.programs import PROVIDERS
from trio_minillm._serve.words import PERIOD, text_of
from trio_minillm._serve.writing import Writer, body
from trio_minillm.testing import decode

ID = "000000000042"
each_wire = pytest.mark.parametrize("wire", WIRES)


def kind(wire: Wire, length: Length, **more: Any) -> Kind:
    fields: dict[str, Any] = {"finish": "stop", "usage": True, "running": False, **more}
    thinks, speaks = length.reasoning > 0, length.text > 0
    return Kind(wire=wire, model="m-1", thinks=thinks, speaks=speaks, **fields)


def written(made: Kind, length: Length, per_chunk: int = 1, **more: Any) -> list[tuple[bytes, int]]:
    return [*Writer(Form(made, unframed), ID, length).contents(per_chunk, **more)]


@each_wire
@pytest.mark.parametrize("per_chunk", [1, 4, 7])
@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("thought", [0, 1, 9])
@pytest.mark.parametrize("text", [1, 4, 2 * PERIOD + 3])
def test_the_answer_is_whole_and_counted(
    wire: Wire, per_chunk: int, running: bool, thought: int, text: int
) -> None:
    thought = 0 if wire == "text" else thought
    length = Length(prompt=11, reasoning=thought, text=text)
    pieces = written(kind(wire, length, running=running), length, per_chunk)
    response, error = decode(PROVIDERS[wire](), [data for data, _ in pieces])
    assert error is None
    assert response.text == text_of(0, text)
    assert response.reasoning == text_of(0, thought)
    assert response.finish_reason in ("stop", "end_turn", "completed", "STOP")
    assert response.notes == ()
    assert response.usage is not None
    assert (response.usage.prompt_tokens, response.usage.completion_tokens) == (11, thought + text)
    assert response.usage.reasoning_tokens == (thought or None)
    assert (response.id or "").endswith(ID)
    assert response.model == "m-1"
    assert [n for _, n in pieces] == [
        min(per_chunk, total - first)
        for total in (thought, text)
        for first in range(0, total, per_chunk)
    ]


@each_wire
def test_an_answer_may_be_all_reasoning(wire: Wire) -> None:
    if wire == "text":
        return
    length = Length(prompt=1, reasoning=5, text=0)
    pieces = written(kind(wire, length, finish="length"), length, 2)
    response, error = decode(PROVIDERS[wire](), [data for data, _ in pieces])
    assert error is None
    assert (response.text, response.reasoning) == ("", text_of(0, 5))
    assert [n for _, n in pieces] == [2, 2, 1]


@each_wire
def test_each_piece_has_one_content(wire: Wire) -> None:
    """So that a client's chunks are the server's."""
    length = Length(prompt=1, reasoning=0 if wire == "text" else 7, text=30)
    decoder = ChunkDecoder(PROVIDERS[wire]())
    for data, _ in written(kind(wire, length), length, 3):
        contents = [c for c in decoder.feed(data, 0.0) if c.delta or c.reasoning]
        assert len(contents) == 1


@each_wire
def test_the_opening_can_come_by_itself(wire: Wire) -> None:
    length = Length(prompt=1, reasoning=0, text=3)
    made = kind(wire, length)
    alone, plain = written(made, length, opening=True), written(made, length)
    assert alone[0][1] == 0
    assert [n for _, n in alone[1:]] == [n for _, n in plain] == [1, 1, 1]
    joined = [b"".join(data for data, _ in pieces) for pieces in (alone, plain)]
    assert joined[0] == joined[1]


@each_wire
def test_numbers_of_events_rise_by_one(wire: Wire) -> None:
    length = Length(prompt=1, reasoning=0 if wire == "text" else 3, text=60)
    data = b"".join(data for data, _ in written(kind(wire, length), length))
    numbers = [int(n) for n in re.findall(rb'"sequence_number":(\d+)', data)]
    assert numbers == list(range(len(numbers)))
    assert (len(numbers) > 0) == (wire == "responses")


@each_wire
def test_running_usage_counts_up(wire: Wire) -> None:
    length = Length(prompt=5, reasoning=0, text=4)
    data = b"".join(d for d, _ in written(kind(wire, length, running=True), length, 2))
    counts = re.findall(rb'"(?:completion_tokens|candidatesTokenCount)":(\d+)', data)
    expected = {"openai": [2, 4, 4], "text": [2, 4, 4], "gemini": [2, 4, 4]}
    assert [int(n) for n in counts] == expected.get(wire, [])


@each_wire
def test_without_usage_there_is_none(wire: Wire) -> None:
    length = Length(prompt=5, reasoning=0, text=4)
    made = kind(wire, length, usage=False)
    data = b"".join(d for d, _ in written(made, length))
    assert not re.search(rb'(?:_tokens|TokenCount)":\d', data)
    assert not re.search(rb'(?:_tokens|TokenCount)":\d', body(made, ID, length))


@each_wire
def test_no_mark_is_left(wire: Wire) -> None:
    for thought in (0, 3):
        length = Length(prompt=5, reasoning=thought if wire != "text" else 0, text=4)
        data = b"".join(d for d, _ in written(kind(wire, length, running=True), length))
        assert "\ue000".encode() not in data
        assert not re.search(rb"9[0-9]0{5,}\d", data)


def test_frames_hold_what_is_in_them() -> None:
    length = Length(prompt=5, reasoning=0, text=120)
    made = kind("openai", length)
    whole = b"".join(d for d, _ in Writer(Form(made, framed), ID, length).contents(1, end=b"END"))
    found, rest = [], whole
    while not rest.startswith(b"END"):
        size, _, rest = rest.partition(b"\r\n")
        found.append(rest[: int(size, 16)])
        assert rest[int(size, 16) :].startswith(b"\r\n")
        rest = rest[int(size, 16) + 2 :]
    assert b"".join(found) == b"".join(d for d, _ in written(made, length))


def test_forms_are_kept_and_bounded() -> None:
    forms, length = Forms(), Length(1, 0, 1)
    first = kind("openai", length)
    assert forms.get(first, frame=True) is forms.get(first, frame=True)
    assert forms.get(first, frame=True) is not forms.get(first, frame=False)
    for number in range(MAX_FORMS + 1):
        forms.get(msgspec.structs.replace(first, model=f"m-{number}"), frame=True)
        assert len(forms._forms) <= MAX_FORMS


@each_wire
def test_a_whole_answer_says_the_same(wire: Wire) -> None:
    length = Length(prompt=5, reasoning=0 if wire == "text" else 2, text=4)
    made = kind(wire, length, finish="length")
    response, error = decode(PROVIDERS[wire](), [body(made, ID, length)])
    assert error is None
    assert response.text == text_of(0, 4)
    assert response.usage is not None
    assert response.usage.completion_tokens == length.made
    assert response.model == "m-1"
