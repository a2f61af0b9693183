"""The record of one request, made of what its stream has told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import trio

import trio_minillm as llm
from trio_minillm._bench.plan import Plan
from trio_minillm._bench.prompts.prompt import Prompt
from trio_minillm._bench.record import Record, clock_offset
from trio_minillm._bench.sender import Sender, failure_of
from trio_minillm.testing import ScriptedTransport, openai_events, reply


async def test_a_request_was_out_before_its_answer_came(autojump_clock: Any) -> None:
    """A busy program reads the clock late after it has sent: not so late that a time is below 0."""
    timings = llm.Timings(sent=0.010, headers=0.011, first_chunk=0.012, total=0.02, attempts=1)
    response = llm.CompletionResponse(outcome=llm.Outcome.FINISHED, timings=timings)
    stream: Any = SimpleNamespace(response=response)
    client: Any = None
    sender = Sender(client, None, Plan(prompts=()))
    # The kernel had the first content 3 ms before it was read, 12 ms after the call.
    record = Record(number=0, scheduled=5.0, sent=5.0, called=5.0, ended=5.0, stamps=[5.009])
    record.lag = 0.003
    sender._complete(record, stream, None)
    assert record.sent == record.stamps[0]
    record = Record(number=0, scheduled=5.0, sent=5.0, called=5.0, ended=5.0, stamps=[5.012])
    sender._complete(record, stream, None)
    assert abs(record.sent - 5.010) < 1e-9


def test_the_words_of_a_server_have_a_bound() -> None:
    error = Exception("m" * 5000)
    error.code = "c" * 5000  # type: ignore[attr-defined]
    failure = failure_of(error, "")
    assert failure.code == "c" * 200
    assert failure.message == "m" * 1000


async def test_the_end_of_a_stream_is_when_it_had_come(autojump_clock: Any) -> None:
    timings = llm.Timings(sent=0.0, headers=0.01, first_chunk=0.012, total=0.05, attempts=1)
    response = llm.CompletionResponse(outcome=llm.Outcome.FINISHED, timings=timings)
    stream: Any = SimpleNamespace(response=response)
    client: Any = None
    sender = Sender(client, None, Plan(prompts=()))
    for lag, ended in ((0.0, 5.050), (0.008, 5.042), (0.03, 5.040)):  # not before the last content
        sender.lag_at = lambda at, lag=lag: lag
        record = Record(number=0, scheduled=5.0, sent=5.0, ended=5.0, stamps=[5.012, 5.040])
        sender._complete(record, stream, None)
        assert abs(record.ended - ended) < 1e-9


@pytest.mark.parametrize("paused", [0, 1, 2])
async def test_another_process_between_the_clocks_does_not_move_the_offset(
    paused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A content's time that lay before its read would count as one of the read before."""
    now, readings = 100.0, 0

    def clock(offset: float) -> float:
        nonlocal now, readings
        if readings == paused:
            now += 0.02
        now, readings = now + 1e-7, readings + 1
        return now + offset

    monkeypatch.setattr("trio_minillm._bench.record.time.perf_counter", lambda: clock(0.0))
    monkeypatch.setattr(trio, "current_time", lambda: clock(-30.0))
    assert 0 <= clock_offset() - 30.0 < 1e-6


async def test_no_content_is_older_than_the_call_or_the_one_before(autojump_clock: Any) -> None:
    lags = iter([60.0, 0.0, 60.0])
    events = openai_events("a", "b", "c")
    transport = ScriptedTransport(reply(*(step for event in events for step in (0.1, event))))
    async with llm.open_client(transport=transport) as client:
        model = llm.compatible("m", base_url="http://test.invalid/v1")
        sender = Sender(client, model, Plan(prompts=()))
        sender.lag_at = lambda at: next(lags, 0.0)
        record = Record(number=0, scheduled=0.0, sent=0.0, ended=0.0)
        await sender.send(Prompt(messages="x"), record)
    assert record.outcome == "finished"
    assert record.stamps[0] == record.called
    assert record.stamps[2] == record.stamps[1] > record.called
    assert record.ended >= record.stamps[2]
