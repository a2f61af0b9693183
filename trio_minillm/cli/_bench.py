"""``trio-minillm bench``: how fast any endpoint answers, by what its streams really did.

Guarantees:

- Only whole answers count as success. What failed is counted, and by what it failed of.
- Times are taken where bytes leave the socket, and latency is that of content: openings that
  say nothing and trailing usage are no content. Waiting for a free place is in no time.
- A chunk is not a token: both are counted, tokens only where the server says how many.
- The results come however it ends, and in bounded memory however long it takes.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from typer import Option

import trio_minillm as llm

from ._costs import open_ledger
from ._load import CONCURRENCY, Load, Plan
from ._measure import cost_fields, cost_text, seconds_text
from ._options import (
    KEYS,
    Attempts,
    BaseURL,
    LedgerFile,
    MaxTokens,
    ModelName,
    TimeoutFirst,
    TimeoutIdle,
    TimeoutTotal,
    key_of,
    model_of,
    timeouts_of,
)
from ._report import (
    Answer,
    Misuse,
    OutputError,
    Row,
    error_fields,
    error_line,
    exit_code,
    hidden,
    one_line,
    safe_json,
    usd,
)
from ._terminal import StatusLine, print_error, print_rows, print_table, say, write_all

REQUESTS, MAX_TOKENS = 100, 128
"""What is sent if nothing else is said: small enough to cost cents."""
PROMPT = "Tell me a long story about the sea."
REDRAW, SAY_EVERY = 0.25, 5.0
"""Seconds between two states of the status line on a terminal, and elsewhere."""
SPEED_OVER = 5.0
"""Seconds over which the status line takes its chunks/s."""


class Bench:
    """One benchmark as its user sees it: how it goes, how it is stopped, what came of it."""

    def __init__(self, plan: Plan, secret: str, *, quiet: bool) -> None:
        self.load = Load(plan, secret)
        self.began = datetime.now(UTC)
        self.interrupted = False
        self.quiet = quiet
        self._streams = trio.CancelScope()

    async def main(self, finish: Callable[[], int]) -> None:
        """Carry out the plan; ``finish`` is called where that can't end by itself."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self._watch, finish)
            done, shown = trio.Event(), trio.Event()
            if not self.quiet:
                nursery.start_soon(self._show, done, shown)
            else:
                shown.set()
            with self._streams:
                try:
                    await self.load.run(self._leaving)
                except (llm.MiniLLMError, Misuse) as exc:
                    self.load.error = exc
            done.set()
            with trio.move_on_after(0.5):  # a terminal that hangs
                await shown.wait()
            nursery.cancel_scope.cancel()

    async def _watch(
        self, finish: Callable[[], int], *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Ctrl-C: the first stops sending, the second the streams, the third everything."""
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            await anext(signals)
            self.interrupted = True
            running = self.load.running
            self.load.stop("interrupted")
            if not running:
                self._streams.cancel()
            elif not self.quiet:
                many = "one stream is" if running == 1 else f"{running:,} streams are"
                say(f"\n{many} still running; Ctrl-C again cancels them\n")
            await anext(signals)
            self._streams.cancel()
            await anext(signals)  # providers are being asked, or something hangs
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
            os._exit(finish())

    def _leaving(self) -> None:
        if self.interrupted and self.load.books.unsettled and not self.quiet:
            say("\nasking what it cost; Ctrl-C again does not wait for the answer\n")

    async def _show(self, done: trio.Event, shown: trio.Event) -> None:
        """Say every now and then how it goes."""
        line = StatusLine()
        every = REDRAW if line.changes else SAY_EVERY
        states = deque[tuple[float, int]](maxlen=1 + max(1, int(SPEED_OVER / every)))
        phase = None
        while not done.is_set():
            with trio.move_on_after(every):
                await done.wait()
                break
            if phase is not self.load.now:  # it counts anew
                phase = self.load.now
                states.clear()
                states.append((phase.first_sent or trio.current_time(), 0))
            states.append((trio.current_time(), self.load.chunks))
            await line.show(self.status(*states[0]), bad=bool(self.load.now.failed))
        line.clear()
        shown.set()

    def status(self, since: float, chunks: int) -> str:
        """``12 done, 0 failed, 8 running · 812 chunks/s · …``, chunks since then.

        Most servers say how many tokens there were with an answer's end only: tokens/s are those
        so far.
        """
        results, now = self.load.now, trio.current_time()
        gone = max(now - since, 1e-9)
        done = (
            f"{results.finished:,} done, {results.failed:,} failed, {self.load.running:,} running"
        )
        parts = [done] if results is self.load.measured else ["warming up", done]
        parts.append(f"{_short((self.load.chunks - chunks) / gone)} chunks/s")
        if self.load.tokens and results.first_sent is not None:
            so_far = self.load.tokens / max(now - results.first_sent, 1e-9)
            parts.append(f"{_short(so_far)} tokens/s")
        if self.load.books.total:
            parts.append(f"${usd(self.load.books.total)}")
        if results.ttft.count:
            p50, p99 = map(seconds_text, results.ttft.percentiles(50, 99))
            parts.append(f"TTFT p50 {p50} p99 {p99}")
        if self.load.stopped:
            parts.append("stopping")
        return " · ".join(parts)

    # -- the end -----------------------------------------------------------------------------

    def exit_code(self) -> int:
        """Which of `EXIT_CODES` the command ends with."""
        results = self.load.measured
        if self.interrupted:
            return 130
        if self.load.error is not None:
            return exit_code(Answer(error=self.load.error))
        if results.finished and results.finished == results.sent:
            return 0
        if results.finished:
            return 6
        return exit_code(Answer(error=self.fatal)) if self.fatal is not None else 6

    @property
    def any_sent(self) -> bool:
        """Whether there is anything to tell of."""
        return bool(self.load.measured.sent or self.load.warmup.sent)

    @property
    def fatal(self) -> llm.MiniLLMError | None:
        """The commonest failure, where no answer was whole."""
        if self.load.measured.finished:
            return None
        return self.load.measured.commonest_error or self.load.warmup.commonest_error

    def notes(self) -> list[str]:
        """What to know of the results."""
        stopped = (
            [f"stopped: {self.load.stopped}"]
            if self.load.stopped and self.load.error is None
            else []
        )
        return stopped + self.load.measured.notes()

    def rows(self) -> list[Row]:
        """The lines below the table."""
        rows = self.load.measured.rows()
        costs = self.load.books.by_meta("bench")
        rows.append(("cost", cost_text(costs.get("measured"))))
        if self.load.warmup.sent:
            warm = f"{self.load.warmup.finished:,} of {self.load.warmup.sent:,} finished"
            spent = costs.get("warmup")
            warm += f" · ${usd(spent.total)}" if spent is not None and spent.total else ""
            rows += [("warm-up", warm), *self.load.warmup.error_rows()]
        return rows + [("note", one_line(note)) for note in self.notes()]

    def fields(self, name: str) -> dict[str, Any]:
        """For ``--json``."""
        costs, warm = self.load.books.by_meta("bench"), self.load.warmup
        found = self.load.measured.fields()
        found["counts"]["warmup"] = {"sent": warm.sent, "finished": warm.finished}
        return {
            "version": llm.__version__,
            "at": self.began,
            "config": self.load.plan.fields(name),
            **found,
            "cost": cost_fields(costs.get("measured"), costs.get("warmup")),
            "errors": [*warm.errors.values(), *self.load.measured.errors.values()],
            "notes": self.notes(),
        }


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


# -- the command -----------------------------------------------------------------------------


def prompts_of(prompt: str | None, path: Path | None) -> list[str]:
    """The prompts, to be sent in turn."""
    if prompt is not None and path is not None:
        raise Misuse("--prompt can't go with --prompts")
    if path is None:
        prompts = [PROMPT if prompt is None else prompt]
    else:
        try:
            prompts = path.read_text("utf-8").split("\n")
        except OSError as exc:
            raise Misuse(f"the prompts {path}: {exc.strerror or exc}") from exc
        except UnicodeError:
            raise Misuse(f"the prompts {path}: not UTF-8") from None
    prompts = [line for line in map(str.strip, prompts) if line]
    if not prompts:
        raise Misuse("there is no prompt")
    return prompts


def _check_positive(**given: float | None) -> None:
    for name, value in given.items():
        if value is not None and not 0 < value < math.inf:
            raise Misuse(f"--{name.replace('_', '-')} must be more than 0")


def _print(
    run: Bench | None, error: Exception | None, *, json: bool, name: str, secret: str
) -> int:
    """Print the results, and return the exit code."""
    code = run.exit_code() if run is not None else exit_code(Answer(error=error))
    try:
        if json:
            fields = {} if run is None else run.fields(name)
            told = None if error is None else error_fields(error, secret)
            write_all(sys.stdout, safe_json({**fields, "error": told, "exit_code": code}))
        elif run is not None and (error is None or run.any_sent):
            if table := run.load.measured.table():
                print_table(("", "count", "mean", "p50", "p90", "p99", "max"), table)
            rows = [(hidden(label, secret), hidden(line, secret)) for label, line in run.rows()]
            print_rows(rows, stderr=False)
    except OutputError as exc:
        error, code = exc, exit_code(Answer(error=exc))
    if error is None and run is not None and not run.interrupted:
        error = run.fatal
    if error is not None and code != 141:
        kind = name.partition(":")[0]
        print_error(error_line(error, KEYS.get(kind), secret))
    return code


_HELP = {
    "requests": f"Requests in all. [{REQUESTS}, or what --duration gives time for]",
    "concurrency": f"Streams at once, at most. [{CONCURRENCY}; with --rate any number]",
    "rate": "Begin so many requests a second, whatever became of those before.",
    "duration": "Begin no more after so many seconds.",
    "prompts": "Prompts, one a line, sent in turn.",
    "prompt": "The prompt of all requests.",
    "warmup": "Requests before those that count.",
    "max_cost": "Begin no more once so many USD are spent.",
    "json": "Print the results as one JSON object.",
    "quiet": "Print nothing on stderr but errors.",
}


def bench(
    *,
    model: ModelName,
    base_url: BaseURL = None,
    requests: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["requests"])] = None,
    concurrency: Annotated[
        int | None, Option(metavar="N", min=1, help=_HELP["concurrency"])
    ] = None,
    rate: Annotated[float | None, Option(metavar="R", help=_HELP["rate"])] = None,
    duration: Annotated[float | None, Option(metavar="S", help=_HELP["duration"])] = None,
    warmup: Annotated[int, Option(metavar="N", min=0, help=_HELP["warmup"])] = 0,
    prompt: Annotated[str | None, Option(metavar="TEXT", help=_HELP["prompt"])] = None,
    prompts: Annotated[Path | None, Option(metavar="FILE", help=_HELP["prompts"])] = None,
    max_tokens: MaxTokens = MAX_TOKENS,
    timeout_first: TimeoutFirst = None,
    timeout_idle: TimeoutIdle = None,
    timeout_total: TimeoutTotal = None,
    attempts: Attempts = 1,
    max_cost: Annotated[float | None, Option(metavar="USD", help=_HELP["max_cost"])] = None,
    ledger: LedgerFile = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help=_HELP["quiet"])] = False,
) -> None:
    """Measure an endpoint: time to the first content, gaps between chunks, chunks/s, tokens/s.

    Only whole answers count as success. The results are on stdout, how it goes on stderr.
    Ctrl-C sends no more and lets the running streams end, a second one cancels them.
    """
    kind, _, name = model.partition(":")
    secret = key_of(kind)
    run: Bench | None = None
    error: Exception | None = None
    if requests is None and duration is None:
        requests = REQUESTS
    if concurrency is None and rate is None:
        concurrency = CONCURRENCY

    def finish() -> int:
        return _print(
            run, error if run is None else run.load.error, json=json, name=model, secret=secret
        )

    try:
        _check_positive(rate=rate, duration=duration, max_cost=max_cost)
        plan = Plan(
            model=model_of(kind, name, base_url),
            path=name or None,
            prompts=prompts_of(prompt, prompts),
            max_tokens=max_tokens,
            requests=requests,
            duration=duration,
            concurrency=concurrency,
            rate=rate,
            warmup=warmup,
            timeouts=timeouts_of(first_chunk=timeout_first, idle=timeout_idle, total=timeout_total),
            retry=llm.Retry(attempts=attempts),
            limits=llm.Limits(max_cost=max_cost),
            ledger=open_ledger(ledger) if ledger else None,
        )
        run = Bench(plan, secret, quiet=quiet)
        _run(run, finish)
    except (Misuse, ValueError) as exc:  # ValueErrors are the core's word on an option
        error = Misuse(str(exc))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    try:
        code = finish()
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)


def _run(run: Bench, finish: Callable[[], int]) -> None:
    try:
        trio.run(run.main, finish)
    except* KeyboardInterrupt:  # just before the watch began, or as it ended
        run.interrupted = True
