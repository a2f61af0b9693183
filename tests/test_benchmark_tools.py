"""The comparison of benchmarks: command lines, reports, truth and tables. No tool is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .support.paths import BENCHMARKS

if not (BENCHMARKS / "tools").exists() or sys.platform != "linux":
    pytest.skip("needs benchmarks/ and Linux", allow_module_level=True)
sys.path.append(str(BENCHMARKS / "tools"))

import process
import run
import scenarios
import tables
import timed_server
import word_tokenizer
from measured import Load, Measured, Spread, spread_of
from store import Result, Store


@pytest.fixture
def load(tmp_path: Path) -> Load:
    return Load("http://127.0.0.1:9", "timed", 20, 4, 32, 60.0, tmp_path, tmp_path / "words")


def command(tool: str, load: Load) -> list[str]:
    return list(process.ADAPTERS[tool].command(Path("/somewhere"), load))


def options(words: list[str]) -> dict[str, str]:
    """Return each option with the word behind it."""
    return {a: b for a, b in zip(words, [*words[1:], ""], strict=True) if a.startswith("--")}


# -- command lines -----------------------------------------------------------------------------

TOLD = {
    "ours": {"--requests": "20", "--concurrency": "4", "--max-tokens": "32"},
    "aiperf": {"--request-count": "20", "--concurrency": "4", "--osl": "32"},
    "guidellm": {"--constraint": "kind=max_requests,count=20"},
    "vllm": {"--num-prompts": "20", "--max-concurrency": "4", "--custom-output-len": "32"},
    "inference_perf": {},
}


@pytest.mark.parametrize("tool", TOLD)
def test_a_tool_is_told_the_load(tool: str, load: Load) -> None:
    words = command(tool, load)
    assert words[0].startswith("/somewhere/bin/")
    assert TOLD[tool].items() <= options(words).items()
    written = "".join(path.read_text() for path in load.folder.iterdir())
    everything = " ".join(words) + written
    assert load.base_url in everything
    assert "Tell me a long story about the sea." in everything


def test_the_tools_stream_chats(load: Load) -> None:
    assert {"--streaming", "chat"} <= set(command("aiperf", load))
    assert "openai-chat" in command("vllm", load)
    assert "kind=concurrent,streams=4" in command("guidellm", load)
    command("inference_perf", load)
    written = json.loads((load.folder / "configuration.yaml").read_text())
    assert written["api"] == {"type": "chat", "streaming": True}
    assert written["load"]["stages"] == [{"num_requests": 20, "concurrency_level": 4}]


def test_a_file_of_prompts_has_one_for_each_request(load: Load) -> None:
    for tool, name in (("aiperf", "text"), ("guidellm", "prompt"), ("vllm", "prompt")):
        command(tool, load)
        lines = (load.folder / "prompts.jsonl").read_text().splitlines()
        assert [name in json.loads(line) for line in lines] == [True] * 20


def test_no_hub_is_asked(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    for name, adapter in process.ADAPTERS.items():
        found = process.environment_of(adapter, load)
        assert not {"HTTPS_PROXY", "OPENAI_API_KEY"} & set(found)
        assert found["HF_HOME"].startswith(str(load.folder))
        assert ("HF_HUB_OFFLINE" in found) == (name in {"guidellm", "vllm", "inference_perf"})


def test_the_tokenizer_counts_words(tmp_path: Path) -> None:
    folder = word_tokenizer.write_tokenizer(tmp_path / "words")
    written = json.loads((folder / "tokenizer.json").read_text())
    assert written["pre_tokenizer"] == {"type": "WhitespaceSplit"}
    assert written["model"]["unk_token"] in written["model"]["vocab"]


# -- reports -----------------------------------------------------------------------------------


def percentiles(mean: float, p50: float, p99: float) -> dict[str, Any]:
    return {"mean": mean, "median": p50, "count": 3, "percentiles": {"p50": p50, "p99": p99}}


def by_status(mean: float, p50: float, p99: float) -> dict[str, Any]:
    return {"successful": percentiles(mean, p50, p99), "errored": percentiles(0, 0, 0)}


def latency(mean: float, p50: float, p99: float) -> dict[str, Any]:
    return {"mean": mean, "min": 0.0, "median": p50, "p50": p50, "p99": p99}


OURS = {
    "points": [
        {
            "counts": {"sent": 5, "outcomes": {"finished": 3, "errored": 1, "truncated": 1}},
            "tokens": {"output_tokens": 96, "answers": 3},
            "latency": {
                "ttft": latency(0.2, 0.21, 0.22),
                "itl": latency(0.02, 0.021, 0.022),
                "tpot": latency(0.03, 0.031, 0.032),
                "e2e": latency(0.8, 0.81, 0.82),
            },
        }
    ]
}
AIPERF = {
    "request_count": {"unit": "requests", "avg": 3.0},
    "error_request_count": {"unit": "requests", "avg": 2.0},
    "output_sequence_length": {"unit": "tokens", "avg": 32.0},
    "time_to_first_token": {"unit": "ms", "avg": 200, "p50": 210, "p99": 220},
    "inter_token_latency": {"unit": "ms", "avg": 20, "p50": 21, "p99": 22},
    "inter_chunk_latency": {"unit": "ms", "avg": 40, "p50": 41, "p99": 42},
    "request_latency": {"unit": "ms", "avg": 800, "p50": 810, "p99": 820},
}
GUIDELLM = {
    "benchmarks": [
        {
            "metrics": {
                "request_totals": {"successful": 3, "errored": 1, "incomplete": 1, "total": 5},
                "output_token_count": by_status(32, 32, 32),
                "time_to_first_token_ms": by_status(200, 210, 220),
                "inter_token_latency_ms": by_status(20, 21, 22),
                "time_per_output_token_ms": by_status(30, 31, 32),
                "request_latency": by_status(0.8, 0.81, 0.82),
            }
        }
    ]
}
VLLM = {
    "completed": 3,
    "failed": 2,
    "total_output_tokens": 96,
    "mean_ttft_ms": 200,
    "p50_ttft_ms": 210,
    "p99_ttft_ms": 220,
    "mean_itl_ms": 20,
    "p50_itl_ms": 21,
    "p99_itl_ms": 22,
    "mean_tpot_ms": 30,
    "p50_tpot_ms": 31,
    "p99_tpot_ms": 32,
    "mean_e2el_ms": 800,
    "p50_e2el_ms": 810,
    "p99_e2el_ms": 820,
}
INFERENCE_PERF = {
    "successes": {
        "count": 3,
        "latency": {
            "time_to_first_token": latency(0.2, 0.21, 0.22),
            "inter_token_latency": latency(0.02, 0.021, 0.022),
            "time_per_output_token": latency(0.03, 0.031, 0.032),
            "request_latency": latency(0.8, 0.81, 0.82),
        },
        "output_tokens": {"total": 96.0, "mean": 32.0},
    },
    "failures": {"count": 2},
}
REPORTS: dict[str, tuple[str, Any]] = {
    "ours": ("stdout", OURS),
    "aiperf": ("profile_export_aiperf.json", AIPERF),
    "guidellm": ("report.json", GUIDELLM),
    "vllm": ("result.json", VLLM),
    "inference_perf": ("summary_lifecycle_metrics.json", INFERENCE_PERF),
}
"""Excerpts of what each tool writes, with round figures."""


@pytest.mark.parametrize("tool", REPORTS)
def test_a_report_is_read(tool: str, load: Load) -> None:
    name, report = REPORTS[tool]
    (load.folder / name).write_text(json.dumps(report))
    found = process.ADAPTERS[tool].measured(load)
    assert (found.succeeded, found.failed, found.tokens) == (3, 2, 32)
    assert found.ttft == pytest.approx((0.2, 0.21, 0.22))
    assert found.itl == pytest.approx((0.02, 0.021, 0.022))
    assert found.e2e == pytest.approx((0.8, 0.81, 0.82))
    if tool == "aiperf":
        assert found.chunk == pytest.approx((0.04, 0.041, 0.042))
        assert found.tpot == Spread()
    else:
        assert found.tpot == pytest.approx((0.03, 0.031, 0.032))


def test_a_report_without_an_answer_has_no_figures(load: Load) -> None:
    empty = {"count": 0, "mean": 0.0}
    metrics: Any = {name: {"successful": empty} for name in GUIDELLM["benchmarks"][0]["metrics"]}
    metrics["request_totals"] = {"successful": 0, "errored": 5, "incomplete": 0}
    (load.folder / "report.json").write_text(json.dumps({"benchmarks": [{"metrics": metrics}]}))
    none = dict.fromkeys(VLLM, 0) | {"failed": 5}
    (load.folder / "result.json").write_text(json.dumps(none))
    for tool in ("guidellm", "vllm"):
        found = process.ADAPTERS[tool].measured(load)
        assert (found.succeeded, found.failed) == (0, 5)
        assert found.ttft == found.itl == found.e2e == Spread()


# -- truth -------------------------------------------------------------------------------------


def record(**fields: Any) -> dict[str, Any]:
    whole = {"path": "/v1/chat/completions", "received": 1.0, "reasoning_tokens": 0}
    sent = {"sent": [1.2, 1.3, 1.6], "tokens": [4, 4, 4], "faults": [], "ended": "whole"}
    return {**whole, **sent, **fields}


def test_the_log_is_the_truth(tmp_path: Path) -> None:
    log = tmp_path / "log"
    rows = [record(), record(ended="fault", faults=["cut"]), record(path="/v1/models")]
    log.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = timed_server.truth_of(timed_server.records_of(log))
    assert (found.requests, found.whole, found.tokens) == (2, 1, 12)
    assert found.ttft.mean == pytest.approx(0.2)
    assert found.chunk[:2] == pytest.approx((0.2, 0.1))
    assert found.tpot.mean == pytest.approx(0.4 / 8)
    assert found.e2e.mean == pytest.approx(0.6)
    assert found.text == found.ttft


def test_text_begins_behind_the_reasoning() -> None:
    found = timed_server.truth_of([record(reasoning_tokens=8)])
    assert (found.ttft.mean, found.text.mean) == pytest.approx((0.2, 0.6))


def test_percentiles_are_values_that_occurred() -> None:
    assert spread_of([]) == Spread()
    assert spread_of([3.0]) == Spread(3.0, 3.0, 3.0)
    assert spread_of(map(float, range(1, 101))) == Spread(50.5, 50.0, 99.0)


# -- running -----------------------------------------------------------------------------------


def test_a_command_is_measured_and_one_that_hangs_is_stopped(tmp_path: Path) -> None:
    quick = [sys.executable, "-c", "print(sum(range(1000)))"]
    code, cpu, wall = process.timed(quick, {}, tmp_path, 60.0)
    assert code == 0
    assert cpu > 0
    assert wall > 0
    assert (tmp_path / "stdout").read_text() == "499500\n"
    hanging = [sys.executable, "-c", "import time; time.sleep(600)"]
    assert process.timed(hanging, {}, tmp_path, 0.2)[0] is None


def test_a_tool_without_a_report_says_why(load: Load) -> None:
    class Broken:
        NAME = "broken"

        @staticmethod
        def command(environment: Path, load: Load) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit(3)"]

        @staticmethod
        def variables(load: Load) -> dict[str, str]:
            return {}

        @staticmethod
        def measured(load: Load) -> Measured:
            raise FileNotFoundError

    found = process.run_tool(Broken, Path(), load)  # type: ignore[arg-type]
    assert found.measured is None
    assert found.why == "exit code 3, no report (FileNotFoundError)"


def test_the_command_of_the_server_is_there() -> None:
    shown = subprocess.run(
        [*timed_server.COMMAND, "--help"], capture_output=True, text=True, check=True
    )
    for scenario in scenarios.SCENARIOS:
        for word in (*scenario.server, "--port", "--log"):
            assert not word.startswith("--") or word in shown.stdout


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--tool", "wrk=/x"], "wrk is none of"),
        (["--only", "plain,nonsense"], "no scenario is called nonsense"),
    ],
)
def test_wrong_arguments_are_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run.arguments(words)
    assert complaint in capsys.readouterr().err


def test_ours_runs_against_the_server_and_its_log(tmp_path: Path) -> None:
    """The real command before the real server: figures are there, and counts are the log's."""
    short = ("--ttft", "0.01", "--itl", "0.001", "--tokens", "4")
    scenario = scenarios.Scenario("plain", "short", short)
    load = Load("", "timed", 3, 2, 4, 60.0, tmp_path, tmp_path / "words")
    found = run.measure("ours", Path(sys.prefix), scenario, load)
    assert found.run.why == ""
    assert found.run.measured is not None
    assert found.truth is not None
    assert (found.run.measured.succeeded, found.run.measured.tokens) == (3, 4)
    assert (found.truth.requests, found.truth.whole, found.truth.tokens) == (3, 3, 4)
    for spread in (found.run.measured.ttft, found.run.measured.itl, found.run.measured.e2e):
        assert None not in spread


# -- tables ------------------------------------------------------------------------------------


def results() -> list[Result]:
    """One of everything: each scenario by two tools, one of which measured nothing once."""
    times = Spread(0.2, 0.21, 0.22)
    measured = Measured(18, 2, 32, times, times, times, Spread(), times)
    sent, text = Spread(0.19, 0.2, 0.21), Spread(0.5, 0.5, 0.5)
    truth = timed_server.Truth(20, 18, 32, sent, text, sent, sent, sent)
    good, bad = (
        process.Run(measured, "", 1.5, 4.0),
        process.Run(None, "still running after 60 s", 9.0, 60.0),
    )
    found = []
    for scenario in scenarios.SCENARIOS:
        for requests, concurrency in scenario.loads:
            for tool in ("ours", "vllm"):
                took = bad if (tool, scenario.name) == ("vllm", "stall") else good
                found.append(Result(scenario.name, tool, requests, concurrency, took, truth))
    return [*found, Result("local", "ours", 8, 1, good, None)]


def test_the_tables_have_every_scenario() -> None:
    text = tables.tables(results())
    for scenario in scenarios.SCENARIOS:
        assert scenario.title in text or scenario.name == "cost"
    assert "| 190.0 / 200.0 / 210.0; text 500.0 / 500.0 / 500.0 |" in text
    assert "| 200.0 / 210.0 / 220.0 |" in text
    assert "| +10.0 | +10.0 |" in text
    assert "18 good, 2 failed" in text
    assert "still running after 60 s" in text
    for part in text.split("\n\n"):
        rows = [line for line in part.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, part
    assert tables.tables([]) == ""


def test_results_are_kept_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    for _ in range(2):  # the second reads what the first has written
        store = Store(path, "a machine")
        for result in results():
            store.add(result)
    assert Store(path, "a machine").results == results()


def test_a_page_is_written_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{tables.BEGIN}\nold\n{tables.END}\n\nafter\n")
    for _ in range(2):
        tables.write_between(page, "new")
        wanted = f"before\n\n{tables.BEGIN}\n\nnew\n\n{tables.END}\n\nafter\n"
        assert page.read_text() == wanted
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no markers"):
        tables.write_between(page, "new")
