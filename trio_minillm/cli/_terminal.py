"""Output of the command to stdout and stderr, bypassing Python's buffers.

stdout carries what was asked for, stderr everything else.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TextIO

import trio
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .._bench.output.text import aligned, markdown
from ._output import OutputError, Row, error_code, error_line

TABS, ALIGNED, MARKDOWN = "tabs", "aligned", "markdown"
"""Forms of a table that is not on a terminal."""


_half_a_line = False
"""True while the last line on stdout is unfinished."""


def write_all(stream: TextIO | None, data: bytes) -> None:
    """Write all the data, bypassing Python's buffers.

    Those would have to be flushed, and a thread that is stuck in one can't be abandoned. Raises
    `OutputError`.
    """
    if stream is None:  # closed by the shell (>&-)
        raise OutputError(BrokenPipeError(errno.EPIPE, "stdout is closed"))
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
    rest = memoryview(data)
    if data and stream is sys.stdout:
        global _half_a_line
        _half_a_line = not data.endswith(b"\n")
    try:
        while rest:
            written = raw.write(rest)
            if written is None:  # a full pipe that another program made non-blocking
                time.sleep(0.01)
            rest = rest[written or 0 :]
    except OSError as exc:
        raise OutputError(exc) from exc


def encoded(text: str, stream: TextIO | None) -> bytes:
    return text.encode(stream.encoding if stream else "utf-8", "replace")


async def put(data: bytes) -> None:
    """Write to stdout from a thread, so that a slow reader blocks neither Ctrl-C nor the clocks."""
    if data:
        await trio.to_thread.run_sync(write_all, sys.stdout, data, abandon_on_cancel=True)


def say(text: str) -> None:
    """Write to stderr. A failure is ignored, because there is no place left to report it."""
    with suppress(OutputError):
        write_all(sys.stderr, encoded(text, sys.stderr))


def say_between(text: str) -> None:
    """Write whole lines to stderr, below a line that stdout has begun where both go to one place."""
    say("\n" + text if _half_a_line and _one_place() else text)


def _one_place() -> bool:
    """Return whether stdout and stderr are the same terminal, pipe, or file."""
    try:
        return os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):  # closed by the shell, or replaced
        return False


_COLORS = {"finished": "green", "cancelled": "yellow"}
_COLORS |= dict.fromkeys(("truncated", "errored", "failed"), "red")


def print_rows(rows: Iterable[Row], *, stderr: bool = True) -> None:
    """Print the closing lines: a small table on a terminal, ``label: value`` elsewhere.

    Raises `OutputError` on stdout; failures on stderr are ignored. Without rows, nothing is printed.
    """
    if not (rows := list(rows)):
        return
    console = Console(stderr=stderr, highlight=False)
    text = _rows_text(console, rows)
    if stderr:
        say(text)
    else:
        write_all(sys.stdout, encoded(text, sys.stdout))


def _rows_text(console: Console, rows: Iterable[Row]) -> str:
    if not console.is_terminal:
        return "".join(f"{label}: {value}\n" for label, value in rows)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label, _COLORS.get(label, "dim")), Text(value))
    with console.capture() as captured:
        console.print(table)
    return "\n" + captured.get()


class StatusLine:
    """The progress on stderr: on a terminal one line that changes, with more below it if there are any;
    line after line elsewhere.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self.changes: bool = _changes(self._console)
        """True if the line is replaced, and no other one is added."""
        self._below = False

    async def show(
        self, line: str, *, bad: bool, share: float | None = None, below: tuple[str, ...] = ()
    ) -> None:
        """Write the line from a thread, so that a terminal that hangs holds nothing up.

        On a terminal, a bar before the line is filled for ``share``, a number from 0 to 1, and the lines
        ``below`` it follow. The cursor is left on the first line.
        """
        if self.changes:
            text = Text(line, "red" if bad else "dim")
            if share is not None:
                text = Text.assemble(_bar(share), f" {share:4.0%} ", text)
            line = f"\r{self._cut(text)}\x1b[K"
            if below and _shows_blocks():
                shown = below[: max(0, self._console.height - 2)]
                line += "".join(f"\n{self._cut(Text(more, 'dim'))}\x1b[K" for more in shown)
                line += "\x1b[J" + (f"\x1b[{len(shown)}A\r" if shown else "")
                self._below = True
        else:
            line += "\n"
        await trio.to_thread.run_sync(say, line, abandon_on_cancel=True)

    def clear(self) -> None:
        """Remove the lines from a terminal."""
        if self.changes:
            say("\r\x1b[J" if self._below else "\r\x1b[K")

    def _cut(self, text: Text) -> str:
        """Return a text as the terminal takes it, on one line: one up to the edge may wrap."""
        text.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()


def _changes(console: Console) -> bool:
    """Return whether stderr is a terminal on which lines can be replaced."""
    there = sys.stderr is not None and sys.stderr.isatty()
    return there and not console.is_dumb_terminal


def _shows_blocks() -> bool:
    """Return whether stderr has the characters of sparklines."""
    return (sys.stderr.encoding or "").lower().replace("-", "").startswith("utf")


def interject(text: str) -> None:
    """Write to stderr between two states of the status line, in place of what it shows on a terminal."""
    console = Console(stderr=True)
    say(f"\x1b[J{text}" if _changes(console) else text)


BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Iterable[float | None]) -> str:
    """Return a bar for each value, from 0 to the largest; a space where there is none."""
    shown = list(values)
    most = max((value for value in shown if value is not None), default=0.0) or 1.0
    return "".join(
        " " if value is None else BLOCKS[min(7, int(value / most * 8))] for value in shown
    )


BAR = 20
"""Width of a bar, in characters."""


def _bar(share: float) -> Text:
    full = min(BAR, int(share * BAR))
    return Text.assemble(("━" * full, "green"), ("━" * (BAR - full), "bright_black"))


def print_error(line: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(Text(line, "red" if console.is_terminal else ""))
    say(captured.get())


def print_failure(
    error: Exception, variable: str | None = None, secret: str = "", *, paid: bool = True
) -> int:
    """Print one line for an error, unless it is that stdout was closed by its reader, and return its exit
    code. The arguments are those of `error_line`.
    """
    code = error_code(error)
    if code != 141:
        print_error(error_line(error, variable, secret, paid=paid))
    return code


def print_summary(
    table: list[tuple[str, ...]], rows: list[Row], *, form: str = TABS, stderr: bool = False
) -> None:
    """Print a table, of which the first row is the head, and the lines below it.

    ``form`` is that of a table on anything but a terminal: `TABS` between fields, or `ALIGNED`; with
    `MARKDOWN` all of it is that, on a terminal too. Raises `OutputError` on stdout.
    """
    stream = sys.stderr if stderr else sys.stdout
    if form == MARKDOWN:
        write_all(stream, encoded(markdown(table, rows), stream))
        return
    if len(table) > 1:
        if form == ALIGNED and not Console(stderr=stderr).is_terminal:
            write_all(stream, encoded(aligned(table) + "\n", stream))
        else:
            print_table(table[0], table[1:], stderr=stderr)
    print_rows(rows, stderr=stderr)


def print_table(
    head: tuple[str, ...],
    rows: list[tuple[str, ...]],
    *,
    form: str = TABS,
    stderr: bool = False,
) -> None:
    """Print a table on a terminal; elsewhere one row per line with its fields separated by tabs, or
    `ALIGNED`.

    Raises `OutputError`.
    """
    console, stream = Console(stderr=stderr, highlight=False), sys.stderr if stderr else sys.stdout
    if not console.is_terminal:
        text = aligned([head, *rows])
        if form == TABS:
            text = "".join("\t".join(row) + "\n" for row in (head, *rows))
        write_all(stream, encoded(text, stream))
        return
    table = Table(*head, box=None, header_style="dim")
    for number, column in enumerate(table.columns):
        column.justify = "right" if number else "left"
        column.overflow = "fold"  # half a number, or half a model's name, is of no use
    for row in rows:
        table.add_row(*map(Text, row))
    with console.capture() as captured:
        console.print(table)
    write_all(stream, encoded(captured.get(), stream))
