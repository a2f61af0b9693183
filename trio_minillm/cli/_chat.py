"""``trio-minillm chat``: one prompt in, the answer streamed out, and its cost.

Guarantees:

- What a model or a server says is printed and never interpreted: a terminal gets none of its
  control characters, and rich none of its markup. A pipe gets the answer's text untouched.
- stdout carries the answer, or with ``--json``/``--raw`` that form of it, and nothing else.
- Every end has an exit code of `_output.EXIT_CODES`, and none has a traceback. What had arrived is
  shown and counted, even after Ctrl-C, which ends the stream and not just the program.
- Keys come from the environment, and nothing here prints one.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from typing import Annotated, Any, Literal

import msgspec
import trio
import typer
from rich.console import Console
from typer import Argument, Option

import trio_minillm as llm

from ..local._named import key_of, kind_of, open_model, variable_of
from . import _shared as option
from ._costs import RunLedger, open_ledger
from ._output import (
    ENDING_SIGNALS,
    Answer,
    Misuse,
    OutputError,
    TextView,
    closing_rows,
    error_line,
    exit_code,
    json_line,
    visible,
)
from ._shared import model_of, price_of, priced, reasoning_of, timeouts_of
from ._terminal import encoded, print_error, print_rows, put, say, write_all
from ._verbose import watcher

LOCAL_CONTEXT = 4096
"""Tokens of a local model, for prompt and answer together; memory for them is taken at once."""
STUCK_SECONDS = 0.5
"""Seconds after Ctrl-C that a write to stdout which hangs (in a pager) is waited for."""
Mode = Literal["text", "whole", "json", "raw"]
"""The form of the answer: text as it arrives, text at the end, JSON, or the events' data."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One ``chat`` command with its options parsed and checked."""

    model: llm.Model | str
    """The model, or the name of a local one."""
    messages: list[llm.Message]
    params: dict[str, Any]
    timeouts: llm.Timeouts
    retry: llm.Retry
    lenient: bool
    mode: Mode
    ledger: RunLedger
    observer: llm.Observer | None = None


# -- the command's options as a request ------------------------------------------------------


def prompt_of(words: list[str], read_stdin: Callable[[], str]) -> str:
    """Return the prompt: the words, with stdin in place of each ``-``, as its own paragraph.

    Without any word it is stdin alone. stdin is read only in these two cases, so that a command in
    a shell's ``while read`` loop neither hangs nor sends the rest of the loop's input along.

    Raises `Misuse` if the prompt is empty.
    """
    groups = groupby(words or ["-"], key=lambda word: word == "-")
    parts = [read_stdin() if piped else " ".join(group) for piped, group in groups]
    prompt = "\n\n".join(part for part in parts if part.strip())
    if not prompt:
        raise Misuse("the prompt is empty")
    return prompt


def _read_stdin() -> str:
    if sys.stdin is None:
        return ""
    if sys.stdin.isatty():
        say("Type the prompt; end it with Ctrl-D on a line of its own.\n")
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _piped_in() -> bool:
    """Return True if stdin is a pipe or a file, and not a terminal, /dev/null or a socket."""
    with suppress(OSError, ValueError, AttributeError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False


# -- the command -----------------------------------------------------------------------------


class _Interrupt:
    """The response to Ctrl-C and SIGTERM.

    The first ends the stream and lets the program report what arrived; the second ends the program
    at once.
    """

    def __init__(self) -> None:
        self.happened: signal.Signals | None = None
        self.stream: llm.TrackedStream | None = None
        self.scope = trio.CancelScope()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
            task_status.started()
            self.happened = signal.Signals(await anext(signals))
            # The second must not wait for a shielded scope, nor for a write that hangs.
            for number in ENDING_SIGNALS:
                signal.signal(number, lambda number, _: os._exit(128 + number))
            if self.stream is not None:
                # It ends at once; its cost is waited for elsewhere.
                with suppress(trio.ClosedResourceError), trio.move_on_after(STUCK_SECONDS):
                    await self.stream.cancel()
                    await trio.sleep_forever()
            self.scope.cancel()
            await trio.sleep_forever()


async def _show(stream: llm.StreamingCompletion, mode: Mode) -> None:
    """Read the stream, and write the answer as it arrives if the mode does so.

    Raises what the stream raises.
    """
    if mode in ("whole", "json"):
        await stream.collect()
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    view = TextView(terminal=terminal, styled=terminal and Console().color_system is not None)
    event = 0
    try:
        async for chunk in stream:
            if mode == "text":
                await put(encoded(view.show(chunk), sys.stdout))
            elif chunk.raw and chunk.event != event:  # an event can hold several chunks
                event = chunk.event
                line = visible(chunk.raw.decode("utf-8", "replace")).encode()
                await put((line if terminal else chunk.raw) + b"\n")
    except llm.MiniLLMError:
        await put(encoded(view.end(), sys.stdout))
        raise
    await put(encoded(view.end(), sys.stdout))


async def _chat(ask: Ask, answer: Answer) -> None:
    """Carry out the command, and fill in ``answer``, however it ends."""
    async with trio.open_nursery() as nursery:
        interrupt = _Interrupt()
        await nursery.start(interrupt.watch)
        with interrupt.scope:
            try:
                async with open_model(ask.model, context=LOCAL_CONTEXT, slots=1) as model:
                    await _stream(model, ask, answer, interrupt)
            except (llm.MiniLLMError, OutputError, Misuse) as exc:
                answer.error = exc
        if answer.stream is not None:  # only now that the client is closed, all costs are booked
            answer.response = answer.stream.response
        answer.interrupted = interrupt.happened
        nursery.cancel_scope.cancel()


async def _stream(model: llm.Model, ask: Ask, answer: Answer, interrupt: _Interrupt) -> None:
    async with llm.open_client(ledger=ask.ledger, observer=ask.observer) as client:
        try:
            stream = client.stream(
                model,
                ask.messages,
                timeouts=ask.timeouts,
                retry=ask.retry,
                price=price_of(model),
                lenient=ask.lenient,
                raw=ask.mode == "raw",
                **ask.params,
            )
        except (
            ValueError,
            TypeError,
        ) as exc:  # an option that this model's wire format does not have
            raise Misuse(str(exc)) from exc
        try:
            async with stream:
                interrupt.stream = stream
                await _show(stream, ask.mode)
        finally:
            answer.stream = stream
            if interrupt.happened and any(record.unsettled for record in stream.records):
                say("\nasking what it cost; Ctrl-C again does not wait for the answer\n")


def _finish(answer: Answer, mode: Mode, quiet: bool, variable: str | None) -> int:
    """Print the rest, and return the exit code. ``variable`` is that of the key."""
    response = answer.response
    try:
        if mode == "json":
            write_all(sys.stdout, json_line(answer))
        elif mode == "whole" and response.text:
            view = TextView(terminal=sys.stdout is not None and sys.stdout.isatty())
            text = view.show(llm.StreamChunk(response.text)) + view.end()
            write_all(sys.stdout, encoded(text, sys.stdout))
    except OutputError as exc:
        answer.error = exc
    code = exit_code(answer)
    if code == 141:
        return code
    # A request that was refused or never sent has nothing to show but its error.
    arrived = answer.error is None or response.timings.chunks or response.usage is not None
    if mode != "json" and not quiet and response.outcome is not None and arrived:
        print_rows(closing_rows(response))
    if answer.error is not None:
        print_error(error_line(answer.error, variable, answer.secret))
    return code


def _run(ask: Ask, answer: Answer) -> None:
    try:
        trio.run(_chat, ask, answer)
    except* KeyboardInterrupt:  # just before the signal was watched, or just after
        answer.interrupted = signal.SIGINT


def _messages(words: list[str], system: str | None, *, quiet: bool) -> list[llm.Message]:
    if words and "-" not in words and not quiet and _piped_in():
        say("note: stdin is not read; put a - after the prompt to send it along\n")
    prompt = llm.user(prompt_of(words, _read_stdin))
    return [prompt] if system is None else [llm.system(system), prompt]


_HELP = {
    "json": "Print the response, or the failure, as one JSON object.",
    "raw": "Print the data of each event of the answer as it arrived.",
    "no_stream": "Print the text only at the end.",
}


def chat(
    prompt: Annotated[list[str] | None, Argument(help="The prompt; - stands for stdin.")] = None,
    *,
    model: option.ModelName,
    base_url: option.BaseURL = None,
    system: option.System = None,
    max_tokens: option.MaxTokens = None,
    temperature: option.Temperature = None,
    reasoning: option.ReasoningHow = None,
    timeout_first: option.TimeoutFirst = None,
    timeout_idle: option.TimeoutIdle = None,
    timeout_total: option.TimeoutTotal = None,
    attempts: option.Attempts = 3,
    price: option.Price = None,
    ledger: option.LedgerFile = None,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    raw: Annotated[bool, Option("--raw", help=_HELP["raw"])] = False,
    lenient: option.Lenient = False,
    no_stream: Annotated[bool, Option("--no-stream", help=_HELP["no_stream"])] = False,
    quiet: option.Quiet = False,
    verbose: option.Verbose = False,
) -> None:
    """Send one prompt and stream the answer to stdout.

    Reasoning is shown on a terminal only. The outcome, tokens, times and cost follow on stderr, unless
    you give --json or --quiet.
    """
    kind = kind_of(model)
    answer = Answer(secret=key_of(kind, base_url))
    mode: Mode = "json" if json else "raw" if raw else "whole" if no_stream else "text"
    first, idle, total = timeout_first, timeout_idle, timeout_total
    try:
        if raw and (json or no_stream):
            raise Misuse("--raw can't go with --json or --no-stream")
        ask = Ask(
            model=priced(model_of(model, base_url), price),
            messages=_messages(prompt or [], system, quiet=quiet),
            params={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "reasoning": reasoning_of(reasoning),
            },
            timeouts=timeouts_of(first_chunk=first, idle=idle, total=total),
            retry=llm.Retry(attempts=attempts),
            lenient=lenient,
            mode=mode,
            ledger=RunLedger(open_ledger(ledger) if ledger else None),
            observer=watcher(verbose=verbose, quiet=quiet, secret=answer.secret),
        )
    except (Misuse, ValueError) as exc:  # the library raises ValueError for an option's value
        answer.error = Misuse(str(exc))
    except KeyboardInterrupt:
        answer.interrupted = signal.SIGINT
    else:
        _run(ask, answer)
        unwritten = ask.ledger.unwritten()
        answer.error = answer.error or unwritten
    try:
        code = _finish(answer, mode, quiet, variable_of(kind, base_url))
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)
