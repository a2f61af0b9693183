"""The streams that users hold: those of `_stream`, with the methods that lead to this room.

What a method needs is imported by its first call, so that a program pays only for what it uses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._stream import stream, tracked

if TYPE_CHECKING:
    from .broadcast import Broadcast
    from .listener import Policy


class StreamingCompletion(stream.StreamingCompletion):
    __doc__ = stream.StreamingCompletion.__doc__

    def broadcast(self, *, buffer: int | None = None, policy: Policy = "block") -> Broadcast:
        """Return a hub through which any number of tasks listen to this stream, each in full:
        ``async with stream.broadcast() as hub``, then ``hub.subscribe()`` for each of them.

        ``buffer`` is the number of chunks that a listener may be behind (1,024), and ``policy`` says
        what becomes of one that is: the others wait for it (``"block"``), it goes without the oldest
        (``"drop_oldest"``), or it is sent away (``"detach"``). Both can be set for each listener. While
        the hub reads, nobody else takes chunks from the stream.

        Raises what taking a chunk raises outside of the stream's block.
        """
        from .broadcast import BUFFERED_CHUNKS, Broadcast

        self._check_open()
        return Broadcast(self, BUFFERED_CHUNKS if buffer is None else buffer, policy)


class TrackedStream(tracked.TrackedStream, StreamingCompletion):
    __doc__ = tracked.TrackedStream.__doc__
