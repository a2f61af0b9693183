"""The loop of a model with tools: ask, run the calls side by side, send the results back, ask again."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import trio

from ..._protocol.reasons import pauses
from ..._protocol.request import Messages
from ..._stream.background import Background, raise_crash
from ..._types.checks import check_count, check_seconds, check_type
from ..._types.chunks import StreamChunk
from ..._types.errors import BudgetExceeded, MiniLLMError
from ..._types.messages import Message, ToolCall, ToolResult, tool_result
from ..._types.openai_messages import messages_of
from ..._types.response import FINISHED, CompletionResponse
from ...providers import Model
from ..choices.choice import ModelChoice
from ..streams import TrackedStream
from .tool_calls import ToolCaller

ToolStep: TypeAlias = StreamChunk | ToolCall | ToolResult
ToolsOutcome: TypeAlias = Literal[
    "finished", "max_steps", "total", "limits", "invalid_calls", "failed", "cancelled"
]

NOT_FINISHED = "not finished: the program stopped before this call had a result"


class ToolLoopError(MiniLLMError):
    """A `ToolRun` ended without an answer.

    ``reason`` is the outcome of the run: ``max_steps``, ``total``, or ``invalid_calls``.
    """

    def __init__(self, reason: ToolsOutcome, message: str) -> None:
        super().__init__(message)
        self.reason: ToolsOutcome = reason


class ToolRun:
    """A model's answer, with all the tool calls on the way to it; `Client.run_tools` returns it.

    Use it as ``async with client.run_tools(…) as run: async for step in run``. A step is a chunk
    (`StreamChunk`), a call that is about to run (`ToolCall`), or its result (`ToolResult`).

    Guarantees:

    - Nothing outlives the block. Leaving it cancels the running stream or calls.
    - You can send ``messages`` at any time. A turn with calls is in it once each call has a result,
      and a call that was stopped has a result that says so.
    - An exception in the block propagates unchanged, as does an exception of a tool
      (``errors="raise"``). Two failures are raised as a group.
    """

    def __init__(
        self,
        ask: Callable[[list[Message], bool], TrackedStream],
        messages: Messages,
        caller: ToolCaller,
        *,
        max_steps: int,
        total: float | None,
    ) -> None:
        self.messages: list[Message] = list(messages_of(messages))
        """The history: what was given, whole turns of the model, and the results of their calls."""
        self.response: CompletionResponse | None = None
        """The newest answer, as far as it has come."""
        self.outcome: ToolsOutcome | None = None
        """The way in which the loop ended; ``None`` while it runs."""
        self._ask = ask
        self._caller = caller
        self._max_steps = max_steps
        self._total = math.inf if total is None else total
        # Misuse is raised by the call, not in the block.
        self._next: TrackedStream | None = ask(self.messages, True)
        self._background: Background | None = None
        self._scope = trio.CancelScope()
        self._send, self._receive = trio.open_memory_channel[list[ToolStep]](0)
        self._steps: deque[ToolStep] = deque()
        self._error: BaseException | None = None  # not raised yet

    # -- the block ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._background is not None:
            raise RuntimeError("a run can be entered only once")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._background = Background()
        await self._background.start(self._run, "trio_minillm tools")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        assert self._background is not None
        self._scope.cancel()
        try:
            await self._background.join()
        finally:
            self._receive.close()
        error, self._error = self._error, None
        try:
            if error is not None and not isinstance(error, MiniLLMError):  # as a stream's block
                raise_crash(error, exc, "the block and a tool both failed")
        finally:
            del error

    # -- taking steps ------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolStep:
        if self._background is None:
            raise RuntimeError("use the run as `async with client.run_tools(…) as run`")
        if self._steps:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._steps:
            try:
                self._steps += await self._receive.receive()
            except trio.EndOfChannel:
                error, self._error = self._error, None
                if error is None:
                    raise StopAsyncIteration from None
                try:
                    raise error from error.__cause__
                finally:
                    del error  # or its traceback and this frame keep each other alive
        return self._steps.popleft()

    async def collect(self) -> CompletionResponse:
        """Receive all remaining steps, and return the last answer.

        Raises the error that ended the loop without an answer.
        """
        async for _ in self:
            pass
        if self.response is None or self.outcome != "finished":
            raise trio.ClosedResourceError("the run ended without an answer")
        return self.response

    # -- in the task -------------------------------------------------------------------------

    async def _run(self) -> None:
        """Go round until there is an answer. Never raises: what ended it is kept for the block."""
        try:
            with self._scope, trio.move_on_at(trio.current_time() + self._total) as clock:
                await self._go_round()
            if clock.cancelled_caught and self.outcome is None:
                raise ToolLoopError("total", f"no answer within {self._total:g} s")
        except trio.Cancelled:
            pass
        except BaseException as exc:  # noqa: BLE001 - raised by the block
            self._error = _alone(exc)
            self.outcome = _outcome_of(self._error)
        finally:
            self.outcome = self.outcome or "cancelled"
            self._send.close()

    async def _go_round(self) -> None:
        for _ in range(self._max_steps):
            response = await self._answer()
            if response.outcome is not FINISHED:  # the client was closed meanwhile
                return
            if response.invalid_tool_calls:
                reason = f"calls that can't be run; finish reason: {response.finish_reason}"
                raise ToolLoopError("invalid_calls", reason)
            if not response.tool_calls:
                self.messages.append(response.to_message())
                if pauses(response.finish_reason):
                    continue
                self.outcome = "finished"
                return
            await self._call_all(response)
        raise ToolLoopError("max_steps", f"no answer after {self._max_steps} requests")

    async def _answer(self) -> CompletionResponse:
        stream, self._next = self._next or self._ask(self.messages, False), None
        try:
            async with stream:
                while chunks := await stream.next_chunks():
                    await self._send.send([*chunks])
        finally:
            self.response = stream.response
        return self.response

    async def _call_all(self, response: CompletionResponse) -> None:
        """Run the calls of an answer side by side, and add them with their results to the history."""
        results: dict[int, ToolResult] = {}
        limit = self._caller.new_limit()

        async def call_one(number: int, call: ToolCall) -> None:
            try:
                results[number] = await self._caller.result_of(call)
            finally:
                limit.release()
            await self._send.send([results[number]])

        try:
            await self._send.send([*response.tool_calls])
            async with trio.open_nursery() as nursery:
                for number, call in enumerate(response.tool_calls):
                    await limit.acquire()  # here, so that they begin in their order
                    nursery.start_soon(call_one, number, call)
        finally:
            self.messages.append(response.to_message())
            for number, call in enumerate(response.tool_calls):
                if number in results:
                    made = Message(role="tool", parts=(results[number],))
                else:
                    made = tool_result(call, NOT_FINISHED, is_error=True)
                self.messages.append(made)


def new_run(
    stream: Callable[..., TrackedStream],
    model: Model | ModelChoice,
    messages: Messages,
    options: dict[str, Any],
    *,
    max_steps: int,
    max_parallel: int,
    total: float | None,
    errors: Literal["show", "raise"],
    threads: bool,
) -> ToolRun:
    """Return the run of `Client.run_tools`; ``stream`` is the client's method, ``options`` are for it."""
    models = model.all if isinstance(model, ModelChoice) else (model,)
    for one in models:
        check_type("model", one, Model)
    check_count("max_steps", max_steps)
    if total is not None:
        check_seconds("total", total)
    if errors not in ("show", "raise"):
        raise ValueError("errors must be 'show' or 'raise'")
    if options.get("n") not in (None, 1):
        raise ValueError("run_tools continues with one answer: leave out n")
    later = dict(options)
    if options.get("tool_choice") not in (None, "auto", "none"):
        del later["tool_choice"]

    def ask(history: list[Message], first: bool) -> TrackedStream:
        return stream(model, tuple(history), **(options if first else later))

    caller = ToolCaller(
        options.get("tools") or (),
        max_parallel=max_parallel,
        shows=errors == "show",
        threads=threads,
        models=models,
    )
    return ToolRun(ask, messages, caller, max_steps=max_steps, total=total)


def _alone(error: BaseException) -> BaseException | None:
    """Return what tasks have raised, without cancellations; a single exception without its group."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    _, rest = error.split(trio.Cancelled)
    if rest is not None and len(rest.exceptions) == 1:
        return rest.exceptions[0]
    return rest


def _outcome_of(error: BaseException | None) -> ToolsOutcome | None:
    if isinstance(error, ToolLoopError):
        return error.reason
    if isinstance(error, BudgetExceeded):
        return "limits"
    return None if error is None else "failed"
