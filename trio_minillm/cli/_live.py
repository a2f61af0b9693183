"""A command that sends many requests: its status line, its response to signals, and its end.

The first Ctrl-C (or SIGTERM) sends no more requests and lets the running ones end, the second cancels
them, and the third waits for nothing. The results are printed in each case.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn

import trio
import typer

import trio_minillm as llm

from .._protocol.redaction import redact_beginnings
from ..local._named import key_of, kind_of, variable_of
from ._costs import RunLedger
from ._measurements import Results
from ._output import (
    ENDING_SIGNALS,
    Misuse,
    OutputError,
    Row,
    error_code,
    error_fields,
    error_line,
    safe_json,
)
from ._terminal import TABS, StatusLine, interject, print_error, print_summary, write_all

REDRAW, SAY_EVERY = 0.25, 5.0
"""Seconds between two states of the status line: on a terminal, and elsewhere."""
TERMINAL_SECONDS = 0.5
"""Seconds that a terminal which hangs is waited for at the end."""


Table = list[tuple[str, ...]]
"""A table's rows, of which the first is its head."""
TIMES_HEAD = ("", "count", "mean", "p50", "p90", "p99", "max")
"""Head of a table of `Results`."""


class Progress(NamedTuple):
    """A state of the status line."""

    text: str
    failing: bool
    """True if some of the requests have failed."""
    share: float | None = None
    """Part of the work that is done, from 0 to 1, if it is known how much there is."""
    below: tuple[str, ...] = ()
    """Further lines, for a terminal alone."""


class LiveRun(ABC):
    """One run of such a command, as its user sees it."""

    noun: str
    """The name of one of the things that run, in messages."""
    ledger: RunLedger
    error: Exception | None = None
    """The reason that there is no run, or that it could not go on."""
    interrupted: signal.Signals | None = None
    """The first signal that asked for the end, once one did: SIGINT, which is Ctrl-C, or SIGTERM."""
    form: str = TABS
    """Form of its table where stdout is no terminal."""
    secret: str = ""
    """The keys of its models, a line each, if there are more than that of ``--model``."""

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.every = SAY_EVERY
        """Seconds between two calls of `progress`."""

    @abstractmethod
    async def work(self) -> None:
        """Do all the work. `MiniLLMError`, `Misuse` and `OutputError` may be raised."""

    @abstractmethod
    def stop(self) -> int:
        """Send no more requests, and return how many are running."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel the running requests."""

    @abstractmethod
    def progress(self) -> Progress | None:
        """Return what the status line should show, or None if there is nothing to show yet."""

    @abstractmethod
    def exit_code(self) -> int:
        """Return the one of `EXIT_CODES` that the command ends with."""

    @abstractmethod
    def summary(self) -> tuple[Table, list[Row]] | None:
        """Return the table of what was measured, and the lines below it, if anything was done."""

    @abstractmethod
    def fields(self, name: str) -> dict[str, Any]:
        """Return the summary for JSON. ``name`` is the model's, as given on the command line."""

    def write_files(self, name: str) -> OutputError | None:
        """Write the files of results that are wanted beside what is printed, and return the first
        failure. ``name`` is as for `fields`.
        """
        return None

    @property
    def fatal(self) -> Exception | None:
        """The error to show at the end."""
        return self.error

    def leaving(self) -> None:
        """Say that costs are being asked for. To be called when only that is left to wait for."""
        if self.interrupted and self.ledger.unsettled and not self.quiet:
            interject("\nasking what it cost; Ctrl-C again does not wait for the answer\n")

    async def main(self, finish: Callable[[], int]) -> None:
        """Run `work`, show its progress, and handle signals.

        The third signal calls ``finish``, and ends the process with the exit code it returns.
        """
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch, finish)
            done, shown = trio.Event(), trio.Event()
            if self.quiet:
                shown.set()
            else:
                nursery.start_soon(self._show, done, shown)
            try:
                await self.work()
            except (llm.MiniLLMError, Misuse, OutputError) as exc:
                self.error = exc
            unwritten = self.ledger.unwritten()
            self.error = self.error or unwritten
            done.set()
            with trio.move_on_after(TERMINAL_SECONDS):
                await shown.wait()
            nursery.cancel_scope.cancel()

    async def _watch(
        self, finish: Callable[[], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            task_status.started()
            self.interrupted = signal.Signals(await anext(signals))
            running = self.stop()
            if running and not self.quiet:
                many = f"one {self.noun} is" if running == 1 else f"{running:,} {self.noun}s are"
                again = "Ctrl-C again" if self.interrupted is signal.SIGINT else "a second signal"
                interject(f"\n{many} still running; {again} cancels them\n")
            await anext(signals)
            self.cancel()
            await anext(signals)  # providers are being asked for costs, or something hangs
            for number in ENDING_SIGNALS:
                signal.signal(number, lambda number, _: os._exit(128 + number))
            os._exit(finish())

    async def _show(self, done: trio.Event, shown: trio.Event) -> None:
        line = StatusLine()
        self.every = REDRAW if line.changes else SAY_EVERY
        while not done.is_set():
            with trio.move_on_after(self.every):
                await done.wait()
                break
            if (progress := self.progress()) is not None:
                await line.show(
                    progress.text,
                    bad=progress.failing,
                    share=progress.share,
                    below=progress.below,
                )
        line.clear()
        shown.set()


def run_live(
    make: Callable[[], LiveRun],
    *,
    json: bool,
    name: str,
    base_url: str | None,
    stderr: bool = False,
) -> NoReturn:
    """Make a run, carry it out, print its results, and exit.

    ``make`` may raise `Misuse` or ``ValueError`` for an option. ``name`` is the model's as given, at
    the ``base_url`` that was given; its key is not printed. ``stderr`` says that stdout is taken.
    """
    run: LiveRun | None = None
    error: Exception | None = None

    def finish() -> int:
        return _print(run, error, json=json, name=name, base_url=base_url, stderr=stderr)

    try:
        run = make()
        try:
            with warnings.catch_warnings():  # the commands say that themselves, and stop
                warnings.filterwarnings("ignore", "max_cost can't count")
                trio.run(run.main, finish)
        except* KeyboardInterrupt:  # just before the signal was watched, or just after
            run.interrupted = signal.SIGINT
    except (Misuse, ValueError) as exc:  # the library raises ValueError for an option's value
        error = Misuse(str(exc))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    try:
        code = finish()
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)


def _print(
    run: LiveRun | None,
    error: Exception | None,
    *,
    json: bool,
    name: str,
    base_url: str | None,
    stderr: bool,
) -> int:
    """Print the results, and return the exit code."""
    kind = kind_of(name)
    variable, secret = variable_of(kind, base_url), key_of(kind, base_url)
    if run is not None:
        secret = run.secret or secret
        unwritten = run.write_files(name)  # also of a run that could not go on
        run.error = run.error or unwritten
    code = error_code(error) if run is None or error else run.exit_code()
    error = error or (None if run is None else run.error)
    try:
        if code == 141:  # nobody reads what it was about
            pass
        elif json:
            fields = {} if run is None else run.fields(name)
            what = None if error is None else error_fields(error, secret)
            line = safe_json({**fields, "error": what, "exit_code": code})
            write_all(sys.stderr if stderr else sys.stdout, line)
        elif stderr and run is not None and run.quiet:  # it wants errors only there
            pass
        elif run is not None and (summary := run.summary()) is not None:
            table, rows = summary
            shown = [
                (redact_beginnings(label, secret), redact_beginnings(line, secret))
                for label, line in rows
            ]
            print_summary(table, shown, form=run.form, stderr=stderr)
    except OutputError as exc:
        if stderr:  # there is no place left to report it
            return code
        error, code = exc, error_code(exc)
    if error is None and run is not None:
        error = run.fatal
    if error is not None and (code != 141 or stderr):
        print_error(error_line(error, variable, secret))
    return code


@contextmanager
def timed(results: Results) -> Iterator[None]:
    """Measure the wall-clock time and the CPU time of the block for these results."""
    cpu, began = time.process_time(), trio.current_time()
    results.first_sent = began
    try:
        yield
    finally:
        results.cpu = time.process_time() - cpu
        results.seconds = trio.current_time() - began
