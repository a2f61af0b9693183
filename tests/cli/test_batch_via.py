"""``trio-minillm batch --via provider``, run as a user runs it, against the stand-in on a socket."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

import trio_minillm as llm
from trio_minillm.batch import BatchRequest, BatchResult, Journal, read_results
from trio_minillm.cli._batch_report import ViaPlan
from trio_minillm.cli._batch_via import Via

from ..support.command import COMMAND, KEY, ended, posix, run, running, wait_for
from ..support.vendor_batches import BatchServer, StandIn, StandInTransport, chat

PRICE = "1,4,service_tier=batch"
WIRES = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
wires = pytest.mark.parametrize("wire", WIRES)


class Desk:
    """A server, an input and an output."""

    def __init__(self, folder: Path, wire: str = "openai") -> None:
        self.server = BatchServer()
        self.stand_in = self.server.stand_in
        self.folder, self.wire = folder, wire
        self.source, self.target = folder / "in.jsonl", folder / "out.jsonl"
        self.env = {WIRES[wire]: KEY}

    def ask(self, *prompts: str) -> None:
        lines = ({"key": f"k-{prompt}", "prompt": prompt} for prompt in prompts)
        self.source.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def command(self, *more: str, price: str = PRICE) -> list[str]:
        files = [str(self.source), str(self.target)]
        place = ["-m", f"{self.wire}:m-1", "--base-url", self.server.url, "--price", price]
        return [
            *COMMAND,
            "batch",
            *files,
            *place,
            "--via",
            "provider",
            "--look-every",
            "0.05",
            *more,
        ]

    def run(self, *more: str, **options: Any) -> Any:
        return run(self.command(*more, **options), **self.env)

    def keys(self) -> Counter[str]:
        return Counter(line.key for line in read_results(self.target))


@pytest.fixture
def desk(tmp_path: Path) -> Any:
    made = Desk(tmp_path)
    made.stand_in.looks = 1
    with made.server:
        yield made


@wires
def test_a_file_goes_out_and_comes_back(tmp_path: Path, wire: str) -> None:
    desk = Desk(tmp_path, wire)
    desk.stand_in.looks = 1
    with desk.server:
        desk.ask("a", "b", "c")
        ran = desk.run()
        assert ran.code == 0, ran.err
        assert desk.keys() == {"k-a": 1, "k-b": 1, "k-c": 1}
        assert "submitted: 3 requests in 1 batch" in " ".join(ran.out.replace("\t", ": ").split())
        assert "0.009" in ran.out
        assert "no content" not in ran.out
        again = desk.run()
        assert again.code == 0
        assert desk.stand_in.calls.count("create") == 1


def test_the_summary_as_json(desk: Desk) -> None:
    desk.ask("a", "expire", "refuse it")
    ran = desk.run("--summary", "json")
    assert ran.code == 6
    fields = json.loads(ran.out)
    assert fields["requests"]["finished"] == 1
    assert fields["requests"]["failed"] == 1
    assert fields["requests"]["no_result"] == 1
    assert fields["batches"]["submitted"] == 1
    assert fields["batches"]["unanswered"] == [{"key": "k-expire", "sample": 0, "why": "expired"}]
    assert "  k-expire: expired\n" in ran.err
    assert "0.003" in json.dumps(fields["cost"])


def test_what_came_back_without_an_answer_is_asked_live(desk: Desk) -> None:
    asked = []

    def live(method: str, path: str) -> Any:
        def act(path: str, query: Any, headers: Any, body: bytes) -> Any:
            asked.append(json.loads(body)["messages"][0]["content"])
            return 200, chat(asked[-1])

        return ("live", act) if path.endswith("/chat/completions") else route(method, path)

    route = desk.stand_in._route
    desk.stand_in._route = live  # type: ignore[method-assign]
    desk.ask("a", "expire", "refuse it", "vanish")
    ran = desk.run("--then", "live")
    assert ran.code == 0, ran.err
    assert sorted(asked) == ["expire", "refuse it", "vanish"]
    assert all(count == 1 for count in desk.keys().values())
    lines = {line.key: line for line in read_results(desk.target)}
    assert lines["k-a"].cost == {"amount": "0.003000", "resolution": "resolved", "source": "price"}
    assert lines["k-expire"].cost["resolution"] == "unpriced"  # the price is that of a batch


def test_a_batch_that_is_not_taken_is_asked_live(desk: Desk) -> None:
    route = desk.stand_in._route

    def live(method: str, path: str) -> Any:
        if path.endswith("/chat/completions"):
            return "live", lambda path, query, headers, body: (200, chat("x"))
        return route(method, path)

    desk.stand_in._route = live  # type: ignore[method-assign]
    desk.stand_in.not_taken = ("model_not_found", "no such model in batches")
    desk.ask("a", "b")
    ran = desk.run()
    assert ran.code == 4, ran.err
    assert "no such model in batches" in ran.err
    assert not desk.target.exists(), "an empty one is removed"
    ran = desk.run("--then", "live")
    assert ran.code == 0, ran.err
    assert "no such model in batches" in ran.err
    assert desk.keys() == {"k-a": 1, "k-b": 1}


@posix
def test_a_second_signal_waits_for_no_call(desk: Desk) -> None:
    desk.ask("a")
    handle, arrived = desk.stand_in.handle, threading.Event()

    def held(*args: Any) -> Any:
        answer = handle(*args)
        if desk.stand_in.calls[-1] == "look":
            arrived.set()
            desk.server.release.wait(20)
        return answer

    desk.stand_in.handle = held  # type: ignore[method-assign]
    with running(desk.command(), **desk.env) as process:
        assert arrived.wait(20)
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
        assert process.returncode == 130
    assert "run the same command again to fetch the answers" in out
    desk.server.release.set()
    desk.stand_in.handle = handle  # type: ignore[method-assign]
    assert desk.run().code == 0
    assert desk.stand_in.work == {"a": 1}


async def test_a_stop_before_the_first_batch_submits_nothing(tmp_path: Path) -> None:
    asked = iter([BatchRequest("a", "a"), BatchRequest("b", "b")])

    async def requests() -> AsyncGenerator[BatchRequest, None]:
        for request in asked:
            yield request

    async def keep(result: BatchResult) -> None:
        raise AssertionError("there is none")

    stand_in = StandIn()
    via = Via(ViaPlan(journal=tmp_path / "j", live=True, cancel=False, options={}), quiet=True)
    via.stop()
    model = llm.openai("m-1", api_key=stand_in.key, base_url="http://127.0.0.1:9/v1")
    with Journal(tmp_path / "j") as journal:
        async with llm.open_client(transport=StandInTransport(stand_in)) as client:
            assert await via.take(client, requests(), journal, model, keep) == []
    assert stand_in.calls == []


@wires
async def test_the_progress_shows_why_nothing_can_be_sent(
    tmp_path: Path, wire: str, autojump_clock: Any
) -> None:
    """For minutes, in which no batch is at the vendor."""
    told: list[str] = []

    class NoNetwork(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            progress = via.progress()
            assert progress is not None
            told.append(progress.text)
            raise httpx.ConnectError("no such host") from socket.gaierror(
                socket.EAI_NONAME, "unknown"
            )

    via = Via(ViaPlan(journal=tmp_path / "j", live=False, cancel=False, options={}), quiet=True)

    async def requests() -> AsyncGenerator[BatchRequest, None]:
        yield BatchRequest("a", "a")

    async def keep(result: BatchResult) -> None:
        raise AssertionError("there is none")

    make = {"openai": llm.openai, "anthropic": llm.anthropic}[wire]
    model = make("m-1", api_key=KEY, base_url="http://test.invalid/v1")
    with Journal(tmp_path / "j") as journal:
        async with llm.open_client(transport=NoNetwork()) as client:
            with pytest.raises(llm.SendError):
                await via.take(client, requests(), journal, model, keep)
    assert len(told) > 5
    assert "nothing can be sent" not in told[0]
    for line in told[1:]:
        assert " · nothing can be sent: " in line
        assert "no such host" in line
    assert "at the vendor" not in "".join(told)
    assert ("1 request being submitted" in told[-1]) == (wire == "anthropic")


def test_failed_requests_are_submitted_again_when_that_is_asked_for(desk: Desk) -> None:
    desk.ask("a", "refuse it")
    assert desk.run().code == 6
    assert desk.run().code == 6
    assert desk.stand_in.calls.count("create") == 1
    desk.run("--retry-failed")
    assert desk.stand_in.calls.count("create") == 2
    assert desk.keys() == {"k-a": 1, "k-refuse it": 1}


@posix
def test_a_failed_sample_is_submitted_again_without_the_others(desk: Desk) -> None:
    """The other one's answer is at the vendor still, and is paid for."""
    prompts, work = iter(["refuse it", "a", "a"]), desk.stand_in._work

    def work_on(batch: Any) -> None:
        for request in batch.requests:
            request["body"]["messages"][-1]["content"] = next(prompts)
        work(batch)

    desk.stand_in._work = work_on  # type: ignore[method-assign]
    desk.ask("x")
    two = ("--samples", "2", "--part-requests", "1")
    look = desk.stand_in._look
    held = threading.Event()

    def second_is_late(path: str, *more: Any) -> Any:
        if path.endswith("batch_1") and not held.is_set():
            return 200, desk.stand_in._batch(desk.stand_in.batches["batch_1"])
        return look(path, *more)

    desk.stand_in._look = second_is_late  # type: ignore[method-assign]
    with running(desk.command(*two), **desk.env) as process:
        wait_for(lambda: desk.target.exists() and desk.target.read_text().endswith("\n"))
        process.send_signal(signal.SIGINT)
        ended(process)
    held.set()
    ran = desk.run(*two, "--retry-failed")
    assert ran.code == 0, ran.err
    assert desk.stand_in.calls.count("create") == 3
    assert desk.stand_in.work == {"a": 2}


@posix
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_the_batches_and_the_same_command_goes_on(
    desk: Desk, ending: signal.Signals
) -> None:
    desk.stand_in.looks = 10_000
    desk.ask("a", "b")
    with running(desk.command(), **desk.env) as process:
        wait_for(lambda: desk.stand_in.calls.count("create") == 1)
        process.send_signal(ending)
        out, _ = ended(process)
        assert process.returncode == 128 + ending
    assert "2 requests in 1 batch: run the same command again to fetch the answers" in out
    assert "cancel" not in desk.stand_in.calls
    desk.stand_in.looks = 1
    ran = desk.run()
    assert ran.code == 0, ran.err
    assert "2 requests at the vendor" in ran.out
    assert desk.stand_in.work == {"a": 1, "b": 1}
    assert desk.keys() == {"k-a": 1, "k-b": 1}


@posix
def test_cancel_cancels_and_brings_what_was_answered(desk: Desk) -> None:
    desk.stand_in.looks = 10_000
    desk.ask("a", "b")
    with running(desk.command(), **desk.env) as process:
        wait_for(lambda: desk.stand_in.calls.count("create") == 1)
        process.send_signal(signal.SIGINT)
        ended(process)
    desk.ask("a", "b", "c")
    ran = desk.run("--cancel")
    assert ran.code == 6, ran.err
    assert desk.stand_in.calls.count("cancel") == 1
    assert desk.stand_in.calls.count("create") == 1
    assert desk.keys() == {"k-a": 1}
    assert (
        "unanswered: 1 cancelled: run the same command again, without --cancel, to submit them again"
        in ran.out
    )
    assert "no result: 2: run the same command again, without --cancel, to send them" in ran.out
    assert "no batch was under way" not in ran.out
    desk.stand_in.looks = 1
    assert desk.run().code == 0
    assert desk.run("--cancel").code == 0, "every request has an answer"


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_cancel_without_a_batch_says_so_and_leaves_no_file(desk: Desk, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    desk.ask("a", "b", "c")
    desk.target = desk.folder / name
    ran = desk.run("--cancel")
    assert ran.code == 6, ran.err
    assert "cancelled: nothing: no batch was under way" in ran.out
    assert "no result: 3: run the same command again, without --cancel, to send them" in ran.out
    assert desk.stand_in.calls == []
    assert [path.name for path in desk.folder.iterdir()] == ["in.jsonl"]


@posix
@wires
def test_kills_pay_for_nothing_twice(tmp_path: Path, wire: str) -> None:
    """By SIGKILL, as the server sees each call."""
    desk = Desk(tmp_path, wire)
    desk.ask("a", "b", "c")
    with desk.server:
        for step in ("upload", "create", "look", "results"):
            if wire == "anthropic" and step == "upload":
                continue
            arrived, answered = threading.Event(), threading.Event()
            handle = desk.stand_in.handle

            def held(*args: Any, step: str = step, handle: Any = handle) -> Any:
                answer = handle(*args)
                if desk.stand_in.calls[-1] == step:
                    arrived.set()  # noqa: B023
                    answered.wait(20)  # noqa: B023
                return answer

            desk.stand_in.handle = held  # type: ignore[method-assign]
            with running(desk.command("--part-requests", "2"), **desk.env) as process:
                assert arrived.wait(20)
                process.kill()
                process.wait()
            answered.set()
            desk.stand_in.handle = handle  # type: ignore[method-assign]
        desk.stand_in.looks = 1
        ran = desk.run("--part-requests", "2")
        assert ran.code == 0, ran.err
    assert desk.stand_in.work == {"a": 1, "b": 1, "c": 1}
    assert desk.keys() == {"k-a": 1, "k-b": 1, "k-c": 1}


@wires
def test_a_connection_that_breaks_makes_no_second_batch(tmp_path: Path, wire: str) -> None:
    """Not even one that was used before, and so may have died idle."""
    desk = Desk(tmp_path, wire)
    desk.server.http.RequestHandlerClass.protocol_version = "HTTP/1.1"  # type: ignore[attr-defined]
    desk.stand_in.faults = {"create": [None, "cut"]}
    desk.ask("a", "b")
    with desk.server:
        ran = desk.run("--part-requests", "1")
    assert ran.code == 0, ran.err
    assert len(desk.stand_in.batches) == 2
    assert desk.keys() == {"k-a": 1, "k-b": 1}


def test_errors_of_the_vendor_are_told_in_a_line(desk: Desk) -> None:
    desk.ask("a secret", "b")
    for status, words, code in (
        (401, "auth", 4),
        (404, "no batches here", 4),
        (413, "make it smaller", 4),
    ):
        desk.stand_in.faults = {"upload": [status]}
        ran = desk.run()
        assert ran.code == code, ran.err
        assert words in ran.err
        assert "with this id" not in ran.err, "an upload has none"
        assert "no result: 2: fix the error, then run the same command again" in ran.out
        assert "secret" not in ran.err + ran.out
    assert desk.run().code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-cost", "5"], "charged as a whole"),
        (["--check"], "--check can't be combined with --via provider"),
        (["--order"], "--order can't be combined with"),
        (["--then", "later"], "error: invalid value for '--then': 'later' is not one of 'live'"),
        (["--then", "live", "--cancel"], "--then can't be combined with --cancel"),
        (["--part-mb", "0"], "--part-mb must be more than 0"),
    ],
)
def test_misuse(desk: Desk, options: list[str], words: str) -> None:
    desk.ask("a")
    ran = desk.run(*options)
    assert ran.code == 2
    assert words in ran.err
    assert desk.stand_in.calls == []


def test_options_of_batches_are_refused_without_them(desk: Desk) -> None:
    desk.ask("a")
    command = desk.command("--cancel")
    del command[command.index("--via") : command.index("--cancel")]
    ran = run(command, **desk.env)
    assert ran.code == 2
    assert "--cancel needs --via provider" in ran.err
    command = desk.command()
    command[command.index(str(desk.target))] = "-"
    ran = run(command, **desk.env)
    assert ran.code == 2
    assert "needs a file as OUTPUT" in ran.err


def test_a_dry_run_estimates_at_the_price_of_a_batch(desk: Desk) -> None:
    """Which is half of the standard one at the vendor's own address alone."""
    desk.ask("a")

    def cost(price: str, *more: str) -> str:
        ran = desk.run("--dry-run", "--max-tokens", "500", *more, price=price)
        assert ran.code == 0, ran.err
        return ran.out

    own = ("--base-url", "https://api.openai.com/v1")
    assert cost("2,8", *own) == cost(PRICE, *own)
    assert cost("2,8") == cost("2,8,service_tier=batch") != cost(PRICE)
    assert desk.stand_in.calls == []
    assert not (desk.folder / "out.jsonl.batches").exists()


@pytest.mark.parametrize("name", ["openrouter:a/b", "gemini:m"])
def test_a_vendor_without_batches_of_ours_is_refused_before_anything(desk: Desk, name: str) -> None:
    desk.ask("a")
    files = [str(desk.source), str(desk.target)]
    ran = run([*COMMAND, "batch", *files, "-m", name, "--via", "provider", "--dry-run"])
    assert ran.code == 2
    assert "--via provider: " in ran.err
    assert ("OpenRouter's batches have their own format" in ran.err) == ("router" in name)
