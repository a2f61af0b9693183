"""``--verbose``: each request and its response on stderr, as the client's observer is told of them.

Nothing is shown of what stands in a request or an answer: the body of a request is a list of its fields
with their sizes. Keys, cookies and queries of addresses are left out.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio

import trio_minillm as llm

from .._protocol.redaction import redact_beginnings
from .._toolkit.observers.log_records import described
from ._output import Misuse, many, one_line
from ._terminal import StatusLine, say_between

LINE_CHARS = 400
"""Characters of the longest line."""


def watcher(*, verbose: bool, quiet: bool, secret: str) -> Watcher | None:
    """Return the observer of ``--verbose``, if that was given. Raises `Misuse` beside ``--quiet``.

    ``secret`` is the key, or a line of it for each model.
    """
    if not verbose:
        return None
    if quiet:
        raise Misuse("--verbose can't be combined with --quiet")
    return Watcher(secret)


class Watcher(llm.Observer):
    """An observer that prints what is sent and what comes back.

    Each line begins with the number of the attempt in this run, because many may run at once.
    """

    wants_http = True

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._numbers: dict[llm.ObservedAttempt, int] = {}
        """The attempts that are under way."""
        self._last = 0
        self._failed: dict[int, tuple[object, float]] = {}
        """The end of a call's newest attempt, if another is to follow. A call is known by its parameters,
        which are the same object each time as long as they are held."""
        self._clear = "\x1b[J" if StatusLine().changes else ""

    def attempt_began(self, attempt: llm.ObservedAttempt) -> None:
        self._last += 1
        number = self._numbers[attempt] = self._last
        sent = attempt.http
        lines: list[str] = []
        if attempt.number > 1:
            lines.append(f"* attempt {attempt.number} of this request{self._waited(attempt)}")
        if sent is not None:
            lines.append(f"> {sent.method} {attempt.url}")
            lines += _header_lines(">", sent.headers)
            fields = ", ".join(f"{name} {size:,}" for name, size in sent.fields.items())
            lines.append(f"> body of {sent.size:,} bytes: {fields}")
        self._tell(number, lines)

    def answer_began(self, attempt: llm.ObservedAttempt, seconds: float) -> None:
        self._tell(self._numbers.get(attempt, 0), [f"* first content after {seconds:.3f} s"])

    def attempt_ended(self, attempt: llm.ObservedAttempt, end: llm.AttemptEnd) -> None:
        number, got = self._numbers.pop(attempt, 0), end.http
        lines: list[str] = []
        if got is not None:
            after = end.timings.headers
            when = "" if after is None else f" after {after:.3f} s"
            lines += [f"< HTTP {got.status}{when}", *_header_lines("<", got.headers)]
        ending = f"* {end.outcome} after {end.seconds:.3f} s"
        if got is not None and got.size:
            ending += f", {got.size:,} bytes, {many(end.timings.chunks, 'chunk')}"
        if end.record.request_id:
            ending += f", request {end.record.request_id}"
        lines.append(ending)
        if end.error is not None:
            again = "; another attempt follows" if end.retried else ""
            lines.append(f"* {described(end.error)}{again}")
        if end.retried:
            self._failed[id(attempt.params)] = attempt.params, trio.current_time()
        self._tell(number, lines)

    def _waited(self, attempt: llm.ObservedAttempt) -> str:
        """Return how long the same call has waited since its attempt before, if it made that."""
        _, failed_at = self._failed.pop(id(attempt.params), (None, None))
        if failed_at is None:
            return ""
        return f", after a wait of {trio.current_time() - failed_at:.3f} s"

    def _tell(self, number: int, lines: list[str]) -> None:
        text = "".join(f"[{number}] {one_line(line, LINE_CHARS)}\n" for line in lines)
        say_between(self._clear + redact_beginnings(text, self._secret))


def _header_lines(mark: str, headers: Mapping[str, str]) -> list[str]:
    return [f"{mark} {name}: {value}" for name, value in headers.items()]
