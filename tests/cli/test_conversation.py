"""Conversations: the command on a terminal, a server, and someone who types."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
if sys.platform == "win32":
    pytest.skip("terminals of POSIX", allow_module_level=True)

import trio_minillm as llm
from trio_minillm import batch

from ..support.command import COMMAND, KEY, LIMIT, run, wait_for
from ..support.endpoint import END, HELLO, Endpoint, chunk, text
from ..support.terminal import CTRL_C, CTRL_D, UP, Terminal, plain

PNG = b"\x89PNG\r\n\x1a\n0000"


def talk(endpoint: Endpoint, *args: str, **options: Any) -> Terminal:
    where = ["--model", "compatible:m", "--base-url", endpoint.url, "--attempts", "1"]
    return Terminal([*COMMAND, "chat", *where, *args], **options)


def said(request: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["role"], message["content"]) for message in request["messages"]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- turns -----------------------------------------------------------------------------------


def test_each_turn_is_sent_with_those_before_it(endpoint: Endpoint) -> None:
    with talk(endpoint, "--system", "Be brief.", "--max-tokens", "5") as terminal:
        terminal.type("Hi\r")
        terminal.until("\nHello.\n")
        first = plain(terminal.until("unpriced"))
        terminal.type("And?\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "finished  stop · m-1 · gen-1" in first
    assert "tokens    31 in (12 cached) · 7 out (3 reasoning)" in first
    assert "conversation  2 turns · 2 requests" in shown
    assert "tokens        62 in · 14 out" in shown
    begin = [("system", "Be brief."), ("user", "Hi")]
    assert said(endpoint.requests[0]) == begin
    assert said(endpoint.requests[1]) == [*begin, ("assistant", "Hello."), ("user", "And?")]


def test_a_prompt_can_begin_the_conversation(endpoint: Endpoint) -> None:
    with talk(endpoint, "-i", "--quiet", "Mail me", "@home") as terminal:
        terminal.until("Hello.\n")
        terminal.type("Go\r")
        terminal.until("Hello.\n")
        terminal.type("/exit\r")
        code, shown = terminal.end()
    assert (code, shown.strip()) == (0, "/exit")
    begin = [("user", "Mail me @home"), ("assistant", "Hello.")]
    assert said(endpoint.requests[1]) == [*begin, ("user", "Go")]


@pytest.mark.parametrize("first", ["a\\", '"""', '"""a"""', "/help", "me@x.org"])
def test_a_given_prompt_can_be_sent_again(endpoint: Endpoint, first: str) -> None:
    endpoint.script = lambda n: (200, [HELLO]) if n else (500, [b"{}"])
    with talk(endpoint, "-i", "--", first) as terminal:
        terminal.until("error: ")
        terminal.type("\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert endpoint.requests[0] == endpoint.requests[1]


@pytest.mark.parametrize("args", [[], ["-i", " "]])
def test_blank_prompts_are_not_sent(endpoint: Endpoint, args: list[str]) -> None:
    with talk(endpoint, *args) as terminal:
        terminal.type("\r")
        terminal.type("  \r")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert (code, "conversation" in shown) == (0, False)
    assert endpoint.requests == []


def test_prompts_of_several_lines(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("one\\\r")
        terminal.type("two \\\\\r", "... ")
        terminal.type('"""\r')
        terminal.type("/help @none \\\r", "... ")
        terminal.type('"""\r', "... ")
        terminal.type('"""@one"""\r')
        terminal.type(CTRL_D)
        terminal.end()
    sent = [said(request)[-1][1] for request in endpoint.requests]
    assert sent == ["one\ntwo \\\\", "/help @none \\", "@one"]


def test_earlier_prompts_come_back_with_the_arrow_keys(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("one\\\r")
        terminal.type("two\r", "... ")
        terminal.type(f"{UP} more\r")
        terminal.type(CTRL_D)
        terminal.end()
    assert said(endpoint.requests[1])[-1] == ("user", "one\ntwo more")


# -- Ctrl-C and SIGTERM ----------------------------------------------------------------------


def stay_half(endpoint: Endpoint) -> None:
    """Have the first answer stay half until the end of the test."""
    first = [text("Half ", "an"), endpoint.release]
    endpoint.script = lambda n: (200, [HELLO] if n else first)


def test_ctrl_c_ends_the_answer_and_keeps_its_part(endpoint: Endpoint) -> None:
    stay_half(endpoint)
    with talk(endpoint, "--ledger", "costs.jsonl") as terminal:
        terminal.type("Hi\r")
        terminal.until("Half an")
        terminal.press(CTRL_C)
        ended = plain(terminal.until("/undo drops the turn\n"))
        terminal.type("Go on\r")
        terminal.until("Hello.\n")
        terminal.type("/save it.jsonl\r")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "cancelled" in ended
    assert "conversation  2 turns" in shown
    told = [("user", "Hi"), ("assistant", "Half an"), ("user", "Go on")]
    assert said(endpoint.requests[1]) == told
    lines = [json.loads(line) for line in Path("it.jsonl").read_text().splitlines()]
    assert [line["meta"]["outcome"] for line in lines] == ["cancelled", "finished"]
    assert llm.JSONLLedger("costs.jsonl").totals.outcomes == {"cancelled": 1, "finished": 1}


def test_ctrl_c_before_anything_came_gives_the_prompt_back(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n else [endpoint.release])
    with talk(endpoint) as terminal:
        terminal.type("Hi there\r")
        wait_for(lambda: bool(endpoint.requests))
        terminal.press(CTRL_C)
        terminal.type("!\r", "> Hi there")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert said(endpoint.requests[1]) == [("user", "Hi there!")]


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D])
def test_ctrl_c_and_ctrl_d_leave_an_empty_prompt(endpoint: Endpoint, key: str) -> None:
    with talk(endpoint) as terminal:
        terminal.type(key)
        code, _ = terminal.end()
        assert (code, terminal.echoes()) == (0, True)


def test_ctrl_c_empties_a_prompt_first(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("nonsense")
        terminal.until("nonsense")
        terminal.press(CTRL_C)
        terminal.type("more\\\r")
        terminal.type(CTRL_C, "... ")
        terminal.type("Hi\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_C)
        assert terminal.end()[0] == 0
    assert said(endpoint.requests[0]) == [("user", "Hi")]


def test_a_second_ctrl_c_behind_an_answer_does_not_leave_yet(endpoint: Endpoint) -> None:
    stay_half(endpoint)
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        terminal.until("Half an")
        terminal.press(CTRL_C)
        terminal.type(CTRL_C)
        terminal.until("Ctrl-C again leaves")
        terminal.type(CTRL_C)
        assert terminal.end()[0] == 0


@pytest.mark.parametrize("when", ["reading", "answering"])
def test_sigterm_ends_the_conversation(endpoint: Endpoint, when: str) -> None:
    stay_half(endpoint)
    with talk(endpoint) as terminal:
        terminal.until("> ")
        if when == "answering":
            terminal.press("Hi\r")
            terminal.until("Half an")
        else:
            terminal.press("typed")
            terminal.until("typed")
        terminal.process.send_signal(signal.SIGTERM)
        code, shown = terminal.end()
        assert (code, terminal.echoes()) == (143, True)
    assert ("conversation  1 turn" in shown) == (when == "answering")


class Asked(Endpoint):
    """A server that is asked what an answer cost, and then says it."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = threading.Event()
        super().__init__()

    def get(self, request: BaseHTTPRequestHandler) -> None:
        self.asked += 1
        self.answers.wait(LIMIT)
        body = json.dumps({"data": {"total_cost": 0.25, "id": "gen-0"}}).encode()
        request.send_response(200)
        request.send_header("content-length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def asked() -> Iterator[Asked]:
    with Asked() as made:
        yield made


def test_costs_are_asked_for_while_a_prompt_is_read(asked: Asked) -> None:
    stay_half(asked)
    where = ["-m", "openrouter:m", "--base-url", asked.url, "--attempts", "1"]
    with Terminal([*COMMAND, "chat", *where], OPENROUTER_API_KEY=KEY) as terminal:
        terminal.type("Hi\r")
        terminal.until("Half an")
        terminal.press(CTRL_C)
        terminal.type("/cost")
        wait_for(lambda: bool(asked.asked))
        asked.answers.set()
        terminal.press("\r")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "$0.25" in shown


def test_ctrl_c_does_not_wait_for_the_cost(asked: Asked) -> None:
    stay_half(asked)
    where = ["-m", "openrouter:m", "--base-url", asked.url, "--attempts", "1"]
    with Terminal([*COMMAND, "chat", *where], OPENROUTER_API_KEY=KEY) as terminal:
        terminal.type("Hi\r")
        terminal.until("Half an")
        terminal.press(CTRL_C)
        terminal.type(CTRL_D)
        terminal.until("asking what it cost")
        terminal.press(CTRL_C)
        code, shown = terminal.end()
        asked.answers.set()
    assert code == 130
    assert "conversation  1 turn" in shown


# -- what goes wrong -------------------------------------------------------------------------


def test_a_refused_prompt_can_be_sent_again(endpoint: Endpoint) -> None:
    no = json.dumps({"error": {"message": "slow\x1b[2J down"}}).encode()
    endpoint.script = lambda n: (429, [no]) if n == 1 else (200, [HELLO])
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        terminal.until("Hello.\n")
        terminal.type("And?\r")
        error = terminal.until("then try again)")
        terminal.type("\r", "> And?")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "error: HTTP 429" in error
    assert "\x1b[2J" not in terminal.shown
    assert "conversation  2 turns · 3 requests" in shown
    assert endpoint.requests[1] == endpoint.requests[2]


def test_a_server_that_dies_ends_no_conversation(endpoint: Endpoint) -> None:
    endpoint.script = lambda n: (200, [text("Half")])
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        terminal.until("truncated")
        terminal.until("error: ")
        terminal.until("/undo drops the turn")
        endpoint.close()
        terminal.type("Again\r")
        terminal.until("check the address, and that the server runs")
        terminal.type(CTRL_C, "> Again")
        terminal.type("/undo\r")
        terminal.until("dropped; 0 turns left")
        terminal.type("/exit\r")
        assert terminal.end()[0] == 0


def test_an_address_at_which_nothing_listens(endpoint: Endpoint) -> None:
    where = ["-m", "compatible:m", "--base-url", "http://127.0.0.1:1/v1", "--attempts", "1"]
    with Terminal([*COMMAND, "chat", *where]) as terminal:
        terminal.type("Hi\r")
        terminal.until("error: ")
        terminal.type(CTRL_C, "> Hi")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0


def test_a_server_can_not_take_over_the_terminal(endpoint: Endpoint) -> None:
    answer = chunk({"reasoning_content": "hm\x1b[2J"}) + text("a\x1b]0;t\x07b\x9b2Jc\r> d") + END
    endpoint.script = lambda n: (200, [answer])
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        shown = terminal.until("a␛]0;t␇b\ufffd2Jc␍> d\n")
        terminal.type(CTRL_D)
        terminal.end()
    assert "\x1b[2mhm␛[2J\x1b[0m" in shown
    assert "\x9b" not in terminal.shown
    assert "\x1b]" not in terminal.shown


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_terminals_without_colour(endpoint: Endpoint, env: dict[str, str]) -> None:
    bad = chunk({"reasoning_content": "hm"}) + text("Half")
    endpoint.script = lambda n: (200, [bad])
    with talk(endpoint, **env) as terminal:
        terminal.type("Hi\r")
        terminal.until("error: ")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert "\x1b[3" not in terminal.shown
    if env.get("TERM"):
        assert "\x1b" not in terminal.shown


def test_a_narrow_terminal(endpoint: Endpoint) -> None:
    with talk(endpoint, columns=24) as terminal:
        terminal.type("/help\r")
        terminal.type("a prompt that is longer than the terminal is wide\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert said(endpoint.requests[0])[0][1].endswith("terminal is wide")


# -- files -----------------------------------------------------------------------------------


def test_files_go_with_a_prompt(endpoint: Endpoint) -> None:
    Path("photo.png").write_bytes(PNG)
    Path("my notes.txt").write_text("Salt.")
    with talk(endpoint) as terminal:
        terminal.type('Is @photo.png in @"my notes.txt"? Ask me@x.org or \\@me.\r')
        attached = terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        terminal.end()
    ((_, (asked, picture, notes)),) = said(endpoint.requests[0])
    assert asked["text"] == "Is photo.png in my notes.txt? Ask me@x.org or @me."
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert notes["text"] == "my notes.txt:\n\nSalt."
    assert "with photo.png (image/png, 12 bytes)" in attached
    assert "with my notes.txt (text, " in attached


def test_a_file_that_can_not_be_read_loses_nothing(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("What is @photo.png?\r")
        terminal.until("error: photo.png: No such file or directory")
        Path("photo.png").write_bytes(PNG)
        terminal.type("\r", "> What is @photo.png?")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert len(endpoint.requests) == 1


def test_files_of_the_command_go_with_the_first_answered_prompt(endpoint: Endpoint) -> None:
    Path("photo.png").write_bytes(PNG)
    endpoint.script = lambda n: (200, [HELLO]) if n else (500, [b"{}"])
    with talk(endpoint, "--file", "photo.png") as terminal:
        terminal.type("What is it?\r")
        terminal.until("error: ")
        terminal.type("\r", "> What is it?")
        terminal.until("Hello.\n")
        terminal.type("Thanks\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        terminal.end()
    first, second, third = map(said, endpoint.requests)
    assert first == second == third[:1]
    assert [part["type"] for part in second[0][1]] == ["text", "image_url"]
    assert third[-1] == ("user", "Thanks")


def test_files_of_the_command_go_again_after_the_first_turn_is_dropped(endpoint: Endpoint) -> None:
    Path("photo.png").write_bytes(PNG)
    with talk(endpoint, "--file", "photo.png") as terminal:
        terminal.type("What is it?\r")
        terminal.until("Hello.\n")
        terminal.type("/undo\r")
        terminal.type("What does it show?\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        terminal.end()
    for request in endpoint.requests:
        assert [part["type"] for part in said(request)[0][1]] == ["text", "image_url"]


def test_files_of_the_command_do_not_come_back_in_a_new_conversation(endpoint: Endpoint) -> None:
    Path("photo.png").write_bytes(PNG)
    with talk(endpoint, "--file", "photo.png") as terminal:
        for typed in ("Hi\r", "Ho\r", "He\r"):
            terminal.type(typed)
            terminal.until("Hello.\n")
            terminal.type("/undo\r" if typed == "Ho\r" else "/clear\r")
        terminal.type(CTRL_D)
        terminal.end()
    assert [said(request)[0][1] for request in endpoint.requests[1:]] == ["Ho", "He"]


# -- commands --------------------------------------------------------------------------------


def test_undo_clear_and_system(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("one\r")
        terminal.type("two\r")
        terminal.type("/undo\r")
        terminal.type("/system Be brief.\r")
        terminal.type("three\r")
        terminal.type("/clear\r")
        terminal.type("four\r")
        terminal.type("/system\r")
        terminal.type("five\r")
        terminal.type("/cost\r")
        cost = terminal.until("cost ")
        terminal.type(CTRL_D)
        terminal.end()
    sent = [[content for _, content in said(request)] for request in endpoint.requests]
    assert sent[2] == ["Be brief.", "one", "Hello.", "three"]
    assert sent[3] == ["Be brief.", "four"]
    assert sent[4] == ["four", "Hello.", "five"]
    assert "2 turns · 5 requests" in cost


WRONG = {
    "/nope": "error: no command /nope; a space before the / makes it a prompt",
    "/etc/passwd is": "no command /etc/passwd",
    "/undo": "error: there is no turn to drop",
    "/undo 2": "error: /undo takes nothing after it",
    "/save": "error: /save takes the name of a file",
    "/save it.jsonl": "error: there is no turn to save",
    "/save it.txt": "error: the file ends in .jsonl",
    "/model": "error: /model takes KIND:NAME; now it is compatible:m",
    "/model openai:gpt": "error: no API key: set OPENAI_API_KEY",
    "/model nobody:m": "error: --model is openrouter:NAME",
}


def test_a_command_that_fails_can_be_corrected(endpoint: Endpoint) -> None:
    with talk(endpoint, columns=200) as terminal:
        for line, words in WRONG.items():
            terminal.type(f"{line}\r")
            terminal.until(words)
            terminal.type(CTRL_C, f"> {line}")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert endpoint.requests == []


def test_help_names_each_command(endpoint: Endpoint) -> None:
    with talk(endpoint, columns=120) as terminal:
        terminal.type("/help\r")
        shown = terminal.until("empty prompt, leaves")
        terminal.type(" /help\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        terminal.end()
    for name in ("help", "clear", "undo", "save FILE", "model KIND:NAME", "system TEXT", "cost"):
        assert f"/{name}" in shown
    assert said(endpoint.requests[0]) == [("user", " /help")]


def test_another_model_goes_on(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        terminal.type("/model compatible:other\r")
        terminal.type("And?\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        terminal.end()
    assert [request["model"] for request in endpoint.requests] == ["m", "other"]
    assert len(endpoint.requests[1]["messages"]) == 3


def test_a_local_model_that_does_not_start_leaves_the_one_before(endpoint: Endpoint) -> None:
    with talk(endpoint) as terminal:
        terminal.type("/model local:none.gguf\r")
        terminal.until("error: ")
        terminal.type(CTRL_C, "> /model local:none.gguf")
        terminal.type("Hi\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0


def test_a_model_that_does_not_start_is_the_end() -> None:
    with Terminal([*COMMAND, "chat", "-m", "local:none.gguf"]) as terminal:
        code, shown = terminal.end()
    assert code == 3
    assert shown.startswith("error: ")


def test_saved_files_are_read_by_batch_and_by_programs(endpoint: Endpoint) -> None:
    Path("photo.png").write_bytes(PNG)
    Path("mine.json").write_text("mine")
    schema = json.dumps({"type": "object", "title": "Salt"})
    more = ["--system", "Be brief.", "--temperature", "0.5", "--extra", '{"mirostat": 1}']
    with talk(endpoint, *more, "--schema", schema, columns=200) as terminal:
        terminal.type("What is @photo.png\r")
        terminal.until("Hello.\n")
        terminal.type("And?\r")
        terminal.until("Hello.\n")
        terminal.type("/save it.jsonl\r")
        terminal.type("/save mine.json\r")
        terminal.until("error: mine.json exists")
        terminal.type(CTRL_C, "> /save mine.json")
        terminal.type('/save "the messages.json"\r')
        terminal.type("/save it.jsonl\r")
        terminal.until("saved to it.jsonl")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert Path("mine.json").read_text() == "mine"
    messages = json.loads(Path("the messages.json").read_text())
    assert messages[:-1] == endpoint.requests[1]["messages"]
    assert messages[-1] == {"role": "assistant", "content": "Hello."}
    asked = endpoint.requests[:]
    where = ["--model", "compatible:m", "--base-url", endpoint.url, "--concurrency", "1", "--order"]
    ran = run([*COMMAND, "batch", "it.jsonl", "out.jsonl", *where])
    assert ran.code == 0, ran.err
    assert endpoint.requests[2:] == asked
    keys = [line.key for line in batch.read_results("out.jsonl")]
    assert keys == ["turn-1", "turn-2"]


def test_a_folder_that_is_gone_ends_no_conversation(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    with talk(endpoint) as terminal:
        terminal.type("Hi\r")
        terminal.until("Hello.\n")
        gone.rmdir()
        terminal.type("/save it.jsonl\r")
        terminal.until("error: it.jsonl: No such file or directory")
        terminal.type(CTRL_C, "> /save it.jsonl")
        terminal.type(f"/save {tmp_path}/it.jsonl\r")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert (tmp_path / "it.jsonl").exists()


# -- other options ---------------------------------------------------------------------------


def test_answers_are_checked_in_a_conversation(endpoint: Endpoint) -> None:
    good, bad = (text('{"a": ', word, "}") + END for word in ("1", '"x"'))
    endpoint.script = lambda n: (200, [good if n else bad])
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}}'
    with talk(endpoint, "--schema", schema, columns=200) as terminal:
        terminal.type("Hi\r")
        terminal.until('{"a": "x"}\n')
        error = terminal.until("sending the request again costs again)")
        terminal.type("Again\r")
        terminal.until('{"a": 1}\n')
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert "error: 'x' is not of type 'integer' - at `$.a`" in error
    assert len(endpoint.requests[1]["messages"]) == 3


def test_a_type_that_raises_ends_no_conversation(endpoint: Endpoint) -> None:
    Path("strict.py").write_text(
        "import msgspec\nclass Salt(msgspec.Struct):\n    a: int\n"
        "    def __post_init__(self):\n        assert self.a > 1, 'too small'\n"
    )
    endpoint.script = lambda n: (200, [text('{"a": 2}' if n else '{"a": 1}') + END])
    with talk(endpoint, "--schema", "strict:Salt", columns=200) as terminal:
        terminal.type("Hi\r")
        terminal.until("error: AssertionError: too small (strict.py, line 5) (the answer is not")
        terminal.type("Again\r")
        terminal.until('{"a": 2}\n')
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert len(endpoint.requests[1]["messages"]) == 3


def test_a_conversation_without_streaming(endpoint: Endpoint) -> None:
    with talk(endpoint, "--no-stream", "-q") as terminal:
        terminal.type("Hi\r")
        terminal.until("Hello.\n")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert (code, shown.strip()) == (0, "")


def test_costs_of_a_conversation_are_in_the_ledger(endpoint: Endpoint) -> None:
    with talk(endpoint, "--ledger", "costs.jsonl", "--price", "1,2") as terminal:
        terminal.type("Hi\r")
        terminal.type("Hi\r")
        terminal.type(CTRL_D)
        code, shown = terminal.end()
    assert code == 0
    assert "cost          $0.00009" in shown
    assert len(Path("costs.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-i"], "--interactive needs a terminal"),
        (["-i", "x", "-"], "--interactive can't be combined with a -"),
        (["-i", "--json"], "--interactive can't be combined with --json or --raw"),
        (["-i", "--raw"], "--interactive can't be combined with --json or --raw"),
    ],
)
def test_conversations_that_can_not_be(args: list[str], words: str) -> None:
    ran = run([*COMMAND, "chat", "-m", "local", *args])
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert words in ran.err


def test_a_prompt_from_a_pipe_stays_one_request(endpoint: Endpoint) -> None:
    where = ["--model", "compatible:m", "--base-url", endpoint.url]
    ran = run([*COMMAND, "chat", *where], b"one\n\ntwo\n")
    assert (ran.code, ran.raw) == (0, b"Hello.\n")
    assert said(endpoint.requests[0]) == [("user", "one\n\ntwo\n")]


def test_a_terminal_with_other_forms_reads_one_prompt(endpoint: Endpoint) -> None:
    with talk(endpoint, "--json") as terminal:
        terminal.type(f"Hi\n{CTRL_D}", "Type the prompt")
        code, shown = terminal.end()
    assert code == 0
    assert json.loads(shown[shown.index("{") :])["content"] == "Hello."
