"""Options of ``trio-minillm bench`` that say what is sent, run as a user runs them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("numpy", reason="needs the extra [cli]")

from trio_minillm import testing
from trio_minillm._protocol.request import body_of, make_request
from trio_minillm.cli._bench_prompt_options import PromptChoice
from trio_minillm.cli._bench_request_options import RequestChoice
from trio_minillm.cli._output import Misuse

from ..support.bench_command import bench, command, measured
from ..support.command import COMMAND, KEY, run
from ..support.endpoint import OPENING, Endpoint, chunk, text
from ..support.local_model import needs_local_model
from ..support.wires import KINDS

VENDOR = {"note": "n" * 100, "on": True, "mode": "a", "service_key": "the secret"}
HEADER = "X-Tenant: tenant-0123456789abcdef"


def asked(endpoint: Endpoint) -> list[list[str]]:
    """Return the messages of each request that has come."""
    return [[m["content"] for m in body["messages"]] for body in endpoint.requests]


# -- the request ---------------------------------------------------------------------------------


def test_every_option_reaches_the_body_and_no_text_the_results(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    schema, extra = tmp_path / "schema.json", tmp_path / "extra.json"
    schema.write_text('{"type": "object", "properties": {"a": {"type": "string"}}}')
    extra.write_text(json.dumps({"vendor": VENDOR}))
    found = measured(
        *(endpoint, "--requests", "1", "--prompt", "the secret prompt"),
        *("--system", "the secret system", "--max-tokens", "9", "--min-tokens", "3"),
        *("--temperature", "0.5", "--top-p", "0.9", "--seed", "7", "--stop", "END", "--stop", "."),
        *("--reasoning", "low", "--schema", str(schema), "--extra", f"@{extra}", "--ignore-eos"),
    )
    (body,) = endpoint.requests
    assert asked(endpoint) == [["the secret system", "the secret prompt"]]
    wanted = {"max_tokens": 9, "min_tokens": 3, "temperature": 0.5, "top_p": 0.9, "seed": 7}
    assert wanted.items() <= body.items()
    assert body["stop"] == ["END", "."]
    assert (body["reasoning_effort"], body["ignore_eos"]) == ("low", True)
    assert body["vendor"] == VENDOR
    assert body["response_format"]["json_schema"]["schema"]["type"] == "object"
    told = found["config"]["request"]
    assert told["params"]["response_format"] == {"schema": "response"}
    assert told["extra"]["vendor"] == {
        "note": {"characters": 100},
        "on": True,
        "mode": "a",
        "service_key": {"characters": 10},
    }
    assert told["system"] == {"characters": len("the secret system")}
    assert "secret" not in json.dumps(found)


async def test_a_header_is_sent_and_never_shown() -> None:
    refusal = testing.json_reply({"error": {"message": f"no {HEADER}"}}, status=403)
    async with testing.serve(testing.answer("Hi"), refusal) as server:
        at = ("-m", "compatible:m", "--base-url", f"http://127.0.0.1:{server.port}/v1")
        args = ("bench", *at, "--requests", "2", "--concurrency", "1", "--header", HEADER)
        for more in ((), ("--json",)):
            ran = await trio.to_thread.run_sync(partial(run, [*COMMAND, *args, *more]))
            assert "tenant-0123456789" not in ran.out + ran.err
            assert "--header" not in ran.err
        assert json.loads(ran.out)["config"]["request"]["headers"] == ["X-Tenant"]
        assert {request.headers["x-tenant"] for request in server.requests} == {HEADER[10:]}


def test_options_show_nothing_of_what_they_hold() -> None:
    choice = RequestChoice(system="the secret", header=["a: secret"], extra='{"a": "secret"}')
    asked = choice.asked("compatible", max_tokens=5, to_the_end=False)
    told = repr((choice, asked, PromptChoice(prompt="the secret")))
    assert "secret" not in told


OPTIONS: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "seed": 3,
    "stop": ["END"],
    "reasoning": "low",
    "schema": True,
    "system": "Be brief.",
    "extra": '{"vendor_field": 1}',
    "header": ["x-a: b"],
    "min_tokens": 4,
    "ignore_eos": True,
}
OWN = {"min_tokens", "ignore_eos"}
LACKING: dict[str, set[str]] = {
    "openai": OWN,
    "openrouter": OWN,
    "anthropic": OWN | {"seed"},
    "openai-responses": OWN | {"seed", "stop"},
    "gemini": OWN,
    "text": {"reasoning", "schema", "system"},
    "compatible": set(),
}
"""Options that a kind of model does not take."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_is_sent_on_every_wire_or_refused(kind: str, name: str, tmp_path: Path) -> None:
    value, given = OPTIONS[name], KINDS[kind]
    if name == "schema":
        value = tmp_path / "schema.json"
        value.write_text('{"type": "object"}')
    model = given.make("m", base_url="http://127.0.0.1" + given.base, api_key=KEY)

    def body(**options: Any) -> Any:
        found = RequestChoice(**options).asked(kind, max_tokens=5, to_the_end=False)
        to = found.on(model)
        assert isinstance(to, llm.Model)
        messages = tuple(m for m in (found.message, llm.user("Hi")) if m is not None)
        return body_of(make_request(to, messages, found.params)), to.headers

    if name in LACKING[kind]:
        with pytest.raises((Misuse, ValueError)):
            body(**{name: value})
    else:
        assert body(**{name: value}) != body()


SECOND = ("--hedge", "anthropic:m", "--hedge-base-url", "http://127.0.0.1:1", "--after", "1")


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("anthropic", ("--seed", "1"), "seed: not a parameter of the anthropic wire"),
        ("openai-responses", ("--stop", "x"), "stop: not a parameter"),
        ("text", ("--reasoning", "low"), "reasoning: not a parameter"),
        ("text", ("--input-tokens", "9", "--turns", "2"), "continue one prompt"),
        ("openai", ("--ignore-eos",), "--ignore-eos works only with compatible, local, and text"),
        ("compatible", (*SECOND, "--seed", "1"), "seed: not a parameter of the anthropic"),
        ("compatible", (*SECOND, "--seed", "1", "--input-tokens", "9"), "seed: not a parameter"),
        ("compatible", ("--extra", "[]"), "--extra must be a JSON object"),
        ("compatible", ("--extra", "@/no/such"), "No such file"),
        ("compatible", ("--extra", '{"max_tokens": 5}'), "must not contain max_tokens"),
        ("compatible", ("--extra", '{"top_p": 1}'), "top_p"),
        (
            "compatible",
            ("--extra", '{"min_tokens": 1}', "--min-tokens", "2"),
            "can't be combined with",
        ),
        ("compatible", ("--header", "x"), "NAME:VALUE"),
        ("compatible", ("--header", "a: 1", "--header", "A: 2"), "given twice"),
        ("compatible", ("--header", "a: tenant-012345\x01"), "header"),
        ("compatible", ("--schema", "/no/such"), "No such file"),
        ("compatible", ("--top-p", "nan"), "top_p"),
        (
            "compatible",
            ("--prompt", "a", "--prompts", "b"),
            "--prompt can't be combined with --prompts",
        ),
        ("compatible", ("--prompt", " "), "the prompt is empty"),
        ("compatible", ("--prompts", "/no/such"), "the prompts /no/such: No such file"),
        ("compatible", ("--prompt-column", "a"), "--prompt-column needs --prompts"),
        ("compatible", ("--turns", "2"), "--turns needs --prompts or --input-tokens"),
        ("compatible", ("--prefix-share", "0.5"), "needs --input-tokens"),
        ("compatible", ("--input-tokens", "9", "--prefix-share", "2"), "from 0 to 1"),
        ("compatible", ("--input-tokens", "many"), "--input-tokens must be a number, uniform"),
        ("compatible", ("--input-tokens", "0"), "from 1 to"),
        ("compatible", ("--input-tokens", "9", "--think", "1"), "--think needs --turns"),
        ("compatible", ("--output-tokens", "same"), "same needs --prompts"),
        ("compatible", ("--output-tokens", "5", "--max-tokens", "5"), "can't be combined with"),
    ],
)
def test_misuse_sends_nothing(
    endpoint: Endpoint, kind: str, args: tuple[str, ...], words: str
) -> None:
    keys = {"OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY}
    ran = run(command(endpoint, *args, kind=kind), **keys)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert words in ran.err
    assert "tenant-012345" not in ran.err
    assert endpoint.requests == []


def test_a_local_model_takes_no_header() -> None:
    ran = run([*COMMAND, "bench", "-m", "local", "--header", "a: b"])
    assert (ran.code, ran.out) == (2, "")
    assert "--header can't be combined with a local model" in ran.err


# -- prompts -------------------------------------------------------------------------------------


def test_prompts_of_json_lines(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text(
        '{"prompt": "secret one", "max_tokens": 4, "extra": {"vendor": 2}}\n'
        '{"system": "Be brief.", "prompt": "secret two"}\n'
    )
    found = measured(
        *(endpoint, "--prompts", str(path), "--requests", "3", "--concurrency", "1"),
        *("--system", "the command's", "--extra", '{"vendor": 1}', "--max-tokens", "50"),
    )
    assert asked(endpoint) == [
        ["the command's", "secret one"],
        ["Be brief.", "secret two"],
        ["the command's", "secret one"],
    ]
    assert [body["max_tokens"] for body in endpoint.requests] == [4, 50, 4]
    assert [body["vendor"] for body in endpoint.requests] == [2, 1, 2]
    told = found["config"]["prompts"]
    assert (told["kind"], told["count"], told["turns"]) == ("file", 2, 2)
    assert told["characters"] == len("secret oneBe brief.secret two")
    assert told["own_params"] == ["extra", "max_tokens"]
    assert "secret" not in json.dumps(found)


def test_a_bad_line_is_told_before_anything_is_sent(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "fine"}\n{"prompt": "a secret", "max_tokenz": 1}\n')
    ran = bench(endpoint, "--prompts", str(path))
    assert (ran.code, endpoint.requests) == (2, [])
    assert "in.jsonl: line 2: unknown field: max_tokenz (did you mean max_tokens?)" in ran.err
    assert "secret" not in ran.err
    path.write_text('{"question": "a secret"}\n')
    ran = bench(endpoint, "--prompts", str(path))
    assert "; name the column with the prompt with --prompt-column" in ran.err
    assert "secret" not in ran.err


def test_options_of_other_benchmarks_are_known_by_name(endpoint: Endpoint) -> None:
    ran = bench(endpoint, "--request-rate", "5")
    assert (ran.code, endpoint.requests) == (2, [])
    assert "no such option: --request-rate; here it is --rate" in ran.err


def test_columns_of_a_table(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text("q;x\n".replace(";", ",") + "Hi,1\n")
    args = ("--format", "csv", "--prompt-column", "q", "--requests", "1", "--unique")
    measured(endpoint, "--prompts", str(path), *args)
    ((prompt,),) = asked(endpoint)
    assert (len(prompt.split()), prompt.split()[-1]) == (7, "Hi")


def test_turns_of_a_file_of_conversations(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    said = [("human", "Hi"), ("gpt", "a" * 40), ("human", "Sing"), ("gpt", "b" * 8)]
    row = {"conversations": [{"from": who, "value": words} for who, words in said]}
    path.write_text(json.dumps([row]))
    args = ("--turns", "2", "--think", "0.01", "--output-tokens", "same", "--requests", "2")
    found = measured(endpoint, "--prompts", str(path), *args)
    assert asked(endpoint) == [["Hi"], ["Hi", "Hello.", "Sing"]]
    assert [body["max_tokens"] for body in endpoint.requests] == [10, 2]
    assert (
        "the tokens of recorded answers were estimated at 4 characters each"
        in found["points"][0]["notes"]
    )


def counting(endpoint: Endpoint, around: int = 5) -> None:
    """Let an endpoint count words as tokens, and end each answer by itself."""

    def script(number: int) -> tuple[int, list[Any]]:
        words = sum(len(m["content"].split()) for m in endpoint.requests[number]["messages"])
        usage = {"prompt_tokens": around + words, "completion_tokens": 2}
        end = chunk({}, "stop") + chunk(usage=usage) + b"data: [DONE]\n\n"
        return 200, [OPENING, text("a", "b"), end]

    endpoint.script = script


def test_made_prompts_have_the_tokens_that_the_server_counts(endpoint: Endpoint) -> None:
    counting(endpoint)
    found = measured(
        *(endpoint, "--input-tokens", "uniform(40, 60)", "--output-tokens", "uniform(3, 8)"),
        *(
            "--prefix-share",
            "0.5",
            "--requests",
            "6",
            "--concurrency",
            "1",
            "--system",
            "Be brief.",
        ),
    )
    probes, sent = endpoint.requests[:2], endpoint.requests[2:]
    assert len(sent) == 6
    assert len({len(body["messages"][1]["content"]) for body in probes}) == 2
    lengths = [len(body["messages"][1]["content"].split()) + 7 for body in sent]
    assert all(40 <= n <= 60 for n in lengths)
    assert len({body["messages"][1]["content"][:40] for body in sent}) == 1
    assert all(3 <= body["max_tokens"] <= 8 for body in sent)
    told = found["config"]["prompts"]
    assert (told["kind"], told["output_tokens"]) == ("made", "uniform(3, 8)")
    assert told["made"]["template_tokens"] == 7.0
    notes = found["points"][0]["notes"]
    assert any(note.startswith("prompts had the requested length") for note in notes)
    assert any(
        note.startswith("6 of 6 answers ended before their maximum length") for note in notes
    )


def test_the_lengths_of_a_trace_and_of_recordings(endpoint: Endpoint, tmp_path: Path) -> None:
    counting(endpoint, around=0)
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 30, "output_length": 4}\n')
    found = measured(endpoint, "--prompts", str(path), "--trace", str(path))
    assert len(endpoint.requests) == 3, "two probes and one request"
    assert len(endpoint.requests[-1]["messages"][0]["content"].split()) == 30
    assert endpoint.requests[-1]["max_tokens"] == 4
    assert found["config"]["prompts"]["kind"] == "lengths"
    path.unlink()
    trio.run(recorded, tmp_path / "r.jsonl")
    measured(endpoint, "--prompts", str(tmp_path), "--requests", "1")
    assert len(endpoint.requests[-1]["messages"][0]["content"].split()) == 7
    assert endpoint.requests[-1]["max_tokens"] == 2


async def recorded(path: Path) -> None:
    script = testing.ScriptedTransport(testing.answer("Sea ", "salty"))
    model = llm.compatible("m", base_url="http://test.invalid/v1")
    async with testing.record(path, script) as recording:
        async with llm.open_client(transport=recording) as client:
            await client.complete(model, "Hi")


@needs_local_model
def test_a_local_model_gets_exactly_the_tokens_and_gives_them() -> None:
    args = ("--input-tokens", "normal(80, 10)", "--output-tokens", "4", "--requests", "3", "--json")
    ran = run([*COMMAND, "bench", "-m", "local", "-q", *args])
    assert ran.code == 0, ran.err
    (point,) = msgspec.json.decode(ran.out)["points"]
    assert point["tokens"]["output_tokens"] == 12
    assert any("had the requested length" in note for note in point["notes"])
