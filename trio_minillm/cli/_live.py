"""A command that sends much: shown while it runs, stopped by Ctrl-C, and brought to its end.

The first Ctrl-C sends no more and lets what runs come to its end, the second cancels that, the
third waits for nothing. What came of it is printed in each case.
"""

from __future__ import annotations

import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NoReturn

import trio
import typer

import trio_minillm as llm

from .._protocol.redaction import redact_beginnings
from ._bench_load import RunLedger
from ._measurements import Results
from ._options import KEYS
from ._output import (
    Answer,
    Misuse,
    OutputError,
    Row,
    error_fields,
    error_line,
    exit_code,
    safe_json,
)
from ._terminal import StatusLine, print_error, print_rows, print_table, say, write_all

REDRAW, SAY_EVERY = 0.25, 5.0
"""Seconds between two states of the status line on a terminal, and elsewhere."""
TERMINAL_SECONDS = 0.5
"""How long a terminal that hangs is waited for at the end."""


class LiveRun(ABC):
    """One run of such a command, as its user sees it."""

    noun: str
    """What runs, for a sentence."""
    books: RunLedger
    error: Exception | None = None
    """Why there is no run, or it could not go on."""
    interrupted: bool = False

    def __init__(self, *, quiet: bool) -> None:
        self.quiet = quiet
        self.every = SAY_EVERY

    @abstractmethod
    async def work(self) -> None:
        """All of it. What it raises for a reason is kept as its ``error``."""

    @abstractmethod
    def stop(self) -> int:
        """Send no more. How many still run."""

    @abstractmethod
    def cancel(self) -> None:
        """Cancel what runs."""

    @abstractmethod
    def state(self) -> tuple[str, bool, float | None] | None:
        """A status line, whether it tells of something bad, and which share is done, if anything is
        to be said. Asked for every so many seconds (``every``).
        """

    @abstractmethod
    def exit_code(self) -> int:
        """Which of `EXIT_CODES` the command ends with."""

    @abstractmethod
    def told(self) -> tuple[Results, list[Row]] | None:
        """What the table and the lines below it are made of, if there is anything to tell."""

    @abstractmethod
    def fields(self, name: str) -> dict[str, Any]:
        """The same as JSON."""

    @property
    def fatal(self) -> Exception | None:
        """The error to show at the end."""
        return self.error

    def leaving(self) -> None:
        """The client's block is being left."""
        if self.interrupted and self.books.unsettled and not self.quiet:
            say("\nasking what it cost; Ctrl-C again does not wait for the answer\n")

    async def main(self, finish: Callable[[], int]) -> None:
        """Carry it out; ``finish`` is called where that can't end by itself."""
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
            done.set()
            with trio.move_on_after(TERMINAL_SECONDS):
                await shown.wait()
            nursery.cancel_scope.cancel()

    async def _watch(
        self, finish: Callable[[], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            await anext(signals)
            self.interrupted = True
            running = self.stop()
            if running and not self.quiet:
                many = f"one {self.noun} is" if running == 1 else f"{running:,} {self.noun}s are"
                say(f"\n{many} still running; Ctrl-C again cancels them\n")
            await anext(signals)
            self.cancel()
            await anext(signals)  # providers are being asked, or something hangs
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
            os._exit(finish())

    async def _show(self, done: trio.Event, shown: trio.Event) -> None:
        """Say every now and then how it goes."""
        line = StatusLine()
        self.every = REDRAW if line.changes else SAY_EVERY
        while not done.is_set():
            with trio.move_on_after(self.every):
                await done.wait()
                break
            if (state := self.state()) is not None:
                text, bad, share = state
                await line.show(text, bad=bad, share=share)
        line.clear()
        shown.set()


def run_live(make: Callable[[], LiveRun], *, json: bool, name: str, secret: str) -> NoReturn:
    """Make a run of the command's options, carry it out, print what came of it, and exit."""
    run: LiveRun | None = None
    error: Exception | None = None

    def finish() -> int:
        return _print(run, error, json=json, name=name, secret=secret)

    try:
        run = make()
        try:
            trio.run(run.main, finish)
        except* KeyboardInterrupt:  # just before the watch began, or as it ended
            run.interrupted = True
    except (Misuse, ValueError) as exc:  # ValueErrors are the core's word on an option
        error = Misuse(str(exc))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    try:
        code = finish()
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)


def _print(
    run: LiveRun | None, error: Exception | None, *, json: bool, name: str, secret: str
) -> int:
    """Print what came of it, and return the exit code."""
    code = exit_code(Answer(error=error)) if run is None or error else run.exit_code()
    error = error or (None if run is None else run.error)
    try:
        if json:
            fields = {} if run is None else run.fields(name)
            what = None if error is None else error_fields(error, secret)
            write_all(sys.stdout, safe_json({**fields, "error": what, "exit_code": code}))
        elif run is not None and (told := run.told()) is not None:
            results, rows = told
            if table := results.table():
                print_table(("", "count", "mean", "p50", "p90", "p99", "max"), table)
            shown = [
                (redact_beginnings(label, secret), redact_beginnings(line, secret))
                for label, line in rows
            ]
            print_rows(shown, stderr=False)
    except OutputError as exc:
        error, code = exc, exit_code(Answer(error=exc))
    if error is None and run is not None:
        error = run.fatal
    if error is not None and code != 141:
        kind = name.partition(":")[0]
        print_error(error_line(error, KEYS.get(kind), secret))
    return code
