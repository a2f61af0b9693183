"""The benchmarks run: server, contenders, measures and writers, on a tiny load. No timing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from xml.etree import ElementTree

import pytest

from .support.paths import BENCHMARKS

if not (BENCHMARKS / "bench.py").exists() or sys.platform != "linux":
    pytest.skip("needs benchmarks/ and Linux", allow_module_level=True)
sys.path.append(str(BENCHMARKS))

import answers
import bench
import control
import measures
import plot
import report
import targets
from cases import PARTS, QUICK, Case, cases
from contenders import CONTENDERS, FLOOR, OURS

TINY = QUICK._replace(chunks=130, requests=2, many_seconds=0.01, churn_seconds=0.3)
WIRES = ("openai", "anthropic", "responses", "gemini")


def small(case: Case) -> Case:
    """The same with few connections and few rounds of everything."""
    task = {**case.task}
    task |= {key: 3 for key in ("others", "chunks") if task.get(key)}
    task |= {"count": 4} if task["name"] == "many" else {}
    if case.part == "big":
        parsed = [answers.Answer.parse(name) for name in task["names"]]
        task["names"] = [answer._replace(chunks=answer.chunks // 500).name for answer in parsed]
    return case._replace(task=task, skip="")


TASKS = """
import json, sys
import measures
from contenders import Options

for task in json.loads(sys.argv[1]):
    print(json.dumps(measures.measure(options=Options(**task.pop("options")), **task)))
"""


def wanted(contender: str) -> list[Case]:
    parts = [part for part in PARTS if part != "import"]
    return [small(c) for part in parts for c in cases(part, TINY) if c.contender == contender]


def started(contender: str, urls: dict[str, str]) -> subprocess.Popen[str]:
    """All cases of a contender in one process, which saves importing it each time."""
    tasks = [json.loads(bench.command_of(c, urls, None)[-1]) for c in wanted(contender)]
    for task in tasks:
        del task["cpu"]
    return subprocess.Popen(
        [sys.executable, "-c", TASKS, json.dumps(tasks)],
        env={**bench.environment(), "PYTHONPATH": str(BENCHMARKS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    with bench.replay_server(None) as found:
        yield found


@pytest.fixture(scope="module")
def processes(urls: dict[str, str]) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Every contender that is installed, at the same time."""
    with ExitStack() as stack:
        found = {}
        for name, contender in CONTENDERS.items():
            if importlib.util.find_spec(contender.needs) is not None:
                found[name] = stack.enter_context(started(name, urls))
                stack.callback(found[name].kill)
        yield found


@pytest.fixture(scope="module")
def results() -> report.Results:
    """Return the results that the tests of the contenders fill, for those of the writers."""
    return report.Results()


@pytest.mark.parametrize("contender", CONTENDERS)
def test_a_contender_gives_right_answers(
    contender: str, processes: dict[str, subprocess.Popen[str]], results: report.Results
) -> None:
    if contender not in processes:
        pytest.skip(f"{CONTENDERS[contender].needs} is not installed")
    out, complaints = processes[contender].communicate(timeout=60)
    assert processes[contender].returncode == 0, complaints
    found = [json.loads(line) for line in out.splitlines()]
    for case, got in zip(wanted(contender), found, strict=True):
        assert got, case
        assert "skipped" not in got, case
        results.add(case, got)
    assert not results.failed


def test_the_writers_write_what_was_found(results: report.Results) -> None:
    if not {OURS, FLOOR} <= set(results.values.get("many/1000", {})):
        pytest.skip("the contenders were not run")
    tables = report.tables(results)
    assert "| trio_minillm " in tables
    assert "| 5,000 streams " in tables
    for line in tables.split("\n\n"):
        rows = line.splitlines()
        assert len({row.count("|") for row in rows}) == 1, line
    assert "burst: CPU relative to the floor" in targets.verdicts(results)
    panels = ElementTree.fromstring(plot.svg(results)).findall(".//*[@class='t']")
    assert len(panels) >= 20
    assert json.loads(json.dumps(report.as_json(results)))["rows"]


def test_what_nobody_measured_is_no_table() -> None:
    empty = report.Results()
    assert (report.tables(empty), targets.verdicts(empty)) == ("", "")
    assert report.as_json(empty) == {"rows": [], "skipped": [], "failed": []}
    ElementTree.fromstring(plot.svg(empty))


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("layout", answers.LAYOUTS)
def test_an_answer_has_its_pieces_in_order(wire: str, layout: str) -> None:
    answer = answers.Answer(wire, "text", layout, 150)
    body = b"".join(piece for write in answers.writes(answer.name) for piece in write)
    assert body.startswith(answers.HEAD)
    assert body.endswith(answers.END)
    at = 0
    for text in answers.texts(answer):
        at = body.index(json.dumps(text, ensure_ascii=False).encode(), at) + 1


def test_a_wrong_answer_fails() -> None:
    answer = answers.Answer("openai", "text", "burst", 3)
    right = list(answers.texts(answer))
    for wrong in (right[:-1], [*right[:-1], "other"]):
        reading = measures._Reading(answer)
        reading.pieces += wrong
        with pytest.raises(AssertionError):
            reading.result()


def test_a_failure_is_shown_and_makes_the_exit_code_1(
    urls: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    good = next(c for c in cases("chunk", TINY) if c.contender == FLOOR)
    bad = good._replace(contender=OURS, task={**good.task, "names": ["no/such/thing"]})
    absent = Case("import", "aiohttp", {"modules": "no_such_module_at_all"}, ("import",))
    found = report.Results()
    for case in (good, bad, absent):
        found.add(case, bench.run(case, urls, None))
    assert {contender for _, contender in found.failed} == {OURS}
    assert found.skipped == {("import", "aiohttp"): "not installed"}
    monkeypatch.setattr(bench, "measure", lambda sizes, parts: found)
    files = {"--json": tmp_path / "a.json", "--svg": tmp_path / "a.svg"}
    words = [str(word) for pair in files.items() for word in pair]
    assert bench.main(["--quick", "--only", "chunk", *words]) == 1
    assert "FAILED: ValueError" in capsys.readouterr().out
    assert json.loads(files["--json"].read_text())["failed"]
    ElementTree.fromstring(files["--svg"].read_text())


def test_everyone_is_imported_from_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    assert "PYTHONDONTWRITEBYTECODE" not in bench.environment()


def test_too_few_files_are_a_reason_and_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures.open_files, "raise_limit", lambda: 1024)
    assert "needs 5,100 open files" in measures.unable_because(CONTENDERS[OURS], 5000)
    assert not measures.unable_because(CONTENDERS[OURS], 0)


def test_the_simulator_of_control_runs_each_kind_of_server() -> None:
    """On a virtual clock: these seconds are not those of this machine."""
    (loop,) = control.measure(("at_random", (0.2, "503", 200, "loop", 20), 0))
    (batch,) = control.measure(("at_random", (0.2, "503", 200, "batch", 20), 0))
    assert 0.0 < batch < 5.0 * loop
    for make, way in control.LIMITS.values():
        server = control.seeded(make(), 0)
        clients = control.Clients(server, 60, 20)
        control.seconds_of(getattr(clients, way))
        assert len(server.accepted) == (120 if way == "two_batches" else 60)
        assert (clients.failed, clients.stopped) == (0, None)
    for why in control.SINGLES.values():
        clients = control.Clients(control.seeded(control.Poisoned(why), 0), 60, 20)
        clients.bad = 7
        control.seconds_of(clients.batch)
        assert clients.failed == (why is not None)


@pytest.mark.parametrize(
    ("script", "rows"),
    [
        (["request_profile.py", "--requests", "2"], ["`_stream`", "`_batch`", "all; CPU"]),
        (["request_profile.py", "complete", "--requests", "2", "--wire", "anthropic"], ["`_http`"]),
        (["held_memory.py", "--streams", "3"], ["`trio`", "`_stream`", "all"]),
        (["batch.py", "pairs", "1", "2"], ["1", "50", "1,000"]),
    ],
    ids=lambda value: value[0],
)
def test_the_other_measures_of_the_pages_run(script: list[str], rows: list[str]) -> None:
    command = [sys.executable, str(BENCHMARKS / script[0]), *script[1:]]
    done = subprocess.run(
        command,
        env={**bench.environment(), "PYTHONPATH": str(BENCHMARKS)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for row in rows:
        assert f"\n| {row}" in done.stdout
