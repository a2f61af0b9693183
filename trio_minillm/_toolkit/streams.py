"""The streams that users hold: those of `_stream`, with the methods that lead to this room.

What a method needs is imported by its first call, so that a program pays only for what it uses.
"""

from __future__ import annotations

from .._stream import stream, tracked
from .._types.errors import MiniLLMError


class StreamingCompletion(stream.StreamingCompletion):
    __doc__ = stream.StreamingCompletion.__doc__


class TrackedStream(tracked.TrackedStream, StreamingCompletion):
    __doc__ = tracked.TrackedStream.__doc__

    def _attempt_failed(self, error: MiniLLMError) -> None:
        super()._attempt_failed(error)
        from .log_records import log_retry

        log_retry(self._records[-1], self._asked, error)
