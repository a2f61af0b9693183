"""The output of ``trio-minillm batch``: stdout, tables, and disks that are full."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import trio_minillm as llm

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from trio_minillm.batch import read_results

from ..support.command import (
    COMMAND,
    LIMIT,
    Ran,
    ended,
    posix,
    read_until,
    run,
    running,
    start,
    wait_for,
)
from ..support.endpoint import END, HELLO, Endpoint, text

KEYS = [f"k{n}" for n in range(10)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an input of ten requests."""
    lines = ({"key": key, "prompt": f"prompt {key}"} for key in KEYS)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


needs_pyarrow = pytest.mark.usefixtures("pyarrow")


@pytest.fixture
def pyarrow() -> Any:
    return pytest.importorskip("pyarrow", reason="needs the extra [tables]")


def command(endpoint: Endpoint, folder: Path, output: str, *args: str, code: str = "") -> list[str]:
    """The command; with ``code``, a Python program that runs it after that."""
    program = COMMAND
    if code:
        whole = f"{code}\nfrom trio_minillm.cli import main; main()"
        program = [sys.executable, "-P", "-W", "error", "-c", whole]
    target = output if output == "-" else str(folder / output)
    where = ["-m", "compatible:m", "--base-url", endpoint.url, "--concurrency", "2"]
    return [*program, "batch", str(folder / "in.jsonl"), target, *where, *args]


def batch(
    endpoint: Endpoint, folder: Path, output: str, *args: str, code: int = 0, patch: str = ""
) -> Ran:
    ran = run(command(endpoint, folder, output, *args, code=patch))
    assert ran.code == code, ran.err
    return ran


def asked(endpoint: Endpoint) -> list[str]:
    return [request["messages"][-1]["content"].split()[-1] for request in endpoint.requests]


def keys(path: Path) -> list[str]:
    """The keys of a file of results, all lines of which must be whole."""
    return [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()]


# -- stdout ------------------------------------------------------------------------------------


def test_results_to_stdout_and_all_else_to_stderr(endpoint: Endpoint, folder: Path) -> None:
    endpoint.script = lambda n: (200, [0.2 if n == 0 else 0.0, HELLO])
    ran = batch(endpoint, folder, "-", "--order")
    lines = [json.loads(line) for line in ran.out.splitlines()]
    assert [line["custom_id"] for line in lines] == KEYS
    assert {line["content"] for line in lines} == {"Hello."}
    assert "first content\t10\t" in ran.err
    assert "finished: 10 of 10 (stop 10)\n" in ran.err
    assert [p.name for p in folder.iterdir()] == ["in.jsonl"]
    saved = folder / "saved.jsonl"
    saved.write_bytes(ran.raw)
    batch(endpoint, folder, "saved.jsonl")  # what was redirected into a file is a file of results
    assert len(endpoint.requests) == 10


@pytest.mark.parametrize("samples", [1, 2])
def test_what_a_check_has_written_to_stdout_is_not_sent_again(
    endpoint: Endpoint, folder: Path, samples: int
) -> None:
    args = ["--check", "--samples", str(samples), "--cache", str(folder / "cache.db")]
    for _ in range(2):  # the second time, all comes from the cache
        ran = batch(endpoint, folder, "-", *args)
        found = [(one["custom_id"], one["sample"]) for one in map(json.loads, ran.out.splitlines())]
        assert sorted(found) == [(key, n) for key in KEYS for n in range(samples)]
        assert f"finished: {10 * samples} of {10 * samples}" in ran.err
    assert len(endpoint.requests) == 10 * samples


def test_a_summary_as_json_beside_results_on_stdout(endpoint: Endpoint, folder: Path) -> None:
    ran = batch(endpoint, folder, "-", "--summary", "json", "--quiet")
    found = json.loads(ran.err)
    assert (found["output"], found["requests"]["finished"]) == ("-", 10)
    assert sorted(json.loads(line)["custom_id"] for line in ran.out.splitlines()) == sorted(KEYS)
    ran = batch(endpoint, folder, "-", "--dry-run")
    assert (ran.out, "to send: 10 of 10 requests\n" in ran.err) == ("", True)
    assert len(endpoint.requests) == 10
    ran = batch(endpoint, folder, "-", "--quiet")
    assert (ran.out.count("\n"), ran.err) == (10, "")
    ran = batch(endpoint, folder, "-", "--summary", "json", "--rpm", "0", code=2)
    assert (ran.out, "--rpm must be" in ran.err) == ("", True)


@posix
def test_results_come_as_they_are_ready(endpoint: Endpoint, folder: Path) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 3 else [endpoint.release, HELLO])
    with running(command(endpoint, folder, "-")) as process:
        assert process.stdout is not None
        try:
            got = b""
            while got.count(b"\n") < 3:
                got += read_until(process.stdout.fileno(), b"\n")
            wait_for(lambda: len(endpoint.requests) == 5)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            said = read_until(process.stderr.fileno(), b"2 requests are still running")
        finally:
            endpoint.release.set()
        out, err = ended(process)
    err = said.decode() + err
    assert process.returncode == 143
    assert (got.decode() + out).count('"custom_id"') == 5
    assert "finished: 5 of 10 (stop 5)\n" in err
    assert "no result: 5: with a file as OUTPUT, the same command could send them later\n" in err


@posix
def test_a_reader_that_leaves_ends_the_run(endpoint: Endpoint, folder: Path) -> None:
    # The third is slow, so that the second's line has been tried before a fourth could be sent.
    script = {0: [HELLO], 1: [endpoint.release, HELLO]}
    endpoint.script = lambda n: (200, script.get(n, [2.0, HELLO]))
    with running(command(endpoint, folder, "-", "-q", "--concurrency", "1")) as process:
        assert process.stdout is not None
        try:
            read_until(process.stdout.fileno(), b"\n")
            wait_for(lambda: len(endpoint.requests) == 2)
            process.stdout.close()
        finally:
            endpoint.release.set()
        process.stdout = None
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 141
    assert err == b"error: the results could not be written: Broken pipe\n"
    # The third may have been sent while the second's line was being written.
    assert len(endpoint.requests) <= 3


@posix
def test_a_stdout_that_is_closed_is_told_before_anything_is_sent(
    endpoint: Endpoint, folder: Path
) -> None:
    args = command(endpoint, folder, "-", "-q")
    ran = run(["sh", "-c", 'exec "$@" >&-', "sh", *args])
    assert ran.code == 141
    assert ran.err == "error: the results could not be written: stdout is closed\n"
    assert endpoint.requests == []


@posix
def test_a_full_disk_behind_stdout(endpoint: Endpoint, folder: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("wb") as full:
        with start(command(endpoint, folder, "-"), stdout=full) as process:
            _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert b"finished: 0 of 10\n" in err
    assert err.endswith(b"error: the results could not be written: No space left on device\n")
    assert len(endpoint.requests) < 10


# -- outputs that are refused ------------------------------------------------------------------


@needs_pyarrow
def test_outputs_that_can_not_be_written_are_refused(endpoint: Endpoint, folder: Path) -> None:
    ran = batch(endpoint, folder, "-", "--retry-failed", code=2)
    assert "--retry-failed needs a file as OUTPUT: stdout has no earlier results" in ran.err
    ran = batch(endpoint, folder, "out.jsonl.gz", code=2)
    assert "leave out .gz, and compress the file after the run" in ran.err
    (folder / "old.parquet").write_text("a table of someone else's")
    ran = batch(endpoint, folder, "old.parquet", code=2)
    assert "it exists, but old.parquet.jsonl, from which a run continues, does not" in ran.err
    assert (folder / "old.parquet").read_text() == "a table of someone else's"
    (folder / "dir.arrow").mkdir()
    (folder / "dir.arrow.jsonl").touch()
    assert "dir.arrow: not a regular file" in batch(endpoint, folder, "dir.arrow", code=2).err
    ran = batch(endpoint, folder, "out.parquet", "--cache", f"{folder}/out.parquet.jsonl", code=2)
    assert "--cache must not be the same file as the output" in ran.err
    ran = batch(
        endpoint, folder, "new.arrow", code=2, patch="import sys; sys.modules['pyarrow'] = None"
    )
    assert ran.err.endswith("need pyarrow: pip install 'trio-minillm[tables]'\n")
    assert ran.err.count("\n") == 1
    assert endpoint.requests == []
    names = {p.name for p in folder.iterdir() if not p.name.startswith("dir")}
    assert names == {"in.jsonl", "old.parquet"}


# -- tables ------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, Any]]:
    from pyarrow import feather, parquet

    kind = parquet if path.suffix == ".parquet" else feather
    found: list[dict[str, Any]] = kind.read_table(path).to_pylist()
    return found


@needs_pyarrow
@pytest.mark.parametrize("name", ["out.parquet", "out.arrow", "out.feather"])
def test_a_table_is_made_of_the_results(endpoint: Endpoint, folder: Path, name: str) -> None:
    assert batch(endpoint, folder, name, "--dry-run").out.startswith("to send: 10 of 10")
    assert [p.name for p in folder.iterdir()] == ["in.jsonl"]
    batch(endpoint, folder, name)
    lines = folder / f"{name}.jsonl"
    assert rows(folder / name) == [line.row() for line in read_results(lines)]
    assert {row["content"] for row in rows(folder / name)} == {"Hello."}
    assert sorted(p.name for p in folder.iterdir()) == ["in.jsonl", name, f"{name}.jsonl"]
    (folder / name).unlink()
    assert "before: 10 finished" in batch(endpoint, folder, name).out
    assert len(rows(folder / name)) == len(endpoint.requests) == 10


@needs_pyarrow
def test_the_status_line_says_that_a_table_is_made(endpoint: Endpoint, folder: Path) -> None:
    slow = (
        "import time\nfrom trio_minillm.cli import _batch_output, _live\n_live.SAY_EVERY = 0.01\n"
        "real = _batch_output.write_table\n"
        "def write(*args): time.sleep(0.3); return real(*args)\n"
        "_batch_output.write_table = write"
    )
    ran = batch(endpoint, folder, "out.parquet", patch=slow)
    assert ran.err.endswith("writing out.parquet\n")


@needs_pyarrow
@posix
def test_a_table_whose_run_was_killed_goes_on(endpoint: Endpoint, folder: Path) -> None:
    endpoint.script = lambda n: (200, [HELLO] if n < 4 else [endpoint.release, HELLO])
    with running(command(endpoint, folder, "out.parquet", "--quiet")) as process:
        try:
            wait_for(lambda: len(endpoint.requests) == 6)  # four have been answered
            process.kill()
            ended(process)
        finally:
            endpoint.release.set()
    before = keys(folder / "out.parquet.jsonl")
    assert not (folder / "out.parquet").exists()
    batch(endpoint, folder, "out.parquet")
    assert sorted(row["key"] for row in rows(folder / "out.parquet")) == KEYS
    assert all(asked(endpoint).count(key) == 1 for key in before)


@needs_pyarrow
@posix
def test_a_run_that_stops_leaves_a_table_of_what_there_is(endpoint: Endpoint, folder: Path) -> None:
    endpoint.script = lambda n: (200, [text("a"), endpoint.release, END])
    with running(command(endpoint, folder, "out.parquet")) as process:
        try:
            wait_for(lambda: endpoint.running == 2)
            process.send_signal(signal.SIGTERM)
            assert process.stderr is not None
            read_until(process.stderr.fileno(), b"2 requests are still running")
        finally:
            endpoint.release.set()
        ended(process)
    assert process.returncode == 143
    assert len(rows(folder / "out.parquet")) == 2
    refusal = json.dumps({"error": {"message": "no", "code": "insufficient_quota"}}).encode()
    endpoint.script = lambda n: (200, [HELLO]) if n < 5 else (429, [refusal])
    batch(endpoint, folder, "out.parquet", code=7)
    lines = read_results(folder / "out.parquet.jsonl")
    assert rows(folder / "out.parquet") == [line.row() for line in lines]
    assert len(rows(folder / "out.parquet")) >= 4


@needs_pyarrow
def test_a_table_that_does_not_fit_loses_no_result(endpoint: Endpoint, folder: Path) -> None:
    full = (
        "import errno, os\nfrom trio_minillm.cli import _batch_output\n"
        "def fail(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "_batch_output.write_table = fail"
    )
    ran = batch(endpoint, folder, "out.parquet", "--quiet", code=1, patch=full)
    lines, table = folder / "out.parquet.jsonl", folder / "out.parquet"
    assert ran.err == (
        f"error: {lines} has all results, but the table {table} could not be written:"
        " No space left on device\n"
    )
    assert sorted(keys(lines)) == KEYS
    batch(endpoint, folder, "out.parquet")
    assert len(rows(table)) == len(endpoint.requests) == 10


# -- full disks --------------------------------------------------------------------------------

FULL = """
import errno, os
real, room = os.write, {room}
def write(fd, data):
    name = os.path.basename(os.readlink(f"/proc/self/fd/{{fd}}"))
    if name != "{name}":
        return real(fd, data)
    left = room - os.fstat(fd).st_size
    if left <= 0:
        raise OSError(errno.{why}, os.strerror(errno.{why}))
    return real(fd, data[:left])
os.write = write
"""
"""A program on whose disk a file has room for so many bytes; the last write is a part of a line."""

on_linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for names")


@on_linux
@pytest.mark.parametrize("why", ["ENOSPC", "EDQUOT"])
def test_an_output_that_does_not_fit(endpoint: Endpoint, folder: Path, why: str) -> None:
    path = folder / "out.jsonl"
    full = FULL.format(name="out.jsonl", room=4000, why=why)
    ran = batch(endpoint, folder, "out.jsonl", "--quiet", code=1, patch=full)
    words = {"ENOSPC": "No space left on device", "EDQUOT": "Disk quota exceeded"}[why]
    assert ran.err == f"error: the output {path} could not be written: {words}\n"
    kept = keys(path)
    assert f"finished: {len(kept)} of 10 (" in ran.out
    assert f"no result: {10 - len(kept)}: run the same command again to send them\n" in ran.out
    assert len(endpoint.requests) < 10
    batch(endpoint, folder, "out.jsonl")
    assert sorted(keys(path)) == KEYS
    assert all(asked(endpoint).count(key) == 1 for key in kept)


@posix
def test_an_output_that_may_not_grow(endpoint: Endpoint, folder: Path) -> None:
    """The system's own refusal, not one that a test makes up."""
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))"
    ran = batch(endpoint, folder, "out.jsonl", "--quiet", code=1, patch=small)
    path = folder / "out.jsonl"
    assert ran.err == f"error: the output {path} could not be written: File too large\n"
    kept = keys(path)
    assert f"finished: {len(kept)} of 10 (" in ran.out
    assert 0 < len(kept) < 10


@posix
def test_an_output_whose_disk_fails_at_the_end(endpoint: Endpoint, folder: Path) -> None:
    late = (
        "import errno, os\n"
        "def fail(fd): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "os.fsync = fail"
    )
    for when in ("interval", "always"):
        ran = batch(endpoint, folder, "out.jsonl", "-q", "--fsync", when, code=1, patch=late)
        path = folder / "out.jsonl"
        told = f"error: the output {path} could not be written: No space left on device\n"
        assert ran.err == told


def test_failures_that_can_not_be_taken_out(endpoint: Endpoint, folder: Path) -> None:
    endpoint.script = lambda n: (400, [b"{}"]) if n == 3 else (200, [HELLO])
    batch(endpoint, folder, "out.jsonl", code=6)
    before = (folder / "out.jsonl").read_bytes()
    full = (
        "import errno, os, pathlib\n"
        "def fail(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "pathlib.Path.replace = fail"
    )
    ran = batch(endpoint, folder, "out.jsonl", "-q", "--retry-failed", code=1, patch=full)
    path = folder / "out.jsonl"
    assert ran.err == f"error: the output {path} could not be written: No space left on device\n"
    assert (len(endpoint.requests), path.read_bytes()) == (10, before)


@on_linux
def test_a_ledger_that_does_not_fit(endpoint: Endpoint, folder: Path) -> None:
    """No attempt is made any more that would not be in it, and those that were are told."""
    path = folder / "costs.jsonl"
    full = FULL.format(name="costs.jsonl", room=2000, why="ENOSPC")
    ran = batch(endpoint, folder, "out.jsonl", "-q", "--ledger", str(path), code=1, patch=full)
    recorded = len(list(llm.JSONLLedger(path, read_only=True).records()))
    made = len(endpoint.requests)
    assert 0 < recorded < made < 10
    missing = made - recorded
    error = ran.err.splitlines()[-1]
    assert error == (
        f"error: {missing} attempt{'s' if missing > 1 else ''} of the ledger {path}"
        " could not be written: No space left on device"
    )
    assert f"finished: {made} of 10 (" in ran.out
    assert len(keys(folder / "out.jsonl")) == made
    batch(endpoint, folder, "out.jsonl", "--ledger", str(path))
    assert sorted(asked(endpoint)) == KEYS


@on_linux
@pytest.mark.parametrize("name", ["chat", "bench"])
def test_a_ledger_of_other_commands_that_does_not_fit(
    endpoint: Endpoint, folder: Path, name: str
) -> None:
    path = folder / "costs.jsonl"
    full = FULL.format(name="costs.jsonl", room=0, why="ENOSPC")
    whole = f"{full}\nfrom trio_minillm.cli import main; main()"
    given = ["hello"] if name == "chat" else ["--requests", "1"]
    where = ["-m", "compatible:m", "--base-url", endpoint.url, "--ledger", str(path), "-q"]
    ran = run([sys.executable, "-P", "-W", "error", "-c", whole, name, *given, *where])
    assert ran.code == 1
    assert ran.out.startswith("Hello." if name == "chat" else " ")
    assert ran.err.splitlines()[-1] == (
        f"error: 1 attempt of the ledger {path} could not be written: No space left on device"
    )


def test_a_cache_that_does_not_fit_costs_no_result(endpoint: Endpoint, folder: Path) -> None:
    path = folder / "answers.db"
    full = (
        "from trio_minillm.batch import ResponseCache\nreal = ResponseCache._connect\n"
        "def connect(*args):\n    made = real(*args)\n"
        "    made.execute('PRAGMA max_page_count = 6')\n    return made\n"
        "ResponseCache._connect = connect"
    )
    ran = batch(endpoint, folder, "out.jsonl", "-q", "--cache", str(path), code=1, patch=full)
    assert ran.err.splitlines()[-1] == (
        f"error: the cache {path} could not be written: No space left on device"
    )
    assert "finished: 10 of 10 (stop 10)\n" in ran.out
    assert sorted(keys(folder / "out.jsonl")) == KEYS
    batch(endpoint, folder, "again.jsonl", "--cache", str(path))
    assert 10 < len(endpoint.requests) <= 20
