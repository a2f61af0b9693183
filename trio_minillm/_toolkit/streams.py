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
    """A streamed answer. Use it as ``async with client.stream(…) as stream``.

    Guarantees:

    - Neither a task nor a connection outlives the block. Leaving the block is never slow, and an
      exception in the block propagates unchanged.
    - The stream ends with exactly one `Outcome`, which never changes.
    - Iteration yields every chunk of the answer in order. Then it ends, or it raises the error that
      ended the stream, once. The error is a `MiniLLMError`, and its ``partial`` holds what arrived.
    - The properties, such as ``text`` and ``usage``, always match the chunks that you have
      received.
    - Receiving a chunk always checks for cancellation. Other tasks get to run whenever nothing is
      buffered, and at least every 128 chunks.

    Raises `trio.BusyResourceError` if two tasks receive chunks at the same time, ``RuntimeError``
    before the block, and `trio.ClosedResourceError` after it.
    """

    _made_values: Values | None = None

    # -- values while they arrive ----------------------------------------------------------------

    def fields(self, *, repair: bool = False) -> TextView[Field]:
        """Return the top-level fields of the answer's JSON as they arrive: ``async for field in
        …``.

        Each `Field` holds the new part of a field. Iteration covers the answer from its beginning
        to the end of the stream. It skips thoughts, a Markdown fence, and a few words around the
        JSON. If the requested type is not an object, the answer is the field ``answer``.

        ``repair=True`` repairs invalid JSON at the end of the answer, if possible, and marks it as
        ``repaired``. This needs the extra ``repair``, and raises ``ImportError`` without it.

        Raises, after everything valid, `BrokenJSON` if the text is not JSON, `CutJSON` if it was
        cut, `UnexpectedValue` if it does not match the type of ``response_format``, and otherwise
        the error that ended the stream.
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
        """Return the elements of a list in the answer, each as soon as it is complete.

        The list is the answer itself, or its top-level ``field``. ``type`` is the type of the
        elements. The default comes from ``response_format``, or is plain JSON. ``repair`` is as for
        `fields`.

        Raises what `fields` raises, and ``ValueError`` if ``response_format`` has no such list.
        """
        return self._values.answer.values(type, field, repair=repair)

    @overload
    def partial(self, type: type[T], *, repair: bool = False) -> Partial[T]: ...

    @overload
    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]: ...

    def partial(self, type: Any = None, *, repair: bool = False) -> Partial[Any]:
        """Return the answer so far, as a partial value of a type.

        ``type`` is the type of ``response_format`` by default. ``repair`` is as for `fields`. The
        method does not wait and receives no chunks, so you can call it after every chunk. It reads
        only what arrived since the last call, and always returns the same object.
        """
        return self._values.answer.partial(type, repair=repair)

    def calls(self) -> CallsView:
        """Return the tool calls of the answer, each as soon as it starts: ``async for call in …``.

        You can read the parts of a call later; nothing is lost. The iteration ends with the stream,
        and raises the error that ended it.
        """
        return self._values.calls()

    # -- many listeners --------------------------------------------------------------------------

    def broadcast(self, *, buffer: int | None = None, policy: Policy = "block") -> Broadcast:
        """Return a hub through which any number of tasks can listen to the complete stream.

        Use it as ``async with stream.broadcast() as hub``, and call ``hub.subscribe()`` for each
        listener. While the hub reads the stream, no other task can receive chunks from it.

        - ``buffer`` is the number of chunks by which a listener may fall behind; the default is
          1,024.
        - ``policy`` says what happens to a listener that falls further behind. The others wait for
          it (``"block"``), it loses the oldest chunks (``"drop_oldest"``), or it is removed
          (``"detach"``).

        Each listener can override both. Raises the same errors as receiving a chunk outside the
        stream's block.
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
    """The stream that `Client.stream` returns. Each of its attempts is recorded in the client's
    ledger.

    Guarantees, in addition to those of `StreamingCompletion`:

    - Each attempt is in ``client.ledger`` once, as soon as its outcome is known and before anything
      waits, so no cancellation loses it. Attempts that failed and were retried are included.
    - Finished and cancelled attempts count towards the total, and ``on_cost`` is called once for
      each. Truncated, errored, and rejected attempts are only listed, and marked as such.
    - Leaving the block never waits for a provider. If the final cost needs a lookup, the client's
      nursery does it. `cancel` and `collect_or_cancel` wait for the result.
    """

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
