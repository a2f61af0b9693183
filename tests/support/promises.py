"""Promises for each fault, as data from which the tests and docs/proof/reliability.md are made.

A `Promise` is a fault, the replies of a server that has it, and what the caller sees, for each
wire. They were written from the design, not from what the code did: the faults of HTTP and of how an
answer ends in `promises_endings`, those of single events in `promises_events`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

import trio_minillm as llm
from trio_minillm.testing import Reply, reply, sse
from trio_minillm.testing._script import Forever

PIECES = ("Sea ", "water ", "is ", "salty.")
SO_FAR = "".join(PIECES[:3])
WHOLE = "".join(PIECES)


class NotOnThisWireError(Exception):
    """Raised by a `Wire` for what its format does not have."""


class Wire:
    """The events of one wire, and its own words. `wire_named` makes them."""

    kind = ""
    """``openai`` for chat completions, ``anthropic``, ``responses`` or ``gemini``."""
    stop, length, calls = "stop", "length", "tool_calls"
    """Finish reasons."""
    array = False
    """True if the events come as the elements of a JSON array."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.anthropic = self.kind == "anthropic"
        self.gemini = self.kind == "gemini"
        self.responses = self.kind == "responses"

    def model(self, base_url: str) -> llm.Model:
        made: llm.Model = getattr(llm, self.name)("m", base_url=base_url, api_key="sk-dummy-000")
        return made

    # What only some of the wires have:

    def event(self, kind: str, **fields: Any) -> bytes:
        """One of Anthropic's events, or of OpenAI Responses'."""
        raise NotOnThisWireError

    def choice(self, delta: Any, reason: Any = None, **more: Any) -> bytes:
        """One of the events of chat completions."""
        raise NotOnThisWireError

    def candidate(self, *parts: Any, reason: Any = None, **more: Any) -> bytes:
        """One of Gemini's events."""
        raise NotOnThisWireError

    def opens(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        """One of Anthropic's blocks begins."""
        raise NotOnThisWireError

    def changes(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        """One of Anthropic's blocks goes on."""
        raise NotOnThisWireError

    # What all have:

    @property
    def opening(self) -> list[bytes]:
        """The events before the text; the first of them has no content."""
        raise NotImplementedError

    def says(self, text: Any) -> bytes:
        raise NotImplementedError

    def thinks(self, text: str) -> bytes:
        raise NotImplementedError

    def tail(
        self, reason: str | None = "", *, usage: bool = True, end: bool = True, text: str = WHOLE
    ) -> list[bytes]:
        """Return the events that follow the text, without a finish reason if ``reason`` is None.

        ``end`` is for the end marker, and ``text`` is the whole text where the end repeats it.
        """
        raise NotImplementedError

    def error(self, code: int, message: str = "no") -> bytes:
        """The event that reports a failure."""
        raise NotImplementedError

    def whole_body(self) -> dict[str, Any]:
        """The answer as it comes without streaming."""
        raise NotImplementedError

    @property
    def head(self) -> list[bytes]:
        """The answer up to `SO_FAR`: long enough for the fast path to be learned."""
        return [*self.opening, *map(self.says, PIECES[:3])]

    @property
    def rest(self) -> list[bytes]:
        """The answer from `SO_FAR` on."""
        return [self.says(PIECES[3]), *self.tail()]

    @property
    def whole(self) -> list[bytes]:
        return self.head + self.rest


class _Chat(Wire):
    kind = "openai"

    def choice(self, delta: Any, reason: Any = None, **more: Any) -> bytes:
        inner = {"index": 0, "delta": delta, "finish_reason": reason, **more}
        return sse({"id": "gen-1", "model": "m", "choices": [inner]})

    @property
    def opening(self) -> list[bytes]:
        return [self.choice({"role": "assistant", "content": ""})]

    def says(self, text: Any) -> bytes:
        return self.choice({"content": text})

    def thinks(self, text: str) -> bytes:
        return self.choice({"reasoning": text})

    def tail(
        self, reason: str | None = "", *, usage: bool = True, end: bool = True, text: str = WHOLE
    ) -> list[bytes]:
        reason = self.stop if reason == "" else reason
        events = [] if reason is None else [self.choice({}, reason)]
        if usage:
            counts = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            events.append(sse({"id": "gen-1", "model": "m", "choices": [], "usage": counts}))
        return [*events, sse("[DONE]")] if end else events

    def error(self, code: int, message: str = "no") -> bytes:
        return sse({"error": {"message": message, "code": 503 if code == 529 else code}})

    def whole_body(self) -> dict[str, Any]:
        said = {"index": 0, "message": {"content": WHOLE}, "finish_reason": self.stop}
        body = {"id": "gen-1", "model": "m", "choices": [said]}
        return body | {"usage": {"prompt_tokens": 7, "completion_tokens": 5}}


class _Text(_Chat):
    """Text completions, which have a place for text, and for nothing else that chat has."""

    def choice(self, delta: Any, reason: Any = None, **more: Any) -> bytes:
        said = {"delta": delta}
        if isinstance(delta, dict) and not delta.keys() - {"role", "content"}:
            text = delta.get("content", "")
            if not isinstance(text, list | dict) and "message" not in more:
                said = {"text": text}
        inner = {"index": 0, **said, "finish_reason": reason, **more}
        return sse({"id": "gen-1", "model": "m", "choices": [inner]})

    def whole_body(self) -> dict[str, Any]:
        said = {"index": 0, "text": WHOLE, "finish_reason": self.stop}
        body = {"id": "gen-1", "model": "m", "choices": [said]}
        return body | {"usage": {"prompt_tokens": 7, "completion_tokens": 5}}


class _Anthropic(Wire):
    kind = "anthropic"
    stop, length, calls = "end_turn", "max_tokens", "tool_use"

    def event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": kind, **fields}, kind)

    def opens(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        block = {"type": kind, **fields}
        return self.event("content_block_start", index=index, content_block=block)

    def changes(self, kind: str, index: Any = 0, **fields: Any) -> bytes:
        return self.event("content_block_delta", index=index, delta={"type": kind, **fields})

    @property
    def opening(self) -> list[bytes]:
        usage = {"input_tokens": 7, "output_tokens": 1}
        message = {"id": "gen-1", "model": "m", "content": [], "usage": usage}
        return [self.event("message_start", message=message), self.opens("text", text="")]

    def says(self, text: Any) -> bytes:
        return self.changes("text_delta", text=text)

    def thinks(self, text: str) -> bytes:
        return self.changes("thinking_delta", 1, thinking=text)

    def tail(
        self, reason: str | None = "", *, usage: bool = True, end: bool = True, text: str = WHOLE
    ) -> list[bytes]:
        reason = self.stop if reason == "" else reason
        events = [self.event("content_block_stop", index=0)]
        if reason is not None or usage:
            counted = {"usage": {"output_tokens": 5}} if usage else {}
            events.append(self.event("message_delta", delta={"stop_reason": reason}, **counted))
        return [*events, self.event("message_stop")] if end else events

    def error(self, code: int, message: str = "no") -> bytes:
        kinds = {400: "invalid_request_error", 429: "rate_limit_error", 529: "overloaded_error"}
        return self.event("error", error={"type": kinds[code], "message": message})

    def whole_body(self) -> dict[str, Any]:
        body = {"id": "gen-1", "model": "m", "content": [{"type": "text", "text": WHOLE}]}
        return body | {
            "stop_reason": self.stop,
            "usage": {"input_tokens": 7, "output_tokens": 5},
        }


class _Responses(Wire):
    """The wire of OpenAI Responses, whose last event has the finish reason, the usage and the end."""

    kind = "responses"
    stop, length, calls = "completed", "incomplete", "completed"

    def event(self, kind: str, **fields: Any) -> bytes:
        return sse({"type": f"response.{kind}", **fields}, f"response.{kind}")

    def item(self, text: str = WHOLE) -> dict[str, Any]:
        """The message that is the answer."""
        part = {"type": "output_text", "text": text, "annotations": []}
        return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}

    def call(self, name: Any = "a", arguments: Any = "", id: Any = "call_1") -> dict[str, Any]:
        """An item that is a call."""
        head = {"type": "function_call", "id": f"fc_{id}", "call_id": id}
        return {**head, "name": name, "arguments": arguments}

    def response(self, status: Any, *output: Any, **more: Any) -> dict[str, Any]:
        head = {"id": "gen-1", "object": "response", "model": "m", "status": status}
        return {**head, "output": list(output), **more}

    def ends(self, word: str, *output: Any, **more: Any) -> bytes:
        """The last event; ``word`` is the last one of its type, and of the response if it has no other."""
        counts = {"usage": {"input_tokens": 7, "output_tokens": 5}} | {"status": word} | more
        return self.event(word, response=self.response(counts.pop("status"), *output, **counts))

    def adds(self, item: dict[str, Any], index: Any = 0) -> bytes:
        """An item begins."""
        return self.event("output_item.added", output_index=index, item=item)

    def closes(self, item: dict[str, Any], index: Any = 0) -> bytes:
        """An item ends."""
        return self.event("output_item.done", output_index=index, item=item)

    def delta(self, kind: str, value: Any, index: Any = 0, **more: Any) -> bytes:
        return self.event(f"{kind}.delta", output_index=index, delta=value, **more)

    @property
    def opening(self) -> list[bytes]:
        part = {"type": "output_text", "text": "", "annotations": []}
        return [
            self.event("created", response=self.response("in_progress")),
            self.adds({**self.item(), "content": []}),
            self.event("content_part.added", output_index=0, content_index=0, part=part),
        ]

    def says(self, text: Any) -> bytes:
        return self.delta("output_text", text, content_index=0, item_id="msg_1")

    def thinks(self, text: str) -> bytes:
        return self.delta("reasoning_summary_text", text, 1, summary_index=0)

    def tail(
        self, reason: str | None = "", *, usage: bool = True, end: bool = True, text: str = WHOLE
    ) -> list[bytes]:
        reason = self.stop if reason == "" else reason
        if reason is None or not end:
            raise NotOnThisWireError
        done = {"output_index": 0, "content_index": 0, "item_id": "msg_1"}
        output = [self.item(text)] if text else []
        events = [
            e
            for item in output
            for e in (self.event("output_text.done", **done, text=text), self.closes(item))
        ]
        more = {} if usage else {"usage": None}
        return [*events, self.ends(reason, *output, **more)]

    def error(self, code: int, message: str = "no") -> bytes:
        codes = {400: "invalid_prompt", 429: "rate_limit_exceeded", 529: "server_is_overloaded"}
        told = {"type": "error", "code": codes[code], "message": message, "param": None}
        return sse(told, "error")

    def whole_body(self) -> dict[str, Any]:
        usage = {"input_tokens": 7, "output_tokens": 5}
        return self.response(self.stop, self.item(), usage=usage)


class _Gemini(Wire):
    """Gemini's wire: usage with every event, and no end marker."""

    kind = "gemini"
    stop, length, calls = "STOP", "MAX_TOKENS", "STOP"

    def candidate(self, *parts: Any, reason: Any = None, **more: Any) -> bytes:
        inner: dict[str, Any] = {"content": {"parts": list(parts), "role": "model"}, "index": 0}
        inner |= {} if reason is None else {"finishReason": reason}
        head = {"modelVersion": "m", "responseId": "gen-1"}
        usage = {"usageMetadata": {"promptTokenCount": 6, "totalTokenCount": 6}}
        return sse({"candidates": [inner | more.pop("inner", {})], **usage, **head} | more)

    @property
    def opening(self) -> list[bytes]:
        return [self.candidate({"text": ""})]

    def says(self, text: Any) -> bytes:
        return self.candidate({"text": text})

    def thinks(self, text: str) -> bytes:
        return self.candidate({"text": text, "thought": True})

    def tail(
        self, reason: str | None = "", *, usage: bool = True, end: bool = True, text: str = WHOLE
    ) -> list[bytes]:
        reason = self.stop if reason == "" else reason
        counts = {"promptTokenCount": 6, "candidatesTokenCount": 5, "totalTokenCount": 11}
        if reason is None and end:
            raise NotOnThisWireError
        if reason is None:
            return [sse({"usageMetadata": counts})]
        return [self.candidate(reason=reason, usageMetadata=counts if usage else None)]

    def error(self, code: int, message: str = "no") -> bytes:
        words = {400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 529: "UNAVAILABLE"}
        told = {"code": 503 if code == 529 else code, "message": message, "status": words[code]}
        return sse({"error": told})

    def whole_body(self) -> dict[str, Any]:
        said = {"content": {"parts": [{"text": WHOLE}]}, "finishReason": self.stop, "index": 0}
        counts = {"promptTokenCount": 6, "candidatesTokenCount": 5, "totalTokenCount": 11}
        return {"candidates": [said], "usageMetadata": counts, "responseId": "gen-1"}


class _GeminiArray(_Gemini):
    """The same in one JSON array. Promises are written for events, and turned into it at the end."""

    array = True

    def model(self, base_url: str) -> llm.Model:
        return llm.gemini("m", base_url=base_url, api_key="sk-dummy-000")


_KINDS: dict[str, type[Wire]] = {
    "anthropic": _Anthropic,
    "text_completions": _Text,
    "openai_responses": _Responses,
    "gemini": _Gemini,
    "gemini_array": _GeminiArray,
}


def wire_named(name: str) -> Any:
    """The wire of a constructor of models, or ``gemini_array``: a `Wire` with its own methods, too."""
    return _KINDS.get(name, _Chat)(name)


def as_array(made: Reply) -> Reply | None:
    """The reply with its events as the elements of an array; None if it has anything else."""
    if made.raw or not any(isinstance(s, bytes | Forever) for s in made.steps):
        return made
    if made.framing == "length" or "content-encoding" in made.headers:
        return None if any(isinstance(s, bytes) and b"data: " in s for s in made.steps) else made
    out: list[Any] = []
    ending = max((n for n, s in enumerate(made.steps) if isinstance(s, bytes)), default=0)
    for number, step in enumerate(made.steps):
        if isinstance(step, Forever):
            if not any(isinstance(s, bytes) for s in out):
                return None
            again = [_element(s, b",") if isinstance(s, bytes) else s for s in step.steps]
            if None in again:
                return None
            out.append(Forever(tuple(again)))
        elif isinstance(step, bytes):
            begun = any(isinstance(s, bytes) for s in out)
            element = _element(step, b",\r\n" if begun else b"[", last=number == ending)
            if element is None:
                return None
            out.append(element)
        else:
            out.append(step)
    headers = {"content-type": "application/json"}
    return msgspec.structs.replace(made, steps=tuple(out), headers=headers)


def _element(event: bytes, before: bytes, *, last: bool = False) -> bytes | None:
    """Events as elements of an array, with the array's end behind the last one if it has a reason."""
    events = event.split(b"\n\n")
    whole = all(e.startswith(b"data: {") and e.endswith(b"}") for e in events[:-1])
    if not whole or (events[-1] and not (last and events[-1].startswith(b"data: {"))):
        return None
    elements = [e.removeprefix(b"data: ") for e in events if e]
    if not all(map(_is_object, elements[: len(events) - 1])):
        return None
    end = b"\n]\n" if last and not events[-1] and b'"finishReason":"STOP"' in elements[-1] else b""
    return before + b"\n,\r\n".join(elements) + end


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(json.loads(data.decode("utf-8", "replace"), parse_int=str), dict)
    except (ValueError, RecursionError):
        return False


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
    resumes: int = 0
    """Number of times that it was taken up again, in the background."""
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
    """Return what is known of the usage before the end: Anthropic's opening and Gemini's events count."""
    return "provisional" if w.anthropic or w.gemini else "unknown"


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
        steps: Callable[[Any], Sequence[Any] | Reply],
        sees: Said,
        *,
        again: bool = False,
        wires: str = "",
        **more: Any,
    ) -> None:
        """Add one. ``again``: the next try is answered whole; ``wires``: kinds or names of the wires
        that have it, without any all that can.
        """

        def replies(w: Wire) -> list[Reply] | None:
            if wires and not {w.kind, w.name} & set(wires.split()):
                return None
            try:
                made = steps(w)
            except NotOnThisWireError:
                return None
            first = made if isinstance(made, Reply) else reply(*made)
            both = [first, reply(*w.whole)] if again else [first]
            if not w.array or w.name in wires:
                return both
            turned = [as_array(r) for r in both]
            return None if None in turned else [r for r in turned if r is not None]

        self.append(Promise(group, fault, replies, sees, **more))
