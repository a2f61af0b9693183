"""Values of an answer, and of its tool calls, while they arrive.

All views of one stream share a `Pump`, which takes the stream's chunks for whichever view needs more.
They can be used one after the other, one inside another, and by several tasks at once: what one does
not read lies in the answer until it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..._protocol.calls import CallBuilder
from ..._types.tools import Tool, tools_of
from .calls import CallsView, StreamedCall
from .sources import ContentSource
from .targets import Target
from .views import Pump


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
