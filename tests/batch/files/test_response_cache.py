"""The response cache: exact, safe for many processes, and never the reason that work is lost."""

import errno
import logging
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import date
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace

import trio_minillm as llm
from trio_minillm import testing
from trio_minillm._batch.files import response_cache
from trio_minillm._batch.files.cache_format import dump_response, load_response
from trio_minillm._batch.files.response_cache import CacheError, ResponseCache, request_key

SECRET = "sk-secret-0123456789"


def answer(text="Rivers carry salt.", **changes):
    choice = llm.Choice(parts=(llm.TextPart(text),), content=text, finish_reason="stop")
    facts = {"id": "gen-1", "model": "m", "choices": (choice,), "outcome": llm.Outcome.FINISHED}
    return llm.CompletionResponse(**facts | changes)


def key_of(model=None, prompt="Why is the sea salty?", sample=0, **options):
    """The key of a request that a client would send."""
    client = llm.Client(None, llm.Timeouts(), llm.Retry(), _NoBooks())
    made = model or testing.model(api_key=SECRET)
    return request_key(client._prepare_call(made, prompt, **options), sample)


class _NoBooks:
    """Stand-in with the part of a bookkeeper that a client needs to prepare a request."""

    ledger = llm.Ledger()

    def remember(self, model): ...


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.sqlite"


@pytest.fixture
def cache(path):
    with ResponseCache(path) as cache:
        yield cache


# -- round trip ----------------------------------------------------------------------------------

texts = st.text(st.characters(codec="utf-8"), max_size=20)
json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(texts, json, max_size=3)
maybe = st.none() | texts
counts = st.none() | st.integers(0, 2**53)
seconds = st.none() | st.floats(0, 1e9)
calls = st.builds(
    llm.ToolCall,
    id=texts,
    name=texts,
    arguments=texts,
    type=st.sampled_from(["function", "custom"]),
    extra=st.none() | objects,
)
parts = st.one_of(
    st.builds(llm.TextPart, texts, citations=st.lists(objects, max_size=2).map(tuple)),
    st.builds(llm.RefusalPart, texts),
    st.builds(llm.OpaquePart, wire=texts, raw=objects),
    st.builds(
        llm.ReasoningPart,
        text=texts,
        signature=maybe,
        encrypted=maybe,
        wire=texts,
        raw=st.none() | objects,
    ),
    calls,
)


@st.composite
def choices(draw):
    made = tuple(draw(st.lists(parts, max_size=4)))
    own = [part for part in made if isinstance(part, llm.ToolCall)]
    bad = [call for call in own if draw(st.booleans())]
    return llm.Choice(
        index=draw(st.integers(0, 127)),
        parts=made,
        content=draw(texts),
        reasoning=draw(texts),
        refusal=draw(maybe),
        tool_calls=(*[c for c in own if c not in bad], *draw(st.lists(calls, max_size=1))),
        invalid_tool_calls=tuple(bad),
        finish_reason=draw(maybe),
        finish_reasons=tuple(draw(st.lists(texts, max_size=2))),
        logprobs=draw(st.none() | objects),
        annotations=tuple(draw(st.lists(objects, max_size=2))),
        audio=draw(st.none() | objects),
        images=tuple(draw(st.lists(objects, max_size=2))),
    )


usages = st.builds(
    llm.Usage,
    uncached_input_tokens=counts,
    cache_read_tokens=counts,
    completion_tokens=counts,
    cost=st.none() | st.floats(0, 1e6),
    final=st.booleans(),
    raw=st.none() | objects,
)
costs = st.builds(
    llm.CostInfo,
    st.none() | st.decimals(0, 1000, places=12),
    st.sampled_from(llm.CostResolution),
    st.sampled_from([None, "native", "price"]),
    st.none() | st.dates(),
)
timings = st.builds(llm.Timings, headers=seconds, first_chunk=seconds, total=seconds)
responses = st.builds(
    llm.CompletionResponse,
    id=texts,
    model=texts,
    choices=st.lists(choices(), min_size=1, max_size=3).map(tuple),
    usage=st.none() | usages,
    outcome=st.sampled_from([None, *llm.Outcome]),
    rejected=st.booleans(),
    cost=costs,
    timings=timings,
    request_id=maybe,
    metadata=objects,
    notes=st.lists(texts, max_size=2).map(tuple),
    skipped_events=st.integers(0, 5),
)


@given(responses)
def test_a_response_comes_back_as_it_was(response):
    again = load_response(dump_response(response))
    assert asdict(again) == asdict(response)
    for old, new in zip(response.choices, again.choices, strict=True):
        assert new.to_message() == old.to_message()  # which knows invalid calls by identity


def test_every_field_is_kept():
    """The strategies above have all fields that there are, and `load` refuses unknown ones."""
    made = {name for name in llm.CompletionResponse.__struct_fields__ if name != "response_type"}
    assert set(msgspec.json.decode(dump_response(answer()))) == made


@given(st.binary(max_size=200))
def test_bytes_that_are_no_answer_are_refused(data):
    with pytest.raises((msgspec.MsgspecError, ValueError)):
        load_response(data)


def _within(old, new):
    """Return whether all that an earlier version stored is stored now; fields may have been added."""
    if isinstance(old, dict):
        return old.keys() <= new.keys() and all(_within(old[name], new[name]) for name in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_within, old, new))
    return old == new


def test_a_response_is_stored_in_the_form_of_earlier_versions():
    """``answer_v1.json`` was written by one, with every type of part and every field."""
    stored = (Path(__file__).parent / "answer_v1.json").read_bytes().rstrip()
    response = load_response(stored)
    assert _within(msgspec.json.decode(stored), msgspec.json.decode(dump_response(response)))
    choice = response.choices[1]
    kinds = [type(part) for part in choice.parts]
    assert kinds[:3] == [llm.ReasoningPart, llm.TextPart, llm.RefusalPart]
    assert kinds[3:] == [llm.ToolCall, llm.ToolCall, llm.OpaquePart]
    assert choice.tool_calls[0] is choice.parts[3]
    assert choice.invalid_tool_calls == (choice.parts[4],)
    assert choice.tool_calls[1].id == "call-3"
    assert response.cost == llm.CostInfo(
        Decimal("0.0012"), llm.CostResolution.RESOLVED, "price", date(2026, 7, 1)
    )
    assert response.outcome is llm.Outcome.FINISHED
    assert response.usage.cache_read_tokens == 1


# -- what is stored ------------------------------------------------------------------------------


async def test_an_answer_is_found_again_and_costs_nothing(cache):
    paid = llm.CostInfo(Decimal("0.001"), llm.CostResolution.RESOLVED, "native")
    await cache.put(b"k" * 32, answer(cost=paid))
    found = cache.get(b"k" * 32, response_type=dict)
    free = llm.CostInfo(Decimal(0), llm.CostResolution.RESOLVED, "cache")
    assert asdict(found) == asdict(answer(cost=free, response_type=dict))
    assert cache.get(b"other") is None
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)


@pytest.mark.parametrize(
    "outcome", [None, llm.Outcome.TRUNCATED, llm.Outcome.ERRORED, llm.Outcome.CANCELLED]
)
async def test_only_finished_answers_are_stored(cache, outcome):
    await cache.put(b"k", answer(outcome=outcome))
    assert cache.get(b"k") is None
    assert len(cache) == 0


async def test_it_outlives_the_process(path):
    with ResponseCache(path) as first:
        await first.put(b"k", answer("kept"))
    with ResponseCache(path) as second:
        assert second.get(b"k").content == "kept"


async def test_a_kill_loses_nothing_that_put_returned_from(path):
    code = """
import os, pickle, signal, sys, trio
from trio_minillm._batch.files.response_cache import ResponseCache
cache = ResponseCache(sys.argv[1])
trio.run(cache.put, b"k", pickle.loads(bytes.fromhex(sys.argv[2])))
os.kill(os.getpid(), signal.SIGKILL)
"""
    given = [str(path), pickle.dumps(answer("survived")).hex()]
    ran = await trio.run_process([sys.executable, "-c", code, *given], check=False)
    assert ran.returncode == -9
    with ResponseCache(path) as cache:
        assert cache.get(b"k").content == "survived"


async def test_the_file_is_the_owner_s_and_has_no_prompt_and_no_key(path):
    old = os.umask(0)
    try:
        with ResponseCache(path) as cache:
            await cache.put(key_of(prompt="a secret prompt"), answer())
            for file in path.parent.iterdir():
                assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
                data = file.read_bytes()
                assert b"secret" not in data
    finally:
        os.umask(old)
    assert "answers" not in repr(cache)


async def test_puts_at_once_share_transactions(cache):
    written = []
    write = cache._write

    def counted(new, used):
        written.append(len(new))
        write(new, used)

    cache._write = counted
    async with trio.open_nursery() as nursery:
        for number in range(200):
            nursery.start_soon(cache.put, str(number).encode(), answer(str(number)))
    assert sum(written) == len(cache) == 200
    assert len(written) < 20
    assert all(cache.get(str(n).encode()).content == str(n) for n in range(200))


async def test_a_cancelled_put_loses_nothing_of_others(cache):
    """Cancelled while it waits for its turn, or right before its thread."""
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(cache.put, b"a", answer("a"))
            scope.cancel()
            await cache.put(b"b", answer("b"))
    assert scope.cancelled_caught
    cache.close()
    with ResponseCache(cache.path) as again:
        assert again.get(b"a").content == "a"
        assert again.get(b"b").content == "b"


# -- the bound -----------------------------------------------------------------------------------


async def test_the_least_recently_used_go_first(path):
    with ResponseCache(path, max_entries=3) as cache:
        for key in (b"a", b"b", b"c"):
            await cache.put(key, answer(key.decode()))
        assert cache.get(b"a") is not None
        await cache.put(b"d", answer("d"))
        assert len(cache) == 3
        assert cache.get(b"b") is None
        assert {k for k in (b"a", b"c", b"d") if cache.get(k)} == {b"a", b"c", b"d"}
        await cache.put(b"d", answer("again"))
        assert len(cache) == 3


async def test_the_bound_holds_when_many_come_at_once(path):
    with ResponseCache(path, max_entries=10) as cache:
        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(cache.put, str(number).encode(), answer())
        assert len(cache) == 10


@pytest.mark.parametrize("bad", [0, -1, True, 2.5, "3"])
def test_a_bad_bound_is_refused(path, bad):
    with pytest.raises(ValueError, match="max_entries"):
        ResponseCache(path, max_entries=bad)


# -- many processes ------------------------------------------------------------------------------


FILL = """
import sys, trio
from trio_minillm import Choice, CompletionResponse, Outcome
from trio_minillm.batch import ResponseCache

def answer(text):
    return CompletionResponse(choices=(Choice(content=text),), outcome=Outcome.FINISHED)

async def main():
    path, first = sys.argv[1], int(sys.argv[2])
    with ResponseCache(path) as cache:
        for number in range(first, first + 60):
            await cache.put(str(number).encode(), answer(str(number)))
            assert cache.get(str(number).encode()).content == str(number)
        assert not cache.faults

trio.run(main)
"""


def test_many_processes_write_one_file(path):
    # All make the file at once, too.
    writers = [
        subprocess.Popen([sys.executable, "-c", FILL, str(path), str(30 * n)]) for n in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]
    with ResponseCache(path) as cache:
        assert len(cache) == 150
        assert all(cache.get(str(n).encode()).content == str(n) for n in range(150))


def test_a_file_that_another_process_is_making(path, monkeypatch):
    """SQLite refuses the change of mode at once, whatever the time that it may wait."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr(response_cache.time, "sleep", sleep)
    monkeypatch.setattr(ResponseCache, "_connect", without_waiting(ResponseCache._connect))
    with ResponseCache(path) as cache:
        assert len(cache) == 0
    other.close()
    assert waits == [response_cache.BUSY_SECONDS]


def test_a_file_that_stays_locked(path, monkeypatch):
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(response_cache, "WRITE_SECONDS", -1.0)
    monkeypatch.setattr(ResponseCache, "_connect", without_waiting(ResponseCache._connect))
    with pytest.raises(CacheError, match="database is locked"):
        ResponseCache(path)
    other.close()


def without_waiting(connect):
    return lambda self, seconds, *args: connect(self, 0.0, *args)


def test_a_file_that_is_made_in_the_middle_of_the_check(path, monkeypatch):
    monkeypatch.setattr(response_cache, "WRITE_SECONDS", -1.0)
    mine = sqlite3.connect(path, isolation_level=None, timeout=0)
    other = sqlite3.connect(path, isolation_level=None, timeout=0)

    def between(statement):
        if statement == "PRAGMA user_version":
            mine.set_trace_callback(None)
            with suppress(sqlite3.OperationalError):
                response_cache._prepare(other)

    mine.set_trace_callback(between)
    response_cache._prepare(mine)
    response_cache._prepare(other)
    mine.close()
    other.close()


def test_it_can_be_sent_to_another_process(path):
    with ResponseCache(path, max_entries=7) as cache, pickle.loads(pickle.dumps(cache)) as other:
        assert (other.path, other.max_entries) == (cache.path, 7)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_must_open_its_own(path):
    code = """
import os, sys
from trio_minillm._batch.files.response_cache import ResponseCache
cache = ResponseCache(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        cache.get(b"k")
    except RuntimeError as error:
        cache.close()
        os._exit(7 if "another process" in str(error) else 1)
    os._exit(2)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert cache.get(b"k") is None
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


# -- files that are something else ---------------------------------------------------------------


@pytest.mark.parametrize("data", [b"x", b"not a database at all\n" * 100, b"\0" * 5000])
def test_a_file_that_is_no_database(path, data):
    path.write_bytes(data)
    with pytest.raises(CacheError, match="not a usable response cache"):
        ResponseCache(path)
    assert path.read_bytes() == data


def test_a_database_of_another_program(path):
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(CacheError, match="another program"):
        ResponseCache(path)
    assert path.read_bytes() == before


def test_a_newer_version(path):
    ResponseCache(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    with pytest.raises(CacheError, match="version 2"):
        ResponseCache(path)


def test_places_where_no_file_can_be(tmp_path):
    with pytest.raises(IsADirectoryError):
        ResponseCache(tmp_path)
    with pytest.raises(FileNotFoundError, match="folder"):
        ResponseCache(tmp_path / "missing" / "cache")


def test_a_closed_cache_says_so(cache):
    cache.close()
    cache.close()
    with pytest.raises(RuntimeError, match="closed"):
        cache.get(b"k")
    with pytest.raises(RuntimeError, match="closed"):
        trio.run(cache.put, b"k", answer())


async def test_a_damaged_answer_is_not_found(cache, caplog):
    await cache.put(b"k", answer("a secret answer"))
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE answers SET answer = substr(answer, 1, 90)")
    connection.close()
    with caplog.at_level(logging.WARNING, "trio_minillm"):
        assert cache.get(b"k") is None
        assert cache.get(b"k") is None
    assert cache.faults == 2
    assert len(caplog.records) == 1
    assert "secret" not in caplog.text


async def test_a_file_that_can_t_be_written_costs_no_answer(cache, caplog, monkeypatch):
    connection = sqlite3.connect(cache.path)
    connection.execute("DROP TABLE size")
    connection.commit()
    connection.close()
    with caplog.at_level(logging.WARNING, "trio_minillm"):
        await cache.put(b"k", answer())
    assert cache.faults == 1
    assert "can't be written" in caplog.text


async def test_an_answer_that_has_no_json_is_passed_over(cache, caplog):
    with caplog.at_level(logging.WARNING, "trio_minillm"):
        await cache.put(b"k", answer(metadata={"odd": object()}))
        await cache.put(b"l", answer(metadata={"odd": "\ud800"}))
    assert cache.faults == 2
    assert cache.get(b"k") is None


async def test_an_answer_that_is_too_long_is_passed_over(cache, monkeypatch):
    monkeypatch.setattr(response_cache, "MAX_ANSWER", 1000)
    await cache.put(b"k", answer("x" * 2000))
    assert cache.get(b"k") is None
    assert not cache.faults


# -- the key -------------------------------------------------------------------------------------


def test_the_same_request_has_the_same_key():
    assert key_of() == key_of()
    assert len(key_of()) == 32
    assert key_of(testing.model(api_key="another")) == key_of()
    assert key_of(headers={"x-trace": "1"}) == key_of()
    assert key_of(timeouts=llm.Timeouts(total=5), raw=True, meta={"a": 1}) == key_of()


def test_a_request_has_the_key_of_earlier_versions():
    assert [key_of(max_tokens=5, sample=n).hex() for n in (0, 1)] == [
        "fefc2a88673a03e945890a490e08ddfebe5e2b23287b0bfd91d03e2ae537d2df",
        "18f16936985fc46f852fd524347b7232b3f6e0f7c966a8344e183398e47a14f2",
    ]


def test_another_request_has_another_key():
    base = testing.model()
    other_wire = llm.anthropic("test-model", base_url=base.base_url, api_key="k")
    keys = [
        key_of(),
        key_of(prompt="Why?"),
        key_of(sample=1),
        key_of(temperature=0.5),
        key_of(temperature=0.25),
        key_of(max_tokens=5),
        key_of(extra={"x": 1}),
        key_of(lenient=True),
        key_of(expect_usage=False),
        key_of(replace(base, name="other")),
        key_of(replace(base, base_url="http://test.invalid/v2")),
        key_of(replace(base, extra={"y": 1})),
        key_of(other_wire),
        key_of(other_wire, betas=["b-1"]),
        key_of(other_wire, headers={"anthropic-beta": "b-2"}),
    ]
    assert len(set(keys)) == len(keys)


def test_a_local_model_is_the_same_at_another_port():
    def at(port, identity="a", path="/v1"):
        return replace(
            testing.model(), base_url=f"http://127.0.0.1:{port}{path}", identity=identity
        )

    assert key_of(at(1)) == key_of(at(2))
    keys = [
        key_of(at(1)),
        key_of(at(1, "b")),
        key_of(at(1, path="/v2")),
        key_of(at(1, None)),
        key_of(at(2, None)),
        key_of(replace(at(1), name="other")),
    ]
    assert len(set(keys)) == len(keys)


async def test_without_locks_one_process_can_use_it(path, monkeypatch, caplog):
    """Also one that was made where there are locks, and that then has to be read there again."""

    def fail(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    pytest.importorskip("fcntl")
    with ResponseCache(path) as cache:
        await cache.put(b"a", answer())
    with monkeypatch.context() as patched:
        patched.setattr("fcntl.lockf", fail)
        with ResponseCache(path) as cache:
            async with trio.open_nursery() as nursery:
                for n in range(20):
                    nursery.start_soon(cache.put, bytes([n]), answer())
                for _ in range(20):
                    assert cache.get(b"a") is not None
                    await trio.lowlevel.checkpoint()
            assert (len(cache), cache.faults) == (21, 0)
            names = sorted(p.name for p in path.parent.iterdir())
            assert names == [path.name, f"{path.name}-wal"]  # no memory that processes share
    (told,) = caplog.records
    assert told.getMessage() == (
        f"{path} is on a file system without locks (no locks available):"
        " a second process that opens it at the same time can ruin it"
    )
    with ResponseCache(path) as cache:
        assert len(cache) == 21
        assert cache.get(bytes([7])) is not None
