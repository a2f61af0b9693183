"""When a stream is over, and how: one table of states and events.

This is the only place that decides it. The reader asks it when to stop reading, the ingest
machine asks it for the outcome; both feed it the same chunks and so agree.

====================  ===========  ============  ========================================
event                 in OPEN      in ENDING     what it is
====================  ===========  ============  ========================================
CONTENT               OPEN         ENDING        any chunk that says nothing of an end
REASON                ENDING       ENDING        every choice has a finish reason, and the
                                                 usage that is expected has not come
WHOLE                 FINISHED     FINISHED      reasons and, if expected, the usage (a wire
                                                 that ends itself gives REASON instead)
END                   FINISHED     FINISHED      the wire's own end event
ERROR                 ERRORED      ERRORED       an error in the stream, malformed data
CLOCK                 ERRORED      FINISHED      a clock ran out
CLOSE                 TRUNCATED    FINISHED      the body ended in good order
CUT                   TRUNCATED    FINISHED      the connection broke
CANCEL                CANCELLED    CANCELLED     the caller left, cancelled or rejected
====================  ===========  ============  ========================================

FINISHED, TRUNCATED, ERRORED and CANCELLED are final: every event leaves them as they are.
ENDING exists so that an answer that is whole is never lost because its usage, its end marker
or the close of the socket did not follow.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from .._types.chunks import StreamChunk, has_content
from .._types.response import Outcome


class State(Enum):
    """Where a stream stands."""

    OPEN = "open"
    ENDING = "ending"
    FINISHED = "finished"
    TRUNCATED = "truncated"
    ERRORED = "errored"
    CANCELLED = "cancelled"


class Event(Enum):
    """What can happen to a stream."""

    CONTENT = "content"
    REASON = "reason"
    WHOLE = "whole"
    END = "end"
    ERROR = "error"
    CLOCK = "clock"
    CLOSE = "close"
    CUT = "cut"
    CANCEL = "cancel"


TABLE: Final[dict[State, dict[Event, State]]] = {
    State.OPEN: {
        Event.CONTENT: State.OPEN,
        Event.REASON: State.ENDING,
        Event.WHOLE: State.FINISHED,
        Event.END: State.FINISHED,
        Event.ERROR: State.ERRORED,
        Event.CLOCK: State.ERRORED,
        Event.CLOSE: State.TRUNCATED,
        Event.CUT: State.TRUNCATED,
        Event.CANCEL: State.CANCELLED,
    },
    State.ENDING: {
        Event.CONTENT: State.ENDING,
        Event.REASON: State.ENDING,
        Event.WHOLE: State.FINISHED,
        Event.END: State.FINISHED,
        Event.ERROR: State.ERRORED,
        Event.CLOCK: State.FINISHED,
        Event.CLOSE: State.FINISHED,
        Event.CUT: State.FINISHED,
        Event.CANCEL: State.CANCELLED,
    },
    State.FINISHED: dict.fromkeys(Event, State.FINISHED),
    State.TRUNCATED: dict.fromkeys(Event, State.TRUNCATED),
    State.ERRORED: dict.fromkeys(Event, State.ERRORED),
    State.CANCELLED: dict.fromkeys(Event, State.CANCELLED),
}

OUTCOMES: Final[dict[State, Outcome | None]] = {
    State.OPEN: None,
    State.ENDING: None,
    State.FINISHED: Outcome.FINISHED,
    State.TRUNCATED: Outcome.TRUNCATED,
    State.ERRORED: Outcome.ERRORED,
    State.CANCELLED: Outcome.CANCELLED,
}


_NONE: Final[frozenset[int]] = frozenset()
_FIRST: Final = frozenset({0})
"""One set for all the streams, thousands of them, that have a single choice."""


def _with(choices: frozenset[int], choice: int) -> frozenset[int]:
    if choice in choices:
        return choices
    return _FIRST if choice == 0 and not choices else choices | {choice}


class StreamState:
    """The machine. `chunk` and `event` are O(1), never raise and never wait.

    ``expect_usage``: reasons alone don't end the stream, the usage must come too.
    ``choices``: how many answers were asked for; each needs its reason.
    ``awaits_end``: the wire may correct its reason and usage until its own end event, so these
    bring the stream to ENDING only.
    """

    def __init__(self, *, expect_usage: bool, choices: int = 1, awaits_end: bool = False) -> None:
        self.state: State = State.OPEN
        self.over: bool = False
        """Whether the outcome stands. Asked several times a chunk, hence no property."""
        self.usage_final: bool = False
        """Whether the usage that came is the last word on the answer."""
        self._expect_usage = expect_usage
        self._choices = choices
        self._awaits_end = awaits_end
        self._seen = _NONE  # choices with content or a reason
        self._reasoned = _NONE  # choices with a reason
        self._answered = False  # usage came when no seen choice was still open
        self._fresh = False  # no content came after the newest usage

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once it stands."""
        return OUTCOMES[self.state]

    def event(self, event: Event) -> State:
        """Something other than a chunk happened."""
        if event is Event.END and not self.over:
            self.usage_final = self.usage_final or self._fresh
        self.state = TABLE[self.state][event]
        self.over = OUTCOMES[self.state] is not None
        return self.state

    def chunk(self, chunk: StreamChunk) -> State:
        """A chunk arrived (it must be folded in, too, unless the machine was over before)."""
        if chunk.finish_reason is None and chunk.usage is None and not chunk.end:
            if chunk.progress and not self.over:
                self._seen = _with(self._seen, chunk.choice)
                if chunk.delta or has_content(chunk):
                    # What is generated behind a usage is not in it.
                    self._fresh = self._answered = self.usage_final = False
            return self.state
        if self.over:
            return self.state
        if chunk.finish_reason is not None:
            self._seen = _with(self._seen, chunk.choice)
            self._reasoned = _with(self._reasoned, chunk.choice)
        elif chunk.choice or has_content(chunk):
            self._seen = _with(self._seen, chunk.choice)
        settled = bool(self._reasoned) and self._seen <= self._reasoned
        if chunk.usage is not None:
            self._fresh = True
            self._answered = settled
        if chunk.end:
            return self.event(Event.END)
        if not settled:
            return self.event(Event.CONTENT)
        enough = len(self._reasoned) >= self._choices
        if self._answered:
            self.usage_final = True
            # Usage for fewer choices than were asked for: the others may still begin.
            whole = enough and not self._awaits_end
            return self.event(Event.WHOLE if whole else Event.REASON)
        if not self._expect_usage and enough:
            return self.event(Event.WHOLE)
        return self.event(Event.REASON if enough else Event.CONTENT)
