"""Tool calls while they are being written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from ..._protocol.calls import CallBuilder
from ..._protocol.ingest import Ingest
from ..._types.messages import ToolCall
from ..._types.tools import Tool
from .partial import Partial
from .shapes import Field
from .sources import CallSource
from .targets import Target
from .views import Pump, TextView, View

T = TypeVar("T")


class StreamedCall:
    """A tool call that is still being written; ``stream.calls()`` yields it as soon as it starts.

    Do not run anything before the answer is over. `tool_call` is then the call, if it can be run.
    """

    def __init__(self, pump: Pump, builder: CallBuilder, tool: Tool | None) -> None:
        self._pump = pump
        self._builder = builder
        self._tool = tool
        self._result: tuple[ToolCall | None, bool] | None = None
        type = None if tool is None else tool.type
        self._target = Target(pump, lambda: CallSource(builder), type, call=True)

    @property
    def id(self) -> str:
        """The id that the server gave the call, or ``""``; the id of `tool_call` once that is
        known.
        """
        made, _ = self._made()
        return made.id if made is not None else self._builder.id or ""

    @property
    def name(self) -> str:
        """The name of the tool so far. It almost always arrives complete."""
        return self._builder.name or ""

    @property
    def index(self) -> int | None:
        """The number of the call in the answer, if the server sends one."""
        return self._builder.index

    @property
    def tool(self) -> Tool | None:
        """The request's tool with that name, if there is one."""
        return self._tool

    @property
    def arguments(self) -> str:
        """The text of the arguments so far. Reading it takes time in proportion to its length."""
        return self._builder.joined()

    @property
    def tool_call(self) -> ToolCall | None:
        """The call from ``response.tool_calls``, once the answer is over and if the call can be
        run.
        """
        made, runnable = self._made()
        return made if runnable else None

    @property
    def runnable(self) -> bool | None:
        """True if the call can be run, False if it must not be, and ``None`` until the answer is
        over.
        """
        return None if not self._pump.stream.is_finished else self.tool_call is not None

    def fields(self, *, repair: bool = False) -> TextView[Field]:
        """Return the fields of the arguments as they arrive: ``async for field in …``.

        This works like `StreamingCompletion.fields`, but ends with the arguments and not with the
        answer.
        """
        return self._target.fields(repair=repair)

    @overload
    def values(
        self, type: type[T], *, field: str | None = None, repair: bool = False
    ) -> TextView[T]: ...

    @overload
    def values(
        self, type: Any = None, *, field: str | None = None, repair: bool = False
    ) -> TextView[Any]: ...

    def values(
        self, type: Any = None, *, field: str | None = None, repair: bool = False
    ) -> TextView[Any]:
        """Return the elements of a list in the arguments, each as soon as it is complete.

        This works like `StreamingCompletion.values`; ``field`` names the argument that is the list.
        """
        return self._target.values(type, field, repair=repair)

    @overload
    def partial(self, type: type[T], *, repair: bool = False) -> Partial[T]: ...

    @overload
    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]: ...

    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]:
        """Return the arguments so far; see `StreamingCompletion.partial`."""
        return self._target.partial(type, repair=repair)

    def __repr__(self) -> str:
        return f"<StreamedCall {self.name}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)

    def _made(self) -> tuple[ToolCall | None, bool]:
        """Return the call that it has become, and whether that can be run."""
        if self._result is None:
            stream = self._pump.stream
            if not stream.is_finished:
                return None, False
            choice = stream.response.choices[0]
            made = made_of(choice.parts, self._pump.ingest()).get(self._builder)
            self._result = made, any(made is one for one in choice.tool_calls)
        return self._result


def made_of(parts: Sequence[Any], ingest: Ingest) -> dict[CallBuilder, ToolCall]:
    """Return the calls of a response by the builders that they were made of.

    A builder without one was a copy of another, or said nothing.
    """
    left = [part for part in parts if isinstance(part, ToolCall)]
    out: dict[CallBuilder, ToolCall] = {}
    for builder in builders_of(ingest):
        text = builder.call("").arguments
        for number, call in enumerate(left):
            if (call.name, call.arguments) == (builder.name or "", text) and (
                not builder.id or call.id.startswith(builder.id)
            ):
                out[builder] = left.pop(number)
                break
    return out


def builders_of(ingest: Ingest) -> list[CallBuilder]:
    """Return the calls of the first choice, in the order in which they began."""
    return [
        call
        for choice in ingest.followed()
        if choice.extras is not None
        for call in choice.extras.calls.all
    ]


class CallsView(View[StreamedCall]):
    """The tool calls of an answer, each as it begins."""

    def __init__(self, pump: Pump, call_of: Callable[[CallBuilder], StreamedCall]) -> None:
        super().__init__(pump)
        self._call_of = call_of
        self._given: set[CallBuilder] = set()

    def _look(self) -> bool:
        over = self._pump.over
        found = builders_of(self._pump.ingest())
        if len(found) > len(self._given) or over:
            for builder in found:
                if builder not in self._given and (builder.name or (over and not builder.blank)):
                    self._given.add(builder)
                    self._ready.append(self._call_of(builder))
        if over:
            self._ended, self._failure = True, self._pump.failure
        return bool(self._ready) or self._ended
