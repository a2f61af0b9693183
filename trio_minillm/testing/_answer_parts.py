"""The parts of an answer in neutral terms, of which the events of every wire format are made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from .._types.checks import check_type, wrong_type
from .._types.messages import ReasoningPart, TextPart, ToolCall
from .._types.usage import Usage

AnswerPart: TypeAlias = str | TextPart | ReasoningPart | ToolCall
"""A part of a scripted answer: text, `reasoning`, or a `tool_call`. Consecutive texts are pieces of
one block."""

Finish: TypeAlias = Literal["auto", "stop", "length", "tool_calls", "content_filter"]
"""The reason why an answer ends. ``auto`` is ``tool_calls`` where there are calls, else ``stop``."""

PROMPT_TOKENS = 7
"""Tokens of the prompt, where no usage is given. Of output there is one for each piece."""


def tool_call(
    name: str, arguments: Mapping[str, Any] | str | None = None, *, id: str = ""
) -> ToolCall:
    """Return a tool call for `answer` and the other builders.

    - ``name`` is the name of the tool.
    - ``arguments`` are a mapping, or the text that the model writes, which need not be JSON.
    - ``id`` is the id of the call. Without one, the builder numbers the call.
    """
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, str):
        check_type("arguments", arguments, Mapping)
        arguments = msgspec.json.encode(arguments).decode()
    return ToolCall(id=id, name=name, arguments=arguments)


def reasoning(text: str, *, signature: str | None = None) -> ReasoningPart:
    """Return reasoning for `answer` and the other builders.

    ``signature`` is for Anthropic's and Gemini's formats.
    """
    return ReasoningPart(text=text, signature=signature)


class Block(msgspec.Struct):
    """One block of an answer: the pieces of a text, reasoning, or a call."""

    kind: Literal["text", "reasoning", "call"]
    pieces: list[str]
    call: ToolCall = ToolCall(id="", name="")
    number: int = 0
    """Number of a call among the calls, from 0."""
    signature: str | None = None

    @property
    def text(self) -> str:
        """All pieces together."""
        return "".join(self.pieces)


class Blocks:
    """An answer in neutral terms. Raises ``TypeError`` for what is no part of one."""

    def __init__(self, parts: Iterable[AnswerPart | Block]) -> None:
        self.all: list[Block] = []
        self.calls: list[Block] = []
        for part in parts:
            self._add(part)
        self.pieces: int = sum(len(block.pieces) for block in self.all)
        if not self.all:
            self.all.append(Block("text", []))  # most servers send an empty one

    def _add(self, part: AnswerPart | Block) -> None:
        if isinstance(part, Block):
            self.all.append(part)
            self.calls += [part] if part.kind == "call" else []
        elif isinstance(part, str | TextPart):
            text = part if isinstance(part, str) else part.text
            if self.all and self.all[-1].kind == "text":
                self.all[-1].pieces.append(text)
            else:
                self.all.append(Block("text", [text]))
        elif isinstance(part, ReasoningPart):
            self.all.append(Block("reasoning", [part.text], signature=part.signature))
        elif isinstance(part, ToolCall):
            number = len(self.calls)
            call = msgspec.structs.replace(part, id=part.id or f"call_{number + 1}")
            self.calls.append(Block("call", [call.arguments], call, number))
            self.all.append(self.calls[-1])
        else:
            raise wrong_type("a part of an answer", part, str, ReasoningPart, ToolCall)

    def text_of(self, kind: str) -> str:
        """Return the text of all blocks of a kind."""
        return "".join(block.text for block in self.all if block.kind == kind)

    def only_text(self, wire: str) -> None:
        """Raise ``ValueError`` if there is anything but text."""
        if any(block.kind != "text" for block in self.all):
            raise ValueError(f"{wire} have neither reasoning nor calls")

    def usage(self, given: Usage | bool) -> Usage:
        """Return the usage that was given, or one by the number of pieces."""
        if isinstance(given, Usage):
            return given
        check_type("usage", given, bool)
        return Usage(uncached_input_tokens=PROMPT_TOKENS, completion_tokens=self.pieces)

    def reason(self, given: str | None, words: Mapping[str, str]) -> str | None:
        """Return a finish reason in a wire format's own words; what is none of ours stays as it is."""
        if given == "auto":
            given = "tool_calls" if self.calls else "stop"
        return None if given is None else words.get(given, given)


def check_finish(given: object) -> None:
    """Raise ``ValueError`` for a finish reason that not every wire format has a word for."""
    if given not in get_args(Finish):
        raise ValueError(f"finish must be one of {', '.join(map(repr, get_args(Finish)))}")
