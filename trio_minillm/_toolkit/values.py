"""Values of an answer, and of its tool calls, while they arrive.

All views of one stream share a `Pump`, which takes the stream's chunks for whichever view needs more.
They can be used one after the other, one inside another, and by several tasks at once: what one does
not read lies in the answer until it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import trio
from trio.lowlevel import checkpoint, checkpoint_if_cancelled

from .._protocol.calls import CallBuilder
from .._protocol.ingest import Ingest
from .._stream.stream import YIELD_EVERY, StreamingCompletion
from .._types.errors import MiniLLMError
from .._types.messages import ToolCall
from .._types.response import FINISHED
from .._types.schemas import is_wrapped
from .._types.tools import Tool, tools_of
from .broken import BrokenJSON
from .field_types import element_of, fields_of, holds_list
from .partial import Partial, PartialShape
from .reading import Reading
from .repair import Mender, needs_library
from .shapes import ElementShape, Field, FieldShape, Shape
from .sources import CallSource, ContentSource, Source

T = TypeVar("T")


class Pump:
    """Takes the chunks of one stream for all of its views, one task at a time."""

    def __init__(
        self,
        stream: StreamingCompletion,
        ingest: Ingest,
        take: Callable[[], Awaitable[Sequence[Any]]],
    ) -> None:
        self.stream: StreamingCompletion = stream
        self.ingest: Ingest = ingest
        self.over: bool = False
        """True once nothing more comes."""
        self._take = take
        self._busy = False
        self._waiting = trio.lowlevel.ParkingLot()

    async def more(self) -> None:
        """Wait until more has come, or nothing more will. A checkpoint."""
        if self.over:
            await checkpoint()
            return
        if self._busy:
            await self._waiting.park()
            return
        self._busy = True
        try:
            self.over = not await self._take()
        except MiniLLMError as error:
            if error is not self.stream.error:
                raise
            self.over = True  # each view raises it behind what it has
        except trio.ClosedResourceError:
            if not self.stream.is_finished:
                raise
            self.over = True
            await checkpoint()
        finally:
            self._busy = False
            self._waiting.unpark_all()

    @property
    def failure(self) -> MiniLLMError | None:
        """The error that ended the stream, unless the answer is whole."""
        return None if self.stream.outcome is FINISHED else self.stream.error


class View(Generic[T]):
    """Values that are ready, and the wait for more; the base of all that is iterated over."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._ready: deque[T] = deque()
        self._ended = False
        self._failure: Exception | None = None
        self._busy = False
        self._taken = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """Return the next value. A checkpoint."""
        if self._busy:
            raise trio.BusyResourceError("another task is iterating over this view")
        self._busy = True
        waited = False
        try:
            while True:
                if self._ready:
                    if not waited:
                        self._taken += 1
                        if self._taken % YIELD_EVERY:
                            await checkpoint_if_cancelled()
                        else:
                            await checkpoint()
                    return self._ready.popleft()
                if self._ended:
                    if not waited:
                        await checkpoint()
                    failure, self._failure = self._failure, None
                    if failure is not None:
                        raise failure
                    raise StopAsyncIteration
                if not self._look():
                    await self._pump.more()
                    waited = True
        finally:
            self._busy = False

    def _look(self) -> bool:
        """Read what has come meanwhile; return False if that was nothing and more may come."""
        raise NotImplementedError


class TextView(View[T]):
    """A view of what one text holds."""

    def __init__(
        self,
        pump: Pump,
        source: Source,
        make: Callable[[], Shape[T]],
        *,
        early: bool = False,
        mender: Mender[T] | None = None,
    ) -> None:
        super().__init__(pump)
        self._source = source
        self._reading: Reading[T] = Reading(make)
        self._early = early  # it ends with the JSON, and not with the answer
        self._mender = mender

    @property
    def repaired(self) -> bool:
        """True if the model did not write what was handed out last like this: it was mended."""
        return self._mender is not None and self._mender.done

    def _look(self) -> bool:
        source, reading, over = self._source, self._reading, self._pump.over
        if text := source.take():
            if source.restarted is not None and not reading.given:
                reading.restart(source.restarted)
            self._give(reading.feed(text))
        if reading.broken is not None and self._mender is None:
            self._end(reading.broken)
        elif self._early and reading.over and reading.given:
            self._end(None)
        elif over:
            self._finish()
        return bool(self._ready) or self._ended

    def _give(self, values: list[T]) -> None:
        self._ready.extend(values)
        if self._mender is not None:
            self._mender.note(values)

    def _finish(self) -> None:
        failure, reading = self._pump.failure, self._reading
        if failure is not None or self._pump.stream.outcome is not FINISHED:
            self._end(failure)
            return
        self._give(reading.finish(self._source))
        error = reading.broken
        if error is not None and self._mender is not None:
            self._ready.extend(self._mender.mended(self._source.final()))
            error = None if self._mender.done else error
        if error is not None:
            self._end(_explained(error, self._source, self._pump.stream))
        else:
            self._end(None)

    def _end(self, failure: Exception | None) -> None:
        self._ended, self._failure = True, failure
        if isinstance(failure, BrokenJSON):
            failure.partial = self._pump.stream.response


def _explained(error: BrokenJSON, source: Source, stream: StreamingCompletion) -> BrokenJSON:
    """Return the error of an answer without any JSON, in the words of `CompletionResponse.parsed`."""
    if source.whole().strip() or isinstance(source, CallSource):
        return error
    try:
        stream.response.parsed(Any)
    except ValueError as why:
        return type(error)(str(why), position=error.position)
    return error


class Target:
    """One text to be read, with the type of its JSON: what all the ways to look at it share."""

    def __init__(
        self,
        pump: Pump,
        source: Callable[[], Source],
        type: Any,
        *,
        asked: Any = None,
        call: bool = False,
    ) -> None:
        self.pump: Pump = pump
        self._source = source
        self._type = type
        self._asked = asked
        self._call = call
        self._wrapped = asked is not None and not call and is_wrapped(asked)
        self._partials: list[Partial[Any]] = []

    def fields(self, *, repair: bool) -> TextView[Field]:
        """Return the fields of the object."""

        def make() -> FieldShape:
            types = {} if self._wrapped or self._type is None else fields_of(self._type)
            return FieldShape(types, wrapped=self._wrapped, type=self._type, loose=self._call)

        return self._view(make, repair=repair)

    def values(self, type: Any, field: str | None, *, repair: bool) -> TextView[Any]:
        """Return the elements of a list."""
        mine, wrapped = self._type, self._wrapped and field is None
        if field is not None and mine is not None:
            types = fields_of(mine)
            if types and field not in types:
                raise ValueError(f"the type has no field {field!r}")
            mine = types.get(field)
        elif field is None and mine is not None and fields_of(mine):
            raise ValueError("the answer is an object: name the field with the list, field=…")
        if mine is not None and mine is not Any and not holds_list(mine) and mine is not dict:
            raise ValueError("that value is no list")
        element = element_of(mine) if type is None and mine is not None else type

        def make() -> ElementShape:
            return ElementShape(element, field=field, wrapped=wrapped, loose=self._call)

        return self._view(make, repair=repair)

    def partial(self, type: Any, *, repair: bool) -> Partial[Any]:
        """Return the partial of a type, with all that has come by now."""
        type = self._type if type is None else type
        found = next((p for p in self._partials if p.is_of(type, repair=repair)), None)
        if found is None:
            needs_library(repair)
            types = {} if self._wrapped or type is None else fields_of(type)

            def make() -> PartialShape:
                return PartialShape(types, wrapped=self._wrapped, type=type, loose=self._call)

            found = Partial(make, self._source(), type, self._asked, repair=repair)
            self._partials.append(found)
        stream = self.pump.stream
        found.update(finished=stream.outcome is FINISHED)
        return found

    def _view(self, make: Callable[[], Shape[Any]], *, repair: bool) -> TextView[Any]:
        needs_library(repair)
        mender = Mender(make) if repair else None
        return TextView(self.pump, self._source(), make, early=self._call, mender=mender)


class StreamedCall:
    """A tool call that is still being written; `Values.calls` hands it out as it begins.

    Nothing of it may be run before the answer is over: `tool_call` then is the call, if it can be run.
    """

    def __init__(self, pump: Pump, builder: CallBuilder, tool: Tool | None) -> None:
        self._pump = pump
        self._builder = builder
        self._tool = tool
        type = None if tool is None else tool.type
        self._target = Target(pump, lambda: CallSource(builder), type, call=True)

    @property
    def id(self) -> str:
        """The id that the server gave it, or ``""``; that of `tool_call`, once that is known."""
        made = self._made()
        return made.id if made is not None else self._builder.id or ""

    @property
    def name(self) -> str:
        """The name of the tool, as far as it has come (almost always all of it)."""
        return self._builder.name or ""

    @property
    def index(self) -> int | None:
        """The call's number in the answer, if the server gives one."""
        return self._builder.index

    @property
    def tool(self) -> Tool | None:
        """The tool of the request that it calls, if there is one of that name."""
        return self._tool

    @property
    def arguments(self) -> str:
        """The text of the arguments so far. It takes time in proportion to that text."""
        return self._builder.joined()

    @property
    def tool_call(self) -> ToolCall | None:
        """The call, once the answer is over and if it can be run: one of ``response.tool_calls``."""
        made = self._made()
        runnable = self._pump.stream.response.tool_calls if made is not None else ()
        return made if any(made is one for one in runnable) else None

    @property
    def runnable(self) -> bool | None:
        """Whether it can be run; ``None`` until the answer is over."""
        return None if not self._pump.stream.is_finished else self.tool_call is not None

    def fields(self, *, repair: bool = False) -> TextView[Field]:
        """Return the fields of the arguments as they arrive, for ``async for``.

        As `StreamingCompletion.fields`; it ends with the arguments, and not with the answer.
        """
        return self._target.fields(repair=repair)

    def values(
        self, type: Any = None, *, field: str | None = None, repair: bool = False
    ) -> TextView[Any]:
        """Return the elements of a list in the arguments, each as soon as it is whole.

        As `StreamingCompletion.values`; ``field`` names the argument that is the list.
        """
        return self._target.values(type, field, repair=repair)

    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]:
        """Return the arguments as far as they have come; see `StreamingCompletion.partial`."""
        return self._target.partial(type, repair=repair)

    def __repr__(self) -> str:
        return f"<StreamedCall {self.name}>"

    def __rich_repr__(self) -> Any:
        yield repr(self)

    def _made(self) -> ToolCall | None:
        stream = self._pump.stream
        if not stream.is_finished:
            return None
        return made_of(stream.response.choices[0].parts, self._pump.ingest).get(self._builder)


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
        self._known = 0  # calls that were looked at when all of them had been given

    def _look(self) -> bool:
        over = self._pump.over
        found = builders_of(self._pump.ingest)
        if len(found) > len(self._given) or over:
            for builder in found:
                if builder not in self._given and (builder.name or (over and not builder.blank)):
                    self._given.add(builder)
                    self._ready.append(self._call_of(builder))
        if over:
            self._ended, self._failure = True, self._pump.failure
        return bool(self._ready) or self._ended


class Values:
    """All the views of one stream."""

    def __init__(self, pump: Pump, type: Any, tools: Sequence[Any]) -> None:
        self._pump = pump
        self._type = type
        self._tools = tools
        self._by_name: dict[str, Tool] | None = None
        self._calls: dict[CallBuilder, StreamedCall] = {}
        self.answer: Target = Target(pump, lambda: ContentSource(pump.ingest), type, asked=type)
        """The answer's text."""

    def calls(self) -> CallsView:
        """Return the tool calls, each as it begins."""
        return CallsView(self._pump, self._call_of)

    def _call_of(self, builder: CallBuilder) -> StreamedCall:
        if self._by_name is None:
            tools = [one for one in tools_of(self._tools) if isinstance(one, Tool)]
            self._by_name = {one.name: one for one in tools}
        if builder not in self._calls:
            tool = self._by_name.get(builder.name or "")
            self._calls[builder] = StreamedCall(self._pump, builder, tool)
        return self._calls[builder]
