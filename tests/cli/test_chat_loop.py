"""The two threads of a conversation: signals in one, Trio's loop in the other."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("typer", reason="needs the extra [cli]")
pytest.importorskip("rich", reason="needs the extra [cli]")

import trio_minillm as llm
from trio_minillm.cli import _chat_loop as loop
from trio_minillm.cli import _chat_signals as sent
from trio_minillm.cli._chat_answer import Ask
from trio_minillm.cli._chat_loop import Stage, StoppedError
from trio_minillm.cli._chat_signals import Signals
from trio_minillm.cli._costs import RunLedger
from trio_minillm.cli._output import Answer, Misuse

from ..support.command import LIMIT, posix

MODEL = llm.compatible("m", base_url="http://server.invalid/v1")


@pytest.fixture
def signals() -> Iterator[Signals]:
    with Signals(lambda: "typed") as made:
        yield made


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_signal_ends_the_reading(signals: Signals) -> None:
    with pytest.raises(KeyboardInterrupt), signals.raised():
        press()
    assert (signals.typed, signals.ending) == ("typed", None)
    press()  # and raises nothing elsewhere


@posix
def test_a_signal_that_interrupts_nothing_is_heard(signals: Signals) -> None:
    pytest.importorskip("readline")  # whose handler of SIGWINCH interrupts waits

    def elsewhere() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    sender, began = threading.Thread(target=elsewhere), time.monotonic()
    with pytest.raises(KeyboardInterrupt), signals.raised():
        sender.start()
        time.sleep(LIMIT)
    sender.join()
    assert time.monotonic() - began < LIMIT / 3


def test_a_signal_before_the_work_ends_it(signals: Signals) -> None:
    stopped: list[bool] = []
    with signals.raised():
        pass
    press()
    with signals.stopping(lambda: stopped.append(True)):
        assert stopped == [True]
    with signals.stopping(lambda: stopped.append(True)):
        assert stopped == [True]
        press()
    assert stopped == [True, True]


def test_a_signal_after_the_work_is_not_for_the_next(signals: Signals) -> None:
    stopped: list[bool] = []
    with signals.stopping(lambda: None):
        pass
    press()
    with signals.raised():
        pass
    with signals.stopping(lambda: stopped.append(True)):
        pass
    assert stopped == []


def test_the_third_signal_waits_for_nothing(
    signals: Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []
    monkeypatch.setattr(sent.os, "_exit", codes.append)
    with signals.stopping(lambda: None):
        press()
        press()
        assert codes == []
        signal.raise_signal(signal.SIGTERM)
    assert (codes, signals.ending) == ([143], signal.SIGTERM)


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals(str):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(-1) == -1


def ask() -> Ask:
    return Ask(
        params={},
        extra={},
        timeouts=llm.Timeouts(),
        retry=llm.Retry(attempts=1),
        lenient=False,
        mode="text",
        quiet=True,
        ledger=RunLedger(None),
    )


def test_work_that_was_ended_before_it_began(signals: Signals) -> None:
    stage = Stage(llm.Ledger(), signals)
    press()
    with pytest.raises(StoppedError):
        stage.open(MODEL)
    stage.open(MODEL)
    press()
    answer = Answer()
    stage.answer(ask(), [llm.user("x")], answer)
    assert (answer.interrupted, answer.stream) == (signal.SIGINT, None)
    stage.close()
    assert stage.read(lambda ledger: ledger.totals.attempts) == 0


def test_without_a_model_there_is_no_answer(signals: Signals) -> None:
    stage = Stage(llm.Ledger(), signals)
    with pytest.raises(Misuse, match="no model is open"):
        stage.answer(ask(), [llm.user("x")], Answer())
    stage.close()


def test_a_bug_in_the_loop_hangs_nothing(signals: Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(loop, "stream_answer", broken)
    stage = Stage(llm.Ledger(), signals)
    stage.open(MODEL)
    with pytest.raises(ExceptionGroup) as caught:
        stage.answer(ask(), [llm.user("x")], Answer())
    assert caught.group_contains(ZeroDivisionError)
    with pytest.raises(ExceptionGroup):
        stage.close()
