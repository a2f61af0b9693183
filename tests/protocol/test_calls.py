"""Tool calls: which call a piece belongs to, what its arguments are, and what can be run."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm import Block, StreamChunk, ToolCallDelta
from trio_minillm._protocol.arguments import (
    MAX_CHECKED,
    MAX_MENDED,
    MAX_STARTS,
    is_object,
    same_json,
)
from trio_minillm._protocol.calls import COLUMNS, ROWS, CallBuilder, Calls, Verdict, verdict_of
from trio_minillm._protocol.ingest import Ingest
from trio_minillm._protocol.reasons import CUT_REASONS, ENDED_REASONS, FILTERED_REASONS

CELLS = tuple(product(*COLUMNS))
D = ToolCallDelta
X, Y = '{"x":1}', '{"y":2}'


def answer(*deltas: D, reason: str | None = "tool_calls", lists: Sequence[Sequence[D]] = ()):
    """A finished answer made of the pieces of calls: one a chunk, or in ``lists``."""
    made = Ingest(model="m", expect_usage=False)
    for pieces in lists or [[d] for d in deltas]:
        made.ingest(StreamChunk(tool_calls=tuple(pieces)))
    if reason is not None:
        made.ingest(StreamChunk.finished(reason))
    made.ingest(StreamChunk(end=True, progress=False))
    response = made.response()
    assert response.outcome is llm.Outcome.FINISHED
    return response


def runs(response: llm.CompletionResponse) -> list[tuple[str, str]]:
    return [(c.name, c.arguments) for c in response.tool_calls]


def invalid(response: llm.CompletionResponse) -> list[tuple[str, str]]:
    return [(c.name, c.arguments) for c in response.invalid_tool_calls]


# -- the table -------------------------------------------------------------------------------------

SO_FAR = {"empty": "", "open": '{"x":', "whole": X}
PIECE = {"empty": "", "begins": '{"y":', "continues": "1}"}


def made(cell: tuple[str, str, str, str, str]) -> tuple[D, D]:
    """The first piece of a call, and one that is to it as a cell says."""
    ident, index, name, so_far, piece = cell
    first = D(
        index=0,
        id=None if ident == "none" else "a",
        name=None if name == "late" else "f",
        arguments=SO_FAR[so_far],
    )
    second = D(
        index={"same": 0, "new": 1, "absent": None}[index],
        id={"same": "a", "new": "b", "absent": None, "none": None}[ident],
        name={"same": "f", "new": "g", "late": "f", "absent": None}[name],
        arguments=PIECE[piece],
    )
    return first, second


@pytest.mark.parametrize("cell", CELLS, ids=" ".join)
def test_every_cell_of_the_table_is_what_happens(cell):
    first, second = made(cell)
    calls = Calls()
    opened = calls.take(first)
    if opened is None:
        assert cell[0] == "none"
        assert cell[2] == "late"
        assert cell[3] == "empty"
        opened = CallBuilder()
        calls.all.append(opened)
        calls._add(opened, first)
    assert calls.found(second) is opened
    assert calls.verdict(opened, second) is verdict_of(*cell)
    name, before = opened.name, opened.joined()
    another = calls.take(second)
    if verdict_of(*cell) in (Verdict.OTHER, Verdict.DOUBT):
        assert opened.joined() == before
        if another is None:
            assert not second.id
            assert not second.name
            assert not second.arguments
        else:
            assert (another.id, another.joined()) == (second.id, second.arguments)
            assert (another.rival is opened) == (verdict_of(*cell) is Verdict.DOUBT)
    else:
        assert another is None
        assert opened.joined() == before + second.arguments
        joined = verdict_of(*cell) in (Verdict.NAME, Verdict.GUESS)
        assert opened.name == ("fg" if joined else name or second.name)
        assert opened.doubtful == (verdict_of(*cell) is Verdict.GUESS)


def test_every_row_of_the_table_decides_something():
    for number, row in enumerate(ROWS):
        fits = [
            c
            for c in CELLS
            if all(v in a.split() or a == "*" for v, a in zip(c, row, strict=False))
        ]
        earlier = ROWS[:number]
        assert any(
            not any(
                all(v in a.split() or a == "*" for v, a in zip(c, other, strict=False))
                for other in earlier
            )
            for c in fits
        ), row


def test_the_table_keeps_to_the_reference_where_a_server_does():
    """A new index opens a call if a name comes with it; without a name, nothing opens one there."""
    for cell in CELLS:
        ident, index, name, so_far, piece = cell
        if index == "same" and name == "absent":
            assert verdict_of(*cell) is Verdict.SAME
        if index == "new" and name == "new":
            assert verdict_of(*cell) is Verdict.OTHER
        if ident == "new" and name == "new":
            assert verdict_of(*cell) is Verdict.OTHER
        if so_far == "whole" and name == "new":
            assert verdict_of(*cell) is Verdict.OTHER
        if piece == "continues" and so_far == "open" and name in ("same", "absent"):
            assert verdict_of(*cell) is Verdict.SAME or (ident, index) == ("new", "new")


def test_an_id_that_comes_late_is_taken_as_none_so_far():
    calls = Calls()
    call = calls.take(D(0, None, "f", '{"x":'))
    assert calls.take(D(0, "a", "f", "1}")) is None
    assert (call.id, call.read()) == ("a", X)


# -- what servers send -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "deltas", "expected"),
    [
        (
            "the name with every piece, the id with the first",
            [D(0, "a", "f"), D(0, None, "f", '{"x":'), D(0, None, "f", "1}"), D(0, None, "f")],
            [("f", X)],
        ),
        (
            "the name with every piece, and no ids",
            [D(0, None, "f"), D(0, None, "f", '{"x":'), D(0, None, "f", "1}"), D(0, None, "f")],
            [("f", X)],
        ),
        (
            "the name with every piece, and nothing else",
            [D(None, None, "f"), D(None, None, "f", '{"x":'), D(None, None, "f", "1}")],
            [("f", X)],
        ),
        (
            "the name with every piece, under ids made up for each",
            [D(0, "a", "f", '{"x":'), D(0, "b", "f", "1"), D(0, "c", "f", "}")],
            [("f", X)],
        ),
        ("the name in pieces", [D(0, "a", "get_"), D(0, None, "time"), D(0, None, None, X)],
         [("get_time", X)]),
        ("the name in pieces, the id with each", [D(0, "a", "get_"), D(0, "a", "time", X)],
         [("get_time", X)]),
        ("all of the name so far with each piece", [D(0, "a", "get_"), D(0, None, "get_time", X)],
         [("get_time", X)]),
        ("the name in pieces while the arguments run",
         [D(0, "a", "get_", '{"x"'), D(0, None, "time", ":1}")], [("get_time", X)]),
        ("one id, two indexes", [D(0, "a", "f", X), D(1, "a", "g", Y)], [("f", X), ("g", Y)]),
        (
            "one id, two indexes, opened first",
            [D(0, "a", "f"), D(1, "a", "f"), D(0, "a", None, X), D(1, "a", None, Y)],
            [("f", X), ("f", Y)],
        ),
        ("one id, one index", [D(0, "a", "f", X), D(0, "a", "g", Y)], [("f", X), ("g", Y)]),
        ("one id, no index", [D(None, "a", "f", X), D(None, "a", "f", Y)], [("f", X), ("f", Y)]),
        ("one call under two indexes", [D(0, "a", "f"), D(1, "a", "f", X)], [("f", X)]),
        ("… and whole both times", [D(0, "a", "f", X), D(1, "a", "f", X)], [("f", X)]),
        ("… and a part of it first", [D(0, "a", "f", '{"x"'), D(1, "a", "f", X)], [("f", X)]),
        (
            "one index, right ids, interleaved",
            [D(0, "a", "f", '{"x":'), D(0, "b", "g", '{"y":'), D(0, "a", None, "1}"),
             D(0, "b", None, "2}")],
            [("f", X), ("g", Y)],
        ),
        ("one index, other ids, the same call twice", [D(0, "a", "f", X), D(0, "b", "f", X)],
         [("f", X), ("f", X)]),
        ("one index for calls without arguments", [D(0, "a", "f", "{}"), D(0, "b", "g", "{}")],
         [("f", "{}"), ("g", "{}")]),
        ("another id from the second piece on", [D(0, "a", "f"), D(0, "b", None, '{"x":'),
                                                 D(0, "b", None, "1}")], [("f", X)]),
        (
            "another index from the second piece on (Nebius, Cerebras)",
            [D(0, "a", "f"), D(1, None, None, '{"x":'), D(2, None, None, "1}"), D(3, "b", "g", Y)],
            [("f", X), ("g", Y)],
        ),
        ("no index behind the first piece (Databricks)",
         [D(0, "a", "f"), D(None, None, None, '{"x":'), D(None, "", "", "1}")], [("f", X)]),
        ("the arguments once more", [D(0, "a", "f", '{"x":'), D(0, None, None, "1}"),
                                     D(0, None, None, X)], [("f", X)]),
        ("… with other spaces", [D(0, "a", "f", '{"x":'), D(0, None, None, "1}"),
                                 D(0, None, None, '{ "x": 1 }')], [("f", '{ "x": 1 }')]),
        ("… twice", [D(0, "a", "f", X), D(0, "a", "f", X), D(0, "a", "f", X)], [("f", X)]),
        ("… in pieces", [D(0, "a", "f", X), D(0, None, None, '{"x"'), D(0, None, None, ":1}")],
         [("f", X)]),
        ("… with an object inside that begins a piece",
         [D(0, "a", "f", '{"o":'), D(0, None, None, '{"x":1}'), D(0, None, None, "}"),
          D(0, None, None, '{"o":{"x":1}}')], [("f", '{"o":{"x":1}}')]),
        ("all so far with every piece", [D(0, "a", "f", "{"), D(0, None, None, '{"x"'),
                                         D(0, None, None, X)], [("f", X)]),
        ("… and no ids", [D(0, None, "f", '{"x"'), D(0, None, "f", X), D(0, None, "f", '{"y"'),
                          D(0, None, "f", Y)], [("f", X), ("f", Y)]),
        ("a nested object that repeats what is around it",
         [D(0, "a", "f", '{"x":'), D(0, None, None, '{"x":1}'), D(0, None, None, "}")],
         [("f", '{"x":{"x":1}}')]),
        ("`{}` first", [D(0, "a", "f", "{}"), D(0, None, None, '{"x":'), D(0, None, None, "1}")],
         [("f", X)]),
        ("`{}` first, under made-up ids", [D(0, "a", "f", "{}"), D(0, "b", None, X)], [("f", X)]),
        ("`null` first", [D(0, "a", "f", "null"), D(0, None, None, X)], [("f", X)]),
        ("spaces first", [D(0, "a", "f", " "), D(0, None, None, X)], [("f", " " + X)]),
        ("nothing but spaces", [D(0, "a", "f", " \n")], [("f", " \n")]),
        ("pieces that say nothing", [D(0), D(0, "", ""), D(0, "a", "f", X), D(1), D(None)],
         [("f", X)]),
        ("the word `null` for the name that the later pieces don't have",
         [D(0, "a", "f", '{"x"'), D(0, "", "null", ":1"), D(0, None, "None", "}")], [("f", X)]),
        ("… before the arguments, without an index",
         [D(None, "a", "f"), D(None, None, "null", '{"x":'), D(None, None, "null", "1}")],
         [("f", X)]),
        ("a name behind the word `null`", [D(0, "a", "null"), D(0, None, "f", X)], [("f", X)]),
        ("one call behind the other, the pieces without a key",
         [D(None, "a", "f"), D(None, None, None, X), D(None, "b", "g", '{"y"'),
          D(None, None, None, ":2}")], [("f", X), ("g", Y)]),
        ("a name behind one of spaces", [D(0, "a", " "), D(0, None, "f", X)], [("f", X)]),
    ],
)  # fmt: skip
def test_what_servers_send_is_the_call_that_was_meant(why, deltas, expected):
    response = answer(*deltas)
    assert runs(response) == expected, why
    assert response.invalid_tool_calls == ()
    ids = [c.id for c in response.tool_calls]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("why", "deltas", "good"),
    [
        ("two objects that differ", [D(0, "a", "f", X), D(0, None, None, Y)], []),
        ("a cut object and another", [D(0, "a", "f", '{"z"'), D(0, None, None, Y)], []),
        ("no name", [D(0, "a", None, X)], []),
        ("a name of spaces", [D(0, "a", "  ", X)], []),
        ("no name, under another index: whose arguments are these?",
         [D(0, "a", "f"), D(1, "b", None, X)], []),
        ("nothing ties two names together", [D(None, None, "f"), D(None, None, "g", X)], []),
        ("`{}`, then the same name again, without ids", [D(0, None, "f", "{}"), D(0, None, "f", X)],
         [("f", X)]),
        ("empty, then the same name under another id", [D(0, "a", "f"), D(0, "b", "f", X)],
         [("f", X)]),
        ("whole, then empty under another id", [D(0, "a", "f", X), D(0, "b", "f")], [("f", X)]),
        ("no arguments, then the same id and name under another index, with some",
         [D(0, "a", "f", "null"), D(1, "a", "f", X)], [("f", X)]),
        ("two opened, and pieces without a key",
         [D(0, "a", "f"), D(0, "b", "g"), D(0, None, None, X), D(0, None, None, Y)], []),
        ("two begun, and the piece without a key may be either's",
         [D(None, "a", "f", '{"x":'), D(None, "b", "g", '{"y":'), D(None, None, None, "2}")], []),
        ("… under two indexes",
         [D(0, "a", "f", '{"x":'), D(1, "b", "g", '{"y":'), D(None, None, None, "2}")], []),
        ("a call takes pieces at the index at which another begins",
         [D(0, "a", "f"), D(1, None, None, X), D(1, "b", "g")], []),
    ],
)  # fmt: skip
def test_a_call_in_doubt_is_not_run(why, deltas, good):
    response = answer(*deltas)
    assert runs(response) == good, why
    assert response.invalid_tool_calls


def test_two_entries_of_one_list_are_two_calls():
    assert runs(answer(lists=[[D(None, None, "f", ""), D(None, None, "g", "")]])) == [
        ("f", ""),
        ("g", ""),
    ]
    assert runs(answer(lists=[[D(None, None, "f", X), D(None, None, "f", X)]])) == [("f", X)] * 2
    assert runs(answer(lists=[[D(0, "a", "f", '{"x":'), D(0, None, None, "1}")]])) == [("f", X)]
    assert runs(answer(lists=[[D(None, "a", "f", '{"x":'), D(None, "a", None, "1}")]])) == [
        ("f", X)
    ]


def test_free_text_of_a_custom_tool_is_never_taken_apart():
    text = [
        D(0, "a", "f", "{}", type="custom"),
        D(0, None, None, "{}", type="custom"),
        D(0, "b", "f", "{}", type="custom"),
        D(0, "c", "f", "no object", type="custom"),
    ]
    assert runs(answer(*text)) == [("f", "{}{}"), ("f", "{}"), ("f", "no object")]


# -- ids -------------------------------------------------------------------------------------------


def test_ids_of_one_answer_differ_and_the_servers_own_come_first():
    def ids(*given: str | None) -> list[str]:
        pieces = [D(n, ident, f"f{n}", X) for n, ident in enumerate(given)]
        return [c.id for c in answer(*pieces).tool_calls]

    assert ids("a", "a", "a") == ["a", "a-2", "a-3"]
    assert ids("a", "a", "a-2") == ["a", "a-3", "a-2"]
    assert ids(None, "call_0", None) == ["call_0-2", "call_0", "call_2"]
    assert ids(None, None) == ["call_0", "call_1"]


@given(st.lists(st.sampled_from([None, "a", "a-2", "call_0", "call_1", "call_0-2"]), max_size=8))
def test_ids_always_differ(given_ids):
    pieces = [D(n, ident, f"f{n}", X) for n, ident in enumerate(given_ids)]
    found = [c.id for c in answer(*pieces).tool_calls]
    assert len(set(found)) == len(given_ids)
    assert set(found) >= {i for i in given_ids if i}


# -- what the end of the answer says ---------------------------------------------------------------


@pytest.mark.parametrize("reason", sorted(CUT_REASONS | FILTERED_REASONS))
@pytest.mark.parametrize("arguments", ["", "{}", X])
def test_nothing_of_an_answer_that_was_cut_or_filtered_can_be_run(reason, arguments):
    for word in (reason, reason.upper(), reason.replace("_", "-")):
        response = answer(D(0, "a", "f", X), D(1, "b", "g", arguments), reason=word)
        assert response.tool_calls == ()
        assert len(response.invalid_tool_calls) == 2


@pytest.mark.parametrize(
    "reason",
    ["content_filter: SAFETY", "FinishReason.MAX_TOKENS", "FINISH_REASON_SAFETY", "maxTokens"],
)
def test_reasons_are_known_in_the_clothes_of_relays(reason):
    assert answer(D(0, "a", "f", X), reason=reason).tool_calls == ()


@pytest.mark.parametrize(
    "reason",
    [
        *(
            "context_length_exceeded",
            "max_new_tokens",
            "MAX_TOKENS_REACHED",
            "stop_length",
            "limit",
        ),
        *("output_truncated", "budget_exceeded", "blocked_by_filter", "content_policy_violation"),
        *("moderated", "content-moderation", "guardrail", "promptFiltered"),
        *("thinking_budget", "input_too_long", "toxicity", "COPYRIGHT", "sexual_content"),
        *("hate_speech", "not_allowed", "jailbreak_detected"),
    ],
)
def test_a_reason_that_nobody_knows_is_taken_at_its_words(reason):
    assert answer(D(0, "a", "f", X), reason=reason).tool_calls == ()


@pytest.mark.parametrize("reason", ["TOOL_CALLS", "tool-calls", "toolUse", "FinishReason.STOP"])
def test_so_are_those_of_whole_answers(reason):
    assert runs(answer(D(0, "a", "f"), reason=reason)) == [("f", "")]


def test_a_reason_that_cuts_counts_beside_another():
    made = Ingest(model="m", expect_usage=False)
    made.ingest(StreamChunk(tool_calls=(D(0, "a", "f", X),), finish_reason="content_filter"))
    made.ingest(StreamChunk.finished("stop"))
    made.ingest(StreamChunk(end=True, progress=False))
    assert made.response().tool_calls == ()


@pytest.mark.parametrize("reason", sorted(ENDED_REASONS))
@pytest.mark.parametrize("arguments", ["", "null", " "])
def test_a_call_without_arguments_is_run_if_the_model_ended_its_answer(reason, arguments):
    ((name, given),) = runs(answer(D(0, "a", "f", arguments), reason=reason))
    assert (name, given.strip()) == ("f", "")


@pytest.mark.parametrize("arguments", ["", "null"])
def test_a_call_without_arguments_is_not_run_if_no_reason_came(arguments):
    response = answer(D(0, "a", "f", arguments), D(1, "b", "g", "{}"), reason=None)
    assert runs(response) == [("g", "{}")]
    assert [c.name for c in response.invalid_tool_calls] == ["f"]


@pytest.mark.parametrize(
    "reason",
    [
        *("repetition", "repeat", "loop_detected", "partial", "cutoff", "out_of_tokens"),
        *("interrupted", "abnormal_stop", "incomplete_output", "stalled"),
    ],
)
def test_nothing_is_run_of_an_answer_that_broke_off(reason):
    assert answer(D(0, "a", "f", X), reason=reason).tool_calls == ()


# -- arguments that are not quite JSON -------------------------------------------------------------

MENDED = "choice 0: arguments of tool calls were almost JSON, with one meaning: repaired"


@pytest.mark.parametrize(
    ("pieces", "meant"),
    [
        (['{"a":"x\ny\t"}'], {"a": "x\ny\t"}),
        (['{"a":"x', "\n", 'y"}'], {"a": "x\ny"}),
        (['{\n "a\r": "\x00\x1f\\""\n}'], {"a\r": '\x00\x1f"'}),
        (['"{\\"a\\": 1}"'], {"a": 1}),
        (['"{\\"a', '\\": 1}', '"'], {"a": 1}),
        (["json", '\n{"a": 1}'], {"a": 1}),
        (["```json\n", '{"a": "```"}', "\n```"], {"a": "```"}),
        (["```", '{"a": "x\ny"}', "```"], {"a": "x\ny"}),
        (['{"a": 1}', "</tool_call>"], {"a": 1}),
        (['{"a": "}"}', "<|tool_call_end|>\n<｜tool▁calls▁end｜>"], {"a": "}"}),
        (["\ufeff", '{"a": 1}'], {"a": 1}),
    ],
)
def test_arguments_with_one_meaning_are_mended(pieces, meant):
    first, *others = pieces
    response = answer(D(0, "a", "f", first), *(D(0, None, None, p) for p in others))
    ((name, arguments),) = runs(response)
    assert (name, json.loads(arguments)) == ("f", meant)
    assert response.notes == (MENDED,)


@pytest.mark.parametrize(
    "text",
    [
        *(
            '{"a": 1} or so',
            '{"a": 1}</tool_call>{"a": 2}',
            'python\n{"a": 1}',
            "```json\n{```",
            "{}<b>",
        ),
        *('{"a": 1}</tool_call>{', "{" * 99 + "}" * 99 + "x", "json", "json {'a': 1}"),
        *(
            '"text"',
            '"[1]"',
            '"{"',
            '"{\\"a\\"',
            '{"a":"x\n',
            '{"a":\n',
            '"null"',
            '{"a":"\n}',
            "'{}'",
        ),
    ],
)
def test_others_are_not(text):
    response = answer(D(0, "a", "f", text))
    assert runs(response) == []
    assert response.invalid_tool_calls[0].arguments == text
    assert MENDED not in response.notes


@pytest.mark.parametrize("mark", ["\n", "\t", "\r"])
def test_a_line_end_behind_a_backslash_may_mean_two_things(mark):
    text = '{"command":"docker run \\' + mark + ' -v /a:/b"}'
    assert runs(answer(D(0, "a", "sh", text))) == []
    whole = '{"command":"a \\\\' + mark + ' b"}'  # this one is a backslash of its own
    ((_, arguments),) = runs(answer(D(0, "a", "sh", whole)))
    assert json.loads(arguments) == {"command": "a \\" + mark + " b"}


@pytest.mark.parametrize("tail", ["", "}", '\n"', "\\"])
def test_a_long_call_that_was_cut_is_read_in_one_pass(tail):
    text = '{"content":"' + '<a href=\\"x\\">\n' * 20_000 + tail
    response = answer(D(0, "a", "write", text), reason="length")
    assert response.invalid_tool_calls[0].arguments == text


@pytest.mark.parametrize("filling", [" ", "} ", "}" + " " * 500, "<|a|>", "}```"])
def test_long_ones_with_marks_are_looked_through_in_one_pass(filling):
    text = "{}" + filling * (200_000 // len(filling)) + "x"
    assert runs(answer(D(0, "a", "f", text))) == []


def test_very_long_ones_are_left_as_they_are():
    text = '{"a":"\n' + "x" * MAX_MENDED + '"}'
    assert runs(answer(D(0, "a", "f", text))) == []


def test_a_call_of_which_nothing_but_an_id_came_is_none():
    response = answer(D(0, "a", "f", X), D(1, "b", "", ""))
    assert (runs(response), response.invalid_tool_calls) == ([("f", X)], ())
    cut = Ingest(model="m", expect_usage=False)
    cut.ingest(StreamChunk(tool_calls=(D(0, "a"),)))
    assert [c.id for c in cut.response().invalid_tool_calls] == ["a"]


def test_a_call_without_arguments_is_not_run_under_a_reason_that_nobody_knows():
    assert runs(answer(D(0, "a", "f"), D(1, "b", "g", "{}"), reason="tired")) == [("g", "{}")]


@pytest.mark.parametrize("reason", ["tool_calls", "tool_use", "function_call"])
def test_a_reason_that_promises_a_call_is_noted_if_none_came(reason):
    assert answer(reason=reason).notes == (f"choice 0: finish reason '{reason}', but no tool call",)
    assert answer(D(0, "a", None, X), reason=reason).notes == ()


def test_arguments_that_came_twice_are_noted():
    note = "choice 0: tool calls or their arguments were repeated: counted once"
    assert answer(D(0, "a", "f", X), D(0, None, None, X)).notes == (note,)
    assert answer(D(0, "a", "f", X), D(1, "a", "f", X)).notes == (note,)
    assert answer(D(0, "a", "f", "{}"), D(0, None, None, X)).notes == ()


def ended_by(pieces: Sequence[D], last: Sequence[D]) -> llm.CompletionResponse:
    """An answer whose last calls come beside the finish reason."""
    made = Ingest(model="m", expect_usage=False)
    for piece in pieces:
        made.ingest(StreamChunk(tool_calls=(piece,)))
    made.ingest(StreamChunk(tool_calls=tuple(last), finish_reason="tool_calls"))
    made.ingest(StreamChunk(end=True, progress=False))
    return made.response()


@pytest.mark.parametrize("index", [None, 0])
@pytest.mark.parametrize("spaced", [X, '{ "x": 1 }'])
def test_all_calls_once_more_beside_the_finish_reason_count_once(index, spaced):
    pieces = [D(index, None, "f", '{"x":'), D(index, None, None, "1}"), D(index, None, "g", Y)]
    for ids in ((None, None), ("a", "b")):
        response = ended_by(pieces, [D(0, ids[0], "f", spaced), D(1, ids[1], "g", Y)])
        assert runs(response) == [("f", X), ("g", Y)]
        assert response.invalid_tool_calls == ()
        assert any("counted once" in note for note in response.notes)


@pytest.mark.parametrize(
    "last",
    [
        [D(None, "c", "f", X), D(None, "d", "g", Y)],  # other ids: other calls
        [D(None, None, "f", X), D(None, None, "h", Y)],
        [D(None, None, "f", Y), D(None, None, "g", X)],
    ],
)
def test_other_calls_beside_the_finish_reason_are_calls(last):
    response = ended_by([D(None, "a", "f", X), D(None, "b", "g", Y)], last)
    assert runs(response) == [("f", X), ("g", Y), *((d.name, d.arguments) for d in last)]


# -- content blocks --------------------------------------------------------------------------------


def test_input_in_the_start_of_a_block_and_in_its_deltas_counts_once():
    def block(start: str, *pieces: str) -> list[tuple[str, str]]:
        opened = StreamChunk(part=0, block=Block(start={"type": "tool_use"}))
        opened.tool_calls = (D(0, "a", "f", start),)
        made = Ingest(model="m", expect_usage=False)
        made.ingest(opened)
        for text in pieces:
            made.ingest(StreamChunk(part=0, tool_calls=(D(0, arguments=text),)))
        made.ingest(StreamChunk(finish_reason="tool_use", end=True))
        return runs(made.response())

    assert block(X, '{"x"', ":1}") == [("f", X)]
    assert block(X, '{"x":', " 1}") == [("f", '{"x": 1}')]
    assert block("{}", X) == [("f", X)]
    assert block(X, "") == [("f", X)]
    assert block(X, Y) == []


def test_blocks_of_one_id_are_two_calls():
    made = Ingest(model="m", expect_usage=False)
    for number, text in enumerate([X, Y]):
        opened = StreamChunk(part=number, block=Block(start={"type": "tool_use"}))
        opened.tool_calls = (D(number, "grep:3", "grep", text),)
        made.ingest(opened)
    made.ingest(StreamChunk(finish_reason="tool_use", end=True))
    calls = made.response().tool_calls
    assert [(c.id, c.arguments) for c in calls] == [("grep:3", X), ("grep:3-2", Y)]


# -- bounds ----------------------------------------------------------------------------------------


def test_long_arguments_are_not_parsed_with_every_piece():
    call = CallBuilder()
    pieces = ['{"x":"', *["}" * 1024] * 4096]
    for text in pieces:
        call.add(D(0, "a", "f", text))
        assert call.so_far() == "open"
    assert call._checked <= MAX_CHECKED + call.size
    call.add(D(0, arguments='"}'))
    assert call.is_whole()


def test_ids_and_indexes_made_up_for_each_piece_do_not_pile_up():
    calls = Calls()
    calls.take(D(0, "a", "f", '{"x":"'))
    for number in range(1000):
        calls.take(D(0, f"id{number}", None, "x"))
        calls.take(D(number, "a", None, "x"))
    assert len(calls.all) == 1
    assert len(calls._by_id) <= 3
    assert len(calls._by_index) <= 3


def test_copies_are_found_up_to_a_bound_and_nothing_is_wrong_beyond_it():
    for count in (10, MAX_STARTS + 10):
        pieces = ['{"o":[', *['{"x":1},'] * count, "{}]}"]
        whole = "".join(pieces)
        assert runs(answer(*[D(0, "a", "f", p) for p in pieces])) == [("f", whole)]
        again = answer(*[D(0, "a", "f", p) for p in (*pieces, whole)])
        assert runs(again) == ([("f", whole)] if count == 10 else [])


def test_texts_that_are_too_long_to_be_compared_are_not_called_the_same():
    long = '{"x":"' + "a" * MAX_CHECKED + '"}'
    assert same_json('{"a": 1, "b": 2}', '{"b":2,"a":1}')
    assert not same_json(long, long + " ")
    assert not same_json("{", "{")


@pytest.mark.parametrize("text", ["", " ", "{}", "null", X, " {} "])
def test_an_object_or_nothing_is_an_object(text):
    assert is_object(text)


@pytest.mark.parametrize(
    "text", ["{", "[]", "5", '"x"', "{}{}", '{"x":NaN}', "{" * 10**5, "\ud800"]
)
def test_anything_else_is_none(text):
    assert not is_object(text)


# -- any server ------------------------------------------------------------------------------------


class Style(NamedTuple):
    """The way in which a server sends calls."""

    ids: str
    index: str
    names: str
    order: str
    arguments: str
    opens_empty: bool


styles = st.builds(
    Style,
    st.sampled_from(["each", "once", "none", "made up", "shared"]),
    st.sampled_from(["right", "one", "none", "drifts"]),
    st.sampled_from(["once", "repeated", "in pieces"]),
    st.sampled_from(["one by one", "opened first", "interleaved"]),
    st.sampled_from(["whole", "pieces", "all so far", "once more", "{} first"]),
    st.booleans(),
)
objects = st.dictionaries(
    st.sampled_from(["city", "a b", "}", "ü"]),
    st.recursive(
        st.integers(-9, 9) | st.booleans() | st.none() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("x"), inner),
        max_leaves=4,
    ),
    max_size=3,
)
texts = st.builds(
    lambda value, spaces: json.dumps(value, separators=(", ", ": ") if spaces else (",", ":")),
    objects,
    st.booleans(),
)
meant_calls = st.lists(
    st.tuples(st.sampled_from(["weather", "look_up", "time"]), texts), min_size=1, max_size=4
)


def cut(text: str, style: Style, draw: st.DrawFn) -> list[str]:
    """The arguments as the server sends them."""
    if style.arguments == "whole":
        return [text]
    edges = sorted({0, len(text), *draw(st.lists(st.integers(0, len(text)), max_size=4))})
    pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
    if style.arguments == "all so far":
        return list(itertools.accumulate(pieces))
    if style.arguments == "once more":
        return [*pieces, text]
    return ["{}", *pieces] if style.arguments == "{} first" else pieces


@st.composite
def streams(draw: st.DrawFn) -> tuple[Style, list[tuple[str, str]], list[D]]:
    """A style, the calls that the model made, and the pieces in which the server sends them."""
    style, meant = draw(styles), draw(meant_calls)
    sent: list[list[D]] = []
    heads = 2 if style.names == "in pieces" else 1
    for number, (name, text) in enumerate(meant):
        names = [name[:3], name[3:]] if heads == 2 else [name]
        rest = cut(text, style, draw)
        pieces: list[tuple[str | None, str]] = [(n, "") for n in names]
        if not style.opens_empty:
            pieces[-1] = (names[-1], rest.pop(0))
        pieces += [(name if style.names == "repeated" else None, p) for p in rest]
        sent.append(
            [
                D(
                    index={"right": number, "one": 0, "none": None, "drifts": 50 * number + place}[
                        style.index
                    ],
                    id={
                        "each": f"id{number}",
                        "once": None if place else f"id{number}",
                        "none": None,
                        "made up": f"id{number}-{place}",
                        "shared": "id",
                    }[style.ids],
                    name=piece_name,
                    arguments=text,
                )
                for place, (piece_name, text) in enumerate(pieces)
            ]
        )
    if style.order == "one by one":
        return style, meant, [d for call in sent for d in call]
    if style.order == "opened first":
        opened = [d for call in sent for d in call[:heads]]
        return style, meant, opened + [d for call in sent for d in call[heads:]]
    turns = itertools.zip_longest(*sent)
    return style, meant, [d for turn in turns for d in turn if d is not None]


def nothing_tells_pieces_apart(style: Style, count: int) -> bool:
    """Return whether pieces of calls are mixed without a key, so that no client can tell them apart."""
    return (
        count > 1
        and style.order != "one by one"
        and not (style.ids == "each" or style.index == "right")
    )


def contradicts_itself(style: Style) -> bool:
    """Return whether another server sends the same with another meaning, which we prefer.

    A new id with a new name is another call (Ollama), so no piece of a name. A new id with the same
    name and a new object is another call, too, so no copy. A new index with a name is another call,
    so an index that means nothing needs ids, and names that come once.
    """
    if style.ids == "made up" and (
        style.names == "in pieces"
        or (style.names == "repeated" and style.arguments in ("once more", "{} first"))
    ):
        return True
    if style.index == "drifts":
        return style.names != "once" or style.ids not in ("each", "once")
    return False


def may_lose(style: Style, meant: list[tuple[str, str]]) -> bool:
    """Return whether a call that the model did make may come out invalid or merged with another."""
    again = any(a[0] == b[0] for a, b in itertools.combinations(meant, 2))
    if style.ids == "made up" and style.names == "repeated":
        return style.arguments == "pieces"  # one may begin an object inside
    if style.ids == "shared":
        return again  # one id and one function: a copy, or another call
    if style.ids == "none" and style.index != "right":
        return again or style.names == "in pieces"
    if style.index == "drifts" and style.ids == "once":
        return style.arguments in ("once more", "{} first")
    return False


@given(streams())
@example(
    (
        Style("once", "one", "repeated", "one by one", "pieces", True),
        [("weather", X)],
        [D(0, "a", "weather"), D(0, None, "weather", '{"x":'), D(0, None, "weather", "1}")],
    )
)
def test_any_server_gives_the_calls_that_were_meant(stream):
    style, meant, deltas = stream
    response = answer(*deltas)
    if nothing_tells_pieces_apart(style, len(meant)) or contradicts_itself(style):
        return
    # Nothing or `{}`, it is the same to a tool; of two copies with other spaces, any will do.
    want = Counter((name, json.dumps(json.loads(text))) for name, text in meant)
    got = Counter((c.name, json.dumps(c.parsed())) for c in response.tool_calls)
    assert got <= want, style
    if not may_lose(style, meant):
        assert got == want, style


pieces_of_anything = st.builds(
    ToolCallDelta,
    index=st.none() | st.integers(0, 2),
    id=st.none() | st.sampled_from(["", "a", "b"]),
    name=st.none() | st.sampled_from(["", " ", "f", "g"]),
    arguments=st.sampled_from(["", " ", "{", "}", "{}", X, '{"x":', "1}", "null", "nope"]),
)


@given(st.lists(pieces_of_anything, max_size=12))
def test_any_pieces_give_calls_that_can_be_parsed_and_told_apart(deltas):
    response = answer(*deltas)
    for call in response.tool_calls:
        assert call.name.strip()
        assert isinstance(call.parsed(), dict)
    ids = [c.id for c in (*response.tool_calls, *response.invalid_tool_calls)]
    assert len(set(ids)) == len(ids)
    assert sum(len(d.arguments) for d in deltas) >= sum(
        len(c.arguments) for c in (*response.tool_calls, *response.invalid_tool_calls)
    )
