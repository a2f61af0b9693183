"""The command's words for an answer: text, closing lines, errors, exit codes, JSON.

All of it is pure: values in, text out. Nothing that a model or a server says is trusted here.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
from decimal import Decimal
from typing import Any

import msgspec

import trio_minillm as llm

from .._protocol.redaction import redact_beginnings
from ..local import LocalModelError
from ._advice import advice, last_of

EXIT_CODES = {
    0: "success: the answer is complete; for batch and bench, every answer is",
    1: "a file, or stdout, could not be written, or this program has a bug",
    2: "misuse: a wrong option or input, no prompt, no key, or a missing extra",
    3: "not sent: wrong address, no network, or the local model did not start",
    4: "refused: the key or the request is wrong",
    5: "refused for now: exhausted quota, rate limit, or an overloaded or failing server",
    6: "the answer broke off or failed: truncated, timed out, malformed, an error inside it, or not as"
    " --schema asks; for batch and bench, some requests failed",
    7: "batch: stopped by a limit you set, an exhausted quota, or a server that refuses for a long time",
    8: "compare: a condition of --fail-if holds",
    130: "interrupted by Ctrl-C",
    141: "stdout was closed by its reader, as in `| head`",
    143: "ended by SIGTERM",
}
"""The meaning of each exit code, as the page on exit codes has it."""

ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Signals that ask a command to come to its end: Ctrl-C, and what schedulers and containers send. The
exit code is then 128 and the signal's number."""

ERROR_CHARS = 600
"""Characters of the longest error that is shown on the terminal; ``--json`` has all of it."""

Row = tuple[str, str]
"""A label and a line of text."""


class Misuse(Exception):
    """A command that can't be carried out as it was given. The message says why."""


class OutputError(Exception):
    """A failed write of ``what`` to stdout, or to the file ``path``.

    ``gone`` is true if that is because stdout was closed by its reader.
    """

    def __init__(
        self, cause: OSError, what: str = "the answer", path: os.PathLike[str] | None = None
    ) -> None:
        named = what if path is None else f"{what} {os.fspath(path)}"
        super().__init__(f"{named} could not be written: {cause.strerror or cause}")
        self.cause = cause
        # On Windows it is EINVAL.
        self.gone = path is None and cause.errno in (errno.EPIPE, errno.EINVAL)


class Answer(msgspec.Struct, kw_only=True):
    """The result of a ``chat`` command."""

    response: llm.CompletionResponse = msgspec.field(default_factory=llm.CompletionResponse)
    stream: llm.TrackedStream | None = None
    error: Exception | None = None
    interrupted: signal.Signals | None = None
    """The signal that ended it: SIGINT, which is Ctrl-C, or SIGTERM."""
    secret: str = ""
    """The key that was sent, to be removed from whatever the server said."""


# -- text ----------------------------------------------------------------------------------

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """Return the text with a symbol for every control character but tab and newline."""
    return _CONTROLS.sub(_symbol, text.replace("\r\n", "\n"))


def _symbol(match: re.Match[str]) -> str:
    code = ord(match[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def one_line(text: str, limit: int = ERROR_CHARS) -> str:
    """Return the text on one line, without control characters, and cut at ``limit`` characters."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"


# -- the closing lines ---------------------------------------------------------------------


def closing_rows(response: llm.CompletionResponse) -> list[Row]:
    """Return what is known of the answer beside its text."""
    usage, timings = response.usage, response.timings
    about = [response.finish_reason or "", response.model, response.id]
    rows = [(str(response.outcome or "not sent"), " · ".join(filter(None, about)))]
    if response.refusal:
        rows.append(("declined", response.refusal))
    made = (("images", len(response.images)), ("audio", int(bool(response.audio))))
    rows += [(kind, f"{n}, in --json and --raw") for kind, n in made if n]
    rows += [("tool call", _call(call)) for call in response.tool_calls]
    rows += [("tool call", f"INVALID {_call(call)}") for call in response.invalid_tool_calls]
    ended = response.outcome is llm.Outcome.FINISHED
    rows.append(("tokens", "unknown" if usage is None else usage_line(usage, ended=ended)))
    if timings.total is not None:
        rows.append(("time", timings_line(timings)))
    rows.append(("cost", cost_line(response.cost)))
    rows += [("note", note) for note in response.notes]
    return [(label, one_line(line)) for label, line in rows]


def _call(call: llm.ToolCall) -> str:
    return f"{call.name or '(nameless)'}({call.arguments})"


def usage_line(usage: llm.Usage, *, ended: bool) -> str:
    """Return ``31 in (12 cached) · 120 out (80 reasoning) · 151 in all``, as far as it is known.

    ``ended`` says that the answer is whole, so that a count which is not final is in doubt.
    """

    def side(total: int | None, word: str, *parts: tuple[int | None, str]) -> str:
        inside = ", ".join(f"{n:,} {what}" for n, what in parts if n)
        count = "?" if total is None else f"{total:,}"
        return f"{count} {word} ({inside})" if inside else f"{count} {word}"

    cached = (usage.cache_read_tokens, "cached"), (usage.cache_write_tokens, "written to cache")
    sides = [
        side(usage.prompt_tokens, "in", *cached),
        side(usage.completion_tokens, "out", (usage.reasoning_tokens, "reasoning")),
    ]
    if usage.prompt_tokens is not None and usage.completion_tokens is not None:
        sides.append(f"{usage.total_tokens:,} in all")
    return " · ".join(sides) + ("" if usage.final else " · in doubt" if ended else " · so far")


def many(count: int, noun: str) -> str:
    """Return a number with its noun: ``1 line``, ``2,000 lines``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def rate(timings: llm.Timings) -> float | None:
    """Return the chunks per second between the first and the last, or None if there are not two."""
    first, last = timings.first_chunk, timings.last_chunk
    if first is None or last is None or last <= first or timings.chunks < 2:
        return None
    return (timings.chunks - 1) / (last - first)


def timings_line(timings: llm.Timings) -> str:
    """Return ``headers 0.12 s · first chunk 0.34 s · total 2.10 s · 64 chunks, 36.4/s``."""
    first, total = timings.first_chunk, timings.total
    stamps = ("headers", timings.headers), ("first chunk", first), ("total", total)
    parts = [f"{name} {at:.2f} s" for name, at in stamps if at is not None]
    speed = rate(timings)
    chunks = many(timings.chunks, "chunk")
    parts.append(chunks if speed is None else f"{chunks}, {speed:,.1f}/s")
    if timings.attempts > 1:
        parts.append(f"{timings.attempts} attempts")
    return " · ".join(parts)


def usd(amount: Decimal) -> str:
    """Return an amount without trailing zeros, and never as 1E-7."""
    whole, point, rest = f"{amount:f}".partition(".")
    rest = rest.rstrip("0")
    return f"{whole}{point}{rest}" if rest else whole


def cost_line(cost: llm.CostInfo) -> str:
    """Return the amount and how far it can be trusted, or why there is none."""
    if cost.amount is None:
        unpriced = cost.resolution is llm.CostResolution.UNPRICED
        return "unpriced (tokens known, price not)" if unpriced else f"{cost.resolution}"
    least = "at least " if cost.resolution is llm.CostResolution.LOWER_BOUND else ""
    of = "" if cost.as_of is None else f" of {cost.as_of}"
    whose = {"native": " (the provider's figure)", "price": f" (price{of} times usage)"}
    return f"{least}${usd(cost.amount)}{whose.get(cost.source or '', '')}"


# -- errors, exit codes, JSON --------------------------------------------------------------


def exit_code(answer: Answer) -> int:
    """Return the exit code of a ``chat`` command."""
    if answer.interrupted and answer.response.outcome is not llm.Outcome.FINISHED:
        return 128 + answer.interrupted
    return error_code(answer.error)


def error_code(error: Exception | None) -> int:
    """Return the one of `EXIT_CODES` for an error; 0 for None."""
    error = last_of(error)
    if isinstance(error, OutputError):
        return 141 if error.gone else 1
    if isinstance(error, llm.RefusedError):
        return 4 if error.kind in ("auth", "invalid") else 5
    kinds = (Misuse, 2), (llm.SendError, 3), (LocalModelError, 3), (llm.MiniLLMError, 6)
    return next((code for kind, code in kinds if isinstance(error, kind)), 1 if error else 0)


def error_line(
    error: Exception, variable: str | None, secret: str = "", *, paid: bool = True
) -> str:
    """Return one line that says what went wrong and what to do. The arguments are those of `advice`, and
    the key.
    """
    hint = advice(error, variable, paid=paid)
    return f"error: {one_line(redact_beginnings(str(error), secret))}" + (
        f" ({hint})" if hint else ""
    )


def error_fields(error: Exception, secret: str = "") -> dict[str, Any]:
    """Return an error for ``--json``, with null for fields that do not apply to it."""
    last = last_of(error)
    names = ("kind", "status", "code", "clock", "retry_after", "request_id")
    known = {name: getattr(last, name, None) for name in names}
    fields = {"type": type(last).__name__, "message": str(last), **known}
    return {k: redact_beginnings(v, secret) if isinstance(v, str) else v for k, v in fields.items()}


def json_line(answer: Answer) -> bytes:
    """Return the answer as one line of JSON that is safe to show on a terminal."""
    response, usage, cost = answer.response, answer.response.usage, answer.response.cost
    counts = msgspec.to_builtins(usage)
    if usage is not None:
        del counts["raw"]
        counts |= {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.total_tokens}
    names = (
        *("outcome", "content", "reasoning", "refusal", "tool_calls", "invalid_tool_calls"),
        *("images", "audio", "finish_reason", "id", "model"),
    )
    fields = {name: getattr(response, name) for name in names}
    fields |= {
        "request_id": redact_beginnings(response.request_id or "", answer.secret) or None,
        "usage": counts,
        "cost": {
            "amount": None if cost.amount is None else f"{cost.amount:f}",
            "resolution": cost.resolution,
            "source": cost.source,
            "as_of": cost.as_of,
        },
        "timings": {
            **msgspec.to_builtins(response.timings),
            "chunks_per_second": rate(response.timings),
        },
        "notes": response.notes,
        "error": None if answer.error is None else error_fields(answer.error, answer.secret),
        "exit_code": exit_code(answer),
    }
    return safe_json(fields)


def safe_json(fields: dict[str, Any]) -> bytes:
    """Return one line of JSON that is safe to show on a terminal."""
    try:
        text = msgspec.json.encode(fields).decode()
    except UnicodeEncodeError:  # half a surrogate pair: an argument or a name that is not UTF-8
        plain = json.dumps(msgspec.to_builtins(fields), ensure_ascii=False, separators=(",", ":"))
        text = plain.encode("utf-8", "replace").decode()
    # msgspec escapes what JSON demands; terminals interpret some more.
    return re.sub(r"[\x7f-\x9f]", lambda m: f"\\u{ord(m[0]):04x}", text).encode() + b"\n"
