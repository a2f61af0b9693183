"""Tests of prompts out of files: whatever ``batch`` reads, conversations, text, and lengths."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._bench.plan import Plan
from trio_minillm._bench.prompts import collected
from trio_minillm._bench.prompts.collected import PromptError, Shape, shape_of
from trio_minillm._bench.prompts.files import Reading, form_of, read_prompts
from trio_minillm._bench.prompts.prompt import OWN_WORDS, Prompt, as_sent, next_turn
from trio_minillm._bench.prompts.words import WORDS

MODEL = llm.compatible("m", base_url="http://127.0.0.1")
ANTHROPIC = llm.anthropic("m", api_key="sk-test-0123456789")
SHARED = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hi"},
    {"from": "gpt", "value": "Hello, what can I do?"},
    {"from": "human", "value": "Sing"},
    {"from": "gpt", "value": "La"},
    {"from": "human", "value": "More"},
]


def read(path: Path, **options: Any) -> list[Prompt]:
    return read_prompts(path, Reading(**{"model": MODEL, **options})).prompts


def written(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts(prompts: list[Prompt]) -> list[Any]:
    return [prompt.messages for prompt in prompts]


# -- forms ---------------------------------------------------------------------------------------


def test_a_line_of_text_is_a_prompt(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xef\xbb\xbf first \n\n{curly} second\r\n[INST] third")
    assert texts(read(path)) == ["first", "{curly} second", "[INST] third"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.txt", "in", "in.json", "in.jsonl.gz"])
def test_json_lines_are_never_sent_as_text(tmp_path: Path, name: str) -> None:
    lines = b'{"prompt": "Hi", "max_tokens": 5}\n{"key": "b", "prompt": "Ho"}\n'
    path = tmp_path / name
    path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    found = read(path, params={"max_tokens": 128})
    assert texts(found) == ["Hi", "Ho"]
    assert [prompt.params for prompt in found] == [{"max_tokens": 5}, {}]


def test_a_broken_json_line_is_not_sent_as_text_either(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text('{"prompt": "a secret thing"\n')
    with pytest.raises(PromptError, match="line 1: not JSON") as caught:
        read(path)
    assert "secret" not in str(caught.value)
    assert texts(read(path, form="text")) == ['{"prompt": "a secret thing"']


def test_openai_batch_form_through_our_vocabulary(tmp_path: Path) -> None:
    body = {
        "model": "another",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "max_completion_tokens": 7,
        "stream": False,
        "vendor_field": 1,
    }
    envelope = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (found,) = read(written(tmp_path / "in.jsonl", envelope), model=ANTHROPIC)
    assert found.messages == (llm.system("Be brief."), llm.user("Hi"))
    assert found.params == {"max_tokens": 7, "extra": {"vendor_field": 1}}


@pytest.mark.parametrize(("name", "mark"), [("in.csv", ","), ("in.tsv", "\t")])
def test_tables(tmp_path: Path, name: str, mark: str) -> None:
    path = tmp_path / name
    path.write_text(f"q{mark}role{mark}topic\nHi{mark}Be brief.{mark}x\n", encoding="utf-8")
    (found,) = read(path, prompt="q", system="role")
    assert found.messages == (llm.system("Be brief."), llm.user("Hi"))
    with pytest.raises(PromptError, match="no q"):
        read(written(tmp_path / "a.jsonl", {"other": 1}), prompt="q")
    with pytest.raises(PromptError, match="unknown field"):
        read(path)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "in.parquet"
    parquet.write_table(pyarrow.table({"prompt": ["Hi"], "temperature": [0.5]}), path)
    (found,) = read(path)
    assert (found.messages, found.params) == ("Hi", {"temperature": 0.5})


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "Hi", "max_tokenz": 5}, "did you mean max_tokens"),
        ({"prompt": "Hi", "seed": 5}, "seed"),
        ({"prompt": "Hi", "messages": []}, "one of messages and prompt"),
        ({"input_length": 0}, "from 1 to"),
        ({"input_length": 5, "hash_ids": "x"}, "hash_ids"),
        ({"conversations": "x"}, "not a list"),
        ({"conversations": [1]}, r"conversations\[0\] is not an object"),
        ({"conversations": [{"from": "human"}]}, "no text"),
    ],
)
def test_a_line_that_cannot_be_sent(tmp_path: Path, row: Any, words: str) -> None:
    path = written(tmp_path / "in.jsonl", {"prompt": "fine"}, row)
    with pytest.raises(PromptError, match=f"in.jsonl: line 2: .*{words}"):
        read(path, model=ANTHROPIC)


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    written(tmp_path / "b.jsonl", {"prompt": "two"})
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / ".hidden").write_text("no\n")
    (tmp_path / "deeper").mkdir()
    assert texts(read(tmp_path)) == ["one", "two"]
    with pytest.raises(PromptError, match="no prompts found"):
        read(tmp_path / "deeper")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PromptError, match="not a regular file"):
        read(tmp_path / "pipe")


def test_no_more_is_read_than_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": "b"}\nnot JSON\n')
    assert texts(read(path, most=2)) == ["a", "b"]
    with pytest.raises(PromptError, match="line 3"):
        read(path)


def test_prompts_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in.txt"
    path.write_text("aaaa\n" * 5)
    monkeypatch.setattr(collected, "MAX_PROMPTS", 4)
    with pytest.raises(PromptError, match="more than 4 prompts; --requests N reads"):
        read(path)
    monkeypatch.setattr(collected, "MAX_PROMPT_BYTES", 15)
    with pytest.raises(PromptError, match="MiB"):
        read(path)


def test_a_recording_is_known_by_its_first_line(tmp_path: Path) -> None:
    path = written(tmp_path / "r.jsonl", {"recording": 1}, {"n": 0})
    assert form_of(path) == "recording"
    found = read_prompts(tmp_path, Reading(model=MODEL))
    assert found.recordings == [path]
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(PromptError, match="can't be mixed"):
        read(tmp_path)


def test_lengths_of_a_trace(tmp_path: Path) -> None:
    row = {"timestamp": 0, "input_length": 700, "output_length": 5, "hash_ids": [1, 2]}
    path = written(tmp_path / "mooncake.jsonl", row, {"input_length": 3})
    found = read_prompts(path, Reading(model=MODEL))
    assert found.shapes == [Shape(tokens=700, output=5, blocks=(1, 2)), Shape(tokens=3)]


async def test_lengths_of_a_ledger(tmp_path: Path, autojump_clock: Any) -> None:
    path, once = tmp_path / "costs.jsonl", llm.Retry(attempts=1)
    script = testing.ScriptedTransport(testing.answer("Sea ", "salty"), testing.reply(status=400))
    ledger = llm.JSONLLedger(path)
    async with llm.open_client(transport=script, ledger=ledger, retry=once) as client:
        await client.complete(MODEL, "Hi")
        with pytest.raises(llm.RefusedError):
            await client.complete(MODEL, "Hi")
    assert len(path.read_text().splitlines()) == 2
    found = read_prompts(path, Reading(model=MODEL))
    assert found.shapes == [Shape(tokens=7, output=2)]


# -- conversations -------------------------------------------------------------------------------


@pytest.mark.parametrize("pretty", [None, 2])
def test_conversations_in_an_array(tmp_path: Path, pretty: int | None) -> None:
    path = tmp_path / "sharegpt.json"
    silent = {"conversations": [{"from": "gpt", "value": "Hi"}]}
    path.write_text(json.dumps([{"id": 1, "conversations": SHARED}, silent], indent=pretty))
    (found,) = read(path)
    assert found.messages == (llm.system("Be brief."), llm.user("Hi"))
    assert found.turns == ()


def test_turns_of_a_conversation(tmp_path: Path) -> None:
    path = written(tmp_path / "sharegpt.jsonl", {"conversations": SHARED})
    assert [prompt.turns for prompt in read(path, turns=2)] == [("Sing",)]
    assert [prompt.turns for prompt in read(path, turns=9)] == [("Sing", "More")]
    (found,) = read(path, turns=9, count=len)
    assert found.params == {"max_tokens": len("Hello, what can I do?")}
    assert (found.turns, found.lengths) == (("Sing",), (2,)), "the last has no recorded answer"


def test_openai_roles_and_two_words_in_a_row(tmp_path: Path) -> None:
    said = [("user", "a"), ("user", "b"), ("assistant", "c"), ("tool", "d"), ("user", "e")]
    row = {"language": "en", "conversation": [{"role": r, "content": text} for r, text in said]}
    (found,) = read(written(tmp_path / "in.jsonl", row), turns=5)
    assert (found.messages, found.turns) == ("a\nb", ("e",))


def test_the_next_turn_follows_the_answer() -> None:
    prompt = Prompt(messages="Hi", turns=("Sing", "More"), lengths=(4, 5), tokens=9)
    second = next_turn(prompt, llm.assistant("Hello"))
    assert second is not None
    assert second.messages == (llm.user("Hi"), llm.assistant("Hello"), llm.user("Sing"))
    assert (second.params, second.turns, second.tokens) == ({"max_tokens": 4}, ("More",), None)
    third = next_turn(second, llm.assistant("La"))
    assert third is not None
    assert (third.params, third.turns) == ({"max_tokens": 5}, ())
    assert next_turn(third, llm.assistant("x")) is None
    assert next_turn(prompt, llm.Message(role="assistant", parts=())) is None
    call = llm.ToolCall(id="a", name="f", arguments="{}")
    assert next_turn(prompt, llm.assistant(call)) is None


# -- beginnings of their own ---------------------------------------------------------------------


def test_a_beginning_that_is_new_each_time(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl",
        {"prompt": "Hi"},
        {"system": "Be brief.", "prompt": "Ho"},
    )
    plain, with_system = read(path, unique=True)
    first, again = as_sent(plain).messages, as_sent(plain).messages
    assert isinstance(first, str)
    assert first != again
    assert first.split()[OWN_WORDS:] == ["Hi"]
    assert set(first.split()[:OWN_WORDS]) <= set(WORDS)
    sent = as_sent(with_system).messages
    assert not isinstance(sent, str)
    assert sent[0].text.endswith(" Be brief.")
    assert sent[1] == llm.user("Ho")
    assert as_sent(as_sent(plain)).own is None


def test_a_beginning_needs_text(tmp_path: Path) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://test.invalid/a.png"}}
    row = {"messages": [{"role": "user", "content": [image]}]}
    path = written(tmp_path / "in.jsonl", row)
    assert len(read(path)) == 1
    with pytest.raises(PromptError, match="first message with text"):
        read(path, unique=True)


# -- what leaves the process ---------------------------------------------------------------------


def test_plans_can_be_sent_to_a_process_and_show_no_prompt(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    schema = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    rows = [
        {"prompt": "the secret", "tools": [tool], "response_format": schema, "reasoning": "low"},
        {"messages": [{"role": "user", "content": [image, {"type": "text", "text": "secret"}]}]},
        {"conversations": SHARED},
    ]
    prompts = tuple(read(written(tmp_path / "in.jsonl", *rows), turns=3))
    plan = Plan(prompts=prompts, system=llm.system("secret"), params={"temperature": 0.5})
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert "secret" not in repr(prompts)
    told = shape_of(prompts)
    assert (told["count"], told["turns"]) == (3, 5)
    assert told["own_params"] == ["reasoning", "response_format", "tools"]
    assert "secret" not in json.dumps(told)
