"""Command lines that can't be read, and how the command is called: each failure is one line."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

import trio_minillm as llm

from ..support.command import COMMAND, LIMIT, ended, posix, read_until, run, start


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["chta"], "no such command 'chta'; did you mean 'chat'? (see trio-minillm --help)"),
        (["nothing"], "no such command 'nothing' (see trio-minillm --help)"),
        (["--nothing"], "no such option: --nothing (see trio-minillm --help)"),
        (
            ["chat", "hi", "--modle", "x"],
            "no such option: --modle; did you mean --model? (see trio-minillm chat --help)",
        ),
        (["chat", "hi", "-z"], "no such option: -z (see trio-minillm chat --help)"),
        (["chat", "hi"], "missing option '--model' / '-m' (see trio-minillm chat --help)"),
        (
            ["chat", "hi", "-m", "local", "--attempts", "many"],
            "invalid value for '--attempts': should be a valid integer (see trio-minillm chat --help)",
        ),
        (
            ["batch", "a", "b", "c", "-m", "local"],
            "unexpected argument: c (see trio-minillm batch --help)",
        ),
        (
            ["batch", "a", "-m", "local"],
            "missing argument 'OUTPUT' (see trio-minillm batch --help)",
        ),
        (
            ["batch", "a", "b", "-m"],
            "option '-m' requires an argument (see trio-minillm batch --help)",
        ),
        (["costs", "none.jsonl"], "the ledger none.jsonl: no such file"),
        (
            ["costs", "none.jsonl", "--base-url", "x"],
            "--base-url needs --settle, which asks at that address",
        ),
    ],
)
def test_one_line(
    args: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run([*COMMAND, *args])
    assert (ran.code, ran.out, ran.err) == (2, "", f"error: {line}\n")


def test_without_arguments_the_help_is_shown() -> None:
    ran = run(COMMAND)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: trio-minillm ")
    assert "\nCommands:\n" in ran.err


@pytest.mark.parametrize("module", ["trio_minillm", "trio_minillm.cli"])
def test_as_a_module(module: str) -> None:
    ran = run([sys.executable, "-P", "-W", "error", "-m", module, "--version"])
    assert (ran.code, ran.out, ran.err) == (0, f"trio-minillm {llm.__version__}\n", "")


LOADED = (
    "import sys; sys.argv = ['x', *{}]\nfrom trio_minillm.cli import main\n"
    "try: main()\nfinally: print(*sys.modules.keys() & {{'httpx', *{}}}, '.')"
)
"""Program that runs the command, and then prints which of some modules were loaded; httpx for any."""


@pytest.mark.parametrize("args", [["--version"], ["chat", "--help"], ["models", "--help"]])
def test_a_command_loads_nothing_of_the_others(args: list[str]) -> None:
    others = ["numpy", "pytest", "trio.testing"]
    ran = run([sys.executable, "-P", "-c", LOADED.format(args, others)])
    assert (ran.code, ran.out.splitlines()[-1].strip()) == (0, ".")


@pytest.mark.parametrize("args", [["--help"], ["bench", "--help"], ["serve", "--help"]])
def test_no_command_loads_httpx_before_it_is_needed(args: list[str]) -> None:
    ran = run([sys.executable, "-P", "-c", LOADED.format(args, [])])
    assert (ran.code, ran.out.splitlines()[-1].strip()) == (0, ".")


def test_a_completion_loads_no_httpx() -> None:
    asked = {"COMP_WORDS": "trio-minillm\nmo", "COMP_CWORD": "1"}
    asked["_TRIO_MINILLM_COMPLETE"] = "complete_bash"
    ran = run([sys.executable, "-P", "-c", LOADED.format([], [])], **asked)
    assert ran.out.splitlines() == ["models", "."]


@posix
def test_an_argument_that_is_not_unicode_is_no_bug() -> None:
    with start([*COMMAND, "models", b"\xff", "--json"]) as process:
        out, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 2
    assert json.loads(out)["provider"] == "?"


@posix
def test_ctrl_c_at_the_very_end_shows_no_traceback() -> None:
    script = (
        "import atexit, sys, time; from trio_minillm.cli import main\n"
        "atexit.register(lambda: (print('leaving', flush=True), time.sleep(60)))\n"
        "sys.argv = ['x', '--version']; main()"
    )
    with start([sys.executable, "-P", "-c", script]) as process:
        assert process.stdout is not None
        read_until(process.stdout.fileno(), b"leaving")
        process.send_signal(signal.SIGINT)
        assert ended(process)[1] == ""
    assert process.returncode == 0


@posix
def test_a_file_that_cannot_be_written_is_a_line(tmp_path: Path) -> None:
    """One that typer writes: to install the completion of a shell."""
    (tmp_path / ".bash_completions").write_text("a file where a folder should be")
    script = (
        "import sys; from typer import _completion_shared as shared\n"
        "shared._get_shell_name = lambda: 'bash'\n"
        "sys.argv = ['x', '--install-completion']\n"
        "from trio_minillm.cli import main; main()"
    )
    ran = run([sys.executable, "-P", "-c", script], HOME=str(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"error: {tmp_path}/.bash_completions")
    assert ran.err.count("\n") == 1


@posix
@pytest.mark.parametrize("args", [["--help"], ["--version"], ["chat", "--help"]])
def test_a_help_that_nobody_reads(args: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with start([*COMMAND, *args], stdout=writing) as process:
        os.close(writing)
        assert process.wait(LIMIT) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.parametrize("full", ["/dev/full"])
def test_a_table_that_cannot_be_written_is_a_line(full: str, tmp_path: Path) -> None:
    if not Path(full).exists():
        pytest.skip("needs a device that is always full")
    import subprocess

    from ..support.command import environment

    path = tmp_path / "costs.jsonl"
    llm.JSONLLedger(path)
    path.touch()
    with Path(full).open("wb") as out:
        done = subprocess.run(
            [*COMMAND, "costs", str(path)],
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment(),
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"error: the answer could not be written: No space left on device\n"
