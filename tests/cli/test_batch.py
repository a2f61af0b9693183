"""``trio-minillm batch``, run as a user runs it: stopped, killed, and started again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
import trio.testing

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm._batch.throttle.controls import duration
from trio_minillm.batch import Attempt, BatchStatistics, TraceEvent, read_results
from trio_minillm.cli._batch import shard_of
from trio_minillm.cli._batch_files import open_trace
from trio_minillm.cli._batch_status import BatchStatus
from trio_minillm.cli._output import Misuse

from ..support.command import (
    COMMAND,
    ENDING,
    KEY,
    Ran,
    ended,
    endings,
    on_terminal,
    posix,
    read_until,
    run,
    running,
    wait_for,
)
from ..support.endpoint import END, HELLO, Endpoint, chunk, text
from ..support.local_model import needs_local_model
from ..support.vocabulary import write_vocabulary

DONE = b"data: [DONE]\n\n"


class Files:
    """An input of requests ``k0``, ``k1``, … and an output beside it."""

    def __init__(self, folder: Path, count: int) -> None:
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.write(count)

    def write(self, count: int, **more: Any) -> None:
        lines = ({"key": f"k{n}", "prompt": f"prompt k{n}", **more} for n in range(count))
        self.source.write_text("".join(json.dumps(line) + "\n" for line in lines))

    @property
    def keys(self) -> list[str]:
        """Of all lines of the output, which must be whole; none without an output."""
        if not self.target.exists():
            return []
        return [json.loads(line)["custom_id"] for line in self.target.read_bytes().splitlines()]

    @property
    def whole(self) -> set[str]:
        """Keys of the lines that are whole."""
        return {line.key for line in read_results(self.target)} if self.target.exists() else set()


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path, 10)


def asked(endpoint: Endpoint) -> list[str]:
    """The keys that were sent."""
    return [request["messages"][-1]["content"].split()[-1] for request in endpoint.requests]


def command(endpoint: Endpoint, files: Files, *args: str, kind: str = "compatible") -> list[str]:
    where = ["-m", f"{kind}:m", "--base-url", endpoint.url]
    return [*COMMAND, "batch", str(files.source), str(files.target), *where, *args]


def batch(endpoint: Endpoint, files: Files, *args: str, code: int = 0) -> Ran:
    ran = run(command(endpoint, files, *args))
    assert ran.code == code, ran.err
    return ran


def summary(endpoint: Endpoint, files: Files, *args: str, code: int = 0) -> dict[str, Any]:
    ran = batch(endpoint, files, "--summary", "json", "--quiet", *args, code=code)
    found: dict[str, Any] = json.loads(ran.out)
    assert found["exit_code"] == code
    return found


def refused(status: int, **error: str) -> tuple[int, list[Any]]:
    return status, [json.dumps({"error": {"message": "no", **error}}).encode()]


@pytest.mark.parametrize("option", ["--ledger", "--cache"])
@pytest.mark.parametrize("name", ["in.jsonl", "out.jsonl", "link.jsonl"])
def test_no_file_is_two(endpoint: Endpoint, files: Files, option: str, name: str) -> None:
    before, other = files.source.read_bytes(), files.source.with_name(name)
    if name == "link.jsonl":
        other.hardlink_to(files.source)
    place = "output" if name == "out.jsonl" else "input"
    ran = batch(endpoint, files, option, str(other), code=2)
    assert ran.err == f"error: {option} must not be the same file as the {place}\n"
    assert (files.source.read_bytes(), files.target.exists()) == (before, False)


def test_options_that_would_do_nothing_are_refused(endpoint: Endpoint, files: Files) -> None:
    ran = batch(endpoint, files, "--no-adapt", code=2)
    assert "--no-adapt needs a number for --concurrency" in ran.err
    ran = batch(endpoint, files, "--concurrency", "5", "--max-concurrency", "2", code=2)
    assert "--max-concurrency needs --concurrency auto" in ran.err
    local = [*COMMAND, "batch", str(files.source), str(files.target), "-m"]
    assert run([*local, "local", "--max-concurrency", "2"]).code == 2
    assert "--model is " in run([*local, "local:"]).err
    assert not files.target.exists()


def test_the_help_names_the_clock_of_one_attempt() -> None:
    said = " ".join(run([*COMMAND, "batch", "--help"]).out.split())
    assert "Stop an attempt after S seconds. [600]" in said


def test_one_bad_line_is_one(endpoint: Endpoint, files: Files) -> None:
    files.source.write_text(files.source.read_text() + "[]\n")
    assert "note: 1 bad line was left out; line 11" in batch(endpoint, files, "--skip-bad").out


# -- what is sent, and what comes of it --------------------------------------------------------


def test_a_file_in_and_a_file_out(endpoint: Endpoint, files: Files) -> None:
    ran = batch(endpoint, files, "--max-tokens", "9", "--temperature", "0")
    assert sorted(files.keys) == sorted(asked(endpoint)) == sorted(f"k{n}" for n in range(10))
    assert {(r["max_tokens"], r["temperature"]) for r in endpoint.requests} == {(9, 0)}
    (line, *_) = read_results(files.target)
    assert (line.ok, line.content, line.response and line.response["status_code"]) == (
        True,
        "Hello.",
        200,
    )
    assert line.usage is not None
    assert line.usage["total_tokens"] == 38
    assert "finished: 10 of 10 (stop 10)\n" in ran.out
    assert "cost: unpriced" in ran.out
    assert "first content\t10\t" in ran.out
    assert "no result" not in ran.out


def test_the_form_of_openais_batch_api(endpoint: Endpoint, files: Files) -> None:
    body = {"model": "other", "messages": [{"role": "user", "content": "prompt a"}], "seed": 1}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    files.source.write_text(json.dumps(line) + "\n")
    batch(endpoint, files)
    (request,) = endpoint.requests
    assert (request["model"], request["seed"], files.keys) == ("other", 1, ["a"])
    files.target.unlink()
    batch(endpoint, files, "--one-model")
    assert endpoint.requests[1]["model"] == "m"


def test_the_same_command_again_sends_nothing(endpoint: Endpoint, files: Files) -> None:
    batch(endpoint, files)
    before = files.target.read_bytes()
    ran = batch(endpoint, files)
    assert len(endpoint.requests) == 10
    assert files.target.read_bytes() == before
    assert "before: 10 finished" in ran.out
    files.write(12)
    found = summary(endpoint, files)
    assert (found["requests"]["to_send"], found["requests"]["finished_before"]) == (2, 10)
    assert len(endpoint.requests) == 12


def test_results_in_the_order_of_the_requests(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [0.3 if n == 0 else 0.0, HELLO])
    batch(endpoint, files, "--order", "--concurrency", "10")
    assert files.keys == [f"k{n}" for n in range(10)]


def test_concurrency(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [0.03, HELLO])
    batch(endpoint, files, "--concurrency", "3")
    assert endpoint.most == 3


def test_shards(endpoint: Endpoint, files: Files) -> None:
    for part in 1, 2, 3:
        batch(endpoint, files, "--shard", f"{part}/3")
        assert len(set(asked(endpoint))) == len(endpoint.requests)
    assert sorted(files.keys) == sorted(f"k{n}" for n in range(10))
    assert shard_of("3/16") == (3, 16)
    for wrong in "0/3", "4/3", "a/b", "3", "1/", "-1/3":
        with pytest.raises(Misuse):
            shard_of(wrong)


def test_answers_out_of_a_cache(endpoint: Endpoint, files: Files) -> None:
    cache = str(files.source.with_name("cache.db"))
    batch(endpoint, files, "--cache", cache)
    files.target = files.source.with_name("again.jsonl")
    found = summary(endpoint, files, "--cache", cache)
    assert len(endpoint.requests) == 10
    assert (found["requests"]["finished"], found["requests"]["cached"]) == (10, 10)
    files.target.unlink()
    assert "finished: 10 of 10\nfrom cache: 10\n" in batch(endpoint, files, "--cache", cache).out
    assert all(
        line.cached and line.ok and line.attempts == [] for line in read_results(files.target)
    )
    files.target = files.source.with_name("third.jsonl")
    files.source.with_name("cache.db").write_text("nonsense" * 1000)
    ran = batch(endpoint, files, "--cache", cache, code=2)
    assert "the cache " in ran.err


@needs_local_model
def test_answers_of_the_local_model_out_of_a_cache(files: Files) -> None:
    files.write(2, max_tokens=3)
    found = []
    for name in "first.jsonl", "again.jsonl":
        cache = str(files.source.with_name("cache.db"))
        where = [str(files.source), str(files.source.with_name(name))]
        ran = run([*COMMAND, "batch", *where, "-m", "local", "--cache", cache, "--summary", "json"])
        found.append(json.loads(ran.out)["requests"])
    assert [(one["finished"], one["cached"]) for one in found] == [(2, 0), (2, 2)]


# -- samples -----------------------------------------------------------------------------------


def names(files: Files) -> list[tuple[str, int]]:
    """The key and the number of each line of the output."""
    return sorted((line.key, line.sample) for line in read_results(files.target))


def every(count: int, samples: int) -> list[tuple[str, int]]:
    return sorted((f"k{n}", sample) for n in range(count) for sample in range(samples))


def test_more_samples_later_are_the_further_ones(endpoint: Endpoint, files: Files) -> None:
    files.write(3)
    batch(endpoint, files)
    ran = batch(endpoint, files, "--samples", "3")
    assert Counter(asked(endpoint)) == {"k0": 3, "k1": 3, "k2": 3}
    assert names(files) == every(3, 3)
    assert "samples: 9 of 9 have a result: 3 of each of 3 requests\nbefore: 3 finished\n" in ran.out
    found = summary(endpoint, files, "--samples", "4", "--order")
    assert (found["samples"], found["requests"]["input"]) == (4, 3)
    assert (found["requests"]["to_send"], found["requests"]["finished_before"]) == (3, 9)
    assert names(files) == every(3, 4)
    ran = batch(endpoint, files, "--samples", "5", "--dry-run")
    assert ran.out.startswith("to send: 3 of 15 samples: 5 of each of 3 requests\n")
    batch(endpoint, files, "--samples", "2")
    assert len(endpoint.requests) == 12


def test_fewer_samples_of_another_request_are_told(endpoint: Endpoint, files: Files) -> None:
    """Also where the answers that this run asks for are missing, so that nothing else is compared."""
    files.write(2)
    batch(endpoint, files, "--samples", "3")
    lines = [line for line in files.target.read_text().splitlines() if '"sample":2' in line]
    assert len(lines) == 2
    files.target.write_text("".join(line + "\n" for line in lines))
    other = ["--samples", "2", "--temperature", "1"]
    for more in [], ["--dry-run"]:
        ran = batch(endpoint, files, *other, *more, code=2)
        assert "line 1: out.jsonl has a result with this key for another request" in ran.err
    batch(endpoint, files, *other, "--skip-bad")
    assert len(endpoint.requests) == 6
    batch(endpoint, files, "--samples", "2")
    assert names(files) == every(2, 3)


def test_what_is_counted_are_samples(endpoint: Endpoint, files: Files) -> None:
    files.write(2, max_tokens=5)
    args = ["--samples", "3", "--concurrency", "1"]
    assert " without a bound" not in batch(endpoint, files, *args, "--dry-run").out
    files.write(2)
    assert "(and 6 samples without a bound)" in batch(endpoint, files, *args, "--dry-run").out
    endpoint.script = lambda n: refused(400) if n in (1, 2) else (200, [HELLO])
    batch(endpoint, files, *args, code=6)
    ran = batch(endpoint, files, *args, code=6)
    assert "note: 2 samples failed before: --retry-failed sends them again\n" in ran.out
    kept = [line for line in files.target.read_text().splitlines() if '"ok":false' in line]
    files.target.write_text("".join(line + "\n" for line in kept))
    files.write(2, temperature=1)
    ran = batch(endpoint, files, *args)
    assert "note: 2 samples failed before and have changed since: sent again\n" in ran.out


@posix
def test_samples_that_run_are_called_so(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, END])
    with started(endpoint, files, "--samples", "2", "--concurrency", "4") as process:
        wait_for(lambda: endpoint.running == 4)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"4 samples are still running")


def test_a_failed_sample_is_sent_again_alone(endpoint: Endpoint, files: Files) -> None:
    files.write(2)
    endpoint.script = lambda n: refused(400) if n in (1, 2) else (200, [HELLO])
    batch(endpoint, files, "--samples", "3", "--concurrency", "1", code=6)
    failed = {(line.key, line.sample) for line in read_results(files.target) if not line.ok}
    assert len(failed) == 2
    endpoint.script = lambda n: (200, [HELLO])
    batch(endpoint, files, "--samples", "3", "--retry-failed")
    assert Counter(asked(endpoint)[6:]) == Counter(key for key, _ in failed)
    assert names(files) == every(2, 3)
    assert all(line.ok for line in read_results(files.target))


@posix
def test_killed_at_any_instant_each_sample_comes_once(endpoint: Endpoint, tmp_path: Path) -> None:
    chance = random.Random(3)
    files = Files(tmp_path, 12)
    endpoint.script = lambda n: (200, [0.002 * (n % 5), HELLO])
    kills, code, late = 0, None, 0
    while code != 0:
        kept = [] if code is None else names(files)
        before = len(endpoint.requests)
        wanted = before + chance.randint(3, 25)
        code = run_until(endpoint, files, wanted, "--samples", "5")
        kills += code != 0
        assert set(names(files)) >= set(kept)
        # What a killed run had sent may be read by the server only after its end.
        assert len(endpoint.requests) - before <= 60 - len(kept) + late
        late = 7
    assert names(files) == every(12, 5)
    # A kill loses what is under way, and what was answered in the turn of the loop in which it comes.
    assert len(endpoint.requests) <= 60 + 2 * 7 * kills


# -- answers that are judged -------------------------------------------------------------------

CITY = '{"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}'
PARIS = (200, [text('{"name": "Paris"}'), END])


@pytest.fixture
def schema(tmp_path: Path) -> str:
    pytest.importorskip("jsonschema", reason="needs the extra [schemas]")
    path = tmp_path / "city.json"
    path.write_text(CITY)
    return str(path)


def test_a_schema_for_all_lines(endpoint: Endpoint, files: Files, schema: str) -> None:
    files.write(2)
    endpoint.script = lambda n: PARIS if asked(endpoint)[n] == "k0" else (200, [text("{}"), END])
    ran = batch(endpoint, files, "--schema", schema, code=6)
    form = endpoint.requests[0]["response_format"]["json_schema"]
    assert (form["name"], form["schema"]["required"]) == ("response", ["name"])
    lines = {line.key: line for line in read_results(files.target)}
    assert lines["k0"].ok
    assert lines["k1"].error == {
        "code": "MismatchedAnswer",
        "message": "'name' is a required property",
    }
    assert "invalid: 1 · 'name' is a required property\n" in ran.out
    batch(endpoint, files, "--schema", schema, code=6)
    assert len(endpoint.requests) == 2


def test_cut_answers_are_told_apart_from_valid_ones(
    endpoint: Endpoint, files: Files, schema: str
) -> None:
    files.write(3)
    cut = [text('{"na'), chunk({}, "length"), chunk(usage={"completion_tokens": 8}), DONE]
    endpoint.script = lambda n: PARIS if asked(endpoint)[n] == "k0" else (200, cut)
    args = ["--schema", schema]
    ran = batch(endpoint, files, *args, "--max-tokens", "8", code=6)
    assert "finished: 3 of 3, 1 valid (2 cut at max_tokens · stop 1)\n" in ran.out
    longer = [*args, "--max-tokens", "24", "--retry-failed"]
    assert "--skip-bad keeps that result" in batch(endpoint, files, *longer, code=2).err
    endpoint.script = lambda n: PARIS
    batch(endpoint, files, *longer, "--skip-bad")
    assert len(endpoint.requests) == 5
    assert [line.ok for line in read_results(files.target)] == [True] * 3


def test_counts_that_no_answer_had_are_null(endpoint: Endpoint, files: Files) -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    endpoint.script = lambda n: (200, [text("a"), chunk({}, "stop"), chunk(usage=usage), DONE])
    found = summary(endpoint, files)["usage"]
    assert (found["prompt_tokens"], found["completion_tokens"]) == (10, 20)
    assert found["reasoning_tokens"] is found["cache_write_tokens"] is None


def test_a_line_may_have_a_format_of_its_own(endpoint: Endpoint, files: Files, schema: str) -> None:
    files.write(2, response_format={"type": "text"})
    batch(endpoint, files, "--schema", schema)
    assert [r["response_format"] for r in endpoint.requests] == [{"type": "text"}] * 2


def test_invalid_answers_are_asked_again(endpoint: Endpoint, files: Files, schema: str) -> None:
    files.write(1)
    endpoint.script = lambda n: PARIS if n == 1 else (200, [text("{}"), END])
    ledger = files.target.with_name("costs.jsonl")
    args = ["--schema", schema, "--retries-invalid", "2", "--ledger", str(ledger)]
    ran = batch(endpoint, files, *args)
    (line,) = read_results(files.target)
    assert [a.get("invalid") for a in line.attempts] == ["'name' is a required property", None]
    assert "asked again: 1 invalid answer\n" in ran.out
    assert "retried" not in ran.out
    assert [m["role"] for m in endpoint.requests[1]["messages"]] == ["user", "assistant", "user"]
    assert len(list(llm.JSONLLedger(ledger, read_only=True).records())) == 2
    batch(endpoint, files, *args)
    assert len(endpoint.requests) == 2  # the line is that of the request as it was first asked
    files.target.unlink()
    found = summary(endpoint, files, *args, code=6)
    assert (found["invalid"], found["asked_again"], len(endpoint.requests)) == (1, 2, 5)


def test_answers_are_checked_against_the_schemas_of_their_lines(
    endpoint: Endpoint, files: Files, schema: str
) -> None:
    own = {"type": "json_schema", "json_schema": {"name": "n", "schema": json.loads(CITY)}}
    files.write(1, response_format=own)
    endpoint.script = lambda n: (200, [text("{}"), END]) if n < 2 else PARIS
    batch(endpoint, files)
    assert [line.ok for line in read_results(files.target)] == [True]
    files.target.unlink()
    batch(endpoint, files, "--retries-invalid", "1")
    assert len(endpoint.requests) == 3


def test_schemas_that_are_none(endpoint: Endpoint, files: Files, schema: str) -> None:
    path = Path(schema)
    for content, what in (
        ("[1]", "not a JSON object"),
        ("{", "not a JSON object"),
        (None, "No such file or directory"),
    ):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        ran = batch(endpoint, files, "--schema", schema, code=2)
        assert ran.err == f"error: --schema {path}: {what}\n"
    path.write_text('{"type": "object", "properties": {"a": {"type": "text"}}}')
    ran = batch(endpoint, files, "--schema", schema, code=2)
    assert "line 1: " in ran.err
    assert endpoint.requests == []


def test_without_jsonschema_nothing_is_sent(endpoint: Endpoint, files: Files) -> None:
    path = files.source.with_name("city.json")
    path.write_text(CITY)
    code = "import sys; sys.modules['jsonschema'] = None; from trio_minillm.cli import main; main()"
    args = command(endpoint, files, "--schema", str(path))
    ran = run([args[0], "-P", "-W", "error", "-c", code, *args[len(COMMAND) :]])
    assert (ran.code, endpoint.requests) == (2, [])
    assert "pip install 'trio-minillm[schemas]'" in ran.err


# -- scores and checks -------------------------------------------------------------------------

JUDGE = """
def length(result):
    return len(result.response.content) if result.ok else None

class Judge:
    async def word(result):
        return {"word": result.response.content[:3]}

def odd(result):
    return object()

def broken(result):
    return {}["no such key"]

def leaving(result):
    raise SystemExit(3)

def nan(result):
    return {"mean": float("nan")}

def both(result):
    return ["a", {1, 2}]

def raw(result):
    return b"a"

def numbered(result):
    return {1: "a"}

number = 5
"""


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("judge.py").write_text(JUDGE)
    Path("broken_judge.py").write_text("import no_such_package\n")


def test_scores_by_a_function(endpoint: Endpoint, files: Files, judge: None) -> None:
    endpoint.script = lambda n: (200, [text("Hi"), END] if n % 2 else [HELLO])
    ran = batch(endpoint, files, "--score", "judge:length")
    assert sorted(line.score for line in read_results(files.target)) == [2] * 5 + [6] * 5
    assert "score: mean 4 of 10 results\n" in ran.out
    files.target.unlink()
    found = summary(endpoint, files, "--score", "judge:Judge.word", "--concurrency", "1")
    assert found["score"] == {"mean": None, "count": 0}
    assert {line.score["word"] for line in read_results(files.target)} == {"Hel", "Hi"}


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("judge", "--score takes MODULE:FUNCTION"),
        ("nothing:length", "ModuleNotFoundError: No module named 'nothing'"),
        (
            "broken_judge:x",
            "ModuleNotFoundError: No module named 'no_such_package' (broken_judge.py, line 1)",
        ),
        ("judge:nothing", "AttributeError: module 'judge' has no attribute 'nothing'"),
        ("judge:number", "not a function"),
        (
            "judge.py:length",
            (
                "ModuleNotFoundError: No module named 'judge.py'; 'judge' is not a package; leave"
                " out .py"
            ),
        ),
    ],
)
def test_functions_that_are_none(
    endpoint: Endpoint, files: Files, judge: None, given: str, what: str
) -> None:
    ran = batch(endpoint, files, "--score", given, code=2)
    named = f"--score {given}: " if ":" in given else ""
    assert ran.err == f"error: {named}{what}\n"
    assert (endpoint.requests, files.target.exists()) == ([], False)


def test_a_score_that_raises_ends_the_run_with_a_line(
    endpoint: Endpoint, files: Files, judge: None
) -> None:
    ran = batch(endpoint, files, "--score", "judge:broken", "--concurrency", "1", code=2)
    assert ran.err.endswith(
        "error: --score judge:broken failed for the result with key k0:"
        " KeyError: 'no such key' (judge.py, line 13)\n"
    )
    ran = batch(endpoint, files, "--score", "judge:odd", "--concurrency", "1", code=2)
    assert "failed for the result with key k0: TypeError" in ran.err
    ran = batch(endpoint, files, "--score", "judge:leaving", "--concurrency", "1", code=2)
    assert "failed for the result with key k0: SystemExit: 3 (judge.py" in ran.err
    assert files.keys == []


def test_more_samples_than_a_line_can_have(endpoint: Endpoint, files: Files) -> None:
    assert "--samples" in batch(endpoint, files, "--samples", "1000000000000", code=2).err


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nan", "it holds nan"),
        ("both", "it holds a set"),
        ("raw", "it holds a bytes"),
        ("numbered", "it has a name that is not text"),
    ],
)
def test_a_score_must_be_plain_json(
    endpoint: Endpoint, files: Files, judge: None, name: str, what: str
) -> None:
    ran = batch(endpoint, files, "--score", f"judge:{name}", "--concurrency", "1", code=2)
    last = ran.err.splitlines()[-1]
    start = f"error: --score judge:{name} failed for the result with key k0: TypeError: the score"
    assert last.startswith(f"{start} is not JSON: {what}")
    assert not files.target.exists()


def test_a_check_sends_one_request_first(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [0.1 if n == 0 else 0.0, HELLO])
    ran = batch(endpoint, files, "--check", "--concurrency", "10", "--samples", "2")
    assert "check: k0 has an answer; now sending the others\n" in ran.err
    assert asked(endpoint)[0] == files.keys[0] == "k0"
    assert names(files) == every(10, 2)
    batch(endpoint, files, "--check", "--samples", "2")
    assert len(endpoint.requests) == 20


@pytest.mark.parametrize(
    ("answer", "code", "what"),
    [
        (refused(400), 4, "error: HTTP 400 invalid: no"),
        (refused(401), 4, "error: HTTP 401 auth: no"),
        (refused(404), 4, "error: HTTP 404"),
        (refused(503), 5, "error: HTTP 503"),
        ((200, [text("a")]), 6, "error: "),
    ],
)
def test_a_check_that_fails_stops_all(
    endpoint: Endpoint, files: Files, answer: Any, code: int, what: str
) -> None:
    endpoint.script = lambda n: answer
    trace = files.source.with_name("control.jsonl")
    ran = batch(endpoint, files, "--check", "--trace", str(trace), code=code)
    assert ran.err.startswith(what)
    events = [json.loads(line)["event"] for line in trace.read_text().splitlines()]
    assert events.count("refused") == 1
    assert ran.err.count("\n") == 1
    assert "check: the first request failed; it has no result, and no other was sent\n" in ran.out
    once = "fix the error, then " if code == 4 else ""
    assert f"no result: 10: {once}run the same command again to send them\n" in ran.out
    assert (len(endpoint.requests), files.keys) == (1, [])
    endpoint.script = lambda n: (200, [HELLO])
    batch(endpoint, files, "--check", "--max-tokens", "9")  # another request than the one before


def test_a_check_of_an_invalid_answer(endpoint: Endpoint, files: Files, schema: str) -> None:
    endpoint.script = lambda n: (200, [text("{}"), END])
    ran = batch(endpoint, files, "--check", "--schema", schema, code=6)
    assert ran.err == "error: the first answer is invalid: 'name' is a required property\n"
    assert (len(endpoint.requests), files.keys) == (1, [])


def test_a_check_is_no_answer_out_of_the_cache(endpoint: Endpoint, files: Files) -> None:
    cache = ["--cache", str(files.source.with_name("cache.db"))]
    files.write(3)
    batch(endpoint, files, *cache)
    files.target = files.source.with_name("again.jsonl")
    files.write(10)
    endpoint.script = lambda n: refused(400)
    batch(endpoint, files, "--check", *cache, code=4)
    assert len(endpoint.requests) == 4
    assert sorted(files.keys) == ["k0", "k1", "k2"]


def test_a_check_is_part_of_the_limit_on_cost(endpoint: Endpoint, files: Files) -> None:
    usage = chunk({}, "stop") + chunk(usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": 1})
    endpoint.script = lambda n: (200, [text("a"), usage, b"data: [DONE]\n\n"])
    args = ["--check", "--max-cost", "3", "--concurrency", "1"]
    ran = run(command(endpoint, files, *args, kind="openrouter"), OPENROUTER_API_KEY=KEY)
    assert (ran.code, len(endpoint.requests)) == (7, 3)


# -- failures ----------------------------------------------------------------------------------


def test_failures_are_kept_until_they_are_wanted_again(endpoint: Endpoint, files: Files) -> None:
    def script(n: int) -> Any:
        bad = asked(endpoint)[n] in ("k3", "k7")
        return refused(400) if bad else (200, [HELLO])

    endpoint.script = script
    ran = batch(endpoint, files, code=6)
    assert "failed: 2\nRefusedError invalid 400: 2 · HTTP 400 invalid: no" in ran.out
    assert len(files.keys) == 10
    bad = {line.key: line for line in read_results(files.target) if not line.ok}
    assert set(bad) == {"k3", "k7"}
    assert bad["k3"].response is not None
    assert bad["k3"].response["status_code"] == 400
    ran = batch(endpoint, files, code=6)
    assert "before: 8 finished, 2 failed" in ran.out
    assert "--retry-failed sends them again" in ran.out
    assert len(endpoint.requests) == 10
    endpoint.script = lambda n: (200, [HELLO])
    batch(endpoint, files, "--retry-failed")
    assert sorted(asked(endpoint)[10:]) == ["k3", "k7"]
    assert len(files.keys) == len(set(files.keys)) == 10
    assert all(line.ok for line in read_results(files.target))


def test_what_may_pass_is_tried_again(endpoint: Endpoint, files: Files) -> None:
    files.write(1)
    answers = [refused(503), (200, [text("a")]), (200, [HELLO])]
    endpoint.script = lambda n: answers[n]
    found = summary(endpoint, files, "--attempts", "3")
    assert (found["requests"]["finished"], found["counts"]["retries"]) == (1, 2)
    (line,) = read_results(files.target)
    assert [a.get("status") for a in line.attempts] == [503, None, None]
    assert [a["outcome"] for a in line.attempts] == ["errored", "truncated", "finished"]


@pytest.mark.parametrize(
    ("answer", "code", "what"),
    [
        (refused(401), 4, "check the key"),
        (refused(429, code="insufficient_quota"), 7, "waiting does not help"),
        (refused(404), 4, "the path or the model may be wrong"),
    ],
)
def test_where_all_fail_alike(
    endpoint: Endpoint, files: Files, answer: Any, code: int, what: str
) -> None:
    endpoint.script = lambda n: answer
    ran = batch(endpoint, files, "--concurrency", "1", "--attempts", "1", code=code)
    # Nothing of the rest is sent, and nothing is lost.
    assert len(endpoint.requests) == (10 if answer[0] == 404 else 1)
    assert what in ran.err
    assert files.keys == []
    once = "fix the error, then " if code == 4 else ""
    assert f"no result: 10: {once}run the same command again to send them" in ran.out
    endpoint.script = lambda n: (200, [HELLO])
    batch(endpoint, files)
    assert sorted(files.keys) == sorted(f"k{n}" for n in range(10))


def test_a_server_that_refuses_for_hours_says_until_when(endpoint: Endpoint, files: Files) -> None:
    message = {"message": "no", "retry_after": 11_100}
    endpoint.script = lambda n: (429, [json.dumps({"error": message}).encode()])
    ran = batch(endpoint, files, code=7)
    assert re.search(
        r"error: the server refuses until [\d: -]+ \(in 3 h 05 min\): HTTP 429", ran.err
    )
    assert "(run the same command again then)" in ran.err
    assert "no result: 10" in ran.out
    assert files.keys == []
    endpoint.script = lambda n: (200, [HELLO])
    batch(endpoint, files)
    assert len(files.keys) == 10


def test_a_model_whose_name_is_corrected_takes_the_place_of_the_failure(
    endpoint: Endpoint, files: Files
) -> None:
    """One refusal alone may be the request's own: it is kept, but does not bind its key."""
    files.write(3)
    endpoint.script = lambda n: refused(404) if asked(endpoint)[n] == "k0" else (200, [HELLO])
    batch(endpoint, files, code=6)
    lines = [json.loads(line) for line in files.source.read_text().splitlines()]
    lines[0]["model"] = "other"
    files.source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    endpoint.script = lambda n: (200, [HELLO])
    found = summary(endpoint, files, "--dry-run")
    assert found["requests"]["to_send"] == 1
    ran = batch(endpoint, files)
    assert "note: 1 request failed before and have changed since: sent again" in ran.out
    assert sorted(files.keys) == ["k0", "k1", "k2"]
    assert all(line.ok for line in read_results(files.target))
    assert len(endpoint.requests) == 4


def test_a_log_of_the_control(endpoint: Endpoint, files: Files) -> None:
    trace = files.source.with_name("control.jsonl")
    trace.write_text("of an earlier run\n")
    endpoint.script = lambda n: refused(503) if n == 3 else (200, [HELLO])
    batch(endpoint, files, "--trace", str(trace), "--concurrency", "2")
    events = [json.loads(line) for line in trace.read_text().splitlines()]
    assert {event["model"] for event in events} == {"m"}
    assert [e["why"] for e in events if e["event"] == "refused"] == ["overloaded 503"]
    assert KEY not in trace.read_text()
    ran = batch(endpoint, files, "--trace", str(files.target), code=2)
    assert "--trace must not be the same file as the output" in ran.err
    ran = batch(endpoint, files, "--trace", str(trace / "below"), code=2)
    assert "error: --trace " in ran.err


async def test_a_log_has_one_clock_for_all_batches(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    def event(time: float, name: Any) -> TraceEvent:
        no: Any = {"concurrency": None, "rate": None}
        counts: Any = {"in_flight": 0, "paused": 0.0, "accepted": 0, "refused": 0}
        return TraceEvent(time=time, model="m", host="h", event=name, **no, **counts)

    plan: Any = SimpleNamespace(trace=tmp_path / "control.jsonl")
    with open_trace(plan) as trace:
        assert trace is not None
        trace.of_batch()(event(0.5, "refused"))
        await trio.sleep(3)
        trace.of_batch()(event(0.25, "sample"))
        lines = plan.trace.read_text().splitlines()  # it can be watched while it is written
    assert [json.loads(line)["time"] for line in lines] == [0.5, 3.25]
    plan.trace = None
    with open_trace(plan) as trace:
        assert trace is None


@posix
def test_a_trace_that_is_no_file_is_refused(endpoint: Endpoint, files: Files) -> None:
    pipe = files.source.with_name("pipe")
    os.mkfifo(pipe)  # type: ignore[attr-defined,unused-ignore]
    ran = batch(endpoint, files, "--trace", str(pipe), code=2)
    assert ran.err == f"error: --trace {pipe}: not a regular file\n"
    assert endpoint.requests == []


@posix
def test_an_interruption_says_what_was_held_up(endpoint: Endpoint, files: Files) -> None:
    endpoint.close()
    with started(endpoint, files) as process:
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"nothing can be sent, connection refused")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    assert "note: when interrupted: " in out
    assert "nothing can be sent, connection refused" in out


def test_a_limit_on_cost(endpoint: Endpoint, files: Files) -> None:
    usage = chunk({}, "stop") + chunk(usage={"prompt_tokens": 1, "completion_tokens": 1, "cost": 1})
    endpoint.script = lambda n: (200, [text("a"), usage, b"data: [DONE]\n\n"])
    args = command(endpoint, files, "--max-cost", "3", "--concurrency", "1", kind="openrouter")
    ran = run(args, OPENROUTER_API_KEY=KEY)
    assert ran.code == 7, ran.err
    assert len(endpoint.requests) == 3
    assert "max_cost is reached" in ran.err
    assert "cost: $3\n" in ran.out
    assert "no result: 7" in ran.out
    kept = set(files.keys)
    ran = run(command(endpoint, files, kind="openrouter"), OPENROUTER_API_KEY=KEY)
    assert (ran.code, len(files.keys)) == (0, 10)
    assert all(asked(endpoint).count(key) == 1 for key in kept)


def test_a_limit_that_can_not_be_kept_is_misuse(endpoint: Endpoint, files: Files) -> None:
    ran = batch(endpoint, files, "--max-cost", "1", "--concurrency", "1", code=2)
    assert "--max-cost can't be enforced" in ran.err
    assert len(files.keys) == len(endpoint.requests) < 4


# -- the input ---------------------------------------------------------------------------------


def test_bad_lines_are_told_before_anything_is_sent(endpoint: Endpoint, files: Files) -> None:
    with files.source.open("a") as file:
        file.write('{nonsense\n{"key": "k1", "prompt": "x"}\n{"key": "z", "promt": "x"}\n')
    ran = batch(endpoint, files, code=2)
    told = ran.err.splitlines()
    assert told[0].startswith("  line 11: not JSON")
    assert told[1] == "  line 12: the key is the same as in line 2"
    assert told[2] == "  line 13: unknown field: promt (did you mean prompt?)"
    assert told[3].startswith("error: 3 lines of")
    assert endpoint.requests == []
    found = summary(endpoint, files, "--skip-bad")
    assert found["requests"]["bad"] == 3
    assert [p["line"] for p in found["problems"]] == [11, 12, 13]
    assert len(files.keys) == 10


def test_an_input_without_requests_is_told(endpoint: Endpoint, files: Files) -> None:
    said = f"there are no requests in {files.source}\n"
    files.source.write_text("\n")
    assert batch(endpoint, files).err == batch(endpoint, files, "--dry-run").err == said
    assert batch(endpoint, files, "--quiet").err == ""
    files.source.write_text("nonsense\n")
    assert batch(endpoint, files, "--skip-bad").err == said
    files.write(1)
    shards = [batch(endpoint, files, "--shard", f"{part}/2", "--dry-run").err for part in (1, 2)]
    assert min(shards) == ""
    assert re.fullmatch("there are no requests in shard [12]/2 of .*in.jsonl\n", max(shards))
    args = [*COMMAND, "batch", "-", str(files.target), "-m", "compatible:m"]
    ran = run([*args, "--base-url", endpoint.url], stdin=b"")
    assert (ran.code, ran.err) == (0, "there are no requests in stdin\n")


def test_a_request_that_changed_is_told(endpoint: Endpoint, files: Files) -> None:
    batch(endpoint, files)
    files.write(10, temperature=1)
    ran = batch(endpoint, files, code=2)
    assert ran.err.startswith(
        "  line 1: out.jsonl has a result with this key for another request"
        " (its model, messages or parameters differ); --skip-bad keeps that result, or name another"
        " output (and 9 more lines like it)\n"
    )
    ran = batch(endpoint, files, "--max-tokens", "3", code=2)
    assert len(endpoint.requests) == 10


def test_a_dry_run(endpoint: Endpoint, files: Files) -> None:
    files.write(10, max_tokens=5)
    ran = batch(endpoint, files, "--dry-run")
    to_send, likely, tokens, cost, bounds = ran.out.splitlines()
    assert to_send == "to send: 10 of 10 requests"
    assert likely == (
        "likely: 100 in · 50 out (input by 4 characters a token;"
        " answers of 5 tokens, the most that max_tokens allows)"
    )
    assert re.fullmatch("tokens: at most [0-9,]+ in · 50 out", tokens)
    assert cost == "cost: unknown: no request has a price (--price)"
    assert re.fullmatch("bounds: [0-9.]+ times in · 1.0 times out, of what is likely", bounds)
    assert not files.target.exists()
    found = summary(endpoint, files, "--dry-run")
    assert found["estimate"]["output_tokens"] == 50
    assert found["estimate"]["without_amount"] == 10
    assert endpoint.requests == []
    batch(endpoint, files)
    ran = batch(endpoint, files, "--dry-run")
    assert ran.out == "to send: 0 of 10 requests\nalready finished: 10\n"


PLACES = {"out": "the output", "ledger": "--ledger", "cache": "--cache", "trace": "--trace"}


def with_place(files: Files, option: str, path: Path) -> list[str]:
    """Arguments that name a path as the output, or as the file of an option."""
    if option != "out":
        return [f"--{option}", str(path)]
    files.target = path
    return []


@pytest.mark.parametrize("option", PLACES)
def test_a_dry_run_fails_where_the_run_would(endpoint: Endpoint, files: Files, option: str) -> None:
    folder = files.source.parent
    (folder / "notes.txt").write_text("my notes\n")
    (folder / "dir").mkdir()
    for path, what in (
        (folder / "missing" / "file", "its folder does not exist"),
        (folder / "dir", "not a regular file"),
        (folder / "notes.txt", None),
    ):
        if (option, what) == ("trace", None):  # a trace is written anew
            continue
        args = with_place(files, option, path)
        told = batch(endpoint, files, *args, "--dry-run", code=2).err
        assert told == batch(endpoint, files, *args, code=2).err
        assert told.count("\n") == 1
        assert what is None or told == f"error: {PLACES[option]} {path}: {what}\n"
    assert sorted(p.name for p in folder.iterdir() if p.name != "out.jsonl") == (
        ["dir", "in.jsonl", "notes.txt"]
    )
    assert (folder / "notes.txt").read_text() == "my notes\n"


@posix
@pytest.mark.parametrize("option", PLACES)
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a file system that takes no files")
def test_a_dry_run_tries_the_folder(endpoint: Endpoint, files: Files, option: str) -> None:
    args = with_place(files, option, Path("/proc/self/new"))
    told = batch(endpoint, files, *args, "--dry-run", code=2).err
    assert told.startswith(f"error: {PLACES[option]} /proc/self/new: ")
    assert told == batch(endpoint, files, *args, code=2).err


def test_a_dry_run_makes_and_changes_no_file(endpoint: Endpoint, files: Files) -> None:
    folder = files.source.parent
    args = [
        part
        for name in ("ledger", "cache", "trace")
        for part in with_place(files, name, folder / name)
    ]
    batch(endpoint, files, *args, "--dry-run")
    assert [p.name for p in folder.iterdir()] == ["in.jsonl"]
    (folder / "cache").touch()
    batch(endpoint, files, *args, "--dry-run")
    assert (folder / "cache").stat().st_size == 0
    (folder / "cache").unlink()
    batch(endpoint, files, *args)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert set(before) == {"in.jsonl", "out.jsonl", "ledger", "cache", "trace"}
    batch(endpoint, files, *args, "--dry-run")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_a_dry_run_learns_the_length_of_answers(endpoint: Endpoint, files: Files) -> None:
    files.write(2)
    batch(endpoint, files)
    files.write(4)
    args = ["--dry-run", "--samples", "2", "--price", "1,100"]
    found = summary(endpoint, files, *args)["estimate"]
    assert found["likely"] == {
        "input_tokens": 6 * 10,
        "output_tokens": 6 * 7,
        "amount": "0.004260",
        "counted_by": ["4 characters a token"],
        "tokens_per_answer": 7,
        "from_answers": 2,
        "uncounted": 0,
    }
    assert (found["without_bound"], found["without_amount"]) == (6, 6)
    assert found["bound_over_likely"] == {
        "input_tokens": found["input_tokens"] / 60,
        "output_tokens": None,
        "amount": None,
    }
    ran = batch(endpoint, files, *args)
    assert "(input by 4 characters a token; answers of 7 tokens, as 2 in the output)" in ran.out
    assert " · $0.00426 (" in ran.out


def test_a_dry_run_counts_with_the_encoding_of_openais_model(files: Files) -> None:
    vocabulary = write_vocabulary(files.source.parent)
    files.write(1, max_tokens=5)
    args = [*COMMAND, "batch", str(files.source), str(files.target), "--dry-run", "--summary"]
    folder = {"TIKTOKEN_CACHE_DIR": str(vocabulary.parent)}
    ran = run([*args, "json", "-m", "openai:gpt-4"], **folder)
    found = json.loads(ran.out)["estimate"]
    assert found["likely"]["counted_by"] == ["cl100k_base"]
    assert found["likely"]["input_tokens"] == 3 + 4 + 3
    assert found["input_tokens"] < 150
    for model in "openai:gpt-5", "openrouter:other/gpt-4":  # no vocabulary, and no such encoding
        ran = run([*args, "json", "-m", model], **folder)
        assert json.loads(ran.out)["estimate"]["likely"]["counted_by"] == ["4 characters a token"]


@needs_local_model
def test_a_dry_run_asks_the_local_model_for_exact_counts(files: Files) -> None:
    files.write(2, max_tokens=3)
    args = [*COMMAND, "batch", str(files.source), str(files.target), "-m", "local"]
    ran = run([*args, "--dry-run", "--summary", "json"])
    found = json.loads(ran.out)["estimate"]
    assert found["likely"]["counted_by"] == ["the model's own tokenizer"]
    assert run(args).code == 0
    used = sum((line.usage or {})["prompt_tokens"] for line in read_results(files.target))
    assert found["input_tokens"] == found["likely"]["input_tokens"] == used


def test_a_dry_run_needs_no_key_and_says_what_is_missing(files: Files) -> None:
    files.write(1)
    where = [str(files.source), str(files.target)]
    args = [*COMMAND, "batch", *where, "--model", "openai:gpt-x", "--dry-run"]
    ran = run(args)
    assert (ran.code, "unknown: no request has a bound (--max-tokens)" in ran.out) == (0, True)
    assert "and 1 request without a bound" in ran.out
    files.write(2, max_tokens=5)
    assert "unknown: no request has a price (--price)" in run(args).out
    assert run(args[:-1]).code == 2


def test_a_dry_run_names_the_first_request_without_a_bound(
    endpoint: Endpoint, files: Files
) -> None:
    lines = '{"key": "a", "prompt": "Hi", "max_tokens": 5}\n{"key": "b", "prompt": "Hi"}\n'
    files.source.write_text(lines)
    ran = batch(endpoint, files, "--dry-run", "--price", "1,10")
    assert "(and 1 request without a bound or a price: the first is 'b')" in ran.out
    assert (
        summary(endpoint, files, "--dry-run", "--price", "1,10")["estimate"]["first_without"] == "b"
    )


def test_a_price_of_ones_own(endpoint: Endpoint, files: Files) -> None:
    files.write(2, max_tokens=500_000)
    found = summary(endpoint, files, "--dry-run", "--price", "1,10")
    assert found["estimate"]["without_amount"] == 0
    assert 10 < float(found["estimate"]["amount"]) < 10.1
    ledger = files.target.with_name("costs.jsonl")
    files.source.write_text('{"key": "a", "prompt": "Hi", "meta": {"user": "ann"}}\n')
    batch(endpoint, files, "--price", "1,10,cache_read=0.1", "--ledger", str(ledger))
    (record,) = llm.JSONLLedger(ledger, read_only=True).records()
    assert (record.resolution, record.meta) == (llm.CostResolution.RESOLVED, {"user": "ann"})


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--price", "1"], "--price takes IN,OUT"),
        (["--price", "1,2,3"], "--price takes IN,OUT"),
        (["--price", "1,2,cache=3"], "--price takes IN,OUT"),
        (["--price", "1,many"], "--price takes numbers"),
        (["--price", "1,-2"], "--price takes numbers"),
        (["--concurrency", "many"], "--concurrency takes auto"),
        (["--concurrency", "0"], "--concurrency takes auto"),
        (["--rpm", "0"], "--rpm must be more than 0"),
        (["--tpm", "nan"], "--tpm must be more than 0"),
        (["--shard", "5/3"], "--shard takes I/N"),
        (["--max-cost", "-1"], "max_cost"),
    ],
)
def test_misuse(endpoint: Endpoint, files: Files, args: list[str], what: str) -> None:
    assert what in batch(endpoint, files, *args, code=2).err
    assert endpoint.requests == []
    assert not files.target.exists()


def test_files_that_can_not_be_used(endpoint: Endpoint, files: Files) -> None:
    files.target.write_text("my notes\n")
    assert "line 1 is not a result of a batch" in batch(endpoint, files, code=2).err
    assert files.target.read_text() == "my notes\n"
    files.target = files.source
    assert "must not be the same file" in batch(endpoint, files, code=2).err
    files.source = files.source.with_name("missing.jsonl")
    files.target = files.source.with_name("other.jsonl")
    assert "No such file" in batch(endpoint, files, code=2).err
    assert not files.target.exists()


@posix
def test_an_input_that_changes_meanwhile(endpoint: Endpoint, files: Files) -> None:
    files.write(1000)
    endpoint.script = lambda n: (200, [HELLO] if n < 4 else [endpoint.release, HELLO])
    with started(endpoint, files, "--concurrency", "4") as process:
        wait_for(lambda: len(endpoint.requests) == 8)  # four are answered, four under way
        files.source.write_bytes(files.source.read_bytes() + b"{}\n")
        endpoint.release.set()
        _, err = ended(process)
    assert process.returncode == 2
    assert "was changed while it was read" in err
    assert 0 < len(files.keys) < 1000


@posix
@pytest.mark.parametrize("good", [True, False])
def test_ctrl_c_while_the_input_is_read(endpoint: Endpoint, files: Files, good: bool) -> None:
    files.write(200_000, **({} if good else {"promt": 1}))
    with started(endpoint, files) as process:
        wait_for(files.target.exists)
        process.send_signal(signal.SIGINT)
        ended(process)
    assert (process.returncode, endpoint.requests) == (130, [])


# -- stopped and killed ------------------------------------------------------------------------


@contextmanager
def started(endpoint: Endpoint, files: Files, *args: str) -> Iterator[subprocess.Popen[bytes]]:
    with running(command(endpoint, files, *args)) as process:
        try:
            yield process
        finally:
            endpoint.release.set()


@posix
@endings
def test_one_ctrl_c_sends_no_more_and_lets_what_runs_end(
    endpoint: Endpoint, files: Files, ending: signal.Signals
) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, END])
    with started(endpoint, files, "--concurrency", "4") as process:
        wait_for(lambda: endpoint.running == 4)
        process.send_signal(ending)
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"4 requests are still running")
        endpoint.release.set()
        out, _ = ended(process)
    assert process.returncode == ENDING[ending]
    assert len(endpoint.requests) == len(files.keys) == 4
    assert "finished: 4 of 10 (stop 4)" in out
    assert "no result: 6: run the same command again to send them" in out
    batch(endpoint, files)
    assert sorted(files.keys) == sorted(asked(endpoint)) == sorted(f"k{n}" for n in range(10))


@posix
@pytest.mark.parametrize("second", ENDING)
@endings
def test_two_ctrl_c_cancel_what_runs(
    endpoint: Endpoint, files: Files, ending: signal.Signals, second: signal.Signals
) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 3 else [text("a"), endpoint.release, END])
    args = ["--concurrency", "3", "--ledger", str(files.source.with_name("ledger.jsonl"))]
    with started(endpoint, files, *args) as process:
        wait_for(lambda: len(endpoint.requests) == 6 and len(files.whole) == 3)
        process.send_signal(ending)
        assert process.stderr is not None
        again = b"Ctrl-C again" if ending == signal.SIGINT else b"a second signal"
        read_until(process.stderr.fileno(), again + b" cancels them")
        process.send_signal(second)
        out, _ = ended(process)
    assert process.returncode == ENDING[ending]
    assert len(files.keys) == 3
    assert "finished: 3 of 10 (stop 3)\n" in out
    assert "no result: 7" in out
    records = files.source.with_name("ledger.jsonl").read_text().splitlines()
    ledger = [json.loads(line) for line in records]
    assert Counter(record["outcome"] for record in ledger) == {"finished": 3, "cancelled": 3}
    before = set(files.keys)
    batch(endpoint, files)
    assert sorted(files.keys) == sorted(f"k{n}" for n in range(10))
    assert all(asked(endpoint).count(key) == 1 for key in before)


@posix
def test_only_one_process_writes(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, END])
    with started(endpoint, files, "--concurrency", "1") as process:
        wait_for(lambda: endpoint.running == 1)
        assert (
            "it is already open for results, in this process or another"
            in batch(endpoint, files, code=2).err
        )
        endpoint.release.set()
        ended(process)
    assert process.returncode == 0


@posix
@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_instant_it_goes_on(endpoint: Endpoint, tmp_path: Path, seed: int) -> None:
    """Killed when the server has seen so many requests more, again and again."""
    chance = random.Random(seed)
    files = Files(tmp_path, 80)
    endpoint.script = lambda n: (200, [0.002 * (n % 5), HELLO])
    kept: set[str] = set()
    code = None
    while code != 0:
        seen, wanted = Counter(asked(endpoint)), len(endpoint.requests) + chance.randint(5, 40)
        code = run_until(endpoint, files, wanted)
        again = Counter(asked(endpoint))
        assert all(again[key] == seen[key] for key in kept)  # nothing finished is sent again
        assert files.whole >= kept
        kept = files.whole
    assert sorted(files.keys) == sorted(f"k{n}" for n in range(80))
    assert len(endpoint.requests) < 80 + 2 * 7 * 16  # see the test of samples above


def run_until(endpoint: Endpoint, files: Files, wanted: int, *args: str) -> int:
    """Kill the command once the server has seen so many requests; its exit code."""
    with started(endpoint, files, "--concurrency", "7", "--quiet", *args) as process:
        wait_for(lambda: len(endpoint.requests) >= wanted or process.poll() is not None)
        process.kill()
        ended(process)
    return process.returncode


# -- how it goes -------------------------------------------------------------------------------


def test_plain_lines_where_there_is_no_terminal(endpoint: Endpoint, files: Files) -> None:
    code = "from trio_minillm.cli import _live, main; _live.SAY_EVERY = 0.1; main()"
    endpoint.script = lambda n: (200, [0.15, HELLO])
    args = command(endpoint, files, "--concurrency", "2")
    ran = run([args[0], "-P", "-W", "error", "-c", code, *args[len(COMMAND) :]])
    assert ran.code == 0, ran.err
    lines = [line for line in ran.err.splitlines() if " done, " in line]
    assert len(lines) >= 3
    assert " of 10 done, 0 failed, 2 running" in lines[1]
    assert "ETA " in lines[-1]
    assert "TTFT p50 " in lines[-1]
    assert "cost unpriced" in lines[-1]
    assert "\x1b" not in ran.err


@posix
def test_a_bar_on_a_terminal(endpoint: Endpoint, files: Files) -> None:
    endpoint.script = lambda n: (200, [0.2, HELLO])
    code, shown = on_terminal(command(endpoint, files, "--concurrency", "2"))
    assert code == 0
    assert "━" in shown
    assert " of 10 done" in shown
    assert "finished" in shown


async def test_the_status_line_says_why_requests_wait() -> None:
    failed = Attempt(
        outcome=llm.Outcome.ERRORED,
        started=datetime.now(UTC),
        error="SendError",
        reason="refused",
    )
    found = BatchStatistics(waiting={"pause": 200}, newest_failure=failed)
    sums: Any = SimpleNamespace(todo=200, ledger=llm.Ledger(), before=Counter(finished=21))
    status = BatchStatus(sums, KEY)
    line = status.text(found, every=5.0)
    assert line.startswith("0 of 200 done (21 before), 0 failed, ")
    assert "0 running, waiting: pause 200 · newest error SendError refused · " in line
    found = BatchStatistics(running=3, newest_failure=failed)
    assert "newest error" not in status.text(found, every=5.0)


async def test_the_rates_begin_anew_after_the_check() -> None:
    sums: Any = SimpleNamespace(todo=10, ledger=llm.Ledger(), before=Counter())
    status = BatchStatus(sums, KEY)
    status.text(BatchStatistics(ok=1, chunks=50, completion_tokens=50), every=5.0)
    line = status.text(BatchStatistics(running=3), every=5.0, before=1)
    assert line.startswith("1 of 10 done, 0 failed, 3 running · ")
    assert line.endswith(" · 0 chunks/s · 0 tokens/s")


def test_durations() -> None:
    assert [duration(s) for s in (0.4, 99, 170, 7500)] == ["0 s", "99 s", "3 min", "2 h 05 min"]
