"""The command ``trio-minillm``: one prompt in, the answer streamed out, and what it cost.

Guarantees:

- What a model or a server says is printed as it is and never obeyed: a terminal gets no
  control character of theirs, and rich no markup. A pipe gets the answer's text untouched.
- stdout carries the answer, or with ``--json``/``--raw`` that form of it, and nothing else.
- Every end has an exit code of `EXIT_CODES`, and none of them a traceback. What had arrived
  is shown and counted, also after Ctrl-C, which ends the stream and not just the program.
- Keys come from the environment, and nothing here prints one.

Importing this module works without the extra ``cli``; `main` then says what to install.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import stat
import sys
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import msgspec
import trio

import trio_minillm as llm

from .local import LocalModelError

try:
    import typer
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text
    from typer import Argument, Option
except ModuleNotFoundError as _missing:
    MISSING = _missing.name
else:
    MISSING = None

EXIT_CODES = {
    0: "finished: the answer is whole",
    1: "the output could not be written, or this program has a bug",
    2: "misuse: a wrong option, no prompt, no key, the extra [cli] is missing",
    3: "could not send: address, network, or the local model did not start",
    4: "refused: the key or the request is wrong",
    5: "refused: quota used up, rate limit, or the server is overloaded or failing",
    6: "the stream broke: truncated, timed out, an error in it, or malformed",
    130: "interrupted (Ctrl-C); a second Ctrl-C does not wait for anything",
    141: "whoever read stdout left (as in `| head`)",
}
"""What each exit code means; ``--help`` shows it."""

KEYS = {
    "openrouter": "OPENROUTER_API_KEY",
    "openai": "OPENAI_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "compatible": "TRIO_MINILLM_API_KEY",
}
"""Where each kind of model's key comes from. The last is sent only where ``--base-url`` says."""

LOCAL_CONTEXT = 4096
"""Tokens of prompt and answer together for a local model; memory for them is taken at once."""
STUCK_SECONDS = 0.5
"""How long after Ctrl-C a write to stdout that hangs (a pager) is waited for."""
ERROR_CHARS = 600
"""The longest error that is shown on the terminal; ``--json`` has all of it."""

Mode = Literal["text", "whole", "json", "raw"]
Row = tuple[str, str]


class Misuse(Exception):
    """The command can't be carried out as it was given; the message says why."""


class OutputError(Exception):
    """Writing to stdout failed. ``gone`` if that is because nobody reads it any more."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"the answer could not be written: {cause.strerror or cause}")
        self.gone = cause.errno in (errno.EPIPE, errno.EINVAL)  # EINVAL is Windows's word for it


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One ``chat`` command, its options read and checked. ``model`` is None for a local one."""

    model: llm.Model | None
    path: str | None = None
    messages: list[llm.Message]
    params: dict[str, Any]
    timeouts: llm.Timeouts
    retry: llm.Retry
    mode: Mode


class Answer(msgspec.Struct, kw_only=True):
    """What came of a command."""

    response: llm.CompletionResponse = msgspec.field(default_factory=llm.CompletionResponse)
    error: Exception | None = None
    interrupted: bool = False
    secret: str = ""
    """The key that was sent, so that what a server said can be searched for it."""


# -- pure: text ----------------------------------------------------------------------------

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """The text with every control character but tab and newline replaced by a symbol."""
    return _CONTROLS.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def one_line(text: str, limit: int = ERROR_CHARS) -> str:
    """The text on one line, without control characters, and cut at ``limit`` characters."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def hidden(text: str, secret: str) -> str:
    """The text without the key, or a beginning of it that an excerpt may have left.

    The core blanks the key out of its messages; this also covers codes and ids, and is the
    last gate before a terminal or a log.
    """
    for length in range(len(secret), 7, -1):
        text = text.replace(secret[:length], "[hidden]")
    return text


class TextView:
    """What is shown of each chunk. A terminal also gets the reasoning, dimmed if it can."""

    def __init__(self, *, terminal: bool, styled: bool = False) -> None:
        self._terminal = terminal
        self._styled = styled
        self._thinking = False
        self._last = "\n"

    def show(self, chunk: llm.StreamChunk) -> str:
        """What to write for this chunk; may be empty."""
        if not self._terminal:
            return self._kept(chunk.delta)
        out = ""
        if chunk.reasoning:
            thought = self._kept(visible(chunk.reasoning))
            # Each piece is dimmed by itself, so that no end leaves the terminal dim.
            out = f"\x1b[2m{thought}\x1b[0m" if self._styled else thought
            self._thinking = True
        if chunk.delta:
            out += self.end() + "\n" if self._thinking else ""
            out += self._kept(visible(chunk.delta))
            self._thinking = False
        return out

    def end(self) -> str:
        """What is missing to a whole line."""
        return "" if self._last == "\n" else "\n"

    def _kept(self, text: str) -> str:
        self._last = text[-1:] or self._last
        return text


# -- pure: the closing lines ---------------------------------------------------------------


def closing_rows(response: llm.CompletionResponse) -> list[Row]:
    """What is known of the answer beside its text, as pairs of a label and one line."""
    usage, timings = response.usage, response.timings
    about = [response.finish_reason or "", response.model, response.id]
    rows = [(str(response.outcome or "not sent"), " · ".join(filter(None, about)))]
    if response.refusal:
        rows.append(("declined", response.refusal))
    rows += [("tool call", _call(call)) for call in response.tool_calls]
    rows += [("tool call", f"INVALID {_call(call)}") for call in response.invalid_tool_calls]
    rows.append(("tokens", "unknown" if usage is None else usage_line(usage)))
    if timings.total is not None:
        rows.append(("time", timings_line(timings)))
    rows.append(("cost", cost_line(response.cost)))
    rows += [("note", note) for note in response.notes]
    return [(label, one_line(line)) for label, line in rows]


def _call(call: llm.ToolCall) -> str:
    return f"{call.name or '(nameless)'}({call.arguments})"


def usage_line(usage: llm.Usage) -> str:
    """``31 in (12 cached) · 120 out (80 reasoning) · 151 in all``; what is unknown is left out."""

    def side(total: int | None, word: str, *parts: tuple[int | None, str]) -> str:
        inside = ", ".join(f"{n:,} {what}" for n, what in parts if n)
        count = "?" if total is None else f"{total:,}"
        return f"{count} {word} ({inside})" if inside else f"{count} {word}"

    cached = (usage.cache_read_tokens, "cached"), (usage.cache_write_tokens, "written to cache")
    sides = [
        side(usage.prompt_tokens, "in", *cached),
        side(usage.completion_tokens, "out", (usage.reasoning_tokens, "reasoning")),
    ]
    if usage.prompt_tokens is not None and usage.completion_tokens is not None:
        sides.append(f"{usage.total_tokens:,} in all")
    return " · ".join(sides) + ("" if usage.final else " · so far")


def rate(timings: llm.Timings) -> float | None:
    """Chunks per second between the first and the last; None where there is no between."""
    first, last = timings.first_chunk, timings.last_chunk
    if first is None or last is None or last <= first or timings.chunks < 2:
        return None
    return (timings.chunks - 1) / (last - first)


def timings_line(timings: llm.Timings) -> str:
    """``headers 0.12 s · first chunk 0.34 s · total 2.10 s · 64 chunks, 36.4/s``."""
    first, total = timings.first_chunk, timings.total
    stamps = ("headers", timings.headers), ("first chunk", first), ("total", total)
    parts = [f"{name} {at:.2f} s" for name, at in stamps if at is not None]
    speed = rate(timings)
    chunks = f"{timings.chunks:,} chunk{'' if timings.chunks == 1 else 's'}"
    parts.append(chunks if speed is None else f"{chunks}, {speed:,.1f}/s")
    if timings.attempts > 1:
        parts.append(f"{timings.attempts} attempts")
    return " · ".join(parts)


def cost_line(cost: llm.CostInfo) -> str:
    """The amount and how far it can be trusted, or why there is none."""
    if cost.amount is None:
        unpriced = cost.resolution is llm.CostResolution.UNPRICED
        return "unpriced (tokens known, price not)" if unpriced else f"{cost.resolution}"
    least = "at least " if cost.resolution is llm.CostResolution.LOWER_BOUND else ""
    whose = {"native": " (the provider's figure)", "price": " (price times usage)"}
    return f"{least}${cost.amount:f}{whose.get(cost.source or '', '')}"


# -- pure: errors, exit codes, JSON --------------------------------------------------------


def last_of(error: Exception | None) -> Exception | None:
    """The error itself, or the newest of several attempts."""
    return error.last_error if isinstance(error, llm.RetriesExhausted) else error


def exit_code(answer: Answer) -> int:
    """Which of `EXIT_CODES` the command ends with."""
    error = last_of(answer.error)
    if answer.interrupted and answer.response.outcome is not llm.Outcome.FINISHED:
        return 130
    if isinstance(error, OutputError):
        return 141 if error.gone else 1
    if isinstance(error, llm.RefusedError):
        return 4 if error.kind in ("auth", "invalid") else 5
    kinds = (Misuse, 2), (llm.SendError, 3), (LocalModelError, 3), (llm.MiniLLMError, 6)
    return next((code for kind, code in kinds if isinstance(error, kind)), 1 if error else 0)


def advice(error: Exception, variable: str | None) -> str:
    """What to do about it, in a few words; may be empty. ``variable`` holds the key."""
    error = last_of(error) or error
    if isinstance(error, llm.RefusedError | llm.ProviderError):
        if error.kind == "auth":
            return f"check the key in {variable} and its rights" if variable else "check the key"
        if error.kind == "invalid":
            return "fix the request: the model's name, the address, the options"
        if error.kind == "quota":
            return "pay or raise the limit; waiting does not help"
        return "wait, then try again"
    if isinstance(error, llm.SendError):
        return "check the address and the network; trying again is safe"
    if isinstance(error, llm.StreamTimeout):
        return "the --timeout-… options set the clocks; sending again costs again"
    return "sending again costs again" if isinstance(error, llm.StreamError) else ""


def error_line(error: Exception, variable: str | None, secret: str = "") -> str:
    """One line that says what went wrong and what to do."""
    hint = advice(error, variable)
    return f"error: {one_line(hidden(str(error), secret))}" + (f" ({hint})" if hint else "")


def error_fields(error: Exception, secret: str = "") -> dict[str, Any]:
    """An error for ``--json``; what does not apply to it is null."""
    last = last_of(error)
    names = ("kind", "status", "code", "clock", "retry_after", "request_id")
    known = {name: getattr(last, name, None) for name in names}
    fields = {"type": type(last).__name__, "message": str(error), **known}
    return {k: hidden(v, secret) if isinstance(v, str) else v for k, v in fields.items()}


def json_line(answer: Answer) -> bytes:
    """The answer as one line of JSON, which is safe to show on a terminal, too."""
    response, usage, cost = answer.response, answer.response.usage, answer.response.cost
    counts = msgspec.to_builtins(usage)
    if usage is not None:
        del counts["raw"]
        counts |= {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
    names = ("outcome", "content", "reasoning", "refusal", "tool_calls", "invalid_tool_calls")
    fields = {name: getattr(response, name) for name in (*names, "finish_reason", "id", "model")}
    fields |= {
        "request_id": hidden(response.request_id or "", answer.secret) or None,
        "usage": counts,
        "cost": {
            "amount": None if cost.amount is None else f"{cost.amount:f}",
            "resolution": cost.resolution,
            "source": cost.source,
        },
        "timings": {
            **msgspec.to_builtins(response.timings),
            "chunks_per_second": rate(response.timings),
        },
        "notes": response.notes,
        "error": None if answer.error is None else error_fields(answer.error, answer.secret),
        "exit_code": exit_code(answer),
    }
    text = msgspec.json.encode(fields).decode()
    # msgspec escapes what JSON demands; terminals obey some more.
    return re.sub(r"[\x7f-\x9f]", lambda m: f"\\u{ord(m[0]):04x}", text).encode() + b"\n"


# -- in: the command's options as a request --------------------------------------------------


def prompt_of(words: list[str], read_stdin: Callable[[], str]) -> str:
    """The prompt: the words, with what is piped in where ``-`` stands, as its own paragraph.

    Without any word it is all piped in. stdin is read only then, so that a command in a
    shell's ``while read`` loop neither hangs nor sends the rest of the loop's input along.
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
        _say("Type the prompt; end it with Ctrl-D on a line of its own.\n")
    return sys.stdin.buffer.read().decode("utf-8", "replace")


def _piped_in() -> bool:
    """Whether something is piped in. (A terminal, /dev/null and a socket are not.)"""
    with suppress(OSError, ValueError, AttributeError):
        mode = os.fstat(sys.stdin.fileno()).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
    return False


def model_of(kind: str, name: str, base_url: str | None) -> llm.Model | None:
    """The model at a provider, with its key from the environment; None for a local one."""
    if kind == "local" and base_url is None:
        return None
    if kind not in KEYS or not name:
        kinds = ", ".join(f"{kind}:NAME" for kind in KEYS)
        raise Misuse(f"--model is {kinds}, or without --base-url local or local:PATH.gguf")
    key = os.environ.get(KEYS[kind], "").strip() or None
    if kind == "compatible":
        if base_url is None:
            raise Misuse("--model compatible:NAME needs --base-url")
        return llm.compatible(name, base_url=base_url, api_key=key)
    if key is None and base_url is None:
        raise Misuse(f"no API key: set {KEYS[kind]} in the environment")
    makers = {"openrouter": llm.openrouter, "openai": llm.openai, "anthropic": llm.anthropic}
    return makers[kind](name, base_url=base_url, api_key=key)


def reasoning_of(given: str | None) -> str | int | bool | None:
    """``on``, ``off``, a number of tokens, or the provider's word for an effort."""
    if given is None or not given.isdecimal():
        return {"on": True, "off": False}.get(given or "", given)
    return int(given)


# -- out: stdout and stderr ------------------------------------------------------------------


def _write_all(stream: TextIO | None, data: bytes) -> None:
    """Write all of it past Python's buffers, which can't be abandoned and must be flushed."""
    if stream is None:  # closed by the shell (>&-)
        raise OutputError(BrokenPipeError(errno.EPIPE, "stdout is closed"))
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
    rest = memoryview(data)
    try:
        while rest:
            written = raw.write(rest)
            if written is None:  # a full pipe that another program made non-blocking
                time.sleep(0.01)
            rest = rest[written or 0 :]
    except OSError as exc:
        raise OutputError(exc) from exc


def _encoded(text: str, stream: TextIO | None) -> bytes:
    return text.encode(stream.encoding if stream else "utf-8", "replace")


async def _put(data: bytes) -> None:
    """Write to stdout from a thread: a slow reader then stops neither Ctrl-C nor the clocks."""
    if data:
        await trio.to_thread.run_sync(_write_all, sys.stdout, data, abandon_on_cancel=True)


def _say(text: str) -> None:
    """Write to stderr; when nobody reads that, nobody misses it."""
    with suppress(OutputError):
        _write_all(sys.stderr, _encoded(text, sys.stderr))


_COLORS = {"finished": "green", "cancelled": "yellow", "truncated": "red", "errored": "red"}


def _print_rows(rows: Iterable[Row]) -> None:
    """The closing lines: a small table on a terminal, ``label: value`` elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        _say("".join(f"{label}: {value}\n" for label, value in rows))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in rows:
        table.add_row(Text(label, _COLORS.get(label, "dim")), Text(value))
    with console.capture() as captured:
        console.print(table)
    _say("\n" + captured.get())


def _print_error(line: str) -> None:
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    with console.capture() as captured:
        console.print(Text(line, "red" if console.is_terminal else ""))
    _say(captured.get())


# -- the command -----------------------------------------------------------------------------


class _Interrupt:
    """Ctrl-C. The first ends the stream and lets the program say what came; the second ends
    the program where it stands.
    """

    def __init__(self) -> None:
        self.happened = False
        self.stream: llm.StreamingCompletion | None = None
        self.scope = trio.CancelScope()

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            task_status.started()
            await anext(signals)
            self.happened = True
            # A shield of ours, or a write that hangs, must not hold back someone in a hurry.
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
            if self.stream is not None:
                with suppress(trio.ClosedResourceError):  # it ended by itself just now
                    await self.stream.cancel()
                await trio.sleep(STUCK_SECONDS)
            self.scope.cancel()
            await trio.sleep_forever()


@asynccontextmanager
async def _model_of(ask: Ask) -> AsyncIterator[llm.Model]:
    if ask.model is not None:
        yield ask.model
        return
    async with llm.open_local_model(path=ask.path, context=LOCAL_CONTEXT, slots=1) as model:
        yield model


async def _show(stream: llm.StreamingCompletion, mode: Mode) -> None:
    """Write the answer as it arrives, in the modes that do. Raises what the stream raises."""
    if mode in ("whole", "json"):
        await stream.collect()
        return
    terminal = sys.stdout is not None and sys.stdout.isatty()
    view = TextView(terminal=terminal, styled=terminal and Console().color_system is not None)
    event = 0
    try:
        async for chunk in stream:
            if mode == "text":
                await _put(_encoded(view.show(chunk), sys.stdout))
            elif chunk.raw and chunk.event != event:  # an event can be several chunks
                event = chunk.event
                line = visible(chunk.raw.decode("utf-8", "replace")).encode()
                await _put((line if terminal else chunk.raw) + b"\n")
    except llm.MiniLLMError:
        await _put(_encoded(view.end(), sys.stdout))
        raise
    await _put(_encoded(view.end(), sys.stdout))


async def _chat(ask: Ask, answer: Answer) -> None:
    """Carry out the command; ``answer`` gets what comes of it, however it ends."""
    async with trio.open_nursery() as nursery:
        interrupt = _Interrupt()
        await nursery.start(interrupt.watch)
        with interrupt.scope:
            try:
                async with _model_of(ask) as model, llm.open_client() as client:
                    await _stream(client, model, ask, answer, interrupt)
            except (llm.MiniLLMError, OutputError, Misuse) as exc:
                answer.error = exc
        answer.interrupted = interrupt.happened
        nursery.cancel_scope.cancel()


async def _stream(
    client: llm.Client, model: llm.Model, ask: Ask, answer: Answer, interrupt: _Interrupt
) -> None:
    try:
        stream = client.stream(
            model,
            ask.messages,
            timeouts=ask.timeouts,
            retry=ask.retry,
            raw=ask.mode == "raw",
            **ask.params,
        )
    except (ValueError, TypeError) as exc:  # says which option this model's wire does not have
        raise Misuse(str(exc)) from exc
    try:
        async with stream:
            interrupt.stream = stream
            await _show(stream, ask.mode)
    finally:
        answer.response = stream.response


def _finish(answer: Answer, mode: Mode, quiet: bool, variable: str | None) -> int:
    """Print what is left to print, and return the exit code."""
    response = answer.response
    try:
        if mode == "json":
            _write_all(sys.stdout, json_line(answer))
        elif mode == "whole" and response.content:
            view = TextView(terminal=sys.stdout is not None and sys.stdout.isatty())
            text = view.show(llm.StreamChunk(response.content)) + view.end()
            _write_all(sys.stdout, _encoded(text, sys.stdout))
    except OutputError as exc:
        answer.error = exc
    code = exit_code(answer)
    if code == 141:
        return code
    # Of a request that was refused or never sent there is nothing but the error to tell.
    arrived = answer.error is None or response.timings.chunks or response.usage is not None
    if mode != "json" and not quiet and response.outcome is not None and arrived:
        _print_rows(closing_rows(response))
    if answer.error is not None:
        _print_error(error_line(answer.error, variable, answer.secret))
    return code


def _run(ask: Ask, answer: Answer) -> None:
    try:
        trio.run(_chat, ask, answer)
    except* KeyboardInterrupt:  # just before the watch began, or as it ended
        answer.interrupted = True


def _timeouts(**given: float | None) -> llm.Timeouts:
    return llm.Timeouts(**{name: seconds for name, seconds in given.items() if seconds is not None})


def _messages(words: list[str], system: str | None, *, quiet: bool) -> list[llm.Message]:
    if words and "-" not in words and not quiet and _piped_in():
        _say("note: stdin is not read; put a - behind the prompt to send it along\n")
    prompt = llm.user(prompt_of(words, _read_stdin))
    return [prompt] if system is None else [llm.system(system), prompt]


_HELP = {
    "model": "openrouter:NAME, openai:NAME, anthropic:NAME, compatible:NAME (with --base-url),"
    " local, or local:PATH.gguf.",
    "base_url": "The server's address, where it is not the provider's usual one.",
    "reasoning": "An effort (low, high, …), a budget in tokens, on or off.",
    "first": "Longest wait for the first content, in seconds. [300]",
    "idle": "Longest silence after that, in seconds. [120]",
    "total": "Longest time in all, in seconds. [none]",
    "attempts": "Requests in all, where trying again may help.",
    "json": "Print the response, or the failure, as one JSON object.",
    "raw": "Print the data of each event of the answer as it came.",
    "no_stream": "Print the text only at the end.",
    "quiet": "Print nothing on stderr but errors.",
}

_EPILOG = "\b\nKeys come from the environment:\n" + "".join(
    f"  {variable:<22}{kind}:…\n" for kind, variable in KEYS.items()
)
_EPILOG += "\n\b\nExit codes:\n" + "".join(f"  {n:>3}  {what}\n" for n, what in EXIT_CODES.items())


def chat(
    prompt: Annotated[list[str] | None, Argument(help="The prompt; - stands for stdin.")] = None,
    *,
    model: Annotated[str, Option("--model", "-m", metavar="KIND:NAME", help=_HELP["model"])],
    base_url: Annotated[str | None, Option(metavar="URL", help=_HELP["base_url"])] = None,
    system: Annotated[str | None, Option(metavar="TEXT", help="The system prompt.")] = None,
    max_tokens: Annotated[int | None, Option(metavar="N", help="Longest answer.")] = None,
    temperature: Annotated[float | None, Option(metavar="T", help="0 is sober.")] = None,
    reasoning: Annotated[str | None, Option(metavar="HOW", help=_HELP["reasoning"])] = None,
    timeout_first: Annotated[float | None, Option(metavar="S", help=_HELP["first"])] = None,
    timeout_idle: Annotated[float | None, Option(metavar="S", help=_HELP["idle"])] = None,
    timeout_total: Annotated[float | None, Option(metavar="S", help=_HELP["total"])] = None,
    attempts: Annotated[int, Option(metavar="N", min=1, help=_HELP["attempts"])] = 3,
    json: Annotated[bool, Option("--json", help=_HELP["json"])] = False,
    raw: Annotated[bool, Option("--raw", help=_HELP["raw"])] = False,
    no_stream: Annotated[bool, Option("--no-stream", help=_HELP["no_stream"])] = False,
    quiet: Annotated[bool, Option("--quiet", "-q", help=_HELP["quiet"])] = False,
) -> None:
    """Send one prompt and stream the answer to stdout.

    Reasoning is shown on a terminal only. With neither --json nor --quiet the end, the
    tokens, the times and the cost follow on stderr.
    """
    kind, _, name = model.partition(":")
    answer = Answer(secret=os.environ.get(KEYS.get(kind, ""), "").strip())
    mode: Mode = "json" if json else "raw" if raw else "whole" if no_stream else "text"
    first, idle, total = timeout_first, timeout_idle, timeout_total
    try:
        if raw and (json or no_stream):
            raise Misuse("--raw can't go with --json or --no-stream")
        ask = Ask(
            model=model_of(kind, name, base_url),
            path=name or None,
            messages=_messages(prompt or [], system, quiet=quiet),
            params={
                "max_tokens": max_tokens,
                "temperature": temperature,
                "reasoning": reasoning_of(reasoning),
            },
            timeouts=_timeouts(first_chunk=first, idle=idle, total=total),
            retry=llm.Retry(attempts=attempts),
            mode=mode,
        )
    except (Misuse, ValueError) as exc:  # ValueErrors are the core's word on an option
        answer.error = Misuse(str(exc))
    except KeyboardInterrupt:
        answer.interrupted = True
    else:
        _run(ask, answer)
    try:
        code = _finish(answer, mode, quiet, KEYS.get(kind))
    except KeyboardInterrupt:  # stdout or stderr hangs
        code = 130
    raise typer.Exit(code)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trio-minillm {llm.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Stream answers of language models, and see how they ended and what they cost."""


def main() -> None:
    """The entry point. Ends in ``SystemExit`` with one of `EXIT_CODES`."""
    if MISSING is not None:
        sys.stderr.write(f"{MISSING} is not installed: pip install 'trio-minillm[cli]'\n")
        raise SystemExit(2)
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # they show locals, and those hold keys
        rich_markup_mode=None,  # prompts and model names in usage errors are no markup
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(epilog=_EPILOG)(_root)
    app.command(epilog=_EPILOG)(chat)
    try:
        app(prog_name="trio-minillm")
    except Exception as exc:  # noqa: BLE001 - a bug: say where, not what, which may be secret
        frames = traceback.extract_tb(exc.__traceback__)
        while isinstance(exc, ExceptionGroup):
            exc = exc.exceptions[0]
            frames = traceback.extract_tb(exc.__traceback__) or frames
        place = frames[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        _say(f"error: a bug in trio-minillm: {type(exc).__name__} at {where}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
