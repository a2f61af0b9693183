"""Pieces of tool calls, from the stream of any wire, as OpenAI's chat completions have them.

There, each call has a number, and its id and name come with its first piece. Which call a piece belongs
to is what `Calls` says, as when the response is built; so it is the same here and there.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ..._protocol.arguments import is_object
from ..._protocol.calls import CallBuilder, Calls
from ..._protocol.choice import TEXT_BLOCKS
from ..._types.chunks import IN_ORDER, StreamChunk, ToolCallDelta
from ..._types.response import Choice


class _Sent:
    """Things that a client has been told of a call."""

    __slots__ = ("name", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.name: str | None = None


class ChatCalls:
    """The tool calls of one choice."""

    def __init__(self) -> None:
        self._calls = Calls()
        self._sent: dict[CallBuilder, _Sent] = {}
        # By content block; ``None`` is the block of a server's own tool, whose calls are nobody's.
        self._blocks: dict[int, CallBuilder | None] = {}

    def pieces(self, chunk: StreamChunk, answer: str) -> list[dict[str, Any]]:
        """Return the ``tool_calls`` of a delta. ``answer`` is the response's id."""
        opens = chunk.block is not None and chunk.block.start is not None
        part = None if chunk.part == IN_ORDER else chunk.part
        if opens and part is not None and chunk.block is not None:
            self._open(part, (chunk.block.start or {}).get("type"))
        several = chunk.finish_reason is not None and len(chunk.tool_calls) > 1
        if several and self._calls.repeated_by(chunk.tool_calls):
            return []
        out: list[dict[str, Any]] = []
        for place, delta in enumerate(chunk.tool_calls):
            if opens and part in self._blocks:  # a server's tool
                continue
            call = self._taken(delta, part, opens=opens, beside=place > 0)
            if call is not None:
                out.append(self._piece(call, delta, answer))
        return out

    def _open(self, part: int, kind: Any) -> None:
        if kind == "tool_use" or kind in TEXT_BLOCKS:
            self._blocks.pop(part, None)
        else:
            self._blocks[part] = None

    def _taken(
        self, delta: ToolCallDelta, part: int | None, *, opens: bool, beside: bool
    ) -> CallBuilder | None:
        """Give a piece to its call, and return that; ``None`` if it is none of the client's."""
        if part is not None and not opens and part in self._blocks:
            there = self._blocks[part]
            if there is not None:
                there.add(delta)
            return there
        opened = self._calls.take(delta, opens=opens, beside=beside)
        if opened is None:
            return self._calls.newest
        self._sent[opened] = _Sent(len(self._sent))
        if part is not None:
            self._blocks[part] = opened
        return opened

    def _piece(self, call: CallBuilder, delta: ToolCallDelta, answer: str) -> dict[str, Any]:
        """Return a piece as the wire has it; the name with as much of it as is new."""
        sent, kind = self._sent[call], "custom" if call.free_text else "function"
        inner: dict[str, Any] = {}
        out: dict[str, Any] = {"index": sent.number}
        name, told = call.name or "", sent.name
        if told is None:
            made = "_".join(filter(None, ("call", str(sent.number), answer)))
            out |= {"id": call.id or made, "type": kind}
        if name != (told or ""):
            inner["name"] = name.removeprefix(told or "")
        sent.name = name
        inner["input" if kind == "custom" else "arguments"] = delta.arguments
        out[kind] = inner
        if delta.extra and "extra_content" in delta.extra:
            out["extra_content"] = delta.extra["extra_content"]
        return out

    def disowned(self, choice: Choice) -> bool:
        """Return whether a client would run a call here that is none of the finished answer's."""
        runnable = Counter((call.name, _bare(call.arguments)) for call in choice.tool_calls)
        shown = Counter(
            (sent.name or "", _bare(call.joined())) for call, sent in self._sent.items()
        )
        return any(name and is_object(text) for name, text in shown - runnable)


def _bare(arguments: str) -> str:
    text = arguments.strip()
    return "" if text == "null" else text
