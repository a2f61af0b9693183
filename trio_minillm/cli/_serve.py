"""``trio-minillm serve``: a server of answers whose timing is known, for any client and any benchmark.

The first line of stdout says where it listens. Ctrl-C and SIGTERM end it at once, with a table of what it
did on stderr.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from typer import Argument, Option

from .._serve import ServeOptions, open_timed_server
from ._batch_files import check_apart
from ._output import ENDING_SIGNALS, Misuse, OutputError, error_code, error_line, safe_json
from ._shared import Quiet
from ._terminal import encoded, print_error, print_rows, print_table, write_all

PORT = 8000
"""The port by default, which is that of vLLM's server."""

GC_THRESHOLDS = (20_000, 50, 50)
"""Thresholds of Python's garbage collector: new objects before a look at the new ones (of which a stream
makes some ten), and looks at these before one at older ones."""

_HELP = {
    "files": "Recordings or scripts whose answers are served in order. [generated answers]",
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 picks a free one.",
    "wire": "Serve only one wire format: openai, text, anthropic, responses, or gemini. [all, by the path]",
    "model": "Model name in the list of models.",
    "ttft": "Seconds to the first chunk: a number, uniform(LOW,HIGH), normal(MEAN,SD), lognormal(MEDIAN,SIGMA),"
    " or exp(MEAN). [0.2, or as in the file]",
    "itl": "Seconds between two chunks, in the forms of --ttft. [0.02, or as in the file]",
    "rate": "Chunks per second in each stream, instead of --itl.",
    "tokens": "Tokens per answer, in the forms of --ttft. [as many as the request allows, or 128]",
    "tokens_per_chunk": "Tokens per chunk.",
    "reasoning": "Send the first N tokens of an answer as reasoning.",
    "usage": "When streams report usage: asked (as real servers do), late, running, or never.",
    "opening": "Send the empty opening chunk at once, ahead of the first chunk's time.",
    "slots": "Serve at most N requests at once; others wait their turn. [no limit]",
    "slow_down": "Increase --itl in proportion while more than K streams run. [never]",
    "fault": "Inject a fault, such as 'cut(1000)' or '5% status(429, retry_after=1)'; may be repeated.",
    "seed": "Seed for whatever is random.",
    "log": "Append a record of each request to this file of JSON lines.",
    "json": "Print the address as a JSON object, and the figures as another at the end.",
}


def serve(
    *,
    files: Annotated[list[Path] | None, Argument(metavar="[FILE]...", help=_HELP["files"])] = None,
    host: Annotated[str, Option(metavar="ADDRESS", help=_HELP["host"])] = "127.0.0.1",
    port: Annotated[int, Option(metavar="N", min=0, max=65535, help=_HELP["port"])] = PORT,
    wire: Annotated[str | None, Option(metavar="NAME", help=_HELP["wire"])] = None,
    model: Annotated[str, Option(metavar="NAME", help=_HELP["model"])] = "timed",
    ttft: Annotated[str | None, Option(metavar="S", help=_HELP["ttft"])] = None,
    itl: Annotated[str | None, Option(metavar="S", help=_HELP["itl"])] = None,
    rate: Annotated[float | None, Option(metavar="R", help=_HELP["rate"])] = None,
    tokens: Annotated[str | None, Option(metavar="N", help=_HELP["tokens"])] = None,
    tokens_per_chunk: Annotated[
        int, Option(metavar="N", min=1, help=_HELP["tokens_per_chunk"])
    ] = 1,
    reasoning: Annotated[int, Option(metavar="N", min=0, help=_HELP["reasoning"])] = 0,
    usage: Annotated[str, Option(metavar="WHEN", help=_HELP["usage"])] = "asked",
    opening: Annotated[bool, Option("--opening", help=_HELP["opening"])] = False,
    slots: Annotated[int | None, Option(metavar="N", min=1, help=_HELP["slots"])] = None,
    slow_down: Annotated[int | None, Option(metavar="K", min=1, help=_HELP["slow_down"])] = None,
    fault: Annotated[list[str] | None, Option(metavar="FAULT", help=_HELP["fault"])] = None,
    seed: Annotated[int, Option(metavar="N", help=_HELP["seed"])] = 0,
    log: Annotated[Path | None, Option(metavar="FILE", help=_HELP["log"])] = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    quiet: Quiet = False,
) -> None:
    """Serve answers with known timing, and record when each chunk was sent.

    The server speaks OpenAI's chat completions, text completions, and Responses, Anthropic's Messages, and
    Gemini's wire format. GET /metrics and /metrics.json return figures; POST /reset clears them. Ctrl-C stops it.
    """
    try:
        if rate is not None and itl is not None:
            raise Misuse("--rate can't be combined with --itl")
        if rate is not None and not rate > 0:
            raise Misuse("--rate must be more than 0")
        options = ServeOptions(
            ttft=ttft,
            itl=itl if rate is None else 1 / rate,
            tokens=tokens,
            tokens_per_chunk=tokens_per_chunk,
            reasoning=reasoning,
            usage=usage,  # type: ignore[arg-type]  # is checked there
            opening=opening,
            slots=slots,
            slow_down=slow_down,
            faults=tuple(fault or ()),
            wire=wire,  # type: ignore[arg-type]
            model=model,
            seed=seed,
            files=tuple(files or ()),
        )
        if log is not None:
            for path in files or ():
                check_apart([(str(path), path), ("--log", log)])
        place = {"host": host, "port": port, "log": log}
        ended = trio.run(_run, options, place, json, quiet)
    except (Misuse, ValueError) as exc:
        raise _failed(Misuse(str(exc))) from None
    except OutputError as exc:
        raise _failed(exc) from None
    except OSError as exc:
        what = exc.filename or f"{host}:{port}"
        why = os.strerror(exc.errno) if exc.errno else str(exc)  # trio's text has the address again
        raise _failed(Misuse(f"{what}: {why}")) from None
    except KeyboardInterrupt:  # just before the signal was watched
        ended = signal.SIGINT
    raise typer.Exit(128 + ended)


def _failed(error: Exception) -> typer.Exit:
    print_error(error_line(error, None))
    return typer.Exit(error_code(error))


async def _run(
    options: ServeOptions, place: dict[str, Any], json: bool, quiet: bool
) -> signal.Signals:
    """Serve until a signal comes, which is returned."""
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        async with open_timed_server(options, **place) as server:
            said = {"port": server.port, "host": server.host, "base_url": server.base_url}
            line = f"serving at {server.base_url}\n"
            write_all(sys.stdout, safe_json(said) if json else encoded(line, sys.stdout))
            # What is here by now is not looked through again while streams are paced, and what comes
            # seldom: each look takes milliseconds with thousands of streams, which all are late then.
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            ended = signal.Signals(await anext(signals))
            figures = server.metrics()
    if not quiet:
        _show(figures)
    if json:
        write_all(sys.stdout, safe_json(figures))
    if server.log_failure is not None:  # it may have come with the records of what was running
        raise OutputError(server.log_failure, "the log", place["log"])
    return ended


def _show(figures: dict[str, Any]) -> None:
    """Print the figures as a table on stderr."""
    columns = ("count", "mean", "p50", "p90", "p99", "max")
    labels = {
        "ttft": "first chunk",
        "itl": "between chunks",
        "e2e": "complete answer",
        "queue": "wait for a slot",
        "late": "sent late",
    }
    rows = []
    for name, label in labels.items():
        times = figures[name]
        if times["count"]:
            shown = [f"{times[column] * 1000:,.3f} ms" for column in columns[1:]]
            rows.append((label, f"{times['count']:,}", *shown))
    ended = dict(figures["requests"])
    total = ended.pop("ended")
    what = " · ".join(f"{count:,} {how}" for how, count in ended.items())
    if rows:
        print_table(("", *columns), rows, stderr=True)
    tokens = figures["tokens"]["completion"]
    per_chunk = figures["cpu_seconds"] / figures["chunks"] * 1e6 if figures["chunks"] else 0.0
    print_rows(
        [
            ("requests", f"{total:,} ended" + (f": {what}" if what else "")),
            ("sent", f"{figures['chunks']:,} chunks · {tokens:,} tokens"),
            ("CPU", f"{figures['cpu_seconds']:.1f} s · {per_chunk:.1f} µs per chunk"),
        ]
    )
