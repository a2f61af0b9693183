"""``bench`` with files of results, and ``report``, which makes them again from records."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

from ..support.bench_command import command
from ..support.bench_schema import check
from ..support.command import (
    COMMAND,
    KEY,
    Ran,
    ended,
    posix,
    read_until,
    run,
    running,
    wait_for,
)
from ..support.endpoint import END, HELLO, OPENING, Endpoint, text

EVIL = "</script><script>alert(1)</script>"


def report(*args: str | Path) -> Ran:
    return run([*COMMAND, "report", *map(str, args)])


def mixed(n: int) -> tuple[int, list[Any]]:
    """Whole answers and failures, with words that are markup."""
    if n % 5 == 3:
        return 500, [json.dumps({"error": {"message": EVIL}}).encode()]
    return 200, [OPENING, 0.002 * (n % 4), text("a", "b"), 0.001, text("c"), END]


def needs(path: str) -> None:
    if path.endswith(".parquet"):
        pytest.importorskip("pyarrow", reason="needs the extra [tables]")


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz", "r.parquet"])
def test_all_results_again_from_the_records(endpoint: Endpoint, tmp_path: Path, name: str) -> None:
    needs(name)
    endpoint.script = mixed
    records, figures = tmp_path / name, tmp_path / "run.csv"
    args = ["--requests", "12", "--concurrency", "3", "--warmup", "2", "--price", "1,1"]
    args += ["--records", str(records), "--csv", str(figures), "--json", "-q"]
    ran = run(command(endpoint, *args, "--prompt", "secret words"))
    assert (ran.code, ran.err) == (6, "")
    found = json.loads(ran.out)
    check(found)
    again = report(records, "--json", "--csv", tmp_path / "again.csv")
    assert (again.code, again.err) == (0, "")
    made = json.loads(again.out)
    check(made)
    assert {**made, "exit_code": 6} == found
    assert (tmp_path / "again.csv").read_text() == figures.read_text()
    kept = records.read_bytes()
    for word in ("secret words", KEY, "Hel"):
        assert word.encode() not in kept
        if name.endswith(".gz"):
            assert word.encode() not in gzip.decompress(kept)


def test_the_text_is_the_same_too(endpoint: Endpoint, tmp_path: Path) -> None:
    endpoint.script = mixed
    records = tmp_path / "r.jsonl"
    args = ["--requests", "8", "--warmup", "2", "--price", "1,1", "--records", str(records)]
    for form in [], ["--markdown"]:
        ran = run(command(endpoint, *args, *form, "-q"))
        assert report(records, *form).out == ran.out


def test_a_comparison_of_two_models_is_told_again(endpoint: Endpoint, tmp_path: Path) -> None:
    records = tmp_path / "r.jsonl"
    args = ["--hedge", "compatible:m", "--after", "0.05", "--requests", "2", "--price", "1,1"]
    endpoint.script = lambda n: (200, [OPENING, 0.2 if n % 2 else 0.0, text("a"), END])
    ran = run(command(endpoint, *args, "--records", str(records), "-q"))
    assert "TTFT with both: p50" in ran.out
    assert report(records).out == ran.out


def test_records_are_told_apart_by_phase(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    args = ["--requests", "3", "--warmup", "2", "--concurrency", "1", "--records", str(path)]
    assert run(command(endpoint, *args, "-q")).code == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("mark") for line in lines if "mark" in line] == ["begin", "load", "end"]
    records = [line for line in lines if "mark" not in line]
    assert [(r.get("phase", "measured"), r["number"]) for r in records] == [
        *(("warmup", 0), ("warmup", 1)),
        *(("measured", 0), ("measured", 1), ("measured", 2)),
    ]
    for record in records:
        assert record["point"] == 0
        assert record["scheduled"] <= record["called"] <= record["sent"] <= record["stamps"][0]
        assert record["sent"] <= record["headers"] <= record["stamps"][0]
        assert len(record["stamps"]) == 2
        assert record["stamps"][-1] <= record["ended"]
        assert (record["outcome"], record["output_tokens"]) == ("finished", 7)


def test_the_csv_has_a_row_for_a_load(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    args = ["--requests", "4", "--csv", str(path), "--json", "-q"]
    ran = run(command(endpoint, *args, model="=1+1"))
    point = json.loads(ran.out)["points"][0]
    (row,) = csv.DictReader(io.StringIO(path.read_text()))
    assert row["model"] == "compatible:=1+1"
    assert (row["load"], row["concurrency"], row["rate"]) == ("closed", "10", "")
    assert (row["sent"], row["finished"], row["failed"]) == ("4", "4", "0")
    assert float(row["ttft_p99"]) == point["latency"]["ttft"]["p99"]
    assert float(row["output_tokens_per_second"]) == point["rates"]["output_tokens"]


def test_tables_on_a_pipe_and_in_markdown(endpoint: Endpoint) -> None:
    plain = run(command(endpoint, "--requests", "3", "-q")).out
    head, *rows = plain.partition("\n\n")[0].splitlines()
    assert head.split() == ["count", "mean", "p50", "p90", "p95", "p99", "max"]
    assert [row.split()[:2] for row in rows[:2]] == [["TTFT", "(ms)"], ["ITL", "(ms)"]]
    assert {len(row) for row in rows} == {len(head)}
    shown = run(command(endpoint, "--requests", "3", "-q", "--markdown")).out
    assert shown.startswith("|")
    assert "| TTFT (ms)" in shown
    assert "- **finished**: 3 of 3 (stop 3)\n" in shown


def test_the_report_is_one_file_without_a_network(endpoint: Endpoint, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="needs the extra [report]")
    endpoint.script = mixed
    page, records = tmp_path / "r.html", tmp_path / "r.jsonl"
    args = ["--requests", "10", "--html", str(page), "--records", str(records), "-q"]
    assert run(command(endpoint, *args, model="<img src=x onerror=alert(1)>")).code == 6
    shown = page.read_text("utf-8")
    assert "default-src 'none'" in shown
    assert "alert(1)" in shown
    assert EVIL not in shown
    assert "<img" not in shown.partition("<script")[0]
    assert len(shown) < 8 << 20
    again = tmp_path / "again.html"
    assert report(records, "--html", again).code == 0
    assert again.read_text("utf-8") == shown


# -- what goes wrong -------------------------------------------------------------------------


@posix
def test_records_of_what_was_cancelled(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    endpoint.script = lambda n: (200, [HELLO] if n < 2 else [text("a"), endpoint.release])
    args = ["--concurrency", "2", "--records", str(path), "--csv", str(tmp_path / "r.csv")]
    with running(command(endpoint, *args)) as process:
        wait_for(lambda: len(endpoint.requests) == 4)
        process.send_signal(signal.SIGINT)
        read_until(process.stderr.fileno(), b"Ctrl-C again")
        process.send_signal(signal.SIGINT)
        out, _ = ended(process)
    assert process.returncode == 130
    assert "finished: 2 of 4 (stop 2)\ncancelled: 2\n" in out
    again = report(path)
    assert again.out == out
    assert (tmp_path / "r.csv").read_text().count("\n") == 2


@posix
def test_a_killed_run_leaves_its_records(endpoint: Endpoint, tmp_path: Path) -> None:
    for name in "r.jsonl", "r.jsonl.gz":
        path = tmp_path / name
        endpoint.requests.clear()
        endpoint.script = lambda n: (200, [0.05, HELLO])
        with running(command(endpoint, "--duration", "60", "--records", str(path))) as process:
            wait_for(lambda path=path: path.exists() and path.stat().st_size > 2000)
            process.kill()
            process.wait()
        again = report(path)
        assert again.code == 0, again.err
        assert "note: the records end before the run did" in again.out


@posix
def test_a_run_that_is_killed_in_a_later_load_says_which(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    path = tmp_path / "r.jsonl"
    endpoint.script = lambda n: (200, [HELLO] if n < 20 else [0.3, HELLO])
    args = ["--sweep", "concurrency=2,4", "--requests", "20", "--records", str(path)]
    with running(command(endpoint, *args)) as process:
        wait_for(lambda: path.exists() and b'{"point":1' in path.read_bytes())
        process.kill()
        process.wait()
    points = json.loads(report(path, "--json").out)["points"]
    assert [point["load"]["concurrency"] for point in points] == [2, 4]
    assert points[1]["notes"] == ["the records end before the run did"]


def test_a_run_that_could_not_go_on_has_its_files(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    args = ["--concurrency", "1", "--max-cost", "1", "--csv", str(tmp_path / "r.csv"), "-q"]
    ran = run(command(endpoint, *args, "--records", str(path)))
    assert ran.code == 2
    assert "--max-cost can't be enforced" in ran.err
    assert "finished: 1 of 1" in ran.out
    assert report(path).out == ran.out
    assert (tmp_path / "r.csv").read_text().count("\n") == 2


def test_a_full_disk_costs_the_records_and_not_the_results(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    path = tmp_path / "r.jsonl"
    full = (
        "import sys; from pathlib import Path; from trio_minillm.cli import main\n"
        "from trio_minillm._bench.output import record_files as files\n"
        "real = files._Lines.__init__\n"
        "files._Lines.__init__ = lambda self, path: real(self, Path('/dev/full'))\n"
        "main()"
    )
    args = command(endpoint, "--requests", "3", "--records", str(path), "-q")
    ran = run([sys.executable, "-P", "-W", "error", "-c", full, *args[args.index("bench") :]])
    assert ran.code == 1
    assert "finished: 3 of 3" in ran.out
    assert f"error: the records {path} could not be written: No space left on device" in ran.err


@posix
def test_a_file_that_can_not_be_written_is_found_before_anything_is_sent(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in "--csv", "--html", "--records":
        if name == "--html":
            pytest.importorskip("plotly", reason="needs the extra [report]")
        os.mkfifo(folder / f"{name}.jsonl")
        ran = run(command(endpoint, name, str(folder / f"{name}.jsonl")))
        assert (ran.code, ran.out) == (2, "")
        assert f"{name} {folder}" in ran.err
    assert endpoint.requests == []


def test_misuse_makes_no_file(endpoint: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("precious")
    args = ["--records", str(path), "--csv", str(tmp_path / "r.csv"), "--prompt", "\ud800"]
    assert run([*command(endpoint, *args[:-2]), "--rate", "0"]).code == 2
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("none.jsonl", None, "No such file"),
        ("r.jsonl", b"", ": empty"),
        ("r.jsonl", b'{"a": 1}\n', "line 1 is not a record"),
        ("r.jsonl", b"nonsense\n", "line 1 is not a record"),
        ("r.jsonl", b"[1]\n", "line 1 is not a record"),
        ("r.jsonl.gz", b"nonsense\n", "r.jsonl.gz: "),
        ("r.parquet", b"nonsense\n", "r.parquet: "),
    ],
)
def test_what_is_no_file_of_records_is_misuse(
    tmp_path: Path, name: str, data: bytes | None, words: str
) -> None:
    needs(name)
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    ran = report(path)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert json.loads(report(path, "--json").out)["exit_code"] == 2


@pytest.mark.parametrize("end", [{"found": 5}, {"cost": {}}, {"found": {"objective": 1}}])
def test_an_end_that_says_anything_is_misuse(
    endpoint: Endpoint, tmp_path: Path, end: dict[str, Any]
) -> None:
    endpoint.script = mixed
    path = tmp_path / "r.jsonl"
    run(command(endpoint, "--requests", "1", "--records", str(path), "-q"))
    *lines, last = path.read_text().splitlines()
    assert json.loads(last)["mark"] == "end"
    path.write_text("\n".join([*lines, json.dumps({"mark": "end", "fields": end})]) + "\n")
    ran = report(path)
    assert (ran.code, ran.out) == (2, "")
    assert "its entry for the end of the run can't be read" in ran.err
