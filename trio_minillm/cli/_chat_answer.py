"""One answer of ``trio-minillm chat``: streamed and shown, ended by a signal, checked, and told of.

A single prompt and a conversation share it.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Literal

import msgspec
import trio
from rich.console import Console

import trio_minillm as llm

from .._batch.validation import check_answer
from .._types.messages import Quiet
from .._types.response import MismatchedAnswer
from ..local._named import key_of, kind_of, variable_of
from ._costs import RunLedger
from ._imported import said
from ._output import (
    Answer,
    Misuse,
    OutputError,
    closing_rows,
    error_line,
    exit_code,
    json_line,
    visible,
)
from ._shared import price_of
from ._terminal import encoded, print_error, print_rows, put, write_all

LOCAL_CONTEXT = 4096
"""Tokens of a local model, for prompt and answer together; memory for them is taken at once."""
STUCK_SECONDS = 0.5
"""Seconds after Ctrl-C that a write to stdout which hangs (in a pager) is waited for."""
Mode = Literal["text", "whole", "json", "raw"]
"""The form of the answer: text as it arrives, text at the end, JSON, or the events' data."""


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the command line names it."""

    name: str
    base_url: str | None
    model: llm.Model | str
    """The model, or the name of a local one."""

    @property
    def variable(self) -> str | None:
        """The environment variable of its key."""
        return variable_of(kind_of(self.name), self.base_url)

    @property
    def secret(self) -> str:
        """Its key."""
        return key_of(kind_of(self.name), self.base_url)


class Ask(Quiet, msgspec.Struct, frozen=True, kw_only=True):
    """The options of one ``chat`` command, parsed and checked: what all its requests share."""

    params: dict[str, Any]
    """Typed parameters, without those that were not given."""
    extra: dict[str, Any]
    """Further fields of the body."""
    timeouts: llm.Timeouts
    retry: llm.Retry
    lenient: bool
    mode: Mode
    quiet: bool
    ledger: RunLedger
    observer: llm.Observer | None = None

    @property
    def form(self) -> llm.JSONSchema | None:
        """The format that answers are checked with."""
        return self.params.get("response_format")


class TextView:
    """The text to show for each chunk, on a terminal with the reasoning, dimmed if possible."""

    def __init__(self, *, terminal: bool, styled: bool = False) -> None:
        self._terminal = terminal
        self._styled = styled
        self._thinking = False
        self._last = "\n"

    def show(self, chunk: llm.StreamChunk) -> str:
        """Return the text to write for this chunk, which may be empty."""
        if not self._terminal:
            return self._kept(chunk.delta)
        out = ""
        if chunk.reasoning:
            thought = self._kept(visible(chunk.reasoning))
            # Each piece is dimmed by itself, so that the terminal never stays dim.
            out = f"\x1b[2m{thought}\x1b[0m" if self._styled else thought
            self._thinking = True
        if chunk.delta:
            out += self.end() + "\n" if self._thinking else ""
            out += self._kept(visible(chunk.delta))
            self._thinking = False
        return out

    def end(self) -> str:
        """Return what completes the last line: a newline, or nothing."""
        return "" if self._last == "\n" else "\n"

    def _kept(self, text: str) -> str:
        self._last = text[-1:] or self._last
        return text


class Interrupt:
    """The end of an answer that a signal asks for."""

    def __init__(self) -> None:
        self.happened: signal.Signals | None = None
        self.stream: llm.TrackedStream | None = None
        self.scope = trio.CancelScope()

    async def end(self, number: int) -> None:
        """End the stream, so that its reader shows what arrived; then whatever hangs nevertheless."""
        self.happened = signal.Signals(number)
        if self.stream is not None:
            # It ends at once; its cost is waited for elsewhere.
            with suppress(trio.ClosedResourceError), trio.move_on_after(STUCK_SECONDS):
                await self.stream.cancel()
                await trio.sleep_forever()
        self.scope.cancel()


async def stream_answer(
    client: llm.Client,
    model: llm.Model,
    ask: Ask,
    messages: Sequence[llm.Message],
    answer: Answer,
    interrupt: Interrupt,
) -> None:
    """Send a request, show its answer as it arrives, and fill in ``answer.stream``, however it ends.

    Raises what the stream raises, `InvalidAnswer` for a whole answer that is not as ``--schema`` asks,
    and `Misuse` for what the model's wire format does not have.
    """
    try:
        stream = client.stream(
            model,
            messages,
            timeouts=ask.timeouts,
            retry=ask.retry,
            price=price_of(model),
            extra=ask.extra,
            lenient=ask.lenient,
            raw=ask.mode == "raw",
            **ask.params,
        )
    except (ValueError, TypeError) as exc:
        raise Misuse(str(exc)) from exc
    try:
        async with stream:
            interrupt.stream = stream
            await _show(stream, ask.mode)
    finally:
        answer.stream = stream
    if ask.form is not None and stream.outcome is llm.Outcome.FINISHED:
        _check(ask.form, stream.response)


def _check(form: llm.JSONSchema, response: llm.CompletionResponse) -> None:
    """Raise `InvalidAnswer` for an answer that is not as ``--schema`` asks, or that its type refuses."""
    try:
        check_answer(form, response)
    except llm.MiniLLMError:
        raise
    except Exception as exc:  # from the user's own code, such as an assert in __post_init__
        if form.type is None:
            raise
        raise MismatchedAnswer(said(exc), response) from exc


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


def finish(answer: Answer, mode: Mode, quiet: bool, variable: str | None) -> int:
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
