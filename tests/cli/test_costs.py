"""``trio-minillm chat --ledger`` and ``trio-minillm costs``, run as a user runs them."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.cli import _output as _report

from ..support.command import COMMAND, KEY, LIMIT, read_until, run, running
from ..support.endpoint import END, ThreadedServer, begin, text

OPENROUTER = {"OPENROUTER_API_KEY": KEY}


class OpenRouter(ThreadedServer):
    """Streams ``body``; knows what a generation cost once it was asked ``asked_before`` times."""

    def __init__(self) -> None:
        self.body = text("Hel", "lo.") + END
        self.asked_before = 0
        self.questions: list[tuple[str, str | None]] = []
        super().__init__()
        self.release.set()

    def post(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        begin(request, 200, x_generation_id="gen-7")
        request.wfile.write(self.body)
        request.wfile.flush()
        self.release.wait(LIMIT)

    def get(self, request: BaseHTTPRequestHandler) -> None:
        self.questions.append((request.path, request.headers["authorization"]))
        known = len(self.questions) > self.asked_before
        data = {"data": {"id": "gen-7", "total_cost": 0.25, "native_tokens_prompt": 9}}
        begin(request, 200 if known else 404)
        request.wfile.write(json.dumps(data if known else {"error": {}}).encode())


@pytest.fixture
def openrouter() -> Iterator[OpenRouter]:
    with OpenRouter() as made:
        yield made


def chat(server: OpenRouter, *args: str) -> list[str]:
    return [*COMMAND, "chat", "hi", "-m", "openrouter:a/b", "--base-url", server.url, *args]


def a_record(ledger: llm.Ledger, **fields: Any) -> llm.CostRecord:
    usual: dict[str, Any] = {
        "key": ledger.new_key(),
        "at": datetime.now(UTC),
        "model": "m",
        "provider": "openai",
        "base_url": "https://api.openai.com/v1",
        "id": "gen-1",
        "outcome": llm.Outcome.FINISHED,
        "booked": True,
        "usage": llm.Usage(uncached_input_tokens=1000, completion_tokens=20, final=True),
        "cost": llm.CostInfo(Decimal("0.10"), llm.CostResolution.RESOLVED, "native"),
    }
    return llm.CostRecord(**usual | fields)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "costs.jsonl"


def test_chat_appends_to_a_ledger(openrouter: OpenRouter, path: Path) -> None:
    body = {"usage": {"prompt_tokens": 3, "completion_tokens": 2, "cost": 0.0000001}}
    event = json.dumps({"id": "gen-7", "choices": [], **body}).encode()
    openrouter.body = text("Hi") + chunk_end() + b"data: " + event + b"\n\ndata: [DONE]\n\n"
    for _ in range(2):
        ran = run(chat(openrouter, "--ledger", str(path)), **OPENROUTER)
        assert ran.code == 0
        assert ran.err.splitlines()[-1] == "cost: $0.0000001 (the provider's figure)"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KEY not in path.read_text()
    ledger = llm.JSONLLedger(path, read_only=True)
    assert (ledger.attempts, ledger.total) == (2, Decimal("2E-7"))


def chunk_end() -> bytes:
    choice = {"index": 0, "delta": {}, "finish_reason": "stop"}
    return b"data: " + json.dumps({"id": "gen-7", "choices": [choice]}).encode() + b"\n\n"


@contextmanager
def interrupted(server: OpenRouter, ledger: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A chat whose first word has come, and which Ctrl-C has stopped then."""
    server.body = text("one")
    server.release.clear()
    with running(chat(server, "--ledger", str(ledger)), **OPENROUTER) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"one")
        process.send_signal(signal.SIGINT)
        yield process


def test_ctrl_c_asks_what_it_cost_and_says_so(openrouter: OpenRouter, path: Path) -> None:
    openrouter.asked_before = 1
    with interrupted(openrouter, path) as process:
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    assert b"asking what it cost; Ctrl-C again does not wait for the answer" in err
    assert b"cost: $0.25 (the provider's figure)" in err
    assert openrouter.questions == [("/api/v1/generation?id=gen-7", f"Bearer {KEY}")] * 2
    ledger = llm.JSONLLedger(path, read_only=True)
    assert (ledger.attempts, ledger.total, ledger.unsettled) == (1, Decimal("0.25"), ())


def test_a_second_ctrl_c_leaves_the_question_to_settle(openrouter: OpenRouter, path: Path) -> None:
    openrouter.asked_before = 10**9
    with interrupted(openrouter, path) as process:
        assert process.stderr is not None
        read_until(process.stderr.fileno(), b"asking what it cost")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)
    assert process.returncode == 130
    shown = run([*COMMAND, "costs", str(path)])
    assert shown.out.splitlines()[1].split("\t")[:3] == ["a/b", "1", "0"]
    assert shown.err == "unknown: 1\nwithout tokens: 1\nunsettled: 1\n"
    openrouter.asked_before = 0
    asked = [*COMMAND, "costs", str(path), "--settle", "--base-url", openrouter.url]
    settled = run(asked, **OPENROUTER)
    assert (settled.code, settled.err) == (0, "")
    assert settled.out.splitlines()[-1].split("\t")[5] == "0.25"
    assert run(asked, **OPENROUTER).out == settled.out, "counted once"


def test_costs_shows_a_table_by_model_or_meta(path: Path) -> None:
    ledger = llm.JSONLLedger(path)
    ledger.record(a_record(ledger, meta={"run": "a"}))
    ledger.record(a_record(ledger, model="x", meta={"run": "b"}, id=None))
    lost = {"outcome": llm.Outcome.TRUNCATED, "booked": False}
    ledger.record(a_record(ledger, meta={"run": "b"}, **lost))
    by_model = run([*COMMAND, "costs", str(path)])
    assert by_model.out.splitlines() == [
        "model\tattempts\tfinished\ttokens in\ttokens out\tUSD\tnot counted",
        "m\t2\t1\t2,000\t40\t0.1\t0.1",
        "x\t1\t1\t1,000\t20\t0.1\t0",
        "all\t3\t2\t3,000\t60\t0.2\t0.1",
    ]
    by_run = run([*COMMAND, "costs", str(path), "--by", "run"])
    assert [line.split("\t")[0] for line in by_run.out.splitlines()] == ["run", "a", "b", "all"]
    found = json.loads(run([*COMMAND, "costs", str(path), "--json"]).out)
    assert found["totals"]["total"] == "0.20"
    assert [group["name"] for group in found["groups"]] == ["m", "x"]


def test_what_is_not_known_is_not_zero(path: Path) -> None:
    ledger = llm.JSONLLedger(path)
    failed = {"outcome": llm.Outcome.ERRORED, "booked": False, "cost": llm.CostInfo()}
    ledger.record(a_record(ledger, usage=None, **failed))
    shown = run([*COMMAND, "costs", str(path)])
    assert shown.out.splitlines()[1:] == ["m\t1\t0\t-\t-\t0\t-", "all\t1\t0\t-\t-\t0\t-"]
    assert shown.err == "not counted, cost unknown: 1\nwithout tokens: 1\n"
    ledger.record(a_record(ledger))
    shown = run([*COMMAND, "costs", str(path)])
    assert shown.out.splitlines()[1] == "m\t2\t1\t1,000\t20\t0.1\t-"


@pytest.mark.parametrize("text", ['{"key": "k", "prompt": "hi"}\n', "Notes\n", "[]\n{}\n"])
def test_a_file_that_is_no_ledger(openrouter: OpenRouter, path: Path, text: str) -> None:
    path.write_text(text)
    for args in (
        [*COMMAND, "costs", str(path)],
        [*COMMAND, "costs", str(path), "--json"],
        chat(openrouter, "--ledger", str(path)),
    ):
        ran = run(args, **OPENROUTER)
        assert (ran.code, ran.out) == (2, "")
        assert f"error: {path} is not a ledger" in ran.err
    assert path.read_text() == text


def test_a_ledger_whose_first_record_was_torn_is_one(openrouter: OpenRouter, path: Path) -> None:
    path.write_text('{"v":1,"key":"a1b2')
    assert run([*COMMAND, "costs", str(path)]).err == "torn lines: 1\n"
    assert run(chat(openrouter, "--ledger", str(path)), **OPENROUTER).code == 0
    assert llm.JSONLLedger(path, read_only=True).attempts == 1


def test_a_torn_line_is_counted_and_the_file_left_alone(path: Path) -> None:
    ledger = llm.JSONLLedger(path)
    ledger.record(a_record(ledger))
    path.write_bytes(path.read_bytes() + path.read_bytes()[:50])
    before = path.read_bytes()
    assert run([*COMMAND, "costs", str(path)]).err == "torn lines: 1\n"
    assert path.read_bytes() == before


@pytest.mark.parametrize("wire", ["openrouter", "text"])
def test_what_openrouter_served_is_asked_for_on_either_wire(
    openrouter: OpenRouter, path: Path, wire: str
) -> None:
    ledger = llm.JSONLLedger(path)
    there = {"provider": wire, "base_url": openrouter.url, "unsettled": True, "id": "gen-7"}
    ledger.record(a_record(ledger, cost=llm.CostInfo(), **there))
    asked = [*COMMAND, "costs", str(path), "--settle", "--base-url", openrouter.url]
    ran = run(asked, **OPENROUTER)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[-1].split("\t")[5] == "0.25"


def test_the_key_goes_to_no_address_out_of_a_file(openrouter: OpenRouter, path: Path) -> None:
    ledger = llm.JSONLLedger(path)
    elsewhere = {"provider": "openrouter", "base_url": openrouter.url, "unsettled": True}
    ledger.record(a_record(ledger, cost=llm.CostInfo(), **elsewhere))
    ran = run([*COMMAND, "costs", str(path), "--settle"], **OPENROUTER)
    assert (ran.code, openrouter.questions) == (0, [])
    assert f"not looked up: {openrouter.url}" in ran.err


@pytest.mark.parametrize(
    "args",
    [
        ["nowhere.jsonl"],
        ["."],
        ["costs.jsonl", "--settle"],
        ["costs.jsonl", "--base-url", "http://127.0.0.1:9"],
    ],
)
def test_misuse_is_told_in_one_line(path: Path, args: list[str]) -> None:
    ledger = llm.JSONLLedger(path)
    ledger.record(a_record(ledger))
    ran = run([*COMMAND, "costs", str(path.parent / args[0]), *args[1:]])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: ")
    assert len(ran.err.splitlines()) == 1


def test_amounts_are_shown_without_arithmetics_zeros() -> None:
    amounts = ["0", "0.00", "1E-10", "1.50", "100", "1E+3", "12.340"]
    assert [_report.usd(Decimal(a)) for a in amounts] == [
        *("0", "0", "0.0000000001", "1.5", "100", "1000", "12.34")
    ]


def test_what_a_run_asks_of_its_ledger_is_loaded_before_it() -> None:
    """When too many files are open, no module can be loaded any more."""
    loaded = "import sys, trio_minillm.cli._costs; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True
    )
    assert "trio_minillm._accounting.ledger_file" in done.stdout.split()
