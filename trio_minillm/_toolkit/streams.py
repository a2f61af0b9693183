"""The streams that users hold: those of `_stream`, with the methods that lead to this room.

What a method needs is imported by its first call, so that a program pays only for what it uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._protocol.ingest import Ingest
from .._stream import stream, tracked
from .._types.errors import MiniLLMError

if TYPE_CHECKING:
    from .listeners.broadcast import Broadcast
    from .listeners.listener import Policy
    from .values.calls import CallsView
    from .values.partial import Partial
    from .values.shapes import Field
    from .values.values import Values
    from .values.views import TextView

T = TypeVar("T")


class StreamingCompletion(stream.StreamingCompletion):
    __doc__ = stream.StreamingCompletion.__doc__

    _made_values: Values | None = None

    # -- values while they arrive ----------------------------------------------------------------

    def fields(self, *, repair: bool = False) -> TextView[Field]:
        """Return the top-level fields of the answer's JSON as they arrive: ``async for field in …``.

        Each `Field` has what is new of it. It is read from the beginning of the answer, up to the end of
        the stream. Thoughts, a fence or a few words around the JSON are passed over. An answer that was
        asked for in an object, since its type is none, is the field ``answer``.

        Raises, behind all that is good, `BrokenJSON` where the text is not JSON, or is cut (`CutJSON`), or
        does not match the type of the ``response_format`` (`UnexpectedValue`); and the error that ended
        the stream. With ``repair``, what the model broke is mended when the answer is over, if it can be,
        and marked ``repaired``: ``ImportError`` without the extra ``repair``.
        """
        return self._values.answer.fields(repair=repair)

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
        """Return the elements of a list in the answer, each as soon as it is whole.

        The list is the answer itself, or its top-level ``field``. ``type`` is that of the elements; by
        default what the ``response_format`` says, or else plain JSON.

        Raises what iteration over `fields` does, and ``ValueError`` where the ``response_format`` has no
        such list.
        """
        return self._values.answer.values(type, field, repair=repair)

    @overload
    def partial(self, type: type[T], *, repair: bool = False) -> Partial[T]: ...

    @overload
    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]: ...

    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]:
        """Return the answer as far as it has come, as a partial value of a type.

        ``type`` is by default that of the ``response_format``. It does not wait, and takes no chunks: call
        it whenever chunks were taken, after each if need be. It reads only what has come since the
        last call, and returns the same object each time.
        """
        return self._values.answer.partial(type, repair=repair)

    def calls(self) -> CallsView:
        """Return the tool calls of the answer, each as it begins: ``async for call in …``.

        What a call's own views do not read at once stays there for later. The iteration ends with the
        stream, and raises the error that ended it.
        """
        return self._values.calls()

    # -- many listeners --------------------------------------------------------------------------

    def broadcast(self, *, buffer: int | None = None, policy: Policy = "block") -> Broadcast:
        """Return a hub through which any number of tasks listen to this stream, each in full:
        ``async with stream.broadcast() as hub``, then ``hub.subscribe()`` for each of them.

        ``buffer`` is the number of chunks that a listener may be behind (1,024), and ``policy`` says
        what becomes of one that is: the others wait for it (``"block"``), it goes without the oldest
        (``"drop_oldest"``), or it is sent away (``"detach"``). Both can be set for each listener. While
        the hub reads, nobody else takes chunks from the stream.

        Raises what taking a chunk raises outside of the stream's block.
        """
        from .listeners.broadcast import BUFFERED_CHUNKS, Broadcast

        self._check_open()
        return Broadcast(self, BUFFERED_CHUNKS if buffer is None else buffer, policy)

    # -- inside ----------------------------------------------------------------------------------

    @property
    def _tools(self) -> Sequence[Any]:
        return ()

    @property
    def _folded(self) -> Ingest:
        """The machine of the answer."""
        return self._ingest

    @property
    def _values(self) -> Values:
        if self._made_values is None:
            from .values.values import Values
            from .values.views import Pump

            pump = Pump(self, lambda: self._folded, self._next_batch)
            self._made_values = Values(pump, self._response_type, self._tools)
        return self._made_values


class TrackedStream(tracked.TrackedStream, StreamingCompletion):
    __doc__ = tracked.TrackedStream.__doc__

    if not TYPE_CHECKING:  # streams that no client of ours has sent are booked nowhere
        from_channel = StreamingCompletion.from_channel
        from_event_source = StreamingCompletion.from_event_source

    def _attempt_failed(self, error: MiniLLMError) -> None:
        super()._attempt_failed(error)
        from .observers.log_records import log_retry

        log_retry(self._records[-1], self._asked, error)

    @property
    def _tools(self) -> Sequence[Any]:
        return self._task.tools
