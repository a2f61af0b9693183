"""``trio-minillm compare``, run as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")
pytest.importorskip("numpy", reason="needs the extra [cli]")

from trio_minillm._bench.output.json import fields_of
from trio_minillm._bench.plan import Closed

from ..support.bench_results import answered, many, point, result, write
from ..support.command import COMMAND, Ran, run


def compare(*args: str | Path) -> Ran:
    return run([*COMMAND, "compare", *map(str, args)])


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write(tmp_path / "base.jsonl", [(Closed(concurrency=4), many(60))])


@pytest.fixture
def slower(tmp_path: Path) -> Path:
    records = many(60, slower=1.5, seed=1)
    return write(tmp_path / "slower.jsonl", [(Closed(concurrency=4), records)], max_tokens=9)


def test_a_table_for_each_new_run(base: Path, slower: Path) -> None:
    ran = compare(base, slower, base)
    assert (ran.code, ran.err) == (0, "")
    first, second = ran.out.split(f"\n{base} → {base}")
    assert first.startswith(f"{base} → {slower} · concurrency 4\n")
    (mean,) = (line for line in first.splitlines() if line.startswith("TTFT mean"))
    assert mean.endswith("worse")
    assert "intervals: paired by prompt\n" in first
    assert "note: max_tokens differs: - and 9\n" in first
    assert "worse" not in second
    assert "no difference shown" in second


def test_markdown(base: Path, slower: Path) -> None:
    ran = compare(base, slower, "--markdown")
    assert ran.out.startswith("### ")
    assert "| TTFT mean" in ran.out
    assert "- **intervals**: paired by prompt\n" in ran.out


def test_json(base: Path, slower: Path) -> None:
    ran = compare(base, slower, "--json")
    found = json.loads(ran.out)
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert [*found] == ["schema", "comparisons", "broken", "error", "exit_code"]
    (one,) = found["comparisons"]
    assert one["changes"]["ttft.mean"]["verdict"] == "worse"
    assert (found["broken"], found["error"], found["exit_code"]) == ([], None, 0)


def test_a_result_and_a_file_of_records(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "new.json"
    path.write_bytes(msgspec.json.encode(fields_of(result(point(many(60))))))
    ran = compare(base, path)
    assert ran.code == 0
    assert "intervals: from the intervals of each side\n" in ran.out


def test_conditions_that_hold_fail_with_8(base: Path, slower: Path) -> None:
    ran = compare(base, slower, "--fail-if", "ttft.mean > 2x", "--fail-if", "failed > 1%")
    assert (ran.code, ran.err) == (0, "")
    ran = compare(base, slower, "--fail-if", "ttft.mean > 1.2x", "--fail-if", "itl.mean > 1s")
    assert ran.code == 8
    assert ran.err.startswith("error: ttft.mean > 1.2x: ttft.mean is 369.1 ms, ")
    assert f"1.5x the base ({slower}, concurrency 4)" in ran.err
    assert "TTFT mean" in ran.out
    ran = compare(base, slower, "--fail-if", "goodput < 1x", "--json")
    found = json.loads(ran.out)
    assert (ran.code, found["exit_code"], len(found["broken"])) == (8, 8, 1)
    assert "goodput was not measured" in found["error"]["message"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "give at least two results"),
        (["none.json"], "No such file"),
        (["BASE", "--fail-if", "ttft > 1"], "is not one of"),
        (["BASE", "--fail-if", "__import__('os')"], "is not a condition"),
        (["BASE", "--json", "--markdown"], "--json can't be combined with --markdown"),
    ],
)
def test_misuse_is_one_line(base: Path, args: list[str], words: str) -> None:
    given = [str(base) if arg == "BASE" else arg for arg in args]
    ran = compare(base, *given)
    assert ran.code == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert ("exit_code" in ran.out) == ("--json" in args)


def test_names_are_no_control_characters(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "new\x1b[2J.jsonl"
    write(path, [(Closed(concurrency=4), [answered(n) for n in range(12)])], model="\x1b[31m")
    ran = compare(base, path)
    assert ran.code == 0
    assert "\x1b" not in ran.out + ran.err
