"""Completion in a real shell, after ``--install-completion``."""

from __future__ import annotations

import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")

from ..support.command import LIMIT, environment, posix, read_until

pytestmark = posix

SCRIPT = "import sys; from trio_minillm.cli import main; sys.exit(main())"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the command ``trio-minillm`` in its ``bin``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "trio-minillm"
    command.write_text(f"#!{sys.executable} -P\n{SCRIPT}\n")
    command.chmod(0o700)
    return tmp_path


def settings(home: Path, **more: str) -> dict[str, str]:
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    return environment(HOME=str(home), PATH=path, ZDOTDIR=str(home), **more)


def complete(home: Path, shell: str, words: list[str]) -> list[str]:
    """What the command answers to a shell's question, as its script asks."""
    asked = {
        "bash": {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1)},
        "fish": {
            "_TYPER_COMPLETE_ARGS": " ".join(words),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        "zsh": {"_TYPER_COMPLETE_ARGS": " ".join(words)},
    }[shell]
    done = subprocess.run(
        [str(home / "bin" / "trio-minillm")],
        env=settings(home, _TRIO_MINILLM_COMPLETE=f"complete_{shell}", **asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_what_the_command_answers(home: Path) -> None:
    assert "models" in complete(home, "bash", ["trio-minillm", "mo"])
    assert complete(home, "bash", ["trio-minillm", "chat", "--max"]) == ["--max-tokens"]
    names = complete(home, "bash", ["trio-minillm", "chat", "hi", "-m", "an"])
    assert names == ["anthropic:", "anthropic:NAME"]
    names = complete(home, "bash", ["trio-minillm", "batch", "a", "b", "--model", "loc"])
    assert names == ["local", "local:FILE.gguf"]
    assert complete(home, "bash", ["trio-minillm", "batch", "--summary", "j"]) == ["json"]
    assert "anthropic:\ta model of anthropic" in complete(
        home, "fish", ["trio-minillm", "chat", "-m", "an"]
    )


def typed(home: Path, shell: list[str], line: bytes, wanted: bytes) -> bytes:
    """Type a line with tabs into an interactive shell; return what the terminal gets, without its codes."""
    ours, theirs = pty.openpty()
    env = settings(home, TERM="dumb")
    process = subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, env=env, cwd=home, start_new_session=True
    )
    os.close(theirs)
    try:
        read_until(ours, b"ready> ")
        os.write(ours, line)
        return re.sub(rb"\x1b\[[\d;?]*\w|\x1b[=>]|\x07", b"", read_until(ours, wanted))
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def install(home: Path, shell: str) -> None:
    """Run ``--install-completion`` as a child of that shell, which it recognises."""
    command = "trio-minillm --install-completion; true"
    done = subprocess.run(
        [shell, "-c", command], env=settings(home), capture_output=True, text=True, timeout=LIMIT
    )
    assert f"{shell} completion installed" in done.stdout, done.stderr
    with (home / f".{shell}rc").open("a") as settings_file:
        settings_file.write("PS1='ready> '\n")


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_in_bash(home: Path) -> None:
    install(home, "bash")
    shell = ["bash", "--rcfile", str(home / ".bashrc"), "-i"]
    shown = typed(home, shell, b"trio-minillm cha\t", b"chat ")
    assert b"trio-minillm chat " in shown
    shown = typed(home, shell, b"trio-minillm chat hi -m anth\tX", b"X")
    assert b"-m anthropic:X" in shown
    (home / "questions.jsonl").touch()
    shown = typed(home, shell, b"trio-minillm batch ques\t", b".jsonl ")
    assert b"batch questions.jsonl " in shown


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_in_zsh(home: Path) -> None:
    install(home, "zsh")
    # The first tab of a session only loads the script that typer has installed.
    shown = typed(home, ["zsh", "-i"], b"trio-minillm cha\t\tX", b"X")
    assert re.search(rb"chat .*X", shown)
    shown = typed(home, ["zsh", "-i"], b"trio-minillm chat hi -m anth\t\tX", b"X")
    assert b"-m anthropic:X" in shown


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_in_fish(home: Path) -> None:
    install(home, "fish")
    asked = "complete --do-complete 'trio-minillm chat hi -m anth'"
    done = subprocess.run(
        ["fish", "-c", asked], env=settings(home), capture_output=True, text=True, timeout=LIMIT
    )
    assert [line.partition("\t")[0] for line in done.stdout.splitlines()] == [
        "anthropic:",
        "anthropic:NAME",
    ]
