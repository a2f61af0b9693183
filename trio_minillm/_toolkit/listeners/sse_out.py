"""A stream, of whatever wire, as the server-sent events of OpenAI's chat completions."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import trio

from ..._stream.stream import StreamingCompletion
from ..._types.checks import check_function, check_seconds, check_type
from ..._types.chunks import StreamChunk
from ..._types.errors import MiniLLMError
from .chat_events import ChatEvents, type_and_code
from .history import chunks_of
from .listener import Listener

if TYPE_CHECKING:
    from typing import Self

KEEP_ALIVE = 15.0
"""Seconds of silence after which a comment is sent: proxies close connections that are silent for 30 to
60 s."""
_COMMENT = b": keep-alive\n\n"


def sse_of(
    stream: StreamingCompletion | Listener,
    *,
    keep_alive: float | None = KEEP_ALIVE,
    usage: bool = True,
    describe: Callable[[Exception], str] = str,
) -> SSEBody:
    """Return a stream as the body of a response in OpenAI's chat-completions format.

    Use it as ``async for data in sse_of(stream)`` in a web program, whose clients may be any that
    speak OpenAI's format.

    - ``stream`` is a stream from any provider, or a listener of one.
    - ``keep_alive`` is the number of seconds of silence after which a comment is sent; ``None``
      sends none.
    - ``usage=False`` leaves out the usage.
    - ``describe`` returns the message for an error. The default is the error's own message.

    Text, reasoning (``reasoning_content``), refusals, tool calls, images, and audio are sent as
    they arrive. A finished answer ends with the finish reasons, in OpenAI's words, the usage, and
    ``[DONE]``. Any other end is an event ``{"error": …}`` without ``[DONE]``, so that no failure
    looks like an answer. The stream's error is not raised here; it is in the stream.

    Chunks that were received before come first. Each piece consists of complete events from one
    read. Leaving the iteration does not affect the stream.

    Raises ``ValueError`` for a listener that may lose chunks (``drop_oldest``).
    """
    check_type("stream", stream, StreamingCompletion | Listener)
    check_function("describe", describe)
    if keep_alive is not None:
        check_seconds("keep_alive", keep_alive)
        if not keep_alive:
            raise ValueError("keep_alive must be more than 0 s: there is always silence")
    if isinstance(stream, Listener) and stream.policy == "drop_oldest":
        raise ValueError("sse_of needs every chunk: not a listener with the policy 'drop_oldest'")
    return SSEBody(stream, keep_alive, usage, describe)


class SSEBody(AsyncIterator[bytes]):
    """Events of an answer, as bytes; `sse_of` makes it.

    It needs no closing: a task that is cancelled while it waits has lost nothing, and may go on.
    """

    def __init__(
        self,
        source: StreamingCompletion | Listener,
        keep_alive: float | None,
        usage: bool,
        describe: Callable[[Exception], str],
    ) -> None:
        self._source = source
        self._stream = source.stream if isinstance(source, Listener) else source
        self._events = ChatEvents(int(time.time()))
        self._seconds = float("inf") if keep_alive is None else keep_alive
        self._usage = usage
        self._describe = describe
        self._before: list[StreamChunk] | None = None
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._over:
            await trio.lowlevel.checkpoint()
            raise StopAsyncIteration
        if self._before is None:
            before = [] if self._source is not self._stream else chunks_of(self._stream.response)
            self._before = before
            if before:
                await trio.lowlevel.checkpoint_if_cancelled()
                return self._written(before)
        while True:
            with trio.move_on_after(self._seconds) as scope:
                if data := await self._next():
                    return data
            if scope.cancelled_caught:
                return _COMMENT

    async def _next(self) -> bytes:
        """Return the events of the next chunks, or of the end."""
        try:
            chunks = await self._source.next_chunks()
            if chunks:
                return self._written(chunks)
        except (MiniLLMError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            return self._failed(exc)
        error = self._stream.error  # was raised before, to someone else
        if error is not None:
            return self._failed(error)
        self._over = True
        return self._events.end(self._stream.response, usage=self._usage)

    def _written(self, chunks: list[StreamChunk]) -> bytes:
        return self._events.of(chunks, self._stream.id, self._stream.model)

    def _failed(self, error: Exception) -> bytes:
        self._over = True
        return self._events.error(self._describe(error), *type_and_code(error))
