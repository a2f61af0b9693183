"""The command line, run as a user runs it: a process, a server, pipes, a terminal, Ctrl-C."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.cli import _chat as cli
from trio_minillm.cli import _chat_answer as answers
from trio_minillm.cli import _output as _report
from trio_minillm.local._named import KEYS
from trio_minillm.testing import text_events

from ..support.command import (
    COMMAND,
    ENDING,
    KEY,
    LIMIT,
    Ran,
    endings,
    environment,
    on_terminal,
    posix,
    read_until,
    run,
    start,
    wait_for,
)
from ..support.endpoint import END, HELLO, USAGE, ThreadedServer, begin, chunk, text


class Server(ThreadedServer):
    """Answers every request with ``status`` and ``body``; holds the connection if told to."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body = HELLO
        self.requests: list[Any] = []
        self.keys: list[str | None] = []
        self.hold = False
        super().__init__()

    def post(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        self.requests.append(json.loads(body))
        self.keys.append(request.headers["authorization"])
        begin(request, self.status, **self.headers)
        request.wfile.write(self.body)
        request.wfile.flush()
        if self.hold:
            self.release.wait(LIMIT)
        request.close_connection = True


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        yield made


def command(server: Server, *args: str) -> list[str]:
    where = ["--model", "compatible:m", "--base-url", server.url, "--attempts", "1"]
    return [*COMMAND, "chat", *where, *args]


def chat(server: Server, *args: str, stdin: bytes | None = None, **env: str) -> Ran:
    return run(command(server, *args), stdin, **env)


def prompt_in(server: Server) -> str:
    return str(server.requests[-1]["messages"][-1]["content"])


# -- the answer ----------------------------------------------------------------------------


def test_text_on_stdout_and_closing_lines_on_stderr(server: Server) -> None:
    options = ["--system", "Be brief.", "--max-tokens", "5", "--temperature", "0.5"]
    ran = chat(server, "Say", "hello", *options, "--reasoning", "low")
    assert (ran.code, ran.raw) == (0, b"Hello.\n")
    first, tokens, times, cost = ran.err.splitlines()
    assert first == "finished: stop · m-1 · gen-1"
    assert tokens == "tokens: 31 in (12 cached) · 7 out (3 reasoning) · 38 in all"
    assert times.startswith("time: headers 0.0")
    assert "2 chunks" in times
    assert cost == "cost: unpriced (tokens known, price not)"
    request = server.requests[0]
    assert [m["content"] for m in request["messages"]] == ["Be brief.", "Say hello"]
    assert request["temperature"] == 0.5
    assert request["reasoning_effort"] == "low"
    assert 5 in (request.get("max_tokens"), request.get("max_completion_tokens"))
    assert server.keys == [f"Bearer {KEY}"]


def test_text_arrives_while_the_stream_runs(server: Server) -> None:
    server.body, server.hold = text("one ", "two"), True
    with subprocess.Popen(
        command(server, "x"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as process:
        try:
            assert process.stdout is not None
            assert read_until(process.stdout.fileno(), b"two") == b"one two"
        finally:
            process.kill()


def test_a_pipe_gets_the_text_untouched_and_no_reasoning(server: Server) -> None:
    answer = "a\x1b[31mred\x07\r\n[bold]ß€😀[/bold]\x9b2J"
    server.body = chunk({"reasoning_content": "thinking"}) + text(answer) + END
    ran = chat(server, "x", "--quiet")
    assert ran.raw.decode() == answer + "\n"
    assert ran.err == ""


@pytest.mark.parametrize("args", [[], ["-"]])
def test_the_prompt_can_come_from_stdin(server: Server, args: list[str]) -> None:
    assert chat(server, *args, stdin="Grüße\n".encode()).code == 0
    assert prompt_in(server) == "Grüße\n"


def test_stdin_beside_a_prompt_is_sent_only_where_a_dash_stands(server: Server) -> None:
    ran = chat(server, "Sum", "up:", "-", stdin=b"the text")
    assert (ran.code, prompt_in(server)) == (0, "Sum up:\n\nthe text")
    ran = chat(server, "Sum up:", stdin=b"the text")
    assert (ran.code, prompt_in(server)) == (0, "Sum up:")
    assert "stdin is not read" in ran.err


def test_no_stream_prints_the_same_at_the_end(server: Server) -> None:
    ran = chat(server, "x", "--no-stream")
    assert (ran.code, ran.raw) == (0, b"Hello.\n")
    assert ran.err.startswith("finished: stop")


def test_raw_prints_the_data_of_the_events_as_it_came(server: Server) -> None:
    ran = chat(server, "x", "--raw")
    sent = [e.removeprefix(b"data: ") for e in HELLO.split(b"\n\n") if e]
    assert ran.code == 0
    assert ran.raw.splitlines() == sent


def test_lenient_passes_over_what_cannot_be_read(server: Server) -> None:
    server.body = text("Hi") + b"data: {nonsense\n\n" + text("!") + END
    assert chat(server, "x").code != 0
    ran = chat(server, "x", "--lenient")
    assert (ran.code, ran.out.strip()) == (0, "Hi!")


def test_json_is_one_object_with_everything(server: Server) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"a":1}'}}
    cut = {"index": 1, "id": "c2", "function": {"name": "g", "arguments": '{"a":'}}
    server.body = chunk({"reasoning_content": "hm"}) + text("Hi \x9b\x7f!")
    server.body += chunk({"tool_calls": [call]}) + chunk({"tool_calls": [cut]}) + END
    ran = chat(server, "x", "--json")
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert "\x9b" not in ran.out
    assert "\x7f" not in ran.out
    found = json.loads(ran.out)
    assert found["outcome"] == "finished"
    assert found["content"] == "Hi \x9b\x7f!"
    assert found["reasoning"] == "hm"
    assert [c["name"] for c in found["tool_calls"]] == ["f"]
    assert [c["arguments"] for c in found["invalid_tool_calls"]] == ['{"a":']
    assert (found["id"], found["model"], found["finish_reason"]) == ("gen-1", "m-1", "stop")
    assert found["usage"]["total_tokens"] == 38
    assert found["usage"]["cache_read_tokens"] == 12
    assert found["cost"] == {
        "amount": None,
        "resolution": "unpriced",
        "source": None,
        "as_of": None,
    }
    assert found["timings"]["chunks"] == 4
    assert (found["refusal"], found["notes"], found["error"]) == (None, [], None)


# -- failures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error", "code", "advice"),
    [
        (401, {"message": f"Incorrect API key provided: {KEY}"}, 4, "TRIO_MINILLM_API_KEY"),
        (
            400,
            {"message": "no such model\n\x1b[2J"},
            4,
            "models compatible --base-url URL lists the",
        ),
        (400, {"message": "too many messages"}, 4, "fix the request"),
        (407, {"message": "who are you?"}, 4, "check the proxy's user name and password"),
        (402, {"message": "Insufficient credits"}, 5, "waiting does not help"),
        (429, {"message": "slow down"}, 5, "wait, then try again"),
        (500, {"message": "oops"}, 5, "wait, then try again"),
    ],
)
def test_refused(
    server: Server, status: int, error: dict[str, str], code: int, advice: str
) -> None:
    server.status, server.body = status, json.dumps({"error": error}).encode()
    ran = chat(server, "x")
    assert (ran.code, ran.raw) == (code, b"")
    assert ran.err.startswith(f"error: HTTP {status}")
    assert advice in ran.err
    assert ran.err.count("\n") == 1
    assert "\x1b" not in ran.err


def test_a_wrong_path_is_explained_once(server: Server) -> None:
    server.status, server.body = 404, b'{"error": {"message": "no such model"}}'
    ran = chat(server, "x")
    assert ran.code == 4
    assert ran.err.count("may be wrong") == 1
    assert ran.err.endswith(" (trio-minillm models compatible --base-url URL lists the models)\n")


@pytest.mark.parametrize("status", [401, 200])
def test_the_key_is_never_printed(server: Server, status: int) -> None:
    long = {"message": "x" * 1990 + KEY, "code": "k " + KEY, "type": KEY, "metadata": {"k": KEY}}
    body = json.dumps({"error": long}).encode()
    server.body = b"data: " + body + b"\n\n" if status == 200 else body
    server.status, server.headers = status, {"x-request-id": KEY, "x-echo": KEY}
    for args in [], ["--json"]:
        ran = chat(server, "x", *args)
        assert ran.code == (4 if status == 401 else 6)
        assert KEY[:8] not in ran.out + ran.err
        assert "[hidden]" in ran.out + ran.err


def test_several_attempts_end_like_the_last(server: Server) -> None:
    server.status, server.headers, server.body = 429, {"retry-after-ms": "1"}, b"{}"
    ran = chat(server, "x", "--json", "--attempts", "2")
    found = json.loads(ran.out)
    assert ran.code == found["exit_code"] == 5
    assert found["error"]["type"] == "RefusedError"
    assert (found["error"]["kind"], found["error"]["status"]) == ("rate_limit", 429)
    assert found["error"]["message"].startswith("HTTP 429 ")
    assert found["timings"]["attempts"] == 2


@pytest.mark.parametrize(
    ("ending", "outcome", "kind"),
    [
        (b"", "truncated", "EndedEarly"),
        (b"data: {nonsense\n\n", "errored", "ProtocolError"),
        (b'data: {"error":{"message":"oops","code":502}}\n\n', "errored", "ProviderError"),
    ],
)
def test_broken_streams_keep_what_came(
    server: Server, ending: bytes, outcome: str, kind: str
) -> None:
    server.body = text("Half ", "an") + chunk({}, usage=USAGE) + ending
    ran = chat(server, "x")
    assert (ran.code, ran.raw) == (6, b"Half an\n")
    assert ran.err.startswith(f"{outcome}: m-1")
    assert "tokens: 31 in (12 cached) · 7 out" in ran.err
    assert ran.err.splitlines()[-1].startswith("error: ")
    found = json.loads(chat(server, "x", "--json").out)
    assert (found["outcome"], found["content"], found["exit_code"]) == (outcome, "Half an", 6)
    assert found["error"]["type"] == kind


def test_a_broken_stream_prints_its_part_without_streaming_too(server: Server) -> None:
    server.body = text("Half ", "an")
    ran = chat(server, "x", "--no-stream")
    assert (ran.code, ran.raw) == (6, b"Half an\n")


def test_a_clock_names_itself(server: Server) -> None:
    server.body, server.hold = text("Half"), True
    ran = chat(server, "x", "--timeout-idle", "0.1")
    assert (ran.code, ran.raw) == (6, b"Half\n")
    assert "clock 'idle' ran out after 0.1 s" in ran.err


def test_nobody_listens() -> None:
    where = ["-m", "compatible:m", "--base-url", "http://127.0.0.1:1/v1", "--attempts", "1"]
    ran = run([*COMMAND, "chat", "x", *where])
    assert (ran.code, ran.raw) == (3, b"")
    assert "check the address" in ran.err


# -- misuse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["x", "-m", "openai:gpt"], "set OPENAI_API_KEY"),
        (["x", "-m", "responses:gpt-5"], "did you mean openai-responses:gpt-5?"),
        (["x", "-m", "gpt-5-mini"], "names no provider; did you mean openai:gpt-5-mini?"),
        (["x", "-m", "claude-haiku-4-5"], "did you mean anthropic:claude-haiku-4-5?"),
        (["x", "-m", "a/b:free"], "did you mean openrouter:a/b:free?"),
        (["x", "-m", "local", "-q", "-v"], "--verbose can't be combined with --quiet"),
        (["x", "-m", "compatible:m"], "needs --base-url"),
        (["x", "-m", "local", "--base-url", "http://h"], "can't be combined with --base-url"),
        (["x", "-m", "nobody:m"], "--model is openrouter:NAME"),
        (["x", "-m", "local", "--raw", "--json"], "--raw can't be combined with"),
        (["x", "-m", "local", "--timeout-idle", "-1"], "idle must be"),
        (["", "-m", "local"], "prompt is empty"),
        (["-m", "local"], "prompt is empty"),
    ],
)
def test_misuse_is_one_line(args: list[str], words: str) -> None:
    ran = run([*COMMAND, "chat", *args])
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert ("exit_code" in ran.out) == ("--json" in args)


def test_a_missing_extra_is_named() -> None:
    script = "import sys; sys.modules['typer'] = None; from trio_minillm.cli import main; main()"
    ran = run([sys.executable, "-P", "-c", script])
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == "error: typer is not installed: pip install 'trio-minillm[cli]'\n"


def test_ctrl_c_while_the_program_loads_is_no_traceback() -> None:
    script = (
        "import sys; from trio_minillm.cli import main\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder()); main()"
    )
    ran = run([sys.executable, "-P", "-c", script])
    assert (ran.code, ran.out, ran.err) == (130, "", "")


def test_a_bug_is_one_line_without_the_data() -> None:
    script = (
        "import sys; from trio_minillm.cli import _chat as cli, main\n"
        "def run(*args): raise ExceptionGroup('x', [KeyError('secret')])\n"
        "cli._run = run; sys.argv = ['x', 'chat', 'x', '-m', 'local']; main()"
    )
    ran = run([sys.executable, "-P", "-c", script])
    assert ran.code == 1
    assert ran.err.startswith("error: a bug in trio-minillm: KeyError at ")
    assert "secret" not in ran.err


def test_version_and_help() -> None:
    assert run([*COMMAND, "--version"]).out == f"trio-minillm {llm.__version__}\n"
    shown = run([*COMMAND, "--help"]).out
    assert "Exit codes: https://" in shown
    for variable in KEYS.values():
        assert f"  {variable} " in shown
    for command in ("chat", "batch", "bench"):
        assert "Exit codes" not in run([*COMMAND, command, "--help"]).out


# -- Ctrl-C, broken pipes, terminals -------------------------------------------------------


@posix
@pytest.mark.parametrize("mode", ["text", "json"])
@endings
def test_ctrl_c_ends_the_stream_and_still_counts(
    server: Server, mode: str, ending: signal.Signals
) -> None:
    server.body, server.hold = text("Half ", "an") + chunk({}, usage=USAGE), True
    args = command(server, "x", *(["--json"] if mode == "json" else []))
    with start(args) as process:
        assert process.stdout is not None
        if mode == "text":
            read_until(process.stdout.fileno(), b"Half an")
        else:
            wait_for(lambda: bool(server.requests))
        asked = time.monotonic()
        process.send_signal(ending)
        out, err = process.communicate(timeout=LIMIT)
    assert time.monotonic() - asked < LIMIT / 3
    assert process.returncode == ENDING[ending]
    if mode == "json":
        found = json.loads(out)
        assert (found["outcome"], found["exit_code"]) == ("cancelled", ENDING[ending])
        assert err == b""
        # Nothing outside tells how much of the answer it had read by then.
        assert "Half an".startswith(found["content"])
    else:
        assert out == b"\n"
        assert err.startswith(b"cancelled: m-1")
        assert b"tokens: 31 in (12 cached)" in err
        assert b"Traceback" not in err


@posix
def test_ctrl_c_while_stdout_hangs(server: Server) -> None:
    server.body, server.hold = text("x" * 1_000_000), True
    with start(command(server, "x", "--quiet")) as process:
        assert process.stdout is not None
        select.select([process.stdout], [], [], LIMIT)  # the pipe fills; nobody reads it
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


@posix
def test_a_second_ctrl_c_waits_for_nothing(server: Server) -> None:
    # The first has it wait for a write to a pipe that is full: here for a very long while.
    script = (
        "import os, sys; from trio_minillm.cli import _chat_answer as cli, main\n"
        "cli.STUCK_SECONDS = 1000\n"
        "cancel = cli.llm.StreamingCompletion.cancel\n"
        "async def loud(self): os.write(2, b'first'); return await cancel(self)\n"
        "cli.llm.StreamingCompletion.cancel = loud; main()"
    )
    args = command(server, "x", "--quiet")
    args = [sys.executable, "-P", "-c", script, *args[args.index("chat") :]]
    server.body, server.hold = text("x" * 1_000_000), True
    with start(args) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        select.select([process.stdout], [], [], LIMIT)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"first")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) == 130


@posix
def test_ctrl_c_before_there_is_a_prompt() -> None:
    # Only it can tell when it reads. SIGINT is set since a shell's background jobs ignore it.
    script = (
        "import os, signal, sys; from trio_minillm.cli import _chat as cli, main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def read(): os.write(1, b'reading'); return sys.stdin.read()\n"
        "cli._read_stdin = read; main()"
    )
    args = [sys.executable, "-P", "-c", script, "chat", "-m", "local"]
    with start(args, stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"reading")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, out, err) == (130, b"", b"")


@posix
def test_a_reader_that_leaves_ends_it_quietly(server: Server) -> None:
    server.body, server.hold = text("first "), False
    server.body += text(*["more "] * 10_000) + END
    with start(command(server, "x")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        read_until(process.stdout.fileno(), b"first")
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(LIMIT) == 141


@posix
@pytest.mark.parametrize("more", [[], ["--no-stream"]])
def test_a_terminal_is_not_at_the_models_mercy(server: Server, more: list[str]) -> None:
    server.body = chunk({"reasoning_content": "hm\x1b[2J"})
    server.body += text("a\x1b]0;t\x07b\x9b2Jc\x7f\rd\te\n[bold]f[/]")
    server.body += chunk({}, "stop\x1b[31m") + chunk(usage=USAGE)
    code, shown = on_terminal(command(server, "x", *more))
    assert code == 0
    answer = "a␛]0;t␇b\ufffd2Jc␡␍d\te\n[bold]f[/]\n\n"
    if more:
        assert shown.startswith(answer)
    else:
        assert shown.startswith("\x1b[2mhm␛[2J\x1b[0m\n\n" + answer)
    assert "stop␛[31m · m-1" in shown
    assert "31 in (12 cached)" in shown
    for control in ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\x7f", "\r"):
        assert control not in shown


@posix
@pytest.mark.parametrize("mode", ["--raw", "--json"])
def test_other_forms_are_safe_on_a_terminal(server: Server, mode: str) -> None:
    server.body = b'data: {"choices":[{"delta":{"content":"a\x7f\xc2\x9b2J"}}]}\n\n' + END
    code, shown = on_terminal(command(server, "x", mode, "--quiet"))
    assert code == 0
    assert "\x7f" not in shown
    assert "\x9b" not in shown


# -- pure ----------------------------------------------------------------------------------


def test_text_view_separates_reasoning_from_the_answer() -> None:
    view = answers.TextView(terminal=True)
    chunks = [llm.StreamChunk(reasoning="hm"), llm.StreamChunk(reasoning=".\n")]
    chunks += [llm.StreamChunk("a"), llm.StreamChunk(reasoning="b"), llm.StreamChunk("c\n")]
    assert "".join(map(view.show, chunks)) + view.end() == "hm.\n\nab\n\nc\n"


def test_one_line_is_one_short_line() -> None:
    assert _report.one_line("a\n\tb\x1b  c\x00") == "a b␛ c␀"
    assert _report.one_line("x" * 50, limit=10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("cost", "line"),
    [
        (llm.CostInfo(), "unknown"),
        (llm.CostInfo(None, llm.CostResolution.UNPRICED), "unpriced (tokens known, price not)"),
        (
            llm.CostInfo(Decimal("1E-7"), llm.CostResolution.RESOLVED, "native"),
            "$0.0000001 (the provider's figure)",
        ),
        (
            llm.CostInfo(Decimal("0.5"), llm.CostResolution.LOWER_BOUND, "price"),
            "at least $0.5 (price times usage)",
        ),
    ],
)
def test_cost_line(cost: llm.CostInfo, line: str) -> None:
    assert _report.cost_line(cost) == line


def test_unknown_counts_are_not_shown_as_zero() -> None:
    running = llm.Usage(completion_tokens=3)
    assert _report.usage_line(running, ended=False) == "? in · 3 out · so far"
    assert _report.usage_line(running, ended=True) == "? in · 3 out · in doubt"
    empty = llm.CompletionResponse(outcome=llm.Outcome.CANCELLED)
    assert _report.closing_rows(empty) == [
        ("cancelled", ""),
        ("tokens", "unknown"),
        ("cost", "unknown"),
    ]
    assert _report.timings_line(llm.Timings(total=0.0, chunks=1, attempts=2)) == (
        "total 0.00 s · 1 chunk · 2 attempts"
    )


def test_calls_refusals_and_notes_are_shown() -> None:
    good = llm.ToolCall(id="1", name="f", arguments='{"a": 1}')
    bad = llm.ToolCall(id="2", name="", arguments='{"a"\n')
    choice = llm.Choice(refusal="No.", tool_calls=(good,), invalid_tool_calls=(bad,))
    response = llm.CompletionResponse(choices=(choice,), notes=("odd",))
    rows = _report.closing_rows(response)
    assert rows[1:4] == [
        ("declined", "No."),
        ("tool call", 'f({"a": 1})'),
        ("tool call", 'INVALID (nameless)({"a" )'),
    ]
    assert rows[-1] == ("note", "odd")


def test_what_the_model_made_beside_text_is_told() -> None:
    choice = llm.Choice(images=({"url": "x"}, {"url": "y"}), audio={"id": "a"})
    response = llm.CompletionResponse(choices=(choice,))
    assert _report.closing_rows(response)[1:3] == [
        ("images", "2, in --json and --raw"),
        ("audio", "1, in --json and --raw"),
    ]


def test_what_to_do_about_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def advice(status: int, kind: Any) -> str:
        info = llm.ErrorInfo(message="no", kind=kind, status=status)
        return _report.advice(llm.RefusedError(info), "A_KEY")

    monkeypatch.delenv("A_KEY", raising=False)
    assert advice(401, "auth") == "no key was sent: set A_KEY"
    monkeypatch.setenv("A_KEY", "k")
    assert advice(401, "auth") == "check the key in A_KEY, and its permissions"
    assert advice(413, "invalid").startswith("send a shorter request")
    assert advice(400, "invalid").startswith("fix the request")


@pytest.mark.parametrize(
    ("given", "meant"), [(None, None), ("2000", 2000), ("low", "low"), ("on", True), ("off", False)]
)
def test_reasoning_shorthands(given: str | None, meant: str | int | bool | None) -> None:
    found = cli.reasoning_of(given)
    assert found == meant
    assert type(found) is type(meant)


def test_a_prompt_of_text_completions_is_continued(server: Server) -> None:
    server.body = b"".join(text_events("Hel", "lo"))
    keys = {"OPENAI_API_KEY": "sk-not-for-this-server", "TRIO_MINILLM_API_KEY": KEY}
    ran = run([*COMMAND, "chat", "-m", "text:m", "--base-url", server.url, "Once"], **keys)
    assert (ran.code, ran.out) == (0, "Hello\n")
    assert server.requests[0]["prompt"] == "Once"
    assert server.keys == [f"Bearer {KEY}"]
    ran = run([*COMMAND, "chat", "-m", "text:m", "Once"], OPENAI_API_KEY="")
    assert ran.code == 2
    assert "OPENAI_API_KEY" in ran.err


@pytest.mark.parametrize("command", ["chat", "bench"])
@pytest.mark.parametrize("kind", ["text", "openai-responses"])
def test_another_server_gets_the_key_that_the_error_names(
    server: Server, kind: str, command: str
) -> None:
    server.status, server.body = 401, json.dumps({"error": {"message": "no"}}).encode()
    args = [*COMMAND, command, "-m", f"{kind}:m", "--base-url", server.url]
    args += ["Once"] if command == "chat" else ["--requests", "1", "--concurrency", "1"]
    ran = run(args, OPENAI_API_KEY="sk-not-for-this-server")
    assert ran.code == 4, ran.err
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert "check the key in TRIO_MINILLM_API_KEY" in ran.err
    assert "OPENAI_API_KEY" not in ran.err
    shown = run([*COMMAND, "-h"], COLUMNS="120").out
    (line,) = (line for line in shown.splitlines() if "  TRIO_MINILLM_API_KEY " in line)
    assert f"{kind}: with --base-url" in line
