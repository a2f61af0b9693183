"""One call of a tool: the function that it names, and its result in a form that a model can read."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import isawaitable, iscoroutinefunction
from typing import Any

import msgspec
import trio

from ..._protocol.redaction import redact_text, secrets_of
from ..._types.checks import check_count
from ..._types.messages import DocumentPart, ImagePart, TextPart, ToolCall, ToolResult
from ..._types.tools import Tool, tools_of
from ...providers import Model

MOST_WORDS = 2_000
"""Characters of an exception's words that a model is shown: enough to tell it what to do otherwise, and
few enough not to be a page of a server's."""

_PARTS = TextPart, ImagePart, DocumentPart


class ToolCaller:
    """The tools of a loop, and the rules by which their functions are called.

    ``shows`` says that what a function raises is a result; ``threads``, that functions that are not async
    run in threads; the keys of ``models`` are blanked out in what is shown.
    """

    def __init__(
        self,
        tools: Iterable[Any],
        *,
        max_parallel: int,
        shows: bool,
        threads: bool,
        models: Iterable[Model],
    ) -> None:
        check_count("max_parallel", max_parallel)
        self._tools: dict[str, Tool] = {}
        for one in tools_of(list(tools)):
            if not isinstance(one, Tool):
                continue  # the provider's own, which it runs
            if one.function is None:
                raise TypeError(f"tool {one.name!r} was not made from a function: it can't be run")
            self._tools[one.name] = one
        if not self._tools:
            raise TypeError("run_tools needs tools=: at least one function")
        self._max_parallel = max_parallel
        self._shows = shows
        self._threads = threads
        # Made here: what prints variables must not show them.
        self._secrets = [s for m in models for s in secrets_of(m.api_key, m.headers.values())]

    def new_limit(self) -> trio.Semaphore:
        """Return the limit of the calls of one turn."""
        return trio.Semaphore(self._max_parallel)

    async def result_of(self, call: ToolCall) -> ToolResult:
        """Run a call and return its result; or the error, in words, as the result.

        Raises what the function raises unless that is shown. A checkpoint.
        """
        await trio.lowlevel.checkpoint()
        tool = self._tools.get(call.name)
        if tool is None:
            known = ", ".join(self._tools)
            return _result(
                call, [f"there is no tool {call.name!r}; there are: {known}"], error=True
            )
        try:
            tool.read(call)
        except msgspec.DecodeError as exc:
            return _result(call, [self._shown("the arguments are wrong", exc)], error=True)
        try:
            value = await self._value(tool, call)
            return _result(call, _content(value))
        except Exception as exc:
            if not self._shows:
                raise
            return _result(call, [self._shown(type(exc).__name__, exc)], error=True)
        except BaseExceptionGroup as exc:  # tasks of its own, cancelled as one of them failed
            cancelled, failed = exc.split(trio.Cancelled)
            if cancelled is None or not self._shows or not isinstance(failed, Exception):
                raise
            raise cancelled from None

    async def _value(self, tool: Tool, call: ToolCall) -> Any:
        if self._threads and not iscoroutinefunction(tool.function):
            value = await trio.to_thread.run_sync(tool.call, call)
        else:
            value = tool.call(call)
        return await value if isawaitable(value) else value

    def _shown(self, what: str, error: Exception) -> str:
        return f"{what}: {redact_text(str(error), self._secrets)[:MOST_WORDS]}"


def _content(value: Any) -> list[Any]:
    """Return what a function returned as text and parts; JSON of what is neither."""
    if isinstance(value, (str, *_PARTS)):
        return [value]
    if isinstance(value, list | tuple) and any(isinstance(one, _PARTS) for one in value):
        return list(value)
    return [msgspec.json.encode(value, enc_hook=_plain).decode()]


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # pydantic's
        return value.model_dump(mode="json")
    raise TypeError(
        f"the tool returned a value of type {type(value).__name__}, which JSON can't represent"
    )


def _result(call: ToolCall, content: Iterable[Any], *, error: bool = False) -> ToolResult:
    parts = tuple(TextPart(one) if isinstance(one, str) else one for one in content)
    return ToolResult(call_id=call.id, name=call.name, content=parts, is_error=error)
