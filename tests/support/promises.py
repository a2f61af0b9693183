"""Promises for each fault, as data from which the tests and docs/reliability.md are made.

A `Promise` is a fault, the replies of a server that has it, and what the caller sees, for each
wire. They were written from the design, not from what the code did: the faults of HTTP and of how an
answer ends in `promises_endings`, those of single events in `promises_events`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import trio_minillm as llm
from trio_minillm.testing import Reply, reply, sse

PIECES = ("Sea ", "water ", "is ", "salty.")
SO_FAR = "".join(PIECES[:3])
WHOLE = "".join(PIECES)


class Wire:
    """The events of one wire, and its own words."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.anthropic = name == "anthropic"
        self.continues = name == "text_completions"
        self.stop, self.length, self.calls = (
            ("end_turn", "max_tokens", "tool_use")
            if self.anthropic
            else ("stop", "length", "tool_calls")
        )

    def model(self, base_url: str) -> llm.Model:
        made: llm.Model = getattr(llm, self.name)("m", base_url=base_url, api_key="sk-dummy-000")
        return made

    def event(self, kind: str, **fields: Any) -> bytes:
        """One of Anthropic's events."""
        return sse({"type": kind, **fields}, kind)

    def choice(self, delta: Any, reason: str | None = None, **more: Any) -> bytes:
        """One of OpenAI's events; of text completions, if there is a place in them for it."""
        said = {"delta": delta}
        if self.continues and isinstance(delta, dict) and not delta.keys() - {"role", "content"}:
            text = delta.get("content", "")
            if not isinstance(text, list | dict) and "message" not in more:
                said = {"text": text}
        inner = {"index": 0, **said, "finish_reason": reason, **more}
        return sse({"id": "gen-1", "model": "m", "choices": [inner]})

    @property
    def opening(self) -> list[bytes]:
        if not self.anthropic:
            return [self.choice({"role": "assistant", "content": ""})]
        usage = {"input_tokens": 7, "output_tokens": 1}
        message = {"id": "gen-1", "model": "m", "content": [], "usage": usage}
        return [self.event("message_start", message=message), self.opens("text", text="")]

    def opens(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        """One of Anthropic's blocks begins."""
        block = {"type": kind, **fields}
        return self.event("content_block_start", index=index, content_block=block)

    def changes(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        """One of Anthropic's blocks goes on."""
        return self.event("content_block_delta", index=index, delta={"type": kind, **fields})

    def says(self, text: Any) -> bytes:
        if self.anthropic:
            return self.changes("text_delta", text=text)
        return self.choice({"content": text})

    @property
    def head(self) -> list[bytes]:
        """The answer up to `SO_FAR`: long enough for the fast path to be learned."""
        return [*self.opening, *map(self.says, PIECES[:3])]

    def tail(self, reason: str | None = "", *, usage: bool = True, end: bool = True) -> list[bytes]:
        """Return the events that follow the text, without a finish reason if ``reason`` is None."""
        reason = self.stop if reason == "" else reason
        if self.anthropic:
            events = [self.event("content_block_stop", index=0)]
            if reason is not None or usage:
                counted = {"usage": {"output_tokens": 5}} if usage else {}
                events.append(self.event("message_delta", delta={"stop_reason": reason}, **counted))
            return [*events, self.event("message_stop")] if end else events
        events = [] if reason is None else [self.choice({}, reason)]
        if usage:
            counts = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            events.append(sse({"id": "gen-1", "model": "m", "choices": [], "usage": counts}))
        return [*events, sse("[DONE]")] if end else events

    @property
    def rest(self) -> list[bytes]:
        """The answer from `SO_FAR` on."""
        return [self.says(PIECES[3]), *self.tail()]

    @property
    def whole(self) -> list[bytes]:
        return self.head + self.rest

    def error(self, code: int, message: str = "no") -> bytes:
        """The event that reports a failure."""
        if self.anthropic:
            kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
            return self.event("error", error={"type": kinds[code], "message": message})
        return sse({"error": {"message": message, "code": 503 if code == 529 else code}})


class Sees(NamedTuple):
    """Result that the caller sees; ``{bad}`` in an error is the number of the event after `Wire.head`."""

    outcome: str
    error: str = ""
    """The class and what tells it from others of it: kind, clock, event or bound."""
    text: str = WHOLE
    usage: str = "final"
    """``final``, ``provisional`` (known, but not final) or ``unknown``."""
    reason: str | None = None
    tries: int = 1
    connection: str | None = None
    """Over a socket: ``kept`` and used by the next request, or ``closed``. None: not promised."""
    seconds: float = 0.0
    """Time taken, on Trio's clock."""
    calls: tuple[tuple[str, str], ...] = ()
    """Name and arguments of the calls that may be executed."""
    bad_calls: tuple[tuple[str, str], ...] = ()
    reasoning: str = ""
    notes: str = ""
    """Text that the notes on the response contain."""
    skipped: int = 0


Said = Callable[[Wire], Sees]


def finished(**more: Any) -> Said:
    def sees(w: Wire) -> Sees:
        given = {"reason": w.stop, "connection": "kept", **more}
        given = {k: v(w) if callable(v) else v for k, v in given.items()}
        return Sees("finished", **given)

    return sees


def unfinished(outcome: str, error: str, **more: Any) -> Said:
    def sees(w: Wire) -> Sees:
        given = {"text": SO_FAR, "usage": known(w), **more}
        given = {k: v(w) if callable(v) else v for k, v in given.items()}
        words = error.format(bad=len(w.head) + 1)
        return Sees(outcome, words, **given)

    return sees


def truncated(error: str, **more: Any) -> Said:
    return unfinished("truncated", error, **{"connection": "closed", **more})


def errored(error: str, **more: Any) -> Said:
    return unfinished("errored", error, **more)


def known(w: Wire) -> str:
    """Return what is known of the usage before the end; Anthropic's opening has a first count."""
    return "provisional" if w.anthropic else "unknown"


class Promise(NamedTuple):
    """A fault and what becomes of it."""

    group: str
    fault: str
    replies: Callable[[Wire], list[Reply] | None]
    """The server's answers in turn, of which the last are whole; None: not on this wire."""
    sees: Said
    timeouts: llm.Timeouts = llm.Timeouts()
    options: dict[str, Any] = {}  # noqa: RUF012 - never changed
    ways: tuple[str, ...] = ("iterate", "complete")
    """Ways in which the answer is taken."""


class Promises(list[Promise]):
    """The promises of a module."""

    def add(
        self,
        group: str,
        fault: str,
        steps: Callable[[Wire], Sequence[Any] | Reply],
        sees: Said,
        *,
        again: bool = False,
        wires: str = "",
        **more: Any,
    ) -> None:
        """Add one. ``again``: the next try is answered whole; ``wires``: ``anthropic`` or the others."""

        def replies(w: Wire) -> list[Reply] | None:
            if wires and w.anthropic is not (wires == "anthropic"):
                return None
            made = steps(w)
            first = made if isinstance(made, Reply) else reply(*made)
            return [first, reply(*w.whole)] if again else [first]

        self.append(Promise(group, fault, replies, sees, **more))
