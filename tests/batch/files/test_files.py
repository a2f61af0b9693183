"""A batch's files: what is read, what is written, and what a kill leaves of it."""

from __future__ import annotations

import errno
import json
import os
import stat
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

import trio_minillm as llm
from trio_minillm._batch.files import append_file, locks, request_file, result_file, result_format
from trio_minillm._batch.files.append_file import ResultFileError
from trio_minillm._batch.files.key_table import KeyTable, in_shard
from trio_minillm._batch.files.request_file import InputError, RequestFile
from trio_minillm._batch.files.result_file import ResultFile, read_results
from trio_minillm._batch.files.result_format import MARKER, _as_before, _encode, fingerprint
from trio_minillm._batch.files.rows import json_rows
from trio_minillm._batch.types import Attempt, BatchRequest, BatchResult

from ...support.wires import KEY, model_on

MODEL = model_on("openai")
HELLO = [{"role": "user", "content": "Hello."}]
SECRET = "the prompt"


def openai_line(key: str = "a", **body: Any) -> dict[str, Any]:
    whole = {"model": "a/b", "messages": HELLO, **body}
    return {"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": whole}


def written(path: Path, *lines: Any) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("".join(text + "\n" for text in texts))
    return path


def requests_of(path: Path, **options: Any) -> list[BatchRequest]:
    return list(RequestFile(path, **{"model": MODEL, **options}))


def request(key: str = "a", content: str = "Hello.", **options: Any) -> BatchRequest:
    return BatchRequest(key, content, MODEL, **options)


def answered(asked: BatchRequest, text: str = "Hi.", **options: Any) -> BatchResult:
    usage = llm.Usage(uncached_input_tokens=3, completion_tokens=2, final=True)
    response = llm.CompletionResponse(
        id="gen-1",
        model="m-1",
        choices=(llm.Choice(content=text, finish_reason="stop"),),
        usage=usage,
        outcome=llm.Outcome.FINISHED,
        cost=llm.CostInfo(Decimal("0.0012"), llm.CostResolution.RESOLVED),
    )
    attempt = Attempt(
        outcome=llm.Outcome.FINISHED, started=datetime.now(UTC), usage=usage, cost=response.cost
    )
    whole = {"response": response, "attempts": (attempt,), **options}
    return BatchResult(request=asked, index=0, **whole)


def refused(asked: BatchRequest, error: llm.MiniLLMError | None = None) -> BatchResult:
    info = llm.ErrorInfo(message="slow down", kind="rate_limit", status=429, code="rl")
    error = error or llm.RefusedError(info, request_id="req-1")
    attempt = Attempt(
        outcome=llm.Outcome.ERRORED, started=datetime.now(UTC), error=type(error).__name__
    )
    return BatchResult(request=asked, index=0, error=error, attempts=(attempt,))


async def append_all(path: Path, results: list[BatchResult], **options: Any) -> None:
    with ResultFile(path, **options) as out:
        for result in results:
            await out.append(result)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# -- keys ------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.text(), st.integers(0, 2**64 - 1)), max_size=300))
def test_a_table_of_keys_is_a_dict(pairs: list[tuple[str, int]]) -> None:
    table, expected = KeyTable(), dict(pairs)
    for key, number in pairs:
        table.put(key, number)
    assert len(table) == len(expected)
    assert {key: table.get(key) for key in expected} == expected
    assert all(key in table for key in expected)
    missing = "".join(expected) + "!"
    assert missing not in table
    assert {key: table.add(key, 7) for key in expected} == expected
    assert table.add(missing, 7) == table.get(missing) == 7


def test_a_table_of_keys_grows_and_stays_small() -> None:
    tracemalloc.start()
    try:
        table = KeyTable()
        for number in range(50_000):
            table.put(f"request-{number}", number)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(table.get(f"request-{n}") == n for n in range(50_000))
    assert held < 50_000 * 70 + 100_000


@given(st.text(), st.integers(1, 50))
def test_each_key_is_in_one_shard(key: str, parts: int) -> None:
    assert sum(in_shard(key, (part, parts)) for part in range(1, parts + 1)) == 1
    for wrong in ((0, parts), (parts + 1, parts)):
        with pytest.raises(ValueError, match="a shard is"):
            in_shard(key, wrong)


def test_shards_are_the_same_everywhere() -> None:
    """Check that a key's shard does not change, as other machines and later versions count on it."""
    found = [next(p for p in range(1, 17) if in_shard(f"request-{n}", (p, 16))) for n in range(8)]
    assert found == [13, 12, 3, 14, 3, 5, 16, 11]


# -- requests --------------------------------------------------------------------------------


def test_the_form_of_openais_batch_api(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "integer"}}}
    function = {"name": "f", "description": "d", "parameters": schema}
    body = {
        "model": "other",
        "max_completion_tokens": 5,
        "reasoning_effort": "low",
        "stream": False,
        "stream_options": {"include_usage": True},
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
        "temperature": 0,
        "user": None,
        "foo": {"bar": 1},
    }
    (one,) = requests_of(written(tmp_path / "in.jsonl", openai_line("k", **body)))
    assert (one.key, one.messages, one.meta) == ("k", HELLO, None)
    assert one.model is not None
    assert (one.model.name, one.model.base_url, one.model.api_key) == (
        "other",
        MODEL.base_url,
        MODEL.api_key,
    )
    assert one.extra == {"foo": {"bar": 1}}
    assert one.params == {
        "max_tokens": 5,
        "reasoning": "low",
        "tools": [llm.Tool(name="f", description="d", parameters=schema)],
        "tool_choice": "f",
        "response_format": llm.JSONSchema(schema=schema, name="n", strict=False),
        "temperature": 0,
    }


@pytest.mark.parametrize("wire", ["openai", "anthropic", "openrouter"])
def test_a_line_is_what_it_says_on_every_wire(tmp_path: Path, wire: str) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    line = openai_line(max_completion_tokens=50, tools=tools, tool_choice="required")
    path = written(tmp_path / "in.jsonl", line)
    (one,) = RequestFile(path, model=model_on(wire))
    model = one.model
    assert model is not None
    body = model.provider.build_request(
        llm.Request(model=model, messages=(llm.user("Hello."),), params=one.params, extra={})
    )
    limit = body.get("max_tokens") or body.get("max_completion_tokens")
    name = body["tools"][0].get("name") or body["tools"][0]["function"]["name"]
    assert (limit, name) == (50, "f")


def test_the_short_form(tmp_path: Path) -> None:
    path = written(
        tmp_path / "in.jsonl",
        {"key": "a", "prompt": "Hello.", "system": "Be brief.", "max_tokens": 9},
        {"key": 7, "messages": HELLO, "meta": {"label": "x"}, "extra": {"foo": 1}},
        "",
        {"key": "c", "prompt": "Hello.", "model": "other", "temperature": 0.5, "reasoning": "none"},
    )
    a, b, c = requests_of(path, params={"temperature": 0.0})
    assert a.messages == [{"role": "system", "content": "Be brief."}, *HELLO]
    assert a.params == {"temperature": 0.0, "max_tokens": 9}
    assert (b.key, b.messages, b.meta, b.extra) == ("7", HELLO, {"label": "x"}, {"foo": 1})
    assert c.params == {"temperature": 0.5, "reasoning": False}
    assert [r.model and r.model.name for r in (a, b, c)] == ["a/b", "a/b", "other"]
    assert {r.model and r.model.name for r in requests_of(path, model=lambda name: MODEL)} == {
        "a/b"
    }


def test_shapes_of_openais_body_that_no_parameter_has_go_as_they_are(tmp_path: Path) -> None:
    parameters = {"type": "object"}
    grammar = {"type": "function", "function": {"name": "f", "parameters": parameters, "x": 1}}
    search = {"type": "web_search", "function": {"name": "g"}, "more": 1}
    chosen = {"type": "function", "function": {"name": "auto"}}  # a tool of that name, not the word
    line = openai_line(
        tools=[grammar, search],
        tool_choice=chosen,
        reasoning={"max_tokens": 100, "exclude": None},
        response_format={"type": "text"},
    )
    (found,) = requests_of(
        written(tmp_path / "in.jsonl", line), model=llm.openrouter("m", api_key="k")
    )
    assert found.params["tools"] == [grammar, search]
    assert found.params["tool_choice"] == chosen
    assert found.params["reasoning"] == llm.Reasoning(budget=100)
    assert found.params["response_format"] == "text"


def test_an_answer_s_calls_and_media_are_in_its_line() -> None:
    custom = llm.ToolCall(id="c1", name="shell", arguments="ls", type="custom")
    cut = llm.ToolCall(id="c2", name="f", arguments='{"a"')
    choice = llm.Choice(
        tool_calls=(custom,), invalid_tool_calls=(cut,), annotations=({"type": "url_citation"},)
    )
    response = llm.CompletionResponse(choices=(choice,), outcome=llm.Outcome.FINISHED)
    result = BatchResult(request=request(), index=0, response=response)
    line = json.loads(result_format.result_line(result, "0" * 16))
    message = line["response"]["body"]["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"] == [
        {"id": "c1", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    ]
    assert message["invalid_tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a"'}
    assert message["annotations"] == [{"type": "url_citation"}]


def test_a_line_that_is_no_line_of_ours_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(MARKER + b"x" * 200)
    monkeypatch.setattr(append_file, "MAX_LINE", 100)
    with pytest.raises(ResultFileError, match="longer than 100 bytes"):
        list(read_results(path))


BAD = [
    ("{nonsense", "not JSON"),
    ('"a"', "not a JSON object"),
    ("[1]", "not a JSON object"),
    ('{"key": ' + "[" * 100_000, "not JSON: not readable"),
    (b'{"key": "\xff"}'.decode("latin-1"), "give one of messages and prompt"),
    ({"prompt": SECRET}, "no custom_id or key"),
    ({"key": "", "prompt": SECRET}, "no custom_id or key"),
    ({"key": ["a"], "prompt": SECRET}, "the key is not a string"),
    ({"key": "a" * 1001, "prompt": SECRET}, "the key is longer than 1,000 characters"),
    ({"key": "a"}, "give one of messages and prompt"),
    ({"key": "a", "prompt": SECRET, "messages": HELLO}, "give one of messages and prompt"),
    ({"key": "a", "messages": []}, "there is no message"),
    ({"key": "a", "messages": SECRET}, "messages are not a list"),
    ({"key": "a", "messages": [{"role": "pope", "content": SECRET}]}, "messages[0]: unknown role"),
    ({"key": "a", "prompt": 5}, "messages[0]"),
    ({"key": "a", "prompt": SECRET, "max_token": 5}, "did you mean max_tokens?"),
    ({"key": "a", "prompt": SECRET, "max_tokens": "5"}, "max_tokens must be int, not str"),
    ({"key": "a", "prompt": SECRET, "stop": 5}, "stop must be str or a list, not int"),
    ({"key": "a", "prompt": SECRET, "stop": ["x", 5]}, "each entry of stop must be str, not int"),
    ({"key": "a", "prompt": SECRET, "reasoning": 1.5}, "reasoning must be"),
    ({"key": "a", "prompt": SECRET, "n": 0}, "n must be a whole number"),
    ({"key": "a", "prompt": SECRET, "tools": {"f": 1}}, "tools does not have OpenAI's shape"),
    ({"key": "a", "prompt": SECRET, "tools": [SECRET]}, "tools does not have OpenAI's shape"),
    (
        {"key": "a", "prompt": SECRET, "response_format": 5},
        "response_format does not have OpenAI's shape",
    ),
    (
        {"key": "a", "prompt": SECRET, "reasoning": {"x": 1}},
        "reasoning does not have OpenAI's shape",
    ),
    ({"key": "a", "prompt": SECRET, "extra": [1]}, "extra is not an object"),
    ({"key": "a", "prompt": SECRET, "extra": {"temperature": 1}}, "temperature"),
    ({"key": "a", "prompt": SECRET, "top_k": 5}, "top_k"),  # OpenAI's wire has none
    ({"key": "a", "prompt": SECRET, "model": 5}, "model is not a name"),
    ({**openai_line(), "model": "x"}, "unknown field: model"),
    ({**openai_line(), "method": "GET"}, "method is not POST"),
    (
        {**openai_line(), "url": "/v1/embeddings"},
        "url must be /v1/chat/completions or /v1/completions",
    ),
    ({"custom_id": "a", "body": [1]}, "body is not an object"),
    ({"custom_id": "a", "body": {}}, "no messages"),
    ({"custom_id": "a", "url": "/v1/completions", "body": {}}, "no prompt"),
    (
        {"custom_id": "a", "url": "/v1/completions", "body": {"prompt": SECRET, "messages": []}},
        "messages in a text completion",
    ),
    (openai_line(max_tokens=5, max_completion_tokens=6), "contradict each other"),
    ('{"key": "a", "prompt": "\\ud800"}', ""),
]


@pytest.mark.parametrize(("line", "what"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_told_with_its_number(tmp_path: Path, line: Any, what: str) -> None:
    path = written(tmp_path / "in.jsonl", openai_line("good"), "", line, openai_line("better"))
    file = RequestFile(path, model=MODEL)
    report = file.check()
    (problem,) = report.problems
    assert (report.requests, report.bad, problem.line) == (2, 1, 3)
    assert what in problem.what
    assert SECRET not in problem.what
    with pytest.raises(InputError, match="a line can't be sent; line 3: ") as caught:
        list(file)
    assert SECRET not in str(caught.value)
    good = requests_of(path, skip_bad=True)
    assert [r.key for r in good] == ["good", "better"]


def test_duplicates_are_told_and_the_first_counts(tmp_path: Path) -> None:
    lines = [openai_line(key, temperature=n) for n, key in enumerate("abca")]
    path = written(tmp_path / "in.jsonl", *lines)
    file = RequestFile(path, model=MODEL)
    assert [str(p) for p in file.check().problems] == ["line 4: the key is the same as in line 1"]
    assert len(file) == 3
    assert "a" in file
    assert "d" not in file
    good = requests_of(path, skip_bad=True)
    assert [r.params["temperature"] for r in good] == [0, 1, 2]


def test_a_name_is_no_model(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", openai_line())
    with pytest.raises(TypeError, match="model must be Model or a function that makes one"):
        RequestFile(path, model="gpt")  # type: ignore[arg-type]


def test_a_duplicate_of_a_bad_line_is_none(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", {"key": "a"}, {"key": "a", "prompt": "x"})
    assert [r.key for r in requests_of(path, skip_bad=True)] == ["a"]


def test_fields_of_no_typed_parameter_are_counted(tmp_path: Path) -> None:
    lines = [openai_line(str(n), max_token=5) for n in range(3)]
    file = RequestFile(written(tmp_path / "in.jsonl", *lines), model=MODEL)
    assert file.check().extra == {"max_token": 3}


def test_many_problems_take_no_memory(tmp_path: Path) -> None:
    file = RequestFile(written(tmp_path / "in.jsonl", *["{"] * 1000), model=MODEL)
    report = file.check()
    assert (report.bad, len(report.problems)) == (1000, request_file.MAX_PROBLEMS)
    with pytest.raises(InputError, match="1,000 lines can't be sent; line 1: not JSON"):
        list(file)


@given(st.binary(max_size=200), st.integers(1, 40))
def test_rows_are_lines_whatever_they_hold(data: bytes, limit: int) -> None:
    import io

    rows = list(json_rows(io.BytesIO(data), limit))
    lines = data.split(b"\n")
    for number, fields in rows:
        line = lines[number - 1]
        assert (fields == f"longer than {limit:,} bytes") == (len(line) > limit)
    told = {number for number, _ in rows}
    blank = {n for n, line in enumerate(lines, 1) if not line.strip() and len(line) <= limit}
    assert told | blank >= set(range(1, len(lines) + 1)) - {1}


def test_a_mark_of_byte_order_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(openai_line()).encode())
    assert len(requests_of(path)) == 1


def test_a_file_that_changes_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "in.jsonl", openai_line("a"), openai_line("b"))
    file = RequestFile(path, model=MODEL)
    reading = iter(file)
    assert next(reading).key == "a"
    written(path, openai_line("a"), openai_line("b"), openai_line("c"))
    with pytest.raises(ValueError, match="was changed while it was read"):
        list(reading)


def test_what_is_no_file_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        RequestFile(tmp_path / "missing.jsonl", model=MODEL)
    with pytest.raises(OSError, match="is not a regular file"):
        RequestFile(tmp_path, model=MODEL)


def test_shards_of_a_file(tmp_path: Path) -> None:
    keys = {f"request-{n}" for n in range(100)}
    path = written(tmp_path / "in.jsonl", *map(openai_line, sorted(keys)))
    parts = [{r.key for r in requests_of(path, shard=(n, 3))} for n in (1, 2, 3)]
    assert set.union(*parts) == keys
    assert sum(map(len, parts)) == 100
    assert all(20 < len(part) < 50 for part in parts)
    for wrong in (0, 3), (4, 3):
        with pytest.raises(ValueError, match="a shard is"):
            RequestFile(path, model=MODEL, shard=wrong)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    filler = "word " * 400
    path = tmp_path / "in.jsonl"
    with path.open("w") as file:
        for n in range(5000):
            file.write(json.dumps({"key": f"k{n}", "prompt": filler}) + "\n")
    tracemalloc.start()
    try:
        count = sum(1 for _ in RequestFile(path, model=MODEL))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 5000
    assert peak < 2_000_000 < path.stat().st_size


# -- tables ----------------------------------------------------------------------------------


def test_csv_and_tsv(tmp_path: Path) -> None:
    messages = json.dumps(HELLO).replace('"', '""')
    path = tmp_path / "in.csv"
    path.write_text(
        "key,prompt,messages,temperature,meta.label,stop\n"
        'a,"Hello,\nyou.",,0.5,x,\n'
        f'2,,"{messages}",,,end\n'
        "b,5,,,,\n"
    )
    a, b, c = requests_of(path)
    assert a.messages == [{"role": "user", "content": "Hello,\nyou."}]
    assert (a.params, a.meta) == ({"temperature": 0.5}, {"label": "x"})
    assert (b.key, b.messages, b.params, b.meta) == ("2", HELLO, {"stop": "end"}, None)
    assert c.messages == [{"role": "user", "content": "5"}]  # a prompt is text, whatever it is
    (tmp_path / "in.tsv").write_text('key\tprompt\nd\t"say ""hi"""\n')
    (d,) = requests_of(tmp_path / "in.tsv")
    assert d.messages == [{"role": "user", "content": 'say "hi"'}]


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("in.csv", "key;prompt\na;b\n", "line 1: the columns seem to be separated by ';'"),
        ("in.csv", "key\tprompt\na\tb\n", "line 1: the columns seem to be separated by '\\t'"),
        ("in.tsv", "key;prompt\na;b\n", "instead of '\\t'"),
    ],
)
def test_another_delimiter_is_told(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    report = RequestFile(tmp_path / name, model=MODEL).check()
    assert (report.bad, report.requests) == (1, 0)
    assert what in str(report.problems[0])


@pytest.mark.parametrize(
    ("rows", "what"),
    [
        ("a,b,c\n", "line 3: 3 cells, but 2 columns"),
        ("a,x\n", "line 3: unknown field"),
        ('b,"unclosed\n', "line 3: not readable from here on"),
        ('b,"two\nlines"\n\nc,"three\n\nlines",d\n', "line 6: 3 cells, but 2 columns"),
        ("b,\xff\n", "line 1: not readable from here on: not UTF-8"),
    ],
)
def test_bad_rows_are_told(tmp_path: Path, rows: str, what: str) -> None:
    head = "key,promptt\n" if "x" in rows else "key,prompt\n"
    first = "0,\n" if "x" in rows else "0,hi\n"
    (tmp_path / "in.csv").write_bytes((head + first + rows).encode("latin-1"))
    problems = RequestFile(tmp_path / "in.csv", model=MODEL).check().problems
    assert str(problems[-1]).startswith(what)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="needs the extra [tables]")
    from pyarrow import parquet

    rows = [
        {"key": "a", "messages": HELLO, "max_tokens": 5, "meta.n": 1},
        {"key": "b", "messages": [{"role": "user", "content": "x", "name": "n"}]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "in.parquet")
    a, b = requests_of(tmp_path / "in.parquet")
    assert (a.messages, a.params, a.meta) == (HELLO, {"max_tokens": 5}, {"n": 1})
    assert (b.messages, b.params) == (rows[1]["messages"], {})
    (tmp_path / "no.parquet").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a Parquet file"):
        requests_of(tmp_path / "no.parquet")


# -- results ---------------------------------------------------------------------------------


async def test_a_line_has_the_shape_of_openais_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await append_all(path, [answered(request("a", SECRET, meta={"label": 1}))])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (line,) = lines_of(path)
    assert line["custom_id"] == "a"
    assert (line["ok"], line["outcome"], line["error"]) == (True, "finished", None)
    assert (line["cached"], line["meta"]) == (False, {"label": 1})
    assert line["cost"] == {"amount": "0.0012", "resolution": "resolved", "source": None}
    assert line["usage"]["total_tokens"] == 5
    assert [a["outcome"] for a in line["attempts"]] == ["finished"]
    assert line["response"]["status_code"] == 200
    assert line["response"]["request_id"] == "gen-1"
    body = line["response"]["body"]
    assert body["choices"][0]["message"]["content"] == "Hi."
    assert body["usage"]["prompt_tokens"] == 3
    text = path.read_text()
    assert SECRET not in text
    assert KEY not in text
    openai = pytest.importorskip("openai.types.chat", reason="compares with the openai package")
    openai.ChatCompletion.model_validate(body, strict=True)


async def test_an_answer_of_another_wire(tmp_path: Path) -> None:
    call = llm.ToolCall(id="c1", name="f", arguments='{"a":1}')
    thought = llm.ReasoningPart(text="hm", raw={"type": "reasoning.text", "text": "hm"})
    choices = (
        llm.Choice(
            parts=(thought, call),
            tool_calls=(call,),
            reasoning="hm",
            finish_reason="tool_use",
        ),
        llm.Choice(index=1, refusal="no", finish_reason="odd"),
    )
    response = llm.CompletionResponse(id="g", choices=choices, outcome=llm.Outcome.FINISHED)
    path = tmp_path / "out.jsonl"
    await append_all(path, [answered(request(), response=response)])
    (line,) = lines_of(path)
    first, second = line["response"]["body"]["choices"]
    assert (first["finish_reason"], first["native_finish_reason"]) == ("tool_calls", "tool_use")
    assert first["message"]["tool_calls"] == [
        {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    ]
    assert first["message"]["reasoning_content"] == "hm"
    assert first["message"]["reasoning_details"] == [thought.raw]
    assert (second["finish_reason"], second["message"]["refusal"]) == ("odd", "no")


async def test_the_text_stands_at_the_top_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    call = llm.ToolCall(id="c1", name="f", arguments="{}")
    response = llm.CompletionResponse(
        choices=(llm.Choice(tool_calls=(call,)),), outcome=llm.Outcome.FINISHED
    )
    invalid = msgspec.ValidationError("Expected `int`")
    results = [
        answered(request("a"), "Hi."),
        answered(request("b"), ""),
        answered(request("c"), response=response),
        answered(request("d"), invalid=invalid),
        refused(request("e")),
    ]
    await append_all(path, results)
    lines = lines_of(path)
    assert [line["content"] for line in lines] == ["Hi.", "", None, None, None]
    read = ["Hi.", "", "", None, None]
    assert [line.content for line in read_results(path)] == read
    for line in lines:  # as earlier versions wrote them
        del line["content"]
    written(path, *lines)
    assert [line.content for line in read_results(path)] == read
    odd = {**lines[0], "response": {"status_code": 200, "body": {"choices": []}}}
    written(path, odd)
    assert [line.content for line in read_results(path)] == [None]


async def test_failures_have_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    broken = llm.StreamTimeout("idle", 5.0, chunks=1, received=9)
    broken.partial = llm.CompletionResponse(
        choices=(llm.Choice(content="Hal"),), timings=llm.Timings(chunks=1)
    )
    exhausted = llm.RetriesExhausted((llm.SendError("no"),))
    results = [
        refused(request("a")),
        refused(request("b"), broken),
        refused(request("c"), exhausted),
    ]
    await append_all(path, results)
    a, b, c = lines_of(path)
    assert not any(line["ok"] for line in (a, b, c))
    assert (a["response"]["status_code"], a["response"]["request_id"]) == (429, "req-1")
    words = {"message": "slow down", "type": None, "code": "rl"}
    assert a["response"]["body"] == {"error": words}
    assert (a["error"]["code"], a["error"]["kind"]) == ("RefusedError", "rate_limit")
    assert (b["response"], b["error"]["clock"]) == (None, "idle")
    assert b["partial"]["choices"][0]["message"]["content"] == "Hal"
    assert c["error"]["code"] == "SendError"
    assert [line.content for line in read_results(path)] == [None] * 3


async def test_lines_in_which_a_refusal_cost_nothing_are_read(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await append_all(path, [refused(request("a"), llm.SendError("no", reason="refused"))])
    (written,) = lines_of(path)
    unknown = {"amount": None, "resolution": "unknown", "source": None}
    assert written["cost"] == unknown
    free = {"amount": "0", "resolution": "resolved", "source": None}
    path.write_text(json.dumps(written | {"cost": free, "attempts": [{"cost": free}]}) + "\n")
    (line,) = read_results(path)
    assert (line.cost, line.attempts[0]["cost"]) == (free, free)
    with ResultFile(path) as out:
        assert (out.finished, out.failed) == (0, 1)


async def test_an_answer_that_is_not_what_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    invalid = msgspec.ValidationError("Expected `int`")
    await append_all(path, [answered(request("a"), invalid=invalid, score={"right": 0})])
    (line,) = read_results(path)
    assert (line.ok, line.outcome, line.score) == (False, "finished", {"right": 0})
    assert line.error == {"code": "ValidationError", "message": "Expected `int`"}
    assert line.response is not None
    assert line.response["status_code"] == 200
    with ResultFile(path) as out:
        assert (out.finished, out.failed) == (0, 1)


class Own:
    pass


async def test_a_meta_that_is_no_json_is_misuse(tmp_path: Path) -> None:
    with ResultFile(tmp_path / "out.jsonl") as out:
        with pytest.raises(TypeError, match="the meta and the score of a result must be JSON"):
            await out.append(answered(request(meta=Own())))
        await out.append(answered(request()))
    assert len(lines_of(tmp_path / "out.jsonl")) == 1


# -- going on --------------------------------------------------------------------------------


async def test_what_is_there_is_not_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    a, b, c = map(request, "abc")
    await append_all(path, [answered(a), refused(b)])
    with ResultFile(path) as out:
        assert (out.finished, out.failed, out.torn) == (1, 1, 0)
        assert [out.state(r) for r in (a, b, c)] == ["finished", "failed", "missing"]
        assert list(out.unanswered([a, b, c])) == [c]
        with pytest.raises(ValueError, match="'a' already has a line"):
            await out.append(answered(a))
        await out.append(answered(c))
        assert list(out.unanswered([a, b, c])) == []
    assert [line.key for line in read_results(path)] == ["a", "b", "c"]
    unnamed = BatchRequest("a", "Hello.")
    with ResultFile(path) as out:
        assert out.state(unnamed, model=MODEL) == "finished"
        assert list(out.unanswered([unnamed], model=MODEL)) == []


async def test_each_sample_has_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    a, b = request("a"), request("b")
    await append_all(path, [answered(a), answered(a, sample=2), refused(b)])
    with ResultFile(path) as out:
        assert out.states(a, 4) == ["finished", "missing", "finished", "missing"]
        assert out.states(request("a", "Other."), 2) == ["changed", "missing"]
        with pytest.raises(ValueError, match="'a' already has a line"):
            await out.append(answered(a, sample=2))
        asked = list(out.unanswered([a, b, request("c")], samples=3))
        assert [(r.key, r.samples) for r in asked] == [
            ("a", (1,)),
            ("b", (1, 2)),
            ("c", (0, 1, 2)),
        ]
        for missing in asked:
            for sample in missing.samples or ():
                await out.append(answered(missing, sample=sample))
        assert list(out.unanswered([a, b, request("c")], samples=3)) == []
        with pytest.raises(ValueError, match="samples must be a whole number"):
            list(out.unanswered([a], samples=0))
        with pytest.raises(ValueError, match="'a' belonged to another request"):
            list(out.unanswered([request("a", "Other.")], samples=3))


async def test_samples_beyond_the_wanted_ones_are_compared(tmp_path: Path) -> None:
    a, other = request("a"), request("a", "Other.")
    b = BatchRequest("b", "Hello.")
    failed = msgspec.structs.replace(refused(request("c", "Other.")), sample=5)
    answers = [answered(a, sample=7), answered(request("b"), sample=1), failed]
    await append_all(tmp_path / "out.jsonl", answers)
    with ResultFile(tmp_path / "out.jsonl") as out:
        asked = [a, b, request("c"), request("d")]
        assert not any(out.has_other_answers(one, model=MODEL) for one in asked)
        assert list(out.unanswered(asked, model=MODEL)) == asked
        assert out.has_other_answers(other)
        with pytest.raises(ValueError, match="'a' belonged to another request"):
            list(out.unanswered([other]))
        await out.append(answered(other, sample=8))  # now the file has answers to both
        assert out.has_other_answers(a)
        assert out.has_other_answers(other)
        out.forget(lambda key, ok: key == "a")
        assert list(out.unanswered([other])) == [other]


async def test_a_failed_sample_is_forgotten_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    a = request("a")
    failed = [msgspec.structs.replace(refused(a), sample=n) for n in (1, 2)]
    await append_all(path, [answered(a), *failed])
    with ResultFile(path) as out:
        assert out.forget(lambda key, ok: not ok, samples=2) == 1
        assert out.states(a, 3) == ["finished", "missing", "failed"]
        assert out.forget(lambda key, ok: not ok) == 1
        assert out.states(a, 3) == ["finished", "missing", "missing"]


@given(
    st.text(st.sampled_from("\0a01"), min_size=1, max_size=5),
    st.text(st.sampled_from("\0a01"), min_size=1, max_size=5),
)
def test_no_two_lines_have_one_name(one: str, other: str) -> None:
    names = [result_file._name(key, n) for key in {one, other} for n in (0, 1, 10)]
    assert len(set(names)) == len(names)


async def test_a_request_that_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await append_all(path, [answered(request("a", params={"seed": 1}))])
    with ResultFile(path) as out:
        for other in (
            request("a", "Hello!", params={"seed": 1}),
            request("a", params={"seed": 2}),
            request("a", params={"seed": 1}, extra={"x": 1}),
            BatchRequest("a", "Hello.", model_on("openai"), {"seed": 1}, meta=5),
        ):
            assert out.state(other) == ("changed" if other.meta is None else "finished")
        elsewhere = msgspec.structs.replace(MODEL, base_url="http://other.invalid/v1", name="c")
        with pytest.raises(ValueError, match="'a' belonged to another request"):
            list(out.unanswered([request("a")]))
    same = msgspec.structs.replace(elsewhere, name=MODEL.name)
    assert fingerprint(BatchRequest("a", "x", same)) == fingerprint(request("a", "x"))
    assert fingerprint(BatchRequest("a", "x", elsewhere)) != fingerprint(request("a", "x"))


def test_the_hash_of_a_request_is_that_of_earlier_versions() -> None:
    """Files of results that they wrote must be gone on with."""
    asked = BatchRequest(
        "k",
        [llm.user("Hello")],
        llm.compatible("m", base_url="http://test.invalid/v1"),
        {"max_tokens": 5, "tools": [llm.Tool(name="t", parameters={})], "response_format": dict},
        extra={"x": 1},
    )
    assert fingerprint(asked) == "51c773c3d7776237"
    call = llm.ToolCall(id="x", name="f", arguments="{}")
    said = llm.assistant(llm.TextPart("a", citations=({"u": 1},)), llm.RefusalPart("no"), call)
    history = [llm.user("q"), said, llm.tool_result(call, "r")]
    model = llm.compatible("m", base_url="http://test.invalid/v1")
    asked = BatchRequest("k", history, model, extra={"a": [1], "extra": None})
    assert fingerprint(asked) == "9ed67bd3b1958569"


@pytest.mark.parametrize("name", [None, "ann", 'a"b\\'])
def test_only_a_cut_turn_changes_the_hash(name: str | None) -> None:
    whole = [llm.user('"name":null,"cut":false}', name=name), llm.assistant("a")]
    raw = bytes(_as_before(_encode(whole)))
    assert raw.count(b'"cut":') == 0
    assert raw.count(rb"\"cut\"") == 1
    cut = [whole[0], msgspec.structs.replace(whole[1], cut=True)]
    model = llm.compatible("m", base_url="http://test.invalid/v1")
    assert fingerprint(BatchRequest("k", whole, model)) != fingerprint(
        BatchRequest("k", cut, model)
    )


def test_a_hash_of_a_request_knows_types_and_functions() -> None:
    class Other:
        pass

    marks = {
        fingerprint(request(params=p))
        for p in ({"tools": [Own]}, {"tools": [Other]}, {"tools": [fingerprint]}, {}, {"seed": 1})
    }
    assert len(marks) == 5
    one, two = {"seed": 1, "stop": "x"}, {"stop": "x", "seed": 1}
    assert fingerprint(request(params=one)) == fingerprint(request(params=two))


async def test_failures_are_forgotten_to_be_sent_again(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    every = [request(str(n)) for n in range(6)]
    await append_all(path, [(answered if n % 2 else refused)(r) for n, r in enumerate(every)])
    with ResultFile(path) as out:
        assert out.forget(lambda key, ok: not ok and key != "0") == 2
        assert (out.finished, out.failed) == (3, 1)
        assert list(out.unanswered(every)) == [every[2], every[4]]
        with pytest.raises(ResultFileError, match="in this process or another"):
            ResultFile(path)  # the new file is locked as the old one was
        await out.append(answered(every[2]))
    assert [line["custom_id"] for line in lines_of(path)] == ["0", "1", "3", "5", "2"]
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_a_kill_while_forgetting_leaves_is_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    await append_all(path, [refused(request("a")), answered(request("b"))])
    append_file.beside(path).write_bytes(path.read_bytes()[:100])
    with ResultFile(path) as out:
        assert (out.finished, out.failed) == (1, 1)
        assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]
        assert out.forget(lambda key, ok: not ok) == 1
    assert [line["custom_id"] for line in lines_of(path)] == ["b"]


async def test_forgetting_that_fails_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    await append_all(path, [refused(request("a")), answered(request("b"))])
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    with ResultFile(path) as out:
        with monkeypatch.context() as patched:
            patched.setattr(Path, "replace", fail)
            with pytest.raises(OSError, match="full"):
                out.forget(lambda key, ok: True)
        assert (out.finished, out.failed) == (1, 1)
        await out.append(answered(request("c")))
    assert path.read_bytes().startswith(before)
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


async def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultFile(path):
        with pytest.raises(ResultFileError, match="in this process or another"):
            ResultFile(path)
    ResultFile(path).close()


@pytest.mark.skipif(not locks.HAS_LOCKS, reason="there are no locks here anyway")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
async def test_a_file_system_without_locks_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(code, "no locks here")

    monkeypatch.setattr("fcntl.flock", fail)
    path = tmp_path / "out.jsonl"
    with ResultFile(path) as out:
        await out.append(refused(request("a")))
        assert out.forget(lambda key, ok: not ok) == 1
        await out.append(answered(request("a")))
    assert [line["ok"] for line in lines_of(path)] == [True]
    (told,) = caplog.records
    assert told.getMessage() == (
        f"{path} is on a file system without locks (no locks here):"
        " nothing keeps a second process from writing to it at the same time"
    )


async def test_a_lock_that_fails_otherwise_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "broken")

    pytest.importorskip("fcntl")
    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="broken"):
        ResultFile(tmp_path / "out.jsonl")


def test_only_files_of_results_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    theirs = {"id": "batch_req_1", "custom_id": "a", "response": {"status_code": 200}}
    for foreign in (openai_line(), theirs, "# Notes", "{}", "[1]"):
        written(path, foreign)
        before = path.read_bytes()
        with pytest.raises(ResultFileError, match="line 1 is not a result of a batch"):
            ResultFile(path)
        assert path.read_bytes() == before
        path.write_bytes(before[:-1])  # nor is what lacks its end cut off
        with pytest.raises(ResultFileError, match="line 1 is not a result of a batch"):
            ResultFile(path)
        assert path.read_bytes() == before[:-1]
    with pytest.raises(OSError):
        ResultFile(tmp_path)
    with pytest.raises(OSError):
        ResultFile(tmp_path / "no" / "out.jsonl")
    with pytest.raises(ResultFileError, match="not a regular file"):
        ResultFile("/dev/null")


# -- what a kill leaves ----------------------------------------------------------------------


def _whole_file(tmp_path: Path) -> tuple[list[BatchRequest], bytes]:
    path = tmp_path / "whole.jsonl"
    texts = ["Hi.", 'a "quote" }\n', "ß€😀" * 5, "", '{"id":"batch_req_', "\x00"]
    every = [request(f"{n}-ß") for n in range(len(texts))]
    made = [answered(r, t) if t else refused(r) for r, t in zip(every, texts, strict=True)]
    trio.run(append_all, path, made)
    return every, path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[BatchRequest], bytes, Path]:
    folder = tmp_path_factory.mktemp("torn")
    return *_whole_file(folder), folder


@settings(max_examples=300, deadline=None)
@given(cut=st.integers(0, 10_000), tail=st.sampled_from([b"", b"\x00" * 20]))
def test_a_file_cut_at_any_byte(
    whole: tuple[list[BatchRequest], bytes, Path], cut: int, tail: bytes
) -> None:
    every, data, folder = whole
    cut %= len(data) + 1
    path = folder / "cut.jsonl"
    if cut < len(MARKER):
        tail = b""
    path.write_bytes(data[:cut] + tail)
    ends = [n for n, byte in enumerate(data) if byte == ord("\n")]
    # A line that lacks only its newline is whole, unless something else follows.
    count = sum(end + bool(tail) <= cut for end in ends)
    with ResultFile(path, fsync="never") as out:
        states = [out.state(r) for r in every]
        assert [s != "missing" for s in states] == [n < count for n in range(len(every))]
        rest = list(out.unanswered(every))

        async def go_on() -> None:
            for asked in rest:
                await out.append(answered(asked))

        trio.run(go_on)
    assert [line["custom_id"] for line in lines_of(path)] == [r.key for r in every]
    with ResultFile(path, fsync="never") as out:
        assert out.torn == 0
        assert list(out.unanswered(every)) == []


def test_a_line_mangled_in_between_is_told_and_sent_again(tmp_path: Path) -> None:
    every, data = _whole_file(tmp_path)
    lines = data.splitlines(keepends=True)
    lines[2] = lines[2][:40] + b"\x00" * 8 + lines[2][48:]
    path = tmp_path / "mangled.jsonl"
    path.write_bytes(b"".join(lines))
    with ResultFile(path) as out:
        assert out.torn == 1
        assert list(out.unanswered(every)) == [every[2]]
    assert len(list(read_results(path))) == len(every) - 1
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("written_bytes", [0, 1, 50])
async def test_a_full_disk_leaves_no_torn_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written_bytes: int
) -> None:
    path = tmp_path / "out.jsonl"
    real: Callable[[int, Any], int] = os.write
    calls = 0

    def short(fd: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 1 or not written_bytes:
            raise OSError(errno.ENOSPC, "full")
        return real(fd, data[:written_bytes])

    with ResultFile(path) as out:
        await out.append(answered(request("a")))
        before = path.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", short)
            with pytest.raises(OSError, match="full"):
                await out.append(answered(request("b")))
        assert path.read_bytes() == before
        assert out.state(request("b")) == "missing"
        await out.append(answered(request("b")))
    assert [line["custom_id"] for line in lines_of(path)] == ["a", "b"]


@pytest.mark.parametrize(("fsync", "expected"), [("never", 0), ("interval", 3), ("always", 4)])
async def test_when_the_disk_is_waited_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: trio.testing.MockClock,
    fsync: Any,
    expected: int,
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with ResultFile(tmp_path / "out.jsonl", fsync=fsync) as out:
        for key in "ab":
            await out.append(answered(request(key)))
        while not out._file._idle.is_set():  # the thread of "interval"
            await trio.lowlevel.checkpoint()
        await trio.sleep(append_file.FSYNC_SECONDS)
        for key in "cd":
            await out.append(answered(request(key)))
    assert len(calls) == expected
    with pytest.raises(ValueError, match="fsync must be"):
        ResultFile(tmp_path / "out.jsonl", fsync="sometimes")  # type: ignore[arg-type]


async def test_a_disk_that_fails_behind_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "broken")

    out = ResultFile(tmp_path / "out.jsonl", fsync="interval")
    monkeypatch.setattr(os, "fsync", fail)
    await out.append(answered(request("a")))
    while not out._file._idle.is_set():
        await trio.lowlevel.checkpoint()
    await trio.sleep(append_file.FSYNC_SECONDS)
    with pytest.raises(OSError, match="broken"):
        await out.append(answered(request("b")))
    with pytest.raises(OSError, match="broken"):
        out.close()
    out.close()


async def test_one_wait_for_the_disk_serves_all_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(os, "fsync", calls.append)
    with ResultFile(tmp_path / "out.jsonl", fsync="always") as out:
        async with trio.open_nursery() as nursery:
            for n in range(50):
                nursery.start_soon(out.append, answered(request(str(n))))
    assert len(lines_of(tmp_path / "out.jsonl")) == 50
    assert len(calls) <= 3


async def test_cancellation_comes_before_a_line_or_after_it(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with ResultFile(path, fsync="always") as out:
        with trio.CancelScope() as scope:
            scope.cancel()
            await out.append(answered(request("a")))
        assert out.state(request("a")) == "missing"
        assert path.read_bytes() == b""


@given(
    key=st.text(min_size=1, max_size=50).filter(lambda k: k.isprintable() or "\n" in k),
    text=st.text(),
    meta=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
)
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, key: str, text: str, meta: Any
) -> None:
    path = tmp_path_factory.mktemp("round") / "out.jsonl"
    trio.run(append_all, path, [answered(request(key, meta=meta), text)])
    (line,) = read_results(path)
    assert (line.key, line.content, line.meta, line.ok) == (key, text, meta, True)
    with ResultFile(path) as out:
        assert out.state(request(key)) == "finished"
    assert repr(line) == f"<ResultLine {key!r} finished>"


@pytest.mark.parametrize(
    ("reason", "shown", "native"),
    [
        ("end_turn", "stop", "end_turn"),
        ("max_tokens", "length", "max_tokens"),
        ("pause_turn", "pause_turn", None),  # no answer yet, and no word of OpenAI's
        ("stop", "stop", None),
        ("completed", "stop", "completed"),
        ("incomplete", "length", "incomplete"),
    ],
)
def test_finish_reasons_in_the_words_of_openai(reason: str, shown: str, native: str | None) -> None:
    response = llm.CompletionResponse(choices=(llm.Choice(content="a", finish_reason=reason),))
    (found,) = result_format.completion(response, 0)["choices"]
    assert (found["finish_reason"], found.get("native_finish_reason")) == (shown, native)


def test_finish_reasons_of_openai_responses_that_one_word_has_in_common() -> None:
    call = llm.ToolCall(id="c", name="f")
    calls = llm.Choice(tool_calls=(call,), parts=(call,), finish_reason="completed")
    (found,) = result_format.completion(llm.CompletionResponse(choices=(calls,)), 0)["choices"]
    assert (found["finish_reason"], found["native_finish_reason"]) == ("tool_calls", "completed")
    filtered = llm.CompletionResponse(
        choices=(llm.Choice(content="a", finish_reason="incomplete"),),
        metadata={"incomplete_details": {"reason": "content_filter"}},
    )
    (found,) = result_format.completion(filtered, 0)["choices"]
    assert (found["finish_reason"], found["native_finish_reason"]) == (
        "content_filter",
        "incomplete",
    )
