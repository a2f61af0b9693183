"""The loads of ``trio-minillm bench``: its options, several loads, a search, several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.cli._bench_load_options import LoadOptions, processes_of
from trio_minillm.cli._output import Misuse

from ..support.bench_command import command, fast, measured
from ..support.command import (
    ENDING,
    KEY,
    ended,
    endings,
    environment,
    posix,
    read_until,
    run,
    running,
    start,
    wait_for,
)
from ..support.endpoint import END, HELLO, Endpoint, chunk, text

# -- loads -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "load"),
    [
        ([], {"type": "closed", "concurrency": 10}),
        (["--rate", "200"], {"type": "open", "rate": 200.0, "burstiness": None}),
        (["--rate", "200", "--arrivals", "poisson"], {"burstiness": 1.0}),
        (["--rate", "200", "--arrivals", "gamma", "--burstiness", "0.5"], {"burstiness": 0.5}),
        (["--rate", "200", "--burstiness", "2", "--concurrency", "9"], {"concurrency": 9}),
        (
            ["--ramp", "10:200:0.5", "--arrivals", "poisson"],
            {"type": "ramp", "first": 10.0, "last": 200.0, "seconds": 0.5, "burstiness": 1.0},
        ),
    ],
)
def test_kinds_of_load(endpoint: Endpoint, args: list[str], load: dict[str, Any]) -> None:
    found = measured(endpoint, "--requests", "6", "--random-seed", "4", *args)
    (point,) = found["points"]
    assert point["load"].items() >= load.items()
    assert point["counts"]["sent"] == len(endpoint.requests) == 6
    assert found["config"]["seed"] == 4


def test_a_trace_is_played_faster(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f'{{"timestamp": {at}}}\n' for at in (5000, 7000, 7000, 9000)))
    found = measured(endpoint, "--trace", str(path), "--speed-up", "10")
    (point,) = found["points"]
    assert point["load"]["offsets"] == pytest.approx([0, 0.2, 0.2, 0.4])
    assert point["counts"]["sent"] == 4
    assert 0.35 < point["window"] < 5


def test_a_sweep_has_a_point_for_each_load(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [0.02, HELLO])
    found = measured(endpoint, "--sweep", "concurrency=1,3", "--requests", "6", "--warmup", "1")
    assert [point["load"]["concurrency"] for point in found["points"]] == [1, 3]
    assert [point["counts"]["sent"] for point in found["points"]] == [6, 6]
    assert [point["warmup"]["sent"] for point in found["points"]] == [1, 1]
    assert len(endpoint.requests) == 14
    found = measured(endpoint, "--sweep", "rate=50:150:50", "--requests", "3")
    assert [point["load"]["rate"] for point in found["points"]] == [50, 100, 150]


def test_the_highest_concurrency_is_found(endpoint: Endpoint) -> None:
    """The server refuses what comes while four streams are open."""
    endpoint.script = lambda n: (
        (200, [0.05, HELLO]) if endpoint.running <= 4 else (503, [0.01, b"{}"])
    )
    options = ["--find", "90% e2e<5s", "--concurrency", "2", "--requests", "40"]
    found = measured(endpoint, *options)
    assert found["found"]["over"] == "concurrency"
    assert 3 <= found["found"]["load"] <= 5
    assert found["found"]["interval"][0] == found["found"]["load"]
    assert found["found"]["objective"]["limits"] == {"e2e": 5}
    assert len(found["found"]["trials"]) >= 3
    assert len(found["points"]) >= len(found["found"]["trials"])


def test_a_search_that_finds_nothing_is_a_failure(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (503, [b"{}"])
    options = ["--find", "90% e2e<5s", "--rate", "500", "--duration", "1"]
    found = measured(endpoint, *options, code=5)
    assert (found["found"]["load"], found["found"]["incomplete"]) == (None, "all requests failed")


def test_what_is_not_steady_is_told(endpoint: Endpoint) -> None:
    found = measured(endpoint, "--rate", "300", "--duration", "0.1")
    (point,) = found["points"]
    assert any("fewer than 100 complete answers" in note for note in point["notes"])
    found = measured(endpoint, "--rate", "300", "--duration", "0.1", "--steady", "off")
    assert not any("steady" in note for note in found["points"][0]["notes"])


# -- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rate": 0.0}, "--rate must be more than 0"),
        ({"rate": 1.0, "ramp": "1:2:3"}, "--ramp can't be combined with --rate"),
        ({"rate": 1.0, "trace": Path("x")}, "--trace can't be combined with --rate"),
        ({"arrivals": "poisson"}, "need --rate or --ramp"),
        ({"burstiness": 2.0}, "need --rate or --ramp"),
        ({"rate": 1.0, "burstiness": 0.0}, "--burstiness must be more than 0"),
        ({"rate": 1.0, "burstiness": 1e308}, "from 0.001 to 1,000,000"),
        ({"rate": 1.0, "burstiness": 1e-320}, "from 0.001 to 1,000,000"),
        (
            {"rate": 1.0, "arrivals": "poisson", "burstiness": 2.0},
            "--burstiness needs --arrivals gamma",
        ),
        ({"rate": 1.0, "arrivals": "gamma"}, "needs --burstiness"),
        ({"ramp": "1:2"}, "three numbers"),
        ({"ramp": "1:x:3"}, "takes numbers"),
        ({"ramp": "0:0:3"}, "one of them above 0"),
        ({"ramp": "1:2:0"}, "the time at least 0.001 seconds"),
        ({"speed_up": 2.0}, "--speed-up needs --trace"),
        ({"trace": Path("nowhere")}, "the trace nowhere: No such file"),
        ({"trace": Path("nowhere"), "arrivals": "poisson"}, "can't be combined with --trace"),
        ({"sweep": "1,2"}, "--sweep must be concurrency=LIST or rate=LIST"),
        ({"sweep": "tokens=1,2"}, "--sweep must be concurrency=LIST or rate=LIST"),
        ({"sweep": "concurrency=1,x"}, "--sweep takes numbers"),
        ({"sweep": "concurrency=0,1"}, "above 0"),
        ({"sweep": "concurrency=1.5"}, "whole numbers"),
        ({"sweep": "rate=1:1000000:1"}, "up to 100 numbers"),
        ({"sweep": "rate=1:2:0"}, "up to 100 numbers"),
        ({"sweep": "rate=1:1e300:1e-300"}, "up to 100 numbers"),
        ({"sweep": "rate=1e300:1:1e-300"}, "up to 100 numbers"),
        ({"sweep": "concurrency=1,2", "concurrency": 3}, "can't be combined with --concurrency"),
        ({"sweep": "rate=1,2", "rate": 3.0}, "can't be combined with --rate"),
        ({"sweep": "concurrency=1,2", "rate": 3.0}, "can't be combined with another kind of load"),
        ({"sweep": "rate=1,2", "ramp": "1:2:3"}, "can't be combined with another kind of load"),
        ({"find": "99% nonsense<1"}, "--find: "),
        ({"find": "99% ttft<1s", "ramp": "1:2:3"}, "--find can't be combined with --ramp"),
        ({"find": "99% ttft<1s", "sweep": "rate=1,2"}, "--find can't be combined with --sweep"),
        ({"find": "99% ttft<1s", "precision": 0.0}, "--precision must be"),
        (
            {"find": "99% ttft<1s", "find_over": "concurrency", "rate": 2.0},
            "can't be combined with --rate",
        ),
        ({"find_over": "rate"}, "--find-over needs --find"),
        ({"steady": "auto", "ramp": "1:2:3"}, "--steady auto can't be combined with"),
        ({"find": "99% ttft<1s", "goodput": "ttft<1s"}, "--find can't be combined with --goodput"),
        ({"hedge": "compatible:m", "rate": 2.0}, "--hedge can't be combined with --rate"),
        ({"hedge": "compatible:m", "find": "99% ttft<1s"}, "--hedge can't be combined with --find"),
    ],
)
def test_misuse(options: dict[str, Any], words: str) -> None:
    with pytest.raises(Misuse) as caught:
        LoadOptions(**options).course(prompts=())
    assert words in str(caught.value)


def test_ends_by_default() -> None:
    (plan,) = LoadOptions().course(prompts=()).plans
    assert (plan.requests, plan.duration, plan.steady) == (100, None, False)
    plans = LoadOptions(sweep="concurrency=1,64").course(prompts=()).plans
    assert [plan.requests for plan in plans] == [100, 256]
    (plan,) = LoadOptions(duration=5.0).course(prompts=()).plans
    assert (plan.requests, plan.duration, plan.steady) == (None, 5, True)
    course = LoadOptions(find="99% ttft<1s", arrivals="poisson").course(prompts=())
    assert course.over == "rate"
    assert (course.plans[0].requests, course.plans[0].duration) == (None, 30)
    course = LoadOptions(find="99% ttft<1s", requests=50).course(prompts=())
    assert course.over == "concurrency"
    assert (course.plans[0].requests, course.plans[0].duration) == (50, None)


def test_all_cores_are_one_process_each() -> None:
    assert processes_of(3) == 3
    assert 1 <= processes_of(0) <= (os.cpu_count() or 1)


# -- several processes -----------------------------------------------------------------------


def test_several_processes_are_one_benchmark(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "bench.jsonl"
    endpoint.script = lambda n: (200, [0.02, HELLO]) if n else (500, [b"{}"])
    options = ["--processes", "2", "--requests", "30", "--warmup", "2", "--ledger", str(path)]
    found = measured(endpoint, "--concurrency", "5", *options)
    (point,) = found["points"]
    assert (point["counts"]["sent"], point["counts"]["outcomes"]) == (30, {"finished": 30})
    assert (point["warmup"]["sent"], point["warmup"]["finished"]) == (2, 1)
    assert point["audit"]["workers"] == 2
    assert len(point["audit"]["cpu_shares"]) == 3
    assert found["config"]["processes"] == 2
    ledger = llm.JSONLLedger(path, read_only=True)
    assert {name: totals.attempts for name, totals in ledger.by_meta("bench").items()} == {
        "warmup": 2,
        "measured": 30,
    }
    assert KEY not in path.read_text()


def test_a_limit_on_the_cost_holds_for_all_processes(endpoint: Endpoint) -> None:
    usage = {"prompt_tokens": 31, "completion_tokens": 7, "cost": 0.25}
    priced = text("Hi") + chunk({}, "stop") + chunk(usage=usage) + b"data: [DONE]\n\n"
    endpoint.script = lambda n: (200, [0.1, priced])
    options = ["--processes", "2", "--concurrency", "2", "--max-cost", "2", "--requests", "100"]
    ran = run(command(endpoint, *options, kind="openrouter"), OPENROUTER_API_KEY=KEY)
    assert ran.code == 0
    assert 8 <= len(endpoint.requests) <= 14
    assert "note: stopped: --max-cost was reached" in ran.out


@contextmanager
def in_a_group(args: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run in a process group of its own, as a terminal does."""
    with start(args, environment(), start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@posix
@pytest.mark.parametrize("more", [[], ["--rate", "1000", "--concurrency", "4"]])
@endings
def test_one_signal_to_the_whole_group_lets_the_streams_end(
    endpoint: Endpoint, more: list[str], ending: signal.Signals
) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, text("b"), END])
    options = more or ["--concurrency", "4"]
    args = fast(endpoint, "--processes", "2", *options)
    with in_a_group(args) as process:
        wait_for(lambda: endpoint.running == 4)
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"0 done, 0 failed, 4 running")
        os.killpg(process.pid, ending)
        read_until(process.stderr.fileno(), b"4 streams are still running")
        endpoint.release.wait(0.3)  # until all processes know
        endpoint.release.set()
        out, _ = ended(process)
    assert process.returncode == ENDING[ending]
    assert "finished: 4 of 4 (stop 4)" in out
    assert "note: stopped: interrupted" in out
    assert len(endpoint.requests) == 4


@posix
def test_two_ctrl_c_cancel_the_streams_of_all_processes(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 3 else [text("a"), endpoint.release])
    args = fast(endpoint, "--processes", "2", "--concurrency", "4", "--json")
    with running(args) as process:
        assert process.stderr is not None
        wait_for(lambda: len(endpoint.requests) == 7)
        read_until(process.stderr.fileno(), b"3 done, 0 failed, 4 running")
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    (point,) = json.loads(out)["points"]
    assert point["counts"]["outcomes"] == {"finished": 3, "cancelled": 4}


@posix
def test_ctrl_c_while_nothing_runs_ends_all_processes(endpoint: Endpoint) -> None:
    args = fast(endpoint, "--processes", "2", "--rate", "0.01")
    with running(args) as process:
        wait_for(lambda: len(endpoint.requests) == 1 and not endpoint.running)
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"1 done")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    assert "finished: 1 of 1" in out
