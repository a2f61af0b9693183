"""Make a conversation fit for any server: calls with ids it takes, each followed by its result.

A history may have been made with other models, shortened, or interrupted. What every server refuses
is repaired here by a stated rule, or is a ``ValueError`` that names the message; what only some
refuse is left to the builder of their requests.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import count

import msgspec

from .._types.messages import Message, Part, TextPart, ToolCall, ToolResult
from .._types.schemas import plain_name

NO_RESULT = "No result: this call was not carried out."
"""Text of the result of a call that later messages pass over."""

OPENING = "(The conversation begins with your message.)"
"""Text of the user's turn before a conversation that the model begins, where that is refused."""


class CallIds(msgspec.Struct, frozen=True):
    """The ids of calls that a server takes, and the shape of those that replace the others."""

    accepted: str
    """Regular expression for the whole id."""
    prefix: str = "call_"
    length: int = 24
    """Letters and digits behind the prefix of a new id."""
    any_name: bool = True
    """False if names of functions have letters, digits, ``_`` and ``-`` only, and at most 64."""

    def accept(self, ident: str) -> bool:
        """Return whether the server takes an id."""
        return re.fullmatch(self.accepted, ident, re.DOTALL) is not None

    def replaced(self, ident: str, number: int, taken: set[str]) -> str:
        """Return the id for the ``number``-th call with this one: always the same, and not taken."""
        salted = (f"{number}.{salt}.{ident}".encode("utf-8", "replace") for salt in count())
        digests = (hashlib.sha256(text).digest() for text in salted)
        made = (self.prefix + _letters(int.from_bytes(d, "big"), self.length) for d in digests)
        return next(ident for ident in made if ident not in taken)


_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

ANY_IDS = CallIds(".+")
OPENAI_IDS = CallIds(".{1,40}", any_name=False)
"""OpenAI's: "expected a string with maximum length 40" (vercel/ai#5171, litellm#17343)."""
RESPONSES_IDS = CallIds(".{1,64}", any_name=False)
"""OpenAI Responses': "string too long. Expected a string with maximum length 64"."""
MISTRAL_IDS = CallIds("[A-Za-z0-9]{9}", prefix="", length=9, any_name=False)
"""Mistral's: "must be a-z, A-Z, 0-9, with a length of 9" (anomalyco/opencode#1680,
karthink/gptel#1203)."""
ANTHROPIC_IDS = CallIds("[A-Za-z0-9_-]{1,64}", prefix="toolu_", any_name=False)
"""Anthropic's pattern (reference of ``tool_use``); the length is that of the same models at Bedrock."""

_FAMILIES = (
    (r"(mis|minis|magis|pix|devs|codes)tral|mixtral", MISTRAL_IDS),
    (r"claude|anthropic/", ANTHROPIC_IDS),
    (r"^(openai/)?(gpt-(?!oss)|o\d)", OPENAI_IDS),
)


@lru_cache(maxsize=256)
def ids_of_family(model: str) -> CallIds:
    """Return the ids that a model's vendor takes, for servers that pass requests on to several."""
    name = model.lower()
    return next((ids for known, ids in _FAMILIES if re.search(known, name)), ANY_IDS)


def _letters(number: int, length: int) -> str:
    out = []
    for _ in range(length):
        number, rest = divmod(number, len(_LETTERS))
        out.append(_LETTERS[rest])
    return "".join(out)


class _Turn:
    """The calls of one message of the model, and the results that they have got."""

    def __init__(self, calls: Sequence[ToolCall], ids: Sequence[str]) -> None:
        self.calls = calls
        self.ids = ids
        self.results: dict[int, ToolResult] = {}

    def open_call(self, result: ToolResult) -> int | None:
        """Return the number of the first call that the result can be of: of its name, if any is."""
        found = [
            number
            for number, call in enumerate(self.calls)
            if call.id == result.call_id and number not in self.results
        ]
        named = [n for n in found if self.calls[n].name == result.name]
        return next(iter(named or found), None)

    def message(self) -> Message:
        """Return the results in the order of the calls, one for each."""
        parts: list[ToolResult] = []
        for number, ident in enumerate(self.ids):
            result = self.results.get(number)
            if result is None:
                result = ToolResult(call_id=ident, content=(TextPart(NO_RESULT),), is_error=True)
            name = result.name or self.calls[number].name
            parts.append(msgspec.structs.replace(result, call_id=ident, name=name))
        return Message(role="tool", parts=tuple(parts))


_CALLS = (ToolCall, ToolResult)


def paired(messages: Sequence[Message], accepted: CallIds) -> list[Message]:
    """Return the messages with each call's result right behind its turn, under ids of their own.

    Ids that the server takes stay, but for the second call with the same one. The result of a call
    is the first with its id that comes later, of several calls with one id in one turn the one with
    the result's name. A call that later messages pass over gets the result `NO_RESULT`; one in the
    last message is left open.

    Raises ``ValueError`` for a result without a call before it.
    """
    if not any(isinstance(p, _CALLS) for m in messages for p in m.parts):
        return list(messages)
    taken = {p.id for m in messages for p in m.parts if isinstance(p, ToolCall)}
    counts: dict[str, int] = {}
    turns: list[_Turn] = []
    out: list[Message | _Turn] = []
    for number, message in enumerate(messages):
        if message.role == "assistant":
            calls = [p for p in message.parts if isinstance(p, ToolCall)]
            ids = [_own_id(call, accepted, counts, taken) for call in calls]
            out.append(_renamed(message, ids, any_name=accepted.any_name))
            if calls:
                turns.append(_Turn(calls, ids))
                out.append(turns[-1])
            continue
        rest = tuple(p for p in message.parts if not isinstance(p, ToolResult))
        for part in message.parts:
            if isinstance(part, ToolResult):
                _give(part, turns, number)
        if rest or len(rest) == len(message.parts):
            out.append(msgspec.structs.replace(message, parts=rest))
    if out and isinstance(out[-1], _Turn) and not out[-1].results:
        out.pop()
    return [entry.message() if isinstance(entry, _Turn) else entry for entry in out]


def _own_id(call: ToolCall, accepted: CallIds, counts: dict[str, int], taken: set[str]) -> str:
    number = counts.get(call.id, 0)
    counts[call.id] = number + 1
    if number == 0 and accepted.accept(call.id):
        return call.id
    made = accepted.replaced(call.id, number, taken)
    taken.add(made)
    return made


def _renamed(message: Message, ids: Iterable[str], *, any_name: bool) -> Message:
    new = iter(ids)
    parts: tuple[Part, ...] = tuple(
        msgspec.structs.replace(p, id=next(new), name=p.name if any_name else _plain_name(p.name))
        if isinstance(p, ToolCall)
        else p
        for p in message.parts
    )
    return msgspec.structs.replace(message, parts=parts)


def _plain_name(name: str) -> str:
    """Return a function's name as every server takes it: local models call ``files.read file:x``."""
    return name if re.fullmatch(_NAME, name) else plain_name(name, "function")


_NAME = "[A-Za-z0-9_-]{1,64}"


def _give(result: ToolResult, turns: Sequence[_Turn], number: int) -> None:
    """Give a result to the newest turn that has an open call for it."""
    for turn in reversed(turns):
        call = turn.open_call(result)
        if call is not None:
            turn.results[call] = result
            return
    raise ValueError(
        f"messages[{number}]: a tool result without a call before it that waits for one"
    )
