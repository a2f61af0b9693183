"""Past one machine: on Ray, with an actor killed in the middle; without Ray, all but Ray."""

import asyncio
import collections
import contextlib
import http.server
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal

import msgspec
import pytest

import trio_minillm as llm
import trio_minillm.batch
from trio_minillm import testing
from trio_minillm.adapters._shared_results import SharedResults
from trio_minillm.adapters.ray import UNWRITTEN, divided, on_ray, rows_of
from trio_minillm.batch import BatchRequest, BatchResult, ResultLine
from trio_minillm.testing import openai_events

from ..support.paths import doc

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed (extra: ray)"
)
needs_arrow = pytest.mark.skipif(
    importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed (extra: ray)"
)


class Server:
    """A provider in a thread that counts what is asked, by prompt, and takes its time."""

    def __init__(self, seconds=0.0):
        counts, lock = collections.Counter(), threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                prompt = body["messages"][-1]["content"]
                with lock:
                    counts[prompt] += 1
                time.sleep(seconds)
                if prompt.startswith("bad"):
                    data, status, kind = b'{"error":{"message":"no"}}', 400, "application/json"
                else:
                    data = b"".join(openai_events("echo ", prompt))
                    status, kind = 200, "text/event-stream"
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                with contextlib.suppress(OSError):  # the actor was killed
                    self.wfile.write(data)

            def log_message(self, *args): ...

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 200

            def handle_error(self, request, address): ...  # a killed client

        self.counts = counts
        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def actor_of(server, folder, **options):
    """An actor's object, in this process."""
    plan = {"actors": 1, "model_options": {"base_url": server.url}, **options}
    return on_ray("compatible:m", folder=folder, **plan)()


class Column(list):
    """As much of a numpy array as a block has."""

    def tolist(self):
        return list(self)


def block(count, prefix="q", **more):
    return {
        "key": Column(f"k{n}" for n in range(count)),
        "prompt": Column(f"{prefix}{n}" for n in range(count)),
        **{name: Column([value] * count) for name, value in more.items()},
    }


@pytest.fixture
def ask(tmp_path):
    """Give a fresh actor some blocks at once, and take its rows."""

    def run(server, *blocks, **options):
        async def main(actor):
            return await asyncio.gather(*map(actor, blocks))

        actor = actor_of(server, tmp_path / "record", **options)
        try:
            return [table.to_pylist() for table in asyncio.run(main(actor))]
        finally:
            actor._portal.close()

    return run


# -- without Ray ---------------------------------------------------------------------------------


@needs_arrow
def test_rows_in_and_rows_out(ask):
    with Server() as server:
        bad = {"key": Column(["x"]), "prompt": Column(["bad"])}
        first, second = ask(server, block(5, max_tokens=9), bad)
        assert [row["key"] for row in first] == [f"k{n}" for n in range(5)]
        assert [row["content"] for row in first] == [f"echo q{n}" for n in range(5)]
        assert {row["completion_tokens"] for row in first} == {2}
        assert all(row["ok"] and row["error"] is None for row in first)
        line = msgspec.json.decode(first[0]["result"], type=ResultLine)
        assert line.content == "echo q0"
        (failed,) = second
        assert (failed["ok"], failed["content"], failed["error"]) == (False, None, "RefusedError")
        assert max(server.counts.values()) == 1


@needs_arrow
def test_what_has_a_line_is_not_sent_again(ask):
    with Server() as server:
        before = ask(server, block(5), block(7))  # five keys twice at once
        again = ask(server, block(9))
        assert max(server.counts.values()) == 1
        assert sum(server.counts.values()) == 9
        assert again[0][:7] == before[1]


@needs_arrow
def test_failed_ones_are_sent_again_on_request(ask):
    with Server() as server:
        for _ in range(2):
            ask(server, block(2, "bad"))
        assert sum(server.counts.values()) == 2
        ask(server, block(2, "bad"), retry_failed=True)
        assert sum(server.counts.values()) == 4


@needs_arrow
@pytest.mark.parametrize("prefix", ["q", "bad"])
def test_a_key_that_was_answered_since_a_block_began_is_not_sent_again(ask, prefix):
    """The last row of the second block is that of the first: it has ended when its turn comes."""
    first = {"key": Column(["a"]), "prompt": Column([prefix])}
    second = {name: Column([*column, *first[name]]) for name, column in block(300).items()}
    with Server() as server:
        one, other = ask(server, first, second, concurrency=2, retry_failed=True)
        assert server.counts[prefix] == 1
        assert sum(server.counts.values()) == 301
        assert other[-1]["result"] == one[0]["result"]


@needs_arrow
def test_a_key_of_another_request_is_refused(ask):
    with Server() as server:
        ask(server, block(2))
        with pytest.raises(ValueError, match="another request"):
            ask(server, block(2, "other"))
        with pytest.raises(ValueError, match="two requests"):
            ask(server, {"key": Column("aa"), "prompt": Column("bc")})


@needs_arrow
def test_a_row_that_is_no_request_is_refused(ask):
    with Server() as server:
        with pytest.raises(ValueError, match="messages and prompt"):
            ask(server, {"key": Column("a")})
        with pytest.raises(ValueError, match="not a line of JSON"):
            ask(server, {"text": Column(["{"])})
        assert not server.counts


@needs_arrow
def test_an_error_that_ends_the_run_is_raised_by_each_block(ask):
    with Server() as server, pytest.raises(llm.BudgetExceeded):
        ask(
            server,
            *(
                block(
                    4,
                    f"p{n}",
                )
                | {"key": Column(f"{n}{i}" for i in range(4))}
                for n in range(3)
            ),
            limits=llm.Limits(max_tokens=20),
            concurrency=1,
        )


def test_rows_of_tables_and_of_lines():
    lines = ['{"key": "a", "prompt": "p"}', '{"custom_id": "b", "body": {}}']
    assert rows_of({"text": Column(lines)}) == [json.loads(line) for line in lines]
    table = {
        "key": Column(["a", "b"]),
        "messages": Column(['[{"role": "user", "content": "x"}]', None]),
        "prompt": Column([None, "[as it is]"]),
        "max_tokens": Column([5, float("nan")]),
        "stop": Column(["\n", None]),
    }
    assert rows_of(table) == [
        {"key": "a", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "stop": "\n"},
        {"key": "b", "prompt": "[as it is]"},
    ]


def test_limits_are_divided_and_never_exceeded():
    limits = llm.Limits(max_cost=1, max_tokens=100)
    whole = {
        "concurrency": 10,
        "requests_per_minute": 100,
        "tokens_per_minute": None,
        "limits": limits,
        "deadline": 5,
    }
    part = divided(whole, 3)
    assert part["concurrency"] == 3
    assert part["requests_per_minute"] * 3 == pytest.approx(100)
    assert part["limits"].max_tokens == 33
    assert part["limits"].max_cost * 3 <= Decimal(1)
    assert part["deadline"] == 5
    assert divided({}, 4) == {"max_concurrency": 250}
    assert divided({"concurrency": "auto", "max_concurrency": 9}, 4)["max_concurrency"] == 2
    with pytest.raises(ValueError, match="at least the number of actors"):
        divided({"concurrency": 3}, 4)


@pytest.mark.parametrize("options", [{"ordered": True}, {"samples": 3}, {"nonsense": 1}])
def test_other_options_are_refused(options):
    with pytest.raises(TypeError, match="not an option of a batch on Ray"):
        on_ray("local", actors=1, folder=".", **options)


@pytest.mark.parametrize("actors", [0, True, 1.5])
def test_a_bad_number_of_actors_is_refused(actors):
    with pytest.raises(ValueError, match="actors"):
        on_ray("local", actors=actors, folder=".")


def test_it_is_a_name_of_the_batch_package():
    assert trio_minillm.batch.on_ray is on_ray
    with pytest.raises(AttributeError, match="nonsense"):
        trio_minillm.batch.nonsense  # noqa: B018


# -- the record ----------------------------------------------------------------------------------


def result(key, text="yes", prompt="p"):
    response = llm.CompletionResponse(
        choices=(llm.Choice(content=text),), outcome=llm.Outcome.FINISHED
    )
    request = BatchRequest(key, prompt, testing.model())
    return BatchResult(request=request, index=0, response=response)


async def test_each_finds_what_the_others_wrote(tmp_path):
    with SharedResults(tmp_path) as one, SharedResults(tmp_path) as other:
        line = await one.append(result("a"))
        assert await other.line(result("a").request) is None
        await other.refresh()
        assert await other.line(result("a").request) == line
        await other.append(result("b"))
        await one.refresh()
        await one.refresh()
        assert await one.line(result("b").request) is not None
    with SharedResults(tmp_path) as third:
        assert await third.line(result("a").request) == line
        with pytest.raises(ValueError, match="another request"):
            await third.line(result("a", prompt="q").request)


async def test_a_line_cut_anywhere_is_as_if_it_were_not_there(tmp_path):
    with SharedResults(tmp_path) as record:
        await record.append(result("a"))
        await record.append(result("b"))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole), 7):
        path.write_bytes(whole[:cut])
        with SharedResults(tmp_path) as record:
            assert await record.line(result("a").request) == whole[:first]
            assert await record.line(result("b").request) is None
            (own,) = set(tmp_path.iterdir()) - {path}
        own.unlink()


# -- with Ray ------------------------------------------------------------------------------------

SETTING = """
import logging, os, ray, sys
os.chdir(sys.argv[1])
ray.init(
    address="local",
    num_cpus=2,
    include_dashboard=False,
    logging_level=logging.ERROR,
    log_to_driver={shown},
)
ray.data.DataContext.get_current().enable_progress_bars = False
"""


def of_docs(url, actors, **setting):
    """The example of the docs, on a machine of two cores, with this server and number of actors."""
    text = doc("ray.md").read_text(encoding="utf-8")
    program = text.partition("```text\nimport ray\n")[2].partition("```")[0]
    for old, new in {
        '"openai:gpt-5-mini",': f'"compatible:m", model_options={{"base_url": "{url}"}},',
        "actors=4": f"actors={actors}",
        "size=4": f"size={actors}",
        '"/mnt/shared/run-7"': '"record"',
        "concurrency=800": f"concurrency={8 * actors}",
    }.items():
        assert old in program
        program = program.replace(old, new)
    return SETTING.format(**setting) + program


@contextlib.contextmanager
def running(program, folder):
    """Run a program in a folder; end it with the block, and after some minutes in any case."""
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, folder], stderr=subprocess.PIPE, text=True
    ) as process:
        timer = threading.Timer(200, process.terminate)
        timer.start()
        try:
            yield process
        finally:
            timer.cancel()
            process.terminate()


@needs_ray
@pytest.mark.parametrize(("actors", "kills"), [(1, 1), (2, 0), (2, 2), (4, 1)])
def test_the_docs_example_on_two_cores(tmp_path, actors, kills):
    """Actors that are killed lose what they had under way, and nothing else is sent twice."""
    import pyarrow.parquet

    keys, killed = sorted(f"k{n}" for n in range(300)), set()
    lines = [json.dumps({"key": key, "prompt": f"about {key}"}) for key in keys]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    with (
        Server(0.05) as server,
        running(of_docs(server.url, actors, shown=False), tmp_path) as process,
    ):
        while process.poll() is None and len(killed) < kills:
            done = sum(server.counts.values())
            files = (tmp_path / "record").glob("*.jsonl")
            pids = {int(path.name.rsplit("-", 2)[1]) for path in files} - killed
            if pids and done > 60 * (len(killed) + 1):
                os.kill(max(pids), signal.SIGKILL)
                killed.add(max(pids))
            time.sleep(0.01)
        _, err = process.communicate()
        assert process.returncode == 0, err[-3000:]
    rows = pyarrow.parquet.read_table(tmp_path / "answers").to_pylist()
    found = sorted((row["key"], row["content"], row["ok"]) for row in rows)
    assert found == [(key, f"echo about {key}", True) for key in keys]
    assert len(killed) == kills
    written = [
        msgspec.json.decode(line)["custom_id"]
        for path in (tmp_path / "record").glob("*.jsonl")
        for line in path.read_bytes().splitlines(keepends=True)
        if line.endswith(b"\n")
    ]
    assert sorted(written) == keys  # once each, all actors'
    twice = sum(server.counts.values()) - len(keys)
    assert twice <= (8 + UNWRITTEN) * kills  # what each had under way or in hand


@needs_ray
def test_actors_that_keep_every_core_say_so(tmp_path):
    """Nothing is read then: the job stands still."""
    (tmp_path / "in.jsonl").write_text('{"key": "a", "prompt": "b"}\n')
    with Server() as server:
        program = of_docs(server.url, 2, shown=True)
        assert "num_cpus=0, " in program
        with running(program.replace("num_cpus=0, ", ""), tmp_path) as process:
            assert process.stderr is not None
            said = next((line for line in process.stderr if "keep all 2 CPUs" in line), None)
    assert said is not None
    assert "num_cpus=0" in said
