"""Faults as text: ``cut(-20)``, ``5% status(429, retry_after=1)``. Pure, and nothing is evaluated."""

from __future__ import annotations

import ast
import inspect
import re
from contextlib import suppress
from typing import Any, Final

import msgspec

from ..testing import faults
from ..testing._script import Fault, Reply, Step
from ..testing._steps import event_number, events_of
from ..testing._wire_answers import sse

NAMES: Final = tuple(sorted({*faults.__all__, "error"} - {"Fault", "edit"}))
"""The faults that can be written: those of `trio_minillm.testing.faults` whose arguments are literals, and
``error``."""
_SHARE: Final = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*%\s*(.*)", re.DOTALL)


class SharedFault(msgspec.Struct, frozen=True):
    """A fault, and the share of requests that it strikes."""

    name: str
    share: float
    """From 0 to 1."""
    arguments: tuple[tuple[Any, ...], dict[str, Any]]

    def on(self, wire: str) -> Fault:
        """Return the fault for an answer in this wire format."""
        given, named = self.arguments
        if self.name == "error":
            return error(wire, *given, **named)
        made: Fault = getattr(faults, self.name)(*given, **named)
        return made


def fault_from(text: str) -> SharedFault:
    """Return a fault out of its text. Raises ``ValueError`` for what is none."""
    share, call = 1.0, text.strip()
    if found := _SHARE.fullmatch(call):
        share, call = float(found[1]) / 100, found[2].strip()
    if not 0 <= share <= 1:
        raise ValueError(f"fault {text!r}: the share must be from 0 to 100%")
    node: ast.expr | None = None
    with suppress(SyntaxError, ValueError, RecursionError, MemoryError):
        node = ast.parse(call, mode="eval").body
    given: list[ast.expr] = []
    named: list[ast.keyword] = []
    if isinstance(node, ast.Call):
        given, named = node.args, node.keywords
        node = node.func
    if not isinstance(node, ast.Name) or node.id not in NAMES:
        raise ValueError(f"fault {text!r}: must be one of {', '.join(NAMES)}")
    try:
        values = tuple(ast.literal_eval(value) for value in given)
        options = {str(word.arg): ast.literal_eval(word.value) for word in named}
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"fault {text!r}: arguments must be literals, such as 1 or 'x'") from None
    made = SharedFault(node.id, share, (values, options))
    try:
        made.on("openai")
    except (TypeError, ValueError) as exc:
        function = error if node.id == "error" else getattr(faults, node.id)
        shape = str(inspect.signature(function)).partition(" ->")[0]
        raise ValueError(f"fault {text!r}: {exc}; write {node.id}{_plain(shape)}") from None
    return made


def _plain(signature: str) -> str:
    return (
        re.sub(r""": (?:'[^']*'|"[^"]*"|[\w.]+)""", "", signature)
        .replace(" = ", "=")
        .replace("(wire, ", "(")
    )


def error(
    wire: str, at: int = -1, message: str = "overloaded", kind: str = "server_error"
) -> Fault:
    """Return the fault of an error inside the stream, in place of event ``at`` and all that follow.

    Events are counted from 0, and from the end by negative numbers.
    """
    event = error_event(wire, message, kind)

    def change(reply: Reply) -> Reply:
        groups = events_of(reply.steps)
        steps: list[Step] = [s for group in groups[: event_number(at, groups)] for s in group]
        return msgspec.structs.replace(reply, steps=(*steps, event))

    return change


def error_event(wire: str, message: str, kind: str = "server_error") -> bytes:
    """Return the event of an error inside a stream."""
    body = error_body(wire, 500, message, kind)
    if wire == "anthropic":
        return sse(body, "error")
    if wire == "responses":
        failed = {"code": kind, "message": message}
        response = {"id": "resp_1", "object": "response", "status": "failed", "error": failed}
        return sse({"type": "response.failed", "response": response}, "response.failed")
    return sse(body)


def error_body(wire: str, status: int, message: str, kind: str) -> dict[str, Any]:
    """Return an error as the wire format has it."""
    if wire == "anthropic":
        return {"type": "error", "error": {"type": kind, "message": message}}
    if wire == "gemini":
        named = {"code": status, "message": message, "status": kind.upper()}
        return {"error": named}
    return {"error": {"message": message, "type": kind, "param": None, "code": status}}
