"""The state of a stream: when it is over, and how it ended.

Rule 1: one table decides. Nothing outside this file compares finish reasons, usage and ends to
find out whether a stream is over.

Rule 2: a final state is never left.

Rule 3: an answer that is whole is never lost because its usage, its end marker or the close of the
socket did not follow. That is what ENDING is for: from there, silence and every kind of close lead
to FINISHED.

Rule 4: two machines that are fed the same chunks agree. The stream's task has one, which tells it
when to stop reading; `Ingest`, on the consumer's side, has another, which gives the outcome.

====================  ===========  ============  ========================================
event                 in OPEN      in ENDING     what happened
====================  ===========  ============  ========================================
CONTENT               OPEN         ENDING        a chunk that ends nothing
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

FINISHED, TRUNCATED, ERRORED and CANCELLED are final. `StreamState.chunk` makes the first four
events out of chunks; the others are told to `StreamState.event`.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from .._types.chunks import StreamChunk, has_content
from .._types.response import Outcome


class State(Enum):
    """A state of a stream; see the table at the top."""

    OPEN = "open"
    ENDING = "ending"
    FINISHED = "finished"
    TRUNCATED = "truncated"
    ERRORED = "errored"
    CANCELLED = "cancelled"


class Event(Enum):
    """An event that can change the state; see the table at the top."""

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
"""The outcome of each state; ``None`` where the stream goes on."""

_NONE: Final[frozenset[int]] = frozenset()
_FIRST: Final = frozenset({0})
"""The choices of a stream that has only one: one set for all the thousands of them."""


def _added(choices: frozenset[int], choice: int) -> frozenset[int]:
    if choice in choices:
        return choices
    return _FIRST if choice == 0 and not choices else choices | {choice}


class StreamState:
    """The state machine of one stream. No method raises or waits, and each is O(1).

    ``expect_usage``: finish reasons alone don't end the stream, the usage must come, too.
    ``choices``: the number of choices that were asked for; each needs its reason.
    ``awaits_end``: until its own end event, the wire may correct the reason and the usage, so that
    these bring the stream to ENDING only.
    """

    def __init__(self, *, expect_usage: bool, choices: int = 1, awaits_end: bool = False) -> None:
        self.state: State = State.OPEN
        self.over: bool = False
        """True once the outcome stands. Asked several times a chunk, hence no property."""
        self.usage_final: bool = False
        """True if no content can change the usage that came any more."""
        self._expect_usage = expect_usage
        self._choices = choices
        self._awaits_end = awaits_end
        self._seen = _NONE  # choices with content or a reason
        self._reasoned = _NONE  # choices with a reason
        self._answered = False  # usage came when every choice seen so far had its reason
        self._fresh = False  # no content came after the newest usage

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once it stands."""
        return OUTCOMES[self.state]

    def event(self, event: Event) -> State:
        """Take an event that is no chunk, and return the state after it."""
        if event is Event.END and not self.over:
            self.usage_final = self.usage_final or self._fresh
        self.state = TABLE[self.state][event]
        self.over = OUTCOMES[self.state] is not None
        return self.state

    def chunk(self, chunk: StreamChunk) -> State:
        """Take a chunk, and return the state after it.

        The chunk that ends the stream is still a part of the answer; the next one is not.
        """
        if chunk.finish_reason is None and chunk.usage is None and not chunk.end:
            if chunk.progress and not self.over:
                self._seen = _added(self._seen, chunk.choice)
                if chunk.delta or has_content(chunk):
                    # Usage does not count what is generated after it.
                    self._fresh = self._answered = self.usage_final = False
            return self.state
        if self.over:
            return self.state
        if chunk.finish_reason is not None:
            self._seen = _added(self._seen, chunk.choice)
            self._reasoned = _added(self._reasoned, chunk.choice)
        elif chunk.choice or has_content(chunk):
            self._seen = _added(self._seen, chunk.choice)
        # Whether every choice that has begun has its reason.
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
        if not enough:
            return self.event(Event.CONTENT)
        return self.event(Event.REASON if self._expect_usage else Event.WHOLE)
