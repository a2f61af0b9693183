"""Answers out of scripts and recordings."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from trio_minillm import providers, testing
from trio_minillm._serve.forms import Form, Length, kind_of, unframed
from trio_minillm._serve.options import USAGE_MODES, WIRES, UsageMode, Wire
from trio_minillm._serve.programs import PROVIDERS
from trio_minillm._serve.requests import Asked, RefusedRequestError
from trio_minillm._serve.scripts import Answers, ScriptedAnswer
from trio_minillm._serve.writing import Writer, body
from trio_minillm.testing import Reply, decode

HEAD = '{"script": 1}\n'
NAMES = ("m-1", "000000000007", 1_700_000_000)


def asked(wire: Wire = "openai", **more: Any) -> Asked:
    fields: dict[str, Any] = {"model": "m-1", "stream": True, "prompt_tokens": 3}
    fields |= {"max_tokens": None, "min_tokens": 0, "ignore_eos": False, "usage": True}
    return Asked(wire=wire, **{"running_usage": False, **fields, **more})


def script(tmp_path: Path, *lines: str) -> Answers:
    path = tmp_path / "script.jsonl"
    path.write_text(HEAD + "\n".join(lines))
    return Answers([path])


def only(answers: Answers) -> ScriptedAnswer:
    (answer,) = answers._ordered
    assert isinstance(answer, ScriptedAnswer)
    return answer


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_is_the_same_on_each_wire(tmp_path: Path, wire: Wire, stream: bool) -> None:
    rich = wire != "text"
    line = '{"text": "The sea\\nis  salty.", "reasoning": ["Rivers ", "carry it."]'
    line += ', "tool_calls": [{"name": "weather", "arguments": {"city": "Paris"}}]}'
    answer = only(script(tmp_path, line if rich else '{"text": "The sea\\nis  salty."}'))
    reply, usage = answer.reply(asked(wire, stream=stream), NAMES, "asked", 1)
    response, error = decode(PROVIDERS[wire](), [s for s in reply.steps if isinstance(s, bytes)])
    assert error is None
    assert response.text == "The sea\nis  salty."
    assert response.model == "m-1"
    assert (response.id or "").endswith(NAMES[1])
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 8 if rich else 4)
    assert response.usage is not None
    assert response.usage.completion_tokens == usage.completion_tokens
    if rich:
        assert response.reasoning == "Rivers carry it."
        assert [(c.name, c.parsed()) for c in response.tool_calls] == [
            ("weather", {"city": "Paris"})
        ]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("mode", USAGE_MODES)
@pytest.mark.parametrize("wished", [{}, {"usage": True}, {"usage": True, "running_usage": True}])
def test_usage_comes_as_with_generated_answers(
    tmp_path: Path, wire: Wire, mode: UsageMode, wished: dict[str, bool]
) -> None:
    answer, length = only(script(tmp_path, '{"text": "one two"}')), Length(3, 0, 2)
    for stream in (True, False):
        wish = asked(wire, stream=stream, **{"usage": False, **wished})
        reply, _ = answer.reply(wish, NAMES, mode, 1)
        scripted = b"".join(s for s in reply.steps if isinstance(s, bytes))
        kind = kind_of(wish, length, "stop", mode)
        pieces = Writer(Form(kind, unframed), NAMES[1], length).contents(1)
        made = b"".join(data for data, _ in pieces) if stream else body(kind, NAMES[1], length)
        found = [re.search(rb'(?:_tokens|TokenCount)":\d', data) for data in (scripted, made)]
        assert bool(found[0]) == bool(found[1]) == wish.usage_by(mode)[0]


def contents(line: str, per_chunk: int, tmp_path: Path) -> list[str]:
    reply, _ = only(script(tmp_path, line)).reply(asked(), NAMES, "asked", per_chunk)
    decoder = testing._events.ChunkDecoder(providers.OpenAIChat())
    chunks = [c for s in reply.steps if isinstance(s, bytes) for c in decoder.feed(s, 0.0)]
    return [chunk.delta for chunk in chunks if chunk.delta]


def test_a_text_is_sent_by_words_and_a_list_as_it_is(tmp_path: Path) -> None:
    line = '{"text": " one two\\n\\nthree four "}'
    assert contents(line, 1, tmp_path) == [" one", " two", "\n\nthree", " four "]
    assert contents(line, 3, tmp_path) == [" one two\n\nthree", " four "]
    assert contents('{"text": ["o", "ne two"]}', 1, tmp_path) == ["o", "ne two"]


def test_answers_come_in_order_and_over_again(tmp_path: Path) -> None:
    answers = script(tmp_path, '{"text": "a"}', "", '{"text": "b"}')
    said = [answers.choose(asked(), {}) for _ in range(5)]
    assert [a.text for a in said if isinstance(a, ScriptedAnswer)] == ["a", "b", "a", "b", "a"]
    answers.reset()
    first = answers.choose(asked(), {})
    assert isinstance(first, ScriptedAnswer)
    assert first.text == "a"


def test_answers_for_certain_requests(tmp_path: Path) -> None:
    key = hashlib.sha256(b"be short\nwhy?").hexdigest()
    answers = script(
        tmp_path,
        '{"text": "small", "when": {"model": "small"}}',
        '{"text": "case", "when": {"metadata.case": 7, "user": "ann"}}',
        f'{{"text": "why", "when": {{"prompt_sha256": "{key}"}}}}',
    )

    def said(model: str = "m", **body: Any) -> Any:
        answer = answers.choose(asked(model=model), body)
        return answer.text if isinstance(answer, ScriptedAnswer) else None

    assert said("small") == "small"
    assert said(metadata={"case": 7}, user="ann") == "case"
    messages = [{"role": "system", "content": "be short"}, {"content": [{"text": "why?"}]}]
    assert said(messages=messages) == "why"
    with pytest.raises(RefusedRequestError, match="no answer in the script"):
        said(metadata={"case": 8}, user="ann")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "line 2: "),
        ('{"txt": "a"}', "unknown field `txt`"),
        ('{"text": 1}', "str | array"),
        ('{"faults": ["no(1)"]}', "fault 'no"),
        ('{"ttft": "soon"}', "ttft must be a number"),
        ('{"finish": "done"}', "Invalid enum value"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, line: str, what: str) -> None:
    with pytest.raises(ValueError, match="line 2: ") as caught:
        script(tmp_path, line)
    assert what in str(caught.value)


@pytest.mark.parametrize("text", ["", "no\n", '{"script": 2}\n', '{"text": "a"}\n', "[1]\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"unknown version|neither a script nor a recording"):
        Answers([path])


def test_a_script_of_another_version_is_named(tmp_path: Path) -> None:
    path = tmp_path / "newer.jsonl"
    path.write_text('{"script": 2}\n')
    with pytest.raises(ValueError, match=r"newer\.jsonl: unknown version of a script$"):
        Answers([path])


@pytest.mark.parametrize("text", [HEAD, HEAD + "\n\n", '{"recording": 1}\n'])
def test_files_without_an_answer_are_no_wish_for_generated_ones(tmp_path: Path, text: str) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"no answers in .*empty\.jsonl$"):
        Answers([path])
    assert not Answers([])


def test_a_recording_is_a_list_of_replies(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(
        '{"recording": 1}\n{"n":0,"t":0.0,"method":"POST","url":"http://h/v1/chat/completions"}\n'
        '{"n":0,"t":0.4,"status":200,"headers":[]}\n{"n":0,"t":0.5,"text":"data: x"}\n'
        '{"n":0,"t":0.9,"end":"complete"}\n'
    )
    answer = Answers([path]).choose(asked(), {})
    assert isinstance(answer, Reply)
    assert answer.wait == 0.4
    assert answer.steps[:2] == (pytest.approx(0.1), b"data: x")
