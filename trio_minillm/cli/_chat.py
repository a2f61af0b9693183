"""``trio-minillm chat``: one prompt in, the answer streamed out, and its cost; or a conversation.

Guarantees:

- What a model or a server says is printed and never interpreted: a terminal gets none of its
  control characters, and rich none of its markup. A pipe gets the answer's text untouched.
- stdout carries the answer, or with ``--json``/``--raw`` that form of it, and nothing else; in a
  conversation the prompts, too.
- Every end has an exit code of `_output.EXIT_CODES`, and none has a traceback. What had arrived is
  shown and counted, even after Ctrl-C, which ends the stream and not just the program.
- Keys come from the environment, and nothing here prints one.
"""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from typer import Argument, Option

import trio_minillm as llm

from .._batch.validation import check_format
from ..local._named import key_of, kind_of, open_model, variable_of
from . import _shared as option
from ._chat_answer import LOCAL_CONTEXT, Ask, Chosen, Interrupt, Mode, finish, stream_answer
from ._chat_files import FilePart, file_part
from ._chat_talk import converse
from ._costs import RunLedger, open_ledger
from ._output import ENDING_SIGNALS, Answer, Misuse, OutputError
from ._shared import extra_from, format_from, model_of, priced, reasoning_of, timeouts_of
from ._terminal import say
from ._verbose import watcher

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


def _is_talk(words: list[str], interactive: bool, mode: Mode) -> bool:
    """Return whether the command is a conversation: on a terminal, without a prompt or by request.

    Raises `Misuse` for a request that can't be met.
    """
    terminal = all(file is not None and file.isatty() for file in (sys.stdin, sys.stdout))
    if not interactive:
        return terminal and not words and mode in ("text", "whole")
    if mode in ("json", "raw"):
        raise Misuse("--interactive can't be combined with --json or --raw")
    if "-" in words:
        raise Misuse(
            "--interactive can't be combined with a - in the prompt: it reads stdin itself"
        )
    if not terminal:
        raise Misuse("--interactive needs a terminal as stdin and as stdout")
    return True


def _messages(
    words: list[str], files: Sequence[FilePart], system: str | None, *, quiet: bool
) -> list[llm.Message]:
    if words and "-" not in words and not quiet and _piped_in():
        say("note: stdin is not read; put a - after the prompt to send it along\n")
    prompt = llm.user(prompt_of(words, _read_stdin), *files)
    return [prompt] if system is None else [llm.system(system), prompt]


def _params(
    max_tokens: int | None, temperature: float | None, reasoning: str | None, schema: str | None
) -> dict[str, Any]:
    """Return the typed parameters that were given. Raises `Misuse`."""
    form = None if schema is None else format_from(schema)
    if form is not None:
        try:
            check_format(form)
        except (ImportError, ValueError) as exc:
            raise Misuse(f"--schema: {exc}") from exc
    given = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "reasoning": reasoning_of(reasoning),
        "response_format": form,
    }
    return {name: value for name, value in given.items() if value is not None}


def _typed(extra: Mapping[str, Any], model: llm.Model | str) -> dict[str, Any]:
    """Return the fields of ``--extra`` that the library takes as parameters only, such as ``top_p``."""
    if isinstance(model, str):
        model = llm.compatible("local", base_url="http://127.0.0.1")
    names = model.provider.typed_fields & llm.Params.__annotations__.keys()
    names -= {"response_format"}  # which answers are checked with: --schema
    return {name: value for name, value in extra.items() if name in names}


# -- one prompt ------------------------------------------------------------------------------


async def _watch(interrupt: Interrupt, *, task_status: trio.TaskStatus[None]) -> None:
    """Respond to Ctrl-C and SIGTERM: the first ends the stream and lets the program report what
    arrived; the second ends the program at once.
    """
    with trio.open_signal_receiver(*ENDING_SIGNALS) as signals:
        task_status.started()
        first = await anext(signals)
        # The second must not wait for a shielded scope, nor for a write that hangs.
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda number, _: os._exit(128 + number))
        await interrupt.end(first)
        await trio.sleep_forever()


async def _chat(ask: Ask, chosen: Chosen, messages: list[llm.Message], answer: Answer) -> None:
    """Send one request, and fill in ``answer``, however it ends."""
    async with trio.open_nursery() as nursery:
        interrupt = Interrupt()
        await nursery.start(_watch, interrupt)
        with interrupt.scope:
            try:
                async with (
                    open_model(chosen.model, context=LOCAL_CONTEXT, slots=1) as model,
                    llm.open_client(ledger=ask.ledger, observer=ask.observer) as client,
                ):
                    try:
                        await stream_answer(client, model, ask, messages, answer, interrupt)
                    finally:
                        _tell_asking(answer, interrupt)
            except (llm.MiniLLMError, OutputError, Misuse) as exc:
                answer.error = exc
        if answer.stream is not None:  # only now that the client is closed, all costs are booked
            answer.response = answer.stream.response
        answer.interrupted = interrupt.happened
        nursery.cancel_scope.cancel()


def _tell_asking(answer: Answer, interrupt: Interrupt) -> None:
    stream = answer.stream
    if stream and interrupt.happened and any(record.unsettled for record in stream.records):
        say("\nasking what it cost; Ctrl-C again does not wait for the answer\n")


def _run(ask: Ask, chosen: Chosen, messages: list[llm.Message], answer: Answer) -> None:
    try:
        trio.run(_chat, ask, chosen, messages, answer)
    except* KeyboardInterrupt:  # just before the signal was watched, or just after
        answer.interrupted = signal.SIGINT
    answer.error = answer.error or ask.ledger.unwritten()


# -- the command -----------------------------------------------------------------------------

_HELP = {
    "prompt": "The prompt; - stands for stdin. Without one, a terminal is a conversation.",
    "file": "Send a picture, sound, PDF or text along with the prompt; may be repeated.",
    "interactive": "Continue as a conversation after the answer.",
    "schema": "A JSON schema (a file, or the JSON itself) or MODULE:TYPE, to check the answer with.",
    "json": "Print the response, or the failure, as one JSON object.",
    "raw": "Print the data of each event of the answer as it arrived.",
    "no_stream": "Print the text only at the end.",
}


def chat(
    prompt: Annotated[list[str] | None, Argument(help=_HELP["prompt"])] = None,
    *,
    model: option.ModelName,
    base_url: option.BaseURL = None,
    file: Annotated[list[Path] | None, Option(metavar="PATH", help=_HELP["file"])] = None,
    interactive: Annotated[bool, Option("--interactive", "-i", help=_HELP["interactive"])] = False,
    system: option.System = None,
    max_tokens: option.MaxTokens = None,
    temperature: option.Temperature = None,
    reasoning: option.ReasoningHow = None,
    schema: Annotated[str | None, Option(metavar="FORMAT", help=_HELP["schema"])] = None,
    extra: option.Extra = None,
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
    """Send one prompt and stream the answer to stdout; without a prompt, on a terminal, converse.

    Reasoning is shown on a terminal only. The outcome, tokens, times and cost follow on stderr, unless
    you give --json or --quiet.
    """
    kind = kind_of(model)
    answer = Answer(secret=key_of(kind, base_url))
    mode: Mode = "json" if json else "raw" if raw else "whole" if no_stream else "text"
    first, idle, total = timeout_first, timeout_idle, timeout_total
    words = prompt or []
    try:
        if raw and (json or no_stream):
            raise Misuse("--raw can't be combined with --json or --no-stream")
        is_talk = _is_talk(words, interactive, mode)
        params = _params(max_tokens, temperature, reasoning, schema)
        opened = priced(model_of(model, base_url), price)
        further = extra_from(extra, params)
        params |= _typed(further, opened)
        chosen = Chosen(name=model, base_url=base_url, model=opened)
        files = [file_part(path) for path in file or ()]
        messages = [] if is_talk else _messages(words, files, system, quiet=quiet)
        ask = Ask(
            params=params,
            extra={name: value for name, value in further.items() if name not in params},
            timeouts=timeouts_of(first_chunk=first, idle=idle, total=total),
            retry=llm.Retry(attempts=attempts),
            lenient=lenient,
            mode=mode,
            quiet=quiet,
            ledger=RunLedger(open_ledger(ledger) if ledger else None),
            observer=watcher(verbose=verbose, quiet=quiet, secret=answer.secret),
        )
    except (Misuse, ValueError) as exc:  # the library raises ValueError for an option's value
        answer.error = Misuse(str(exc))
    except KeyboardInterrupt:
        answer.interrupted = signal.SIGINT
    else:
        if is_talk:
            raise typer.Exit(converse(ask, chosen, system, " ".join(words), files))
        _run(ask, chosen, messages, answer)
    try:
        code = finish(answer, mode, quiet, variable_of(kind, base_url))
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)
