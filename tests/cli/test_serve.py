"""``trio-minillm serve``, as a user runs it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..support.command import COMMAND, ended, endings, posix, read_until, run, running

pytestmark = posix
CHAT = {"model": "m", "messages": [{"role": "user", "content": "one two"}], "stream": True}


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The command with these options, and its base URL out of the first line of stdout."""
    with running([*COMMAND, "serve", "--port", "0", *options]) as process:
        assert process.stdout is not None
        line = read_until(process.stdout.fileno(), b"\n").decode()
        said = json.loads(line)["base_url"] if "--json" in options else line.split()[-1]
        yield process, said


def ask(base_url: str, **more: Any) -> httpx.Response:
    with httpx.Client(trust_env=False, timeout=30) as client:
        return client.post(f"{base_url}/chat/completions", json={**CHAT, **more})


@endings
def test_it_says_where_it_listens_and_what_it_did(ending: signal.Signals) -> None:
    with serving("--ttft", "0.01", "--rate", "500", "--tokens", "3") as (process, base_url):
        assert base_url.startswith("http://127.0.0.1:")
        assert ask(base_url).text.count("data: ") == 6
        process.send_signal(ending)
        out, err = ended(process)
    assert process.returncode == 128 + ending
    assert not out
    rows = dict(line.split("\t", 1) for line in err.splitlines() if "\t" in line)
    count, mean, *_ = rows["first chunk"].split("\t")
    assert count == "1"
    assert 10 <= float(mean.removesuffix(" ms")) < 10_000
    assert rows["between chunks"].startswith("2\t")
    assert "requests: 1 ended: 1 whole" in err
    assert "sent: 3 chunks · 3 tokens" in err


def test_programs_get_json_and_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    options = ["--json", "-q", "--ttft", "uniform(0,0.01)", "--itl", "exp(0.001)", "--tokens", "4"]
    options += ["--fault", "cut(200)", "--usage", "late", "--log", str(log)]
    with serving(*options) as (process, base_url):
        with pytest.raises(httpx.RemoteProtocolError):
            ask(base_url)
        process.send_signal(signal.SIGINT)
        out, err = ended(process)
    figures = json.loads(out)
    assert figures["requests"] == {"ended": 1, "fault": 1}
    assert figures["faults"] == {"cut": 1}
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["faults"] == ["cut"]
    assert not err


def test_a_log_that_could_not_be_written_is_no_success() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with serving("--log", str(full), "--ttft", "0", "--tokens", "1") as (process, base_url):
        assert ask(base_url).status_code == 200
        process.send_signal(signal.SIGINT)
        _, err = ended(process)
    assert process.returncode == 1
    why = os.strerror(errno.ENOSPC)
    assert err.endswith(f"error: the log {full} could not be written: {why}\n")
    assert "requests: 1 ended: 1 whole" in err


def test_files_are_served(tmp_path: Path) -> None:
    path = tmp_path / "script.jsonl"
    path.write_text('{"script": 1}\n{"text": "salt", "ttft": 0}\n')
    with serving(str(path)) as (_, base_url):
        assert '"content":"salt"' in ask(base_url).text


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--ttft", "soon"], "ttft must be a number"),
        (["--fault", "cut"], "fault 'cut'"),
        (["--wire", "soap"], "wire must be one of"),
        (["--usage", "often"], "usage must be one of"),
        (["--itl", "1", "--rate", "1"], "--rate can't be combined with --itl"),
        (["--rate", "0"], "--rate must be more than 0"),
        (["no-such-file.jsonl"], "no-such-file.jsonl: No such file"),
        (["--log", "no/such/log"], "no/such/log: No such file"),
        ([__file__, "--log", __file__], "--log must not be the same file as"),
    ],
)
def test_misuse_is_one_line(options: list[str], what: str) -> None:
    done = run([*COMMAND, "serve", "--port", "0", *options])
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("error: ")
    assert what in done.err
    assert done.err.count("\n") == 1


def test_a_taken_port_is_named() -> None:
    with serving() as (_, base_url):
        port = base_url.rpartition(":")[2].removesuffix("/v1")
        done = run([*COMMAND, "serve", "--port", port])
    assert done.code == 2
    assert done.err == f"error: 127.0.0.1:{port}: {os.strerror(errno.EADDRINUSE)}\n"
