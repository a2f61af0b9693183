"""Tests of the audit: what is observed of the client, and what follows from it."""

from __future__ import annotations

import gc
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

import trio_minillm as llm
from trio_minillm._bench.audit import watch as watch_module
from trio_minillm._bench.audit.audit import (
    STALLS,
    Audit,
    Pauses,
    Times,
    judged,
    limit_text,
    merged,
)
from trio_minillm._bench.audit.null import null_run_of
from trio_minillm._bench.audit.null_run import timing_of
from trio_minillm._bench.audit.stamps import Lags, StampedSocket, open_stamped_transport
from trio_minillm._bench.audit.watch import Watch
from trio_minillm._bench.engine import Engine
from trio_minillm._bench.figures.figures import Figures, figures_of
from trio_minillm._bench.figures.gaps import Together
from trio_minillm._bench.output.table import rows_of, table_of
from trio_minillm._bench.plan import Closed, Open, Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Record
from trio_minillm._bench.run import Point

LINUX = sys.platform.startswith("linux")


def figures(
    itl: float = 0.02, ttft: float = 0.2, late: float = 0.0, together: int = 100
) -> Figures:
    """Return the figures of a hundred answers of eleven contents, so many of which were read together."""
    stamps = [ttft + itl * n for n in range(11)]
    record = Record(
        number=0,
        scheduled=-late,
        sent=0.0,
        ended=stamps[-1],
        stamps=stamps,
        outcome="finished",
        output_tokens=11,
        first_text=ttft,
    )
    many = Together(contents=together, answers=together // 10, beginnings=together // 10)
    return msgspec.structs.replace(figures_of([record] * 100), together=many)


def audit_of(lag: float | None = 0.0001, cpu: float = 0.1, loop: float = 0.0001) -> Audit:
    """Return the audit of ten seconds with this p99 of the lag and this share of a core."""
    times = None if lag is None else Times(count=100, p50=0.0001, p99=lag, max=lag)
    turns = Times(count=100, p50=0.0001, p99=loop, max=loop)
    return Audit(
        seconds=10.0,
        cpu_seconds=cpu * 10,
        cpu_share=cpu,
        lag=times,
        lag_first=times,
        lag_last=times,
        loop=turns,
    )


BY_GAP = {"itl", "itl_token", "itl_max"}
RATES = {"requests", "chunks", "output_tokens", "input_tokens"}
SCHEDULED = {
    *("ttft_scheduled", "ttft_text_scheduled", "ttft_reasoning_scheduled"),
    *("e2e_scheduled", "e2e_stream_scheduled"),
}


@pytest.mark.parametrize(
    ("audit", "given", "marked"),
    [
        ({}, {}, set()),
        ({"lag": 0.0009}, {"itl": 0.001}, set()),  # less than 1 ms marks nothing
        ({"lag": 0.0019}, {"itl": 0.0035}, {*BY_GAP, "tpot"}),  # others may have come meanwhile
        (
            {"lag": 0.0019},
            {"itl": 0.0035, "ttft": 0.1},
            {*BY_GAP, *("ttft", "ttft_text", "e2e", "e2e_stream", "tpot")},
        ),
        ({"lag": 0.0019}, {"itl": 0.0035, "together": 10}, set()),  # but none did
        ({"lag": 0.0019}, {}, set()),  # it is taken out
        ({"lag": 0.0099}, {}, set()),
        ({"lag": None, "loop": 0.0019}, {}, BY_GAP),  # in its place
        ({"lag": 0.0001, "loop": 0.1}, {}, set()),
        ({"cpu": 0.9}, {}, RATES),
    ],
)
def test_what_is_marked(audit: dict[str, Any], given: dict[str, Any], marked: set[str]) -> None:
    found = judged(audit_of(**audit), figures(**given), Closed())
    assert {name.removesuffix("_scheduled") for name in found.unreliable} == marked
    assert found.limited is bool(marked)
    assert found.verdict.startswith(
        "the client may have limited" if marked else "the client kept up"
    )


@pytest.mark.parametrize(
    ("load", "late", "cpu", "marked"),
    [
        (Open(rate=10), 0.0, 0.1, set()),
        (Open(rate=10), 0.02, 0.1, SCHEDULED),
        (Open(rate=10), 0.11, 0.1, {"requests", *SCHEDULED}),  # of 10 s
        (Open(rate=10), 0.0019, 0.1, set()),  # not 1 % of the 200 ms to the first content
        (Open(rate=10, concurrency=3), 0.02, 0.1, set()),  # it waited for a place, as was asked
        (Closed(), 0.02, 0.1, set()),
        (Open(rate=10), 0.0, 0.95, set()),  # sent in time all the same
        (Open(rate=10), 0.02, 0.95, {*RATES, *SCHEDULED}),
    ],
)
def test_lateness(load: Any, late: float, cpu: float, marked: set[str]) -> None:
    found = judged(audit_of(cpu=cpu), figures(late=late), load)
    assert set(found.unreliable) == marked
    assert found.late.p99 == pytest.approx(late)


@pytest.mark.parametrize(
    ("stalls", "longest", "marked"),
    [
        ({"0.005": 1.0, "0.01": 0.09}, 0.04, set()),  # of 10 s; 5 ms is less than half of a gap
        ({"0.005": 1.0, "0.01": 0.11}, 0.04, {*BY_GAP, "ttft", "ttft_text", "tpot", "e2e"}),
        ({"0.01": 0.11}, 0.0035, {*BY_GAP, "ttft", "ttft_text", "tpot"}),  # of 400 ms it is little
    ],
)
def test_stalls(stalls: dict[str, float], longest: float, marked: set[str]) -> None:
    turns = Times(count=100, p50=0.0001, p99=0.001, max=longest)
    audit = msgspec.structs.replace(audit_of(), loop=turns, stalls=stalls)
    found = judged(audit, figures(itl=0.022), Closed())
    names = {name.removesuffix("_scheduled") for name in found.unreliable}
    assert names - {"e2e_stream"} == marked
    assert set(found.unreliable.values()) <= {"stalls"}
    assert ("stalled for up to" in found.verdict) is bool(marked)


@pytest.mark.parametrize(
    ("contents", "answers", "beginnings", "marked"),
    [
        (10, 1, 1, set()),  # of 1,000 gaps and 100 answers
        (11, 1, 1, {"itl", "itl_token", "e2e", "e2e_stream"}),
        (2, 2, 1, {"itl_max"}),
        (2, 2, 2, {"itl_max", "ttft", "ttft_text", "tpot"}),  # few contents, but the first ones
    ],
)
def test_a_stall_does_harm_where_it_brought_contents_together(
    contents: int, answers: int, beginnings: int, marked: set[str]
) -> None:
    turns = Times(count=100, p50=0.0001, p99=0.001, max=0.04)
    audit = msgspec.structs.replace(audit_of(), loop=turns, stalls={"0.01": 1.0}, stolen=0.2)
    together = Together(contents=contents, answers=answers, beginnings=beginnings)
    given = msgspec.structs.replace(figures(itl=0.022), together=together)
    found = judged(audit, given, Closed()).unreliable
    assert {name.removesuffix("_scheduled") for name in found} == marked


def test_a_figure_is_judged_by_the_reads_that_it_rests_on() -> None:
    """Check that answers which start together, and are read one after the other, lose their TTFT."""
    slow = Times(count=100, p50=0.001, p99=0.02, max=0.02)
    audit = msgspec.structs.replace(audit_of(), lag_first=slow)
    found = judged(audit, figures(), Closed())
    assert {name.removesuffix("_scheduled") for name in found.unreliable} == {"ttft", "ttft_text"}
    assert "first reads of answers lagged by p99 20.00 ms" in found.verdict
    audit = msgspec.structs.replace(audit_of(), lag_last=slow)
    found = judged(audit, figures(), Closed())
    assert {name.removesuffix("_scheduled") for name in found.unreliable} == {
        *("tpot", "e2e", "e2e_stream")
    }


def test_few_reads_do_not_tell() -> None:
    few = audit_of(loop=0.0019)
    few = Audit(lag=Times(count=19, p50=0.0, p99=0.0, max=0.0), loop=few.loop)
    assert set(judged(few, figures(), Closed()).unreliable) == BY_GAP


def test_a_short_run_is_always_busy() -> None:
    short = Audit(seconds=0.9, cpu_share=1.0, cpu_seconds=0.9)
    assert not judged(short, figures(), Closed()).limited


def test_marked_figures_have_a_mark_in_the_table() -> None:
    audit = judged(audit_of(lag=0.0019, cpu=0.9), figures(itl=0.0035), Closed())
    point = Point(load=Closed(), figures=figures(itl=0.0035), audit=audit)
    names = [row[0] for row in table_of(point.figures, audit.unreliable)]
    assert "ITL (ms) (!)" in names
    assert "E2E (ms)" in names
    rows = dict(rows_of(point))
    assert rows["time"].endswith(" requests/s (!)")
    assert rows["audit"].startswith(
        "the client may have limited ITL, TPOT, requests/s, chunks/s, tokens/s"
    )


@pytest.mark.parametrize(
    ("marked", "named"),
    [
        (["ttft", "ttft_text", "ttft_scheduled"], "TTFT"),
        (["e2e_stream"], "end of stream"),
        (["requests", "ttft_scheduled", "e2e_stream_scheduled"], "requests/s, times from schedule"),
    ],
)
def test_the_verdict_names_what_others_rest_on(marked: list[str], named: str) -> None:
    assert limit_text(marked).startswith(f"the client may have limited {named} (try ")


def test_the_audits_of_processes_are_merged_to_the_worst() -> None:
    one, other = audit_of(lag=0.002, cpu=0.3), audit_of(lag=0.001, cpu=0.5)
    found = merged([one, other])
    assert (found.workers, found.cpu_share, found.cpu_seconds) == (2, 0.5, 8.0)
    assert found.lag is not None
    assert (found.lag.count, found.lag.p99) == (200, 0.002)
    assert merged([one]) is one
    assert merged([one, audit_of(lag=None)]).lag is None
    pauses = [
        Audit(gc=Pauses(count=1, total=0.1, longest=0.1, by_generation={"0": 1})),
        Audit(gc=Pauses(count=2, total=0.3, longest=0.2, by_generation={"0": 1, "2": 1})),
    ]
    assert merged(pauses).gc == Pauses(
        count=3, total=0.4, longest=0.2, by_generation={"0": 2, "2": 1}
    )
    assert merged(pauses).loop == Times()


def test_a_program_that_waits_for_its_cpu_is_busy() -> None:
    audit = msgspec.structs.replace(audit_of(cpu=0.2), cpu_waited=6.1)
    assert set(judged(audit, figures(), Closed()).unreliable) == RATES


def test_a_host_that_takes_cpus_away_stalls_everything() -> None:
    some = msgspec.structs.replace(audit_of(), stolen=0.09)
    assert not judged(some, figures(), Closed()).limited
    much = judged(msgspec.structs.replace(audit_of(), stolen=0.11), figures(), Closed())
    assert set(much.unreliable.values()) == {"stalls"}
    assert "e2e" in much.unreliable


def test_a_busy_machine_is_told() -> None:
    audit = msgspec.structs.replace(audit_of(), cpu_waited=1.0, stolen=0.02)
    verdict = judged(audit, figures(), Closed()).verdict
    assert "waited for a CPU 10% of the time · the host took CPU time away for 0.02 s" in verdict
    assert "waited" not in judged(audit_of(), figures(), Closed()).verdict
    found = merged([audit, audit_of()])
    assert (found.cpu_waited, found.stolen) == (1.0, 0.02)


def test_a_verdict_names_what_belongs_together_once() -> None:
    every = judged(audit_of(lag=0.2, cpu=0.9), figures(), Closed()).verdict
    limit = "the client may have limited "
    assert every.startswith(f"{limit}TTFT, ITL, TPOT, E2E, requests/s, chunks/s, tokens/s")
    late = judged(audit_of(), figures(late=0.02), Open(rate=10)).verdict
    assert late.startswith(f"{limit}times from schedule (try ")


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "Path", lambda path: Path("/nowhere"))
    assert watch_module.waited() is None
    assert watch_module.stolen() is None


# -- what is observed ----------------------------------------------------------------------


async def test_turns_of_the_loop_and_pauses_for_garbage(autojump_clock: Any) -> None:
    with Watch() as watch:
        await trio.sleep(5)
        watch.restart()
        await trio.sleep(3)
        gc.collect()
        await trio.sleep(0)
        found = watch.audit()
    assert found.seconds == pytest.approx(3)
    assert found.lag is None
    assert found.loop.count > 0
    assert (found.gc.count, found.gc.by_generation) == (1, {"2": 1})
    assert 0 < found.gc.longest == found.gc.total
    assert [*found.stalls] == [f"{limit:g}" for limit in STALLS]
    if LINUX:
        assert (found.cpu_waited or 0.0) >= 0
        assert found.stolen is not None
    assert watch._collected not in gc.callbacks


def pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection on this machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


@pytest.mark.skipif(not LINUX, reason="only Linux tells when it received something")
def test_a_read_tells_how_long_its_bytes_had_been_there() -> None:
    lags = Lags(now=lambda: time.time_ns() + 2_500_000_000)
    plain, peer = pair()
    sock = lags.wrap(plain)
    buffer = bytearray(100)
    with sock, peer:
        with pytest.raises(BlockingIOError):
            sock.recv_into(buffer)
        sock.setblocking(True)
        for _ in range(10_000):  # the kernel takes a moment to begin with its stamps
            peer.sendall(b"hello")
            assert (sock.recv_into(buffer), bytes(buffer[:5])) == (5, b"hello")
            if lags.every.count:
                break
        peer.close()
        assert sock.recv_into(buffer) == 0
    assert lags.known
    assert lags.every.count == 1
    assert lags.every.most > 2.4  # as the clock that says it is so much ahead


class Scripted(StampedSocket):
    """A stamped socket that reads these lags, and sends nowhere."""

    script: list[float]

    def recvmsg_into(self, *args: Any) -> Any:
        at = time.time_ns() - round(self.script.pop(0) * 1e9)
        stamp = struct.pack("@ll", *divmod(at, 1_000_000_000))
        return 1, [(socket.SOL_SOCKET, 35, stamp)], 0, None


def test_first_and_last_reads_are_told_apart() -> None:
    lags = Lags()
    one, other = pair()
    with one, other:
        sock = Scripted(fileno=one.detach())
        sock.lags, sock.script = lags, [10.0, 20.0, 30.0, 40.0]
        with sock:
            sock.send(b"request")
            for _ in range(3):
                sock.recv_into(bytearray(9))
            sock.send(b"another")
            sock.send(b"its body")
            sock.recv_into(bytearray(9))
    assert round(lags.first.total) == 10 + 40
    assert round(lags.last.total) == 30 + 40
    assert round(lags.every.total) == 100
    lags.clear()
    assert lags.every.count == lags.first.count == lags.last.count == 0


def test_a_lag_is_found_by_the_time_of_the_contents() -> None:
    clock, wall = iter([1.0, 1.0, 2.0, 2.0]), iter([1_000_000_000, 1_500_000_000])
    lags = Lags(now=lambda: next(wall), monotonic=lambda: next(clock))
    assert lags.of(0) == pytest.approx(1.0)
    assert lags.of(0) == pytest.approx(1.5)
    found = [lags.at(time) for time in (0.999, 1.0, 1.004, 1.2, 2.001)]
    assert found == pytest.approx([0.0, 1.0, 1.004, 0.0, 1.501])


def test_clocks_that_were_read_apart_are_read_again() -> None:
    clock, wall = iter([1.0, 1.3, 2.0, 2.0]), iter([9_000_000_000, 500_000_000])
    lags = Lags(now=lambda: next(wall), monotonic=lambda: next(clock))
    assert lags.of(0) == pytest.approx(0.5)


def test_old_reads_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trio_minillm._bench.audit.stamps.MAX_READS", 2)
    times = [float(n // 2) for n in range(20)]
    clock = iter(times)
    lags = Lags(now=lambda: 0, monotonic=lambda: next(clock))
    for _ in range(10):
        lags.of(-1_000_000_000)
    assert lags.at(9.0) == 1
    assert lags.at(5.0) == 0


def test_a_step_of_the_clock_is_no_lag() -> None:
    lags = Lags(now=lambda: 0)
    assert lags.of(-3_600_000_000_000) is None
    assert lags.of(1_000_000) == 0  # a correction of a millisecond


async def test_a_proxy_of_the_environment_is_not_bypassed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    async with open_stamped_transport(Lags()) as transport:
        assert transport is None


# -- a null run ----------------------------------------------------------------------------


def test_a_null_run_takes_the_server_out_of_the_figures() -> None:
    stamps = [0.21, 0.235, 0.255]
    mine = Record(
        number=0,
        scheduled=0.0,
        sent=0.0,
        ended=0.3,
        outcome="finished",
        stamps=stamps,
        request_id="7",
    )
    served = {"7": {"received": 0.004, "sent": [0.206, 0.228, 0.254], "max_late": 0.003}}
    others = [
        Record(number=1, scheduled=0.0, sent=0.0, ended=1.0, outcome="finished", request_id="8"),
        Record(number=2, scheduled=0.0, sent=0.0, ended=1.0, outcome="errored", request_id="7"),
    ]
    found = null_run_of([mine, *others], served, {"ttft": 0.2})
    assert (found.requests, found.matched, found.server_late) == (3, 1, 0.003)
    assert found.ttft.mean == pytest.approx(0.21 - 0.202)
    assert found.e2e.mean == pytest.approx(0.255 - 0.25)
    assert found.arrival.max == pytest.approx(0.007)
    assert found.itl.max == pytest.approx(0.006)
    assert null_run_of([], {}, {}).server_late is None


def test_the_timing_of_a_null_run_is_like_the_measured_one() -> None:
    found = timing_of(figures())
    assert found == {"ttft": 0.2, "itl": 0.02, "tokens": 11, "tokens_per_chunk": 1}
    nothing = timing_of(figures_of([]))
    assert nothing == {"ttft": 0.0, "itl": 0.0, "tokens": 128, "tokens_per_chunk": 1}


# -- all of it -----------------------------------------------------------------------------


async def test_the_engine_audits_what_it_measures() -> None:
    """Measure a server in this process, over sockets and in real time, after a warm-up."""
    from trio_minillm._serve import ServeOptions, open_timed_server

    lags = Lags()
    async with (
        open_timed_server(ServeOptions(ttft=0, itl=0, tokens=5)) as server,
        open_stamped_transport(lags) as transport,
        llm.open_client(transport=transport) as client,
    ):
        engine = Engine(client, server.model(), lags=lags)
        prompt = Prompt(messages="hi")
        plan = Plan(prompts=(prompt,), requests=10, warmup=10, load=Closed(concurrency=2))
        point = await engine.measure(plan)
    audit = point.audit
    assert (audit.lag is not None) is LINUX
    assert audit.loop.count > 0
    assert audit.cpu_seconds > 0
    assert "reads lagged by" in audit.verdict or "event loop turns took" in audit.verdict
    assert point.warmup is not None
    if LINUX:
        assert audit.lag is not None
        assert audit.lag_first is not None
        assert 0 < audit.lag_first.count <= 10 <= audit.lag.count  # without those of the warm-up
