"""The inputs of ``trio-minillm batch``: datasets with columns of any name, stdin, compressed files."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.batch import read_results

from ..support.command import COMMAND, Ran, ended, environment, posix, read_until, run, start
from ..support.endpoint import Endpoint

ROWS = [{"id": f"q{n}", "question": f"Number {n}?", "answer": str(n)} for n in range(5)]
NAMED = ["--key", "id", "--prompt", "question"]


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def command(endpoint: Endpoint, source: Any, target: Path, *args: str) -> list[str]:
    where = ["-m", "compatible:m", "--base-url", endpoint.url]
    return [*COMMAND, "batch", str(source), str(target), *where, *args]


def asked(endpoint: Endpoint) -> list[str]:
    return sorted(request["messages"][-1]["content"] for request in endpoint.requests)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_bytes(jsonl(ROWS))
    return path


# -- columns ---------------------------------------------------------------------------------


def test_a_dataset_with_columns_of_any_name(endpoint: Endpoint, source: Path, target: Path) -> None:
    ran = run(command(endpoint, source, target, *NAMED))
    assert ran.code == 0, ran.err
    assert asked(endpoint) == [row["question"] for row in ROWS]
    found = {line.key: line.meta for line in read_results(target)}
    assert found == {row["id"]: {"answer": row["answer"]} for row in ROWS}
    assert "note: columns kept as meta: answer\n" in ran.out
    assert "as parameters" not in ran.out
    again = run(command(endpoint, source, target, *NAMED))
    assert (again.code, len(endpoint.requests)) == (0, 5)


def test_columns_that_are_sent_are_named(endpoint: Endpoint, source: Path, target: Path) -> None:
    source.write_bytes(jsonl([{**row, "user": "ann", "tone": "Be brief."} for row in ROWS]))
    ran = run(command(endpoint, source, target, *NAMED, "--system", "tone", "--dry-run"))
    assert "note: columns sent as parameters: user\n" in ran.out
    run(command(endpoint, source, target, *NAMED, "--system", "tone"))
    assert {r["user"] for r in endpoint.requests} == {"ann"}
    assert {r["messages"][0]["content"] for r in endpoint.requests} == {"Be brief."}


def test_without_a_key_lines_are_known_by_their_numbers(
    endpoint: Endpoint, source: Path, target: Path
) -> None:
    run(command(endpoint, source, target, "--prompt", "question"))
    assert sorted(line.key for line in read_results(target)) == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    ("args", "what"),
    [
        (["--prompt", "qestion"], "no line has a field qestion for the prompt (did you mean"),
        (["--key", "ident", "--prompt", "question", "--skip-bad"], "a field ident for the key"),
        ([*NAMED, "--strict"], "line 1: unknown field: answer"),
        ([], "line 1: no custom_id or key"),
        ([*NAMED, "--format", "parquet"], "is not a Parquet file"),
        ([*NAMED, "--format", "xml"], "is not one of"),
    ],
)
def test_what_does_not_fit_is_told_and_nothing_is_sent(
    endpoint: Endpoint, source: Path, target: Path, args: list[str], what: str
) -> None:
    if "parquet" in args:
        pytest.importorskip("pyarrow", reason="needs the extra [tables]")
    ran = run(command(endpoint, source, target, *args))
    assert ran.code == 2
    assert what in ran.err
    assert (endpoint.requests, target.exists()) == ([], False)


def test_a_fault_of_all_lines_is_told_once_with_a_hint(
    endpoint: Endpoint, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id,question\n" + "".join(f"q{n},Number {n}?\n" for n in range(60)))
    ran = run(command(endpoint, path, target))
    assert ran.err == (
        "  line 2: no custom_id or key (and 59 more lines like it)\n"
        "  name the columns with --key COLUMN --prompt COLUMN; the input has: id, question\n"
        f"error: 60 lines of {path} can't be sent, so nothing was sent\n"
    )
    ran = piped(endpoint, path.read_bytes(), target)
    hint = "  the input is read as JSON lines; --format names another format: csv, tsv, parquet\n"
    assert ran.err.count(hint) == 1
    assert ran.err.count("\n") <= 5, ran.err
    ran = run(command(endpoint, path, target, "--key", "id"))
    assert "name the columns with --prompt COLUMN; the input has: id, question\n" in ran.err
    path.write_text(path.read_text().replace(",", ";"))
    ran = run(command(endpoint, path, target, *NAMED))
    assert ran.err.startswith("  line 1: the columns seem to be separated by ';' instead of ','")
    assert (ran.code, endpoint.requests, target.exists()) == (2, [], False)


# -- compressed ------------------------------------------------------------------------------


def test_a_compressed_file(endpoint: Endpoint, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "in.csv.gz"
    rows = "".join(f"{row['id']},{row['question']}\n" for row in ROWS)
    path.write_bytes(gzip.compress(f"id,question\n{rows}".encode()))
    assert run(command(endpoint, path, target, *NAMED)).code == 0
    assert asked(endpoint) == [row["question"] for row in ROWS]
    path.write_bytes(path.read_bytes()[:-9])
    ran = run(command(endpoint, path, target, *NAMED))
    assert ran.code == 2
    assert "not readable from here on: the gzip data is cut off" in ran.err


# -- stdin -----------------------------------------------------------------------------------


def piped(endpoint: Endpoint, data: bytes, target: Path, *args: str) -> Ran:
    folder = target.parent / "temporary"
    folder.mkdir(exist_ok=True)
    ran = run(command(endpoint, "-", target, *args), data, TMPDIR=str(folder))
    assert list(folder.iterdir()) == []
    return ran


def test_stdin_is_an_input(endpoint: Endpoint, target: Path) -> None:
    ran = piped(endpoint, jsonl(ROWS[:3]), target, *NAMED)
    assert ran.code == 0, ran.err
    ran = piped(endpoint, jsonl(ROWS), target, *NAMED, "--summary", "json")
    assert ran.code == 0, ran.err
    assert asked(endpoint) == [row["question"] for row in ROWS]  # each once
    summary = json.loads(ran.out)
    assert summary["input"] == "stdin"
    assert summary["requests"]["finished_before"] == 3
    assert sorted(line.key for line in read_results(target)) == [row["id"] for row in ROWS]


def test_stdin_may_have_another_format_and_be_compressed(endpoint: Endpoint, target: Path) -> None:
    text = "id\tquestion\n" + "".join(f"{row['id']}\t{row['question']}\n" for row in ROWS)
    data = gzip.compress(text.encode())
    assert piped(endpoint, data, target, *NAMED, "--format", "tsv").code == 0
    assert asked(endpoint) == [row["question"] for row in ROWS]


def test_bad_lines_of_stdin_are_told(endpoint: Endpoint, target: Path) -> None:
    ran = piped(endpoint, b'{"key": "a"}\n', target)
    assert ran.code == 2
    assert ran.err == (
        "  line 1: give one of messages and prompt\n"
        "  name the columns with --prompt COLUMN; the input has: key\n"
        "error: a line of stdin can't be sent, so nothing was sent\n"
    )
    ran = piped(endpoint, b"", target)
    assert (ran.code, endpoint.requests) == (0, [])


@posix
def test_stdin_that_is_closed_or_too_large(endpoint: Endpoint, target: Path) -> None:
    args = command(endpoint, "-", target)
    ran = run(["/bin/sh", "-c", 'exec "$@" <&-', "sh", *args])
    assert (ran.code, ran.err) == (2, "error: stdin is closed\n")
    data = jsonl(ROWS * 1000)
    ran = run(["/bin/sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *args], data)
    assert ran.code == 2
    assert ran.err.startswith("error: can't copy stdin to ")
    assert "File too large" in ran.err


CODE = "from trio_minillm.cli import _live, main; _live.SAY_EVERY = 0.1; main()"


@posix
def test_ctrl_c_while_stdin_is_read(endpoint: Endpoint, target: Path, tmp_path: Path) -> None:
    args = command(endpoint, "-", target)
    ours, theirs = os.pipe()
    folder = tmp_path / "temporary"
    folder.mkdir()
    args = [args[0], "-P", "-W", "error", "-c", CODE, *args[len(COMMAND) :]]
    with start(args, environment(TMPDIR=str(folder)), stdin=ours) as process:
        try:
            os.close(ours)
            os.write(theirs, jsonl(ROWS))
            assert process.stderr is not None
            read_until(process.stderr.fileno(), b"reading stdin: 0.0 MB")
            if sys.platform == "linux":  # a kill would leave nothing
                assert list(folder.iterdir()) == []
                (copy,) = copies(process.pid)
                assert stat.S_IMODE(copy.st_mode) == 0o600
            process.send_signal(signal.SIGINT)
            ended(process)
        finally:
            process.kill()
            os.close(theirs)
    assert (process.returncode, endpoint.requests, target.exists()) == (130, [], False)
    assert list(folder.iterdir()) == []


def copies(pid: int) -> set[os.stat_result]:
    """The files without a name that a process has open."""
    opened = [fd.stat() for fd in Path(f"/proc/{pid}/fd").iterdir()]
    return {found for found in opened if stat.S_ISREG(found.st_mode) and not found.st_nlink}
