"""The state of a stream: when it is over, and how it ended.

Rule 1: one table decides. Nothing outside this file compares finish reasons, usage and ends to
find out whether a stream is over.

Rule 2: a final state is never left.

Rule 3: a finish reason is provisional until the body is over. Content behind it disproves it, and
the stream goes on. Until then silence, a malformed event and every kind of close lead to FINISHED:
an answer that is whole is never lost because its usage, its end marker or the close of the socket
did not follow.

Behind blanks or reasoning alone, the state is OPEN again, since more may follow; but an end that is
no error (MALFORMED, CLOCK, CLOSE, CUT) is then looked up in the column ENDING.

Rule 4: two machines that are fed the same chunks agree. The stream's task has one, which tells it
when to stop reading; `Ingest`, on the consumer's side, has another, which gives the outcome. Where
nobody takes the chunks one by one, it adopts the first one's, once that is over.

==========  ==========  ==========  ==========  ================================================
event       in OPEN     in ENDING   in WHOLE    what happened
==========  ==========  ==========  ==========  ================================================
CONTENT     OPEN        ENDING      WHOLE       a chunk that ends nothing
MORE        OPEN        OPEN        OPEN        content of a choice that had its finish reason,
                                                or of one that had not begun
REASON      ENDING      ENDING      ENDING      every choice has a finish reason, and the usage
                                                that is expected has not come
WHOLE       WHOLE       WHOLE       WHOLE       every choice has a finish reason, and the usage,
                                                if expected, has come
END         FINISHED    FINISHED    FINISHED    the wire's own end event, or its sentinel behind
                                                a finish reason or behind usage
ERROR       ERRORED     ERRORED     ERRORED     the provider reports an error
MALFORMED   ERRORED     FINISHED    FINISHED    data that can't be read, or a bound that was
                                                crossed
CLOCK       ERRORED     FINISHED    FINISHED    a clock ran out
CLOSE       TRUNCATED   FINISHED    FINISHED    the body ended cleanly
CUT         TRUNCATED   FINISHED    FINISHED    the connection broke
CANCEL      CANCELLED   CANCELLED   CANCELLED   the caller left, cancelled or rejected
==========  ==========  ==========  ==========  ================================================

FINISHED, TRUNCATED, ERRORED and CANCELLED are final. `StreamState.chunk` makes the first five
events out of chunks; the others are told to `StreamState.event`.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from enum import Enum
from typing import Final, TypeVar

from .._types.chunks import StreamChunk, continues_answer, has_content, speaks
from .._types.response import Outcome
from .._types.usage import Usage

_E = TypeVar("_E", bound=Enum)


def _hashed_by_identity(kind: type[_E]) -> type[_E]:
    """Hash an enum in C: each chunk is looked up in the tables below."""
    kind.__hash__ = object.__hash__  # type: ignore[method-assign]
    return kind


@_hashed_by_identity
class State(Enum):
    """A state of a stream; see the table at the top."""

    OPEN = "open"
    ENDING = "ending"
    WHOLE = "whole"
    FINISHED = "finished"
    TRUNCATED = "truncated"
    ERRORED = "errored"
    CANCELLED = "cancelled"


@_hashed_by_identity
class Event(Enum):
    """An event that can change the state; see the table at the top."""

    CONTENT = "content"
    MORE = "more"
    REASON = "reason"
    WHOLE = "whole"
    END = "end"
    ERROR = "error"
    MALFORMED = "malformed"
    CLOCK = "clock"
    CLOSE = "close"
    CUT = "cut"
    CANCEL = "cancel"


OPEN: Final = State.OPEN
_ENDING, _FINISHED = State.ENDING, State.FINISHED
_CONTENT, _MORE, _REASON = Event.CONTENT, Event.MORE, Event.REASON
_WHOLE, _END = Event.WHOLE, Event.END
"""Members that are looked up for each chunk: Python 3.11 finds a name of the module in a twentieth of
the time that an attribute of an enum takes."""

_REASONED: Final[dict[Event, State]] = {
    Event.MORE: State.OPEN,
    Event.REASON: State.ENDING,
    Event.WHOLE: State.WHOLE,
    Event.END: State.FINISHED,
    Event.ERROR: State.ERRORED,
    Event.MALFORMED: State.FINISHED,
    Event.CLOCK: State.FINISHED,
    Event.CLOSE: State.FINISHED,
    Event.CUT: State.FINISHED,
    Event.CANCEL: State.CANCELLED,
}
"""The cells that ENDING and WHOLE have in common: all but CONTENT, which leaves them as they are."""

TABLE: Final[dict[State, dict[Event, State]]] = {
    State.OPEN: {
        Event.CONTENT: State.OPEN,
        Event.MORE: State.OPEN,
        Event.REASON: State.ENDING,
        Event.WHOLE: State.WHOLE,
        Event.END: State.FINISHED,
        Event.ERROR: State.ERRORED,
        Event.MALFORMED: State.ERRORED,
        Event.CLOCK: State.ERRORED,
        Event.CLOSE: State.TRUNCATED,
        Event.CUT: State.TRUNCATED,
        Event.CANCEL: State.CANCELLED,
    },
    State.ENDING: {Event.CONTENT: State.ENDING, **_REASONED},
    State.WHOLE: {Event.CONTENT: State.WHOLE, **_REASONED},
    State.FINISHED: dict.fromkeys(Event, State.FINISHED),
    State.TRUNCATED: dict.fromkeys(Event, State.TRUNCATED),
    State.ERRORED: dict.fromkeys(Event, State.ERRORED),
    State.CANCELLED: dict.fromkeys(Event, State.CANCELLED),
}

OUTCOMES: Final[dict[State, Outcome | None]] = {
    State.OPEN: None,
    State.ENDING: None,
    State.WHOLE: None,
    State.FINISHED: Outcome.FINISHED,
    State.TRUNCATED: Outcome.TRUNCATED,
    State.ERRORED: Outcome.ERRORED,
    State.CANCELLED: Outcome.CANCELLED,
}
"""The outcome of each state; ``None`` where the stream goes on."""

NO_CHOICES: Final[frozenset[int]] = frozenset()
_FIRST: Final = frozenset({0})
"""The choices of a stream that has only one: one set for all the thousands of them."""


MANY_CHOICES = 64
"""Choices from which on a set of them grows in place: copying it for each would be quadratic."""


def _added(choices: AbstractSet[int], choice: int) -> AbstractSet[int]:
    if choice in choices:
        return choices
    if choice == 0 and not choices:
        return _FIRST
    if isinstance(choices, set):
        choices.add(choice)
        return choices
    return {*choices, choice} if len(choices) >= MANY_CHOICES else choices | {choice}


_LATE: Final = frozenset({Event.CLOSE, Event.CUT, Event.CLOCK, Event.MALFORMED})
"""Ends before which blanks or reasoning behind a finish reason don't count: the answer is whole."""


class StreamState:
    """The state machine of one stream. No method raises or waits, and each is O(1).

    ``expect_usage``: finish reasons alone don't make an answer whole, the usage must come, too.
    ``choices``: the number of choices that were asked for; each needs its reason.

    Its 17 attributes are the state and what the conditions of its changes are made of.
    """

    __slots__ = (
        "_answered",
        "_expect_usage",
        "_fresh",
        "_highest",
        "_opened",
        "_rising",
        "_seen",
        "_told",
        "_zero",
        "choices",
        "outcome",
        "over",
        "reasoned",
        "reopened",
        "said",
        "state",
        "usage_final",
    )

    def __init__(self, expect_usage: bool, choices: int = 1) -> None:
        self.state: State = OPEN
        self.over: bool = False
        """True once the outcome stands. Asked several times a chunk, hence no property, as the next."""
        self.outcome: Outcome | None = None
        """The outcome, once it stands."""
        self.usage_final: bool = False
        """True if the usage counts all of the answer, as far as the server's word goes."""
        self.reasoned: AbstractSet[int] = NO_CHOICES
        """The choices whose finish reason stands."""
        self.said: bool = False
        """True once content came."""
        self.reopened: bool = False
        """True once content has followed the finish reason of its choice."""
        self._expect_usage = expect_usage
        self.choices: int = choices
        """The number of choices that were asked for."""
        self._opened = False  # a part of an answer came, with or without content
        self._seen: AbstractSet[int] = NO_CHOICES  # choices with content or a reason
        self._highest = -1  # of them
        self._rising = True  # each came once, with a higher number than all before
        self._told: AbstractSet[int] = (
            NO_CHOICES  # choices with a reason behind which nothing was said
        )
        self._answered = False  # usage came when every choice seen so far had its reason
        self._fresh = False  # no content came after the newest usage
        self._zero = False  # usage without any output came behind content

    @property
    def understood(self) -> bool:
        """True once anything came that is part of an answer, be it only its opening."""
        return self._opened or bool(self._seen)

    def event(self, event: Event) -> State:
        """Take an event that is no chunk, and return the state after it."""
        before = self.state
        row = _ENDING if before is OPEN and event in _LATE and self._all_told() else before
        after = TABLE[row][event]
        if after is not before:
            self.state, self.outcome = after, OUTCOMES[after]
            self.over = self.outcome is not None
            if after is _FINISHED:
                self.usage_final = self._answered or (event is _END and self._fresh)
        return after

    def chunk(self, chunk: StreamChunk) -> State:
        """Take a chunk, and return the state after it.

        The chunk that ends the stream is still a part of the answer; the next one is not.
        """
        if self.over:
            return self.state
        reason, usage, end = chunk.finish_reason, chunk.usage, chunk.end
        if reason is None and usage is None and not end and not self.reasoned:  # almost every chunk
            if not (chunk.progress and chunk.answer):
                self._opened = self._opened or chunk.answer
                return self.state
            if chunk.choice not in self._seen:
                self._see(chunk.choice)
            elif self._rising:
                self._rising = False
            if chunk.delta or has_content(chunk):
                if self._told and speaks(chunk):
                    self._told -= {chunk.choice}
                # Usage does not count what is generated after it.
                self._fresh = self._answered = self.usage_final = False
                self.said = True
            return self.state
        goes_on = False
        if chunk.delta or has_content(chunk):
            goes_on = self._take_content(chunk)
        elif chunk.choice and chunk.progress and chunk.answer:
            self._see(chunk.choice)
        if reason is not None:
            self._take_reason(chunk.choice)
        elif chunk.answer and not end:
            self._opened = True
        if usage is not None:
            self._take_usage(usage, goes_on)
        if not end:
            self.state = after = TABLE[self.state][self._meaning()]  # none of which is final
            return after
        if self._zero and not chunk.sentinel:
            self._fresh = True  # the wire ends itself with these numbers
        return self.event(_END if self._ends(chunk) else _CONTENT)

    def _take_reason(self, choice: int) -> None:
        """Take the finish reason of a choice."""
        if not choice and (self._seen is _FIRST or not self._seen):  # the only one, almost always
            self._seen = self.reasoned = self._told = _FIRST
            self._highest = 0
            return
        self._see(choice)
        self.reasoned = _added(self.reasoned, choice)
        self._told = _added(self._told, choice)

    def _take_content(self, chunk: StreamChunk) -> bool:
        """Take content beside or behind a finish reason, usage or an end. Return whether it goes on."""
        choice, goes_on = chunk.choice, continues_answer(chunk)
        self._rising = self._rising and choice not in self._seen
        self._see(choice)
        self.said = True
        if goes_on:
            self._fresh = self._answered = self.usage_final = False
            if choice in self.reasoned:
                self.reasoned -= {choice}
                self.reopened = True
            if self._told and speaks(chunk):
                self._told -= {choice}
        return goes_on

    def _take_usage(self, usage: Usage, goes_on: bool) -> None:
        """Take usage, perhaps beside content that goes on with the answer.

        A zero behind content does not count the answer, nor do nulls: the true count may follow.
        """
        made = usage.completion_tokens
        if made or usage.cost or (made == 0 and not self.said):
            self._answered = self._settled()
            # Tokens of which nothing has come count what is still to come.
            whole = self.said or self._answered or not made
            # Beside content it counts on: vLLM sends it so with every piece.
            self._fresh = whole and not goes_on
        elif made == 0:
            self._zero = True

    def _see(self, choice: int) -> None:
        if choice not in self._seen:
            self._seen = _added(self._seen, choice)
        if choice < self._highest:
            self._rising = False
        else:
            self._highest = choice

    def _settled(self) -> bool:
        """Return whether every choice that has begun has its reason."""
        reasoned, seen = self.reasoned, self._seen
        if not reasoned:
            return False
        # Where there is one choice, the two are one set.
        return seen is reasoned or seen <= reasoned or self.counted

    def _all_told(self) -> bool:
        """Return whether every choice that has begun has a reason, behind which nothing more was said."""
        told, seen = self._told, self._seen
        if not told:
            return False
        return seen is told or seen <= told or self.counted

    @property
    def counted(self) -> bool:
        """True if the numbers of the choices count the pieces of the one that was asked for.

        Each came once, and only the last has a reason, or none has and the answer is over: old
        releases of TGI, Foundry Local.
        """
        if not self._in_a_row:
            return False
        return self.over if not self.reasoned else self.reasoned == {self._highest}

    @property
    def may_count(self) -> bool:
        """True if the numbers of the choices may count pieces, so far."""
        return not self.reasoned and self._in_a_row

    @property
    def _in_a_row(self) -> bool:
        """True if one choice was asked for, and others came, each once, with rising numbers.

        Not all numbers: TGI counts pieces without text, too.
        """
        return len(self._seen) > 1 and self._rising and self.choices == 1

    def _ends(self, chunk: StreamChunk) -> bool:
        """Return whether an end event ends an answer.

        The sentinel says that the stream is over, not that the answer is whole. Servers that never
        give a reason send usage before it (Snowflake); one whose answer was interrupted sends the
        sentinel alone (llama-cpp-python, under a second request). Nor does the wire's own end prove
        an answer in which nothing was said, not even a reason.
        """
        if not self.understood:
            return False
        if chunk.sentinel:
            return self._fresh or self._settled() or self._all_told()
        return self.said or self._answered or self._settled()

    def _meaning(self) -> Event:
        if not self._settled():
            return _CONTENT if self.state is OPEN else _MORE
        enough = len(self.reasoned) >= self.choices
        if self._answered:
            # A server whose reasons were disproved before may count on, too.
            self.usage_final = not self.reopened
            # Usage for fewer choices than were asked for: the others may still begin.
            return _WHOLE if enough else _REASON
        if not enough:
            return _CONTENT
        return _REASON if self._expect_usage else _WHOLE
