"""Halves of surrogate pairs, which servers send that cut their text at UTF-16 units."""

from __future__ import annotations

import re

from .._types.chunks import StreamChunk


class SurrogateHalves:
    """Halves of surrogate pairs, joined where the two came in two pieces of one text.

    Servers that cut their text at UTF-16 units send such halves. One without its other half becomes
    U+FFFD, or nothing at the end of the answer.
    """

    def __init__(self) -> None:
        self.pending: dict[tuple[int, str], str] = {}
        """First halves that wait for their second, by choice and kind of text."""

    def join(self, chunk: StreamChunk) -> bool:
        """Join the halves in a chunk's texts. Return whether one was without its other half."""
        lost = False
        if self.pending or _has_half(chunk.delta):
            chunk.delta, lost = self._joined(chunk.choice, "text", chunk.delta)
        if self.pending or _has_half(chunk.reasoning):
            chunk.reasoning, also = self._joined(chunk.choice, "reasoning", chunk.reasoning)
            lost |= also
        if self.pending or _has_half(chunk.refusal):
            chunk.refusal, also = self._joined(chunk.choice, "refusal", chunk.refusal)
            lost |= also
        for call in chunk.tool_calls:
            if self.pending or _has_half(call.arguments):
                kind = f"call {call.index}"
                call.arguments, also = self._joined(chunk.choice, kind, call.arguments)
                lost |= also
        if chunk.end and self.pending:
            self.pending.clear()
            lost = True
        return lost

    def _joined(self, choice: int, kind: str, text: str) -> tuple[str, bool]:
        if not text:
            return text, False
        text = self.pending.pop((choice, kind), "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self.pending[choice, kind], text = text[-1], text[:-1]
        joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return joined, joined.count("\ufffd") > text.count("\ufffd")


def _has_half(text: str) -> bool:
    return not text.isascii() and re.search(_HALF, text) is not None


_HALF = "[\ud800-\udfff]"
